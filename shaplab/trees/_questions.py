"""Trees that ask few questions: symmetric ones ask one on each level, whatever came above.

A tree's values depend on a row by its answers alone. With q different questions there are 2^q
answers, so one table of 2^q entries a column holds all that rows can ever get from the tree, and
a row is looked up by q questions instead of by one for each split.

The table is made by explaining made-up rows, one for each set of answers, with the clusters' tables
and the same loop that looks rows up: made-up nodes ask for a question's answer instead of a
feature, and made-up targets keep trees apart. Nothing is said of how the clusters' tables came
about, so this holds for both games, for pairs of players, and for groups. Answers that contradict
each other have entries that nobody looks up.

Cost: as of 2^q rows to make the tables; then q questions and one look-up a column for each row and
tree. Chapter: trees/kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shaplab.trees.kernels.predict import Nodes
from shaplab.trees.kernels.structure import (
    BITS,
    COLUMNS,
    FIRST_CLUSTER,
    FIRST_OP,
    FIRST_TARGET,
    OP_BIT,
    OP_CLUSTER,
    OP_SOURCE,
    OP_SPLIT,
    OP_TARGET,
    TABLE_START,
    TREE,
    ClusterPlan,
)

__all__ = ["Questions", "QuestionTables", "question_tables", "questions_of"]

# Questions a tree may ask: CatBoost grows symmetric trees to a depth of 6, its users to 10.
MAX_QUESTIONS = 10
# Made-up rows must be few beside the rows to explain.
ROWS_FOR_ONE = 2
# Entries of all tables together: 128 MiB.
MAX_ENTRIES = 2**24


class Questions(NamedTuple):
    """What the splits of an ensemble ask.

    ``number`` ``(n_nodes,)`` is a split's question among those of its tree, -1 at leaves;
    ``asking`` holds a split for each question of tree after tree, ``asked`` ``(T,)`` how many each
    asks, and ``most`` how many any does.
    """

    number: np.ndarray
    asking: np.ndarray
    asked: np.ndarray
    most: int

    @property
    def n_rows(self) -> int:
        """Made-up rows: one for each set of answers."""
        return 2**self.most


def questions_of(nodes: Nodes, n_outputs: np.ndarray, pairs: bool, n_rows: int) -> Questions | None:
    """The questions of trees that pay ``n_outputs`` ``(T,)``; None where tables of trees would not
    pay, as trees ask about as many questions as they have splits, or rows are few."""
    if n_rows < 2 * ROWS_FOR_ONE:
        return None
    splits = np.flatnonzero(nodes.feature >= 0)
    tree = np.searchsorted(nodes.tree_start, splits, side="right") - 1
    # The tree with most splits tells of most ensembles that there is nothing to win.
    largest = splits[tree == np.bincount(tree).argmax()] if len(tree) else splits
    if 2 * len(_first_of_each(nodes, largest, 0 * largest)[0]) > len(largest):
        return None
    first, different = _first_of_each(nodes, splits, tree)
    n_trees = len(nodes.tree_start) - 1
    count = np.bincount(tree[first], minlength=n_trees)
    most = int(count.max(initial=0))
    columns = int(((count + pairs * count * (count - 1) // 2) * n_outputs).sum())
    if (
        most > MAX_QUESTIONS
        or 2 * len(first) > len(splits)
        or n_rows < ROWS_FOR_ONE * 2**most
        or columns << most > MAX_ENTRIES
    ):
        return None
    number = np.full(len(nodes.feature), -1, nodes.feature.dtype)
    number[splits] = different - (np.cumsum(count) - count)[tree]
    return Questions(number, splits[first], count, most)


def _first_of_each(
    nodes: Nodes, splits: np.ndarray, tree: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each question stands first among splits of trees, tree after tree, and the number of
    each split's question."""
    first = splits[:0]
    number = tree
    for part in (nodes.feature, nodes.rank, nodes.missing_left, nodes.set_start):
        asked = part[splits].astype(np.int64)
        asked -= asked.min(initial=0)
        wider = number * (asked.max(initial=0) + 1) + asked
        first, number = np.unique(wider, return_index=True, return_inverse=True)[1:]
    return first, number


class QuestionTables(NamedTuple):
    """How tables of clusters become tables of trees, and how rows are looked up in these.

    ``nodes``, ``codes`` ``(q, 2^q)`` and ``making`` look made-up rows up in the clusters' tables;
    ``plan`` then takes real ones. ``n_columns`` are those of all trees together.
    """

    nodes: Nodes
    codes: np.ndarray
    making: ClusterPlan
    plan: ClusterPlan
    n_columns: int
    levels: int

    @property
    def n_entries(self) -> int:
        """Entries of the trees' tables."""
        return self.n_columns * self.codes.shape[1]


def question_tables(
    questions: Questions, nodes: Nodes, clusters: ClusterPlan, n_targets: int, chunk: int
) -> QuestionTables:
    """The tables of those trees that have been cut into clusters."""
    trees = np.unique(clusters.clusters[:, TREE])
    # Each column of a tree is a row of the sums.
    columns = clusters.clusters[:, COLUMNS]
    tree_of_column = np.repeat(np.searchsorted(trees, clusters.clusters[:, TREE]), columns)
    of_trees = tree_of_column * n_targets + clusters.targets
    different, place = np.unique(of_trees, return_inverse=True)
    made_up = nodes._replace(
        feature=questions.number,
        rank=np.ones_like(nodes.rank),
        missing_left=np.zeros_like(nodes.missing_left),
        set_start=np.full_like(nodes.set_start, -1),
    )
    most = questions.most
    answers = (np.arange(2**most) >> np.arange(most)[:, None]) & 1
    widths = np.bincount(different // n_targets, minlength=len(trees))
    asks = np.isin(np.repeat(np.arange(len(questions.asked)), questions.asked), trees)
    plan = _plan_of_trees(
        questions.asking[asks], questions.asked[trees], widths, most, chunk, clusters.pairs
    )
    return QuestionTables(
        nodes=made_up,
        # Code 0 goes left, code 1 right; the bit of an answer says left.
        codes=np.ascontiguousarray((1 - answers).astype(np.int32)),
        making=clusters._replace(targets=place.astype(np.int64)),
        plan=plan._replace(targets=(different % n_targets).astype(np.int64)),
        n_columns=len(different),
        levels=most + 1,
    )


def _plan_of_trees(
    asking: np.ndarray,
    count: np.ndarray,
    widths: np.ndarray,
    bits: int,
    chunk: int,
    pairs: bool,
) -> ClusterPlan:
    """The plan that looks rows up in one table for each tree: ``asking`` holds a split for each
    question of tree after tree, ``count`` how many each has, ``widths`` its columns."""
    tree = np.repeat(np.arange(len(count)), count)
    first = np.cumsum(count) - count
    level = np.arange(len(asking)) - first[tree]
    ops = np.zeros((len(asking), 7), np.int32)
    ops[:, OP_SPLIT] = asking
    ops[:, OP_BIT] = level
    ops[:, OP_SOURCE] = level
    ops[:, OP_TARGET] = level + 1
    ops[:, OP_CLUSTER] = -1
    ops[first + count - 1, OP_CLUSTER] = np.arange(len(count))
    clusters = np.zeros((len(count), 8), np.int64)
    clusters[:, BITS] = bits
    clusters[:, COLUMNS] = widths
    clusters[:, TREE] = np.arange(len(count))
    clusters[:, FIRST_TARGET] = np.cumsum(widths) - widths
    clusters[:, TABLE_START] = clusters[:, FIRST_TARGET] << bits
    # Chunks of trees whose tables stay in the cache while a block of rows is looked up.
    begins = np.flatnonzero(np.diff(clusters[:, TABLE_START] // chunk, prepend=-1))
    cuts = np.zeros((len(begins) + 1, 2), np.int64)
    cuts[:-1, FIRST_CLUSTER] = begins
    cuts[:-1, FIRST_OP] = first[begins]
    cuts[-1, FIRST_CLUSTER] = len(count)
    cuts[-1, FIRST_OP] = len(asking)
    nothing = np.zeros((0, 0), np.int32)
    return ClusterPlan(ops, clusters, nothing, np.zeros(0, np.int64), cuts, pairs)
