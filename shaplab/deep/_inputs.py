"""What a user passes for a network, as tensors: arrays, tables, tensors, several inputs.

The one door for rows. ``as_inputs``: tensors are taken as they are; arrays and tables take the
dtype with which the model runs, and where its parameters leave a choice, two rows are tried.
``as_reference_row``: one baseline. ``as_stage_rows``: arrays for models in series, which need not
be networks. DASP has a door of its own, as it needs no run of pairs.

Chapter: deep/deep_shap.
"""

from __future__ import annotations

import inspect
import itertools
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shaplab._validation import (
    UnsupportedModelError,
    as_matrix,
    as_numbers,
    check_frames,
    check_rows,
    column_names,
    fail,
    is_frame,
)
from shaplab.deep._pairs import PairRun, Settings

__all__: list[str] = []

_TRIES = 16  # combinations of dtypes that are tried


def check_model(model: Any) -> None:
    """Refuse what cannot be watched or would change while it is watched."""
    if not isinstance(model, torch.nn.Module):
        if callable(model):
            return
        fail(
            "model",
            "a torch.nn.Module or a function of tensors",
            model,
            "Pass the network itself",
            TypeError,
        )
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"model: expected eager modules, got a ScriptModule at {name!r}. Pass the "
                f"original module."
            )
        active = isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0
        if part.training and (
            active
            or (isinstance(part, torch.nn.modules.batchnorm._NormBase) and part.track_running_stats)
        ):
            fail(
                "model",
                "evaluation mode",
                f"{type(part).__name__} {name!r} in training mode",
                "Call model.eval() first",
            )


def each_table(X: Any) -> tuple[Any, ...]:
    """The inputs of a model: the members of a tuple, or the one table."""
    return X if isinstance(X, tuple) else (X,)


class ByName(torch.nn.Module):
    """A model whose inputs have names: passed by keyword where it has such arguments, otherwise as
    one dictionary. Its modules keep their names."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.training = False  # its own flag only: those of the model are not touched
        called = model.forward if isinstance(model, torch.nn.Module) else model
        known = inspect.signature(called).parameters.values()
        every = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known)
        self.by_keyword = every or set(names) <= {one.name for one in known}

    def forward(self, *values: Tensor) -> Any:
        given = dict(zip(self.names, values, strict=True))
        return self.model(**given) if self.by_keyword else self.model(given)

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.model, torch.nn.Module):
            return self.model.named_modules(*args, **kwargs)
        return super().named_modules(*args, **kwargs)


def check_tables(X: Any, background: Any, argument: str = "background") -> None:
    """Require the same columns in the same order in every input whose tables name them."""
    if not isinstance(X, tuple) or not isinstance(background, tuple):
        check_frames(X, background, argument)
        return
    for i, (ours, theirs) in enumerate(zip(X, background, strict=False)):
        check_frames(ours, theirs, f"{argument}[{i}]")


def names_of(X: Any, given: Any) -> list[Any]:
    """Names of the features of each input: those given, or those of its table."""
    tables = each_table(X)
    if given is None:
        return [column_names(table) for table in tables]
    if not isinstance(X, tuple):
        return [given]
    if len(given) != len(tables):
        fail(
            "feature_names",
            f"names for each of {len(tables)} inputs",
            f"{len(given)}",
            "Pass a tuple with a list of names, or None, for each input",
        )
    return list(given)


def shown_rows(row: Tensor) -> np.ndarray:
    """A tensor of rows as an array that loses no digits, one number a row as a column."""
    row = row.float() if row.dtype == torch.bfloat16 else row
    return row.reshape(len(row), -1).cpu().numpy() if row.dim() == 1 else row.cpu().numpy()


def as_inputs(
    model: Any, X: Any, argument: str, like: tuple[Tensor, ...] | None = None
) -> tuple[Tensor, ...]:
    """Tensors of a model's inputs: arrays and tables take its dtype and device, tensors must have
    them; ``like`` are the inputs whose kind these rows must have."""
    if isinstance(X, list) and any(isinstance(value, Tensor) for value in X):
        fail(
            argument,
            "one tensor of rows, or a tuple of several inputs",
            "a list of tensors",
            f"Pass tuple({argument}) for several inputs, torch.stack({argument}) for rows",
            TypeError,
        )
    values = each_table(X)
    tables = [_table(value, argument) for value in values]
    given = [isinstance(value, Tensor) for value in values]
    first = _first_parameter(model)
    for table, fixed in zip(tables, given, strict=True):
        if fixed and first is not None and table.device != first.device:
            _wrong_kind(argument, table, first)
    if first is not None:
        tables = [table.to(first.device) for table in tables]
    if like is None:
        rows = _of_the_model(model, tables, given, argument)
    else:
        rows = _of_a_kind(tables, given, like, argument)
    for table in rows:
        if table.is_floating_point() and not torch.isfinite(table).all():
            fail(
                argument,
                "finite numbers",
                "NaN or infinity",
                "Impute or drop missing values first",
            )
    lengths = [table.shape[0] for table in rows]
    if len(set(lengths)) > 1:
        fail(
            argument,
            "the same number of rows in every input",
            str(lengths),
            "Align the inputs",
        )
    return rows


def as_reference_row(given: Any, x: Tensor) -> Tensor:
    """One baseline row with a leading axis, of the kind of ``x``; zeros by default."""
    row = torch.zeros_like(x[:1])
    if given is None:
        return row
    if isinstance(given, Tensor):
        values = given.detach()
    else:
        values = torch.as_tensor(np.array(as_numbers(given, "baseline")))
    if values.numel() != row.numel():
        fail(
            "baseline",
            f"one row of shape {tuple(x.shape[1:])}",
            f"shape {tuple(values.shape)}",
            "Use deep_shap for several reference rows",
        )
    return values.to(dtype=x.dtype, device=x.device).reshape(row.shape)


def as_stage_rows(X: Any, argument: str) -> np.ndarray:
    """Rows ``(n, ...)`` as an array of floats; float32 stays."""
    check_rows(X, argument)
    table = as_numbers(X, argument, dtype=None)
    table = table.astype(np.float32 if table.dtype == np.float32 else np.float64, copy=False)
    if table.ndim < 2 or len(table) == 0 or not np.isfinite(table).all():
        fail(argument, "finite numbers (n, ...)", X, "Pass a batch of rows without missing values")
    return table


def _table(value: Any, argument: str) -> Tensor:
    tensor = value.detach() if isinstance(value, Tensor) else _tensor_of(value, argument)
    if tensor.dim() < 1 or tensor.shape[0] == 0:
        fail(
            argument,
            "at least one row, rows along the first axis",
            f"shape {tuple(tensor.shape)}",
            "Pass a non-empty batch",
        )
    return tensor


def _tensor_of(value: Any, argument: str) -> Tensor:
    """A tensor of an array-like of numbers: any byte order, strides and numeric dtype."""
    array = _array_of_frame(value, argument) if is_frame(value) else None
    if array is None:
        array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
    if array.dtype.kind == "O" and all(
        isinstance(entry, numbers.Real | np.bool_) for entry in array.flat
    ):
        array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        fail(
            argument,
            "numbers",
            f"dtype {array.dtype}",
            "Encode text and objects as numbers first",
            TypeError,
        )
    if array.dtype.kind in "biu" and array.dtype != np.uint8 and array.dtype != np.bool_:
        array = array.astype(np.int64)
    array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.tensor(np.ascontiguousarray(array))


def _array_of_frame(frame: Any, argument: str) -> np.ndarray:
    """Whole numbers as integers, single precision as such, all else in double precision."""
    kinds = {getattr(kind, "kind", "O") for kind in frame.dtypes}
    if kinds <= set("biu") and not frame.isna().any(axis=None):
        return np.asarray(frame.to_numpy(dtype=np.int64))
    array = as_matrix(frame, argument)
    if array.dtype == np.float64 and all(kind == np.float32 for kind in frame.dtypes):
        array = array.astype(np.float32)
    return array


def _first_parameter(model: Any) -> Tensor | None:
    if not isinstance(model, torch.nn.Module):
        return None
    return next((p for p in model.parameters() if p.is_floating_point()), None)


def _wrong_kind(argument: str, table: Tensor, first: Tensor) -> None:
    fail(
        argument,
        f"dtype {first.dtype} on {first.device}, as the model has",
        f"{table.dtype} on {table.device}",
        f"Convert it: {argument}.to({str(first.device)!r}, {first.dtype})",
    )


def _of_the_model(
    model: Any, tables: list[Tensor], given: list[bool], argument: str
) -> tuple[Tensor, ...]:
    """The tables with the first dtypes that the model runs with; given tensors keep theirs."""
    first = _first_parameter(model)
    if first is None:
        return tuple(tables)
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    floats = sorted(kinds, key=lambda kind: (-kind.itemsize, str(kind)))  # keep most digits
    has_codes = any(isinstance(part, torch.nn.Embedding) for part in model.modules())
    options = []
    for table, fixed in zip(tables, given, strict=True):
        if fixed:
            options.append([table.dtype])
        elif table.is_floating_point():
            options.append(floats)
        else:
            options.append([table.dtype, *floats] if has_codes else [*floats, table.dtype])
    tensors = [table for table, fixed in zip(tables, given, strict=True) if fixed]
    wrong = [t for t in tensors if t.is_floating_point() and [t.dtype] != floats]
    tried = list(itertools.islice(itertools.product(*options), _TRIES))
    for dtypes in tried:
        rows = tuple(table.to(kind) for table, kind in zip(tables, dtypes, strict=True))
        if (len(tried) == 1 and not wrong) or _runs(model, rows):
            return rows
    for table in wrong:
        if table.dtype not in floats:
            _wrong_kind(argument, table, first)
    return tuple(table.to(kind) for table, kind in zip(tables, tried[0], strict=True))


def _runs(model: Any, tables: tuple[Tensor, ...]) -> bool:
    """Whether two rows pass through the model; what it refuses for another reason passes, too."""
    rows = tuple(table[:1].expand(2, *table.shape[1:]).clone() for table in tables)
    random = torch.get_rng_state()
    try:
        PairRun(model, Settings(), 2)(rows)
    except ValueError:  # our own errors, which the real run will raise with its place
        return True
    except Exception:
        return False
    finally:
        torch.set_rng_state(random)
    return True


def _of_a_kind(
    tables: list[Tensor], given: list[bool], like: tuple[Tensor, ...], argument: str
) -> tuple[Tensor, ...]:
    """The tables with the dtypes of ``like``, which they must fit."""
    rows = []
    for table, fixed, other in zip(tables, given, like, strict=False):
        numbers_for_codes = table.is_floating_point() and not other.is_floating_point()
        exact = not numbers_for_codes or torch.equal(table, table.to(other.dtype).to(table.dtype))
        rows.append(table.to(other.dtype) if exact and not fixed else table)
    same_number = len(tables) == len(like)
    for i, other in enumerate(like):
        same_shape = same_number and rows[i].shape[1:] == other.shape[1:]
        if same_shape and rows[i].dtype == other.dtype:
            continue
        if same_shape and given[i]:
            _wrong_dtype(argument, rows[i], other)
        fail(
            argument,
            f"inputs of shape (B, *{tuple(other.shape[1:])}) and dtype {other.dtype}, as X has",
            f"{len(tables)} input(s), shapes {[tuple(t.shape) for t in tables]} and "
            f"{[t.dtype for t in tables]}",
            "Give rows of the same kind",
        )
    return tuple(rows)


def _wrong_dtype(argument: str, table: Tensor, other: Tensor) -> None:
    fail(
        argument,
        f"dtype {other.dtype}, as X has",
        f"{table.dtype}",
        f"Convert it: {argument}.to({other.dtype})",
    )
