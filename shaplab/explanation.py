"""Explanation: the one result type of every explainer.

For a model with one output, ``base_values[n] + values[n].sum()`` is the explained output of row
``n``. The output axis exists exactly when the model has one, and is always last.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from shaplab._atomic import write_atomically
from shaplab._groups import group_labels
from shaplab._validation import (
    as_numbers,
    check_names,
    column_names,
    digits,
    fail,
    imported,
    is_frame,
    plain,
    shorten,
)

__all__ = ["Explanation", "concat"]

_ARRAYS = ("values", "base_values", "std", "rest", "data")
_LABELS = ("feature_names", "output_names", "index")
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
        if values.ndim < 2:
            fail(
                "values",
                "an array of at least 2 axes, (N, d, ...)",
                f"shape {values.shape}",
                "Give a single row as shape (1, d)",
            )
        self._take_from_frame(values)
        self._put("values", values)
        self._put("base_values", self._base_a_row(values))
        self._check_like("std", values)
        self._check_like("rest", self.base_values)
        if self.interaction and (len(self.feature_shape) != 2 or len(set(self.feature_shape)) != 1):
            fail(
                "values",
                "shape (N, d, d) or (N, d, d, K) for interactions",
                f"shape {values.shape}",
                "Give a square matrix for each row",
            )
        self._check_data()
        self._check_labels()

    # Making sure of what was passed. The class is frozen; ``_put`` is how it fills itself.

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _take_from_frame(self, values: np.ndarray) -> None:
        """Labels of rows and columns that a DataFrame brings along; then the data as an array."""
        if self.data is None:
            return
        if is_frame(self.data):
            if self.index is None:
                self._put("index", self.data.index)  # type: ignore[attr-defined]
            if self.feature_names is None and self.data.shape[1:] == values.shape[1:2]:
                self._put("feature_names", column_names(self.data))
        self._put("data", _read_only(_entries(self.data)))

    def _base_a_row(self, values: np.ndarray) -> np.ndarray:
        """Base values of every row, ``(N,)`` or ``(N, K)``."""
        base = as_numbers(self.base_values, "base_values")
        n = values.shape[0]
        last = values.shape[-1]
        if base.ndim == 0:
            base = np.full(n, float(base))
        elif base.shape == (last,) and self._by_output(values):
            base = np.broadcast_to(base, (n, last))
        if base.shape not in ((n,), (n, last)):
            fail(
                "base_values",
                f"shape ({n},) or ({n}, K)",
                f"shape {base.shape} beside values {values.shape}",
                "Give one base value for each row and output",
            )
        return _frozen(base, "base_values")

    def _check_like(self, name: str, like: np.ndarray) -> None:
        """``std`` has the shape of ``values``, ``rest`` that of ``base_values``."""
        if getattr(self, name) is None:
            return
        self._put(name, _frozen(getattr(self, name), name))
        if getattr(self, name).shape != like.shape:
            fail(
                name,
                f"shape {like.shape}, as {'values' if name == 'std' else 'base_values'} have",
                f"shape {getattr(self, name).shape}",
                "Give one number for each of them",
            )

    def _check_data(self) -> None:
        if self.data is None:
            return
        table = self.data.ndim == 2 and len(self.feature_shape) == 1
        other_rows = self.data.shape[:1] != (len(self),)
        if other_rows or (table and self.data.shape[1:] != self.feature_shape):
            fail(
                "data",
                f"{len(self)} rows and the columns of values",
                f"shape {self.data.shape}",
                "Pass X",
            )

    def _check_labels(self) -> None:
        """Names of features and outputs, labels of rows, and ``info``."""
        if len(self.feature_shape) == 1 or self.interaction:
            names = check_names(self.feature_names, self.feature_shape[0], "feature_names")
            self._put("feature_names", names)
        elif self.feature_names is not None:
            self._put("feature_names", tuple(str(name) for name in self.feature_names))
        outputs = None
        if self.has_outputs:
            outputs = check_names(self.output_names, self.values.shape[-1], "output_names")
        self._put("output_names", outputs)
        if not isinstance(self.info, Mapping):
            fail("info", "a mapping from names to anything", self.info, "Pass a dict", TypeError)
        self._put("info", dict(self.info))
        if self.index is not None:
            labels = np.empty(len(self.index), dtype=object)
            labels[:] = list(self.index)
            if labels.shape != (len(self),):
                fail("index", f"{len(self)} labels, one a row", f"{len(labels)}", "Pass X.index")
            self._put("index", _read_only(labels))

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
        explained = as_numbers(outputs, "outputs")
        shape = self.base_values.shape
        # One output may stand in a column or not; this changes no order.
        if explained.size == len(self) and (len(self), 1) in (explained.shape, shape):
            explained = explained.reshape(shape)
        if explained.shape != shape:
            fail(
                "outputs",
                f"shape {shape}",
                f"shape {explained.shape}",
                "Pass the model's outputs for the explained rows",
            )
        return explained - self.prediction

    # Selecting

    def __len__(self) -> int:
        return self.values.shape[0]

    def __iter__(self) -> Iterator[Explanation]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.asarray(self.values, dtype=dtype)
        return values.copy() if copy else values

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
        result = self
        if not _is_everything(parts[0]):
            result = result._with_rows(parts[0])
        if len(parts) > 1 and not _is_everything(parts[1]):
            result = result._with_features(parts[1])
        if len(parts) > 2:
            result = result._with_outputs(parts[2])
        return result

    def _with_rows(self, key: Any) -> Explanation:
        rows = _positions(key, len(self), None, "rows")
        selected = {
            name: getattr(self, name)[rows]
            for name in (*_ARRAYS, "index")
            if getattr(self, name) is not None
        }
        info = self._told(lambda name, part: part[rows] if len(part) == len(self) else part)
        return self._changed(**selected, info=info)

    def _with_features(self, key: Any) -> Explanation:
        if len(self.feature_shape) != 1:
            fail(
                "index",
                "features of a table",
                f"feature axes {self.feature_shape}",
                "Index .values directly for images and interactions",
            )
        chosen = _positions(key, self.feature_shape[0], self.names, "features")
        features, counts = np.unique(chosen, return_counts=True)
        if counts.max(initial=1) > 1:
            fail(
                "features",
                "each feature once",
                f"{shorten(self.names[features[counts.argmax()]])!r} {counts.max()} times",
                "Select it once; its value would count twice",
            )
        d = self.feature_shape[0]
        n = len(self)
        left_out = np.setdiff1d(np.arange(d), chosen)
        rest = self.values[:, left_out].sum(axis=1)
        if self.rest is not None:
            rest = self.rest + rest

        def told(name: str, part: np.ndarray) -> np.ndarray:
            if part.shape == (d,) and n == 1:  # of features alone, beside one row of values
                return part[chosen]
            of_outputs = part.shape == self.base_values.shape and name == "gap"
            of_features = part.shape[:2] == (n, d) and not of_outputs
            return part[:, chosen] if of_features else part

        changes: dict[str, Any] = {"values": self.values[:, chosen], "rest": rest}
        if self.std is not None:
            changes["std"] = self.std[:, chosen]
        if self.data is not None and self.data.ndim == 2:
            changes["data"] = self.data[:, chosen]
        if self.feature_names is not None:
            changes["feature_names"] = tuple(self.feature_names[i] for i in chosen)
        return self._changed(**changes, info=self._told(told))

    def grouped(self, groups: Any) -> Explanation:
        """Sums over groups of features.

        A sum is *not* the value of the group as one player: members share what they do together
        with features of other groups one by one, so a group with many members gets more of it. For
        that, pass ``groups=`` to the function that explains.

        Parameters
        ----------
        groups : dict from a group's name to features, by number or name, where features in no group
            stay alone, after the groups; or a list of lists of all features.

        Returns
        -------
        Explanation, values ``(N, n_groups[, K])``, or ``(N, n_groups, n_groups[, K])`` for
        interactions, in the same unit, with the same sums. ``std`` is the sum of the members'
        standard errors, which that of the sum cannot exceed. Without ``data``.

        Examples
        --------
        >>> e = Explanation([[1.0, 2.0, 4.0]], [0.0], feature_names=["a", "b", "c"])
        >>> e.grouped({"a and c": ["a", "c"]}).values.tolist()
        [[5.0, 2.0]]
        """
        axes = len(self.feature_shape)
        if axes != 1 + self.interaction:
            fail(
                "groups",
                "an explanation of a table's features",
                f"one with feature axes {self.feature_shape}",
                "Sum .values over regions of an image yourself",
            )
        label, titles = group_labels(groups, self.feature_shape[0], self.names)

        def summed(table: np.ndarray) -> np.ndarray:
            for axis in range(1, 1 + axes):
                members = np.moveaxis(table, axis, 0)
                sums = np.zeros((len(titles), *members.shape[1:]))
                np.add.at(sums, label, members)
                table = np.moveaxis(sums, 0, axis)
            return table

        d = self.feature_shape[0]
        kept = {
            name: part
            for name, part in self.info.items()
            if not (isinstance(part, np.ndarray) and d in part.shape[:2] and name != "gap")
        }
        return self._changed(
            values=summed(self.values),
            std=None if self.std is None else summed(self.std),
            data=None,
            feature_names=titles,
            info=kept,
        )

    def _with_outputs(self, key: Any) -> Explanation:
        names = self._output_labels()
        chosen: Any = _positions(key, len(names), names, "outputs")
        single = isinstance(key, str | int | np.integer)
        if single:
            chosen = int(chosen[0])
        n = len(self)
        count = len(names)

        def told(name: str, part: np.ndarray) -> np.ndarray:
            of_outputs = part.ndim > 1 and part.shape[0] == n and part.shape[-1] == count
            of_features = part.shape == (n, *self.feature_shape) and name != "gap"
            return part[..., chosen] if of_outputs and not of_features else part

        changes: dict[str, Any] = {
            name: getattr(self, name)[..., chosen]
            for name in ("values", "base_values", "std", "rest")
            if getattr(self, name) is not None
        }
        if single:
            changes["output_names"] = None
        elif self.output_names is not None:
            changes["output_names"] = tuple(self.output_names[k] for k in chosen)
        return self._changed(**changes, info=self._told(told))

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

    def _output_labels(self) -> tuple[str, ...]:
        """Names of the outputs, or their numbers where none were given."""
        return self.output_names or tuple(str(k) for k in range(self.values.shape[-1]))

    # Leaving the house

    def to_shap(self) -> Any:
        """The same numbers as a ``shap.Explanation``, for shap's own plots (needs the package
        shap). Features that were sliced away are a last one, "features left out"."""
        shap = imported("shap", "to_shap")
        whole = self if self.rest is None else self._with_rest()
        named = len(whole.feature_shape) == 1 or whole.interaction
        return shap.Explanation(
            values=np.array(whole.values),
            base_values=np.array(whole.base_values),
            data=_copy_or_none(whole.data),
            feature_names=list(whole.names) if named else None,
            output_names=None if whole.output_names is None else list(whole.output_names),
            error_std=_copy_or_none(whole.std),
        )

    def _with_rest(self) -> Explanation:
        """The same with the features that were sliced away as a last one, so that sums stay
        true."""
        rest = np.asarray(self.rest)[:, None]
        changes: dict[str, Any] = {
            "values": np.concatenate([self.values, rest], axis=1),
            "feature_names": (*self.names, LEFT_OUT),
            "rest": None,
        }
        if self.data is not None and self.data.ndim == 2:
            kind = object if self.data.dtype == object else float
            unknown = np.full((len(self), 1), np.nan, dtype=kind)
            changes["data"] = np.concatenate([self.data, unknown], axis=1)
        if self.std is not None:
            # What the errors of the others are in sum is not known any more.
            unknown = np.full_like(rest, np.nan)
            changes["std"] = np.concatenate([self.std, unknown], axis=1)
        return self._changed(**changes)

    def to_frame(self) -> Any:
        """A tidy pandas DataFrame, one value a line.

        Columns: ``row`` (its label in the DataFrame that was explained, else its number),
        ``feature`` (and ``with`` for interactions), ``output`` when there are
        several, ``value``, ``std`` when estimated, ``data`` for tables.
        """
        pd = imported("pandas", "to_frame")
        n_outputs = self.values.shape[-1] if self.has_outputs else 1
        if self.interaction:
            columns = {"feature": self.names, "with": self.names}
        else:
            columns = {"feature": self._entry_names()}
        sizes = [len(self), *(len(names) for names in columns.values()), n_outputs]
        at_row, *at_features, at_output = [axis.ravel() for axis in np.indices(sizes)]

        rows = at_row if self.index is None else self.index[at_row]
        frame = pd.DataFrame({"row": pd.Series(rows).infer_objects()})
        for (column, names), place in zip(columns.items(), at_features, strict=True):
            frame[column] = np.asarray(names, dtype=object)[place]
        if self.has_outputs:
            frame["output"] = np.asarray(self._output_labels(), dtype=object)[at_output]
        frame["value"] = self.values.reshape(-1)
        if self.std is not None:
            frame["std"] = self.std.reshape(-1)
        if self._data_fit_values():
            frame["data"] = np.repeat(np.asarray(self.data).reshape(-1), n_outputs)
        return frame

    def _entry_names(self) -> tuple[str, ...]:
        """One name for each entry of a row, numbered where names are missing or of one axis."""
        count = int(np.prod(self.feature_shape))
        return self.names if len(self.names) == count else tuple(f"x{i}" for i in range(count))

    def _data_fit_values(self) -> bool:
        """Whether ``data`` holds the entry that each value explains."""
        shape = (len(self), *self.feature_shape)
        return self.data is not None and not self.interaction and self.data.shape == shape

    def save(self, path: Any) -> None:
        """Write everything into one file, from which :meth:`load` makes the same explanation.

        Parameters
        ----------
        path : where to write, usually ``name.npz``. The file appears whole or not at all; nothing
            in it is pickled. Labels, entries of ``data`` and of ``info`` are numbers, text or None.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        info: dict[str, Any] = {}
        header = {"version": 1, "method": self.method, "interaction": self.interaction}
        for name in _LABELS:
            labels = getattr(self, name)
            if labels is not None:
                labels = [_plain_label(label, name) for label in labels]
            header[name] = labels
        if self.data is not None and self.data.dtype == object:
            # Text cannot go into an array that is read without pickle: its shape does.
            arrays["data"] = np.array(self.data.shape)
            header["data"] = [_plain_label(entry, "data") for entry in self.data.ravel()]
        for name, part in self.info.items():
            if isinstance(part, np.ndarray) and part.dtype != object:
                arrays[f"info {name}"] = part
            else:
                info[str(name)] = _plain_label(part, f"info[{name!r}]")
        arrays["header"] = np.frombuffer(
            json.dumps({**header, "info": info}).encode(), dtype=np.uint8
        )
        write_atomically(Path(path), lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: Any) -> Explanation:
        """Read what :meth:`save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "header"}
                header = json.loads(bytes(file["header"]))
            parts: dict[str, Any] = {name: arrays[name] for name in _ARRAYS if name in arrays}
            parts |= {name: header[name] for name in _LABELS}
            if "data" in header:
                entries = np.empty(len(header["data"]), dtype=object)
                entries[:] = header["data"]
                parts["data"] = entries.reshape(tuple(arrays["data"]))
            if parts["base_values"].ndim == 1:
                parts["base_values"] = parts["base_values"].view(_OneARow)
            info = dict(header["info"])
            for name, part in arrays.items():
                if name.startswith("info "):
                    info[name.removeprefix("info ")] = part
            method = header["method"]
            interaction = header["interaction"]
            return cls(**parts, method=method, interaction=interaction, info=info)
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

    @property
    def _is_one_row(self) -> bool:
        """Whether the one row's values are printed with their signs, and not means of sizes."""
        return len(self) == 1 and not self.interaction

    def _facts(self) -> str:
        kind = "interactions" if self.interaction else "attributions"
        rows = "1 row" if len(self) == 1 else f"{len(self)} rows"
        facts = [
            f"{self.method or 'Explanation'}: {kind} of {rows}",
            "features " + " x ".join(str(size) for size in self.feature_shape),
        ]
        if self.has_outputs:
            count = self.values.shape[-1]
            cut = f" (the first {_COLUMNS} shown)" if self._is_one_row and count > _COLUMNS else ""
            facts.append(f"{count} outputs{cut}")
        if self.std is None or not self.std.any():
            facts.append("no sampling error")
        else:
            facts.append(f"largest standard error {digits(np.nanmax(self.std, initial=0), 2)}")
        return shorten(", ".join(facts), 200)

    def _lines(self, top: int = 8) -> tuple[list[str], list[tuple[str, list[str]]]]:
        """Titles of the columns, and lines of a name and numbers as text: of one row with signs,
        else means of sizes. The largest ``top`` are shown, and the others in sum."""
        sizes = np.abs(self.values).sum(axis=0) / max(1, len(self))
        if self.interaction:
            sizes = sizes.sum(axis=1)
            names: Sequence[str] = self.names
        else:
            names = self._entry_names()
        # Entries by outputs; a model without an output axis has one.
        count = self.values.shape[-1] if self.has_outputs else 1
        sizes = sizes.reshape(-1, count)
        order = np.argsort(-sizes.mean(axis=1), kind="stable")
        if len(order) <= top + 1:
            top = len(order)  # a single one is shown and not "1 more"
        shown = order[:top]
        others = order[top:]
        if not self._is_one_row:
            lines = [(names[j], [digits(sizes[j].mean())]) for j in shown]
            if len(others):
                lines.append((f"{len(others)} more features", []))
            return ["mean |value|"], lines

        values = self.values[0].reshape(-1, count)
        scale = float(max(np.abs(self.base_values).max(), np.abs(values).max(initial=0.0)))
        lines = [("base value", _numbers(self.base_values[0], "", scale))]
        lines += [(self._cell(names[j], j), _numbers(values[j], "+", scale)) for j in shown]
        if len(others):
            together = _numbers(values[others].sum(axis=0), "+", scale)
            lines.append((f"{len(others)} more features", together))
        if self.rest is not None:
            lines.append((LEFT_OUT, _numbers(self.rest[0], "+", scale)))
        lines.append(("prediction", _numbers(self.prediction[0], "", scale)))
        titles = self._output_labels()[:_COLUMNS] if self.has_outputs else ["value"]
        return list(titles), lines

    def _cell(self, name: str, entry: int) -> str:
        """``name = value`` of an entry of the only row."""
        if not self._data_fit_values():
            return name
        value = np.asarray(self.data).reshape(-1)[entry]
        if isinstance(value, int | float | np.integer | np.floating):
            return f"{shorten(name, 30)} = {digits(value)}"
        return f"{shorten(name, 30)} = {shorten(value, 20)}"

    def __repr__(self) -> str:
        titles, lines = self._lines()
        text = [f"<{self._facts()}>"]
        if self._is_one_row and self.has_outputs:
            text.append(f"  {'':<34}" + "".join(f"{shorten(title, 12):>14}" for title in titles))
        for name, cells in lines:
            if len(cells) == 1:
                numbers = "  " + ("" if self._is_one_row else "mean |value| ") + cells[0]
            else:
                numbers = "".join(f"{cell:>14}" for cell in cells)
            text.append(f"  {shorten(name, 34):<34}{numbers}")
        return "\n".join(text)

    def _repr_html_(self) -> str:
        titles, lines = self._lines()

        def cells(texts: Sequence[str], kind: str) -> str:
            return "".join(f"<{kind}>{html.escape(shorten(text, 60))}</{kind}>" for text in texts)

        head = cells(["feature", *titles], "th")
        body = "".join(f"<tr>{cells([name, *numbers], 'td')}</tr>" for name, numbers in lines)
        return (
            f"<table><caption>{html.escape(self._facts())}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _plain_label(value: Any, argument: str) -> Any:
    """A value that a file can hold as text: a number, text, None, or a list of these."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain_label(part, argument) for part in value]
    fail(argument, "numbers, text or None, to be written", value, "Leave it out or turn it to text")


def concat(explanations: Iterable[Explanation]) -> Explanation:
    """The rows of several explanations, one after the other.

    Parameters
    ----------
    explanations : Explanations of the same features and outputs, such as those of batches or of
        files.

    Returns
    -------
    Explanation. ``data``, ``std`` and ``index`` stay where all of them have some; ``info``
    keeps arrays of one entry a row, and what is the same in all.

    Examples
    --------
    >>> e = Explanation([[1.0, 2.0], [3.0, 4.0]], 0.5)
    >>> concat([e[1], e[0]]).values.tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    parts = list(explanations)
    rule = "Explanations of the same features and outputs"
    if not parts or not all(isinstance(part, Explanation) for part in parts):
        kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
        fail("explanations", rule, kinds or "none", "Pass a list of them", TypeError)
    first = parts[0]
    for part in parts:
        for name in ("shape", "feature_names", "output_names", "interaction", "has_outputs"):
            ours, theirs = (getattr(one, name) for one in (first, part))
            if name == "shape":
                ours, theirs = ours[1:], theirs[1:]
            if ours != theirs:
                fail("explanations", rule, f"{name} {theirs} beside {ours}", "Select the same")
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in (*_ARRAYS, "index")
        if name != "rest" and all(getattr(part, name) is not None for part in parts)
    }
    if any(part.rest is not None for part in parts):
        rests = [0.0 * e.base_values if e.rest is None else e.rest for e in parts]
        arrays["rest"] = np.concatenate(rests)
    arrays["base_values"] = arrays["base_values"].view(
        np.ndarray if first.has_outputs else _OneARow
    )
    return Explanation(
        **arrays,
        feature_names=first.feature_names,
        output_names=first.output_names,
        method=", ".join(dict.fromkeys(part.method for part in parts)),
        interaction=first.interaction,
        info=_joined_info(parts),
    )


def _joined_info(parts: Sequence[Explanation]) -> dict[str, Any]:
    """What several runs tell together: arrays of one entry a row, and what is the same in all."""
    kept: dict[str, Any] = {}
    for name, own in parts[0].info.items():
        told = [part.info.get(name) for part in parts]
        arrays = [one for one in told if isinstance(one, np.ndarray) and one.ndim]
        if len(arrays) == len(parts):
            by_row = all(len(one) == len(part) for one, part in zip(arrays, parts, strict=True))
            if by_row and len({one.shape[1:] for one in arrays}) == 1:
                kept[name] = np.concatenate(arrays)
        elif not arrays and all(one == own for one in told):
            kept[name] = own
    return kept


class _OneARow(np.ndarray):
    """Base values that are known to be one a row, however many outputs there might be."""


def _numbers(values: Any, sign: str, scale: float) -> list[str]:
    """Numbers of one row as text, at most as many as are shown side by side; rounding is 0."""
    return [digits(value, 4, sign, scale) for value in np.atleast_1d(values)[:_COLUMNS]]


def _entries(data: Any) -> np.ndarray:
    """Explained rows as an array; missing entries of any kind are NaN, numbers stay numbers."""
    if not is_frame(data):
        return np.asarray(plain(data))
    entries = data.to_numpy()
    if entries.dtype == object:
        if all(getattr(kind, "kind", "O") in "biuf" for kind in data.dtypes):
            return np.asarray(data.to_numpy(dtype=np.float64, na_value=np.nan))
        entries = entries.copy()
        entries[data.isna().to_numpy()] = np.nan
    return np.asarray(entries)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _frozen(array: Any, argument: str) -> np.ndarray:
    return _read_only(as_numbers(array, argument))


def _copy_or_none(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.array(array)


def _is_everything(key: Any) -> bool:
    return isinstance(key, slice) and key == slice(None)


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
    places = [_position(item, size, names, argument) for item in items]
    return np.asarray(places, dtype=int)


def _position(item: Any, size: int, names: Sequence[str] | None, argument: str) -> int:
    """Resolve one integer or name."""
    if isinstance(item, str) and names is not None:
        if item not in names:
            fail(
                argument,
                f"names among {shorten(', '.join(names))}",
                repr(shorten(item)),
                "Check the spelling",
            )
        bearers = list(names).count(item)
        if bearers > 1:
            fail(
                argument,
                "a name that stands for one of them",
                f"{shorten(item)!r}, which {bearers} have",
                "Give the position",
            )
        return list(names).index(item)
    if not isinstance(item, int | np.integer) or not -size <= item < size:
        fail(
            argument,
            f"integers from {-size} to {size - 1}" + (" or names" if names else ""),
            repr(item),
            "Check the index",
        )
    return int(item) % size
