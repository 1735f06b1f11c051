"""Rows in, interactions of any order out: the subsets that meet on a path, and their values.

Only players of one path interact, so the subsets of a path's players are all that there are.
Chapter: trees/interactions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._parallel import chunks, progress_bar
from shaplab._tables import take_rows
from shaplab._validation import check_int, check_size, fail
from shaplab.foundations._orders import add_up, check_order, diagonal_rule
from shaplab.foundations.interactions import Interactions
from shaplab.trees._batches import RowOptions
from shaplab.trees._paths import Paths
from shaplab.trees._plans import threads
from shaplab.trees._players import Players
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.kernels.orders import Subsets, add_subsets, path_subset_keys
from shaplab.trees.kernels.patterns import Background

__all__ = ["check_tree_order", "tree_interactions"]


def check_tree_order(
    players: Players, order: int | None, index: str | None, route: str, out: Any
) -> tuple[int, str]:
    """Order and index of the interactions of trees, which nothing else goes with."""
    order, index = check_order(order, index, players.count)
    if order == 1:
        fail(
            "order",
            "2 or more for interactions",
            "1",
            "Use tree_shap or interventional_tree_shap, whose values are those of order 1",
        )
    for name, given in (("route", route != "auto"), ("out", out is not None)):
        if given:
            fail(
                name,
                f"nothing beside order={order} or an index, which have one way and one result",
                "one",
                f"Leave {name}= out, or leave order= and index= out for the matrix of pairs",
            )
    return order, index


def tree_interactions(
    trees: TreeEnsemble,
    X: Any,
    kind: tuple[int, str],
    background: Background,
    expected: np.ndarray | None,
    players: Players,
    options: RowOptions,
) -> Interactions:
    """Interactions of encoded or raw rows; ``expected`` is what nobody gets, by default the mean by
    covers."""
    order, index = kind
    paths = Paths(trees, players, walked=False)
    subsets, members = _path_subsets(paths, order, index)
    n_rows = X.shape[0]
    k = trees.n_outputs
    check_size(
        (len(members), n_rows, k),
        "order",
        "Explain fewer rows at a time, or take a lower order",
    )
    if len(X.shape) != 2 or n_rows == 0:
        trees.encode(X)  # says what is wrong
    values = np.zeros((len(members), k, n_rows))
    size = 4096 if options.batch_size is None else check_int(options.batch_size, "batch_size")
    # Values of all subsets of a path, for each pattern of a few rows at a time.
    few = int(np.clip(2**21 // max(1, len(subsets.parent)), 16, 1024))
    jobs = threads(options.n_jobs)
    with progress_bar(n_rows, options.progress, "rows") as bar:
        for part in chunks(n_rows, size):
            codes = np.ascontiguousarray(trees.encode(take_rows(X, part)).T)
            sums = np.zeros((len(members) * k, codes.shape[1]))

            def add_part(rows: slice, codes: np.ndarray = codes, sums: np.ndarray = sums) -> None:
                ends = (rows.start, rows.stop)
                add_subsets(ends, paths.nodes, paths.arrays, codes, background, subsets, sums)

            jobs(add_part, list(chunks(codes.shape[1], few)))
            values[:, :, part] = sums.reshape(len(members), k, codes.shape[1])
            bar.update(codes.shape[1])
    if index == "k-SII":
        values = add_up(values, members)
    if not np.isfinite(values).all():
        fail(
            "model",
            "leaves whose differences fit into float64",
            "interactions that overflow",
            "Scale the target of the model",
        )
    values = values.transpose(0, 2, 1)
    base_value = np.broadcast_to(paths.expected if expected is None else expected, (n_rows, k))
    if not trees.has_outputs:
        values = values[..., 0]
        base_value = base_value[..., 0]
    game = "path-dependent" if expected is None else "interventional"
    name = "tree_shap_interactions" if expected is None else "interventional_tree_shap_interactions"
    return Interactions(
        values,
        members,
        order,
        index,
        base_value,
        players.count,
        players.names,
        method=f"{name} ({game})",
    )


def _path_subsets(paths: Paths, order: int, index: str) -> tuple[Subsets, Any]:
    """What the kernel takes, and the subsets' players."""
    n_players = paths.nodes.n_players
    widest = int(paths.arrays.tree_players.max(initial=0))
    parent, last, size, n_of = _rising_subsets(widest, order)
    rules = [diagonal_rule(index, order, max(1, d)) for d in range(widest + 1)]
    lengths = [len(rule.nodes) for rule in rules]
    # p^a (1 - p)^b for any a and b of a leaf's players together.
    nodes = rules[-1].nodes
    powers = nodes ** np.arange(widest + 1)[:, None]
    others = (1.0 - nodes) ** np.arange(widest + 1)[:, None]
    subsets = Subsets(
        parent=parent,
        last=last,
        size=size,
        n_of=n_of,
        base=n_players + 1,
        keys=np.zeros(0, np.int64),
        rule_start=np.append(0, np.cumsum(lengths)).astype(np.int64),
        nodes=np.concatenate([rule.nodes for rule in rules]),
        weights=np.concatenate([rule.weights.T for rule in rules]),
        integral=np.einsum("tq,aq,bq->tab", rules[-1].weights, powers, others),
    )
    base = n_players + 1
    if base**order >= 2**63:
        fail(
            "order",
            f"a number of subsets below 2**63 for {n_players} players",
            str(order),
            "Take a lower order",
        )
    keys = np.zeros(0, np.int64)
    for tree in range(paths.trees.n_trees):
        own = path_subset_keys(tree, paths.nodes, paths.arrays, subsets)
        keys = np.union1d(keys, own)
    digits = [keys // base**place % base for place in range(order - 1, -1, -1)]
    members = tuple(
        tuple(int(digit) - 1 for digit in row if digit) for row in np.stack(digits, axis=1)
    )
    return subsets._replace(keys=keys), members


def _rising_subsets(
    widest: int, order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Subsets of up to ``order`` of so many players, by their last player: the subset that each
    extends, its last player, its size, and how many there are of fewer players."""
    parent: list[int] = []
    last: list[int] = []
    size: list[int] = []
    count = [0]
    for player in range(widest):
        before = len(parent)
        for extended in range(-1, before):
            held = 0 if extended < 0 else size[extended]
            if held < order:
                parent.append(extended)
                last.append(player)
                size.append(held + 1)
        count.append(len(parent))
    as_array = [np.array(part, dtype=np.int64) for part in (parent, last, size, count)]
    return as_array[0], as_array[1], as_array[2], as_array[3]
