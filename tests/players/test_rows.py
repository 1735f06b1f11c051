import numpy as np
import pandas as pd
import pytest

from shaplab import banzhaf_values, estimate_values, shapley_values
from shaplab.players.rows import NeighbourGame, knn_shapley, knn_shapley_literal

# Sums of at most 2**9 numbers below one in float64.
EXACT = 1e-13


def tables(seed, n=9, tied=False):
    rng = np.random.default_rng(seed)
    X, X_train = rng.normal(size=(5, 3)), rng.normal(size=(n, 3))
    if tied:
        X, X_train = X.round(0), X_train.round(0)
    return X, rng.integers(0, 3, 5), X_train, rng.integers(0, 3, n)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("votes", [1, 2, 5, 9, 30])
def test_values_are_those_of_all_training_sets(votes, tied):
    given = tables(votes, tied=tied)
    found = knn_shapley(*given, n_neighbors=votes)
    game = NeighbourGame(*given, n_neighbors=votes)
    assert np.allclose(shapley_values(game, 9).T, found.values, atol=EXACT, rtol=0)
    everybody = game(np.ones((1, 9), dtype=bool))[0]
    assert np.allclose(found.prediction, everybody, atol=EXACT, rtol=0)
    assert not game(np.zeros((1, 9), dtype=bool)).any()


def test_the_game_is_a_vote_of_the_nearest():
    X, y, X_train, y_train = tables(0, tied=True)
    game = NeighbourGame(X, y, X_train, y_train, n_neighbors=3)
    rng = np.random.default_rng(1)
    for S in rng.random((20, 9)) < 0.5:
        members = np.flatnonzero(S)
        for test in range(5):
            far = ((X_train[members] - X[test]) ** 2).sum(axis=1)
            nearest = members[np.argsort(far, kind="stable")[:3]]
            assert game(S[None])[0, test] == pytest.approx((y_train[nearest] == y[test]).sum() / 3)


def test_the_recursion_of_the_paper_and_one_training_row():
    X, y, X_train, y_train = tables(3, n=40)
    found = knn_shapley(X, y, X_train, y_train, n_neighbors=4)
    for test in range(5):
        order = ((X_train - X[test]) ** 2).sum(axis=1).argsort(kind="stable")
        literal = knn_shapley_literal(y_train[order] == y[test], 4)
        assert np.allclose(found.values[test, order], literal, atol=EXACT, rtol=0)
    alone = knn_shapley(X, np.zeros(5, int), X_train[:1], [0], n_neighbors=4)
    assert np.allclose(alone.values, 0.25)


def test_parts_of_the_table_change_nothing(monkeypatch):
    from shaplab.players import rows

    given = tables(4, n=30)
    whole = knn_shapley(*given).values
    coalitions = np.random.default_rng(0).random((50, 30)) < 0.5
    votes = NeighbourGame(*given)(coalitions)
    monkeypatch.setattr(rows, "CELLS_TOGETHER", 70)
    assert np.array_equal(knn_shapley(*given).values, whole)
    assert np.array_equal(NeighbourGame(*given)(coalitions), votes)


def test_other_values_and_estimates_take_the_same_game():
    given = tables(5, n=30)
    exact = knn_shapley(*given, n_neighbors=3)
    game = NeighbourGame(*given, n_neighbors=3)
    found = estimate_values(game, 30, max_evaluations=1500, thresh=None, rng=0)
    # Five standard errors; 150 values.
    assert (np.abs(found.values.T - exact.values) <= 5 * found.std.T + EXACT).all()
    small = NeighbourGame(*tables(5), n_neighbors=3)
    assert banzhaf_values(small, 9).shape == (9, 5)


def test_labels_of_any_kind_and_frames():
    X, y, X_train, y_train = tables(6)
    wanted = knn_shapley(X, y, X_train, y_train).values
    words = np.array(["cat", "dog", "cow"])
    assert np.array_equal(knn_shapley(X, words[y], X_train, words[y_train]).values, wanted)
    frame = pd.DataFrame(X_train, columns=["a", "b", "c"])
    found = knn_shapley(
        pd.DataFrame(X, columns=["a", "b", "c"]),
        pd.Series(y),
        frame,
        pd.Series(y_train.astype(float)),
        names=[f"patient {row}" for row in range(9)],
    )
    assert np.array_equal(found.values, wanted)
    assert found.feature_names[3] == "patient 3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": [[0.0, 1.0]]}, "X: expected 3 columns, got 2"),
        ({"y": [1, 2]}, "y: expected 5 labels, one for each row of X"),
        ({"y_train": np.linspace(0, 1, 9)}, "y_train: expected labels of classes"),
        ({"y": [0, 1, np.nan, 1, 0]}, "y: expected labels of classes"),
        ({"y": ["0", "1", "2", "1", "0"]}, "y: expected labels of the same kind as y_train"),
        ({"n_neighbors": 0}, "n_neighbors: expected an integer >= 1"),
        ({"X_train": np.full((9, 3), np.nan)}, "X_train: expected finite numbers"),
        ({"names": ["a"]}, "names: expected"),
    ],
)
def test_bad_input_is_named(change, message):
    X, y, X_train, y_train = tables(7)
    given = {"X": X, "y": y, "X_train": X_train, "y_train": y_train} | change
    with pytest.raises((ValueError, TypeError), match=message):
        knn_shapley(**given)


def test_labels_missing_as_objects_are_named():
    X, y, X_train, y_train = tables(7)
    with pytest.raises(ValueError, match="y_train: expected labels of classes"):
        knn_shapley(X, y.astype(object), X_train, np.where(y_train == 1, None, y_train))


def test_coalitions_of_other_players_are_named():
    game = NeighbourGame(*tables(7))
    with pytest.raises(ValueError, match=r"coalitions: expected a boolean array \(m, 9\)"):
        game(np.ones((1, 10), dtype=bool))


def test_no_coalitions_have_no_outputs():
    assert NeighbourGame(*tables(7))(np.zeros((0, 9), dtype=bool)).shape == (0, 5)


def test_nothing_of_the_user_is_changed():
    given = tables(8)
    copies = [each.copy() for each in given]
    knn_shapley(*given)
    assert all(np.array_equal(one, other) for one, other in zip(given, copies, strict=True))
