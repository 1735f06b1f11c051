r"""Games: callables that value coalitions of players.

A game on :math:`n` players gives every coalition :math:`S \subseteq \{0, \dots, n-1\}` a value
:math:`v(S)`. Here a game is any callable that takes a boolean array ``(m, n)``, one coalition a
row, and returns ``(m, *payoff)``. Payoff axes are free: Shapley values are linear, so one call
can value a coalition for many rows and outputs at once.

Source: Shapley, "A Value for n-Person Games" (1953). Cost: as the game's own.

Chapter: foundations/exact
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from shaplab._groups import group_labels
from shaplab._validation import as_numbers, check_int, check_names, check_real, fail, shorten

__all__ = [
    "GroupedGame",
    "MeanGame",
    "TableGame",
    "all_coalitions",
    "company_game",
    "evaluate_game",
]

MAX_PLAYERS = 24
# What helps where there are more.
ESTIMATE = (
    "Group players, or estimate: estimate_values, of interactions max_evaluations=, of a "
    "model permutation_shap or kernel_shap"
)
MAX_TABLE = 2**31


def all_coalitions(n_players: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Coalitions number ``start`` to ``stop`` of ``n_players`` players.

    Bit ``i`` of a coalition's number tells whether player ``i`` is in.

    Parameters
    ----------
    n_players : int
    start, stop : int, by default all ``2**n_players``.

    Returns
    -------
    bool array ``(stop - start, n_players)``

    Examples
    --------
    >>> all_coalitions(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    n = check_players(n_players)
    numbers = np.arange(start, 2**n if stop is None else stop, dtype=np.int64)
    return (numbers[:, None] >> np.arange(n)) & 1 > 0


def evaluate_game(game: Callable[[np.ndarray], Any], coalitions: np.ndarray) -> np.ndarray:
    """Call a game and check what it returns.

    Parameters
    ----------
    game : callable, bool ``(m, n)`` to ``(m, *payoff)``.
    coalitions : bool array ``(m, n)``.

    Returns
    -------
    float64 array ``(m, *payoff)``

    Raises
    ------
    TypeError, ValueError
        When the game is not callable, returns another number of rows, or values that are not
        finite.
    """
    if not callable(game):
        fail(
            "game",
            "a callable of a boolean array (m, n)",
            game,
            "Wrap a table of values in TableGame",
            TypeError,
        )
    values = as_numbers(
        game(coalitions), "game", "numbers (m, *payoff)", "Return one array of numbers"
    )
    if values.ndim == 0 or values.shape[0] != len(coalitions):
        fail(
            "game",
            f"{len(coalitions)} values for {len(coalitions)} coalitions",
            f"shape {values.shape}",
            "Return one value (or one payoff array) for each row of the coalition array",
        )
    if not np.isfinite(values).all():
        worst = int(np.argwhere(~np.isfinite(values))[0][0])
        fail(
            "game",
            "finite values",
            f"{shorten(values[worst])} for coalition {np.flatnonzero(coalitions[worst]).tolist()}",
            "Check the game for this coalition",
        )
    return values


def check_coalitions(coalitions: Any, n_players: int) -> np.ndarray:
    """Return coalitions as a boolean array ``(m, n_players)``."""
    present = np.asarray(coalitions, dtype=bool)
    if present.ndim != 2 or present.shape[1] != n_players:
        fail("coalitions", f"a boolean array (m, {n_players})", present, "Give one coalition a row")
    return present


def check_same_players(game: Any, n_players: int) -> None:
    """Require as many players as a game that knows its number has."""
    known = getattr(game, "n_players", n_players)
    if known != n_players:
        fail(
            "n_players", f"{known}, the players of this game", str(n_players), "Pass game.n_players"
        )


def iterate_game(
    game: Callable[[np.ndarray], Any], n_players: int, batch: int = 2**12
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all coalitions and their values in batches, so that memory stays bounded."""
    check_same_players(game, n_players)
    total = 2**n_players
    for start in range(0, total, batch):
        coalitions = all_coalitions(n_players, start, min(start + batch, total))
        yield coalitions, evaluate_game(game, coalitions)


def check_players(
    n_players: Any, *, minimum: int = 1, maximum: int = MAX_PLAYERS, instead: str = ESTIMATE
) -> int:
    """Return ``n_players`` when enumeration can hold it."""
    n = check_int(n_players, "n_players", minimum=minimum)
    if n > maximum:
        # Floats end at 2**1024.
        count = f"2**{n} = {2.0**n:.1e}" if n < 1024 else f"2**{n}"
        fail(
            "n_players",
            f"at most {maximum} for exact enumeration",
            f"{n}, that is {count} coalitions",
            instead.format(n=n, budget=20 * n),
        )
    return n


class TableGame:
    """A game given by its table of values.

    Parameters
    ----------
    values : array ``(2**n, *payoff)`` where entry ``s`` is the value of the coalition whose members
        are the set bits of ``s``, or a dict from tuples of players to values (coalitions left out
        are worth 0).
    names : sequence of different names, needed for a dict keyed by names.

    Examples
    --------
    >>> glove = TableGame({("left",): 0, ("left", "right"): 1}, names=["left", "right"])
    >>> glove(np.array([[True, False], [True, True]]))
    array([0., 1.])
    """

    def __init__(self, values: Any, names: Any = None) -> None:
        is_dict = isinstance(values, dict)
        table = _table_of_dict(values, names) if is_dict else as_numbers(values, "values").copy()
        n = int(np.log2(max(1, len(table)))) if table.ndim else 0
        if table.ndim == 0 or n < 1 or len(table) != 2**n:
            fail(
                "values",
                "2**n values for n >= 1 players",
                f"shape {table.shape}",
                "Give one value for every coalition, the empty one first",
            )
        self.n_players = check_players(n)
        self.names = check_names(range(n) if names is None else names, n, "names") or ()
        self.table = table
        self.table.flags.writeable = False

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        present = check_coalitions(coalitions, self.n_players)
        return self.table[present @ (1 << np.arange(self.n_players))]

    @classmethod
    def of(
        cls, game: Callable[[np.ndarray], Any], n_players: int, names: Sequence[str] | None = None
    ) -> TableGame:
        """Tabulate any game on a few players."""
        n = check_players(n_players)
        _, payoff = next(iterate_game(game, n, 1))
        size = payoff.nbytes << n
        if size > MAX_TABLE:
            fail(
                "n_players",
                f"a table of at most {MAX_TABLE >> 30} GiB",
                f"{size / 2**30:.0f} GiB: 2**{n} payoffs of shape {payoff.shape[1:]}",
                "Tabulate fewer rows at a time, or group players",
            )
        return cls(np.concatenate([values for _, values in iterate_game(game, n)]), names)


def _table_of_dict(values: dict[Any, Any], names: Any) -> np.ndarray:
    """The table ``(2**n,)`` of a dict from tuples of names to numbers."""
    if isinstance(names, str) or not hasattr(names, "__len__"):
        fail(
            "names",
            "the players' names beside a dict of values",
            repr(names),
            "Pass names=[...]",
            TypeError,
        )
    position = {name: i for i, name in enumerate(names)}
    if len(position) < len(names):
        fail(
            "names",
            "different names",
            f"{len(names)} names, {len(position)} different",
            "Rename some",
        )
    table = np.zeros(2 ** check_players(len(names)))
    for members, value in values.items():
        if not isinstance(members, Iterable):
            fail(
                "values",
                "tuples of players as keys",
                shorten(repr(members)),
                f"Write ({members!r},)",
            )
        unknown = [member for member in members if member not in position]
        if unknown:
            fail(
                "values",
                f"players among {shorten(', '.join(map(str, names)))}",
                repr(shorten(unknown[0])),
                "Check the names in the coalition",
            )
        worth = as_numbers(value, "values", "numbers as values")
        if worth.ndim:
            fail(
                "values",
                "one number for each coalition",
                worth,
                "Give an array for payoffs with axes",
            )
        number = sum(1 << position[member] for member in set(members))
        table[number] = worth
    return table


class GroupedGame:
    """The same game played by groups: a group's features enter and leave together.

    Parameters
    ----------
    game : callable on ``n`` players.
    groups : list of lists of player numbers; each player in exactly one group.

    Notes
    -----
    The Shapley value of a group in this game is in general not the sum of its members' Shapley
    values in the original game.
    """

    def __init__(self, game: Callable[[np.ndarray], Any], groups: Sequence[Sequence[int]]) -> None:
        self.game = game
        self.label, self.names = group_labels(groups, None)
        self.n_players = len(self.names)

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        return evaluate_game(self.game, check_coalitions(coalitions, self.n_players)[:, self.label])


class MeanGame:
    """Minus the mean over rows of a game whose payoff has a first axis of rows.

    With a loss game inside, this is SAGE's game: how much a coalition of features lowers the mean
    loss, up to the constant of the empty coalition.

    Parameters
    ----------
    game : callable, bool ``(m, n)`` to ``(m, N, ...)``.
    sign : -1 for losses (lower is better), +1 for gains.
    """

    def __init__(self, game: Callable[[np.ndarray], Any], sign: int = -1) -> None:
        self.game = game
        self.sign = sign
        if sign not in (-1, 1):
            fail("sign", "-1 for losses or 1 for gains", repr(sign), "Pass one of the two")

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        values = evaluate_game(self.game, coalitions)
        if values.ndim < 2:
            fail(
                "game",
                "a payoff whose first axis are rows",
                "one number for each coalition",
                "Use a game of many rows, such as LossOfMean",
            )
        return self.sign * values.mean(axis=1)


def company_game(profit: float = 1_000_000.0) -> TableGame:
    """The company that shares its profit as bonuses.

    Five players: a CEO, two engineers and two new hires. Everybody together earns ``profit``;
    without the CEO half of it; without the new hires 95% of it; nobody earns nothing. The source
    gives these four values; the others are ours: an engineer carries the product, the second
    engineer adds less than the first, the CEO doubles what the staff makes, and each new hire adds
    a little when an engineer is there.

    Parameters
    ----------
    profit : float, in dollars a year.

    Returns
    -------
    TableGame with players CEO, Ann, Bob, Cleo, Dan.

    References
    ----------
    Covert, "Explaining machine learning models with SHAP and SAGE" (2020).
    """
    names = ("CEO", "Ann", "Bob", "Cleo", "Dan")
    coalitions = all_coalitions(5)
    engineers = coalitions[:, 1].astype(int) + coalitions[:, 2]
    hires = coalitions[:, 3].astype(int) + coalitions[:, 4]
    staff = np.array([0.0, 0.6, 0.95])[engineers] + 0.025 * hires * (engineers > 0)
    return TableGame(
        check_real(profit, "profit") * staff * np.where(coalitions[:, 0], 1.0, 0.5), names
    )
