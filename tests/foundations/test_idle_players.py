"""Features that are equal in a row and all its references cost nothing; few features are listed."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from shaplab._validation import check_size
from shaplab.foundations.kernel import kernel_shap
from shaplab.foundations.permutation import confidence_interval, ime, permutation_shap
from shaplab.foundations.predictions import exact_shap
from shaplab.importance.comparisons import leave_one_out_importance, univariate_importance
from shaplab.importance.loss_shap import loss_shap
from shaplab.importance.sage import sage

# Sums of some thousand float64 numbers of order one.
ROUNDING = 1e-12
DIFFER = 20


def model(X):
    """Reads the last columns only, with interactions of three."""
    # In one piece: functions of strided numbers may round otherwise than those of adjacent ones.
    part = np.ascontiguousarray(np.asarray(X)[:, -DIFFER:])
    return part[:, 0] * part[:, 1] * part[:, 2] + np.sin(part[:, 3:]).sum(axis=1)


def padded(n_idle, rows=2, size=3):
    """The same small question with so many columns in front that are equal everywhere."""
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(rows, DIFFER)), rng.normal(size=(size, DIFFER))
    idle = rng.normal(size=n_idle)
    return tuple(np.hstack([np.tile(idle, (len(part), 1)), part]) for part in (X, B))


SAMPLERS = {
    "permutation_shap": lambda X, B: permutation_shap(model, X, B, rng=0),
    "kernel_shap": lambda X, B: kernel_shap(model, X, B, rng=0),
    "ime": lambda X, B: ime(model, X, B, rng=0),
    "loss_shap": lambda X, B: loss_shap(model, X, np.arange(len(X)), B, rng=0, thresh=0.2),
    "sage": lambda X, B: sage(model, X, np.arange(len(X)), B, rng=0, thresh=0.1),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_columns_that_never_differ_change_no_number_and_cost_no_model_row(name):
    lean, wide = (SAMPLERS[name](*padded(n_idle)) for n_idle in (0, 980))
    assert wide.info["evaluations"] == lean.info["evaluations"]
    assert np.array_equal(wide.values[:, 980:], lean.values)
    assert np.array_equal(wide.std[:, 980:], lean.std)
    assert (wide.values[:, :980] == 0).all() and (wide.std[:, :980] == 0).all()
    low, high = confidence_interval(wide) if "rounds" in wide.info else (wide.values,) * 2
    assert low.shape == high.shape == wide.values.shape


# As few model rows as each takes: every one of them has 65,536 numbers.
SHORT = {
    "permutation_shap": lambda X, B: permutation_shap(model, X, B, rounds=2, rng=0),
    "kernel_shap": lambda X, B: kernel_shap(model, X, B, max_evaluations=400, rng=0),
    "ime": lambda X, B: ime(model, X, B, samples=200, rng=0),
    "loss_shap": lambda X, B: loss_shap(model, X, [0.0], B, rounds=2, rng=0),
    "sage": lambda X, B: sage(model, X, [0.0], B, rounds=2, rng=0),
}


@pytest.mark.parametrize("name", SHORT)
def test_65536_columns_of_which_20_differ_fit_in_little_memory(name):
    X, B = padded(65_536 - DIFFER, rows=1, size=1)
    tracemalloc.start()
    found = SHORT[name](X, B)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One table of 256 hybrid rows of 65,536 columns takes 0.13 GB, and numpy.where needs three of
    # them and a mask; the square of the columns would take 4 GB.
    assert peak < 0.7e9
    assert found.values.shape[1] == 65_536


def test_a_row_pays_only_for_its_own_columns():
    # Every row differs from the one reference in columns of its own: 14 of 140.
    X = np.kron(np.eye(10), np.ones(14))
    B = np.zeros((1, 140))

    def blocks(X):
        return np.tanh(X.reshape(len(X), 10, 14).sum(axis=2)).sum(axis=1)

    alone = sum(
        kernel_shap(blocks, X[i : i + 1], B, thresh=0.02, rng=0).info["coalitions"].sum()
        for i in range(10)
    )
    together = kernel_shap(blocks, X, B, thresh=0.02, rng=0)
    assert together.info["coalitions"].sum() <= 1.3 * alone
    # Equal columns share alike: each has a fourteenth of tanh(14). The tolerance is that of
    # thresh: two hundredths of the largest value, for standard errors; four of them.
    assert np.abs(together.values[X > 0] - np.tanh(14) / 14).max() < 0.08 * np.tanh(14) / 14
    assert (together.values[X == 0] == 0).all()
    # Enumeration counts each row's own players: 14, where 140 are out of reach.
    exact = exact_shap(blocks, X, B)
    assert np.abs(exact.values[X > 0] - np.tanh(14) / 14).max() < ROUNDING


@pytest.mark.parametrize("name", SAMPLERS)
def test_few_features_are_listed_where_sampling_would_cost_more(name):
    rng = np.random.default_rng(1)
    X, B = rng.standard_t(2, size=(20, 3)), rng.standard_t(2, size=(64, 3))

    def product(X):
        return X.prod(axis=1) * 100

    explain = {
        "permutation_shap": lambda: permutation_shap(product, X, B, rng=0),
        "kernel_shap": lambda: kernel_shap(product, X, B, rng=0),
        "ime": lambda: ime(product, X, B, samples=None, rng=0),
        "loss_shap": lambda: loss_shap(product, X, np.zeros(20), B, rng=0),
        "sage": lambda: sage(product, X, np.zeros(20), B, rng=0, thresh=1e-3),
    }[name]
    found = explain()
    # Eight coalitions of 20 rows over 64 references; the ends, the check of the model and, for a
    # loss, its pilot and the fewest rounds come on top.
    listed = 8 * 20 * 64
    assert found.info["evaluations"] <= 2.2 * listed
    truth = exact_shap(product, X, B).values
    if name in ("permutation_shap", "kernel_shap", "loss_shap", "sage"):
        assert "enumerated" in found.method
    if name in ("permutation_shap", "kernel_shap", "ime"):
        assert np.abs(found.values - truth).max() < 1e-12 * np.abs(truth).max()


def test_an_explicit_number_of_rounds_is_sampled_whatever_listing_costs():
    rng = np.random.default_rng(1)
    X, B = rng.normal(size=(2, 3)), rng.normal(size=(5, 3))
    found = permutation_shap(lambda X: X.prod(axis=1), X, B, rounds=5, rng=0)
    assert (found.info["rounds"] == 5).all()
    assert not found.info["exact"].any()


def test_a_budget_that_covers_all_coalitions_of_a_row_lists_them_and_is_kept():
    rng = np.random.default_rng(1)
    X, B = rng.normal(size=(4, 9)), rng.normal(size=(5, 9))
    B[:, 3:] = B[0, 3:]
    X[1:, 3:] = B[0, 3:]  # three rows differ from the references in three columns only

    def rough(X):
        return np.sign(X[:, :3]).prod(axis=1) * 3 + np.sign(X).sum(axis=1) ** 2

    for budget in (1500, 5000, 20_000):
        found = permutation_shap(rough, X, B, max_evaluations=budget, thresh=1e-6, rng=0)
        assert found.info["evaluations"] <= budget
        assert np.abs(found.gap(rough(X))).max() < 1e-10
    assert found.info["exact"].all()
    assert np.abs(found.values - exact_shap(rough, X, B).values).max() < 1e-10


def test_a_budget_counts_what_was_sampled_before_all_coalitions_were_listed():
    rng = np.random.default_rng(1)
    X, B = rng.standard_t(1.5, size=(6, 9)), rng.standard_t(1.5, size=(8, 9))

    spent = []

    def rough(X):
        spent.append(len(X))
        return X[:, :4].prod(axis=1) + X[:, 4:].sum(axis=1) ** 3

    least = 2 * 6 * 2 * 2 * 2 * 8 * 8
    for budget in range(least + 40, 6 * 512 * 8 + 2 * least, 1777):
        spent.clear()
        found = permutation_shap(rough, X, B, max_evaluations=budget, rng=0)
        assert sum(spent) == found.info["evaluations"] <= budget
    assert found.info["exact"].any()


def test_stopping_and_resuming_a_run_that_lists_some_rows_changes_no_bit(tmp_path):
    rng = np.random.default_rng(1)
    X, B = rng.normal(size=(4, 16)), rng.normal(size=(5, 16))
    B[:, 4:] = B[0, 4:]
    X[1:, 4:] = B[0, 4:]  # the first row has 16 players, the others have 4

    def rough(X):
        return np.sign(X).sum(axis=1) ** 3

    whole = permutation_shap(rough, X, B, thresh=0.05, rng=3)
    assert whole.info["exact"].tolist() == [False, True, True, True]
    path = tmp_path / "run.npz"
    for stop in (1, 2):
        permutation_shap(
            rough,
            X,
            B,
            thresh=0.05,
            rng=3,
            state=path,
            callback=lambda info, stop=stop: info["round"] >= stop,
        )
    again = permutation_shap(rough, X, B, thresh=0.05, state=path)
    assert np.array_equal(whole.values, again.values)
    assert np.array_equal(whole.std, again.std)


def test_groups_with_idle_columns_count_as_players_only_if_one_column_moves():
    rng = np.random.default_rng(1)
    X, B = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))
    X[:, [1, 4, 5]] = B[:, [1, 4, 5]] = 2.0
    groups = {"mixed": [0, 1], "idle": [4, 5], "rest": [2, 3]}

    def explained(X):
        return X[:, 0] * X[:, 1] * X[:, 2] + X[:, 3] * X[:, 4] + X[:, 5]

    truth = exact_shap(explained, X, B, groups=groups)
    assert truth.feature_names == ("mixed", "idle", "rest")
    assert (truth.values[:, 1] == 0).all()
    for explain in (permutation_shap, kernel_shap):
        found = explain(explained, X, B, groups=groups, rng=0)
        assert found.feature_names == truth.feature_names
        assert np.abs(found.values - truth.values).max() < ROUNDING
    plain = exact_shap(explained, X, B).values
    assert np.abs(plain[:, 0] - truth.values[:, 0]).max() < ROUNDING


def test_importances_of_single_features_leave_idle_ones_out():
    X, B = padded(300, rows=6, size=5)
    y = np.arange(6.0)
    for explain in (leave_one_out_importance, univariate_importance):
        lean, wide = explain(model, X[:, 300:], y, B[:, 300:]), explain(model, X, y, B)
        assert wide.info["evaluations"] == lean.info["evaluations"]
        assert np.array_equal(wide.values[:, 300:], lean.values)
        assert (wide.values[:, :300] == 0).all()


def test_names_of_frames_and_given_names_survive_in_all_samplers():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(3, 3)), columns=["a", "b", "c"], index=["r", "s", "t"])
    B = pd.DataFrame(rng.normal(size=(4, 3)), columns=["a", "b", "c"])
    y = np.zeros(3)

    def f(frame):
        return np.asarray(frame).prod(axis=1)

    for explain in (permutation_shap, kernel_shap, ime, exact_shap):
        assert explain(f, X, B).feature_names == ("a", "b", "c")
        found = explain(f, X.to_numpy(), B.to_numpy(), feature_names=["u", "v", "w"])
        assert found.feature_names == ("u", "v", "w")
        grouped = explain(f, X, B, groups={"left": ["a", "b"], "right": ["c"]})
        assert grouped.feature_names == ("left", "right")
    for explain in (loss_shap, sage, leave_one_out_importance):
        assert explain(f, X, y, B).feature_names == ("a", "b", "c")
        found = explain(f, X.to_numpy(), y, B.to_numpy(), feature_names=["u", "v", "w"])
        assert found.feature_names == ("u", "v", "w")
    with pytest.raises(ValueError, match="feature_names: expected 3 names, got 2"):
        permutation_shap(f, X, B, feature_names=["u", "v"])


def test_outputs_are_named_after_the_classes_in_all_samplers():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    fitted = LogisticRegression().fit(X, np.where(X[:, 0] > 0, "yes", "no"))
    for explain in (permutation_shap, kernel_shap, ime, exact_shap):
        assert explain(fitted.predict_proba, X[:2], X[:9]).output_names == ("no", "yes")


@pytest.mark.parametrize("explain", [permutation_shap, kernel_shap, exact_shap, ime])
def test_tables_of_other_kinds_work_or_say_what_to_do(explain):
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))

    def f(table):
        return np.asarray(table, dtype=float).prod(axis=1)

    truth = exact_shap(f, X, B).values
    frame = [pd.DataFrame(part).convert_dtypes() for part in (X, B)]
    for x, b in (
        (X[::-1][::-1], B[:, ::-1][:, ::-1]),
        (X.astype(">f8"), B.astype(">f8")),
        (X.tolist(), B.tolist()),
        frame,
        (X.astype(object), B),
    ):
        assert np.abs(explain(f, x, b).values - truth).max() < 1e-12
    flags, numbers = X > 0, np.rint(3 * B).astype(int)
    same = exact_shap(f, flags.astype(float), numbers.astype(float)).values
    assert np.abs(explain(f, flags, numbers).values - same).max() < 1e-11
    for x, text in (
        (X[0], r"X: expected a table.*X.reshape\(1, -1\)"),
        (X[None], r"X: expected a table.*Flatten the rows.*groups="),
        (pd.DataFrame(X).iloc[0], r"X: expected a table.*a Series.*X.iloc\[\[0\]\]"),
        ((row for row in X), r"X: expected a table.*a generator.*Pass list\(X\)"),
        (np.ma.masked_less(X, 0.0), "X: expected a table without a mask"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            explain(f, x, B)


@pytest.mark.parametrize("name", ["permutation_shap", "kernel_shap", "exact_shap", "loss_shap"])
def test_finite_outputs_that_overflow_in_differences_are_named_and_not_returned(name):
    X, B = np.ones((1, 12)), np.zeros((2, 12))
    # Finite, but a difference of two of them is not.
    sign = np.where(np.arange(12) % 2, -1.0, 1.0)

    def huge(X):
        return 1.6e308 * np.sign(X @ sign + X[:, 0] - 0.5)

    call = {
        "permutation_shap": lambda f: permutation_shap(f, X, B, rounds=2, rng=0),
        "kernel_shap": lambda f: kernel_shap(f, X, B, rng=0),
        "exact_shap": lambda f: exact_shap(f, X, B),
        "loss_shap": lambda f: loss_shap(f, X, [0.0], B, rounds=2, rng=0),
    }[name]
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"(model|loss|game): expected"):
        call(huge)
    # A model whose own output is not finite is told apart from that.
    with pytest.raises(ValueError, match="model: expected finite outputs, got inf"):
        call(lambda X: np.where(X[:, 0] > 0, np.inf, 0.0))


def test_a_result_larger_than_memory_is_refused_before_it_is_made():
    # 40 thousand rows, a million columns and 4,000 outputs: petabytes.
    with pytest.raises(ValueError, match=r"X: expected a result that fits into .* GiB.*fewer rows"):
        check_size((40_000, 1_000_000, 4_000), "X", "Explain fewer rows at a time")
    check_size((40, 100, 4), "X", "Explain fewer rows at a time")
