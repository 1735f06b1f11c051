"""Checks of the exercises of the part *players*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import shaplab
from shaplab_book.checking import expect

__all__ = [
    "ex_documents_remember",
    "ex_documents_versions",
    "ex_regions_literal",
    "ex_regions_sums",
    "ex_rows_alone",
    "ex_rows_regression",
    "ex_tables_reread",
    "ex_tables_smoother",
    "ex_words_literal",
    "ex_words_without",
]


def ex_words_literal(answer: Callable[..., Any]) -> None:
    """``delete_words(text, present)``: keeping the spaces of words that are gone."""
    hint = "Split the text at spaces, and join what stays by one space"
    for text, present, wanted in (
        ("not good", [True, True], "not good"),
        ("not good", [False, True], "good"),
        ("a b c", [True, False, True], "a c"),
        ("a b c", [False, False, False], ""),
        ("the the", [False, True], "the"),
    ):
        given = np.array(present)
        expect(f"{text!r} with {present}", answer(text, given) == wanted, True, 0, hint)


def ex_words_without(answer: Callable[..., Any]) -> None:
    """``fall_without(game, n_players)``: what each player adds to nobody, not to all others."""
    hint = "Take everybody's worth less that of everybody but one"
    rng = np.random.default_rng(0)
    for n in (1, 2, 5):
        table = rng.normal(size=2**n)
        everybody = 2**n - 1
        wanted = [table[everybody] - table[everybody - 2**i] for i in range(n)]
        expect(f"a game of {n} players", answer(shaplab.TableGame(table), n), wanted, 1e-12, hint)
    product = np.array([0.0, 0.0, 0.0, 1.0])
    expect("a product", answer(shaplab.TableGame(product), 2), [1.0, 1.0], 1e-12, hint)


def ex_rows_alone(answer: Callable[..., Any]) -> None:
    """``without_each(is_right, K)``: forgetting the row that moves up."""
    hint = "A voter that leaves makes room for the nearest row that did not vote"
    rng = np.random.default_rng(0)
    for n, K in ((1, 1), (4, 2), (6, 6), (5, 9), (12, 3)):
        is_right = rng.random(n) < 0.6
        # Rows by distance on a line: the nearest first.
        game = shaplab.NeighbourGame(
            [[0.0]], [1], np.arange(1.0, n + 1)[:, None], is_right.astype(int), n_neighbors=K
        )
        wanted = game(np.ones((1, n), bool))[0, 0] - game(~np.eye(n, dtype=bool))[:, 0]
        expect(f"{n} rows, {K} votes", answer(is_right, K), wanted, 1e-12, hint)


def ex_rows_regression(answer: Callable[..., Any]) -> None:
    """``neighbour_regression_game(X, y, X_train, y_train, K)``: the mean divided by K where fewer
    rows are there."""
    hint = "Divide by the number of rows that vote, and let an empty coalition predict 0"
    rng = np.random.default_rng(0)
    X, X_train = rng.normal(size=(3, 2)), rng.normal(size=(5, 2))
    y, y_train = rng.normal(size=3), rng.normal(size=5)
    coalitions = shaplab.all_coalitions(5)
    for K in (1, 2, 7):
        wanted = np.zeros((len(coalitions), 3))
        for place, S in enumerate(coalitions):
            members = np.flatnonzero(S)
            for test in range(3):
                far = ((X_train[members] - X[test]) ** 2).sum(axis=1)
                nearest = members[np.argsort(far)[:K]]
                mean = y_train[nearest].mean() if len(nearest) else 0.0
                wanted[place, test] = -((mean - y[test]) ** 2)
        found = answer(X, y, X_train, y_train, K)(coalitions)
        expect(f"{K} neighbours, all coalitions", found, wanted, 1e-12, hint)


def ex_regions_literal(answer: Callable[..., Any]) -> None:
    """``fill(picture, present, sweeps)``: counting four neighbours at the edge, too."""
    hint = "Divide by the number of neighbours that are there, and leave present pixels alone"
    flat = np.full((3, 4), 2.5)
    present = np.zeros((3, 4), dtype=bool)
    present[1, 2] = True
    expect("a flat picture", answer(flat, present, 500), flat, 1e-6, hint)
    line = np.array([[0.0, 9.0, 9.0, 3.0]])
    ends = np.array([[True, False, False, True]])
    expect("a line between two pixels", answer(line, ends, 500), [[0.0, 1.0, 2.0, 3.0]], 1e-6, hint)
    rng = np.random.default_rng(0)
    picture, shown = rng.random((5, 6)), rng.random((5, 6)) < 0.4
    found = np.asarray(answer(picture, shown, 5000))
    expect("present pixels", found[shown], picture[shown], 1e-12, hint)
    wide = np.pad(found, 1, constant_values=np.nan)
    beside = [wide[1:-1, 2:], wide[1:-1, :-2], wide[2:, 1:-1], wide[:-2, 1:-1]]
    mean = np.nanmean(beside, axis=0)
    expect("the mean of neighbours", found[~shown], mean[~shown], 1e-6, hint)


def ex_regions_sums(answer: Callable[..., Any]) -> None:
    """``mean_outside(picture, regions)``: the mean of the other regions' means."""
    hint = "Count pixels, not regions: regions differ in size"
    rng = np.random.default_rng(0)
    for regions in (
        np.array([[0, 1], [1, 1]]),
        np.repeat([[0, 1, 2]], 4, axis=0),
        rng.permutation(np.arange(30) % 7).reshape(5, 6),
    ):
        picture = rng.normal(size=regions.shape)
        wanted = [picture[regions != region].mean() for region in range(regions.max() + 1)]
        expect(f"{regions.max() + 1} regions", answer(picture, regions), wanted, 1e-12, hint)


def ex_documents_remember(answer: Callable[..., Any]) -> None:
    """``remember(game)``: asking twice for a coalition that one call holds twice."""
    hint = "Ask for each coalition that is not known once, and for nothing if all are known"
    asked: list[bytes] = []

    def game(coalitions: np.ndarray) -> np.ndarray:
        if not len(coalitions):
            raise AssertionError
        asked.extend(S.tobytes() for S in coalitions)
        return coalitions @ np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])

    remembered = answer(game)
    some = np.array([[True, False, True], [False, True, False], [True, False, True]])
    everybody = shaplab.all_coalitions(3)
    for told, coalitions, count in (
        ("a call with a coalition twice", some, 2),
        ("the same call again", some, 2),
        ("all coalitions", everybody, 8),
        ("all of them backwards", everybody[::-1], 8),
    ):
        wanted = coalitions @ np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
        expect(f"{told}, worth", remembered(coalitions), wanted, 1e-12, hint)
        expect(f"{told}, coalitions asked so far", len(asked), count, 0, hint)


def ex_documents_versions(answer: Callable[..., Any]) -> None:
    """``versions_game(old, new, score)``: leaving absent parts out instead of keeping the old."""
    hint = "A part that is absent is the old one, in its place"
    rng = np.random.default_rng(0)
    for n in (1, 2, 4):
        old, new = rng.normal(size=(2, n))
        coalitions = shaplab.all_coalitions(n)
        wanted = np.where(coalitions, new, old) @ np.arange(1.0, n + 1)
        found = answer(list(old), list(new), _by_place)(coalitions)
        expect(f"{n} parts, all coalitions", found, wanted, 1e-12, hint)


def _by_place(parts: Any) -> float:
    """A score that knows the order of the parts."""
    return float(sum(place * part for place, part in enumerate(parts, start=1)))


def ex_tables_reread(answer: Callable[..., Any]) -> None:
    """``reread_game(predict, X, y, query)``: dropping a column from the query and not from the
    context."""
    hint = "Pass X[:, kept] and query[kept], and the mean of y where nothing is kept"
    rng = np.random.default_rng(0)

    def nearest(X: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
        gaps = [((X[:, : len(query)] - query) ** 2).sum(axis=1).argmin() for query in queries]
        return y[gaps] + X.shape[1]

    for n, d in ((4, 1), (6, 2), (9, 4)):
        X, y, query = rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=d)
        coalitions = shaplab.all_coalitions(d)
        wanted = [
            nearest(X[:, kept], y, query[None, kept])[0] if kept.any() else y.mean()
            for kept in coalitions
        ]
        found = answer(nearest, X, y, query)(coalitions)
        expect(f"{n} rows, {d} columns, all coalitions", found, wanted, 1e-12, hint)


def ex_tables_smoother(answer: Callable[..., Any]) -> None:
    """``smooth(X, y, queries, weights)``: attention that does not sum to 1."""
    hint = "Divide by the sum of the attention over the rows of the context"
    rng = np.random.default_rng(0)
    for n, m, d in ((1, 2, 1), (5, 3, 2), (8, 4, 3)):
        X, y, queries = rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=(m, d))
        weights = rng.random(d)
        wanted = []
        for query in queries:
            attention = [np.exp(-(weights * (query - row) ** 2).sum()) for row in X]
            wanted.append(np.dot(attention, y) / sum(attention))
        found = answer(X, y, queries, weights)
        expect(f"{n} rows, {m} queries", found, wanted, 1e-10, hint)
