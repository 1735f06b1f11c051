"""Explanation: the one result type of every explainer.

For a model with one output, ``base_values[n] + values[n].sum()`` is the explained output of row
``n``. The output axis exists exactly when the model has one, and is always last.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from shaplab._validation import (
    as_numbers,
    check_names,
    column_names,
    digits,
    fail,
    is_frame,
    plain,
    shorten,
)

__all__ = ["Explanation"]

_ARRAYS = ("values", "base_values", "std", "rest", "data")
LEFT_OUT = "features left out"
_COLUMNS = 6  # outputs of one row that are shown side by side


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Attributions for rows of a table, with what is needed to read them.

    Parameters
    ----------
    values : array ``(N, d)``, ``(N, d, K)`` or, for networks, the input's shape ``(N, ...)`` with
        a last axis ``K`` when the model has several outputs; ``(N, d, d[, K])`` if ``interaction``.
        In units of the explained output.
    base_values : array ``(N,)`` or ``(N, K)``, the value of the empty coalition. A scalar or an
        array ``(K,)`` beside ``K`` outputs is repeated for every row.
    data : the explained rows as an array, tensor or DataFrame, or None.
    feature_names, output_names : sequences of names, or None.
    std : standard error of ``values`` (same shape), None when nothing was sampled; ``method`` says
        whether exact.
    method : name of the function that made the values, and of its game.
    interaction : True when axes 1 and 2 are both features: ``values[n, i, j]`` is half of the
        interaction of ``i`` and ``j``, the diagonal holds main effects.
    rest : array like ``base_values``, the sum of values of features that were sliced away, or None.
    info : what the run cost and how it converged (for example ``evaluations``, ``gap``). Arrays in
        it whose first axis are the rows are selected with them.
    index : labels of the rows, ``(N,)``; those of a DataFrame by default, or None.

    Notes
    -----
    Arrays are stored as read-only float64 views or copies; nothing that the user passed is changed.
    Iterating gives one explanation a row; ``numpy.asarray`` gives ``values``.
    """

    values: np.ndarray
    base_values: np.ndarray
    data: np.ndarray | None = None
    feature_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    std: np.ndarray | None = None
    method: str = ""
    interaction: bool = False
    rest: np.ndarray | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    index: np.ndarray | None = None

    def __post_init__(self) -> None:
        values = _frozen(self.values, "values")
        base = as_numbers(self.base_values, "base_values")
        if values.ndim < 2:
            fail(
                "values",
                "an array of at least 2 axes, (N, d, ...)",
                f"shape {values.shape}",
                "Give a single row as shape (1, d)",
            )
        n = values.shape[0]
        frame = is_frame(self.data)
        if frame and self.index is None:
            object.__setattr__(self, "index", self.data.index)  # type: ignore[union-attr]
        if frame and self.feature_names is None and self.data.shape[1:] == values.shape[1:2]:  # type: ignore[union-attr]
            object.__setattr__(self, "feature_names", column_names(self.data))
        if self.data is not None:
            object.__setattr__(self, "data", _read_only(_entries(self.data)))
        if base.ndim == 0:
            base = np.full(n, float(base))
        elif base.ndim == 1 and base.shape[0] == values.shape[-1] and self._by_output(values):
            base = np.broadcast_to(base, (n, base.shape[0]))
        if (
            base.ndim > 2
            or base.shape[0] != n
            or (base.ndim == 2 and base.shape[1] != values.shape[-1])
        ):
            fail(
                "base_values",
                f"shape ({n},) or ({n}, K)",
                f"shape {base.shape} beside values {values.shape}",
                "Give one base value for each row and output",
            )
        put = object.__setattr__
        put(self, "values", values)
        put(self, "base_values", _frozen(base, "base_values"))
        for name, like in (("std", values), ("rest", base)):
            if getattr(self, name) is not None:
                put(self, name, _frozen(getattr(self, name), name))
                if getattr(self, name).shape != like.shape:
                    fail(
                        name,
                        f"shape {like.shape}, as "
                        f"{'values' if like is values else 'base_values'} have",
                        f"shape {getattr(self, name).shape}",
                        "Give one number for each of them",
                    )
        if self.interaction and (len(self.feature_shape) != 2 or len(set(self.feature_shape)) != 1):
            fail(
                "values",
                "shape (N, d, d) or (N, d, d, K) for interactions",
                f"shape {values.shape}",
                "Give a square matrix for each row",
            )
        if self.data is not None:
            table = self.data.ndim == 2 and len(self.feature_shape) == 1
            if self.data.shape[:1] != (n,) or (table and self.data.shape[1:] != self.feature_shape):
                fail(
                    "data",
                    f"{n} rows and the columns of values",
                    f"shape {self.data.shape}",
                    "Pass X",
                )
        put(
            self,
            "feature_names",
            check_names(self.feature_names, self.feature_shape[0], "feature_names")
            if len(self.feature_shape) == 1 or self.interaction
            else _names(self.feature_names),
        )
        put(
            self,
            "output_names",
            check_names(self.output_names, values.shape[-1], "output_names")
            if base.ndim == 2
            else None,
        )
        if not isinstance(self.info, Mapping):
            fail("info", "a mapping from names to anything", self.info, "Pass a dict", TypeError)
        put(self, "info", dict(self.info))
        if self.index is not None:
            labels = np.empty(len(self.index), dtype=object)
            labels[:] = list(self.index)
            if labels.shape != (n,):
                fail("index", f"{n} labels, one a row", f"{len(labels)}", "Pass X.index")
            put(self, "index", _read_only(labels))

    def _by_output(self, values: np.ndarray) -> bool:
        """Whether one axis of base values ``(K,)``, as long as the last axis of ``values``, are
        outputs and not rows."""
        n = values.shape[0]
        if isinstance(self.base_values, _OneARow):
            return False
        if n != values.shape[-1]:
            return True
        if values.ndim == 2 or (self.interaction and values.ndim == 3):
            return False
        if self.interaction or self.output_names is not None:
            return True
        # As many rows as outputs: the explained rows tell whether the last axis are features.
        # Where players are pixels, rows have channels before them.
        shapes = [] if self.data is None else [self.data.shape[1:], self.data.shape[2:]]
        if values.shape[1:] in shapes or values.shape[1:-1] in shapes:
            return values.shape[1:] not in shapes
        fail(
            "base_values",
            f"shape ({n}, {n}) for {n} outputs, or data with the shape of the explained rows",
            f"shape ({n},), which may be one a row or one an output of values {values.shape}",
            "Pass np.tile(base_values, (len(values), 1)) if they belong to outputs, or data=X",
        )

    # What the arrays mean

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``values``."""
        return self.values.shape

    @property
    def has_outputs(self) -> bool:
        """Whether there is an output axis."""
        return self.base_values.ndim == 2

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the feature axes: ``(d,)`` for tables, ``(d, d)`` for interactions, more for
        images."""
        return self.values.shape[1:-1] if self.base_values.ndim == 2 else self.values.shape[1:]

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, made up (``x0``, ``x1``, ...) where none were given."""
        if self.feature_names is not None:
            return self.feature_names
        count = self.feature_shape[0] if self.interaction else int(np.prod(self.feature_shape))
        return tuple(f"x{i}" for i in range(count))

    @property
    def prediction(self) -> np.ndarray:
        """Base value plus all attributions, ``(N,)`` or ``(N, K)``."""
        axes = tuple(range(1, 1 + len(self.feature_shape)))
        total = self.base_values + self.values.sum(axis=axes)
        return total if self.rest is None else total + self.rest

    def gap(self, outputs: Any) -> np.ndarray:
        """Additivity residual: ``outputs - prediction``. It never raises on a large gap; you judge
        it.

        Parameters
        ----------
        outputs : array ``(N,)`` or ``(N, K)``, the model's outputs for the explained rows.

        Returns
        -------
        array of the same shape.
        """
        found = as_numbers(outputs, "outputs")
        if self.base_values.ndim == 1 and found.shape == (len(self), 1):
            found = found[:, 0]
        if self.base_values.shape == (len(self), 1) and found.shape == (len(self),):
            found = found[:, None]
        if found.shape != self.base_values.shape:
            fail(
                "outputs",
                f"shape {self.base_values.shape}",
                f"shape {found.shape}",
                "Pass the model's outputs for the explained rows",
            )
        return found - self.prediction

    # Selecting

    def __len__(self) -> int:
        return self.values.shape[0]

    def __iter__(self) -> Iterator[Explanation]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = np.asarray(self.values, dtype=dtype)
        return found.copy() if copy else found

    def __getitem__(self, key: Any) -> Explanation:
        """Select ``[rows]``, ``[rows, features]`` or ``[rows, features, outputs]``.

        Rows: integer, slice, index list or boolean mask; the row axis stays. Features: the same, or
        names; what is left out goes to ``rest`` so that ``prediction`` stays true. Outputs: one
        integer or name drops the output axis; a list keeps it.
        """
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) > 2 + self.has_outputs:
            fail(
                "index",
                f"at most {2 + self.has_outputs} parts",
                f"{len(parts)}",
                "Use [rows], [rows, features] or, with several outputs, [rows, features, outputs]",
            )
        result = self._rows(parts[0])
        if len(parts) > 1 and not (isinstance(parts[1], slice) and parts[1] == slice(None)):
            result = result._features(parts[1])
        if len(parts) > 2:
            result = result._outputs(parts[2])
        return result

    def _rows(self, key: Any) -> Explanation:
        if isinstance(key, slice) and key == slice(None):
            return self
        rows = _positions(key, len(self), None, "rows")
        return self._changed(
            values=self.values[rows],
            base_values=self.base_values[rows],
            data=None if self.data is None else self.data[rows],
            std=None if self.std is None else self.std[rows],
            rest=None if self.rest is None else self.rest[rows],
            index=None if self.index is None else self.index[rows],
            info=self._told(lambda name, part: part[rows] if len(part) == len(self) else part),
        )

    def _changed(self, **changes: Any) -> Explanation:
        """A copy with other arrays; what base values belong to is known here."""
        base = changes.get("base_values", self.base_values)
        changes["base_values"] = base.view(_OneARow) if base.ndim == 1 else base
        return replace(self, **changes)

    def _told(self, change: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, Any]:
        """``info`` with its arrays changed."""
        return {
            name: change(name, part) if isinstance(part, np.ndarray) and part.ndim else part
            for name, part in self.info.items()
        }

    def _features(self, key: Any) -> Explanation:
        if len(self.feature_shape) != 1:
            fail(
                "index",
                "features of a table",
                f"feature axes {self.feature_shape}",
                "Index .values directly for images and interactions",
            )
        chosen = _positions(key, self.feature_shape[0], self.names, "features")
        if len(np.unique(chosen)) < len(chosen):
            names, counts = np.unique(chosen, return_counts=True)
            fail(
                "features",
                "each feature once",
                f"{shorten(self.names[names[counts.argmax()]])!r} {counts.max()} times",
                "Select it once; its value would count twice",
            )
        d, n = self.feature_shape[0], len(self)
        left = np.setdiff1d(np.arange(d), chosen)
        dropped = self.values[:, left].sum(axis=1)

        def told(name: str, part: np.ndarray) -> np.ndarray:
            if part.shape == (d,) and n == 1:  # of features alone, beside one row of values
                return part[chosen]
            by_output = part.shape == self.base_values.shape and name == "gap"
            return part[:, chosen] if part.shape[:2] == (n, d) and not by_output else part

        return self._changed(
            values=self.values[:, chosen],
            std=None if self.std is None else self.std[:, chosen],
            data=self.data[:, chosen]
            if self.data is not None and self.data.ndim == 2
            else self.data,
            feature_names=None
            if self.feature_names is None
            else tuple(self.feature_names[i] for i in chosen),
            rest=dropped if self.rest is None else self.rest + dropped,
            info=self._told(told),
        )

    def _outputs(self, key: Any) -> Explanation:
        names = self.output_names or tuple(str(k) for k in range(self.values.shape[-1]))
        chosen: Any = _positions(key, len(names), names, "outputs")
        single = isinstance(key, str | int | np.integer)
        if single:
            chosen = int(chosen[0])
        n, count = len(self), len(names)

        def told(name: str, part: np.ndarray) -> np.ndarray:
            own = part.ndim > 1 and part.shape[0] == n and part.shape[-1] == count
            of_features = part.shape == (n, *self.feature_shape) and name != "gap"
            return part[..., chosen] if own and not of_features else part

        return self._changed(
            values=self.values[..., chosen],
            base_values=self.base_values[:, chosen],
            std=None if self.std is None else self.std[..., chosen],
            rest=None if self.rest is None else self.rest[:, chosen],
            output_names=None
            if single or self.output_names is None
            else tuple(self.output_names[k] for k in chosen),
            info=self._told(told),
        )

    # Leaving the house

    def to_shap(self) -> Any:
        """The same numbers as a ``shap.Explanation``, for shap's own plots (needs the package
        shap). Features that were sliced away are a last one, "features left out"."""
        import shap

        e = self if self.rest is None else self._with_rest()
        return shap.Explanation(
            values=np.array(e.values),
            base_values=np.array(e.base_values),
            data=None if e.data is None else np.array(e.data),
            feature_names=list(e.names) if len(e.feature_shape) == 1 or e.interaction else None,
            output_names=None if e.output_names is None else list(e.output_names),
            error_std=None if e.std is None else np.array(e.std),
        )

    def _with_rest(self) -> Explanation:
        """The same with the features that were sliced away as a last one, so that sums stay
        true."""
        rest, data = np.asarray(self.rest)[:, None], self.data
        if data is not None and data.ndim == 2:
            gone = np.full((len(self), 1), np.nan, dtype=object if data.dtype == object else float)
            data = np.concatenate([data, gone], axis=1)
        return self._changed(
            values=np.concatenate([self.values, rest], axis=1),
            data=data,
            feature_names=(*self.names, LEFT_OUT),
            # What the errors of the others are in sum is not known any more.
            std=None
            if self.std is None
            else np.concatenate([self.std, np.full_like(rest, np.nan)], axis=1),
            rest=None,
        )

    def to_frame(self) -> Any:
        """A tidy pandas DataFrame, one value a line.

        Columns: ``row`` (its label in the DataFrame that was explained, else its number),
        ``feature`` (and ``with`` for interactions), ``output`` when there are
        several, ``value``, ``std`` when estimated, ``data`` for tables.
        """
        import pandas as pd

        outputs = self.values.shape[-1] if self.has_outputs else 1
        if self.interaction:
            levels: list[Sequence[str]] = [self.names, self.names]
            columns = ["feature", "with"]
        else:
            count = int(np.prod(self.feature_shape))
            levels = [
                self.names if len(self.names) == count else tuple(f"x{i}" for i in range(count))
            ]
            columns = ["feature"]
        sizes = [len(self), *(len(level) for level in levels), outputs]
        grid = [axis.ravel() for axis in np.indices(sizes)]
        rows = grid[0] if self.index is None else self.index[grid[0]]
        frame = pd.DataFrame({"row": pd.Series(rows).infer_objects()})
        for position, (name, level) in enumerate(zip(columns, levels, strict=True), start=1):
            frame[name] = np.asarray(level, dtype=object)[grid[position]]
        if self.has_outputs:
            labels = self.output_names or tuple(str(k) for k in range(outputs))
            frame["output"] = np.asarray(labels, dtype=object)[grid[-1]]
        frame["value"] = self.values.reshape(-1)
        if self.std is not None:
            frame["std"] = self.std.reshape(-1)
        if (
            self.data is not None
            and not self.interaction
            and self.data.shape == (len(self), *self.feature_shape)
        ):
            frame["data"] = np.repeat(self.data.reshape(-1), outputs)
        return frame

    def save(self, path: Any) -> None:
        """Write everything into one file, from which :meth:`load` makes the same explanation.

        Parameters
        ----------
        path : where to write, usually ``name.npz``. The file appears whole or not at all; nothing
            in it is pickled. Labels, entries of ``data`` and of ``info`` are numbers, text or None.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        info: dict[str, Any] = {}
        told = {"version": 1, "method": self.method, "interaction": self.interaction, "info": info}
        for name in ("feature_names", "output_names", "index"):
            part = getattr(self, name)
            told[name] = None if part is None else [_plain_label(label, name) for label in part]
        if self.data is not None and self.data.dtype == object:
            arrays["data"] = np.array(self.data.shape)
            told["data"] = [_plain_label(entry, "data") for entry in self.data.ravel()]
        for name, part in self.info.items():
            if isinstance(part, np.ndarray) and part.dtype != object:
                arrays[f"info {name}"] = part
            else:
                info[str(name)] = _plain_label(part, f"info[{name!r}]")
        target = Path(path)
        part_file = target.with_name(target.name + ".part")
        header = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
        with open(part_file, "wb") as file:
            np.savez(file, header=header, **arrays)
        os.replace(part_file, target)

    @classmethod
    def load(cls, path: Any) -> Explanation:
        """Read what :meth:`save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "header"}
                told = json.loads(bytes(file["header"]))
            info = told["info"] | {
                name[5:]: part for name, part in arrays.items() if name.startswith("info ")
            }
            parts = {name: arrays[name] for name in _ARRAYS if name in arrays}
            if "data" in told:
                entries = np.empty(len(told["data"]), dtype=object)
                entries[:] = told["data"]
                parts["data"] = entries.reshape(tuple(parts["data"]))
            if parts["base_values"].ndim == 1:
                parts["base_values"] = parts["base_values"].view(_OneARow)
            names = {name: told[name] for name in ("feature_names", "output_names", "index")}
            return cls(
                **parts,
                **names,
                method=told["method"],
                interaction=told["interaction"],
                info=info,
            )
        except FileNotFoundError:
            fail("path", "an existing file", str(path), "Check the name")
        except (OSError, KeyError, ValueError, TypeError, BadZipFile) as problem:
            fail(
                "path",
                "a file written by Explanation.save",
                f"{Path(path).name}: {problem}",
                "Name another file",
            )

    # Reading

    def _facts(self) -> str:
        kind = "interactions" if self.interaction else "attributions"
        parts = [
            f"{self.method or 'Explanation'}: {kind} of {len(self)} row{'s' * (len(self) != 1)}",
            "features " + " x ".join(str(size) for size in self.feature_shape),
        ]
        if self.has_outputs:
            parts.append(f"{self.values.shape[-1]} outputs")
        parts.append(
            "no sampling error"
            if self.std is None or not self.std.any()
            else f"largest standard error {np.nanmax(self.std, initial=0):.2g}"
        )
        return ", ".join(parts)

    def _lines(self, top: int = 8) -> tuple[list[str], list[tuple[str, list[str]]]]:
        """Titles of the columns, and lines of names and numbers as text: of one row with signs,
        else means of sizes."""
        one = len(self) == 1 and not self.interaction
        size = np.abs(self.values).sum(axis=0) / max(1, len(self))
        if self.interaction:
            size = size.sum(axis=1)
        # Entries by outputs; a model without an output axis has one.
        size = size.reshape(-1, size.shape[-1] if self.has_outputs else 1)
        names = self.names if len(self.names) == len(size) else [f"x{i}" for i in range(len(size))]
        order = np.argsort(-size.mean(axis=1), kind="stable")
        more = len(order) - top if len(order) > top + 1 else 0
        shown = order[: len(order) - more]
        titles = ["value" if one else "mean |value|"]
        count = size.shape[1]
        if self.has_outputs and one:
            titles = [str(name) for name in self.output_names or range(count)][:_COLUMNS]
        if not one:
            lines = [(names[j], [digits(size[j].mean())]) for j in shown]
            return titles, lines + ([(f"{more} more features", [])] if more else [])
        values = self.values[0].reshape(-1, count)
        scale = float(max(np.abs(self.base_values).max(), np.abs(values).max(initial=0.0)))
        lines = [("base value", _numbers(self.base_values[0], "", scale))]
        lines += [(self._cell(names, j), _numbers(values[j], "+", scale)) for j in shown]
        if more:
            rest = values[order[len(shown) :]].sum(axis=0)
            lines.append((f"{more} more features", _numbers(rest, "+", scale)))
        if self.rest is not None:
            lines.append((LEFT_OUT, _numbers(self.rest[0], "+", scale)))
        return titles, [*lines, ("prediction", _numbers(self.prediction[0], "", scale))]

    def _cell(self, names: Sequence[str], j: int) -> str:
        """``name = value`` of an entry of the only row."""
        if self.data is None or self.data.shape != (1, *self.feature_shape):
            return names[j]
        value = self.data.reshape(-1)[j]
        if isinstance(value, int | float | np.integer | np.floating):
            return f"{shorten(names[j], 30)} = {digits(value)}"
        return f"{shorten(names[j], 30)} = {shorten(value, 20)}"

    def __repr__(self) -> str:
        titles, lines = self._lines()
        head = f"<{shorten(self._facts(), 200)}>"
        if len(self) == 1 and self.has_outputs and not self.interaction:
            shown = "".join(f"{shorten(title, 12):>14}" for title in titles)
            head += f"\n  {'':<34}{shown}"
        word = "" if len(self) == 1 and not self.interaction else "mean |value| "
        return "\n".join(
            [head]
            + [
                f"  {shorten(name, 34):<34}"
                + (f"  {word}{cells[0]}" if len(cells) == 1 else "".join(f"{c:>14}" for c in cells))
                for name, cells in lines
            ]
        )

    def _repr_html_(self) -> str:
        titles, lines = self._lines()
        heads = "".join(f"<th>{html.escape(shorten(title, 60))}</th>" for title in titles)
        rows = "".join(
            f"<tr><td>{html.escape(shorten(name, 60))}</td>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, cells in lines
        )
        return (
            f"<table><caption>{html.escape(shorten(self._facts(), 200))}</caption>"
            f"<thead><tr><th>feature</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )


def _plain_label(value: Any, argument: str) -> Any:
    """A value that a file can hold as text: a number, text, None, or a list of these."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain_label(part, argument) for part in value]
    fail(argument, "numbers, text or None, to be written", value, "Leave it out or turn it to text")


class _OneARow(np.ndarray):
    """Base values that are known to be one a row, however many outputs there might be."""


def _numbers(values: Any, sign: str, scale: float) -> list[str]:
    """Numbers of one row as text, at most as many as are shown side by side; rounding is 0."""
    return [digits(value, 4, sign, scale) for value in np.atleast_1d(values)[:_COLUMNS]]


def _entries(data: Any) -> np.ndarray:
    """Explained rows as an array; missing entries of any kind are NaN, numbers stay numbers."""
    if not is_frame(data):
        return np.asarray(plain(data))
    found = data.to_numpy()
    if found.dtype != object:
        return np.asarray(found)
    if all(getattr(kind, "kind", "O") in "biuf" for kind in data.dtypes):
        return np.asarray(data.to_numpy(dtype=np.float64, na_value=np.nan))
    found = found.copy()
    found[data.isna().to_numpy()] = np.nan
    return np.asarray(found)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _frozen(array: Any, argument: str) -> np.ndarray:
    return _read_only(as_numbers(array, argument))


def _names(names: Any) -> tuple[str, ...] | None:
    return None if names is None else tuple(str(name) for name in names)


def _positions(key: Any, size: int, names: Sequence[str] | None, argument: str) -> np.ndarray:
    """Resolve an integer, slice, mask, name or list of these to positions."""
    if isinstance(key, slice):
        return np.arange(size)[key]
    items = list(key) if isinstance(key, Iterable) and not isinstance(key, str) else [key]
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        if len(items) != size:
            fail(
                argument,
                f"a mask of length {size}",
                f"length {len(items)}",
                "Give one True or False an entry",
            )
        return np.flatnonzero(np.asarray(items, dtype=bool))
    found = []
    for item in items:
        if isinstance(item, str) and names is not None:
            if item not in names:
                fail(
                    argument,
                    f"names among {shorten(', '.join(names))}",
                    repr(shorten(item)),
                    "Check the spelling",
                )
            if list(names).count(item) > 1:
                fail(
                    argument,
                    "a name that stands for one of them",
                    f"{shorten(item)!r}, which {list(names).count(item)} have",
                    "Give the position",
                )
            found.append(names.index(item))
        elif isinstance(item, int | np.integer) and -size <= item < size:
            found.append(int(item) % size)
        else:
            fail(
                argument,
                f"integers from {-size} to {size - 1}" + (" or names" if names else ""),
                repr(item),
                "Check the index",
            )
    return np.asarray(found, dtype=int)
