r"""What a game has answered, and what its values are thought to be: one store of paid coalitions,
and one result for everything that is estimated from them.

A coalition is asked for once and kept, by its members' bits, and in a file as well: a run that is
stopped goes on from there, and so does another function that asks the same game. Batches are asked
for in parallel; what was answered before an exception is kept.

Cost: one look-up a coalition beside the game's own time.

Chapter: foundations/permutation
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from joblib import effective_n_jobs
from scipy.stats import t as student

from shaplab._atomic import write_atomically
from shaplab._parallel import Crew, chunks, progress_bar
from shaplab._units import unit_near
from shaplab._validation import check_real, digits, fail, imported, shorten
from shaplab.foundations._sampling import Budget, draw_entropy
from shaplab.foundations.exact import Game
from shaplab.foundations.games import evaluate_game

__all__ = ["EstimatedValues"]

# Standard errors to either side of an interval of 95%, were they known.
NORMAL = 1.96
# How much two answers for one coalition may differ, relative to the game's scale: single-precision
# networks move by about 1e-6 between batches.
SAME_ANSWER = 1e-5


@dataclass(frozen=True, eq=False, repr=False)
class EstimatedValues:
    """Shapley values of a game with what is known of their errors.

    Parameters
    ----------
    values : array ``(n, *payoff)``, in the payoff's unit; they sum to ``total``.
    std : standard errors of that shape, so wide that ``values +- 1.96 std`` is the interval of 95%
        whatever ``freedom`` is; None when values are exact, NaN when there were too few
        evaluations to tell.
    total : array ``payoff``, what everybody is worth beyond nobody.
    evaluations : coalitions that were asked for.
    sizes : int array ``(n + 1,)``, coalitions of each size that were valued. What happens only in
        sizes of which few were is in no interval.
    freedom : degrees of freedom behind ``std``, of its shape; None when values are exact.
    stopped : ``"exact"``, ``"precision"``, ``"budget"``, ``"interrupted"`` or ``"error"``.
    least : evaluations from which on there are standard errors.
    names : the players' names, or None.
    """

    values: np.ndarray
    std: np.ndarray | None
    total: np.ndarray
    evaluations: int
    sizes: np.ndarray
    freedom: np.ndarray | None
    stopped: str
    least: int = 1
    names: tuple[str, ...] | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.asarray(self.values, dtype=dtype)
        return values.copy() if copy else values

    def __len__(self) -> int:
        return len(self.values)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Student intervals: arrays ``low`` and ``high`` of the shape of ``values``."""
        level = check_real(level, "level", low=0.0, high=1.0, open_low=True)
        if self.std is None or self.freedom is None:
            return self.values, self.values
        if np.isnan(self.std).any():
            fail(
                "max_evaluations",
                f"at least {self.least} evaluations for an interval",
                str(self.evaluations),
                "Values without standard errors are a best guess",
            )
        # An error of zero stays zero at any level, where the quantile may be infinite.
        quantile = np.where(self.std == 0.0, 0.0, _quantile(level, self.freedom))
        reach = self.std * NORMAL * quantile / _quantile(0.95, self.freedom)
        return self.values - reach, self.values + reach

    def to_frame(self) -> Any:
        """A pandas DataFrame, one player a row: values, then standard errors."""
        pd = imported("pandas", "to_frame")
        labels: Any = self.names or range(len(self))
        payoffs = list(np.ndindex(self.values.shape[1:]))
        columns = {}
        for kind, numbers in (("value", self.values), ("std", self.std)):
            for payoff in payoffs if numbers is not None else []:
                label = ", ".join([kind, *(str(place) for place in payoff)])
                columns[label] = np.asarray(numbers)[(slice(None), *payoff)]
        return pd.DataFrame(columns, index=pd.Index(labels, name="player"))

    def __repr__(self) -> str:
        head = f"EstimatedValues({len(self)} players, {self.evaluations} evaluations"
        head += f", stopped: {self.stopped})"
        if self.values.ndim > 1:
            return f"{head}: payoffs of shape {self.values.shape[1:]}"
        lines = [head]
        labels = self.names or [str(player) for player in range(len(self))]
        for player in np.argsort(-np.abs(self.values), kind="stable")[:10]:
            line = f"  {shorten(labels[player])}: {digits(self.values[player])}"
            if self.std is not None:
                line += f" +- {digits(self.std[player])}"
            lines.append(line)
        if len(self) > 10:
            lines.append(f"  and {len(self) - 10} more")
        return "\n".join(lines)


def widened(std: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Standard errors that make intervals of 95% without a table of quantiles."""
    return _quantile(0.95, freedom) / NORMAL * std


def _quantile(level: float, freedom: np.ndarray) -> np.ndarray:
    """How many standard errors an interval reaches to either side."""
    return np.asarray(student.ppf(0.5 + level / 2, freedom))


class Answers:
    """What a game has answered: every coalition is asked for once, and kept, in a file as well."""

    def __init__(self, game: Game, n: int, budget: Budget, batch_size: int) -> None:
        self.game = game
        self.n = n
        self.budget = budget
        self.batch_size = batch_size
        self.crew = Crew(game, budget.n_jobs)
        self.known: dict[bytes, np.ndarray] = {}
        # Coalitions that were asked for once more.
        self.repeated = 0
        self.entropy = draw_entropy(budget.rng)
        self.resumed = budget.state is not None and budget.state.exists()
        if self.resumed:
            self._load(budget.state)
        self.bar = progress_bar(0, budget.progress, "coalitions")

    @property
    def asked(self) -> int:
        """How many questions there were, those of earlier runs included."""
        return len(self.known) + self.repeated

    def ask(self, coalitions: np.ndarray) -> None:
        """Ask for those that are not known yet, each once, some at a time."""
        fresh: dict[bytes, int] = {}
        for place, key in enumerate(self._keys(coalitions)):
            if key not in self.known:
                fresh.setdefault(key, place)
        unknown = coalitions[list(fresh.values())]
        self.bar.total = self.asked + len(unknown)
        self.bar.refresh()
        workers = effective_n_jobs(self.budget.n_jobs)
        # Every worker gets a few batches before what they answered is kept.
        together = self.batch_size * (1 if workers == 1 else 2 * workers)
        for part in chunks(len(unknown), together):
            self._ask_together(unknown[part])

    def _ask_together(self, coalitions: np.ndarray) -> None:
        """Ask in parallel, and keep what was answered before an exception."""
        tasks = [(coalitions[part],) for part in chunks(len(coalitions), self.batch_size)]
        try:
            answered = self.crew.run(evaluate_game, tasks)
        except BaseException as problem:
            answered = getattr(problem, "finished", [])
            self._keep(tasks[: len(answered)], answered)
            raise
        self._keep(tasks, answered)

    def _keep(self, tasks: list[Any], answered: list[Any]) -> None:
        for (coalitions,), values in zip(tasks, answered, strict=True):
            if values is None:
                continue
            self._check_shape(values)
            self.known.update(zip(self._keys(coalitions), values, strict=True))
            self.bar.update(len(coalitions))
        if self.budget.state is not None and self.known:
            self._save(self.budget.state)

    def _check_shape(self, values: np.ndarray) -> None:
        for before in self.known.values():
            if before.shape != values.shape[1:]:
                fail(
                    "game",
                    f"payoffs of shape {before.shape}, as before",
                    f"shape {values.shape[1:]}",
                    "Return payoffs of one shape for all coalitions",
                )
            return

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        """What is known of coalitions: payoffs as one axis, ``(m, K)``."""
        known = [self.known[key] for key in self._keys(coalitions)]
        return np.array(known).reshape(len(known), -1)

    def count_known(self, coalitions: np.ndarray) -> int:
        """How many of these, one after the other, are known."""
        for count, key in enumerate(self._keys(coalitions)):
            if key not in self.known:
                return count
        return len(coalitions)

    def check_same_answer(self, coalitions: np.ndarray) -> None:
        """Ask once more for coalitions that are known: the game must answer the same."""
        again = evaluate_game(self.game, coalitions).reshape(len(coalitions), -1)
        self.repeated = len(coalitions)
        before = self.values(coalitions)
        if again.shape == before.shape:
            moved = np.abs(again - before).max(axis=1)
            if moved.max() <= SAME_ANSWER * self.scale():
                return
            which = int(moved.argmax())
            told = f"{shorten(before[which])} and then {shorten(again[which])}"
            told += f" for the coalition of {int(coalitions[which].sum())} players"
        else:
            told = f"payoffs of {before.shape[1]} and then of {again.shape[1]} numbers"
        fail(
            "game",
            "the same value each time a coalition is asked for",
            told,
            "Fix the game's own seed, or give state= a file of this game",
        )

    def scale(self) -> float:
        """The largest payoff that is known."""
        return float(max(np.abs(values).max() for values in self.known.values()))

    def unit(self) -> float:
        """A unit near the largest payoff, for whatever is squared."""
        return unit_near(self.scale())

    def count_sizes(self) -> np.ndarray:
        """How many coalitions of each size, ``(n + 1,)``, are known."""
        packed = np.frombuffer(b"".join(self.known), dtype=np.uint8).reshape(len(self.known), -1)
        sizes = np.bitwise_count(packed).sum(axis=1, dtype=np.int64)
        return np.bincount(sizes, minlength=self.n + 1)

    @staticmethod
    def _keys(coalitions: np.ndarray) -> list[bytes]:
        return [packed.tobytes() for packed in np.packbits(coalitions, axis=1)]

    def _save(self, path: Path) -> None:
        header = json.dumps([self.n, self.entropy])
        arrays: dict[str, Any] = {
            "keys": np.frombuffer(b"".join(self.known), dtype=np.uint8),
            "values": np.array(list(self.known.values())),
            "header": np.frombuffer(header.encode(), dtype=np.uint8),
        }
        write_atomically(path, lambda file: np.savez(file, **arrays))

    def _load(self, path: Path) -> None:
        """Continue from a file of the same question."""
        try:
            with np.load(path, allow_pickle=False) as file:
                n, entropy = json.loads(bytes(file["header"]))
                keys = file["keys"].reshape(-1, (n + 7) // 8)
                values = file["values"]
        except (OSError, KeyError, ValueError, BadZipFile) as problem:
            fail("state", "a file written by this function", str(problem), "Name another file")
        if n != self.n:
            fail(
                "state",
                f"a game of {self.n} players",
                f"{n} players in {path.name}",
                "Name another file",
            )
        if self.budget.rng is not None and entropy != self.entropy:
            fail(
                "rng",
                f"the seed that {path.name} was started with",
                "another seed",
                "Pass the same rng, or rng=None",
            )
        self.known = {key.tobytes(): value for key, value in zip(keys, values, strict=True)}
        # The order of pairs goes on as it began.
        self.entropy = entropy
