"""Parts of one input as players: what games of words and of regions have in common.

Such a game shows a model the input with some of its parts present, a batch at a time, and gives
back what it says. Cost: one row of the model for each coalition.

Chapter: players/words
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from shaplab._parallel import chunks
from shaplab._validation import (
    as_finite,
    check_callable,
    check_int,
    check_outputs,
    fail,
    has,
    imported,
)
from shaplab.explanation import Explanation
from shaplab.foundations.games import check_coalitions


class PartsGame(ABC):
    """The game of the parts of one input; a class for one kind of input says what is shown."""

    # What the players are called in the method of an explanation.
    kind = "parts"
    n_players: int
    names: tuple[str, ...]
    absent: str

    def __init__(self, model: Callable[..., Any], batch_size: int, *, with_torch: bool) -> None:
        self.model = check_callable(model, "model")
        if getattr(model, "training", False):
            fail(
                "model",
                "a network in evaluation mode",
                "one in training mode",
                "Call model.eval() first",
            )
        self.batch_size = check_int(batch_size, "batch_size")
        self.torch: Any = imported("torch", "model") if with_torch else None

    @abstractmethod
    def shown(self, present: np.ndarray) -> tuple[Any, ...]:
        """What the model takes for coalitions ``(m, n_players)``."""

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        present = check_coalitions(coalitions, self.n_players)
        if not len(present):
            # Only the model knows how many outputs it has.
            return self(np.ones((1, self.n_players), dtype=bool))[:0]
        outputs = []
        # Gradients would keep every layer of every input in memory.
        with nullcontext() if self.torch is None else self.torch.no_grad():
            for part in chunks(len(present), self.batch_size):
                answer = self.model(*self.shown(present[part]))
                # NumPy does not know bfloat16.
                answer = answer.double() if has(answer, "detach", "double") else answer
                outputs.append(check_outputs(answer, len(present[part])))
        return np.concatenate(outputs)

    def explanation(self, values: Any, *, std: Any = None, method: str = "") -> Explanation:
        """Values of the players ``(n_players,)`` or ``(n_players, K)``, and their standard errors,
        as an Explanation of one row: for ``plots.text``, ``plots.regions`` and all that takes
        one."""
        base_values = self(np.zeros((1, self.n_players), dtype=bool))
        expected = (self.n_players, *base_values.shape[1:])
        return Explanation(
            values=as_finite(values, "values", expected, "Pass values of this game")[None],
            std=None if std is None else np.asarray(std)[None],
            base_values=base_values,
            feature_names=self.names,
            method=method or f"{self.kind} ({self.absent})",
        )


def sums_of_players(amounts: np.ndarray, owners: np.ndarray, n_players: int) -> np.ndarray:
    """Sums ``(n_players, ...)`` of what belongs to places ``(*places, ...)``, each of which has an
    owner ``(*places)``, -1 for none."""
    total = np.zeros((n_players, *amounts.shape[owners.ndim :]))
    is_owned = owners >= 0
    np.add.at(total, owners[is_owned], amounts[is_owned])
    return total
