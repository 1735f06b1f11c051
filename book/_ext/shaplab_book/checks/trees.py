"""Checks of the exercises of the part *trees*.

A tree is six lists with one entry for each node, as in the chapters: values of leaves (None at
inner nodes), left and right children, thresholds, covers, and features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

import shaplab
from shaplab.trees.conditional_expectation import path_dependent_game
from shaplab_book.checking import expect

__all__ = [
    "ex_tree_against",
    "ex_tree_butterflies",
    "ex_tree_counted",
    "ex_tree_cox",
    "ex_tree_expectation",
    "ex_tree_leaf",
    "ex_tree_leaf_index",
    "ex_tree_means",
    "ex_tree_meet",
    "ex_tree_ranks",
    "ex_tree_rescaled",
    "ex_tree_values",
]

Tree = tuple[list[Any], list[int], list[int], list[float], list[int], list[int]]
LEAF: Tree = ([3.0], [-1], [-1], [0.0], [4], [-1])


def random_tree(rng: np.random.Generator, players: int, depth: int) -> Tree:
    """Draw a tree of six lists; thresholds tie with rows of whole numbers, features repeat."""
    tree: Tree = ([], [], [], [], [], [])

    def grow(level: int) -> int:
        node = len(tree[0])
        for column, empty in zip(tree, (None, -1, -1, 0.0, 0, -1), strict=True):
            column.append(empty)
        if level == depth or (level > 0 and rng.random() < 0.2):
            tree[0][node] = float(rng.normal())
            tree[4][node] = int(rng.integers(1, 6))
            return node
        tree[5][node] = int(rng.integers(players))
        tree[3][node] = float(rng.choice([0.5, 1.0, 2.0]))
        tree[1][node] = grow(level + 1)
        tree[2][node] = grow(level + 1)
        tree[4][node] = tree[4][tree[1][node]] + tree[4][tree[2][node]]
        return node

    grow(0)
    return tree


def read(tree: Tree, players: int) -> shaplab.TreeEnsemble:
    """Return a tree of six lists as the library's type."""
    values, left, right, thresholds, covers, features = tree
    return shaplab.TreeEnsemble.from_arrays(
        feature=features,
        threshold=thresholds,
        left=left,
        right=right,
        cover=covers,
        n_features=players,
        value=[0.0 if value is None else value for value in values],
    )


def drawn_trees(count: int) -> list[tuple[str, Tree, np.ndarray]]:
    """Return names, random trees of 1 to 4 features, and a row for each."""
    rng = np.random.default_rng(0)
    found = [("a tree that is one leaf", LEAF, np.ones(2))]
    for number in range(count):
        players = 1 + number % 4
        tree = random_tree(rng, players, 1 + number % 5)
        row = rng.integers(0, 4, players).astype(float)
        name = f"random tree {number + 1}, {players} features, the row {row.tolist()}"
        found.append((name, tree, row))
    return found


def ex_tree_expectation(answer: Callable[..., Any]) -> None:
    """``expectation(x, S, tree)``: going right when a value equals the threshold."""
    hint = "Known: left if x <= t. Unknown: both ways, by the covers' shares"
    for name, tree, row in drawn_trees(8):
        everybody = shaplab.all_coalitions(len(row))
        truth = path_dependent_game(read(tree, len(row)), row[None])(everybody)[:, 0]
        for S, wanted in zip(everybody, truth, strict=True):
            expect(f"{name}, S = {S.tolist()}", answer(row, S, tree), wanted, 1e-12, hint)


def ex_tree_means(answer: Callable[..., Any]) -> None:
    """``saabas_by_means(x, tree)``: paying the feature of the child in place of the parent's."""
    hint = "The step from a node to its child belongs to the feature that the node asks for"
    for name, tree, row in drawn_trees(10):
        wanted = shaplab.saabas(read(tree, len(row)), row[None]).values[0]
        expect(name, answer(row, tree), wanted, 1e-12, hint)


def ex_tree_leaf(answer: Callable[..., Any]) -> None:
    """``leaf_values(z, o)``: leaving the feature's own factor among the others."""
    hint = "For feature i multiply out the factors of all others; times (o_i - z_i)"
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 6):
        z = rng.uniform(0, 1, count)
        o = (rng.random(count) < 0.6) * 1.0
        truth = shaplab.shapley_values(lambda S, z=z, o=o: np.where(S, o, z).prod(axis=1), count)
        expect(f"z = {z.round(2).tolist()}, o = {o.tolist()}", answer(z, o), truth, 1e-12, hint)
    zero = np.array([0.0, 0.5])
    expect("z = [0, 0.5], o = [0, 1]", answer(zero, np.array([0.0, 1.0])), [0.0, 0.0], 1e-12, hint)
    expect("z = [0, 0.5], o = [1, 1]", answer(zero, np.ones(2)), [0.75, 0.25], 1e-12, hint)


def ex_tree_values(answer: Callable[..., Any]) -> None:
    """``tree_values(x, tree)``: two factors for a feature that a path asks for twice."""
    hint = "A feature has one z and one o on a path, products over all its questions there"
    for name, tree, row in drawn_trees(10):
        wanted = shaplab.tree_shap(read(tree, len(row)), row[None]).values[0]
        expect(name, answer(row, tree), wanted, 1e-12, hint)


def ex_tree_against(answer: Callable[..., Any]) -> None:
    """``leaf_against(x_meets, b_meets)``: forgetting the leaf that neither can reach."""
    hint = "Features that both meet do not count; one that neither meets makes all values 0"
    for count in (1, 2, 3, 4):
        for kinds in itertools.combinations_with_replacement(range(4), count):
            x_meets = np.array(kinds) % 2 == 1
            b_meets = np.array(kinds) >= 2
            truth = shaplab.shapley_values(
                lambda S, x_meets=x_meets, b_meets=b_meets: (
                    np.where(S, x_meets, b_meets).all(axis=1) * 1.0
                ),
                count,
            )
            name = f"x_meets = {x_meets.tolist()}, b_meets = {b_meets.tolist()}"
            expect(name, answer(x_meets, b_meets), truth, 1e-12, hint)


def ex_tree_counted(answer: Callable[..., Any]) -> None:
    """``counted_covers(tree, X)``: going right when a value equals the threshold."""
    hint = "All rows reach the root; at a node, those with x <= t go left"
    rng = np.random.default_rng(0)
    for name, tree, row in drawn_trees(8):
        for rows in (0, 1, 25):
            X = rng.integers(0, 4, (rows, len(row))).astype(float)
            wanted = np.zeros(len(tree[0]))
            for one in X:
                node = 0
                wanted[node] += 1
                while tree[0][node] is None:
                    goes_left = one[tree[5][node]] <= tree[3][node]
                    node = (tree[1] if goes_left else tree[2])[node]
                    wanted[node] += 1
            shown = name.split(", the row")[0]
            expect(f"{rows} rows in {shown}", answer(tree, X), wanted, 1e-12, hint)


def ex_tree_leaf_index(answer: Callable[..., Any]) -> None:
    """``leaf_index(z, o, T)``: a half of it for a pair, as the matrix has it."""
    hint = "The members of T give (o - z), all others stand under the integral; a pair counts whole"
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 6):
        z = rng.uniform(0, 1, count)
        o = (rng.random(count) < 0.6) * 1.0
        truth = shaplab.interaction_values(
            lambda S, z=z, o=o: np.where(S, o, z).prod(axis=1), count, order=count, index="SII"
        )
        for T in truth.subsets[:: max(1, len(truth.subsets) // 8)]:
            name = f"{count} features and T = {list(T)}"
            expect(name, answer(z, o, list(T)), float(truth[T]), 1e-12, hint)


def ex_tree_meet(answer: Callable[..., Any]) -> None:
    """``pairs_that_meet(tree)``: all pairs of features of the tree, on whatever paths."""
    hint = "Only features above each other meet, and a feature does not meet itself"
    forked: Tree = (
        [None, None, None, 0.0, 1.0, 2.0, 3.0],
        [1, 3, 5, -1, -1, -1, -1],
        [2, 4, 6, -1, -1, -1, -1],
        [0.5] * 7,
        [4, 2, 2, 1, 1, 1, 1],
        [2, 0, 1, -1, -1, -1, -1],
    )
    expect("a root of feature 2 above 0 and 1", answer(forked), {(0, 2), (1, 2)}, hint=hint)
    for name, tree, _ in drawn_trees(10):
        wanted = set()
        for leaf in np.flatnonzero([value is not None for value in tree[0]]):
            node = int(leaf)
            above = set()
            while node:
                parent = next(
                    j for j, kids in enumerate(zip(tree[1], tree[2], strict=True)) if node in kids
                )
                above.add(tree[5][parent])
                node = parent
            wanted |= set(itertools.combinations(sorted(above), 2))
        expect(name.split(", the row")[0], answer(tree), wanted, hint=hint)


def ex_tree_rescaled(answer: Callable[..., Any]) -> None:
    """``rescaled(phi, f, starts, y)``: dividing 0 by 0 where f equals a start."""
    hint = (
        "Where f equals the start, the ratio is the slope 2 (f - y); then the mean over references"
    )
    rng = np.random.default_rng(0)
    for references, players in ((1, 1), (1, 3), (6, 3)):
        phi = rng.normal(size=(references, players))
        f, y = rng.normal(size=2)
        starts = f - phi.sum(axis=1)
        wanted = np.zeros(players)
        for values, start in zip(phi, starts, strict=True):
            wanted += values * ((f - y) ** 2 - (start - y) ** 2) / (f - start) / references
        name = f"{references} references and {players} features"
        expect(name, answer(phi, f, starts, y), wanted, 1e-9, hint)
    even = np.array([[1.0, -1.0], [0.5, 1.5]])
    got = answer(even, 3.0, np.array([3.0, 1.0]), 1.0)
    expect("a reference with the row's prediction", got, [2.5, -0.5], 1e-9, hint)
    got = answer(even[:1], 1.0, np.array([1.0]), 1.0)
    expect("a prediction that is right already", got, [0.0, 0.0], 1e-9, hint)


def ex_tree_cox(answer: Callable[..., Any]) -> None:
    """``cox_terms(f, times)``: leaving those with the same time out of the sum."""
    hint = "At risk are all whose time is not smaller, the person itself and ties among them"
    expect("one death", answer(np.array([0.7]), np.array([2.0])), [0.0], 1e-12, hint)
    rng = np.random.default_rng(0)
    for times in (
        [1.0, -2.0, 3.0],
        [2.0, 2.0, -2.0, 1.0],
        [-1.0, -3.0],
        [5.0, 4.0, 3.0, 3.0, -9.0],
    ):
        f = rng.normal(size=len(times))
        wanted = np.zeros(len(times))
        for i, time in enumerate(times):
            if time > 0:
                at_risk = [f[j] for j, other in enumerate(times) if abs(other) >= time]
                wanted[i] = np.log(np.exp(at_risk).sum()) - f[i]
        expect(f"the times {times}", answer(f, np.array(times)), wanted, 1e-12, hint)


def ex_tree_ranks(answer: Callable[..., Any]) -> None:
    """``ranks(cuts, values)``: comparing in 64 bits, where 0.1 lies below its 32-bit neighbour."""
    hint = "Round the values to 32 bits first; a value that equals a threshold has passed it"
    cuts = np.array([0.1, 0.3, 2.0], dtype=np.float32)
    cases = {
        "values between the thresholds": ([-5.0, 0.2, 1.0, 7.0], [0, 1, 2, 3]),
        "the 64-bit 0.1 and 0.3": ([0.1, 0.3], [1, 2]),
        "a value on a threshold": ([2.0], [3]),
        "missing values": ([np.nan, 0.5, np.nan], [-1, 2, -1]),
        "infinite values": ([-np.inf, np.inf], [0, 3]),
        "no values": ([], []),
    }
    for name, (values, wanted) in cases.items():
        expect(name, answer(cuts, np.array(values, dtype=float)), np.array(wanted), 0.0, hint)
    got = answer(np.array([], dtype=np.float32), np.array([1.0]))
    expect("no thresholds", got, [0], 0.0, hint)


def ex_tree_butterflies(answer: Callable[..., Any]) -> None:
    """``butterflies(h, matrices)``: taking bit 0 for the first index, which is the highest bit."""
    hint = "Entries that differ in bit g only stand 2^g apart"
    rng = np.random.default_rng(0)
    for bits in (1, 2, 3, 5):
        h = rng.normal(size=2**bits)
        kept = h.copy()
        matrices = rng.normal(size=(bits, 2, 2))
        # The highest bit is the slowest index, so it comes first in the product.
        wanted = reduce(np.kron, matrices[::-1]) @ h
        expect(f"{bits} bits", answer(h, matrices), wanted, 1e-10, hint)
        expect(f"the caller's vector of {bits} bits", h, kept, 0.0, "Work on a copy")
