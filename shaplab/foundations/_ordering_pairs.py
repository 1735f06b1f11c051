r"""Pairs of opposite orderings of a game: what they ask for, what players add, how precise that is.

A pair walks an ordering there and the opposite one back, and asks for what is present on the way.
Games that answer the same each time are asked for every coalition once, from the store of
``answers``; pairs follow from the store's entropy, so a run goes on from its file. Games that draw
what is absent draw anew for each pair, which is asked for as a whole: their file keeps the sums
over pairs.

Cost: :math:`2 (n - 1)` values of the game a pair at most.

Chapter: foundations/structures
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from joblib import effective_n_jobs

from shaplab._atomic import write_atomically
from shaplab._parallel import Crew, chunks, progress_bar
from shaplab._validation import fail
from shaplab.foundations._sampling import Budget, draw_entropy
from shaplab.foundations._structure import PartialOrder, Unions, both_ways
from shaplab.foundations.answers import Answers, widened
from shaplab.foundations.games import evaluate_game

__all__: list[str] = []

# Pairs of orderings without a budget, and those below which their spread is not told as an error.
PAIRS = 50
PAIRS_FOR_ERROR = 16
# Coalitions without a budget, if precision is asked for.
MOST_VALUED = 2**17
# Truth values in the coalitions that are looked at together.
CELLS = 2**22


class PairMoments:
    """Running mean and spread of what pairs of orderings say."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        # The root of the summed squares: squares of huge or tiny payoffs are no floats.
        self.away: Any = 0.0

    def add(self, estimates: np.ndarray) -> None:
        """Add estimates ``(w, n, *payoff)``, one after the other."""
        for estimate in estimates:
            self.count += 1
            before = estimate - self.mean
            self.mean = self.mean + before / self.count
            step = np.abs(before) * np.sqrt(1.0 - 1.0 / self.count)
            self.away = np.hypot(self.away, step)

    def std(self) -> np.ndarray:
        """Standard errors of the mean, NaN for too few pairs."""
        if self.count < PAIRS_FOR_ERROR:
            return np.full(np.shape(self.mean), np.nan)
        return np.asarray(self.away / np.sqrt((self.count - 1.0) * self.count))


class Walked(NamedTuple):
    """Pairs of orderings as a game sees them: ranks of players ``(w, 2, n)``, different coalitions
    ``(u, n)`` in the order in which pairs meet them, and which of these each step has
    ``(w, 2, n - 1)``."""

    rank: np.ndarray
    coalitions: np.ndarray
    steps: np.ndarray


def walk_pairs(orders: np.ndarray) -> Walked:
    """What pairs of orderings ``(2, w, n)`` ask for, nobody and everybody left out."""
    n = orders.shape[2]
    rank = orders.swapaxes(0, 1).argsort(axis=2)
    present = rank[:, :, None, :] < np.arange(1, n)[:, None]
    packed = np.packbits(present.reshape(-1, n), axis=1)
    different, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    by_first = first.argsort()
    coalitions = np.unpackbits(different[by_first], axis=1, count=n).astype(bool)
    steps = by_first.argsort()[place.ravel()]
    return Walked(rank, coalitions, steps.reshape(*rank.shape[:2], n - 1))


def what_players_add(walked: Walked, values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The mean of both ways ``(w, n, K)``, from values ``(u, K)`` of coalitions and ``(2, K)`` of
    nobody and everybody."""
    known = np.concatenate([values.reshape(-1, ends.shape[1]), ends])
    along = np.pad(walked.steps, ((0, 0), (0, 0), (1, 1)), constant_values=len(values))
    along[:, :, -1] = len(values) + 1
    added = np.diff(known[along], axis=2)
    of_player = np.take_along_axis(added, walked.rank[..., None], axis=2)
    return np.asarray(of_player.mean(axis=1))


class AskedPairs:
    """Pairs of orderings of a game that answers the same each time: no coalition is asked for
    twice but, if it ``checks``, everybody and one more, which show whether it does."""

    def __init__(self, answers: Answers, structure: Unions | PartialOrder, checks: bool) -> None:
        self.answers = answers
        self.structure = structure
        self.checks = checks or answers.resumed
        self.moments = PairMoments()
        self.generator = np.random.default_rng(np.random.SeedSequence(answers.entropy))
        self.ahead = np.zeros((2, 0, structure.n_players), dtype=int)
        self.both_ends = np.array([[False] * answers.n, [True] * answers.n])

    @property
    def ends(self) -> np.ndarray:
        """Values ``(2, K)`` of nobody and everybody."""
        return self.answers.values(self.both_ends)

    @property
    def payoff(self) -> tuple[int, ...]:
        return next(iter(self.answers.known.values())).shape

    @property
    def evaluations(self) -> int:
        return self.answers.asked

    def reach(self, target: int) -> None:
        """Walk until there are so many pairs."""
        n = self.answers.n
        # Sums of payoffs are held for all steps of the pairs that are looked at together.
        together = max(1, CELLS // (n * max(n, self.ends.size)))
        while self.moments.count < target:
            count = min(together, target - self.moments.count)
            uniform = self.generator.random((count, self.structure.n_keys))
            self.ahead = both_ways(self.structure, uniform)
            walked = walk_pairs(self.ahead)
            self.answers.ask(walked.coalitions)
            if self.checks:
                again = np.concatenate([self.both_ends[1:], walked.coalitions[:1]])
                self.answers.check_same_answer(again)
                self.checks = False
            self.add(walked)

    def add(self, walked: Walked) -> None:
        """Count pairs whose coalitions are known."""
        values = self.answers.values(walked.coalitions) if len(walked.coalitions) else self.ends[:0]
        self.moments.add(what_players_add(walked, values, self.ends))
        self.ahead = self.ahead[:, len(walked.rank) :]

    def add_what_is_known(self) -> None:
        """Count the pairs that an exception left behind, as far as their coalitions are known."""
        while self.ahead.shape[1]:
            walked = walk_pairs(self.ahead[:, :1])
            if self.answers.count_known(walked.coalitions) < len(walked.coalitions):
                return
            self.add(walked)

    @property
    def nobody(self) -> np.ndarray:
        """Nobody's value ``(K,)``."""
        return self.ends[0]


class RedrawnPairs:
    """Pairs of orderings of a game that draws anew for each of them."""

    def __init__(
        self, game: Any, structure: Unions | PartialOrder, budget: Budget, batch_size: int
    ) -> None:
        self.structure = structure
        self.batch_size = batch_size
        self.budget = budget
        self.crew = Crew(game, budget.n_jobs)
        self.entropy = draw_entropy(budget.rng)
        self.moments = PairMoments()
        everybody = evaluate_game(game, np.ones((1, structure.n_players), dtype=bool))
        self.payoff = everybody.shape[1:]
        self.everybody = everybody.reshape(1, -1)
        self.evaluations = 1
        self.nobodies: Any = 0.0
        self.mark = [type(game).__name__, repr(structure), structure.n_players]
        if budget.state is not None and budget.state.exists():
            self._load(budget.state)
        self.bar = progress_bar(0, budget.progress, "pairs of orderings")

    @property
    def nobody(self) -> np.ndarray:
        """Nobody's value ``(K,)``, the mean over pairs."""
        return np.asarray(self.nobodies / self.moments.count)

    @property
    def ends(self) -> np.ndarray:
        """Values ``(2, K)`` of nobody and everybody."""
        return np.concatenate([self.nobody[None], self.everybody])

    def reach(self, target: int) -> None:
        """Walk until there are so many pairs; those of a batch are kept together."""
        self.bar.total = target
        self.bar.update(self.moments.count - self.bar.n)
        together = 4 * effective_n_jobs(self.budget.n_jobs)
        numbers = np.arange(self.moments.count, target)
        for part in chunks(len(numbers), together):
            tasks = [
                (number, self.entropy, self.structure, self.everybody, self.batch_size)
                for number in numbers[part]
            ]
            try:
                done = self.crew.run(_redrawn_pair, tasks)
            except BaseException as problem:
                # What comes after one that is missing is another run's beginning.
                finished = getattr(problem, "finished", [])
                self._add(list(_before_none(finished)))
                raise
            self._add(done)

    def add_what_is_known(self) -> None:
        """Nothing: finished pairs are counted already."""

    def _add(self, done: list[Any]) -> None:
        for estimates, nobody, valued in done:
            self.moments.add(estimates)
            self.nobodies = self.nobodies + nobody
            self.evaluations += valued
            self.bar.update()
        if self.budget.state is not None and self.moments.count:
            self._save(self.budget.state)

    def _save(self, path: Path) -> None:
        header = json.dumps([self.mark, self.entropy, self.moments.count, self.evaluations])
        arrays: dict[str, Any] = {
            "mean": self.moments.mean,
            "away": self.moments.away,
            "nobodies": self.nobodies,
            "everybody": self.everybody,
            "header": np.frombuffer(header.encode(), dtype=np.uint8),
        }
        write_atomically(path, lambda file: np.savez(file, **arrays))

    def _load(self, path: Path) -> None:
        """Continue from a file of the same question."""
        try:
            with np.load(path, allow_pickle=False) as file:
                mark, entropy, count, evaluations = json.loads(bytes(file["header"]))
                mean, away = file["mean"], file["away"]
                nobodies, everybody = file["nobodies"], file["everybody"]
        except (OSError, KeyError, ValueError, BadZipFile) as problem:
            fail("state", "a file written by this function", str(problem), "Name another file")
        same_rows = everybody.shape == self.everybody.shape and np.allclose(
            everybody, self.everybody, rtol=1e-6
        )
        if mark != self.mark or not same_rows:
            fail(
                "state",
                "a run of the same game, rows and structure",
                f"another one in {path.name}",
                "Delete it or name another file",
            )
        self.moments.count, self.moments.mean, self.moments.away = count, mean, away
        self.entropy = entropy
        self.evaluations = evaluations
        self.nobodies = nobodies


def _before_none(finished: list[Any]) -> Any:
    """What was finished before the first task that was not."""
    for part in finished:
        if part is None:
            return
        yield part


def _redrawn_pair(
    game: Any,
    number: int,
    entropy: list[int],
    structure: Unions | PartialOrder,
    everybody: np.ndarray,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """What a worker does for a pair: estimates ``(1, n, K)``, nobody's value ``(K,)``, coalitions
    that were valued."""
    seed = np.random.SeedSequence(entropy, spawn_key=(int(number),))
    generator = np.random.default_rng(seed)
    orders = both_ways(structure, generator.random((1, structure.n_keys)))
    drawn = game.drawn_anew(generator)
    nobody = evaluate_game(drawn, np.zeros((1, structure.n_players), dtype=bool)).reshape(1, -1)
    walked = walk_pairs(orders)
    coalitions = walked.coalitions
    values = [
        evaluate_game(drawn, coalitions[part]).reshape(-1, everybody.shape[1])
        for part in chunks(len(coalitions), batch_size)
    ]
    ends = np.concatenate([nobody, everybody])
    estimates = what_players_add(walked, np.concatenate([*values, ends[:0]]), ends)
    return estimates, nobody[0], len(coalitions) + 1


def walk_until_precise(
    pairs: AskedPairs | RedrawnPairs,
    most: int,
    budget: Budget,
    units: Callable[[np.ndarray], np.ndarray] | None,
) -> str:
    """Walk pairs until they are precise enough, or ``most`` of them; why it ended.

    ``units`` turns what players add ``(n, K)`` into ``(U, n, K)``: each unit is to be precise by
    itself. None spends the budget.
    """
    target = most if units is None else min(most, PAIRS_FOR_ERROR)
    target = min(most, max(target, pairs.moments.count))
    while True:
        pairs.reach(target)
        if units is None:
            return "budget"
        allowed = budget.allowed_error(units(pairs.moments.mean), float(np.abs(pairs.ends).max()))
        std = pairs.moments.std()
        # Few pairs do not know their error well: what counts is what an interval makes of it.
        wide = widened(std, np.full(std.shape, max(1.0, target - 1.0)))
        ratio = float((units(wide).max(axis=(1, 2)) / allowed).max())
        if ratio <= 1.0:
            return "precision"
        if target == most:
            return "budget"
        # Errors fall with the root of the pairs; a forecast is trusted up to twice what there is.
        ahead = np.clip(target * ratio**2, 1.1 * target + 1, 2 * target)
        target = int(min(most, ahead))


def count_pairs(n: int, budget: Budget, whole: bool, costs: tuple[int, int]) -> int:
    """Pairs of orderings that a budget of coalitions has room for; ``costs`` are coalitions that
    are valued once, and by each pair."""
    once, each = costs
    if budget.max_evaluations is None:
        return PAIRS if whole or n == 1 else max(PAIRS, MOST_VALUED // each)
    least = once + each
    if budget.max_evaluations < least:
        fail(
            "max_evaluations",
            f"at least {least}: nobody, everybody, and one ordering there and back",
            str(budget.max_evaluations),
            f"Pass {least} or more, or join players in groups",
        )
    # One player has one ordering, which costs nothing more.
    return PAIRS if n == 1 else (budget.max_evaluations - once) // each
