from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import scipy.sparse
from scipy.stats import chi2

from shaplab.foundations._structure import both_ways, read_structure
from shaplab.foundations.permutation import confidence_interval, permutation_shap
from shaplab.foundations.predictions import MarginalGame, exact_shap
from shaplab.foundations.structures import (
    _together,
    asymmetric_values,
    asymmetric_values_literal,
    owen_values,
    owen_values_literal,
)

# Sums of some hundred float64 numbers of order one.
EXACT = 1e-12

UNIONS = [[[0, 1, 2], [3, 4]], [[[0, 1], 2], [3, 4]], [0, [1, 2, 3], 4], [[4, 0], 1, 2, 3]]
PAIRS = {
    "levels": [(0, 2), (0, 3), (1, 2), (1, 3)],
    "a chain beside single players": [(0, 1), (1, 2)],
    "two chains": [(0, 1), (2, 3), (3, 4)],
    # The smallest order that falls into no parts: the letter N.
    "N": [(0, 2), (1, 2), (1, 3)],
    "N beside one": [(4, 2), (1, 2), (1, 3)],
    "a tree": [(0, 1), (0, 2), (2, 3), (2, 4)],
    "a crown": [(0, 3), (1, 3), (1, 4), (2, 4)],
}


def model(X):
    return X[:, 0] * X[:, 1] * X[:, 2] + np.tanh(X[:, 3]) * X[:, 0] + X[:, 4] ** 2 * X[:, 2]


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 5)), rng.normal(size=(6, 5))


def respected(pairs):
    return {
        order
        for order in permutations(range(5))
        if all(order.index(before) < order.index(after) for before, after in pairs)
    }


CASES = [(dict(unions=unions), set(_together(unions))) for unions in UNIONS]
CASES += [(dict(order=pairs), respected(pairs)) for pairs in PAIRS.values()]
CASES += [
    (dict(order=[[3, 1], [0, 2, 4]]), respected([(3, 0), (3, 2), (3, 4), (1, 0), (1, 2), (1, 4)]))
]


@pytest.mark.parametrize(("stated", "left"), CASES)
def test_orderings_left_are_equally_likely_both_ways(stated, left):
    structure = read_structure(5, None, **stated)
    uniform = np.random.default_rng(1).random((20_000, structure.n_keys))
    for orders in both_ways(structure, uniform):
        seen = Counter(map(tuple, orders.tolist()))
        assert set(seen) <= left
        expected = 20_000 / len(left)
        distance = sum((seen[order] - expected) ** 2 / expected for order in left)
        # 24 looks at a chi-square: one in a million each.
        assert distance <= chi2.ppf(1 - 1e-6, max(1, len(left) - 1))


@pytest.mark.parametrize("unions", UNIONS[:2])
def test_the_opposite_ordering_of_unions_is_the_reverse(unions):
    structure = read_structure(5, None, unions=unions)
    there, back = both_ways(structure, np.random.default_rng(0).random((50, structure.n_keys)))
    assert np.array_equal(there[:, ::-1], back)


def test_the_opposite_ordering_of_levels_is_the_reverse_within_each():
    structure = read_structure(5, None, order=[[3, 1], [0, 2, 4]])
    there, back = both_ways(structure, np.random.default_rng(0).random((50, structure.n_keys)))
    assert np.array_equal(there[:, :2][:, ::-1], back[:, :2])
    assert np.array_equal(there[:, 2:][:, ::-1], back[:, 2:])


@pytest.mark.parametrize("stated", [case[0] for case in CASES])
def test_exact_values_of_a_model_are_those_of_its_game(tables, stated):
    X, B = tables
    found = exact_shap(model, X, B, **stated)
    game = MarginalGame(model, X, B)
    if "unions" in stated:
        literal = owen_values_literal(game, stated["unions"])
    else:
        order = stated["order"]
        pairs = order
        if isinstance(order[0], list):
            pairs = [(before, after) for before in order[0] for after in order[1]]
        literal = asymmetric_values_literal(game, 5, pairs)
    assert np.allclose(found.values, literal.T, atol=EXACT)


@pytest.mark.parametrize("stated", [case[0] for case in CASES])
def test_sampled_values_are_unbiased_with_honest_errors(tables, stated):
    X, B = tables
    truth = exact_shap(model, X, B, **stated).values
    found = permutation_shap(model, X, B, rounds=200, rng=0, **stated)
    assert np.abs(found.gap(model(X))).max() < EXACT
    # 15 numbers in 12 structures, within five standard errors.
    assert (np.abs(found.values - truth) <= 5 * found.std + EXACT).all()
    assert next(iter(stated)) in found.method


def test_intervals_of_sampled_structures_cover(tables):
    X, B = tables
    for stated in (dict(unions=[[0, 3], [1, 4], [2]]), dict(order=PAIRS["N"])):
        truth = exact_shap(model, X, B, **stated).values
        hits = []
        for seed in range(200):
            run = permutation_shap(model, X, B, rounds=8, rng=seed, **stated)
            low, high = confidence_interval(run)
            hits.append((low <= truth + EXACT) & (truth - EXACT <= high))
        # 3,000 answers, correlated within a run: the share is known to about 0.8%.
        assert 0.93 < np.mean(hits) < 0.97, stated


def test_pairwise_interactions_need_one_round_under_unions_and_levels(tables):
    X, B = tables

    def pairwise(X):
        return X[:, 0] * X[:, 1] + X[:, 2] * X[:, 4] + X[:, 3] ** 3 * X[:, 0]

    for stated in (dict(unions=[[0, 2], [1, 3, 4]]), dict(order=[[3, 1], [0, 2, 4]])):
        found = permutation_shap(pairwise, X, B, rounds=2, rng=0, **stated)
        assert np.allclose(found.values, exact_shap(pairwise, X, B, **stated).values, atol=EXACT)


def test_idle_players_keep_their_place_in_the_order():
    # Player 1 is equal everywhere; without its place 0 and 2 would be strangers.
    X, B = np.array([[1.0, 5.0, 1.0]]), np.array([[0.0, 5.0, 0.0]])

    def both(X):
        return X[:, 0] * X[:, 2]

    for pairs in ([(0, 1), (1, 2)], [(0, 1), (2, 1)], [(1, 0)]):
        truth = exact_shap(both, X, B, order=pairs)
        found = permutation_shap(both, X, B, order=pairs, rng=0, thresh=0.01)
        assert np.abs(found.values - truth.values).max() <= 5 * found.std.max() + EXACT
    # An idle player between makes the share of an order other than one half.
    pairs = [(0, 1), (1, 2)]
    assert permutation_shap(both, X, B, order=pairs, rng=0).values.tolist() == [[0.0, 0.0, 1.0]]


def test_structures_go_by_name_and_over_groups(tables):
    X, B = tables
    names = list("abcde")
    groups = {"first": ["a", "b"], "second": ["c"], "third": ["d", "e"]}
    options = dict(groups=groups, feature_names=names)
    for stated in (
        dict(unions=[["first", "third"], ["second"]]),
        dict(order=[["third"], ["first", "second"]]),
        dict(order=[("third", "first")]),
    ):
        truth = exact_shap(model, X, B, **options, **stated)
        assert truth.feature_names == ("first", "second", "third")
        found = permutation_shap(model, X, B, **options, **stated, rounds=40, rng=1)
        assert (np.abs(found.values - truth.values) <= 5 * found.std + EXACT).all()
    by_number = exact_shap(model, X, B, groups=[[0, 1], [2], [3, 4]], unions=[[0, 2], [1]])
    by_name = exact_shap(model, X, B, **options, unions=[["first", "third"], ["second"]])
    assert np.array_equal(by_number.values, by_name.values)


def test_workers_and_batches_change_no_bit_under_a_structure(tables):
    X, B = tables
    for stated in (dict(unions=[[0, 1], [2, 3], [4]]), dict(order=PAIRS["N"])):
        first = permutation_shap(model, X, B, rounds=3, rng=4, **stated)
        for options in (dict(batch_size=7), dict(n_jobs=2)):
            again = permutation_shap(model, X, B, rounds=3, rng=4, **options, **stated)
            assert np.array_equal(first.values, again.values)
            assert np.array_equal(first.std, again.std)


def test_many_players():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(1, 200)), rng.normal(size=(4, 200))

    def wide(X):
        return X.sum(axis=1) + X[:, 0] * X[:, 1] * X[:, 199]

    levels = [list(range(100)), list(range(100, 200))]
    found = permutation_shap(wide, X, B, order=levels, rounds=2, rng=0)
    assert np.abs(found.gap(wide(X))).max() < 1e-10
    chain = [(player, player + 1) for player in range(199)]
    found = permutation_shap(wide, X, B, order=chain, rounds=2, rng=0)
    assert np.abs(found.std).max() < EXACT
    found = permutation_shap(wide, X, B, unions=levels, rounds=2, rng=0)
    assert np.abs(found.gap(wide(X))).max() < 1e-10


@pytest.mark.parametrize(
    ("stated", "error"),
    [
        (dict(unions=[[0, 1], [1, 2], [3, 4]]), "unions: expected each of 5 players once.*twice"),
        (dict(unions=[[0, 1], [3, 4]]), "unions: expected each of 5 players once.*no player 2"),
        (dict(unions=[[0, 1, 2, 3, 4, 5]]), "unions: expected each of 5 players once.*player 5"),
        (dict(unions="all"), "unions: expected a list of lists"),
        (dict(unions=[["age"], [1, 2, 3, 4]]), "unions: expected numbers of players, got 'age'"),
        (dict(order=[(0, 1), (1, 0)]), r"order: expected an order without a circle.*\[0, 1\]"),
        (dict(order=[(0, 9)]), "order: expected pairs of players 0 to 4"),
        (dict(order=[[0, 1], [2, 3]]), "order: expected all 5 players|order: expected each"),
        (dict(unions=[[0, 1, 2, 3, 4]], order=[(0, 1)]), "unions: expected unions or order"),
        (dict(order=[(0, 1), [2, 3]]), "order: expected levels, which are lists, or pairs"),
    ],
)
def test_structures_that_are_none(tables, stated, error):
    X, B = tables
    for explain in (exact_shap, permutation_shap):
        with pytest.raises((ValueError, TypeError), match=error):
            explain(model, X, B, **stated)


def test_unions_may_be_tuples_and_weights_go_with_sparse_tables(tables):
    X, B = tables
    lists = exact_shap(model, X, B, unions=[[0, 1], [[2, 3], 4]]).values
    tuples = exact_shap(model, X, B, unions=((0, 1), ((2, 3), 4))).values
    assert np.array_equal(lists, tuples)
    game = MarginalGame(model, X, B)
    assert np.array_equal(owen_values(game, [(0, 1), ((2, 3), 4)]).T, lists)
    weights = [0, 1, 2, 3, 4, 5]
    dense = exact_shap(model, X, B, weights=weights).values
    for sparse in (scipy.sparse.coo_matrix(B), scipy.sparse.csc_matrix(B)):
        assert np.array_equal(exact_shap(model, X, sparse, weights=weights).values, dense)


@pytest.mark.parametrize(
    "stated", [dict(order=[(0, 1)]), dict(unions=[list(range(30)), list(range(30, 60))])]
)
def test_too_many_coalitions_name_a_remedy_that_works(stated):
    X = np.ones((1, 60))

    def total(X):
        return X.sum(axis=1)

    with pytest.raises(ValueError, match="draw orderings: permutation_shap for a model"):
        exact_shap(total, X, 0 * X, **stated)
    assert np.allclose(permutation_shap(total, X, 0 * X, rng=0, **stated).values, 1.0)


def test_an_order_with_too_many_coalitions_is_refused_by_the_sampler_with_a_remedy():
    # A fence of 50 players: no parts, and more down-sets than can be counted.
    fence = [(i, i + 1) if i % 2 == 0 else (i + 1, i) for i in range(49)]
    X = np.ones((1, 50))
    with pytest.raises(ValueError, match="order: expected at most 262,144 coalitions"):
        permutation_shap(lambda X: X.sum(axis=1), X, 0 * X, order=fence)


@pytest.mark.parametrize("size", [1, 3, 20])
def test_small_budgets_down_to_one_walk_a_reference(size):
    rng = np.random.default_rng(size)
    X, B = rng.normal(size=(2, 8)), rng.normal(size=(size, 8))

    def triple(X):
        return X[:, 0] * X[:, 1] * X[:, 2] + X[:, 3:].sum(axis=1)

    complete = 2 + size + 3
    least = complete + 2 * (2 * 7 * size)
    with pytest.raises(ValueError, match=f"max_evaluations: expected at least {least} model rows"):
        permutation_shap(triple, X, B, max_evaluations=least - 1)
    found = permutation_shap(triple, X, B, max_evaluations=least, thresh=1e-9, rng=0)
    assert found.info["evaluations"] == least
    assert np.isnan(found.std).all()
    assert found.info["stopped"] == "budget"
    assert not found.info["converged"]
    assert np.abs(found.gap(triple(X))).max() < EXACT
    with pytest.raises(ValueError, match="explanation: expected values with standard errors"):
        confidence_interval(found)
    for times in (2, 7, 11, 40):
        budget = complete + times * 2 * (2 * 7 * size)
        found = permutation_shap(triple, X, B, max_evaluations=budget, thresh=1e-9, rng=0)
        assert found.info["evaluations"] <= budget
        # Fewer orderings, of all references together, do not know their error.
        is_known = times * size >= 32
        assert np.isfinite(found.std).all() == is_known
        assert np.isnan(found.info["ratio"]) == (not is_known)


@pytest.mark.parametrize("times", [2, 4])
def test_intervals_cover_at_small_budgets(times):
    rng = np.random.default_rng(1)
    X, B = rng.normal(size=(1, 8)), rng.normal(size=(30, 8))

    def triple(X):
        return X[:, 0] * X[:, 1] * X[:, 2] + np.tanh(X[:, 3] * X[:, 4]) * X[:, 5] + X.sum(axis=1)

    truth = exact_shap(triple, X, B).values
    budget = 1 + 30 + 2 + times * 2 * 7 * 30
    hits = []
    for seed in range(200):
        run = permutation_shap(triple, X, B, max_evaluations=budget, thresh=1e-9, rng=seed)
        assert run.info["rounds"] == [times]
        low, high = confidence_interval(run)
        hits.append((low <= truth + EXACT) & (truth - EXACT <= high))
    # 1,200 answers that chance decides: features 6 and 7 have no interactions, so are exact.
    assert 0.93 < np.mean(np.array(hits)[..., :6]) < 0.97


def test_weights_in_the_walks_are_repeated_rows(tables):
    X, B = tables
    weights = [3, 1, 0, 2, 1, 4]
    truth = exact_shap(model, X, np.repeat(B, weights, axis=0))
    found = permutation_shap(model, X, B, weights=weights, rounds=100, rng=0)
    assert np.allclose(found.base_values, truth.base_values, atol=EXACT)
    assert np.abs(found.gap(model(X))).max() < EXACT
    assert (np.abs(found.values - truth.values) <= 5 * found.std + EXACT).all()
    enumerated = permutation_shap(model, X, B, weights=weights)
    assert np.allclose(enumerated.values, truth.values, atol=0.05)
    equal = permutation_shap(model, X, B, weights=[2.0] * 6, rounds=4, rng=3)
    assert np.array_equal(equal.values, permutation_shap(model, X, B, rounds=4, rng=3).values)
    both = permutation_shap(
        model, X, B, weights=weights, unions=[[0, 3], [1, 2, 4]], rounds=100, rng=0
    )
    game = MarginalGame(model, X, B, weights=weights)
    owen = owen_values(game, [[0, 3], [1, 2, 4]]).T
    assert (np.abs(both.values - owen) <= 5 * both.std + EXACT).all()
    assert asymmetric_values(game, [[0, 1, 2, 3, 4]]).shape == (5, 3)
