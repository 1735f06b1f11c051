"""Checks of the exercises of the part *importance*."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import shaplab
from shaplab_book.checking import expect

__all__ = [
    "ex_given",
    "ex_mutual",
    "ex_performance",
    "ex_square_of_mean",
    "ex_swap",
    "ex_telescope",
]


def ex_square_of_mean(answer: Callable[..., Any]) -> None:
    """``square_of_mean(errors)``: the square of the draws' mean, which is too large on average."""
    hint = "Only products of two different draws may count"
    expect("equal errors", answer(np.full((2, 1), 3.0)), [9.0], 1e-12, hint)
    expect("errors of zero", answer(np.zeros((4, 2))), [0.0, 0.0], 1e-12, hint)
    rng = np.random.default_rng(0)
    for m, k in ((2, 3), (4, 1), (5, 6)):
        errors = rng.normal(size=(m, k))
        pairs = list(itertools.permutations(range(m), 2))
        wanted = np.mean([errors[a] * errors[b] for a, b in pairs], axis=0)
        expect(f"{m} draws of {k} coalitions", answer(errors), wanted, 1e-12, hint)
    population = np.array([-1.0, 0.5, 2.0])
    draws = [np.array(d)[:, None] for d in itertools.product(population, repeat=3)]
    mean = np.mean([answer(draw)[0] for draw in draws])
    expect("the mean over all draws of three", mean, population.mean() ** 2, 1e-12, hint)


def ex_telescope(answer: Callable[..., Any]) -> None:
    """``telescoped_loss(outputs, loss, reach, rng)``: not dividing a step by its probability."""
    hint = "Add (L_k - L_(k-1)) / q_k for every level that is reached, with L_(-1) = 0"
    rng = np.random.default_rng(0)
    outputs = np.sort(rng.uniform(0.05, 0.95, size=8))

    def squared(prediction: float) -> float:
        return (prediction - 1.0) ** 2

    def cross_entropy(prediction: float) -> float:
        return -float(np.log(prediction))

    for loss in (squared, cross_entropy):
        truth = loss(outputs.mean())
        for reach in ([1.0], [1.0, 1.0, 1.0]):
            name = f"{loss.__name__} with all levels sure, {len(reach)} in all"
            expect(name, answer(outputs, loss, reach, rng), truth, 1e-12, hint)
        for reach in ([1.0, 0.5], [1.0, 0.4, 0.2]):
            draws = [answer(outputs, loss, reach, rng) for _ in range(4000)]
            # The mean of 4,000 draws within six of its standard errors.
            room = 6 * float(np.std(draws)) / np.sqrt(4000)
            name = f"the mean of 4,000 draws of {loss.__name__} with reach {reach}"
            expect(name, np.mean(draws), truth, room, hint)
    ends = {round(answer(outputs[:2], float, [1.0, 1e-9], rng), 9) for _ in range(60)}
    wanted = {round(float(value), 9) for value in outputs[:2]}
    expect("two rows and a level that is never reached", ends, wanted, hint="Draw the start")


def ex_performance(answer: Callable[..., Any]) -> None:
    """``performance(f, X, y, background, known)``: taking the loss before the mean."""
    hint = "Average the predictions over the background first, then take the loss, with a minus"
    rng = np.random.default_rng(0)

    def model(X: np.ndarray) -> np.ndarray:
        return X[:, 0] * X[:, -1] + np.tanh(X).sum(axis=1)

    for rows, size, players in ((1, 1, 1), (5, 1, 2), (4, 6, 3)):
        X = rng.normal(size=(rows, players))
        y = rng.normal(size=rows)
        background = rng.normal(size=(size, players))
        marginal = shaplab.MarginalGame(model, X, background)
        game = shaplab.MeanGame(shaplab.LossOfMean(marginal, y, "mse"))
        for known in shaplab.all_coalitions(players):
            name = f"{rows} rows, {size} background rows and known = {known.tolist()}"
            wanted = game(known[None])[0]
            expect(name, answer(model, X, y, background, known), wanted, 1e-12, hint)


def ex_swap(answer: Callable[..., Any]) -> None:
    """``swap_importance(f, X, y, j)``: leaving out the pairs of a row with itself."""
    hint = "All n times n pairs count, those of a row with itself as well; then take off the error"
    rng = np.random.default_rng(0)

    def model(X: np.ndarray) -> np.ndarray:
        return X[:, 0] * X[:, 1] + X[:, 2] ** 2

    for rows in (1, 2, 7):
        X = rng.normal(size=(rows, 4))
        y = rng.normal(size=rows)
        kept = X.copy()
        for j in (0, 2, 3):
            total = 0.0
            for one, other in itertools.product(range(rows), repeat=2):
                row = X[one].copy()
                row[j] = X[other, j]
                total += (model(row[None])[0] - y[one]) ** 2
            wanted = total / rows**2 - np.mean((model(X) - y) ** 2)
            expect(f"column {j} of {rows} rows", answer(model, X, y, j), wanted, 1e-12, hint)
        expect(f"the caller's table of {rows} rows", X, kept, 0.0, "Work on a copy")


def ex_mutual(answer: Callable[..., Any]) -> None:
    """``mutual_information(joint)``: the logarithm of a probability of 0, which makes it nan."""
    hint = "Compare each entry with the product of its margins; entries of 0 add nothing"
    expect("a coin and its copy", answer(np.eye(2) / 2), np.log(2), 1e-12, hint)
    expect("two independent coins", answer(np.full((2, 2), 0.25)), 0.0, 1e-12, hint)
    expect("one state", answer(np.array([[0.3, 0.7]])), 0.0, 1e-12, hint)
    expect("a state that never is", answer(np.array([[0.0, 0.0], [0.5, 0.5]])), 0.0, 1e-12, hint)
    rng = np.random.default_rng(0)
    for shape in ((2, 3), (8, 3)):
        joint = rng.dirichlet(np.ones(shape[0] * shape[1])).reshape(shape)

        def entropy(p: np.ndarray) -> float:
            return -float(np.sum(p * np.log(p)))

        wanted = entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1)) - entropy(joint)
        expect(f"a random table of shape {shape}", answer(joint), wanted, 1e-12, hint)


def ex_given(answer: Callable[..., Any]) -> None:
    """``given(mean, covariance, known, x)``: forgetting to take the mean from the known values."""
    hint = "The known values count as differences from their means"
    rng = np.random.default_rng(0)
    for players in (2, 3, 5):
        root = rng.normal(size=(players, players + 2))
        covariance = root @ root.T
        mean = rng.normal(size=players)
        x = rng.normal(size=players)
        precision = np.linalg.inv(covariance)
        for known in shaplab.all_coalitions(players)[:: max(1, 2 ** (players - 3))]:
            centre, left = answer(mean, covariance, known, x)
            # Another way to the same: blocks of the inverse of the covariance.
            wanted = np.linalg.inv(precision[np.ix_(~known, ~known)])
            pull = precision[np.ix_(~known, known)] @ (x - mean)[known]
            name = f"{players} features and known = {known.tolist()}"
            expect(f"the mean of {name}", centre, mean[~known] - wanted @ pull, 1e-9, hint)
            expect(f"the covariance of {name}", left, wanted, 1e-9)
