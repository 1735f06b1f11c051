"""Checks of the exercises of the part *insight*."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import shaplab
from shaplab_book.checking import expect

__all__ = [
    "ex_clusters_held",
    "ex_clusters_medoids",
    "ex_conformal",
    "ex_dependence_curves",
    "ex_dependence_pair",
    "ex_evidence",
    "ex_keep_curve",
    "ex_misfit",
    "ex_people_fair",
    "ex_people_path",
    "ex_selection_power",
    "ex_selection_score",
    "ex_summary_far",
    "ex_summary_largest",
    "ex_why_pairs",
    "ex_why_weight",
]


def ex_summary_largest(answer: Callable[..., Any]) -> None:
    """``largest_for(phi)``: giving every tie to the first feature, as argmax does."""
    hint = "Sizes count, not signs; k largest values in a row get 1/k of it each"
    cases = {
        "one row": ([[1.0, -3.0]], [0.0, 1.0]),
        "a tie": ([[2.0, -2.0, 1.0]], [0.5, 0.5, 0.0]),
        "a row of zeros": ([[0.0, 0.0], [0.0, 5.0]], [0.25, 0.75]),
        "one feature": ([[1.0], [0.0]], [1.0]),
        "three rows": (
            [[1.0, 2.0, -9.0], [4.0, 0.0, 1.0], [-3.0, 3.0, 3.0]],
            [4 / 9, 1 / 9, 4 / 9],
        ),
    }
    for name, (phi, wanted) in cases.items():
        expect(name, answer(np.array(phi)), wanted, 1e-12, hint)


def ex_summary_far(answer: Callable[..., Any]) -> None:
    """``far_share(phi, times)``: distances from 0 in place of the median."""
    hint = "The distance from the column's median, against `times` the mean of the sizes"
    rng = np.random.default_rng(0)
    constant = np.full((5, 1), 2.0)
    expect("a column that does not vary", answer(constant, 1.0), [0.0], 1e-12, hint)
    expect("a column that does not vary, times 0.5", answer(constant, 0.5), [0.0], 1e-12, hint)
    for rows, players in ((1, 2), (9, 1), (200, 3)):
        phi = rng.standard_t(2, size=(rows, players)) + 1.0
        for times in (0.5, 1.0, 3.0):
            wanted = []
            for column in phi.T:
                bar = sum(abs(value) for value in column) / rows
                middle = float(np.median(column))
                wanted.append(sum(abs(value - middle) > times * bar for value in column) / rows)
            name = f"{rows} rows of {players} features and times = {times}"
            expect(name, answer(phi, times), wanted, 1e-12, hint)


def ex_conformal(answer: Callable[..., Any]) -> None:
    """``rank_of_last(values, uniform)``: counting ties whole, whatever is drawn."""
    hint = "Larger values count 1 each, equal ones `uniform` each, the last itself among them"
    cases: list[tuple[list[float], float, float]] = [
        ([5.0], 0.3, 0.3),
        ([1.0, 2.0], 0.5, 0.25),
        ([2.0, 1.0], 0.5, 0.75),
        ([3.0, 3.0, 1.0, 3.0], 0.5, 0.375),
        ([3.0, 3.0, 1.0, 3.0], 0.0, 0.0),
        ([-5.0, -4, -4, -3, -3, -2, -2, -1, -1, 0, 3], 0.5, 0.5 / 11),
    ]
    for values, uniform, wanted in cases:
        got = answer(np.array(values), uniform)
        expect(f"the values {values} and uniform = {uniform}", got, wanted, 1e-12, hint)


def ex_evidence(answer: Callable[..., Any]) -> None:
    """``evidence(p, reference, stake, power)``: betting all of it from the first row on."""
    hint = "The share w_k starts at row k; shares that have not started keep their worth"
    rng = np.random.default_rng(0)
    for rows, reference, stake, power in ((1, 5, 0.5, 1), (6, 10, 0.9, 1), (40, 20, 0.5, 4)):
        p = rng.random(rows) ** 2
        h = 1 - 2 * p
        wins = 1 + stake * np.sign(h) * np.abs(h) ** power
        wanted = []
        for t in range(1, rows + 1):
            k = np.arange(1, 1 + t)
            shares = reference / ((k - 1 + reference) * (k + reference))
            grown = [
                share * wins[start - 1 : t].prod() for start, share in zip(k, shares, strict=True)
            ]
            wanted.append(sum(grown) + 1 - shares.sum())
        name = f"{rows} ranks, reference {reference}, stake {stake}, power {power}"
        expect(name, answer(p, reference, stake, power), wanted, 1e-10, hint)
    even = answer(np.full(5, 0.5), 10, 0.9, 1)
    expect("ranks in the middle", even, np.ones(5), 1e-12, hint)


def bent(X: np.ndarray) -> np.ndarray:
    """Return the outputs of a model of three features or more, with interactions."""
    return X[:, 0] * X[:, 1] + np.maximum(X[:, 1], X[:, 2]) - X[:, 2]


def ex_keep_curve(answer: Callable[..., Any]) -> None:
    """``keep_positive(f, x, phi, hidden)``: keeping negative values, too, at the end."""
    hint = "The largest positive values first; what is not positive stays hidden"
    rng = np.random.default_rng(0)
    cases = [
        np.array([0.5, -1.0, 2.0]),
        np.array([-1.0, -2.0, 0.0]),
        np.ones(3),
        rng.normal(size=3),
    ]
    for phi in cases:
        x, hidden = rng.normal(size=(2, 3))
        wanted = []
        for k in range(4):
            best = sorted(range(3), key=lambda i, phi=phi: -phi[i])[:k]
            row = hidden.copy()
            for i in best:
                row[i] = x[i] if phi[i] > 0 else hidden[i]
            wanted.append(bent(row[None])[0])
        got = answer(bent, x, phi, hidden)
        expect(f"phi = {phi.round(2).tolist()}", got, wanted, 1e-12, hint)


def ex_misfit(answer: Callable[..., Any]) -> None:
    """``misfit(outputs, phi)``: no constant, so that a base value counts as an error."""
    hint = (
        "Take the mean off what is left before its root mean square; divide by that of the outputs"
    )
    rng = np.random.default_rng(0)
    for rows, players in ((1, 1), (4, 2), (50, 3)):
        phi = rng.normal(size=(rows, players))
        exact = 3.0 + phi.sum(axis=1)
        expect(f"{rows} exact rows of {players}", answer(exact, phi), 0.0, 1e-12, hint)
        off = rng.normal(size=rows)
        left = off - off.mean()
        outputs = exact + off
        wanted = np.sqrt(np.mean(left**2) / np.mean(outputs**2))
        expect(f"{rows} rows of {players} with errors", answer(outputs, phi), wanted, 1e-12, hint)


def ex_clusters_held(answer: Callable[..., Any]) -> None:
    """``variance_held(labels, output)``: a plain mean of the groups' variances."""
    hint = "One less the mean square around each row's own group mean, over the whole variance"
    rng = np.random.default_rng(0)
    output = rng.normal(size=12)
    cases = {
        "one group": np.zeros(12, dtype=int),
        "each row its own": np.arange(12),
        "groups of 9 and 3": np.repeat([0, 1], [9, 3]),
        "labels 0 and 5": np.repeat([0, 5], [2, 10]),
    }
    for name, labels in cases.items():
        means = [output[labels == label].mean() for label in labels]
        wanted = np.var(means) / np.var(output)
        expect(name, answer(labels, output), wanted, 1e-12, hint)


def ex_clusters_medoids(answer: Callable[..., Any]) -> None:
    """``medoids(values, labels)``: the row nearest to the mean, which far members pull away."""
    hint = "Sum a row's distances, not their squares, to all members of its own group"
    line = np.array([[0.0], [1.0], [2.0], [60.0]])
    expect("0, 1, 2 and 60 on a line", answer(line, np.zeros(4, dtype=int)), [1], 0.0, hint)
    rng = np.random.default_rng(0)
    for rows, groups in ((5, 5), (12, 3), (30, 2)):
        values = rng.standard_t(2, size=(rows, 3))
        labels = np.concatenate([np.arange(groups), rng.integers(groups, size=rows - groups)])
        wanted = []
        for group in range(groups):
            members = [n for n in range(rows) if labels[n] == group]
            sums = [sum(np.linalg.norm(values[n] - values[m]) for m in members) for n in members]
            wanted.append(members[int(np.argmin(sums))])
        expect(f"{rows} rows in {groups} groups", answer(values, labels), wanted, 0.0, hint)


def ex_dependence_curves(answer: Callable[..., Any]) -> None:
    """``individual_curves(f, X, i, grid)``: rows and grid values in the other order."""
    hint = "A row of the result is one row of X at all values of the grid; one call of f"
    rng = np.random.default_rng(0)
    calls = []

    def counted(X: np.ndarray) -> np.ndarray:
        calls.append(len(X))
        return bent(X)

    for rows, points in ((1, 1), (2, 5), (6, 3)):
        X = rng.normal(size=(rows, 3))
        kept = X.copy()
        grid = np.linspace(-1, 1, points)
        for i in (0, 2):
            wanted = np.zeros((rows, points))
            for n, k in np.ndindex(rows, points):
                row = kept[n].copy()
                row[i] = grid[k]
                wanted[n, k] = bent(row[None])[0]
            calls.clear()
            name = f"{rows} rows, {points} points and feature {i}"
            expect(name, answer(counted, X, i, grid), wanted, 1e-12, hint)
            expect(f"the calls of f with {name}", len(calls), 1, hint=hint)
        expect(f"the caller's table of {rows} rows", X, kept, 0.0, "Work on a copy")


def ex_dependence_pair(answer: Callable[..., Any]) -> None:
    """``pair_effect(f, X, i, j, low, high)``: what both do together, with what each does alone."""
    hint = "f(high, high) - f(high, low) - f(low, high) + f(low, low), in the mean over rows"
    rng = np.random.default_rng(0)

    def adds(X: np.ndarray) -> np.ndarray:
        return np.exp(X[:, 0]) + X[:, 1] ** 2

    X = rng.normal(size=(9, 3))
    kept = X.copy()
    expect("a sum", answer(adds, X, 0, 1, -1.0, 2.0), 0.0, 1e-10, hint)
    for i, j in ((0, 1), (1, 2), (2, 1)):
        for low, high in ((0.0, 1.0), (-1.0, 0.5)):
            total = 0.0
            for row in kept:
                for at_i, at_j, sign in (
                    (high, high, 1),
                    (high, low, -1),
                    (low, high, -1),
                    (low, low, 1),
                ):
                    changed = row.copy()
                    changed[i] = at_i
                    changed[j] = at_j
                    total += sign * bent(changed[None])[0]
            name = f"features {i} and {j} from {low} to {high}"
            expect(name, answer(bent, X, i, j, low, high), total / len(kept), 1e-10, hint)
    expect("the caller's table", X, kept, 0.0, "Work on a copy")


def ex_selection_score(answer: Callable[..., Any]) -> None:
    """``loss_scores(phi, y)``: the covariance without its factor 2, or with N - 1 in place of N."""
    hint = "Twice the mean over rows of y times the value, which has the mean 0"
    rng = np.random.default_rng(0)
    for rows in (2, 6, 15):
        X = rng.normal(size=(rows, 3))
        y = 5.0 + rng.normal(size=rows)
        marginal = shaplab.MarginalGame(bent, X, X)
        phi = shaplab.shapley_values(marginal, 3).T
        loss = shaplab.shapley_values(shaplab.MeanLoss(marginal, y, "squared_error"), 3)
        expect(f"{rows} rows", answer(phi, y), -loss.mean(axis=1), 1e-9, hint)


def ex_selection_power(answer: Callable[..., Any]) -> None:
    """``share_found(scores, real)``: the smallest scores first."""
    hint = "As many places as there are true features, the largest scores first"
    cases: list[tuple[list[float], list[int], float]] = [
        ([3.0, 2.0, 1.0], [1, 0, 0], 1.0),
        ([3.0, 2.0, 1.0], [0, 0, 1], 0.0),
        ([0.5, 4.0, -1.0, 2.0], [1, 1, 0, 0], 0.5),
        ([-1.0, -3.0, -2.0], [1, 0, 1], 1.0),
        ([1.0, 2.0], [1, 1], 1.0),
    ]
    for scores, real, wanted in cases:
        got = answer(np.array(scores), np.array(real, dtype=bool))
        expect(f"the scores {scores}, true {real}", got, wanted, 1e-12, hint)


def ex_why_weight(answer: Callable[..., Any]) -> None:
    """``weight_beside(z, x, y)``: the weight of z alone, without x beside it."""
    hint = "Take out of y and of z what the best line in x explains; then a line through the rest"
    x = np.array([-2.0, -1, 0, 1, 2])
    expect("the five patients", answer(np.abs(x), x, x**2), 1.2 / 0.56, 1e-10, hint)
    rng = np.random.default_rng(0)
    for rows in (3, 10, 50):
        x, noise, y = rng.normal(size=(3, rows))
        for name, z in (
            ("alone", noise),
            ("close to x", x + 0.3 * noise),
            ("far from 0", noise + 9),
        ):
            table = np.column_stack([x, z, np.ones(rows)])
            wanted = np.linalg.lstsq(table, y + 4, rcond=None)[0][1]
            expect(f"{rows} rows and z {name}", answer(z, x, y + 4), wanted, 1e-8, hint)


def ex_why_pairs(answer: Callable[..., Any]) -> None:
    """``count_pairs(time, died)``: equal times, which are no pairs."""
    hint = "For each death, all whose time is larger; not those with the same time"
    rng = np.random.default_rng(0)
    cases = [
        ([2.0, 5, 3, 8], [1, 1, 0, 0]),
        ([1.0, 1, 1], [1, 1, 1]),
        ([3.0, 2, 1], [0, 0, 0]),
        ([4.0], [1]),
        (rng.integers(1, 9, 30).tolist(), (rng.random(30) < 0.5).tolist()),
    ]
    for time, died in cases:
        wanted = sum(
            bool(death) and other > own
            for own, death in zip(time, died, strict=True)
            for other in time
        )
        name = f"{len(time)} people, the first times {time[:4]}"
        expect(name, answer(np.array(time), np.array(died, dtype=bool)), wanted, 0.0, hint)


SCORES: dict[str, tuple[list[str], Callable[[frozenset[str]], float]]] = {
    "one symptom": (["fever"], lambda S: 3.0 * len(S)),
    "fever and cough": (["fever", "cough"], lambda S: 2.0 * len(S) + 6 * (len(S) == 2)),
    "a base score": (["fever", "cough"], lambda S: 1.0 + 2 * ("fever" in S)),
    "three symptoms": (
        ["fever", "cough", "headache"],
        lambda S: 9.0 * (len(S) == 3) + 2 * ("cough" in S) - 3 * ({"fever", "cough"} <= S),
    ),
}


def ex_people_path(answer: Callable[..., Any]) -> None:
    """``path_credit(score, order)``: what each symptom scores alone, whatever is known by then."""
    hint = "The score with the symptom and all before it, less the score with all before it"
    for name, (symptoms, score) in SCORES.items():
        for order in itertools.permutations(symptoms):
            wanted = []
            for place, symptom in enumerate(order):
                before = frozenset(order[:place])
                wanted.append(score(before | {symptom}) - score(before))
            credit = answer(score, list(order))
            got = [credit.get(symptom, np.nan) for symptom in order]
            expect(f"{name} in the order {', '.join(order)}", got, wanted, 1e-12, hint)


def ex_people_fair(answer: Callable[..., Any]) -> None:
    """``fair_credit(score, symptoms)``: the mean of coming first and coming last only."""
    hint = "Every order counts the same, and three symptoms have six"
    for name, (symptoms, score) in SCORES.items():
        sets = [
            frozenset(s for s, there in zip(symptoms, row, strict=True) if there)
            for row in shaplab.all_coalitions(len(symptoms))
        ]
        game = shaplab.TableGame([score(S) for S in sets])
        wanted = shaplab.shapley_values(game, len(symptoms))
        credit = answer(score, list(symptoms))
        got = [credit.get(symptom, np.nan) for symptom in symptoms]
        expect(name, got, wanted, 1e-12, hint)
