import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from shaplab.foundations.exact import shapley_values, shapley_values_literal
from shaplab.foundations.games import all_coalitions, company_game
from shaplab.foundations.predictions import (
    BaselineGame,
    DiscreteGame,
    GaussianGame,
    LossOfMean,
    MarginalGame,
    MeanLoss,
    NearestGame,
    RescaledMargin,
    exact_shap,
)

# Means of a few dozen float64 numbers of order one.
EXACT = 1e-12


def model(X):
    return X[:, 0] * X[:, 1] + np.sin(X[:, 2])


def two_outputs(X):
    return np.column_stack([model(X), X.sum(axis=1)])


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 3)), rng.normal(size=(7, 3))


def test_marginal_game_is_the_mean_over_hybrid_rows(tables):
    X, B = tables
    S = all_coalitions(3)
    found = MarginalGame(two_outputs, X, B)(S)
    assert found.shape == (8, 4, 2)
    for m, coalition in enumerate(S):
        for n, x in enumerate(X):
            hybrid = np.where(coalition, x, B)
            assert np.allclose(found[m, n], two_outputs(hybrid).mean(axis=0), atol=EXACT)


@pytest.mark.parametrize("batch_size", [1, 5, 28, 1000])
def test_batches_do_not_change_numbers_and_bound_rows(tables, batch_size):
    X, B = tables
    largest = []

    def watched(rows):
        largest.append(len(rows))
        return model(rows)

    found = exact_shap(watched, X, B, batch_size=batch_size)
    assert max(largest) <= max(batch_size, 1)
    assert np.allclose(found.values, exact_shap(model, X, B).values, atol=EXACT)


def test_exact_shap_is_the_literal_formula_over_the_marginal_game(tables):
    X, B = tables
    found = exact_shap(two_outputs, X, B)
    expected = shapley_values_literal(MarginalGame(two_outputs, X, B), 3)
    assert np.allclose(found.values, np.moveaxis(expected, 0, 1), atol=EXACT)
    assert np.abs(found.gap(two_outputs(X))).max() < EXACT
    assert found.base_values[0] == pytest.approx(two_outputs(B).mean(axis=0))


def test_background_average_is_the_mean_of_single_reference_values(tables):
    # Theorem 1 of the DeepSHAP paper.
    X, B = tables
    singles = [exact_shap(model, X, b[None]).values for b in B]
    assert np.allclose(exact_shap(model, X, B).values, np.mean(singles, axis=0), atol=EXACT)


@pytest.mark.parametrize("structure", [{}, {"unions": [[0, 1], [2]]}, {"order": [[0], [1, 2]]}])
def test_progress_counts_every_coalition_and_changes_no_number(structure, capsys):
    X = np.arange(6.0).reshape(2, 3)
    B = np.ones((2, 3))
    told = exact_shap(lambda rows: rows.prod(axis=1), X, B, progress=True, **structure)
    silent = exact_shap(lambda rows: rows.prod(axis=1), X, B, **structure)
    shown = capsys.readouterr().err
    assert "coalitions: 100%" in shown
    assert np.array_equal(told.values, silent.values)


def test_groups_by_name_and_number(tables):
    X, B = (pd.DataFrame(t, columns=["a", "b", "c"]) for t in tables)

    def framed(rows):
        return model(rows.to_numpy())

    named = exact_shap(framed, X, B, groups={"ab": ["a", "b"], "c": ["c"]})
    assert named.feature_names == ("ab", "c")
    plain = exact_shap(model, *tables, groups=[[0, 1], [2]])
    assert np.allclose(named.values, plain.values, atol=EXACT)
    assert plain.values.shape == (4, 2)


def test_data_frames_reach_the_model_with_their_dtypes():
    X = pd.DataFrame(
        {"n": [1, 2], "c": pd.Categorical(["u", "v"], categories=["u", "v", "w"]), "s": ["p", None]}
    )
    B = pd.DataFrame(
        {
            "n": [5, 6, 7],
            "c": pd.Categorical(["w", "w", "u"], categories=["u", "v", "w"]),
            "s": ["q", "q", None],
        }
    )

    def frame_model(rows):
        assert rows["c"].dtype == X["c"].dtype
        assert rows["n"].dtype == X["n"].dtype
        assert list(rows.columns) == ["n", "c", "s"]
        return (
            rows["n"].to_numpy() * 1.0
            + rows["c"].cat.codes.to_numpy()
            + rows["s"].isna().to_numpy()
        )

    found = exact_shap(frame_model, X, B)
    assert np.abs(found.gap(frame_model(X))).max() < EXACT
    assert found.values[0, 0] == pytest.approx(1 - 6)


def test_conditional_gaussian_has_its_closed_form():
    # For f(x) = x0 with x1 known, E[x0 | x1] = m0 + C01/C11 (x1 - m1), exact by antithetic draws.
    rng = np.random.default_rng(1)
    B = rng.multivariate_normal([1.0, -1.0], [[2.0, 1.2], [1.2, 1.0]], size=500)
    x = np.array([[0.3, 0.7]])
    game = GaussianGame(lambda X: X[:, 0], x, B, n_samples=10, rng=0)
    mean, C = B.mean(axis=0), np.cov(B.T)
    values = game(all_coalitions(2))[:, 0]
    expected = [mean[0], 0.3, mean[0] + C[0, 1] / C[1, 1] * (0.7 - mean[1]), 0.3]
    assert np.allclose(values, expected, atol=1e-10)


def test_conditional_gaussian_spread():
    # E[x0^2 | x1] = mean^2 + conditional variance; 20,000 draws leave about 1% of Monte-Carlo
    # error.
    rng = np.random.default_rng(2)
    B = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]], size=400)
    x = np.array([[0.0, 1.0]])
    C = np.cov(B.T)
    game = GaussianGame(lambda X: X[:, 0] ** 2, x, B, n_samples=20_000, rng=3)
    mean = B.mean(0)[0] + C[0, 1] / C[1, 1] * (1.0 - B.mean(0)[1])
    expected = mean**2 + C[0, 0] - C[0, 1] ** 2 / C[1, 1]
    assert game(np.array([[False, True]]))[0, 0] == pytest.approx(expected, rel=0.05)


def test_singular_covariance_follows_its_copy():
    a = np.random.default_rng(3).normal(size=100)
    B = np.column_stack([a, a])
    game = GaussianGame(lambda X: X[:, 0], np.array([[9.0, 2.0]]), B, rng=0)
    assert game(np.array([[False, True]]))[0, 0] == pytest.approx(2.0, abs=1e-6)


def test_discrete_game_is_bayes_rule():
    support = all_coalitions(3).astype(float)
    probability = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.1, 0.05, 0.1])
    x = support[[5]]
    game = DiscreteGame(model, x, support, probability)
    S = np.array([[True, False, False]])
    rows = support[:, 0] == x[0, 0]
    expected = (probability[rows] * model(support)[rows]).sum() / probability[rows].sum()
    assert game(S)[0, 0] == pytest.approx(expected, abs=EXACT)
    assert game(np.ones((1, 3), bool))[0, 0] == pytest.approx(model(x)[0])


def test_nearest_game_uses_matching_rows():
    B = np.array([[0.0, 1.0], [0.0, 3.0], [5.0, 100.0]])
    game = NearestGame(lambda X: X[:, 1], np.array([[0.0, 7.0]]), B, n_neighbors=2)
    values = game(all_coalitions(2))[:, 0]
    assert values.tolist() == pytest.approx([104 / 3, 2.0, 7.0, 7.0])


def test_conditional_and_marginal_differ_in_sign_when_features_are_correlated():
    # f = x0 - x1 / 2: knowing x1 = 1 suggests x0 near 1.9, more than its own -1/2. The marginal
    # game cannot see it.
    rng = np.random.default_rng(5)
    B = rng.multivariate_normal([0, 0], [[4.0, 1.9], [1.9, 1.0]], size=5000)
    x = np.array([[0.0, 1.0]])

    def f(X):
        return X[:, 0] - X[:, 1] / 2

    marginal = shapley_values(MarginalGame(f, x, B), 2)[:, 0]
    conditional = shapley_values(GaussianGame(f, x, B, rng=0), 2)[:, 0]
    assert marginal[1] < -0.4
    assert conditional[1] > 0.4
    assert conditional.sum() == pytest.approx(marginal.sum(), abs=1e-9)


def test_three_loss_games_are_three_games(tables):
    X, B = tables
    y = np.array([1.0, 0.0, 1.0, 0.0])
    game = MarginalGame(model, X, B)
    S = all_coalitions(3)
    per_reference = np.stack([MarginalGame(model, X, b[None])(S) for b in B], axis=-1)

    def loss(margin, y):
        return np.log1p(np.exp(-(2 * y - 1) * margin))

    assert np.allclose(
        LossOfMean(game, y, "logistic")(S), loss(per_reference.mean(-1), y), atol=EXACT
    )
    mean_loss = loss(per_reference, y[:, None]).mean(-1)
    assert np.allclose(MeanLoss(game, y, "logistic")(S), mean_loss, atol=EXACT)
    rescaled = RescaledMargin(game, y, "logistic")
    assert np.allclose(rescaled(S[[0, -1]]), mean_loss[[0, -1]], atol=EXACT)
    assert np.abs(rescaled(S) - mean_loss).max() > 1e-3
    assert np.abs(LossOfMean(game, y, "logistic")(S) - mean_loss).max() > 1e-3
    # A callable has no slope of its own: the numerical one must agree to its own order.
    assert np.allclose(RescaledMargin(game, y, loss)(S), rescaled(S), atol=1e-8)


def test_rescaled_margin_uses_the_slope_where_output_equals_reference():
    x = np.array([[1.0, 2.0]])
    game = BaselineGame(lambda X: X[:, 0] - X[:, 1], x, np.array([2.0, 3.0]))
    values = RescaledMargin(game, [0.0], "squared_error")(all_coalitions(2))[:, 0]
    # f = -1 on both ends, slope of (f - 0)^2 at -1 is -2.
    assert np.allclose(values, [1.0, 1.0 + 2.0, 1.0 - 2.0, 1.0], atol=1e-6)


def test_class_losses_pick_each_rows_own_label(tables):
    X, B = tables
    y = np.array([0, 1, 1, 0])
    game = MarginalGame(two_outputs, X, B)
    found = MeanLoss(game, y, "softmax_cross_entropy")(np.ones((1, 3), bool))[0]
    logits = two_outputs(X)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(4), y]
    assert np.allclose(found, expected, atol=EXACT)


def test_nothing_of_the_users_is_changed(tables):
    X, B = tables
    before = X.copy(), B.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    exact_shap(model, X, B)
    GaussianGame(model, X, B)(all_coalitions(3))
    assert (before[0] == X).all()
    assert (before[1] == B).all()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


FRAME = pd.DataFrame(np.eye(3), columns=["a", "b", "c"])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda X, B: exact_shap(model, X[0], B),
            "X: expected a table of shape \\(n, d\\).*reshape",
        ),
        (
            lambda X, B: exact_shap(model, X, B[:, :2]),
            "background: expected 3 columns, as X has, got 2",
        ),
        (lambda X, B: exact_shap(model, X, B[:0]), "background: expected at least one row"),
        (lambda X, B: exact_shap(model, X[:0], B), "X: expected at least one row"),
        (lambda X, B: exact_shap(lambda r: r[:1, 0], X, B), "model: expected outputs of shape"),
        (
            lambda X, B: exact_shap(lambda r: r[:, 0] * np.nan, X, B),
            "model: expected finite outputs, got nan",
        ),
        (
            lambda X, B: exact_shap(lambda r: np.array(["yes"] * len(r)), X, B),
            "model: expected numeric outputs",
        ),
        (
            lambda X, B: exact_shap(model, np.ones((1, 30)), np.zeros((1, 30))),
            "n_players: expected at most 24",
        ),
        (
            lambda X, B: exact_shap(model, FRAME, FRAME[["b", "a", "c"]]),
            "same order, got another order.*X.columns",
        ),
        (
            lambda X, B: exact_shap(model, FRAME, FRAME.rename(columns={"a": "z"})),
            "missing a; unknown z",
        ),
        (
            lambda X, B: exact_shap(model, FRAME, B),
            "background: expected a DataFrame exactly when X is one",
        ),
        (lambda X, B: exact_shap(model, X, B, groups=[[0], [1]]), "groups: expected a partition"),
        (
            lambda X, B: BaselineGame(model, X, B),
            "baseline: expected one reference row, got 7 rows",
        ),
        (
            lambda X, B: GaussianGame(model, X * np.nan, B),
            "X: expected finite numbers, got nan in row 0, column 0",
        ),
        (lambda X, B: GaussianGame(model, X, B[:1]), "background: expected at least 2 rows"),
        (
            lambda X, B: NearestGame(model, X, B, n_neighbors=8),
            "n_neighbors: expected an integer >= 1 and <= 7",
        ),
        (
            lambda X, B: DiscreteGame(model, X, B)(np.ones((1, 3), bool)),
            "rows with positive probability",
        ),
        (
            lambda X, B: DiscreteGame(model, X, B, np.ones(7)),
            "probability: expected 7 non-negative numbers",
        ),
        (
            lambda X, B: MeanLoss(MarginalGame(model, X, B), [1, 2], "mse")(all_coalitions(3)),
            "y: expected",
        ),
        (
            lambda X, B: MeanLoss(MarginalGame(model, X, B), [0, 1, 2, 0], "logistic")(
                all_coalitions(3)
            ),
            "y: expected class labels 0 to 1",
        ),
        (
            lambda X, B: LossOfMean(MarginalGame(model, X, B), [0] * 4, "l2"),
            "loss: expected one of",
        ),
        (
            lambda X, B: RescaledMargin(
                MarginalGame(two_outputs, X, B), [0] * 4, "softmax_cross_entropy"
            )(all_coalitions(3)),
            "game: expected one output",
        ),
    ],
)
def test_bad_input_is_named(tables, call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        call(*tables)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda X, B: DiscreteGame(model, FRAME, FRAME[["b", "a", "c"]]),
            "support: expected the columns of X in",
        ),
        (
            lambda X, B: DiscreteGame(model, FRAME, FRAME.rename(columns={"a": "z"})),
            "support: .*missing a; unknown z",
        ),
        (
            lambda X, B: DiscreteGame(model, FRAME, B),
            "support: expected a DataFrame exactly when X is one",
        ),
        (
            lambda X, B: DiscreteGame(model, X, B[:, :2]),
            "support: expected 3 columns, as X has, got 2",
        ),
        (
            lambda X, B: DiscreteGame(model, X, X)(np.ones((1, 5), bool)),
            "coalitions: expected a boolean array",
        ),
        (lambda X, B: DiscreteGame(model, X, X, "x"), "probability: expected numbers, got 'x'"),
        (
            lambda X, B: DiscreteGame(model, X, X, [np.nan] * 4),
            "probability: expected 4 non-negative numbers",
        ),
        (
            lambda X, B: GaussianGame(model, FRAME, FRAME[["b", "a", "c"]]),
            "background: expected the columns",
        ),
        (
            lambda X, B: NearestGame(model, X, B, batch_size=0, n_neighbors=2),
            "batch_size: expected an integer >= 1",
        ),
        (
            lambda X, B: exact_shap(model, FRAME.set_axis(["a", "a", "c"], axis=1), FRAME),
            "got 'a' twice",
        ),
        (lambda X, B: exact_shap(model, X.astype(str), B), "X: expected a numeric table"),
        (lambda X, B: exact_shap(model, X, B, groups=[0, 1, 2]), "groups: expected a partition"),
        (
            lambda X, B: BaselineGame(model, X, np.zeros(2)),
            "baseline: expected 3 columns, as X has, got 2",
        ),
        (lambda X, B: BaselineGame(model, X, "zero"), "baseline: expected a numeric table"),
        (
            lambda X, B: BaselineGame(model, FRAME, FRAME[["b", "a", "c"]].iloc[:1]),
            "baseline: expected the columns",
        ),
        (
            lambda X, B: LossOfMean(len, [0], "mse"),
            "game: expected a prediction game, got a builtin_function",
        ),
        (
            lambda X, B: MeanLoss(GaussianGame(model, X, B), [0] * 4, "mse"),
            "game: expected a game that knows",
        ),
        (
            lambda X, B: RescaledMargin(NearestGame(model, X, B, n_neighbors=1), [0] * 4, "mse"),
            "a game that knows",
        ),
        (
            lambda X, B: LossOfMean(company_game(), [0] * 4, "mse")(all_coalitions(5)),
            "game: expected a payoff",
        ),
        (
            lambda X, B: LossOfMean(MarginalGame(model, X, B), list("abcd"), "mse")(
                all_coalitions(3)
            ),
            "y: expected",
        ),
        (
            lambda X, B: LossOfMean(MarginalGame(model, X, B), [np.nan] * 4, "mse")(
                all_coalitions(3)
            ),
            "finite numbers",
        ),
        (
            lambda X, B: LossOfMean(MarginalGame(two_outputs, X, B), [0] * 4, "mse")(
                all_coalitions(3)
            ),
            "loss: expected a loss of 2 outputs, got 'squared_error'",
        ),
        (
            lambda X, B: MeanLoss(MarginalGame(model, X, B), [0] * 4, "softmax_cross_entropy")(
                all_coalitions(3)
            ),
            "loss: expected a loss of one output, got 'softmax_cross_entropy'",
        ),
        (
            lambda X, B: LossOfMean(MarginalGame(model, X, B), [0] * 4, lambda f, y: 1.0)(
                all_coalitions(3)
            ),
            "loss: expected one number for each output, \\(8, 4\\), got shape \\(\\)",
        ),
    ],
)
def test_more_bad_input_is_named(tables, call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        call(*tables)


@pytest.mark.parametrize("kind", [GaussianGame, NearestGame])
def test_conditional_games_bound_the_model_rows_of_a_call(tables, kind):
    X, B = tables
    options = {"rng": 0, "n_samples": 6} if kind is GaussianGame else {"n_neighbors": 3}
    largest = []

    def watched(rows):
        largest.append(len(rows))
        return two_outputs(rows)

    whole = kind(two_outputs, X, B, **options)(all_coalitions(3))
    assert np.allclose(
        kind(watched, X, B, batch_size=14, **options)(all_coalitions(3)), whole, atol=EXACT
    )
    assert max(largest) <= 14 < kind(two_outputs, X, B, **options).step * 6


@pytest.mark.parametrize(
    "make", [np.asarray, np.ndarray.tolist, scipy.sparse.csr_matrix, pd.DataFrame]
)
def test_the_explained_rows_are_kept_whatever_they_came_in(tables, make):
    X, B = tables
    found = exact_shap(
        lambda rows: model(np.asarray(rows)), make(X), make(B) if make is pd.DataFrame else B
    )
    assert (found.data == X).all()


def test_an_estimator_is_not_called_by_guess(tables):
    class Fitted:
        def predict_proba(self, X):
            return X

    with pytest.raises(TypeError, match=r"pass `model\.predict_proba`"):
        exact_shap(Fitted(), *tables)


def test_groups_may_name_the_columns_of_an_array(tables):
    X, B = tables
    names = ["u", "v", "w"]
    truth = exact_shap(model, X, B, groups=[[0], [1, 2]]).values
    for groups in ([["u"], ["v", "w"]], {"first": ["u"], "rest": ["v", "w"]}):
        found = exact_shap(model, X, B, groups=groups, feature_names=names)
        assert np.array_equal(found.values, truth)
        game = MarginalGame(model, X, B, groups=groups, feature_names=names)
        assert tuple(game.names) == found.feature_names
    lone = BaselineGame(model, X, B[0], groups=[["u", "w"], ["v"]], feature_names=names)
    assert lone.n_players == 2


def test_whole_weights_are_repeated_rows(tables):
    X, B = tables
    weights = [3, 1, 0, 2, 1, 0, 5]
    repeated = np.repeat(B, weights, axis=0)
    for f in (model, two_outputs):
        found = exact_shap(f, X, B, weights=weights)
        truth = exact_shap(f, X, repeated)
        assert np.allclose(found.values, truth.values, atol=EXACT)
        assert np.allclose(found.base_values, truth.base_values, atol=EXACT)
    y = model(X) + 1.0
    for loss_game in (LossOfMean, MeanLoss, RescaledMargin):
        found = loss_game(MarginalGame(model, X, B, weights=weights), y, "squared_error")
        truth = loss_game(MarginalGame(model, X, repeated), y, "squared_error")
        S = all_coalitions(3)
        assert np.allclose(found(S), truth(S), atol=1e-11), loss_game.__name__


@pytest.mark.parametrize(
    ("weights", "got"),
    [
        ([1, 2], r"shape \(2,\)"),
        (np.ones((7, 1)), r"shape \(7, 1\)"),
        ([1, 1, 1, -2, 1, 1, 1], "-2 for row 3"),
        ([1, 1, np.nan, 1, 1, 1, 1], "nan for row 2"),
        ([np.inf, 1, 1, 1, 1, 1, 1], "inf for row 0"),
        (np.zeros(7), "zeros only"),
        ("many", "'many'"),
    ],
)
def test_weights_that_are_no_weights(tables, weights, got):
    X, B = tables
    with pytest.raises((ValueError, TypeError), match=f"weights: expected 7 finite.*{got}"):
        exact_shap(model, X, B, weights=weights)
