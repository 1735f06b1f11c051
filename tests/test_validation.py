"""Argument checks: what passes, what is refused, and the one form of every message."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab import UnsupportedModelError
from shaplab import _validation as check

FORM = re.compile(r"^[^:]+: expected .+, got .+\. .+\.$", re.DOTALL)


def refuses(kind: type[Exception], call, *parts: str) -> None:
    """Require an error in the one form that says every part."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert FORM.match(message), message
    assert len(message) < 600
    for part in parts:
        assert part in message


# Texts.


@examples(100)
@given(st.text(max_size=400), st.integers(10, 120))
def test_shorten_gives_one_line_within_the_limit(text: str, limit: int) -> None:
    short = check.shorten(text, limit)
    assert len(short) <= limit
    assert "\n" not in short
    whole = " ".join(text.split())
    assert (
        short == whole
        if len(whole) <= limit
        else (whole.startswith(short.split("…")[0]) and "…" in short)
    )


def test_describe_says_shapes_not_contents() -> None:
    assert (
        check.describe(np.zeros((2, 3), dtype=np.float32))
        == "ndarray of shape (2, 3) and dtype float32"
    )
    assert check.describe(pd.DataFrame({"a": [1]})) == "DataFrame of shape (1, 1)"
    assert check.describe(list(range(100))) == "list of length 100"
    assert len(check.describe("x" * 10_000)) <= 80


def test_fail_has_one_form_and_a_kind() -> None:
    refuses(
        ValueError,
        lambda: check.fail("n", "a rule", "this", "Do that"),
        "n: expected a rule, got this. Do that.",
    )
    kind = UnsupportedModelError
    refuses(kind, lambda: check.fail("model", "m", np.zeros(3), "Do", kind), "shape (3,)")
    assert issubclass(UnsupportedModelError, ValueError)


# Scalars.


@pytest.mark.parametrize("value", [1, 5, np.int64(3), np.uint8(2)])
def test_integers_pass(value: object) -> None:
    found = check.check_int(value, "n")
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, TypeError),
        (1.0, TypeError),
        ("1", TypeError),
        (None, TypeError),
        (0, ValueError),
        (-1, ValueError),
        (11, ValueError),
        (np.bool_(True), TypeError),
    ],
)
def test_other_integers_do_not(value: object, kind: type[Exception]) -> None:
    refuses(
        kind,
        lambda: check.check_int(value, "n", maximum=10),
        "n: expected an integer >= 1 and <= 10",
    )


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_reals_pass(value: object) -> None:
    assert type(check.check_real(value, "p", low=0, high=1)) is float


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, TypeError),
        ("0.5", TypeError),
        (None, TypeError),
        (1 + 0j, TypeError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        (-0.1, ValueError),
        (1.1, ValueError),
    ],
)
def test_other_reals_do_not(value: object, kind: type[Exception]) -> None:
    refuses(
        kind, lambda: check.check_real(value, "p", low=0, high=1), "p: expected a number in [0, 1]"
    )


def test_an_open_end_excludes_its_bound() -> None:
    assert check.check_real(1e-300, "p", low=0, open_low=True) > 0
    refuses(ValueError, lambda: check.check_real(0, "p", low=0, open_low=True), "(0, inf]")


def test_choices() -> None:
    assert check.check_choice("b", "rule", ["a", "b"]) == "b"
    for bad in ("c", None, 1, ["a"]):
        refuses(
            ValueError,
            lambda bad=bad: check.check_choice(bad, "rule", ["a", "b"]),
            "one of 'a', 'b'",
        )


def test_callables_and_the_way_out_for_estimators() -> None:
    class Classifier:
        def predict(self, X): ...
        def predict_proba(self, X): ...

    assert check.check_callable(len, "model") is len
    refuses(
        TypeError,
        lambda: check.check_callable(Classifier(), "model"),
        "`model.predict_proba` or `model.predict`",
    )
    refuses(TypeError, lambda: check.check_callable(3, "model"), "Pass a function")


def test_long_texts_are_cut_in_every_message() -> None:
    for call in (
        lambda: check.check_callable("f" * 1000, "model"),
        lambda: check.resolve_rng("r" * 1000),
        lambda: check.as_numbers("n" * 1000, "y"),
        lambda: check.check_int("i" * 1000, "n"),
        lambda: check.fail("n", "a rule", "g" * 1000, "Do that", TypeError),
    ):
        refuses(TypeError, call, "…")


# Tables.


def test_matrices_of_every_kind_become_contiguous_floats() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    table = np.arange(6).reshape(2, 3)
    for X in (
        table,
        table.tolist(),
        table.astype(bool) * 1,
        pd.DataFrame(table),
        sparse.csr_matrix(table),
        np.asfortranarray(table),
        table.astype(object),
    ):
        found = check.as_matrix(X, "X")
        assert found.dtype == np.float64
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, check.as_matrix(np.asarray(found), "X"))
    assert check.as_matrix(table.astype(np.float32), "X").dtype == np.float32
    missing = check.as_matrix(pd.DataFrame({"a": [1.0, np.nan]}), "X")
    assert np.isnan(missing[1, 0])
    nullable = check.as_matrix(pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), "X")
    np.testing.assert_array_equal(nullable, [[1.0], [np.nan]])


def test_tensors_become_matrices() -> None:
    torch = pytest.importorskip("torch")
    assert check.as_matrix(torch.ones(2, 3, requires_grad=True), "X").dtype == np.float32


@pytest.mark.parametrize(
    ("X", "kind", "part"),
    [
        (np.zeros(3), ValueError, "X.reshape(1, -1)"),
        (np.zeros((2, 2, 2)), ValueError, "shape (2, 2, 2)"),
        (np.zeros((0, 3)), ValueError, "at least one row"),
        (np.zeros((3, 0)), ValueError, "at least one row"),
        ([["a", "b"]], TypeError, "Encode text"),
        ([[1, 2], [3]], TypeError, "numeric table"),
        (None, TypeError, "got None"),
        (np.array([["1", "2"]]), TypeError, "Encode text"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), TypeError, "Encode text"),
        (np.ones((2, 2)) * 1j, TypeError, "numeric table"),
        (5.0, ValueError, "shape ()"),
        (pd.DataFrame({"a": [1], "bad <b>": ["x"]}), ValueError, "bad <b>"),
        (np.zeros((2, 2)), ValueError, "4 columns"),
    ],
)
def test_what_is_no_matrix_is_refused(X: object, kind: type[Exception], part: str) -> None:
    refuses(
        kind, lambda: check.as_matrix(X, "X", n_columns=4 if part == "4 columns" else None), part
    )


def test_matrices_must_be_finite_only_when_asked() -> None:
    X = np.array([[1.0, np.nan], [np.inf, 0.0]])
    assert np.isnan(check.as_matrix(X, "X")[0, 1])
    refuses(ValueError, lambda: check.as_matrix(X, "X", finite=True), "nan in row 0, column 1")


def test_columns_must_match_in_name_and_order() -> None:
    X = pd.DataFrame(np.zeros((2, 3)), columns=["a", "b", "c"])
    check.check_same_columns(X, X.iloc[:1])
    refuses(
        ValueError,
        lambda: check.check_same_columns(X, X[["c", "a", "b"]]),
        "another order",
        "background[list(X.columns)]",
    )
    refuses(
        ValueError,
        lambda: check.check_same_columns(X, X[["a", "b"]].assign(z=1.0)),
        "missing c; unknown z",
    )
    refuses(
        TypeError,
        lambda: check.check_same_columns(X, np.zeros((2, 3))),
        "a DataFrame exactly when X is one",
    )
    refuses(
        ValueError,
        lambda: check.check_same_columns(np.zeros((1, 2)), np.zeros((1, 3))),
        "2 columns",
    )
    twice = pd.DataFrame(np.zeros((1, 3)), columns=["a", "<b>" * 200, "a"])
    refuses(
        ValueError,
        lambda: check.check_same_columns(twice, twice),
        "X: expected columns with different names",
        "got 'a' twice",
    )
    many = pd.DataFrame(np.zeros((1, 300)), columns=[f"column number {i}" for i in range(300)])
    refuses(ValueError, lambda: check.check_same_columns(many, X))


def test_names() -> None:
    assert check.check_names(None, 3, "names") is None
    assert check.check_names([1, "b"], 2, "names") == ("1", "b")
    assert check.check_names(pd.Index(["a"]), 1, "names") == ("a",)
    refuses(TypeError, lambda: check.check_names("ab", 2, "names"), "Pass a list of names")
    refuses(TypeError, lambda: check.check_names(5, 2, "names"), "2 names, got 5")
    refuses(ValueError, lambda: check.check_names(["a"], 2, "names"), "2 names, got 1")
    assert check.column_names(pd.DataFrame({3: [1]})) == ["3"]
    assert check.column_names(np.zeros((1, 1))) is None


# Randomness and outputs.


def test_rng_of_every_kind_and_never_the_global_one() -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    given = np.random.default_rng(3)
    assert check.resolve_rng(given) is given
    assert check.resolve_rng(3).random() == np.random.default_rng(3).random()
    assert (
        check.resolve_rng(np.random.SeedSequence(3)).random() == np.random.default_rng(3).random()
    )
    assert check.resolve_rng(None).random() != check.resolve_rng(None).random()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    for bad, kind in (
        (-1, ValueError),
        (True, ValueError),
        ("0", TypeError),
        (1.5, TypeError),
        (np.random.RandomState(0), TypeError),
    ):
        refuses(kind, lambda bad=bad: check.resolve_rng(bad), "rng: expected None, an integer >= 0")


def test_outputs_of_the_right_shape_pass() -> None:
    for outputs in (
        [1, 2],
        np.ones(2, dtype=np.float32),
        np.ones((2, 3)),
        pd.Series([1, 2]),
        np.array([True, False]),
    ):
        assert check.check_outputs(outputs, 2).dtype == np.float64


@pytest.mark.parametrize(
    ("outputs", "kind", "part"),
    [
        (np.ones(3), ValueError, "for 2 rows"),
        (np.ones((2, 1, 1)), ValueError, "shape (2, 1, 1)"),
        (1.0, ValueError, "shape ()"),
        (["yes", "no"], TypeError, "not labels"),
        (None, TypeError, "got None"),
        (["1", "2"], TypeError, "not labels"),
        ([1j, 2j], TypeError, "numeric outputs"),
        ([1.0, np.nan], ValueError, "for row 1"),
        ([[1.0, 2.0], [np.inf, 0.0]], ValueError, "for row 1"),
    ],
)
def test_other_outputs_do_not(outputs: object, kind: type[Exception], part: str) -> None:
    refuses(kind, lambda: check.check_outputs(outputs, 2), part)


def test_missing_outputs_pass_when_allowed() -> None:
    assert np.isnan(check.check_outputs([np.nan], 1, finite=False)[0])
