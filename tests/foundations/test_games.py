import numpy as np
import pytest

from shaplab._groups import group_labels
from shaplab.foundations.games import (
    GroupedGame,
    MeanGame,
    TableGame,
    all_coalitions,
    company_game,
    evaluate_game,
)


def test_coalition_numbers_are_binary():
    coalitions = all_coalitions(4)
    assert coalitions.shape == (16, 4)
    assert (coalitions @ (1 << np.arange(4)) == np.arange(16)).all()
    assert (all_coalitions(4, 5, 9) == coalitions[5:9]).all()


def test_table_game_reads_the_entry_of_each_coalition():
    table = np.random.default_rng(0).normal(size=(8, 2, 3))
    game = TableGame(table)
    assert game.n_players == 3
    assert (game(all_coalitions(3)) == table).all()
    assert (TableGame.of(game, 3).table == table).all()


def test_table_from_named_coalitions():
    game = TableGame({("left", "right"): 1.0}, names=["left", "right"])
    assert game(all_coalitions(2)).tolist() == [0.0, 0.0, 0.0, 1.0]


def test_company_has_the_values_of_the_source():
    game = company_game()
    everybody = np.ones((1, 5), dtype=bool)
    without_ceo, without_hires = everybody.copy(), everybody.copy()
    without_ceo[0, 0] = False
    without_hires[0, 3:] = False
    assert game(everybody)[0] == pytest.approx(1_000_000)
    assert game(without_ceo)[0] == pytest.approx(500_000)
    assert game(without_hires)[0] == pytest.approx(950_000)
    assert game(~everybody)[0] == 0


def test_groups_enter_together():
    rng = np.random.default_rng(1)
    game = TableGame(rng.normal(size=16))
    grouped = GroupedGame(game, [[0, 2], [1], [3]])
    for coalition in all_coalitions(3):
        members = np.array([coalition[0], coalition[1], coalition[0], coalition[2]])
        assert grouped(coalition[None])[0] == game(members[None])[0]


def test_group_names():
    label, names = group_labels(
        {"place": ["lat", "lon"], "time": ["hour"]}, 3, ["lat", "hour", "lon"]
    )
    assert names == ("place", "time")
    assert label.tolist() == [0, 1, 0]
    assert group_labels([[0, 1], [2]], 3, ["a", "b", "c"])[1] == ("a + b", "c")


def test_mean_game_averages_rows_and_flips_losses():
    table = np.random.default_rng(2).normal(size=(4, 5))
    game = MeanGame(TableGame(table))
    assert np.allclose(game(all_coalitions(2)), -table.mean(axis=1))


def test_a_table_that_cannot_be_held_is_refused_before_it_is_made():
    asked = []

    def large(S):
        asked.append(len(S))
        return np.zeros((len(S), 1000))

    with pytest.raises(
        ValueError,
        match=r"n_players: expected a table of at most 2 GiB, got 8 GiB.*shape \(1000,\)",
    ):
        TableGame.of(large, 20)
    assert asked == [1]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TableGame([1.0, 2.0, 3.0]), "values: expected 2\\*\\*n values"),
        (lambda: TableGame({("a",): 1.0}), "names: expected the players' names"),
        (
            lambda: TableGame({("z",): 1.0}, names=["a"]),
            "values: expected players among a, got 'z'",
        ),
        (lambda: TableGame([0.0, 1.0], names=["a", "b"]), "names: expected 1 names, got 2"),
        (
            lambda: TableGame([0.0, 1.0])(np.ones((1, 3), bool)),
            "coalitions: expected a boolean array \\(m, 1\\)",
        ),
        (lambda: TableGame(None), "values: expected numbers, got None"),
        (lambda: TableGame(["a", "b"]), "values: expected numbers"),
        (
            lambda: TableGame({("a",): "x"}, names=["a"]),
            "values: expected numbers as values, got 'x'",
        ),
        (
            lambda: TableGame({("a",): [1, 2]}, names=["a"]),
            "values: expected one number for each coalition",
        ),
        (
            lambda: TableGame({0: 1.0}, names=["a"]),
            "values: expected tuples of players as keys, got 0",
        ),
        (
            lambda: TableGame({("a",): 1.0}, names=["a", "a"]),
            "names: expected different names, got 2 names",
        ),
        (lambda: TableGame({("a",): 1.0}, names="ab"), "names: expected the players' names"),
        (lambda: TableGame([0.0, 1.0], names="a"), "names: expected 1 names, got 'a'. Pass a list"),
        (lambda: all_coalitions(60), "n_players: expected at most 24"),
        (lambda: all_coalitions(2.5), "n_players: expected an integer"),
        (lambda: company_game("much"), "profit: expected a number"),
        (
            lambda: MeanGame(company_game())(all_coalitions(5)),
            "game: expected a payoff whose first axis are rows",
        ),
        (
            lambda: MeanGame(company_game(), sign=0),
            "sign: expected -1 for losses or 1 for gains, got 0",
        ),
        (lambda: MeanGame(3)(all_coalitions(2)), "game: expected a callable"),
        (
            lambda: GroupedGame(company_game(), [[0, 1], [2, 3, 4]])(all_coalitions(5)),
            "boolean array \\(m, 2\\)",
        ),
        (lambda: GroupedGame(3, [[0], [1]])(all_coalitions(2)), "game: expected a callable"),
        (
            lambda: GroupedGame(len, [[0], [2]]),
            "groups: expected a partition of the players.*got player 2",
        ),
        (lambda: group_labels([[0.7, 1], [2]], 3), "got player 0.7"),
        (lambda: group_labels([[None, 1], [2]], 3), "got player None"),
        (lambda: group_labels([[True], [0]], 2), "got player True"),
        (lambda: group_labels([0, 1], 2), "got group 0. Give a list of groups"),
        (lambda: group_labels(3, 2), "got group 3. Give a list of groups"),
        (lambda: group_labels("ab", 2), "got group 'a'. Give a list of groups"),
        (lambda: group_labels([], 2), "got group \\[\\]. Give a list of groups"),
        (lambda: group_labels({"g": "ab"}, 2), "got group 'ab'"),
        (lambda: group_labels({"g": ["<script>" * 70]}, 1, ["a"]), "got player '.{0,90}'"),
        (
            lambda: group_labels([[0], [0, 1]], 2),
            "groups: expected a partition.*'0'|groups: expected a partition.*0",
        ),
        (lambda: group_labels([[0], []], 1), "groups: expected a partition"),
        (lambda: group_labels([["nope"]], 1, ["a"]), "player 'nope'"),
        (lambda: evaluate_game(3, all_coalitions(1)), "game: expected a callable"),
        (
            lambda: evaluate_game(lambda S: ["a"] * len(S), all_coalitions(1)),
            "game: expected numbers",
        ),
        (
            lambda: evaluate_game(lambda S: [[1], [1, 2]], all_coalitions(1)),
            "game: expected numbers",
        ),
        (
            lambda: evaluate_game(lambda S: np.zeros(7), all_coalitions(1)),
            "game: expected 2 values for 2 coalitions",
        ),
        (
            lambda: evaluate_game(lambda S: np.where(S[:, 0], np.nan, 0), all_coalitions(2)),
            "finite values, got nan for coalition \\[0\\]",
        ),
    ],
)
def test_bad_input_is_named(make, text):
    with pytest.raises((ValueError, TypeError), match=text):
        make()
