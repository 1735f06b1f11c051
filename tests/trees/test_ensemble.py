"""The ensemble itself: hand-made trees against a plain walk, order, covers, codes, and damaged
arrays."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scipy import sparse

from shaplab import UnsupportedModelError
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.kernels import predict
from shaplab.trees.kernels.predict import Codebook, encode_rows, find_leaves, predict_rows


def grow(rng, depth, d, grid, n_outputs=1, full=0.0):
    """A random tree as lists: children before or after their parent, as chance has it."""
    nodes = [None]
    todo = [(0, 0)]
    while todo:
        node, level = todo.pop(rng.integers(len(todo)))
        if level >= depth or (level > 0 and rng.random() < 0.3 - full):
            nodes[node] = (0, 0.0, -1, -1, rng.normal(size=n_outputs), False)
            continue
        left, right = len(nodes), len(nodes) + 1
        if rng.random() < 0.5:
            left, right = right, left
        nodes += [None, None]
        nodes[node] = (
            int(rng.integers(d)),
            float(rng.choice(grid)),
            left,
            right,
            np.zeros(n_outputs),
            bool(rng.random() < 0.5),
        )
        todo += [(left, level + 1), (right, level + 1)]
    return nodes


def ensemble_of(trees, d, **more):
    start = np.concatenate([[0], np.cumsum([len(tree) for tree in trees])])
    columns = list(
        zip(
            *[
                (f, t, a + s if a >= 0 else -1, b + s if b >= 0 else -1, v, m)
                for tree, s in zip(trees, start[:-1], strict=True)
                for f, t, a, b, v, m in tree
            ],
            strict=True,
        )
    )
    feature, threshold, left, right, value, missing_left = (np.array(column) for column in columns)
    return TreeEnsemble.from_arrays(
        feature,
        threshold,
        left,
        right,
        value,
        missing_left=missing_left,
        tree_start=start,
        n_features=d,
        **more,
    )


def walk(trees, x, compare, dtype):
    total = 0.0
    for tree in trees:
        node = 0
        while tree[node][2] >= 0:
            feature, threshold, left, right, _, missing_left = tree[node]
            a, t = dtype(x[feature]), dtype(threshold)
            if np.isnan(a):
                goes_left = missing_left
            else:
                goes_left = a < t if compare == "<" else float(a) <= float(threshold)
            node = left if goes_left else right
        total = total + tree[node][4]
    return total


GRID = [-np.inf, -1.5, -1e-40, -0.0, 0.0, 0.1, 1.0, 2.0**24, 2.0**24 + 1, 1e38, np.inf]


@examples(60)
@given(
    seed=st.integers(0, 2**31),
    depth=st.integers(0, 8),
    compare=st.sampled_from(["<", "<="]),
    single=st.booleans(),
    n_outputs=st.sampled_from([1, 3]),
)
def test_predict_equals_a_plain_walk(seed, depth, compare, single, n_outputs):
    rng = np.random.default_rng(seed)
    d, dtype = int(rng.integers(1, 5)), np.float32 if single else np.float64
    grid = [*GRID, *rng.normal(size=3)]
    trees = [grow(rng, depth, d, grid, n_outputs) for _ in range(rng.integers(1, 5))]
    ensemble = ensemble_of(trees, d, compare=compare, dtype=dtype, base=0.5)
    X = rng.choice(
        [*grid, np.nan, 0.3, -7.0, np.nextafter(0.1, 0), np.nextafter(1.0, 2)], size=(40, d)
    )
    expected = np.array([walk(trees, x, compare, dtype) for x in X]) + 0.5
    np.testing.assert_allclose(
        ensemble.predict(X), expected, rtol=1e-14, atol=1e-14
    )  # the base is added last
    np.testing.assert_array_equal(ensemble.predict(X[:1]), ensemble.predict(X)[:1])
    assert ensemble.max_depth <= depth
    inner = ensemble.feature >= 0
    assert (ensemble.left[inner] > np.flatnonzero(inner)).all()
    np.testing.assert_array_equal(ensemble.right[inner], ensemble.left[inner] + 1)


@contextmanager
def python_loops():
    """What the loops call is Python, too, while their own Python source is run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_count_below", "_leaf_of", "goes_left"):
            patch.setattr(predict, name, getattr(predict, name).py_func)
        yield


def test_compiled_loops_equal_their_python_source():
    rng = np.random.default_rng(0)
    trees = [grow(rng, 5, 3, rng.normal(size=9)) for _ in range(3)]
    e, X = ensemble_of(trees, 3), rng.normal(size=(20, 3))
    X[::4, 1] = np.nan
    codes = np.empty((20, 3), np.int32)
    c = e.encoder
    book = Codebook(
        c.cuts,
        c.cut_start,
        c.categorical,
        c.categories,
        c.category_start,
        c.zero_rule,
        tiny=0.0,
        missing=np.nan,
        unseen_missing=False,
        lowest_category=-1.0,
    )
    with python_loops():
        encode_rows.py_func(X, book, codes)
    np.testing.assert_array_equal(codes, e.encode(X))
    out, reached = np.empty((20, 1)), np.empty((20, 3), np.int32)
    with python_loops():
        predict_rows.py_func(codes, e.nodes, e.base, out)
        find_leaves.py_func(codes, e.nodes, reached)
    np.testing.assert_array_equal(out, e.predict_codes(codes))
    np.testing.assert_array_equal(reached, e.leaves(codes))
    np.testing.assert_allclose(e.value[reached, 0].sum(axis=1), out[:, 0], rtol=1e-14, atol=1e-15)


def test_sets_of_categories():
    e = TreeEnsemble.from_arrays(
        [0, -1, 1, -1, -1],
        [0.0, 0, 2.5, 0, 0],
        [1, -1, 3, -1, -1],
        [2, -1, 4, -1, -1],
        [0, 1.0, 0, 2, 3],
        sets={0: [0, 3]},
        missing_left=[True, 0, 0, 0, 0],
        n_features=2,
    )
    X = [
        [0, 9],
        [3, 9],
        [1, 9],
        [2, 2.5],
        [4, 9],
        [99, 9],
        [-1, 9],
        [np.nan, 9],
        [3.9, 9],
        [np.inf, 9],
    ]
    np.testing.assert_array_equal(e.predict(X), [1, 1, 3, 2, 3, 3, 3, 1, 1, 3])
    # 0 and 3 occur in sets; no split tells the others from categories that were never seen.
    np.testing.assert_array_equal(e.encode(X)[:, 0], [0, 1, 2, 2, 2, 2, 2, -1, 1, 2])
    np.testing.assert_array_equal(e.encoder.n_codes, [3, 2])
    assert np.isnan(e.threshold[e.set_start >= 0]).all()
    with pytest.raises(ValueError, match="both kinds of splits on feature 0"):
        TreeEnsemble.from_arrays(
            [0, -1, 0, -1, -1],
            [0.0, 0, 2.5, 0, 0],
            [1, -1, 3, -1, -1],
            [2, -1, 4, -1, -1],
            [0, 1.0, 0, 2, 3],
            sets={0: [0, 3]},
        )


def test_more_thresholds_than_16_bits():
    n = 70_000
    threshold = np.zeros(3 * n)
    threshold[::3] = np.arange(n) / 8
    feature = np.tile([0, -1, -1], n)
    left, right = np.full(3 * n, -1), np.full(3 * n, -1)
    left[::3], right[::3] = np.arange(n) * 3 + 1, np.arange(n) * 3 + 2
    e = TreeEnsemble.from_arrays(
        feature,
        threshold,
        left,
        right,
        np.tile([0.0, 1.0, 0.0], n),
        tree_start=np.arange(0, 3 * n + 1, 3),
    )
    X = np.array([[-1.0], [0.0], [4000.0], [4000.1], [(n - 1) / 8], [1e9]])
    np.testing.assert_array_equal(e.predict(X), [n, n, n - 32000, n - 32001, 1, 0])
    assert e.encode(X).max() == n


def test_chain_of_one_feature():
    depth = (
        200  # each inner node cuts at its own level: a row with x = k leaves the chain at level k
    )
    feature = np.r_[np.zeros(depth, int), np.full(depth + 1, -1)]
    left = np.r_[np.arange(depth, 2 * depth), np.full(depth + 1, -1)]
    right = np.r_[np.arange(1, depth), 2 * depth, np.full(depth + 1, -1)]
    e = TreeEnsemble.from_arrays(
        feature,
        np.r_[np.arange(depth), np.zeros(depth + 1)],
        left,
        right,
        np.r_[np.zeros(depth), np.arange(depth + 1)],
    )
    assert e.max_depth == depth
    np.testing.assert_array_equal(
        e.predict(np.arange(depth + 5.0)[:, None]), np.minimum(np.arange(depth + 5), depth)
    )


def test_leaves_without_splits_and_no_trees_at_all():
    leaf = TreeEnsemble.from_arrays([-1], [0.0], [-1], [-1], [3.0], n_features=4, base=1.0)
    np.testing.assert_array_equal(leaf.predict(np.zeros((2, 4))), [4.0, 4.0])
    assert (leaf.max_depth, leaf.n_trees, leaf.n_outputs) == (0, 1, 1)
    none = replace(
        leaf,
        tree_start=np.zeros(1),
        **{
            name: getattr(leaf, name)[:0]
            for name in (
                "feature",
                "left",
                "right",
                "rank",
                "missing_left",
                "set_start",
                "cover",
                "value",
                "threshold",
            )
        },
    )
    np.testing.assert_array_equal(none.predict(np.zeros((2, 4))), [1.0, 1.0])
    assert none.max_depth == 0


def small(**more):
    return TreeEnsemble.from_arrays(
        [0, 1, -1, -1, -1],
        [0.5, 0.0, 0, 0, 0],
        [1, 3, -1, -1, -1],
        [2, 4, -1, -1, -1],
        [0, 0, 1.0, 2.0, 3.0],
        **more,
    )


def test_covers():
    np.testing.assert_array_equal(small().cover, [3, 2, 1, 1, 1])
    X = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_array_equal(small().with_covers(X).cover, [4, 3, 1, 1, 2])
    np.testing.assert_array_equal(
        small().with_covers(X, [0, 1, 0.5, 0]).cover, [1.5, 1.5, 0, 0, 1.5]
    )
    for bad in ([1, 1], [1, 1, 1, -1], [1, 1, 1, np.nan]):
        with pytest.raises(ValueError, match="sample_weight: expected 4 finite weights"):
            small().with_covers(X, bad)


def test_arrays_are_read_only_also_after_pickling():
    given_value = np.array([0, 0, 1.0, 2.0, 3.0])
    e = TreeEnsemble.from_arrays(
        [0, 1, -1, -1, -1],
        [0.5, 0, 0, 0, 0],
        [1, 3, -1, -1, -1],
        [2, 4, -1, -1, -1],
        given_value,
        feature_names=["a", "b"],
        objective="mine",
    )
    given_value[:] = 9  # the ensemble has its own copy
    again = pickle.loads(pickle.dumps(e))
    for item in fields(TreeEnsemble):
        ours, theirs = getattr(e, item.name), getattr(again, item.name)
        if isinstance(ours, np.ndarray):
            assert not ours.flags.writeable
            assert not theirs.flags.writeable
            np.testing.assert_array_equal(ours, theirs)
    X = [[0.5, 1], [2, 2]]
    np.testing.assert_array_equal(again.predict(X), e(X))
    assert again.feature_names == ("a", "b")
    assert repr(e).startswith(
        "TreeEnsemble(1 trees, 5 nodes, depth 2, 2 features, 1 output, objective='mine'"
    )
    assert 100 < e.nbytes < 1000
    assert as_ensemble(e) is e


def test_outputs_keep_their_axis():
    value = np.array([[0.0], [1.0], [2.0]])
    e = TreeEnsemble.from_arrays(
        [0, -1, -1], [0.0, 0, 0], [1, -1, -1], [2, -1, -1], value, output_names=["only"]
    )
    assert e.has_outputs
    assert e.predict([[1.0]]).shape == (1, 1)
    assert e.output_names == ("only",)
    assert small().predict([[1.0, 1.0]]).shape == (1,)


def test_tables_of_every_kind():
    X = np.array([[0.5, 0.0], [0.0, 3.0], [0.7, np.nan]])
    e = small(feature_names=["a", "b"])
    expected = e.predict(X)
    frame = pd.DataFrame(X, columns=["a", "b"])
    nullable = pd.DataFrame(
        {"a": frame["a"].astype("Float64"), "b": pd.array([0, 3, None], "Int64")}
    )
    for table in (
        frame,
        nullable,
        np.asfortranarray(X),
        X.tolist(),
        sparse.csr_matrix(X),
        X[::-1][::-1],
    ):
        np.testing.assert_array_equal(e.predict(table), expected)
    np.testing.assert_array_equal(
        e.predict(pd.DataFrame({"a": [True], "b": [1]})), e.predict([[1.0, 1.0]])
    )
    for bad, message in (
        (frame.rename(columns={"b": "c"}), "missing b; unknown c"),
        (frame[["b", "a"]], "another order"),
        (frame[["a"]], "missing b"),
        (frame.astype({"b": object}), "'b' of type object|b of another type"),
        (frame.assign(b=pd.Categorical([1, 2, 3])), "numeric column 'b'"),
        (X[0], r"shape \(n, d\)"),
        (X[:, :1], "expected 2 columns, got 1"),
        (X[:0], "at least one row"),
    ):
        with pytest.raises(ValueError, match=message):
            e.predict(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left": [1, 0, -1, -1, -1]}, "two parents"),
        ({"left": [1, 9, -1, -1, -1]}, "points outside"),
        ({"right": [1, 4, -1, -1, -1]}, "two parents"),
        ({"right": [2, -3, -1, -1, -1]}, "points outside"),
        ({"feature": [7, 1, -1, -1, -1], "n_features": 2}, "splits on features 0 to 1"),
        ({"feature": [-1, 1, -1, -1, -1]}, "splits on features"),
        ({"threshold": [np.nan, 0, 0, 0, 0]}, "thresholds"),
        (
            {"value": [0, 0, np.nan, 1, 1]},
            "a finite output of every node, got .* at node 2 of tree 0",
        ),
        (
            {"cover": [1, 1, 1, 1, np.inf]},
            "a finite cover of every node, got .* at node 4 of tree 0",
        ),
        ({"tree_start": [0, 3, 5]}, "points outside"),
        ({"tree_start": [0, 4]}, "tree starts"),
        ({"feature": [0, 1]}, "feature: expected shape"),
        ({"compare": ">"}, "compare"),
        ({"feature_names": ["a"]}, "splits on features 0 to 0"),
        ({"value": 1.0}, "value: expected shape"),
    ],
)
def test_hand_made_nonsense_is_refused(change, message):
    arguments = {
        "feature": [0, 1, -1, -1, -1],
        "threshold": [0.5, 0, 0, 0, 0],
        "left": [1, 3, -1, -1, -1],
        "right": [2, 4, -1, -1, -1],
        "value": [0, 0, 1.0, 2.0, 3.0],
    } | change
    with pytest.raises(ValueError, match=message):
        TreeEnsemble.from_arrays(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": [2, 3, -1, -1, -1]}, "node 3 with 2 parents"),
        ({"rank": [9, 1, 0, 0, 0]}, "ranks"),
        ({"set_start": [0, -1, -1, -1, -1]}, "sets"),
        ({"base": [0.0, 0.0]}, "value: expected shape"),
        ({"left": [0, 3, -1, -1, -1]}, "outside its tree"),
        ({"tree_start": [0, 2, 5]}, "outside its tree"),
    ],
)
def test_changed_arrays_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(small(), **{name: np.array(array) for name, array in change.items()})


def test_no_damage_makes_the_loops_read_outside():
    """Arrays changed at random are refused, or the Python source of the loops, which checks bounds,
    runs through."""
    rng = np.random.default_rng(0)
    trees = [grow(rng, 4, 3, rng.normal(size=5)) for _ in range(3)]
    e = ensemble_of(trees, 3)
    codes = e.encode(rng.normal(size=(5, 3)))
    refused = 0
    for _ in range(400):
        name = rng.choice(
            [
                "tree_start",
                "feature",
                "left",
                "right",
                "rank",
                "set_start",
                "set_bits",
                "value",
                "base",
            ]
        )
        array = np.array(getattr(e, name))
        if array.size and rng.random() < 0.8:
            array[rng.integers(len(array))] = rng.choice(
                [-2, -1, 0, 1, 3, len(e.feature), 2**31 - 1]
            )
        else:
            array = array[:-1]
        try:
            changed = replace(e, **{name: array})
        except ValueError:
            refused += 1
            continue
        c = changed
        assert c.left.min() >= -1
        with python_loops():
            predict_rows.py_func(codes, c.nodes, c.base, np.empty((5, c.n_outputs)))
    assert refused > 100


def test_unknown_models_are_named():
    with pytest.raises(UnsupportedModelError, match=r"got builtins\.int"):
        as_ensemble(3)
