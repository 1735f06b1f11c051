from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.foundations.estimate import estimate_values
from shaplab.foundations.exact import banzhaf_values, shapley_values
from shaplab.foundations.games import TableGame, all_coalitions, company_game
from shaplab.foundations.interactions import (
    Interactions,
    higher_interactions_literal,
    interaction_values,
    interaction_values_literal,
)

# As in test_exact: a few dozen float64 products.
EXACT = 1e-11


@examples(40)
@given(st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([(), (2,)]), st.integers(1, 64))
def test_fast_equals_literal(n, seed, payoff, batch):
    game = TableGame(np.random.default_rng(seed).normal(size=(2**n, *payoff)))
    fast = interaction_values(game, n, batch_size=batch)
    assert fast.shape == (n, n, *payoff)
    assert np.allclose(fast, interaction_values_literal(game, n), atol=EXACT, rtol=0)


def test_rows_sum_to_shapley_values_and_matrix_is_symmetric():
    game = TableGame(np.random.default_rng(4).normal(size=2**8))
    matrix = interaction_values(game, 8)
    assert np.allclose(matrix, matrix.T, atol=EXACT)
    assert np.allclose(matrix.sum(axis=1), shapley_values(game, 8), atol=EXACT)
    assert matrix.sum() == pytest.approx(game.table[-1] - game.table[0], abs=EXACT)


@pytest.mark.parametrize(
    ("logic", "off", "diagonal"),
    [
        (np.logical_and, 0.5, 0.0),
        (np.logical_or, -0.5, 1.0),
        (np.logical_xor, -1.0, 1.0),
    ],
)
def test_logic_by_hand(logic, off, diagonal):
    # Two players, empty S only: v(12) - v(1) - v(2) + v(0), halved.
    matrix = interaction_values(lambda S: logic(S[:, 0], S[:, 1]) * 1.0, 2)
    assert np.allclose(matrix, [[diagonal, off], [off, diagonal]], atol=EXACT)


def test_additive_game_has_no_interactions():
    worth = np.array([1.0, -2.0, 0.5])
    assert np.allclose(interaction_values(lambda S: S @ worth, 3), np.diag(worth), atol=EXACT)


def test_three_way_product_spreads_over_its_pairs():
    matrix = interaction_values(lambda S: S[:, :3].all(axis=1) * 6.0, 4)
    assert np.allclose(matrix.sum(axis=1), [2, 2, 2, 0], atol=EXACT)
    assert np.allclose(matrix[3], 0, atol=EXACT)
    assert matrix[0, 1] == pytest.approx(1.5)


def test_too_many_players():
    with pytest.raises(ValueError, match="n_players: expected at most 24"):
        interaction_values(lambda S: S[:, 0], 25)


ORDERS = ("SII", "k-SII", "STII", "FSII", "Banzhaf", "Moebius")


def nested_game(rng, n, payoff, kind):
    """Random, wide, tied or constant values of all coalitions."""
    table = rng.normal(size=(2**n, *payoff))
    if kind == "wide":
        table *= 10.0 ** rng.integers(-6, 7, size=len(table)).reshape(-1, *[1] * len(payoff))
    if kind == "tied":
        table = np.round(table)
    if kind == "constant":
        table[:] = 3.0
    return TableGame(table)


@examples(60)
@given(
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.sampled_from([(), (2,), (2, 3)]),
    st.sampled_from(["random", "wide", "tied", "constant"]),
    st.sampled_from(ORDERS),
    st.data(),
)
def test_every_index_is_its_definition(n, seed, payoff, kind, index, data):
    order = data.draw(st.integers(1, n))
    game = nested_game(np.random.default_rng(seed), n, payoff, kind)
    found = interaction_values(game, n, order=order, index=index, batch_size=7)
    literal = higher_interactions_literal(game, n, order, index)
    assert set(found.subsets) == set(literal)
    # The literal FSII solves normal equations, whose rounding grows with their condition.
    rounding = 1e-9 if index == "FSII" else EXACT
    scale = max(1.0, np.abs(game.table).max())
    for T, value in literal.items():
        assert found[T].shape == payoff
        np.testing.assert_allclose(found[T[::-1]], value, atol=rounding * scale, rtol=0)
    if index in ("k-SII", "STII", "FSII") or (index == "Moebius" and order == n):
        np.testing.assert_allclose(found.total, game.table[-1], atol=EXACT * scale, rtol=0)


def test_order_one_are_shapley_values_and_pairs_are_the_matrix():
    game = TableGame(np.random.default_rng(1).normal(size=(2**7, 2)))
    shapley = shapley_values(game, 7)
    for index in ("SII", "k-SII", "STII", "FSII"):
        found = interaction_values(game, 7, order=1, index=index)
        np.testing.assert_allclose(found.values, shapley, atol=EXACT)
    banzhaf = interaction_values(game, 7, order=1, index="Banzhaf")
    np.testing.assert_allclose(banzhaf.values, banzhaf_values(game, 7), atol=EXACT)
    matrix = interaction_values(game, 7)
    for index in ("SII", "k-SII"):
        found = interaction_values(game, 7, order=2, index=index)
        for i, j in combinations(range(7), 2):
            np.testing.assert_allclose(found[i, j], 2 * matrix[i, j], atol=EXACT)
    for i in range(7):  # k-SII of order 2 has the main effects of the matrix
        np.testing.assert_allclose(found[i], matrix[i, i], atol=EXACT)


def test_three_players_by_hand():
    # v: 1 alone 1, pair (0, 1) adds 4, all three add 6 more.
    game = TableGame({(0,): 1, (0, 1): 5, (0, 2): 1, (0, 1, 2): 11}, names=[0, 1, 2])
    by_hand = {
        # m(0) = 1, m(01) = 4, m(012) = 6
        "Moebius": {(0,): 1, (0, 1): 4, (0, 1, 2): 6, (1, 2): 0},
        # each coalition's worth over 1 + players that T lacks
        "SII": {(0,): 1 + 4 / 2 + 6 / 3, (0, 1): 4 + 6 / 2, (1, 2): 6 / 2, (0, 1, 2): 6},
        "Banzhaf": {(0,): 1 + 4 / 2 + 6 / 4, (0, 1): 4 + 6 / 2, (1, 2): 3, (0, 1, 2): 6},
    }
    for index, expected in by_hand.items():
        found = interaction_values(game, 3, order=3, index=index)
        for T, value in expected.items():
            assert found[T] == pytest.approx(value, abs=EXACT), (index, T)
    # At order 2 the triple goes to its pairs in thirds (STII); what lower orders pay differs.
    taylor = interaction_values(game, 3, order=2, index="STII")
    assert taylor[0, 1] == pytest.approx(4 + 6 / 3)
    assert taylor[1, 2] == pytest.approx(2)
    assert taylor[0] == pytest.approx(1)
    assert taylor[1] == pytest.approx(0)
    added = interaction_values(game, 3, order=2, index="k-SII")
    assert added[0, 1] == pytest.approx(7)
    assert added[0] == pytest.approx(5 - 7 / 2 - 3 / 2)
    faithful = interaction_values(game, 3, order=2, index="FSII")
    # Beta(2, 2): the triple's p has mean 1/2; singles lose so that all sum to 11.
    assert faithful[0, 1] == pytest.approx(7)
    assert faithful.total == pytest.approx(11)


def test_moebius_rebuilds_the_game():
    game = TableGame(np.random.default_rng(2).normal(size=2**6))
    found = interaction_values(game, 6, index="Moebius")
    assert found.order == 6
    for number, members in enumerate(all_coalitions(6)):
        inside = [T for T in found.subsets if members[list(T)].all()]
        rebuilt = found[()] + sum(found[T] for T in inside)
        assert rebuilt == pytest.approx(game.table[number], abs=EXACT)


def test_sii_is_what_a_player_changes_in_the_interaction_of_the_others():
    # Recursion: I(T) = I(T - j) with j present less I(T - j) with j absent.
    table = np.random.default_rng(3).normal(size=2**6)
    whole = interaction_values(TableGame(table), 6, order=4, index="SII")
    last = 5
    present = interaction_values(TableGame(table[2**last :]), last, order=3, index="SII")
    absent = interaction_values(TableGame(table[: 2**last]), last, order=3, index="SII")
    for T in present.subsets:
        assert whole[(*T, last)] == pytest.approx(present[T] - absent[T], abs=EXACT)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_banzhaf_of_the_highest_order_is_the_nearest_polynomial(order):
    game = TableGame(np.random.default_rng(5).normal(size=2**6))
    found = interaction_values(game, 6, order=order, index="Banzhaf")
    members = all_coalitions(6)
    terms = [members[:, list(T)].all(axis=1) for T in found.subsets]
    design = np.column_stack([np.ones(64), *terms])
    fit = np.linalg.lstsq(design, game.table, rcond=None)[0][1:]
    for T, coefficient in zip(found.subsets, fit, strict=True):
        if len(T) == order:
            assert found[T] == pytest.approx(coefficient, abs=EXACT)


def test_taylor_keeps_interactions_among_those_who_make_them():
    # Sum of two products: STII of order 2 pays pairs inside a product and no other.
    found = interaction_values(
        lambda S: S[:, :2].all(axis=1) * 3.0 + S[:, 2:5].all(axis=1) * 6.0,
        5,
        order=2,
        index="STII",
    )
    assert found[0, 1] == pytest.approx(3)
    assert found[2, 4] == pytest.approx(2)
    assert found[0, 2] == pytest.approx(0, abs=EXACT)


def test_twenty_players_with_a_closed_form():
    sets = [((0, 3, 7), 2.0), ((3, 19), -1.0), ((1, 2, 4, 5, 6), 10.0)]

    def game(S):
        return sum(worth * S[:, list(T)].all(axis=1) for T, worth in sets)

    found = interaction_values(game, 20, order=3, index="SII")
    # SII(T) is the sum over U with T inside of m(U) / (|U| - |T| + 1); a million values cancel.
    assert found[0, 3, 7] == pytest.approx(2.0, abs=1e-12)
    assert found[0, 3] == pytest.approx(1.0, abs=1e-12)
    assert found[3, 19] == pytest.approx(-1.0, abs=1e-12)
    assert found[1, 4, 6] == pytest.approx(10 / 3, abs=1e-12)
    assert found[8, 9] == pytest.approx(0.0, abs=1e-12)


def test_the_result_can_be_read():
    game = company_game()
    found = interaction_values(game, 5, order=3, index="k-SII")
    assert found["Ann", "CEO"] == found[0, 1] == found[1, 0]
    assert found["CEO"] == found[0] == found[(0,)]
    assert found[()] == game.table[0]
    assert "CEO × Ann" in repr(found)
    frame = found.to_frame()
    assert list(frame.columns) == ["players", "order", "value"]
    assert frame["value"].sum() == pytest.approx(1e6)
    assert len(found) == 5 + 10 + 10
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 1.0
    rows = interaction_values(lambda S: S[:, :2] * 1.0, 3, order=2)
    assert list(rows.to_frame().columns) == ["players", "order", "row", "value"]
    assert "mean |value|" in repr(rows)
    assert rows.error((0, 1)).tolist() == [0.0, 0.0]
    # What is not listed is 0, of the payoff's shape.
    sparse = Interactions(np.ones((1, 2)), ((1, 2),), 2, "SII", np.zeros(2), 3)
    assert sparse[0, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 4}, "order: expected at most 3, the number of players, got 4"),
        ({"order": 0}, "order: expected an integer >= 1"),
        ({"order": 2.0}, "order: expected an integer"),
        ({"index": "shapley"}, "index: expected one of 'SII', 'k-SII', 'STII', 'FSII', 'Banzhaf'"),
        ({"order": 2, "names": ["a", "b"]}, "names: expected 3 names, got 2"),
    ],
)
def test_bad_orders_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        interaction_values(lambda S: S[:, 0] * 1.0, 3, **arguments)


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ((0, 0), "subset: expected each player once"),
        ((0, 1, 2), "subset: expected at most 2 players, the order"),
        ((0, 7), "subset: expected players from 0 to 2"),
        ((-1,), "subset: expected players"),
        ((True, 0), "subset: expected players"),
        (("nobody",), "subset: expected players"),
        ((0.0, 1), "subset: expected players"),
    ],
)
def test_bad_subsets_are_named(subset, message):
    found = interaction_values(lambda S: S[:, 0] * 1.0, 3, order=2)
    with pytest.raises(ValueError, match=message):
        found[subset]


def test_counting_beyond_memory_is_refused_before_it_is_done():
    calls = []

    def game(S):
        calls.append(len(S))
        return np.ones((len(S), 1000))

    with pytest.raises(ValueError, match=r"7\.8 GiB: 1,048,576 payoffs of shape \(1000,\)"):
        interaction_values(game, 20, order=2)
    assert sum(calls) == 4096
    with pytest.raises(ValueError, match="pairs of a subset and a larger one for k-SII"):
        interaction_values(lambda S: S[:, 0] * 1.0, 20, order=12, index="k-SII")


def test_nothing_of_the_game_is_changed_and_batches_do_not_matter():
    game = TableGame(np.random.default_rng(8).normal(size=(2**6, 3)))
    before = game.table.copy()
    one = interaction_values(game, 6, order=3, index="FSII", batch_size=64)
    np.testing.assert_array_equal(
        one.values, interaction_values(game, 6, order=3, index="FSII", batch_size=5).values
    )
    np.testing.assert_array_equal(game.table, before)


def sum_of_products(n, seed, terms=60, widest=8):
    """A game, and its SII in closed form: SII(T) = sum of m(U) / (|U| - |T| + 1) over U with T
    inside."""
    rng = np.random.default_rng(seed)
    sets = [rng.choice(n, int(rng.integers(1, widest + 1)), replace=False) for _ in range(terms)]
    worth = rng.normal(size=terms)

    def game(S):
        return sum(w * S[:, U].all(axis=1) for w, U in zip(worth, sets, strict=True))

    def truth(T):
        inside = np.array([set(T) <= set(U.tolist()) for U in sets])
        sizes = np.array([len(U) for U in sets])
        return (worth[inside] / (sizes[inside] - len(T) + 1)).sum()

    return game, truth


@pytest.mark.parametrize(
    ("index", "order"),
    [("SII", 1), ("SII", 3), ("k-SII", 3), ("STII", 2), ("STII", 3), ("FSII", 3), ("Banzhaf", 2)],
)
def test_estimates_have_no_bias_and_honest_intervals(index, order):
    game, _ = sum_of_products(11, 3, terms=25, widest=6)
    exact = interaction_values(game, 11, order=order, index=index)
    runs = [
        interaction_values(game, 11, order=order, index=index, max_evaluations=600, rng=seed)
        for seed in range(60)
    ]
    sampled = runs[0].std > 1e-9  # lower orders of STII are counted
    off = np.array([run.values - exact.values for run in runs])
    np.testing.assert_allclose(off[:, ~sampled], 0, atol=EXACT)
    errors = np.array([run.std for run in runs])
    inside = np.abs(off[:, sampled]) < 1.96 * errors[:, sampled]
    # Entries of a run hang together, so 60 runs tell coverage to about 2 percent.
    assert 0.91 < inside.mean() < 0.985
    # Standard errors are neither too small nor too large: 60 runs tell them to a tenth or so.
    assert 0.8 < np.mean(off[:, sampled] ** 2) / np.mean(errors[:, sampled] ** 2) < 1.25
    # Means of 60 runs: a normal number beyond 4.5 is one of 150,000.
    z = off.mean(axis=0)[sampled] / np.sqrt((errors**2).mean(axis=0)[sampled] / 60)
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize(("index", "budget"), [("k-SII", 297), ("STII", 250)])
def test_small_budgets_hold_lower_orders_as_well(index, budget):
    """Of k-SII a pair weighs itself by a half; of STII pairs, but not their complements, are all
    valued."""
    game, _ = sum_of_products(11, 3, terms=25, widest=6)
    exact = interaction_values(game, 11, order=3, index=index)
    inside = []
    for seed in range(60):
        run = interaction_values(game, 11, order=3, index=index, max_evaluations=budget, rng=seed)
        off = np.abs(run.values - exact.values)
        inside.append(off < 1.96 * run.std + EXACT)
    share = np.mean(inside, axis=0)
    for size in (1, 2, 3):
        of_size = [len(subset) == size for subset in exact.subsets]
        # As above, 60 runs tell coverage to about 2 percent; what is counted holds always.
        assert share[of_size].mean() > 0.91
        if index == "STII" and size < 3:
            assert share[of_size].min() == 1.0


def test_thirty_players_with_a_closed_form():
    game, truth = sum_of_products(30, 4)
    inside, off = [], []
    for seed in range(20):
        found = interaction_values(game, 30, order=2, max_evaluations=4000, rng=seed)
        exact = np.array([truth(T) for T in found.subsets])
        off.append(found.values - exact)
        inside.append(np.abs(off[-1]) < 1.96 * found.std)
    assert found.info["evaluations"] <= 4000
    assert 0.92 < np.mean(inside) < 0.98
    assert np.sqrt(np.mean(np.square(off))) < 0.15 * np.abs(exact).max()


def test_estimates_are_exact_where_the_budget_or_the_polynomial_covers_the_game():
    pairs, _ = sum_of_products(30, 6, terms=40, widest=2)
    found = interaction_values(pairs, 30, order=2, max_evaluations=3000, rng=0)
    fine = interaction_values(pairs, 30, order=2, index="STII", max_evaluations=3000, rng=1)
    # A game of pairs is its own polynomial: nothing is left to chance but rounding and a ridge.
    assert found.std.max() < 1e-6
    for i, j in combinations(range(30), 2):
        assert found[i, j] == pytest.approx(float(fine[i, j]), abs=1e-6)
    game = TableGame(np.random.default_rng(0).normal(size=(2**6, 2)))
    covered = interaction_values(game, 6, max_evaluations=64)
    assert covered.std is None
    np.testing.assert_array_equal(covered.values, interaction_values(game, 6, order=2).values)
    moebius = interaction_values(pairs, 40 - 10, order=2, index="Moebius", max_evaluations=466)
    assert moebius.std.max() == 0.0
    assert moebius.info["evaluations"] == 1 + 30 + 435


def test_estimates_keep_their_promises():
    seen = []

    def game(S):
        seen.append(S.copy())
        return np.stack([S[:, 0] * S[:, 1] * 1.0, S.sum(axis=1) ** 1.5], axis=1)

    one = interaction_values(game, 26, max_evaluations=900, rng=3, batch_size=100)
    rows = np.concatenate(seen)
    # Two are asked for once more: does the game answer the same?
    assert len(np.unique(rows, axis=0)) == len(rows) - 2
    assert len(rows) == one.info["evaluations"] <= 900
    assert max(map(len, seen)) <= 100
    again = interaction_values(game, 26, max_evaluations=900, rng=3)
    np.testing.assert_array_equal(one.values, again.values)
    np.testing.assert_array_equal(one.std, again.std)
    other = interaction_values(game, 26, max_evaluations=900, rng=4)
    assert (one.values != other.values).any()
    assert one.std.shape == one.values.shape == (26 + 325, 2)
    assert one.error((1, 0)).shape == (2,)
    assert "standard error" in repr(one)
    assert "std" in one.to_frame()
    alone = interaction_values(lambda S: S[:, 0] * 1.0, 26, max_evaluations=900, rng=0)
    assert "±" in repr(alone)


@pytest.mark.parametrize(
    ("n", "more", "message"),
    [
        (30, {"max_evaluations": 50}, "max_evaluations: expected at least 162 for order 2 of SII"),
        (30, {"max_evaluations": 0}, "max_evaluations: expected an integer >= 1"),
        (501, {"max_evaluations": 9999}, "n_players: expected an integer >= 1 and <= 500"),
        (400, {"max_evaluations": 9999, "order": 3}, "order: expected at most 1,048,576 subsets"),
        (30, {"max_evaluations": 900, "order": 31}, "order: expected at most 30"),
        (30, {"max_evaluations": 900, "rng": -1}, "rng: expected"),
        (30, {}, "max_evaluations"),
        (
            30,
            {"max_evaluations": 500, "order": 3, "index": "STII"},
            "max_evaluations: expected at least 597",
        ),
        (
            30,
            {"max_evaluations": 900, "order": 3, "index": "k-SII"},
            "max_evaluations: expected at least 1032",
        ),
    ],
)
def test_bad_budgets_are_named(n, more, message):
    with pytest.raises(ValueError, match=message):
        interaction_values(lambda S: S[:, 0] * 1.0, n, **more)


def test_the_least_budget_that_an_error_names_is_enough():
    for index, least in (("SII", 162), ("k-SII", 162), ("STII", 162), ("Moebius", 466)):
        kind = {"order": 2, "index": index}
        with pytest.raises(ValueError, match=f"Pass max_evaluations={least} or more"):
            interaction_values(lambda S: S[:, 0] * 1.0, 30, max_evaluations=least - 1, **kind)
        found = interaction_values(lambda S: S[:, 0] * 1.0, 30, max_evaluations=least, **kind)
        assert found.info["evaluations"] <= least


def triple(S):
    return S[:, 0] * S[:, 1] * S[:, 2] * 6.0 + S @ np.arange(26.0)


def stopping(asked, stop_at, problem):
    def game(S):
        if len(asked) >= stop_at:
            raise problem
        asked.extend(map(bytes, np.packbits(S, axis=1)))
        return triple(S)

    return game


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_an_estimate_is_kept_resumed_and_the_same_for_workers(problem, tmp_path):
    options = dict(order=2, max_evaluations=900, rng=0, batch_size=20)
    whole = interaction_values(triple, 26, **options)
    assert whole.info["stopped"] == "budget"
    working = interaction_values(triple, 26, n_jobs=2, **options)
    np.testing.assert_array_equal(working.values, whole.values)
    state = tmp_path / "answers.npz"
    asked = []
    if problem is KeyboardInterrupt:
        kept = interaction_values(stopping(asked, 500, problem), 26, state=state, **options)
    else:
        with pytest.raises(RuntimeError) as raised:
            interaction_values(stopping(asked, 500, problem), 26, state=state, **options)
        kept = raised.value.partial
    assert kept.info["stopped"] in ("interrupted", "error")
    assert 50 <= kept.info["pairs"] < whole.info["pairs"] and (kept.std >= 0).all()
    assert kept.info["evaluations"] == len(asked)
    longer = interaction_values(stopping(asked, 10_000, problem), 26, state=state, **options)
    np.testing.assert_array_equal(longer.values, whole.values)
    assert len(set(asked)) == len(asked) - 2
    # The store is that of the game, not of the function.
    before = len(asked)
    estimate_values(
        stopping(asked, 10_000, problem), 26, max_evaluations=900, thresh=None, state=state
    )
    assert len(asked) - before < 900
    # Coalitions of another seed would be others: nothing that was paid for would count.
    with pytest.raises(ValueError, match=r"rng: expected the seed that answers.npz was started"):
        interaction_values(triple, 26, state=state, **(options | {"rng": 1}))
    with pytest.raises(problem):
        interaction_values(stopping([], 60, problem), 26, **options)
    with pytest.raises(ValueError, match="game: expected the same value each time"):
        interaction_values(lambda S: triple(S) + S[:, 5], 26, state=state, **options)


@pytest.mark.parametrize("index", ["SII", "k-SII", "STII", "FSII", "Banzhaf"])
def test_precision_stops_an_estimate(index):
    asked = []

    def game(S):
        asked.extend(map(bytes, np.packbits(S, axis=1)))
        return np.stack([np.sqrt(S.sum(axis=1)) + S[:, :3].all(axis=1), S[:, 0] * 1.0], axis=1)

    options = dict(order=2, index=index, rng=0)
    rough = interaction_values(game, 26, thresh=0.5, **options)
    assert rough.info["stopped"] == "precision"
    spread = np.ptp(np.pad(rough.values, ((1, 0), (0, 0))), axis=0).max()
    finest = rough.std.max() / spread / 2
    asked.clear()
    fine = interaction_values(game, 26, thresh=finest, **options)
    assert fine.info["stopped"] == "precision"
    assert fine.info["pairs"] > rough.info["pairs"]
    spread = np.ptp(np.pad(fine.values, ((1, 0), (0, 0))), axis=0).max()
    assert fine.std.max() <= finest * spread
    # Rounds of questions repeat none, but for the two that are asked for once more.
    assert len(asked) == fine.info["evaluations"] == len(set(asked)) + 2
    spent = interaction_values(game, 26, thresh=1e-9, max_evaluations=1300, **options)
    # Coalitions that are drawn once more cost nothing.
    assert spent.info["stopped"] == "budget" and 1000 <= spent.info["evaluations"] <= 1300


def test_enumeration_is_kept_too(tmp_path):
    game = TableGame(np.random.default_rng(0).normal(size=(2**7, 2)), names=list("abcdefg"))
    state = tmp_path / "answers.npz"
    asked = []

    def counted(S):
        asked.extend(S)
        return game(S)

    first = interaction_values(counted, 7, order=2, state=state, n_jobs=1)
    again = interaction_values(counted, 7, index="FSII", state=state)
    assert len(asked) == 128 + 2
    np.testing.assert_allclose(first.values, interaction_values(game, 7, order=2).values)
    np.testing.assert_allclose(again.values, interaction_values(game, 7, index="FSII").values)
    assert interaction_values(game, 7, order=1, n_jobs=1).names == tuple("abcdefg")
    matrix = interaction_values(counted, 7, state=state)
    np.testing.assert_allclose(matrix, interaction_values(game, 7))


def test_games_that_answer_otherwise_are_named():
    noise = np.random.default_rng(0)
    with pytest.raises(ValueError, match="game: expected the same value each time"):
        interaction_values(lambda S: noise.normal(size=len(S)), 26, max_evaluations=900)
    with pytest.raises(ValueError, match="game: expected finite values, got nan"):
        interaction_values(
            lambda S: np.where(S.sum(axis=1) == 25, np.nan, 1.0), 26, max_evaluations=900
        )
    with pytest.raises(ValueError, match="game: expected payoffs of shape"):
        interaction_values(
            lambda S: np.ones((len(S), 1 + (len(S) < 20))), 26, max_evaluations=900, batch_size=50
        )


def test_a_pair_of_complements_cancels_what_cannot_matter():
    """A game that values a coalition like its complement has no Shapley values, a game that values
    it with the other sign no pairs; pairs of complements see it, without any chance."""
    worth = np.random.default_rng(2).normal(size=26)

    def odd(S):
        return np.tanh((2.0 * S - 1.0) @ worth)

    even = interaction_values(lambda S: odd(S) ** 2, 26, order=1, max_evaluations=400, rng=1)
    # Coefficients of size 10 times rounding, of a few hundred draws.
    np.testing.assert_allclose(even.values, 0, atol=1e-9)
    np.testing.assert_allclose(even.std, 0, atol=1e-9)
    pairs = interaction_values(odd, 26, order=2, max_evaluations=400, rng=1)
    np.testing.assert_allclose(pairs.values[26:], 0, atol=1e-9)
