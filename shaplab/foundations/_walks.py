r"""The engine under every sampled explanation: visits, rounds, errors, stopping, state.

A *sampler* gives, for an explained row and a visit number, one unbiased estimate of that row's
values. Its random numbers come from the run's entropy, the row and the visit only, so estimates are
the same for any worker, order or batch. The engine averages visits (Welford), forms standard errors
from their spread, stops by precision or budget, forecasts what is left, and can be stopped and
resumed at any visit.

The forecast: errors fall as :math:`1/\sqrt R`, so :math:`R` rounds at error :math:`e` times the
wanted one become :math:`R e^2`. Cost: the sampler's, plus :math:`O(N d K)` memory for the running
moments.

Chapter: foundations/permutation
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np

from shaplab._parallel import Crew, chunks, progress_bar
from shaplab._rows import Rows, unequal
from shaplab._validation import (
    check_int,
    check_names,
    check_real,
    check_result,
    check_size,
    class_names,
    fail,
    is_frame,
    resolve_rng,
)
from shaplab.explanation import Explanation
from shaplab.foundations.exact import shapley_coefficients
from shaplab.foundations.games import all_coalitions, group_labels

__all__: list[str] = []

MIN_ROUNDS = 4
MAX_ROUNDS = 10_000
# Model rows that one task aims at: large enough to hide a worker's latency, and never dependent on
# n_jobs.
TASK_ROWS = 16_384
BLOCK = 512
# Numbers in one table of hybrid rows: what bounds memory where rows are wide.
FLOATS = 2**24


class Tables:
    """The model, the explained rows and the references, with outputs known in advance and checked.

    Players whose columns are equal in every explained row and every reference cannot change
    anything: they have no place here, cost nothing, and get the value 0 in the end. ``players`` are
    the others, ``able`` ``(N, p)`` tells which of them can matter for a row.
    ``fx`` ``(N, K)`` and ``fb`` ``(B, K)`` are outputs of complete rows; K is 1 for a model without
    outputs axis.
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        background: Any,
        groups: Any,
        batch_size: Any,
        feature_names: Any = None,
    ) -> None:
        self.batch_size = check_int(batch_size, "batch_size")
        self.rows = Rows(model, X, background)
        self.n, self.size = self.rows.n, self.rows.size
        self.names = check_names(feature_names, self.rows.d, "feature_names") or self.rows.names
        self.label = np.arange(self.rows.d)
        self.plain = groups is None
        if groups is not None:
            self.label, self.names = group_labels(groups, self.rows.d, self.names)
        self._find_players()
        own, other = np.arange(self.n), np.arange(self.size)
        fx = self.outputs(np.ones((self.n, self.p), dtype=bool), own, 0 * own, flat=False)
        fb = self.outputs(np.zeros((self.size, self.p), dtype=bool), 0 * other, other, flat=False)
        self.has_outputs = fx.ndim == 2
        self.fx, self.fb = fx.reshape(self.n, -1), fb.reshape(self.size, -1)
        self.K = self.fx.shape[1]
        check_size(
            (self.n, self.label.max() + 1, self.K),
            "X",
            "Explain fewer rows at a time, or features in groups",
        )
        self.scale = float(max(np.abs(self.fx).max(), np.abs(self.fb).max()))
        self.evaluations = self.n + self.size + self._check_again()

    def _find_players(self) -> None:
        """Set ``players``, ``able``, and the columns that tell where rows and references
        differ."""
        moving = self.rows.moving()
        columns = np.flatnonzero(moving.any(axis=0))
        if columns.size == 0:
            columns = np.array([0])  # nothing differs: one player that is worth nothing
        # Columns of one player side by side, so that differences are reduced in runs.
        columns = columns[self.label[columns].argsort(kind="stable")]
        self.players, self._runs = np.unique(self.label[columns], return_index=True)
        self.p = len(self.players)
        self._own, self._other = self.rows.seen
        if not np.array_equal(columns, np.arange(self.rows.d)):
            self._own, self._other = self._own[:, columns], self._other[:, columns]
        self.able = self._by_player(moving[:, columns])
        place = np.zeros(self.label.max() + 1, dtype=int)
        place[self.players] = np.arange(self.p)
        # The player of each column; a column that never differs may go with anybody.
        self.player = place[self.label]
        # Model rows in one call: wide rows bound memory, too.
        self.step = min(self.batch_size, max(1, FLOATS // self.rows.d))
        count = self.able.sum(axis=1)
        # Model rows that enumeration takes; beyond 2**1000 it makes no difference.
        self.listing = np.where(count > 0, np.exp2(np.minimum(count, 1000.0)) * self.size, 0.0)

    def _by_player(self, found: np.ndarray) -> np.ndarray:
        """Whether any column of each player is True: ``(..., p)`` from ``(..., columns)``."""
        if found.shape[-1] == self.p:
            return found
        return np.logical_or.reduceat(found, self._runs, axis=-1)

    def _check_again(self) -> int:
        """Ask for some rows once more: the model must answer the same. Returns the model rows."""
        probe = np.arange(min(8, self.n))[::-1]
        # A reference row goes along, so that outputs which depend on the rest of the batch differ
        # too.
        present = np.repeat(np.array([[True], [False]]), [len(probe), 1], axis=0).repeat(
            self.p, axis=1
        )
        again = self.outputs(present, np.append(probe, 0), np.zeros(len(present), dtype=int))[:-1]
        # Single-precision networks move by about 1e-6 of their scale between batch sizes.
        if not np.abs(again - self.fx[probe]).max() <= 1e-5 * max(self.scale, 1e-300):
            row = int(probe[np.abs(again - self.fx[probe]).max(axis=1).argmax()])
            both = f"{self.fx[row].tolist()} and then {again[probe == row][0].tolist()}"
            fail(
                "model",
                "the same output each time the same row is given",
                f"{both} for row {row} of X (non-deterministic)",
                "Switch off dropout, sampling and batch statistics (model.eval()), or fix the "
                "model's own seed",
            )
        return len(present)

    def outputs(
        self, present: np.ndarray, i: np.ndarray, b: np.ndarray, flat: bool = True
    ) -> np.ndarray:
        """Outputs ``(r, K)`` of hybrid rows of players, at most ``batch_size`` in a call."""
        if len(present) == 0:
            return np.empty((0, self.K))
        cuts = chunks(len(present), self.step)
        parts = [self.rows.outputs(present[s][:, self.player], i[s], b[s]) for s in cuts]
        found = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return found.reshape(len(found), -1) if flat else found

    def means(self, present: np.ndarray, i: np.ndarray) -> np.ndarray:
        """Mean outputs ``(r, K)`` over the background, of coalitions ``(r, p)`` of rows ``i``."""
        parts = []
        for s in chunks(len(i), self.batch_size // self.size):
            m, every = len(i[s]), np.arange(self.size)
            found = self.outputs(
                present[s].repeat(self.size, axis=0), i[s].repeat(self.size), np.tile(every, m)
            )
            parts.append(found.reshape(m, self.size, -1).mean(axis=1))
        return np.concatenate(parts)

    def enumerated(
        self,
        rows: np.ndarray,
        worth: Callable[[np.ndarray, np.ndarray], np.ndarray],
        width: int,
    ) -> np.ndarray:
        """Exact values ``(n, p, width)`` of rows, over all coalitions of the players that can
        matter.

        ``worth`` gives ``(m, width)`` for coalitions ``(m, p)`` of rows ``(m,)``.
        Cost: ``listing``.
        """
        found = np.zeros((len(rows), self.p, width))
        count = self.able[rows].sum(axis=1)
        for a in np.unique(count[count > 0]):
            places = np.flatnonzero(count == a)
            mine = np.nonzero(self.able[rows[places]])[1].reshape(len(places), a)
            # Sums go in the same pieces for any batch size.
            step = min(2**12, max(1, FLOATS // self.p))
            for start in range(0, 2**a, step):
                S = all_coalitions(int(a), start, min(start + step, 2**a))
                part, weights = max(1, step // len(S)), shapley_coefficients(S)
                for s in chunks(len(places), part):
                    who, own = places[s], mine[s]
                    present = np.zeros((len(who), len(S), self.p), dtype=bool)
                    present[
                        np.arange(len(who))[:, None, None], np.arange(len(S))[:, None], own[:, None]
                    ] = S
                    values = worth(present.reshape(-1, self.p), rows[who].repeat(len(S)))
                    values = values.reshape(len(who), len(S), -1)
                    for k, line in enumerate(who):
                        found[line, own[k]] += weights @ values[k]
        return found

    def title(self, player: int) -> str:
        """The name of a player among all."""
        return f"x{player}" if self.names is None else str(self.names[player])

    def expand(self, values: np.ndarray, axis: int = 1) -> np.ndarray:
        """Values of all players from those of ``players``: the others are worth nothing."""
        count = int(self.label.max()) + 1
        if self.p == count:
            return values
        full = np.zeros((*values.shape[:axis], count, *values.shape[axis + 1 :]), values.dtype)
        np.moveaxis(full, axis, 0)[self.players] = np.moveaxis(values, axis, 0)
        return full

    def differs(self, i: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Where players of rows and references differ: ``(..., p)`` for indices ``(...)``."""
        return self._by_player(unequal(self._own[i], self._other[b]))

    def moves(self, i: np.ndarray) -> np.ndarray:
        """Players that differ between rows ``i`` ``(n,)`` and each reference: counts ``(n, B)``."""
        pairs = np.unravel_index(np.arange(len(i) * self.size), (len(i), self.size))
        parts = [
            self.differs(i[pairs[0][s]], pairs[1][s]).sum(axis=1)
            for s in chunks(len(pairs[0]), FLOATS // (4 * self._own.shape[1]))
        ]
        return np.concatenate(parts).reshape(len(i), self.size)

    def along(self, rank: np.ndarray, i: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
        """Outputs ``(w, p + 1, m, K)`` of orderings that add players of rows to references, and
        what they cost.

        ``rank`` ``(w, p)`` is each player's place; ``b`` ``(w, m)`` are references of rows ``i``
        ``(w,)``. A step that changes no value is not evaluated.
        """
        order = np.broadcast_to(rank.argsort(axis=1)[:, None], (*b.shape, self.p))
        step = np.take_along_axis(self.differs(i[:, None], b), order, axis=2).cumsum(axis=2)
        inside = (step > 0) & (step < step[:, :, -1:])
        fresh = inside & (np.diff(step, axis=2, prepend=0) > 0)
        w, m, k = np.nonzero(fresh)
        found = self.outputs(rank[w] <= k[:, None], i[w], b[w, m])
        known = (fresh.ravel().cumsum() - 1).reshape(fresh.shape)
        low = self.fb[b][:, :, None]
        high = np.broadcast_to(self.fx[i][:, None, None], low.shape)
        values = np.where((step > 0)[..., None], high, low)
        values[inside] = found[known[inside]]
        values[:, :, -1:] = high
        return np.concatenate([low, values], axis=2).swapaxes(1, 2), len(found)

    def both_ways(
        self, rank: np.ndarray, i: np.ndarray, b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Outputs along orderings that add players to references ``b[:, 0]``, and that take them
        from the row.

        The second are those of the complements: what is left of the row stands beside ``b[:, 1]``.
        """
        # Taking players away is adding them in the opposite order, read backwards.
        ranks, references = (
            np.concatenate([rank, self.p - 1 - rank]),
            np.concatenate([b[:, 0], b[:, 1]]),
        )
        found, cost = self.along(ranks, np.tile(i, 2), references)
        return found[: len(rank)], found[len(rank) :, ::-1], cost

    @property
    def data(self) -> Any:
        """The explained rows, or None where players are not features."""
        if not self.plain:
            return None
        return self.rows._X if self.rows._frame is None else self.rows._frame

    def explanation(
        self,
        values: np.ndarray,
        std: np.ndarray | None,
        base: np.ndarray,
        method: str,
        info: dict[str, Any],
        rows: Any = slice(None),
    ) -> Explanation:
        """Build the result for these rows, dropping the output axis when the model has none."""
        keep = slice(None) if self.has_outputs else 0
        data = self.data
        if data is not None and not isinstance(rows, slice):
            data = data.iloc[rows] if is_frame(data) else data[rows]
        check_result(values, [self.title(player) for player in self.players])
        return Explanation(
            values=self.expand(values)[..., keep],
            std=None if std is None else self.expand(std)[..., keep],
            base_values=base[..., keep],
            data=data,
            feature_names=None if self.names is None else tuple(self.names),
            output_names=class_names(self.rows.model, self.K) if self.has_outputs else None,
            method=method,
            info=info,
        )


@dataclass
class Tally:
    """Running moments of every row's visits: mean, squares, and products with the sum over
    players. ``exact`` tells whose values were enumerated in the end."""

    KEPT: ClassVar = ("count", "mean", "m2", "cross", "exact")

    entropy: list[int]
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    cross: np.ndarray
    exact: np.ndarray
    evaluations: int = 0
    steps: int = 0

    @classmethod
    def new(cls, shape: tuple[int, int, int], rng: Any) -> Tally:
        entropy = [int(word) for word in resolve_rng(rng).integers(0, 2**63, size=2)]
        return cls(
            entropy,
            np.zeros(shape[0], dtype=np.int64),
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape[0], dtype=bool),
        )

    def add(self, rows: np.ndarray, estimates: np.ndarray) -> None:
        """Add one visit to each of some different rows: one round."""
        self.steps += 1
        self.count[rows] += 1
        step = estimates - self.mean[rows]
        self.mean[rows] += step / self.count[rows][:, None, None]
        left = estimates - self.mean[rows]
        self.m2[rows] += step * left
        self.cross[rows] += step * left.sum(axis=1, keepdims=True)

    def settle(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Put exact values in the place of what was sampled: as two visits that agree."""
        self.exact[rows], self.count[rows], self.mean[rows] = True, 2, values
        self.m2[rows] = self.cross[rows] = 0.0

    def save(self, path: Path, mark: dict[str, Any], fx: np.ndarray, fb: np.ndarray) -> None:
        """Write atomically: a reader sees the old file or the new one, never half of one."""
        part = path.with_name(path.name + ".part")
        header = json.dumps([mark, self.entropy, self.evaluations, self.steps]).encode()
        with open(part, "wb") as file:
            np.savez(
                file,
                count=self.count,
                mean=self.mean,
                m2=self.m2,
                cross=self.cross,
                exact=self.exact,
                fx=fx,
                fb=fb,
                header=np.frombuffer(header, dtype=np.uint8),
            )
        os.replace(part, path)

    def load(
        self, path: Path, mark: dict[str, Any], fx: np.ndarray, fb: np.ndarray, seeded: bool
    ) -> None:
        """Continue from a file after checking that it belongs to the same question."""
        try:
            with np.load(path, allow_pickle=False) as file:
                kept = {name: file[name] for name in (*self.KEPT, "fx", "fb")}
                wrote, entropy, evaluations, steps = json.loads(bytes(file["header"]))
        except (OSError, KeyError, ValueError, BadZipFile) as problem:
            fail(
                "state",
                "a file written by this function",
                f"{path.name}: {problem}",
                "Name another file",
            )
        same = wrote == mark and kept["fx"].shape == fx.shape and kept["fb"].shape == fb.shape
        if not same or not (
            np.allclose(kept["fx"], fx, rtol=1e-6) and np.allclose(kept["fb"], fb, rtol=1e-6)
        ):
            fail(
                "state",
                "a run of the same method, model, rows and background",
                f"another one in {path.name}",
                "Delete it or name another file",
            )
        if seeded and entropy != self.entropy:
            fail(
                "rng",
                f"the seed that {path.name} was started with",
                "another seed",
                "Pass the same rng, or rng=None",
            )
        self.entropy, self.evaluations, self.steps = entropy, evaluations, steps
        for name in self.KEPT:
            setattr(self, name, kept[name])


def walk_steps(adding: np.ndarray, removing: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Contributions ``(w, p, K)`` of walks from values ``(w, p + 1, K)`` along them, both ways."""
    return np.take_along_axis(
        (np.diff(adding, axis=1) - np.diff(removing, axis=1)) / 2, rank[:, :, None], axis=1
    )


def visit_generator(entropy: list[int], row: int, visit: int) -> np.random.Generator:
    """The generator that belongs to one visit of one row."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(int(row), int(visit))))


def check_stop(
    rounds: Any, thresh: Any, max_evaluations: Any
) -> tuple[int | None, float, int | None]:
    """Check the three ways to say when to stop."""
    goal = None if rounds is None else check_int(rounds, "rounds", minimum=2)
    budget = None if max_evaluations is None else check_int(max_evaluations, "max_evaluations")
    return goal, check_real(thresh, "thresh", low=0.0, open_low=True), budget


class Sampler:
    """What the engine asks of a sampler; subclasses give ``visit`` and may give ``summary``.

    ``shape`` is (N, p, K); ``cost`` the model rows of a visit, one number a row or for all;
    ``least`` the rounds before precision may stop a run. A round visits every unfinished row once;
    for ``pooled`` samplers, which give one answer for all rows, it visits one block of rows, and
    ``blocks`` of them make an epoch.
    """

    tables: Tables
    shape: tuple[int, int, int]
    cost: Any
    scale: float
    pooled = False
    blocks = 1
    # Rounds that visit the first block once more, so that the variance between visits is known
    # early.
    pilot = 0
    least = MIN_ROUNDS
    mark: dict[str, Any]

    def visit(
        self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
    ) -> tuple[np.ndarray, int]:
        """Estimates ``(n, p, K)`` of rows, each with its visit number, and what they cost."""
        return np.empty((len(rows), *self.shape[1:])), 0

    def worth(self, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The game itself: values ``(m, K)`` of coalitions ``(m, p)`` of rows."""
        return self.tables.means(present, rows)

    def summary(self, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Values and standard errors: means over visits, and their spread over the square root of
        their number."""
        count = tally.count[:, None, None]
        return tally.mean, np.sqrt(tally.m2 / np.maximum(count - 1, 1) / np.maximum(count, 1))

    def rounds(self, tally: Tally) -> np.ndarray:
        """Rounds done, one number a unit (a row, or the whole)."""
        return np.array([tally.steps]) if self.pooled else tally.count

    def plan(self, tally: Tally, rest: np.ndarray, k: int) -> list[np.ndarray]:
        """Rows of the next ``k`` rounds."""
        if not self.pooled:
            return [np.flatnonzero(rest > 0)] * k
        blocks, n = [], self.shape[0]
        for step in range(tally.steps, tally.steps + k):
            epoch, part = divmod(max(0, step - self.pilot), self.blocks)
            # Generator number n is free: rows are 0 to n - 1. An epoch visits all rows once, in
            # random order.
            order = visit_generator(tally.entropy, n, epoch).permutation(n)
            blocks.append(order[part * n // self.blocks : (part + 1) * n // self.blocks])
        return blocks


class Run:
    """One run of a sampler: until precise enough, out of budget, told to stop, or interrupted."""

    def __init__(
        self,
        sampler: Sampler,
        *,
        rng: Any,
        rounds: int | None,
        thresh: float,
        budget: int | None,
        state: Any,
        n_jobs: int | None,
        progress: bool,
        callback: Callable[[dict[str, Any]], Any] | None,
    ) -> None:
        self.sampler, self.tables = sampler, sampler.tables
        self.goal = None if rounds is None else rounds * sampler.blocks + sampler.pilot
        self.thresh, self.budget = thresh, budget
        units = 1 if sampler.pooled else sampler.shape[0]
        self.round_cost = np.full(
            units, sampler.cost * (sampler.shape[0] / sampler.blocks if sampler.pooled else 1.0)
        )
        self.enough = 2 if not sampler.pooled else min(sampler.least, self.goal or sampler.least)
        listing = self.tables.listing
        # Who asks for a number of rounds wants to see sampling, whatever enumeration would cost.
        self.listing = np.full(units, np.inf)
        if self.goal is None:
            self.listing = np.array([listing.sum()]) if sampler.pooled else listing
        least = int(
            self.tables.evaluations + np.minimum(self.enough * self.round_cost, self.listing).sum()
        )
        if budget is not None and budget < least:
            fail(
                "max_evaluations",
                f"at least {least} model rows (fewer give no standard error)",
                str(budget),
                "Raise the budget, explain fewer rows, or use a smaller background",
            )
        self.tally = Tally.new(sampler.shape, rng)
        self.tally.evaluations = self.tables.evaluations
        if callback is not None and not callable(callback):
            fail(
                "callback", "a function of a dict", callback, "Pass a function, or None", TypeError
            )
        if not isinstance(state, str | os.PathLike | None):
            fail("state", "the path of a file, or None", state, "Pass text or a Path", TypeError)
        self.path = None if state is None else Path(state)
        if self.path is not None and not os.access(self.path.parent, os.W_OK):
            fail(
                "state",
                "a file in a folder that can be written to",
                str(self.path),
                "Make the folder first",
            )
        if self.path is not None and self.path.exists():
            self.tally.load(
                self.path, sampler.mark, self.tables.fx, self.tables.fb, rng is not None
            )
        self.crew = Crew(sampler, n_jobs)
        self.progress, self.callback = progress, callback
        self.rest = np.full(units, float(self.goal or sampler.least))
        self.due = np.zeros(units, dtype=bool)
        self.info: dict[str, Any] = {"stopped": "", "thresh": thresh}

    @property
    def done(self) -> np.ndarray:
        """Units whose values are exact."""
        exact = self.tally.exact
        return np.array([exact.all()]) if self.sampler.pooled else exact

    def choose(self) -> None:
        """Enumerate where that is cheaper than what sampling still needs, as far as the budget
        goes."""
        self.rest[self.done] = 0.0
        self.due = (self.rest > 0) & (self.listing <= self.rest * self.round_cost)
        if self.budget is not None:
            # What every unit needs at least stays reserved for it.
            reserve = np.maximum(self.enough - self.sampler.rounds(self.tally), 0.0)
            reserve = np.where(self.rest > 0, reserve * self.round_cost, 0.0)
            cheaper = self.listing < reserve
            reserve = np.where(cheaper, self.listing, reserve)
            self.due |= cheaper
            room = self.budget - self.tally.evaluations - reserve.sum()
            more = np.where(self.due, self.listing, 0.0) - np.where(self.due, reserve, 0.0)
            self.due &= more.cumsum() <= room
        self.rest[self.due] = 0.0

    def measure(self) -> None:
        """Errors so far, and the rounds that each unit still needs."""
        counts = self.sampler.rounds(self.tally)
        if not counts.any() and not self.done.any():
            self.choose()
            return
        values, std = self.sampler.summary(self.tally)
        # Values that are zero but for rounding would never be precise relative to themselves.
        wanted = np.maximum(
            self.thresh * spread_of(values), 1e-12 * max(self.sampler.scale, 1e-300)
        )
        ratio = std.max(axis=(1, 2)) / wanted
        if self.goal is not None:
            self.rest = np.maximum(self.goal - counts, 0.0)
        else:
            more = np.clip(np.ceil(counts * (np.minimum(ratio, 1e6) ** 2 - 1.0)), 1.0, MAX_ROUNDS)
            self.rest = np.maximum(
                np.where(ratio <= 1.0, 0.0, more), np.maximum(self.sampler.least - counts, 0)
            )
        self.choose()
        ahead = np.where(self.due, self.listing, self.rest * self.round_cost)
        self.info.update(
            round=int(np.where(self.done, 0, counts).max()),
            evaluations=int(self.tally.evaluations),
            finished=int(((self.rest == 0) & ~self.due).sum()),
            ratio=float(ratio.max() * self.thresh),
            converged=bool((ratio <= 1.0).all() and not self.due.any()),
            forecast=int(self.tally.evaluations + ahead.sum()),
        )

    def enumerate(self) -> bool:
        """Exact values for the units that are due; True when the callback says stop."""
        rows = np.arange(self.sampler.shape[0])
        rows = rows if self.sampler.pooled else rows[self.due]
        cost = self.tables.listing[rows]
        size = max(1, int(TASK_ROWS // max(1.0, cost.mean())))
        found = self.crew.run(_enumerate, [(rows[s],) for s in chunks(len(rows), size)])
        self.tally.settle(rows, np.concatenate(found))
        self.tally.evaluations += int(cost.sum())
        if self.path is not None:
            self.tally.save(self.path, self.sampler.mark, self.tables.fx, self.tables.fb)
        self.measure()
        return self.callback is not None and bool(self.callback(dict(self.info)))

    def ahead(self) -> int:
        """Rounds to evaluate before looking again: surely needed ones, for fewer and larger
        parallel calls."""
        active = self.rest[self.rest > 0]
        active_rounds = np.where(self.rest > 0, self.sampler.rounds(self.tally), np.inf)
        known = self.goal is not None or active_rounds.min() == 0
        surely = active.min() if known else active.min() // 2
        k = int(np.clip(surely, 1, max(1, 256 // len(active))))
        if self.budget is not None:
            k = min(
                k,
                int(
                    (self.budget - self.tally.evaluations)
                    // max(1.0, self.round_cost[self.rest > 0].sum())
                ),
            )
        return k

    def step(self, k: int) -> bool:
        """Evaluate ``k`` rounds in parallel and count them one by one; True when the callback says
        stop."""
        plan = self.sampler.plan(self.tally, self.rest, k)
        seen, visits = self.tally.count.copy(), []
        for block in plan:
            visits.append(seen[block])
            seen[block] += 1
        rows, numbers = np.concatenate(plan), np.concatenate(visits)
        size = max(1, int(TASK_ROWS // max(1.0, np.mean(self.sampler.cost))))
        found = self.crew.run(
            _visit, [(rows[s], numbers[s], self.tally.entropy) for s in chunks(len(rows), size)]
        )
        estimates = np.concatenate([part for part, _ in found])
        self.tally.evaluations += sum(evaluations for _, evaluations in found)
        start = 0
        for block in plan:
            # Looking after every round, whatever was evaluated together, lets a resumed run stop
            # where this one does.
            wanted = np.broadcast_to(self.rest > 0, self.sampler.shape[:1])[block]
            if not wanted.any():
                break
            self.tally.add(block[wanted], estimates[start : start + len(block)][wanted])
            start += len(block)
            if self.path is not None:
                self.tally.save(self.path, self.sampler.mark, self.tables.fx, self.tables.fb)
            self.measure()
            if self.callback is not None and self.callback(dict(self.info)):
                return True
        return False

    def loop(self) -> str:
        """Rounds until something says stop; returns what did."""
        with progress_bar(1, self.progress, "model rows") as bar:
            self.measure()
            while True:
                bar.total = self.info.get("forecast")
                bar.update(self.tally.evaluations - bar.n)
                if self.due.any():
                    if self.enumerate():
                        return "callback"
                    continue
                if self.done.all():
                    return "exact"
                if not self.rest.any():
                    return "precision" if self.goal is None else "rounds"
                if self.goal is None and self.sampler.rounds(self.tally).max() >= MAX_ROUNDS:
                    return "rounds"
                k = self.ahead()
                if k < 1:
                    return "budget"
                if self.step(k):
                    return "callback"

    def __call__(self, result: Callable[[Tally, dict[str, Any]], Explanation]) -> Explanation:
        """Run, and build the result from what there is."""
        try:
            self.info["stopped"] = self.loop()
        except KeyboardInterrupt:
            if self.sampler.rounds(self.tally).min() < self.enough:
                raise
            self.info["stopped"] = "interrupted"
        except Exception as problem:
            if self.sampler.rounds(self.tally).min() >= self.enough:
                self.measure()
                kept = result(
                    self.tally, self.info | {"stopped": "error", "exact": self.done.copy()}
                )
                problem.partial = kept  # type: ignore[attr-defined]
                problem.add_note(
                    "Finished rounds are kept in this exception's attribute .partial"
                    + ("." if self.path is None else f" and in {self.path.name}.")
                )
            raise
        self.measure()
        return result(self.tally, self.info | {"exact": self.done.copy()})


def _enumerate(sampler: Sampler, rows: np.ndarray) -> np.ndarray:
    return sampler.tables.enumerated(rows, sampler.worth, sampler.shape[2])


def _visit(
    sampler: Sampler, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
) -> tuple[np.ndarray, int]:
    return sampler.visit(rows, visits, entropy)


def spread_of(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest value of units ``(U, p, K)``; zero counts, so that equal players do
    not make it vanish."""
    return np.asarray(
        (np.maximum(values.max(axis=1), 0.0) - np.minimum(values.min(axis=1), 0.0)).max(axis=-1)
    )
