r"""Training rows as players: what each of them is worth to a classifier by nearest neighbours.

The game of a test row :math:`(x, y)`: a coalition :math:`S` of training rows is a training set, and
earns the share of votes for the right label among its :math:`K` rows nearest to :math:`x`,

.. math:: v(S) = \frac1K \sum_{k=1}^{\min(K, |S|)} 1[y_{\alpha_k(S)} = y].

Nobody trains :math:`2^n` models for it. Number the training rows by their distance, the nearest
first. Two neighbours in that order, :math:`i` and :math:`i + 1`, differ only where they would vote,
which takes fewer than :math:`K` nearer rows in :math:`S`. In a
random ordering the number of the :math:`i - 1` nearer rows that come before the pair is equally
likely each of :math:`0, \dots, i - 1`, so

.. math:: s_i - s_{i+1} = \frac{1[y_i = y] - 1[y_{i+1} = y]}{K} \cdot \frac{\min(K, i)}{i},
   \qquad s_n = \frac{1[y_n = y]}{K} \cdot \frac{\min(K, n)}{n},

the last one since the farthest row counts only where fewer than :math:`K` others came before.
Source: Jia et al. (2019), Theorem 1. Cost: :math:`O(n d + n \log n)` for a test row.

Chapter: players/rows
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from shaplab._parallel import chunks
from shaplab._validation import as_matrix, check_int, check_names, check_size, fail
from shaplab.explanation import Explanation
from shaplab.foundations.games import check_coalitions

__all__ = ["NeighbourGame", "knn_shapley", "knn_shapley_literal"]

# Distances, and truth values of coalitions and rows, that are looked at together.
CELLS_TOGETHER = 2**22


def knn_shapley_literal(is_right: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Values ``(n,)`` of training rows for one test row, the nearest first, by the recursion;
    ``is_right`` ``(n,)`` tells whose label is the test row's."""
    n = len(is_right)
    K = n_neighbors
    s = np.zeros(n)
    s[n - 1] = is_right[n - 1] / K * min(K, n) / n
    for i in range(n - 1, 0, -1):
        # Row number i, counted from 1, is at place i - 1.
        gain = (float(is_right[i - 1]) - float(is_right[i])) / K
        s[i - 1] = s[i] + gain * min(K, i) / i
    return s


class TrainingRows(NamedTuple):
    """Checked tables: test rows ``(N, d)`` and their labels, training rows ``(n, d)`` and theirs,
    and how many neighbours vote."""

    X: np.ndarray
    y: np.ndarray
    X_train: np.ndarray
    y_train: np.ndarray
    n_neighbors: int

    def nearest(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Training rows in the order of their distance from test rows, and whether their labels
        are right, ``(m, n)`` each. Of equally near ones the first in the table is nearer."""
        order = cdist(self.X[part], self.X_train, "sqeuclidean").argsort(axis=1, kind="stable")
        return order, self.y_train[order] == self.y[part, None]


def check_training_rows(
    X: Any, y: Any, X_train: Any, y_train: Any, n_neighbors: Any
) -> TrainingRows:
    """The tables of a classifier by nearest neighbours."""
    train = as_matrix(X_train, "X_train", finite=True).astype(np.float64)
    test = as_matrix(X, "X", n_columns=train.shape[1], finite=True).astype(np.float64)
    found = _class_labels(y, len(test), "y", "X")
    given = _class_labels(y_train, len(train), "y_train", "X_train")
    if _are_text(found) != _are_text(given):
        fail(
            "y",
            "labels of the same kind as y_train, text or numbers",
            f"{found.dtype} beside {given.dtype}",
            "Convert one of them: no label of one kind equals one of the other",
        )
    return TrainingRows(test, found, train, given, check_int(n_neighbors, "n_neighbors"))


def _class_labels(y: Any, n: int, argument: str, table: str) -> np.ndarray:
    """Labels of classes ``(n,)``: text, whole numbers or truth values."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        fail(
            argument,
            f"{n} labels, one for each row of {table}",
            f"shape {labels.shape}",
            f"Pass labels of shape ({n},)",
        )
    whole = labels.dtype.kind != "f" or (labels == np.floor(labels)).all()
    # What does not equal itself is missing, and so is None.
    known = all(label is not None and label == label for label in labels.tolist())
    if not whole or not known:
        fail(
            argument,
            "labels of classes",
            "numbers with fractions, or missing ones",
            "Drop rows without a label; for a regression pass the score of your own model to "
            "estimate_values, as a game of training rows",
        )
    return labels


def _are_text(labels: np.ndarray) -> bool:
    return any(isinstance(label, str) for label in labels.tolist())


class NeighbourGame:
    """The game itself: votes for the right label among the nearest rows of a training set.

    Called with coalitions ``(m, n)`` of training rows it returns shares of votes ``(m, N)``, one
    for each test row: for enumeration, for :func:`~shaplab.foundations.estimate.estimate_values`,
    and for other values than Shapley's.

    Parameters
    ----------
    X, y, X_train, y_train, n_neighbors : as in :func:`knn_shapley`.
    """

    def __init__(self, X: Any, y: Any, X_train: Any, y_train: Any, *, n_neighbors: int = 5) -> None:
        self.rows = check_training_rows(X, y, X_train, y_train, n_neighbors)
        self.n_players = len(self.rows.X_train)

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        rows = self.rows
        coalitions = check_coalitions(coalitions, self.n_players)
        shares = np.empty((len(coalitions), len(rows.X)))
        for test in range(len(rows.X)):
            order, is_right = (each[0] for each in rows.nearest(slice(test, test + 1)))
            for part in chunks(len(coalitions), CELLS_TOGETHER // self.n_players):
                member = coalitions[part][:, order]
                votes = member & (member.cumsum(axis=1) <= rows.n_neighbors)
                shares[part, test] = (votes & is_right).sum(axis=1) / rows.n_neighbors
        return shares


def knn_shapley(
    X: Any,
    y: Any,
    X_train: Any,
    y_train: Any,
    *,
    n_neighbors: int = 5,
    names: Any = None,
) -> Explanation:
    """Exact Shapley values of training rows for a classifier by nearest neighbours.

    Parameters
    ----------
    X : array or numeric DataFrame ``(N, d)``, rows on which the classifier is judged.
    y : labels ``(N,)``: text, whole numbers or truth values.
    X_train : array or numeric DataFrame ``(n, d)``, training rows: the players. Distances are
        Euclidean, so columns count by their units: standardise them, or pass an embedding.
    y_train : labels ``(n,)``, as they stand in the data, right or wrong.
    n_neighbors : int, how many vote. Shares are always of so many votes: where fewer rows are
        there, votes that nobody casts count as wrong.
    names : names of the training rows; None: their numbers.

    Returns
    -------
    Explanation
        ``values`` ``(N, n)``: what each training row adds to the share of right votes for each test
        row; ``values.mean(axis=0)`` is its value for the classifier's score. They sum to the share
        of right votes of the whole training set; ``base_values`` are 0, for nobody votes in an
        empty one.

    Raises
    ------
    ValueError
        For labels with fractions, missing numbers, tables of different width, or values ``(N, n)``
        that do not fit into memory: pass fewer test rows at a time and add up.

    Notes
    -----
    Of rows at the same distance the first in the table counts as nearer. A copy of a row gets
    nearly the row's value; the two may be worth more than the row alone was. Cost: ``O(N n (d +
    log n))`` and ``8 N n`` bytes.

    References
    ----------
    Jia et al., "Efficient task-specific data valuation for nearest neighbor algorithms" (2019);
    Ghorbani and Zou, "Data Shapley: equitable valuation of data for machine learning" (2019).

    Examples
    --------
    >>> X_train = np.array([[0.0], [1.0], [2.0]])
    >>> knn_shapley([[0.1]], ["a"], X_train, ["a", "b", "a"], n_neighbors=1).values
    array([[ 0.83333333, -0.16666667,  0.33333333]])
    """
    rows = check_training_rows(X, y, X_train, y_train, n_neighbors)
    n = len(rows.X_train)
    labels = check_names(names, n, "names")
    check_size((len(rows.X), n), "X", "Pass fewer test rows at a time")
    K = rows.n_neighbors
    number = np.arange(1, n + 1)
    reach = np.minimum(K, number) / number / K
    values = np.empty((len(rows.X), n))
    for part in chunks(len(rows.X), CELLS_TOGETHER // n):
        order, is_right = rows.nearest(part)
        right = is_right.astype(np.float64)
        steps = right * reach
        steps[:, :-1] -= right[:, 1:] * reach[:-1]
        # Sums from the farthest row to the nearest.
        sums = steps[:, ::-1].cumsum(axis=1)[:, ::-1]
        np.put_along_axis(values[part], order, sums, axis=1)
    return Explanation(
        values=values,
        base_values=np.zeros(len(rows.X)),
        feature_names=labels or tuple(f"row {row}" for row in range(n)),
        method=f"knn_shapley (votes of {K} neighbours)",
    )
