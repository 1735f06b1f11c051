"""Trees that ask few questions: tables of trees are those of clusters, looked up by made-up rows."""

import itertools

import catboost
import numpy as np
import pytest

from shaplab import (
    BackgroundTrees,
    PreparedTrees,
    TreeEnsemble,
    exact_shap,
    interventional_tree_shap,
    path_dependent_game,
    tree_shap,
    tree_shap_interactions,
)
from shaplab.foundations.exact import shapley_values
from shaplab.trees import _plans
from shaplab.trees._paths import Paths
from shaplab.trees._plans import PathDependentPlan
from shaplab.trees._players import players_of
from shaplab.trees._questions import questions_of
from shaplab.trees.kernels.structure import COLUMNS, OP_SPLIT

RNG = np.random.default_rng(0)
SETTINGS = {"verbose": 0, "thread_count": 1, "allow_writing_files": False, "random_seed": 0}


@pytest.fixture(scope="module")
def rows():
    table = RNG.normal(size=(2000, 7))
    table[:, 5] = RNG.integers(0, 3, size=2000)  # ties
    table[RNG.random(table.shape) < 0.1] = np.nan
    return table


def target(rows):
    known = np.nan_to_num(rows)
    return known[:, 0] * known[:, 1] + np.sin(3 * known[:, 2]) + known[:, 3] + known[:, 5]


@pytest.fixture(scope="module")
def regressor(rows):
    return catboost.CatBoostRegressor(iterations=20, depth=6, **SETTINGS).fit(rows, target(rows))


@pytest.fixture(scope="module")
def classifier(rows):
    label = np.digitize(target(rows), [-1.0, 1.0])
    model = catboost.CatBoostClassifier(iterations=8, depth=4, **SETTINGS)
    return model.fit(rows, label)


@pytest.fixture
def by_splits(monkeypatch):
    """The same functions, one question for each split."""

    def call(function, *arguments, **keywords):
        with monkeypatch.context() as patch:
            patch.setattr(_plans, "questions_of", lambda *ignored: None)
            return function(*arguments, **keywords)

    return call


def paid(trees):
    pays = np.add.reduceat(trees.value != 0, trees.roots, axis=0) > 0
    return pays.sum(axis=1)


def are_asked_once(trees, n_rows=10_000, pairs=False):
    return questions_of(trees.nodes, paid(trees), pairs, n_rows) is not None


def test_symmetric_trees_ask_one_question_a_level(regressor):
    trees = TreeEnsemble.from_model(regressor)
    found = questions_of(trees.nodes, paid(trees), False, 1000)
    assert found.asked.max() <= 6
    assert found.n_rows == 2**found.most
    splits = np.flatnonzero(trees.feature >= 0)
    tree = np.searchsorted(trees.nodes.tree_start, splits, side="right") - 1
    first = np.cumsum(found.asked) - found.asked
    stands_for = found.asking[first[tree] + found.number[splits]]
    for field in (trees.feature, trees.rank, trees.missing_left, trees.set_start):
        np.testing.assert_array_equal(field[splits], field[stands_for])


def test_few_rows_and_other_trees_are_looked_up_as_ever(regressor, rows):
    trees = TreeEnsemble.from_model(regressor)
    assert are_asked_once(trees)
    assert not are_asked_once(trees, n_rows=100)
    other = catboost.CatBoostRegressor(
        iterations=20, depth=6, grow_policy="Depthwise", **SETTINGS
    ).fit(rows, target(rows))
    assert not are_asked_once(TreeEnsemble.from_model(other))


@pytest.mark.parametrize("name", ["regressor", "classifier"])
def test_both_games_and_pairs_agree_with_one_question_a_split(name, rows, by_splits, request):
    trees = TreeEnsemble.from_model(request.getfixturevalue(name))
    assert are_asked_once(trees, len(rows), pairs=True)
    for function, arguments in (
        (tree_shap, ()),
        (tree_shap_interactions, ()),
        (interventional_tree_shap, (rows[:300],)),
    ):
        wanted = by_splits(function, trees, rows, *arguments)
        got = function(trees, rows, *arguments)
        # Sums of the same terms, by tree instead of by cluster.
        np.testing.assert_allclose(got.values, wanted.values, rtol=0, atol=1e-12)
        np.testing.assert_allclose(got.base_values, wanted.base_values, rtol=0, atol=1e-12)


def test_values_are_those_of_all_coalitions(regressor, rows):
    trees = TreeEnsemble.from_model(regressor)
    got = tree_shap(trees, rows).values
    some = [0, 7, 1999]
    wanted = shapley_values(path_dependent_game(trees, rows[some]), 7)
    np.testing.assert_allclose(got[some], np.asarray(wanted).T, rtol=0, atol=1e-12)
    background = rows[:20]
    got = interventional_tree_shap(trees, rows, background).values[:3]
    wanted = exact_shap(regressor.predict, rows[:3], background).values
    # CatBoost's own predictions have 1e-9 of ours.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8)


def test_groups_threads_batches_and_prepared_objects(regressor, rows, by_splits):
    trees = TreeEnsemble.from_model(regressor)
    groups = [[0, 1], [2], [3, 4, 5], [6]]
    wanted = by_splits(tree_shap, trees, rows, groups=groups).values
    got = tree_shap(trees, rows, groups=groups).values
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    plain = tree_shap(trees, rows).values
    np.testing.assert_array_equal(tree_shap(trees, rows, n_jobs=2).values, plain)
    # Batches of few rows take another route.
    batches = tree_shap(trees, rows, batch_size=77).values
    np.testing.assert_allclose(batches, plain, rtol=0, atol=1e-12)
    for limit in (0, 2**30):
        prepared = PreparedTrees(trees, memory_limit=limit)
        np.testing.assert_allclose(prepared(rows).values, plain, rtol=0, atol=1e-12)
        np.testing.assert_allclose(prepared(rows[:1]).values, plain[:1], rtol=0, atol=1e-12)
    background = BackgroundTrees(trees, rows[:300])
    wanted = by_splits(interventional_tree_shap, trees, rows, rows[:300])
    for _ in range(2):
        got = background(rows)
        np.testing.assert_allclose(got.values, wanted.values, rtol=0, atol=1e-12)
        np.testing.assert_allclose(got.base_values, wanted.base_values, rtol=0, atol=1e-12)


def test_trees_of_one_question_and_trees_without_any_stand_beside_deep_ones(by_splits):
    """A level that changes nothing, the same column twice, and a tree that is one leaf."""
    rows = RNG.normal(size=(3000, 3))
    step = (rows[:, 0] > 0.3).astype(float) + 2.0 * (rows[:, 0] > 1.0)
    model = catboost.CatBoostRegressor(iterations=30, depth=5, learning_rate=0.9, **SETTINGS)
    trees = TreeEnsemble.from_model(model.fit(rows, step))
    wanted = by_splits(tree_shap, trees, rows).values
    got = tree_shap(trees, rows).values
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        got.sum(axis=1), model.predict(rows) - tree_shap(trees, rows).base_values, atol=1e-8
    )


def test_sets_of_categories_are_questions_too(by_splits):
    pandas = pytest.importorskip("pandas")
    names = ["a", "b", "c", "d"]
    frame = pandas.DataFrame({"kind": RNG.choice(names, size=3000), "size": RNG.normal(size=3000)})
    worth = frame["kind"].map({"a": 0.0, "b": 1.0, "c": -2.0, "d": 3.0}) * (frame["size"] > 0)
    model = catboost.CatBoostRegressor(iterations=10, depth=4, one_hot_max_size=10, **SETTINGS)
    trees = TreeEnsemble.from_model(model.fit(frame, worth, cat_features=["kind"]))
    wanted = by_splits(tree_shap, trees, frame).values
    np.testing.assert_allclose(tree_shap(trees, frame).values, wanted, rtol=0, atol=1e-12)


def test_made_up_rows_give_every_set_of_answers_once(regressor):
    trees = TreeEnsemble.from_model(regressor)
    paths = Paths(trees, players_of(trees, None, None))
    tables = PathDependentPlan(paths, False, 5000, "tables").clusters.questions
    answers = np.array(list(itertools.product([0, 1], repeat=len(tables.codes)))).T[::-1]
    np.testing.assert_array_equal(tables.codes, 1 - answers)
    # Each tree has its own columns, and they add to all features that it asks.
    columns = tables.plan.clusters[:, COLUMNS]
    assert columns.sum() == tables.n_columns == len(tables.plan.targets)
    tree = np.repeat(np.arange(len(columns)), columns)
    places = np.searchsorted(trees.nodes.tree_start, tables.plan.ops[:, OP_SPLIT], "right") - 1
    kept = np.unique(places)
    for number, place in enumerate(kept):
        asked = trees.feature[tables.plan.ops[places == place, OP_SPLIT]]
        assert set(tables.plan.targets[tree == number]) == set(asked)


def test_where_missing_values_go_belongs_to_the_question(regressor):
    trees = TreeEnsemble.from_model(regressor)
    nodes = trees.nodes
    asked = questions_of(nodes, paid(trees), False, 10_000).asked
    last = np.flatnonzero((nodes.feature >= 0) & (nodes.feature == nodes.feature[0]))[-1]
    turned = nodes.missing_left.copy()
    turned[last] = 1 - turned[last]
    found = questions_of(nodes._replace(missing_left=turned), paid(trees), False, 10_000)
    assert found.asked.sum() == asked.sum() + 1
