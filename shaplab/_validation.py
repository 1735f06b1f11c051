"""Argument checks and error texts, used by every part.

Every message has one form: ``<argument>: expected <rule>, got <value>. <remedy>.``
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

__all__ = ["UnsupportedModelError"]

_SHOWN = 80


class UnsupportedModelError(ValueError):
    """A model that cannot be explained; the message names the layer, split or objective."""


def shorten(text: object, limit: int = _SHOWN) -> str:
    """Return ``text`` on one line, cut in the middle when longer than ``limit``."""
    line = " ".join(str(text).split())
    if len(line) <= limit:
        return line
    head = (limit - 1) * 2 // 3
    return f"{line[:head]}…{line[len(line) - (limit - 1 - head) :]}"


def digits(value: Any, count: int = 4, sign: str = "", scale: float = 0.0) -> str:
    """A number with so many digits, as people write it: 1500 and not 1.5e+03; 0 where it is
    rounding beside ``scale``. Powers of ten stay below 0.0001 and from a billion on."""
    if abs(value) <= 1e-12 * scale:
        value = 0.0
    text = f"{value:{sign}.{count}g}"
    return f"{value:{sign}.0f}" if "e+" in text and abs(value) < 1e9 else text


def describe(value: Any) -> str:
    """Say in a few words what a user passed: shape and dtype for arrays, repr for the rest."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and not is_frame(value):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and dtype {value.dtype}"
    if hasattr(value, "shape") and hasattr(value, "columns"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple) and len(value) > 6:
        return f"{type(value).__name__} of length {len(value)}"
    return shorten(repr(value))


def fail(
    argument: str, expected: str, got: Any, remedy: str, kind: type[Exception] = ValueError
) -> NoReturn:
    """Raise ``kind`` in the one form; ``got`` is used as it is, if not too long, when it is a
    string."""
    shown = shorten(got, 300) if isinstance(got, str) else describe(got)
    raise kind(f"{argument}: expected {expected}, got {shown}. {remedy.rstrip('.')}.")


def imported(module: str, argument: str) -> Any:
    """A module that shaplab can do without, or how to get it; ``argument`` is what needs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as problem:
        package = module.split(".")[0]
        if (problem.name or "").split(".")[0] != package:
            raise
        fail(
            argument,
            f"the package {package} beside shaplab",
            "an environment without it",
            f"Install it: pip install {package}",
            ModuleNotFoundError,
        )


def check_int(value: Any, argument: str, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` as an int within bounds."""
    rule = f"an integer >= {minimum}" + ("" if maximum is None else f" and <= {maximum}")
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        fail(argument, rule, describe(value), "Pass a whole number", TypeError)
    if value < minimum or (maximum is not None and value > maximum):
        fail(argument, rule, describe(value), "Pass a number in that range")
    return int(value)


def check_real(
    value: Any, argument: str, *, low: float = -np.inf, high: float = np.inf, open_low: bool = False
) -> float:
    """Return ``value`` as a finite float within ``[low, high]`` (``(low, high]`` if
    ``open_low``)."""
    rule = f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        fail(argument, rule, describe(value), "Pass a number", TypeError)
    number = float(value)
    if not np.isfinite(number) or not low <= number <= high or (open_low and number == low):
        fail(argument, rule, describe(value), "Pass a number in that range")
    return number


def check_choice(value: Any, argument: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        fail(argument, f"one of {listed}", describe(value), "Pass one of these names")
    return value


def check_callable(value: Any, argument: str) -> Callable[..., Any]:
    """Return ``value`` if it can be called; point to ``predict``/``predict_proba`` if it has
    them."""
    if callable(value):
        return value
    methods = [
        name for name in ("predict_proba", "decision_function", "predict") if hasattr(value, name)
    ]
    if methods:
        named = " or ".join(f"`{argument}.{name}`" for name in methods)
        fail(
            argument,
            "a callable (n, d) -> (n,) or (n, K)",
            f"a {type(value).__name__}",
            f"Name the method to explain: pass {named}",
            TypeError,
        )
    fail(
        argument,
        "a callable (n, d) -> (n,) or (n, K)",
        value,
        "Pass a function of a batch of rows",
        TypeError,
    )


def has(value: Any, *names: str) -> bool:
    """Tell whether a value's class has these attributes; columns of pandas are attributes, too."""
    return _class_has(type(value), names)  # type: ignore[arg-type]


@lru_cache(maxsize=1024)  # asked some fifty times for each call, of a few classes
def _class_has(kind: type, names: tuple[str, ...]) -> bool:
    return all(hasattr(kind, name) for name in names)


def is_frame(X: Any) -> bool:
    """Tell whether ``X`` is a pandas DataFrame, without importing pandas."""
    return has(X, "iloc", "columns")


def row_labels(X: Any) -> Any:
    """The index of a pandas DataFrame, or None for anything else."""
    return X.index if is_frame(X) else None


def column_names(X: Any) -> list[str] | None:
    """Names of the columns of a pandas, polars or Arrow table as strings, or None for anything
    else. Names of several levels are joined by blanks, as XGBoost does."""
    if has(X, "column_names"):
        names = X.column_names
    elif is_frame(X) or has(X, "get_columns"):
        names = X.columns
    else:
        return None
    return [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names]


def check_rows(X: Any, argument: str) -> None:
    """Refuse what is no table of rows but is often passed as one, with what to pass instead."""
    rule = "a table of shape (n, d)"
    remedy = ""
    if has(X, "num_row") or has(X, "num_data"):  # DMatrix and Dataset
        remedy = "Pass the array or DataFrame it was made from"
        if has(X, "get_base_margin") and X.get_base_margin().size:
            remedy += (
                "; its base_margin is no part of the model and takes the place of "
                "TreeEnsemble.from_model(model).base: add the difference to the base values"
            )
    elif has(X, "collect", "lazy"):
        remedy = f"Pass {argument}.collect()"
    elif has(X, "iloc") and not has(X, "columns"):
        remedy = (
            f"For one row pass a table of one row, such as {argument}.to_frame().T or, from the "
            f"table it was taken from, X.iloc[[0]]; for one feature {argument}.to_frame()"
        )
    elif has(X, "to_frame") and not has(X, "columns"):
        remedy = f"Pass {argument}.to_frame() for one feature, or X[0:1] for the first row of X"
    elif isinstance(X, Iterator):
        remedy = f"Pass list({argument}) or an array of the rows"
    elif isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        rule = "a table without a mask"
        remedy = f"Pass {argument}.filled(np.nan), or drop the masked rows"
    if remedy:
        name = type(X).__name__
        shape = f" of shape {tuple(X.shape)}" if hasattr(X, "shape") else ""
        fail(argument, rule, f"a {name}{shape}", remedy, TypeError)


def check_names(names: Iterable[Any] | None, n: int, argument: str) -> tuple[str, ...] | None:
    """Return ``n`` names as strings, or None."""
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        fail(argument, f"{n} names", repr(names), "Pass a list of names", TypeError)
    found = tuple(str(name) for name in names)
    if len(found) != n:
        fail(argument, f"{n} names", f"{len(found)}", "Pass one name for each column")
    return found


def plain(X: Any) -> Any:
    """A torch tensor or a scipy sparse matrix as an array; anything else as it is."""
    if has(X, "detach", "cpu"):
        return X.detach().cpu().numpy()
    return X.toarray() if has(X, "toarray") else X


def as_numbers(
    value: Any,
    argument: str,
    rule: str = "numbers",
    remedy: str = "Pass numbers",
    dtype: Any = np.float64,
) -> np.ndarray:
    """Return an array of floats (of its own kind with ``dtype=None``); None, text, dates, complex
    numbers and ragged lists are refused."""
    try:
        found = np.asarray(plain(value))
        if value is None or found.dtype.kind not in "biufO":
            raise TypeError
        if dtype is None:
            dtype = np.float64 if found.dtype == object else found.dtype
        return found.astype(dtype, copy=False)
    except (TypeError, ValueError):
        fail(argument, rule, describe(value), remedy, TypeError)


def as_matrix(
    X: Any, argument: str, *, n_columns: int | None = None, finite: bool = False
) -> np.ndarray:
    """Return a table as a C-contiguous float array ``(n, d)``; float32 stays, all else is float64.

    Accepts arrays, nested lists, numeric DataFrames, scipy sparse matrices and torch tensors.
    NaN is allowed unless ``finite``: many models handle it.
    """
    check_rows(X, argument)
    X = plain(X)
    if is_frame(X):
        bad = [
            str(name)
            for name, kind in zip(X.columns, X.dtypes, strict=True)
            if getattr(kind, "kind", "O") not in "biuf"
        ]
        if bad:
            fail(
                argument,
                "numeric columns",
                f"{shorten(', '.join(bad))} of another type",
                "Encode these columns as numbers first",
            )
        X = X.to_numpy(dtype=np.float64)
    dtype = np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
    table = as_numbers(
        X, argument, "a numeric table of shape (n, d)", "Encode text as numbers first", dtype
    )
    if table.ndim != 2:
        fail(argument, "a table of shape (n, d)", f"shape {table.shape}", _as_table(table))
    if table.shape[0] == 0 or table.shape[1] == 0:
        fail(
            argument,
            "at least one row and one column",
            f"shape {table.shape}",
            "Pass a non-empty table",
        )
    if n_columns is not None and table.shape[1] != n_columns:
        fail(
            argument,
            f"{n_columns} columns",
            f"{table.shape[1]}",
            "Pass the columns the model was fitted on",
        )
    if finite and not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        fail(
            argument,
            "finite numbers",
            f"{table[row, column]} in row {row}, column {column}",
            "Impute or drop missing and infinite values first",
        )
    return np.ascontiguousarray(table)


def _as_table(array: np.ndarray) -> str:
    """How to make a table of an array with another number of axes."""
    if array.ndim < 2:
        return "Use X.reshape(1, -1) for a single row, X.reshape(-1, 1) for a single feature"
    return (
        "Flatten the rows, X.reshape(len(X), -1), let the model reshape them back, and pass "
        "groups= to explain several entries as one"
    )


def as_finite(values: Any, argument: str, shape: tuple[int, ...], remedy: str) -> np.ndarray:
    """Return finite numbers of this shape as float64."""
    rule = f"shape {shape} of finite numbers"
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        fail(argument, rule, values, remedy, TypeError)
    if found.shape != shape or not np.isfinite(found).all():
        fail(
            argument,
            rule,
            f"shape {found.shape}" if found.shape != shape else "NaN or infinity",
            remedy,
        )
    return found


def check_weights(weights: Any, n: int, of_what: str) -> np.ndarray:
    """How much each of ``n`` rows counts in a mean, as shares that sum to 1; None: equally."""
    if weights is None:
        return np.full(n, 1.0 / n)
    rule = f"{n} finite numbers >= 0, one for each row of {of_what}, not all of them 0"
    remedy = "Count the rows: one weight each, such as how often it stands in the table"
    given = as_numbers(weights, "weights", rule, remedy)
    if given.shape != (n,):
        fail("weights", rule, f"shape {given.shape}", remedy)
    wrong = np.flatnonzero(~((given >= 0) & (given < np.inf)))  # NaN passes no comparison
    if wrong.size:
        fail("weights", rule, f"{given[wrong[0]]:g} for row {wrong[0]}", remedy)
    if not given.any():
        fail("weights", rule, "zeros only", remedy)
    shares = given / given.max()  # first of all: sums of huge weights overflow
    return np.asarray(shares / shares.sum())


def check_same_columns(X: Any, background: Any, argument: str = "background") -> None:
    """Require that two tables have the same columns in the same order."""
    ours = column_names(X)
    theirs = column_names(background)
    twice = [name for name in ours or () if (ours or []).count(name) > 1]
    if twice:
        fail(
            "X",
            "columns with different names",
            f"{shorten(twice[0])!r} twice",
            "Rename or drop one of them",
        )
    if ours is not None and theirs is not None and ours != theirs:
        missing = [name for name in ours if name not in theirs]
        extra = [name for name in theirs if name not in ours]
        if missing or extra:
            detail = "; ".join(
                f"{word} {shorten(', '.join(part))}"
                for word, part in (("missing", missing), ("unknown", extra))
                if part
            )
            fail(argument, "the columns of X", detail, "Select the same columns")
        fail(
            argument,
            "the columns of X in the same order",
            "another order",
            f"Reorder them: {argument}.select(X.column_names)"
            if has(background, "column_names")
            else f"Reorder them: {argument}[list(X.columns)]",
        )
    if (ours is None) != (theirs is None):
        fail(
            argument,
            "a DataFrame exactly when X is one",
            f"{type(background).__name__} beside {type(X).__name__}",
            "Pass both as DataFrames or both as arrays",
            TypeError,
        )
    if X.shape[1] != background.shape[1]:
        fail(
            argument,
            f"{X.shape[1]} columns, as X has",
            f"{background.shape[1]}",
            "Select the same columns",
        )


def compare_names(
    ours: list[str], names: list[str], theirs: list[str], argument: str, source: str
) -> None:
    """Require the same columns in the same order; ``theirs`` is how ``names`` are to be read."""
    if ours == theirs:
        return
    missing = [name for name in ours if name not in theirs]
    extra = [name for name, read in zip(names, theirs, strict=True) if read not in ours]
    twice = [name for name in theirs if theirs.count(name) > 1]
    listed = (("missing", missing), ("unknown", extra), ("twice", twice[:1]))
    fail(
        argument,
        f"the columns {source}, in their order",
        "; ".join(f"{what} {shorten(', '.join(which))}" for what, which in listed if which)
        or "another order",
        "Rename or drop one of them" if twice else "Select and order the columns",
    )


def check_size(shape: Sequence[int], argument: str, remedy: str) -> None:
    """Refuse a float64 result that is larger than this machine's memory, before it is made."""
    wanted = 8.0 * float(np.prod(np.asarray(shape, dtype=np.float64)))
    try:
        held = float(os.sysconf("SC_PAGE_SIZE")) * float(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        held = 2.0**40  # a machine that does not say: refuse what no machine holds
    if wanted > held:
        fail(
            argument,
            f"a result that fits into {held / 2**30:.3g} GiB of memory",
            f"{wanted / 2**30:.3g} GiB for values of shape {tuple(int(size) for size in shape)}",
            remedy,
        )


def check_result(values: np.ndarray, names: Sequence[str] | None, argument: str = "model") -> None:
    """Require finite values ``(N, d, ...)`` of a model whose outputs were all finite."""
    if np.isfinite(values).all():
        return
    place = np.argwhere(~np.isfinite(values))[0]
    name = f"x{place[1]}" if names is None else str(names[place[1]])
    fail(
        argument,
        "outputs whose differences and sums are finite",
        f"{values[tuple(place)]} for feature {shorten(name)!r} of row {place[0]}, though every "
        f"output is finite",
        "Outputs are too large: explain them divided by a constant, or their logarithm",
    )


def class_names(model: Any, count: int) -> tuple[str, ...] | None:
    """Names of the ``count`` outputs: the classes of the estimator whose bound method this is."""
    classes = getattr(getattr(model, "__self__", None), "classes_", None)
    if classes is None or len(classes) != count or any(np.ndim(name) for name in classes):
        return None
    return tuple(str(name) for name in classes)


def check_frames(X: Any, background: Any, argument: str = "background") -> None:
    """Require the same columns in the same order where both tables name theirs."""
    if column_names(X) is not None and column_names(background) is not None:
        check_same_columns(X, background, argument)


def resolve_rng(rng: Any) -> np.random.Generator:
    """Turn ``None``, an int, a SeedSequence or a Generator into a Generator; global state is never
    touched."""
    if rng is None or isinstance(
        rng, np.random.Generator | np.random.SeedSequence | int | np.integer
    ):
        if isinstance(rng, bool) or (isinstance(rng, int | np.integer) and rng < 0):
            fail(
                "rng",
                "None, an integer >= 0 or a numpy Generator",
                repr(rng),
                "Pass a seed such as rng=0",
            )
        return np.random.default_rng(rng)
    fail(
        "rng",
        "None, an integer >= 0 or a numpy Generator",
        rng,
        "Pass a seed such as rng=0",
        TypeError,
    )


def check_outputs(
    outputs: Any, n_rows: int, argument: str = "model", *, finite: bool = True
) -> np.ndarray:
    """Return a model's outputs as float64 ``(n,)`` or ``(n, K)`` after checking rows and NaN."""
    found = as_numbers(
        outputs, argument, "numeric outputs", "Explain scores or probabilities, not labels"
    )
    if found.ndim not in (1, 2) or found.shape[0] != n_rows:
        fail(
            argument,
            f"outputs of shape ({n_rows},) or ({n_rows}, K) for {n_rows} rows",
            f"shape {found.shape}",
            "Return one output row for each input row",
        )
    if finite and not np.isfinite(found).all():
        row = int(np.argwhere(~np.isfinite(found))[0][0])
        fail(
            argument,
            "finite outputs",
            f"{found[row]} for row {row} of a batch of {n_rows}",
            "Check how the model treats missing or unusual rows",
        )
    return found
