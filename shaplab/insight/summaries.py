r"""Summaries of a whole model: many local explanations, ranked, searched, grouped and drawn on a
plane.

Let ``phi[n, i]`` be the contribution of feature ``i`` to the output of row ``n``, in units of the
output.

* *Ranking*: ``I_i = mean_n |phi[n, i]|``, one number a feature, with the spread over rows that it
  hides.
* *Rare effects*: features whose values lie further than ``times * I_i`` from their median for a few
  rows only.
* *Supervised clustering*: rows that are close in ``phi`` get the same output for the same reasons.
  All columns have one unit, so no scaling is needed. Distances are Euclidean, groups are merged by
  ``linkage``.
* *Embedding*: the principal components of ``phi``, from its singular value decomposition.

The unsupervised versions are the same two functions on ``standardized(X)``.
Source: Lundberg et al. 2020, Methods 14 and 18, Figures 4A and 6, Supplementary Figures 11 and 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shaplab._figures import one_output
from shaplab._units import sample_spread, unit_near
from shaplab._validation import as_matrix, check_choice, check_int, check_real, fail, imported
from shaplab.explanation import Explanation

__all__ = [
    "Clusters",
    "Embedding",
    "cluster_rows",
    "embed_rows",
    "feature_ranking",
    "rare_effects",
    "standardized",
    "variance_explained",
]


@dataclass(frozen=True, eq=False)
class Clusters:
    """A hierarchy of rows: their ``order`` below the tree, group ``labels`` from 0 in that order,
    SciPy's ``links``."""

    order: np.ndarray
    labels: np.ndarray
    links: np.ndarray


@dataclass(frozen=True, eq=False)
class Embedding:
    """Principal components: ``points @ components + center`` approximates the table.

    ``points`` ``(N, c)`` have the table's units; ``components`` ``(c, d)`` are orthonormal, the
    largest entry of each positive; ``explained`` ``(c,)`` are shares of the variance; ``center``
    ``(d,)`` is the mean row.
    """

    points: np.ndarray
    components: np.ndarray
    explained: np.ndarray
    center: np.ndarray


def _numbers_of(table: Any) -> np.ndarray:
    """Values of an explanation of one output, or the numbers of a table."""
    if isinstance(table, Explanation):
        return one_output(table, None).values
    return as_matrix(table, "table", finite=True).astype(np.float64, copy=False)


def feature_ranking(explanation: Explanation, *, output: int | str | None = None) -> Any:
    """Rank features by their mean absolute contribution, and show the spread that this number
    hides.

    Parameters
    ----------
    explanation : Explanation of a table.
    output : name or position, needed when there are several outputs.

    Returns
    -------
    DataFrame, one row a feature, the largest first: ``mean |value|``, its ``standard error`` over
    rows, the smallest, 5% quantile, median, 95% quantile and largest value, and ``largest for``,
    the share of rows for which no other feature has a larger absolute contribution.
    The standard error takes rows as independent draws: it speaks of other rows, not of another fit
    of the model.

    Examples
    --------
    >>> feature_ranking(Explanation([[1.0, -0.5], [-1.0, 3.0]], 0.0))["mean |value|"].to_dict()
    {'x1': 1.75, 'x0': 1.0}
    """
    pd = imported("pandas", "feature_ranking")
    shown = one_output(explanation, output)
    n_rows, n_features = shown.values.shape
    size = np.abs(shown.values)
    error = np.full(n_features, np.nan)
    if n_rows > 1:
        error = sample_spread(size, axis=0) / np.sqrt(n_rows)
    quantiles = np.quantile(shown.values, [0, 0.05, 0.5, 0.95, 1], axis=0)
    frame = pd.DataFrame(
        {
            "mean |value|": size.mean(axis=0),
            "standard error": error,
            **dict(zip(("min", "5%", "median", "95%", "max"), quantiles, strict=True)),
            "largest for": np.bincount(size.argmax(axis=1), minlength=n_features) / n_rows,
        },
        index=shown.names,
    )
    return frame.iloc[np.argsort(-size.mean(axis=0), kind="stable")]


def rare_effects(
    explanation: Explanation,
    *,
    output: int | str | None = None,
    times: float = 4.0,
    share: float = 0.05,
) -> Any:
    """Find features that matter much for few rows.

    A row is extreme for feature ``i`` if its value lies further than ``times`` mean absolute values
    from the median of the feature's values. A feature has a rare effect if it has extreme rows, and
    they are at most ``share`` of all.

    Parameters
    ----------
    explanation, output : as in ``feature_ranking``.
    times, share : how far is extreme, and how many rows are still rare.

    Returns
    -------
    DataFrame, the furthest reach first: ``mean |value|`` and its ``rank`` (1 = first), number of
    extreme ``rows``, how many of them lie to the ``right`` of the median, the ``reach`` right and
    left (largest distances from the median), and ``row``, the position of the most extreme row.

    Examples
    --------
    >>> values = np.array([[0.1, 0.0]] * 39 + [[0.1, 2.0]])
    >>> e = Explanation(values, 0.0, feature_names=["steady", "rare"])
    >>> found = rare_effects(e)
    >>> list(found.index), int(found["row"].iloc[0])
    (['rare'], 39)
    """
    pd = imported("pandas", "rare_effects")
    shown = one_output(explanation, output)
    times = check_real(times, "times", low=0, open_low=True)
    share = check_real(share, "share", low=0, high=1)
    size = np.abs(shown.values).mean(axis=0)
    away = shown.values - np.median(shown.values, axis=0)
    distance = np.abs(away)
    extreme = (distance > times * size) & (size > 0)
    count = extreme.sum(axis=0)
    frame = pd.DataFrame(
        {
            "mean |value|": size,
            "rank": np.argsort(np.argsort(-size, kind="stable")) + 1,
            "rows": count,
            "right": (extreme & (away > 0)).sum(axis=0),
            "reach right": away.max(axis=0),
            "reach left": -away.min(axis=0),
            "row": distance.argmax(axis=0),
        },
        index=shown.names,
    )
    rare = np.flatnonzero((count > 0) & (count <= share * len(shown)))
    furthest_first = np.argsort(-distance.max(axis=0)[rare], kind="stable")
    return frame.iloc[rare[furthest_first]]


def standardized(X: Any) -> np.ndarray:
    """Columns with mean 0 and variance 1, for the unsupervised versions.

    ``X`` is a numeric table ``(N, d)``. Missing entries (NaN) take the column's mean, so 0;
    constant columns are 0.
    """
    table = as_matrix(X, "X").astype(np.float64)
    if np.isinf(table).any():
        fail("X", "finite values or NaN", "infinite values", "Mark missing entries by NaN")
    known = ~np.isnan(table)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, table, 0.0)
    away = np.where(known, table - filled.sum(axis=0) / count, 0.0)
    unit = np.abs(away).max(axis=0)
    unit = np.where(unit > 0.0, unit, 1.0)
    spread = unit * np.sqrt(((away / unit) ** 2).sum(axis=0) / count)
    # A constant column leaves rounding errors of its mean; they are no variation.
    varies = spread > 1e-12 * np.abs(filled).max(axis=0)
    return away / np.where(varies, spread, np.inf)


def cluster_rows(table: Any, *, n_clusters: int = 8, linkage: str = "complete") -> Clusters:
    """Group rows by agglomerative hierarchical clustering, with Euclidean distances.

    Parameters
    ----------
    table : Explanation with one output (*supervised* clustering), or a table ``(N, d)`` that is
        used as it is (for data in mixed units, pass ``standardized(X)``: *unsupervised*
        clustering).
    n_clusters : groups to cut the tree into. Fewer come back if rows are equal.
    linkage : "complete" (distance of the furthest members), "average", "ward" or "single".

    Returns
    -------
    Clusters. Memory for ``N (N - 1) / 2`` distances: 0.4 GB for 10,000 rows. Time ``O(N^2 (d +
    1))``.
    Source: Lundberg et al. 2020, Methods 18, Figure 6A (explanations), Supplementary Figure 14
    (data).
    """
    from scipy.cluster import hierarchy

    rows = _numbers_of(table)
    if len(rows) < 2:
        fail("table", "at least two rows", rows, "There is nothing to group")
    n_clusters = check_int(n_clusters, "n_clusters", minimum=1, maximum=len(rows))
    method = check_choice(linkage, "linkage", ("complete", "average", "ward", "single"))
    unit = unit_near(rows)
    links = hierarchy.linkage(rows / unit, method=method)
    links[:, 2] *= unit
    order = hierarchy.leaves_list(links).astype(int)
    groups = hierarchy.fcluster(links, n_clusters, criterion="maxclust")
    # Groups are numbered in the order in which they stand below the tree.
    number_of: dict[int, int] = {}
    for group in groups[order]:
        number_of.setdefault(int(group), len(number_of))
    labels = np.array([number_of[int(group)] for group in groups])
    return Clusters(order, labels, links)


def embed_rows(table: Any, *, n_components: int = 2) -> Embedding:
    """Return an ``Embedding``: principal components of explanations, or of a table, as in
    ``cluster_rows``.

    ``n_components`` is at most the smaller side of the table. Source: Lundberg et al. 2020, Methods
    18, Figure 6B-D (explanations), Supplementary Figure 11 (data).
    """
    rows = _numbers_of(table)
    n_components = check_int(n_components, "n_components", minimum=1, maximum=min(rows.shape))
    center = rows.mean(axis=0)
    left, size, right = np.linalg.svd(rows - center, full_matrices=False)
    shares = (size / unit_near(size)) ** 2
    shares = shares / (float(shares.sum()) or 1.0)
    left = left[:, :n_components]
    right = right[:n_components]
    size = size[:n_components]
    # The sign of a component is free: its largest entry is made positive.
    largest = np.abs(right).argmax(axis=1)
    sign = np.sign(right[np.arange(n_components), largest])
    return Embedding(
        points=sign * left * size,
        components=sign[:, None] * right,
        explained=shares[:n_components],
        center=center,
    )


def variance_explained(labels: Any, values: Any) -> float:
    """Share of the variance of ``values`` that lies between groups: 1 if they are constant in each,
    0 if groups agree.

    Parameters
    ----------
    labels : array ``(N,)``, a group for each row.
    values : array ``(N,)`` or ``(N, k)``, pooled over columns; not all rows equal.

    Examples
    --------
    >>> variance_explained([0, 0, 1, 1], [1.0, 3.0, 5.0, 7.0])
    0.8
    """
    groups = np.asarray(labels).astype(str)
    numbers = np.asarray(values)
    if numbers.ndim not in (1, 2) or groups.shape != numbers.shape[:1]:
        fail("values", "one row for each label", numbers, f"labels have shape {groups.shape}")
    table = numbers[:, None] if numbers.ndim == 1 else numbers
    table = as_matrix(table, "values", finite=True)
    table = table / unit_near(table - table.mean(axis=0))
    total = _squares(table)
    if total == 0:
        fail(
            "values",
            "values that differ between rows",
            "equal rows",
            "There is no variance to explain",
        )
    within = sum(_squares(table[groups == group]) for group in np.unique(groups))
    return 1.0 - within / total


def _squares(table: np.ndarray) -> float:
    """Squared distances from the mean row, summed."""
    return float(((table - table.mean(axis=0)) ** 2).sum())
