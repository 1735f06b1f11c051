"""Explanation: the one result type of every explainer.

For a model with one output, ``base_values[n] + values[n].sum()`` is the explained output of row
``n``. The output axis exists exactly when the model has one, and is always last.

Needs: shaplab._validation.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shaplab._validation import as_numbers, check_names, fail, plain, shorten

__all__ = ["Explanation"]


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
    info : what the run cost and how it converged (for example ``evaluations``, ``gap``).

    Notes
    -----
    Arrays are stored as read-only float64 views or copies; nothing that the user passed is changed.
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
        if base.ndim == 0:
            base = np.full(n, float(base))
        elif base.ndim == 1 and base.shape[0] != n and base.shape[0] == values.shape[-1]:
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
            put(self, "data", _read_only(np.asarray(plain(self.data))))
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
        if found.shape != self.base_values.shape and found.size == self.base_values.size:
            found = found.reshape(self.base_values.shape)
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
        return replace(
            self,
            values=self.values[rows],
            base_values=self.base_values[rows],
            data=None if self.data is None else self.data[rows],
            std=None if self.std is None else self.std[rows],
            rest=None if self.rest is None else self.rest[rows],
        )

    def _features(self, key: Any) -> Explanation:
        if len(self.feature_shape) != 1:
            fail(
                "index",
                "features of a table",
                f"feature axes {self.feature_shape}",
                "Index .values directly for images and interactions",
            )
        chosen = _positions(key, self.feature_shape[0], self.names, "features")
        left = np.setdiff1d(np.arange(self.feature_shape[0]), chosen)
        dropped = self.values[:, left].sum(axis=1)
        return replace(
            self,
            values=self.values[:, chosen],
            std=None if self.std is None else self.std[:, chosen],
            data=self.data[:, chosen]
            if self.data is not None and self.data.ndim == 2
            else self.data,
            feature_names=None
            if self.feature_names is None
            else tuple(self.feature_names[i] for i in chosen),
            rest=dropped if self.rest is None else self.rest + dropped,
        )

    def _outputs(self, key: Any) -> Explanation:
        names = self.output_names or tuple(str(k) for k in range(self.values.shape[-1]))
        chosen: Any = _positions(key, len(names), names, "outputs")
        single = isinstance(key, str | int | np.integer)
        if single:
            chosen = int(chosen[0])
        return replace(
            self,
            values=self.values[..., chosen],
            base_values=self.base_values[:, chosen],
            std=None if self.std is None else self.std[..., chosen],
            rest=None if self.rest is None else self.rest[:, chosen],
            output_names=None
            if single or self.output_names is None
            else tuple(self.output_names[k] for k in chosen),
        )

    # Leaving the house

    def to_shap(self) -> Any:
        """The same numbers as a ``shap.Explanation``, for shap's own plots (needs the package
        shap)."""
        import shap

        return shap.Explanation(
            values=np.array(self.values),
            base_values=np.array(self.base_values),
            data=None if self.data is None else np.array(self.data),
            feature_names=list(self.names)
            if len(self.feature_shape) == 1 or self.interaction
            else None,
            output_names=None if self.output_names is None else list(self.output_names),
            error_std=None if self.std is None else np.array(self.std),
        )

    def to_frame(self) -> Any:
        """A tidy pandas DataFrame, one value a line.

        Columns: ``row``, ``feature`` (and ``with`` for interactions), ``output`` when there are
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
        frame = pd.DataFrame({"row": grid[0]})
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

    # Reading

    def _ranking(self, top: int = 8) -> list[tuple[str, float]]:
        magnitude = np.abs(self.values).sum(axis=0) / max(1, len(self))
        if self.has_outputs:
            magnitude = magnitude.mean(axis=-1)
        if self.interaction:
            magnitude = magnitude.sum(axis=1)
        flat = magnitude.reshape(-1)
        names = self.names if len(self.names) == flat.size else [f"x{i}" for i in range(flat.size)]
        return [(names[i], float(flat[i])) for i in np.argsort(-flat, kind="stable")[:top]]

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
            if self.std is None
            else f"largest standard error {self.std.max(initial=0):.2g}"
        )
        return ", ".join(parts)

    def __repr__(self) -> str:
        lines = [f"<{shorten(self._facts(), 200)}>"]
        lines += [
            f"  {shorten(name, 30):<30}  mean |value| {size:.4g}" for name, size in self._ranking()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(shorten(name, 60))}</td><td>{size:.4g}</td></tr>"
            for name, size in self._ranking()
        )
        return (
            f"<table><caption>{html.escape(shorten(self._facts(), 200))}</caption>"
            f"<thead><tr><th>feature</th><th>mean "
            f"|value|</th></tr></thead><tbody>{rows}</tbody></table>"
        )


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
