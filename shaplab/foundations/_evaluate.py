"""Asking the model: outputs at rows that mix an explained row with a reference row.

A *player* is a column, or a group of columns that enter and leave together. A coalition of players
is present: their columns come from the explained row, all others from the reference.

Cost: one model row for each coalition, explained row and reference asked for.

Chapter: foundations/permutation
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shaplab._groups import group_labels
from shaplab._parallel import chunks
from shaplab._rows import Rows, unequal
from shaplab._tables import as_rows
from shaplab._validation import (
    check_int,
    check_names,
    check_result,
    check_size,
    check_weights,
    class_names,
    fail,
    is_frame,
)
from shaplab.explanation import Explanation
from shaplab.foundations.exact import shapley_coefficients
from shaplab.foundations.games import all_coalitions

__all__: list[str] = []

# Numbers in one table of hybrid rows: what bounds memory where rows are wide.
FLOATS = 2**24
# Coalitions whose values are summed in one product when all are enumerated.
COALITIONS = 2**12


def weigh_background(background: Any, weights: Any) -> tuple[Any, np.ndarray | None]:
    """The background rows that count, and their shares of every mean; None: all alike."""
    if weights is None:
        return background, None
    table = as_rows(background, "background")
    shares = check_weights(weights, table.shape[0], "the background")
    counted = np.flatnonzero(shares)
    if counted.size < len(shares):
        table = table.iloc[counted] if is_frame(table) else table[counted]
        shares = shares[counted]
    return table, None if np.ptp(shares) == 0 else shares


class PlayerRows:
    """Explained rows and references whose columns belong to players.

    ``label`` ``(d,)`` is each column's player, ``names`` the players' names or None.
    """

    def __init__(self, rows: Rows, groups: Any, batch_size: Any, feature_names: Any = None) -> None:
        self.rows = rows
        self.batch_size = check_int(batch_size, "batch_size")
        self.grouped = groups is not None
        n_columns = rows.d
        # A DataFrame's columns have names of their own.
        self.names = check_names(feature_names, n_columns, "feature_names") or rows.names
        self.label = np.arange(n_columns)
        if self.grouped:
            self.label, self.names = group_labels(groups, n_columns, self.names)
        self.n_players = int(self.label.max()) + 1

    def able(self) -> np.ndarray:
        """Which players can matter for each row, ``(N, n_players)``: some column of theirs differs
        from some reference."""
        return self._owners(self.rows.moving())

    def _owners(self, columns: np.ndarray) -> np.ndarray:
        """Players ``(N, n_players)`` that own some of the columns ``(N, d)``, both as masks."""
        if not self.grouped:
            return columns
        owners = np.zeros((len(columns), self.n_players), dtype=bool)
        for column in np.flatnonzero(columns.any(axis=0)):
            owners[:, self.label[column]] |= columns[:, column]
        return owners


class Evaluator(PlayerRows):
    """The model, the explained rows and the references, with outputs known in advance and checked.

    Players whose columns are equal in every explained row and every reference cannot change
    anything: they are no *active* players, cost nothing, and get the value 0 in the end.

    Attributes
    ----------
    active ``(p,)`` : the active players; a coalition is a mask ``(p,)`` of them.
    matters ``(N, p)`` : which of them can matter for a row.
    row_outputs ``(N, K)``, reference_outputs ``(B, K)`` : outputs of complete rows; K is 1 for a
        model without outputs axis.
    weights ``(B,)`` : shares of the references in every mean; None: all alike. References without
        weight are left out from the start.
    nobody ``(K,)`` : what the empty coalition is worth, the mean of the references' outputs.
    enumeration_cost ``(N,)`` : model rows that all coalitions of a row take.
    evaluations : model rows asked for until the object was made.
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        background: Any,
        groups: Any,
        batch_size: Any,
        feature_names: Any = None,
        weights: Any = None,
    ) -> None:
        background, self.weights = weigh_background(background, weights)
        super().__init__(Rows(model, X, background), groups, batch_size, feature_names)
        self.n_rows = self.rows.n
        self.n_references = self.rows.size
        # Model rows in one call: wide rows bound memory, too.
        self.rows_at_once = min(self.batch_size, max(1, FLOATS // self.rows.d))
        self._find_active_players()
        self._evaluate_complete_rows()
        check_size(
            (self.n_rows, self.n_players, self.n_outputs),
            "X",
            "Explain fewer rows at a time, or features in groups",
        )
        self.evaluations = self.n_rows + self.n_references + self._check_determinism()

    def _find_active_players(self) -> None:
        """Set ``active``, ``matters``, and the columns that tell where rows and references
        differ."""
        moving = self.rows.moving()
        columns = np.flatnonzero(moving.any(axis=0))
        able = self._owners(moving)
        self.active = np.flatnonzero(able.any(axis=0))
        if self.active.size == 0:
            # Nothing differs anywhere: one player that is worth nothing.
            self.active = self.label[:1]
            columns = np.array([0])
        self.n_active = len(self.active)
        self.matters = able[:, self.active]
        # Columns of one player side by side, so that differences are reduced in runs.
        columns = columns[self.label[columns].argsort(kind="stable")]
        self._runs = np.unique(self.label[columns], return_index=True)[1]
        self._own, self._other = self.rows.seen
        if not np.array_equal(columns, np.arange(self.rows.d)):
            self._own = self._own[:, columns]
            self._other = self._other[:, columns]
        # The active player of each column; a column that never differs may go with anybody.
        place = np.zeros(self.n_players, dtype=int)
        place[self.active] = np.arange(self.n_active)
        self.player_of_column = place[self.label]
        count = self.matters.sum(axis=1)
        # Beyond 2**1000 it makes no difference.
        all_subsets = np.exp2(np.minimum(count, 1000.0))
        self.enumeration_cost = np.where(count > 0, all_subsets * self.n_references, 0.0)

    def _evaluate_complete_rows(self) -> None:
        """Set the outputs of the explained rows and of the references."""
        rows = np.arange(self.n_rows)
        references = np.arange(self.n_references)
        everybody = np.ones((self.n_rows, self.n_active), dtype=bool)
        nobody = np.zeros((self.n_references, self.n_active), dtype=bool)
        of_rows = self._call(everybody, rows, 0 * rows)
        of_references = self._call(nobody, 0 * references, references)
        self.has_outputs = of_rows.ndim == 2
        self.row_outputs = of_rows.reshape(self.n_rows, -1)
        self.reference_outputs = of_references.reshape(self.n_references, -1)
        self.n_outputs = self.row_outputs.shape[1]
        self.nobody = np.average(self.reference_outputs, axis=0, weights=self.weights)
        self.scale = float(
            max(np.abs(self.row_outputs).max(), np.abs(self.reference_outputs).max())
        )

    def _check_determinism(self) -> int:
        """Ask for some rows once more: the model must answer the same. Returns the model rows."""
        probe = np.arange(min(8, self.n_rows))[::-1]
        # A reference row goes along, so that outputs which depend on the rest of the batch differ
        # too.
        present = np.ones((len(probe) + 1, self.n_active), dtype=bool)
        present[-1] = False
        references = np.zeros(len(present), dtype=int)
        again = self.outputs(present, np.append(probe, 0), references)[:-1]
        change = np.abs(again - self.row_outputs[probe])
        # Single-precision networks move by about 1e-6 of their scale between batch sizes; NaN
        # passes no comparison.
        if not change.max() <= 1e-5 * max(self.scale, 1e-300):
            worst = change.max(axis=1).argmax()
            row = int(probe[worst])
            both = f"{self.row_outputs[row].tolist()} and then {again[worst].tolist()}"
            fail(
                "model",
                "the same output each time the same row is given",
                f"{both} for row {row} of X (non-deterministic)",
                "Switch off dropout, sampling and batch statistics (model.eval()), or fix the "
                "model's own seed",
            )
        return len(present)

    def _call(self, present: np.ndarray, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Outputs of hybrid rows, some at a time, as the model shapes them."""
        parts = [
            self.rows.outputs(present[part][:, self.player_of_column], rows[part], references[part])
            for part in chunks(len(present), self.rows_at_once)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def outputs(self, present: np.ndarray, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Outputs ``(r, K)`` of hybrid rows: coalitions ``(r, p)``, row and reference numbers
        ``(r,)``."""
        if len(present) == 0:
            return np.empty((0, self.n_outputs))
        outputs = self._call(present, rows, references)
        return outputs.reshape(len(outputs), -1)

    def means(self, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Mean outputs ``(r, K)`` over the background of coalitions ``(r, p)`` of rows ``(r,)``."""
        references = np.arange(self.n_references)
        parts = []
        for part in chunks(len(rows), self.batch_size // self.n_references):
            count = len(rows[part])
            outputs = self.outputs(
                present[part].repeat(self.n_references, axis=0),
                rows[part].repeat(self.n_references),
                np.tile(references, count),
            )
            by_reference = outputs.reshape(count, self.n_references, -1)
            parts.append(np.average(by_reference, axis=1, weights=self.weights))
        return np.concatenate(parts)

    def exact_values(
        self,
        rows: np.ndarray,
        worth: Callable[[np.ndarray, np.ndarray], np.ndarray],
        width: int,
    ) -> np.ndarray:
        """Exact values ``(n, p, width)`` of rows, over all coalitions of the players that can
        matter.

        ``worth`` gives ``(m, width)`` for coalitions ``(m, p)`` of rows ``(m,)``.
        Cost: ``enumeration_cost``.
        """
        values = np.zeros((len(rows), self.n_active, width))
        counts = self.matters[rows].sum(axis=1)
        # Sums go in the same pieces for any batch size.
        piece = min(COALITIONS, max(1, FLOATS // self.n_active))
        for count in np.unique(counts[counts > 0]):
            places = np.flatnonzero(counts == count)
            # Numbers of each row's own players.
            members = np.nonzero(self.matters[rows[places]])[1].reshape(len(places), count)
            for start in range(0, 2**count, piece):
                coalitions = all_coalitions(int(count), start, min(start + piece, 2**count))
                weights = shapley_coefficients(coalitions)
                for part in chunks(len(places), piece // len(coalitions)):
                    whose = rows[places[part]].repeat(len(coalitions))
                    payoffs = worth(self._among_active(coalitions, members[part]), whose)
                    payoffs = payoffs.reshape(-1, len(coalitions), width)
                    for place, own, payoff in zip(
                        places[part], members[part], payoffs, strict=True
                    ):
                        values[place, own] += weights @ payoff
        return values

    def _among_active(self, coalitions: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Coalitions ``(m, a)`` of each row's own members ``(n, a)``, as masks ``(n m, p)``."""
        present = np.zeros((len(members), len(coalitions), self.n_active), dtype=bool)
        row = np.arange(len(members))[:, None, None]
        coalition = np.arange(len(coalitions))[:, None]
        present[row, coalition, members[:, None]] = coalitions
        return present.reshape(-1, self.n_active)

    def differs(self, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Where active players of rows and references differ: ``(..., p)`` for indices
        ``(...)``."""
        columns = unequal(self._own[rows], self._other[references])
        if columns.shape[-1] == self.n_active:
            return columns
        return np.logical_or.reduceat(columns, self._runs, axis=-1)

    def count_differences(self, rows: np.ndarray) -> np.ndarray:
        """How many active players differ between rows ``(n,)`` and each reference: ``(n, B)``."""
        shape = (len(rows), self.n_references)
        row, reference = np.unravel_index(np.arange(len(rows) * self.n_references), shape)
        parts = [
            self.differs(rows[row[part]], reference[part]).sum(axis=1)
            for part in chunks(len(row), FLOATS // (4 * self._own.shape[1]))
        ]
        return np.concatenate(parts).reshape(shape)

    def expand(self, values: np.ndarray, axis: int = 1) -> np.ndarray:
        """Values of all players from those of the active ones: the others are worth nothing."""
        if self.n_active == self.n_players:
            return values
        shape = (*values.shape[:axis], self.n_players, *values.shape[axis + 1 :])
        full = np.zeros(shape, values.dtype)
        np.moveaxis(full, axis, 0)[self.active] = np.moveaxis(values, axis, 0)
        return full

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The players' names as an explanation keeps them."""
        return None if self.names is None else tuple(self.names)

    @property
    def data(self) -> Any:
        """The explained rows, or None where players are not features."""
        return None if self.grouped else self.rows.X

    def check_values(self, values: np.ndarray, argument: str = "model") -> None:
        """Require finite values of active players; ``argument`` is to blame."""
        names = self.names or [f"x{player}" for player in range(self.n_players)]
        check_result(values, [str(names[player]) for player in self.active], argument)

    def explanation(
        self,
        values: np.ndarray,
        std: np.ndarray | None,
        method: str,
        info: dict[str, Any],
        rows: np.ndarray | None = None,
    ) -> Explanation:
        """The result for these rows, all by default; without an output axis when the model has
        none."""
        self.check_values(values)
        keep = slice(None) if self.has_outputs else 0
        base = np.broadcast_to(self.nobody, (len(values), self.n_outputs))
        data = self.data
        if data is not None and rows is not None:
            data = data.iloc[rows] if is_frame(data) else data[rows]
        return Explanation(
            values=self.expand(values)[..., keep],
            std=None if std is None else self.expand(std)[..., keep],
            base_values=base[..., keep],
            data=data,
            feature_names=self.feature_names,
            output_names=class_names(self.rows.model, self.n_outputs) if self.has_outputs else None,
            method=method,
            info=info,
        )
