r"""The engine under every sampled explanation: visits, rounds, errors, stopping, resuming.

A *sampler* gives, for an explained row and a visit number, one unbiased estimate of that row's
values. Its random numbers come from the run's entropy, the row and the visit only, so estimates are
the same for any worker, order or batch. A *run* averages visits (Welford), forms standard errors
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from zipfile import BadZipFile

import numpy as np

from shaplab._atomic import write_atomically
from shaplab._parallel import Crew, chunks, progress_bar
from shaplab._units import unit_near
from shaplab._validation import check_int, check_real, fail, resolve_rng
from shaplab.explanation import Explanation
from shaplab.foundations._evaluate import Evaluator

__all__: list[str] = []

Kept = TypeVar("Kept")

# Rounds before precision may stop a run, and after which a run ends in any case.
MIN_ROUNDS = 4
MAX_ROUNDS = 10_000
# Model rows that one task aims at: large enough to hide a worker's latency, and never dependent on
# n_jobs.
TASK_ROWS = 16_384
# Visits evaluated together, at most, before errors are looked at again.
VISITS_AHEAD = 256
# Share of the outputs' scale below which a standard error is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Budget:
    """Everything that limits and steers a run; the arguments are those of ``permutation_shap``."""

    # When to stop: after so many rounds, at this precision, or at this cost.
    rounds: int | None = None
    thresh: float = 0.02
    max_evaluations: int | None = None
    # How to work.
    rng: Any = None
    n_jobs: int | None = None
    # Who watches, and where the run is kept.
    progress: bool = False
    callback: Callable[[dict[str, Any]], Any] | None = None
    state: Any = None

    def __post_init__(self) -> None:
        if self.rounds is not None:
            self._keep("rounds", check_int(self.rounds, "rounds", minimum=2))
        self._keep("thresh", check_real(self.thresh, "thresh", low=0.0, open_low=True))
        if self.max_evaluations is not None:
            self._keep("max_evaluations", check_int(self.max_evaluations, "max_evaluations"))
        if self.callback is not None and not callable(self.callback):
            remedy = "Pass a function, or None"
            fail("callback", "a function of a dict", self.callback, remedy, TypeError)
        if self.state is not None:
            self._keep("state", _state_file(self.state))

    def _keep(self, name: str, checked: Any) -> None:
        """Store a checked value: a frozen object is written to here only."""
        object.__setattr__(self, name, checked)

    def allowed_error(self, values: np.ndarray, scale: float) -> np.ndarray:
        """The standard error ``(U,)`` at which units with values ``(U, p, K)`` are precise enough.

        Values that are zero but for rounding would never be precise relative to themselves.
        """
        return np.maximum(self.thresh * spread_of(values), ROUNDING * max(scale, 1e-300))


def _state_file(state: Any) -> Path:
    if not isinstance(state, str | os.PathLike):
        fail("state", "the path of a file, or None", state, "Pass text or a Path", TypeError)
    path = Path(state)
    if not os.access(path.parent, os.W_OK):
        rule = "a file in a folder that can be written to"
        fail("state", rule, str(path), "Make the folder first")
    return path


def spread_of(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest value ``(U,)`` of units ``(U, p, K)``, of the output with the largest
    spread; zero counts, so that equal players do not make it vanish."""
    high = np.maximum(values.max(axis=1), 0.0)
    low = np.minimum(values.min(axis=1), 0.0)
    return np.asarray((high - low).max(axis=-1))


def draw_entropy(rng: Any) -> list[int]:
    """Two words from which all random numbers of a run follow."""
    return [int(word) for word in resolve_rng(rng).integers(0, 2**63, size=2)]


def visit_generator(entropy: list[int], row: int, visit: int) -> np.random.Generator:
    """The generator that belongs to one visit of one row."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(int(row), int(visit))))


@dataclass
class Tally:
    """Running moments ``(N, p, K)`` of every row's visits: mean, squares, and products with the sum
    over players, both in squares of ``unit``. ``exact`` ``(N,)`` tells whose values were enumerated
    in the end."""

    KEPT: ClassVar = ("count", "mean", "m2", "cross", "exact")

    entropy: list[int]
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    cross: np.ndarray
    exact: np.ndarray
    unit: float = 1.0
    evaluations: int = 0
    steps: int = 0

    @classmethod
    def new(cls, shape: tuple[int, int, int], rng: Any, scale: float = 1.0) -> Tally:
        """A tally without visits, for numbers of this scale."""
        return cls(
            entropy=draw_entropy(rng),
            count=np.zeros(shape[0], dtype=np.int64),
            mean=np.zeros(shape),
            m2=np.zeros(shape),
            cross=np.zeros(shape),
            exact=np.zeros(shape[0], dtype=bool),
            unit=unit_near(scale),
        )

    def add(self, rows: np.ndarray, estimates: np.ndarray) -> None:
        """Add one visit to each of some different rows: one round."""
        self.steps += 1
        self.count[rows] += 1
        before = (estimates - self.mean[rows]) / self.unit
        self.mean[rows] += self.unit * (before / self.count[rows][:, None, None])
        after = (estimates - self.mean[rows]) / self.unit
        self.m2[rows] += before * after
        self.cross[rows] += before * after.sum(axis=1, keepdims=True)

    def settle(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Put exact values in the place of what was sampled: as two visits that agree."""
        self.exact[rows] = True
        self.count[rows] = 2
        self.mean[rows] = values
        self.m2[rows] = 0.0
        self.cross[rows] = 0.0

    def save(self, path: Path, sampler: Sampler) -> None:
        """Write the file from which :meth:`load` goes on."""
        told = [sampler.mark, self.entropy, self.unit, self.evaluations, self.steps]
        arrays = {name: getattr(self, name) for name in self.KEPT}
        arrays["fx"] = sampler.evaluator.row_outputs
        arrays["fb"] = sampler.evaluator.reference_outputs
        arrays["header"] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
        write_atomically(path, lambda file: np.savez(file, **arrays))

    def load(self, path: Path, sampler: Sampler, seeded: bool) -> None:
        """Continue from a file after checking that it belongs to the same question."""
        try:
            with np.load(path, allow_pickle=False) as file:
                kept = {name: file[name] for name in (*self.KEPT, "fx", "fb")}
                mark, entropy, unit, evaluations, steps = json.loads(bytes(file["header"]))
        except (OSError, KeyError, ValueError, BadZipFile) as problem:
            fail(
                "state",
                "a file written by this function",
                f"{path.name}: {problem}",
                "Name another file",
            )
        same_outputs = _agree(kept["fx"], sampler.evaluator.row_outputs) and _agree(
            kept["fb"], sampler.evaluator.reference_outputs
        )
        if mark != sampler.mark or not same_outputs:
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
        self.entropy = entropy
        self.unit = unit
        self.evaluations = evaluations
        self.steps = steps
        for name in self.KEPT:
            setattr(self, name, kept[name])


def _agree(kept: np.ndarray, now: np.ndarray) -> bool:
    """Whether a model's outputs are those that a file keeps."""
    return kept.shape == now.shape and np.allclose(kept, now, rtol=1e-6)


class Sampler:
    """What the engine asks of a sampler; subclasses give ``visit`` and may give ``summary``.

    ``shape`` is (N, p, K); ``cost`` the model rows of a visit, one number a row or for all;
    ``least`` the rounds before precision may stop a run; ``mark`` tells runs apart in files. A
    round visits every unfinished row once; for ``pooled`` samplers, which give one answer for all
    rows, it visits one block of rows, and ``blocks`` of them make an epoch.
    """

    evaluator: Evaluator
    shape: tuple[int, int, int]
    cost: Any
    scale: float
    mark: dict[str, Any]
    pooled = False
    blocks = 1
    # Rounds that visit the first block once more, so that the variance between visits is known
    # early.
    first_block_again = 0
    least = MIN_ROUNDS
    # Rounds without which there is no result, those without which nothing is known of its error,
    # and model rows of an enumeration where it is not the evaluator's.
    fewest = 2
    known_after = 2
    enumeration: np.ndarray | None = None

    def visit(
        self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
    ) -> tuple[np.ndarray, int]:
        """Estimates ``(n, p, K)`` of rows, each with its visit number, and what they cost."""
        return np.empty((len(rows), *self.shape[1:])), 0

    def worth(self, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The game itself: values ``(m, K)`` of coalitions ``(m, p)`` of rows."""
        return self.evaluator.means(present, rows)

    def summary(self, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Values and standard errors: means over visits, and their spread over the square root of
        their number."""
        count = tally.count[:, None, None]
        variance = tally.m2 / np.maximum(count - 1, 1)
        # One round does not say how far another one would be.
        is_known = (count >= self.known_after) | tally.exact[:, None, None]
        std = tally.unit * np.sqrt(variance / np.maximum(count, 1))
        return tally.mean, np.where(is_known, std, np.nan)

    def rounds(self, tally: Tally) -> np.ndarray:
        """Rounds done, one number a unit (a row, or the whole)."""
        return np.array([tally.steps]) if self.pooled else tally.count

    def plan(self, tally: Tally, remaining: np.ndarray, count: int) -> list[np.ndarray]:
        """Rows that each of the next ``count`` rounds visits."""
        if not self.pooled:
            return [np.flatnonzero(remaining > 0)] * count
        n_rows = self.shape[0]
        blocks = []
        for step in range(tally.steps, tally.steps + count):
            epoch, block = divmod(max(0, step - self.first_block_again), self.blocks)
            # The generator of row number n_rows is free. An epoch visits all rows once, in random
            # order.
            order = visit_generator(tally.entropy, n_rows, epoch).permutation(n_rows)
            start = block * n_rows // self.blocks
            stop = (block + 1) * n_rows // self.blocks
            blocks.append(order[start:stop])
        return blocks


class SampledRun:
    """One run of a sampler: until precise enough, out of budget, told to stop, or interrupted.

    A *unit* is what is finished on its own: a row, or all rows together for pooled samplers.
    ``remaining`` is how many rounds each unit still needs, ``due`` tells which units are cheaper to
    enumerate.
    """

    def __init__(self, sampler: Sampler, budget: Budget) -> None:
        self.sampler = sampler
        self.evaluator = sampler.evaluator
        self.budget = budget
        self.goal: int | None = None
        if budget.rounds is not None:
            self.goal = budget.rounds * sampler.blocks + sampler.first_block_again
        self._set_costs()
        self._check_budget()
        self.tally = Tally.new(sampler.shape, budget.rng, sampler.scale)
        self.tally.evaluations = self.evaluator.evaluations
        if budget.state is not None and budget.state.exists():
            self.tally.load(budget.state, sampler, seeded=budget.rng is not None)
        self.crew = Crew(sampler, budget.n_jobs)
        self.remaining = np.full(self.n_units, float(self.goal or sampler.least))
        self.due = np.zeros(self.n_units, dtype=bool)
        self.info: dict[str, Any] = {"stopped": "", "thresh": budget.thresh}

    def _set_costs(self) -> None:
        """Set the model rows that a round and an enumeration of each unit take, and the rounds
        without which there is no standard error."""
        sampler = self.sampler
        enumeration = self.evaluator.enumeration_cost
        if sampler.enumeration is not None:
            enumeration = sampler.enumeration
        if sampler.pooled:
            self.n_units = 1
            round_cost = sampler.cost * (sampler.shape[0] / sampler.blocks)
            enumeration = np.array([enumeration.sum()])
            self.fewest = min(sampler.least, self.goal or sampler.least)
        else:
            self.n_units = sampler.shape[0]
            round_cost = sampler.cost * 1.0
            self.fewest = sampler.fewest
        self.round_cost = np.full(self.n_units, round_cost)
        # Who asks for a number of rounds wants to see sampling, whatever enumeration would cost.
        never = np.full(self.n_units, np.inf)
        self.enumeration_cost = enumeration if self.goal is None else never

    def _check_budget(self) -> None:
        cheapest = np.minimum(self.fewest * self.round_cost, self.enumeration_cost)
        least = int(self.evaluator.evaluations + cheapest.sum())
        if self.budget.max_evaluations is not None and self.budget.max_evaluations < least:
            fail(
                "max_evaluations",
                f"at least {least} model rows",
                str(self.budget.max_evaluations),
                "Raise the budget, explain fewer rows, or use a smaller background",
            )

    def run(self, result: Callable[[Tally, dict[str, Any]], Explanation]) -> Explanation:
        """Sample, and build the result from what there is."""

        def kept(stopped: str) -> Explanation:
            self._measure()
            return result(self.tally, self.info | {"stopped": stopped, "exact": self.exact.copy()})

        try:
            stopped = self._sample()
        except (Exception, KeyboardInterrupt) as problem:
            if self._rounds().min() < self.fewest:
                raise
            where = "" if self.budget.state is None else f" and in {self.budget.state.name}"
            note = f"Finished rounds are kept in this exception's attribute .partial{where}."
            return hand_back(problem, kept(reason_of(problem)), note)
        return kept(stopped)

    def _sample(self) -> str:
        """Rounds until something says stop; returns what did."""
        with progress_bar(1, self.budget.progress, "model rows") as bar:
            self._measure()
            while True:
                bar.total = self.info.get("forecast")
                bar.update(self.tally.evaluations - bar.n)
                if self.due.any():
                    self._enumerate_due()
                    if self._told_to_stop():
                        return "callback"
                    continue
                finished = self._finished()
                if finished:
                    return finished
                count = self._rounds_ahead()
                if count < 1:
                    return "budget"
                if self._evaluate_rounds(count):
                    return "callback"

    def _finished(self) -> str:
        """Why no more rounds are needed; empty if they are."""
        if self.exact.all():
            return "exact"
        if not self.remaining.any():
            return "precision" if self.goal is None else "rounds"
        if self.goal is None and self._rounds().max() >= MAX_ROUNDS:
            return "rounds"
        return ""

    @property
    def exact(self) -> np.ndarray:
        """Units whose values are exact."""
        exact = self.tally.exact
        return np.array([exact.all()]) if self.sampler.pooled else exact

    def _rounds(self) -> np.ndarray:
        return self.sampler.rounds(self.tally)

    def _measure(self) -> None:
        """Errors so far, and the rounds that each unit still needs."""
        counts = self._rounds()
        if not counts.any() and not self.exact.any():
            self._choose_enumeration()
            return
        values, std = self.sampler.summary(self.tally)
        allowed = self.budget.allowed_error(values, self.sampler.scale)
        error = std.max(axis=(1, 2))
        # Without a second round nothing is known of the error; what is next is known all the same.
        ratio = np.nan_to_num(error / allowed)
        if self.goal is not None:
            self.remaining = np.maximum(self.goal - counts, 0.0)
        else:
            forecast = np.ceil(counts * (np.minimum(ratio, 1e6) ** 2 - 1.0))
            forecast = np.where(ratio <= 1.0, 0.0, np.clip(forecast, 1.0, MAX_ROUNDS))
            self.remaining = np.maximum(forecast, np.maximum(self.sampler.least - counts, 0))
        self._choose_enumeration()
        ahead = np.where(self.due, self.enumeration_cost, self.remaining * self.round_cost)
        self.info.update(
            round=int(np.where(self.exact, 0, counts).max()),
            evaluations=int(self.tally.evaluations),
            finished=int(((self.remaining == 0) & ~self.due).sum()),
            ratio=float((error / allowed).max() * self.budget.thresh),
            converged=bool((error <= allowed).all() and not self.due.any()),
            forecast=int(self.tally.evaluations + ahead.sum()),
        )

    def _choose_enumeration(self) -> None:
        """Enumerate where that is cheaper than what sampling still needs, as far as the budget
        goes."""
        self.remaining[self.exact] = 0.0
        unfinished = self.remaining > 0
        self.due = unfinished & (self.enumeration_cost <= self.remaining * self.round_cost)
        if self.budget.max_evaluations is not None:
            # What every unit needs at least stays reserved for it.
            missing = np.maximum(self.fewest - self._rounds(), 0.0)
            reserved = np.where(unfinished, missing * self.round_cost, 0.0)
            cheaper = self.enumeration_cost < reserved
            reserved = np.where(cheaper, self.enumeration_cost, reserved)
            self.due |= cheaper
            room = self.budget.max_evaluations - self.tally.evaluations - reserved.sum()
            beyond = np.where(self.due, self.enumeration_cost, 0.0)
            beyond = beyond - np.where(self.due, reserved, 0.0)
            self.due &= beyond.cumsum() <= room
        self.remaining[self.due] = 0.0

    def _enumerate_due(self) -> None:
        """Exact values for the units that are due."""
        rows = np.arange(self.sampler.shape[0])
        if not self.sampler.pooled:
            rows = rows[self.due]
        cost = self.evaluator.enumeration_cost[rows]
        together = int(TASK_ROWS // max(1.0, cost.mean()))
        tasks = [(rows[part],) for part in chunks(len(rows), together)]
        self.tally.settle(rows, np.concatenate(self.crew.run(_enumerate_rows, tasks)))
        self.tally.evaluations += int(cost.sum())
        self._save()
        self._measure()

    def _rounds_ahead(self) -> int:
        """Rounds to evaluate before looking again: surely needed ones, for fewer and larger
        parallel calls."""
        active = self.remaining > 0
        needed = self.remaining[active].min()
        is_forecast = self.goal is None and self._rounds()[active].min() > 0
        # A forecast from few rounds may be far too large.
        surely = needed // 2 if is_forecast else needed
        count = int(np.clip(surely, 1, max(1, VISITS_AHEAD // active.sum())))
        if self.budget.max_evaluations is None:
            return count
        left = self.budget.max_evaluations - self.tally.evaluations
        return min(count, int(left // max(1.0, self.round_cost[active].sum())))

    def _evaluate_rounds(self, count: int) -> bool:
        """Evaluate rounds in parallel and count them one by one; True when the callback says
        stop."""
        plan = self.sampler.plan(self.tally, self.remaining, count)
        estimates = self._visit(plan)
        start = 0
        for block in plan:
            # Looking after every round, whatever was evaluated together, lets a resumed run stop
            # where this one does.
            wanted = np.broadcast_to(self.remaining > 0, self.sampler.shape[:1])[block]
            if not wanted.any():
                break
            of_block = estimates[start : start + len(block)]
            start += len(block)
            self.tally.add(block[wanted], of_block[wanted])
            self._save()
            self._measure()
            if self._told_to_stop():
                return True
        return False

    def _visit(self, plan: list[np.ndarray]) -> np.ndarray:
        """Estimates of the rows of all rounds of a plan, one after the other."""
        seen = self.tally.count.copy()
        numbers = []
        for block in plan:
            numbers.append(seen[block])
            seen[block] += 1
        rows = np.concatenate(plan)
        visits = np.concatenate(numbers)
        together = int(TASK_ROWS // max(1.0, np.mean(self.sampler.cost)))
        tasks = [
            (rows[part], visits[part], self.tally.entropy) for part in chunks(len(rows), together)
        ]
        done = self.crew.run(_visit_rows, tasks)
        self.tally.evaluations += sum(cost for _, cost in done)
        return np.concatenate([estimates for estimates, _ in done])

    def _save(self) -> None:
        if self.budget.state is not None:
            self.tally.save(self.budget.state, self.sampler)

    def _told_to_stop(self) -> bool:
        callback = self.budget.callback
        return callback is not None and bool(callback(dict(self.info)))


def _enumerate_rows(sampler: Sampler, rows: np.ndarray) -> np.ndarray:
    """What a worker does for rows that are enumerated."""
    return sampler.evaluator.exact_values(rows, sampler.worth, sampler.shape[2])


def _visit_rows(
    sampler: Sampler, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
) -> tuple[np.ndarray, int]:
    """What a worker does for rows that are visited."""
    return sampler.visit(rows, visits, entropy)


def explain_each_row(
    evaluator: Evaluator,
    function: Callable[..., Any],
    settings: tuple[Any, ...],
    n_jobs: int | None,
    result: Callable[[np.ndarray, list[Any]], Explanation],
    progress: bool = False,
) -> Explanation:
    """``result`` of rows and of what ``function(evaluator, row, *settings)`` found for them;
    finished rows are kept."""
    tasks = [(row, *settings) for row in range(evaluator.n_rows)]
    try:
        done = Crew(evaluator, n_jobs).run(function, tasks, progress, "explained rows")
        return result(np.arange(evaluator.n_rows), done)
    except (Exception, KeyboardInterrupt) as problem:
        finished = enumerate(getattr(problem, "finished", []))
        done_rows = {row: part for row, part in finished if part is not None}
        if not done_rows:
            raise
        rows = np.array(list(done_rows))
        kept = result(rows, list(done_rows.values()))
        kept = replace(kept, info={**kept.info, "stopped": reason_of(problem), "rows": rows})
        note = "Finished rows are kept in this exception's attribute .partial."
        return hand_back(problem, kept, note)


def reason_of(problem: BaseException) -> str:
    """What ``info["stopped"]`` says after an exception."""
    return "interrupted" if isinstance(problem, KeyboardInterrupt) else "error"


def hand_back(problem: BaseException, kept: Kept, note: str) -> Kept:
    """What was finished: returned after Ctrl-C; after an error raised along with it, in
    ``.partial``."""
    if isinstance(problem, KeyboardInterrupt):
        return kept
    problem.partial = kept  # type: ignore[attr-defined]
    problem.add_note(note)
    raise problem
