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
Needs: shaplab._parallel, shaplab._rows, shaplab._validation, shaplab.explanation,
shaplab.foundations.games.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from shaplab._parallel import Crew, chunks, progress_bar
from shaplab._rows import Rows
from shaplab._validation import check_int, check_real, fail, resolve_rng
from shaplab.explanation import Explanation
from shaplab.foundations.games import group_matrix

__all__: list[str] = []

MIN_ROUNDS = 4
MAX_ROUNDS = 10_000
# Model rows that one task aims at: large enough to hide a worker's latency, and never dependent on
# n_jobs.
TASK_ROWS = 16_384
BLOCK = 512


class Tables:
    """The model, the explained rows and the references, with outputs known in advance and checked.

    ``fx`` ``(N, K)`` and ``fb`` ``(B, K)`` are outputs of complete rows; K is 1 for a model without
    outputs axis.
    """

    def __init__(self, model: Any, X: Any, background: Any, groups: Any, batch_size: Any) -> None:
        self.batch_size = check_int(batch_size, "batch_size")
        self.rows = Rows(model, X, background)
        self.n, self.size = self.rows.n, self.rows.size
        self.membership = np.eye(self.rows.d, dtype=bool)
        self.names: tuple[str, ...] | None = (
            None if self.rows.names is None else tuple(self.rows.names)
        )
        self.plain = groups is None
        if groups is not None:
            self.membership, self.names = group_matrix(groups, self.rows.d, self.rows.names)
        self.p = len(self.membership)
        self.player = self.membership.argmax(axis=0)
        own, other = np.arange(self.n), np.arange(self.size)
        fx = self.outputs(np.ones((self.n, self.p), dtype=bool), own, 0 * own, flat=False)
        fb = self.outputs(np.zeros((self.size, self.p), dtype=bool), 0 * other, other, flat=False)
        self.has_outputs = fx.ndim == 2
        self.fx, self.fb = fx.reshape(self.n, -1), fb.reshape(self.size, -1)
        self.K = self.fx.shape[1]
        self.scale = float(max(np.abs(self.fx).max(), np.abs(self.fb).max()))
        probe = np.arange(min(8, self.n))[::-1]
        # A reference row goes along, so that outputs which depend on the rest of the batch differ
        # too.
        present = np.repeat(np.array([[True], [False]]), [len(probe), 1], axis=0).repeat(
            self.p, axis=1
        )
        again = self.outputs(present, np.append(probe, 0), np.zeros(len(present), dtype=int))[:-1]
        # Single-precision networks move by about 1e-6 of their scale between batch sizes.
        if np.abs(again - self.fx[probe]).max() > 1e-5 * max(self.scale, 1e-300):
            row = int(probe[np.abs(again - self.fx[probe]).max(axis=1).argmax()])
            both = f"{self.fx[row].tolist()} and then {again[probe == row][0].tolist()}"
            fail(
                "model",
                "the same output each time the same row is given",
                f"{both} for row {row} of X (non-deterministic)",
                "Switch off dropout, sampling and batch statistics (model.eval()), or fix the "
                "model's own seed",
            )
        self.evaluations = self.n + self.size + len(present)

    def outputs(
        self, present: np.ndarray, i: np.ndarray, b: np.ndarray, flat: bool = True
    ) -> np.ndarray:
        """Outputs ``(r, K)`` of hybrid rows of players, at most ``batch_size`` in a call."""
        if len(present) == 0:
            return np.empty((0, self.K))
        cuts = chunks(len(present), self.batch_size)
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

    def differs(self, i: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Where players of rows and references differ: ``(..., p)`` for indices ``(...)``."""
        found = self.rows.differs(i, b)
        return found if self.plain else found.astype(np.float32) @ self.membership.T > 0

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
    def data(self) -> np.ndarray | None:
        """The explained rows as an array, or None where players are not features."""
        if not self.plain:
            return None
        return np.asarray(self.rows._X if self.rows._frame is None else self.rows._frame.to_numpy())

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
        classes = getattr(getattr(self.rows.model, "__self__", None), "classes_", ())
        return Explanation(
            values=values[..., keep],
            std=None if std is None else std[..., keep],
            base_values=base[..., keep],
            data=None if self.data is None else self.data[rows],
            feature_names=self.names,
            output_names=tuple(map(str, classes))
            if self.has_outputs and len(classes) == self.K
            else None,
            method=method,
            info=info,
        )


@dataclass
class Tally:
    """Running moments of every row's visits: mean, squares, and products with the sum over
    players."""

    entropy: list[int]
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    cross: np.ndarray
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
                kept = {name: file[name] for name in ("count", "mean", "m2", "cross", "fx", "fb")}
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
        for name in ("count", "mean", "m2", "cross"):
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
        least = int(self.tables.evaluations + self.enough * self.round_cost.sum())
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
        self.info: dict[str, Any] = {"stopped": "", "thresh": thresh}

    def measure(self) -> None:
        """Errors so far, and the rounds that each unit still needs."""
        counts = self.sampler.rounds(self.tally)
        if not counts.any():
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
        self.info.update(
            round=int(counts.max()),
            evaluations=int(self.tally.evaluations),
            finished=int((self.rest == 0).sum()),
            ratio=float(ratio.max() * self.thresh),
            converged=bool((ratio <= 1.0).all()),
            forecast=int(self.tables.evaluations + ((counts + self.rest) * self.round_cost).sum()),
        )

    def ahead(self) -> int:
        """Rounds to evaluate before looking again: surely needed ones, for fewer and larger
        parallel calls."""
        active = self.rest[self.rest > 0]
        known = self.goal is not None or self.sampler.rounds(self.tally).min() == 0
        surely = active.min() if known else active.min() // 2
        k = int(np.clip(surely, 1, max(1, 256 // len(active))))
        if self.budget is not None:
            spent = (
                self.tables.evaluations + (self.sampler.rounds(self.tally) * self.round_cost).sum()
            )
            k = min(k, int((self.budget - spent) // max(1.0, self.round_cost[self.rest > 0].sum())))
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
                problem.partial = result(self.tally, self.info | {"stopped": "error"})  # type: ignore[attr-defined]
                problem.add_note(
                    "Finished rounds are kept in this exception's attribute .partial"
                    + ("." if self.path is None else f" and in {self.path.name}.")
                )
            raise
        self.measure()
        return result(self.tally, self.info)


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
