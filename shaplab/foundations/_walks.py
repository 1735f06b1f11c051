"""Walks: orderings of players along which a reference row turns into an explained row.

A walk has an explained row, an ordering and some references. Step by step the next player's columns
are taken from the row. An *antithetic* walk goes the same way back: it adds the first players of
the ordering to the references and, at the same step, takes them away from the whole row. What is
left are the complements of what was present on the way there.

Cost: at most ``p - 1`` model rows for ``p`` players, reference and direction; a step that changes
no value costs nothing.

Chapter: foundations/permutation
"""

from __future__ import annotations

import numpy as np

from shaplab.foundations._evaluate import Evaluator

__all__: list[str] = []


def outputs_along(
    evaluator: Evaluator, rank: np.ndarray, rows: np.ndarray, references: np.ndarray
) -> tuple[np.ndarray, int]:
    """Outputs ``(w, p + 1, m, K)`` along walks, and the model rows that they cost.

    ``rank`` ``(w, p)`` is each player's place in the ordering, ``rows`` ``(w,)`` and ``references``
    ``(w, m)`` are numbers of rows.
    """
    shape = (*references.shape, evaluator.n_active)
    order = np.broadcast_to(rank.argsort(axis=1)[:, None], shape)
    differs = evaluator.differs(rows[:, None], references)
    # How many players that differ have been added after each step.
    changes = np.take_along_axis(differs, order, axis=2).cumsum(axis=2)
    started = changes > 0
    # Before the first change the row is the reference, after the last one it is the explained row.
    inside = started & (changes < changes[:, :, -1:])
    fresh = inside & (np.diff(changes, axis=2, prepend=0) > 0)
    walk, reference, step = np.nonzero(fresh)
    outputs = evaluator.outputs(
        rank[walk] <= step[:, None], rows[walk], references[walk, reference]
    )
    # A step that changes nothing has the output of the last one that did.
    latest = (fresh.ravel().cumsum() - 1).reshape(fresh.shape)
    low = evaluator.reference_outputs[references][:, :, None]
    high = np.broadcast_to(evaluator.row_outputs[rows][:, None, None], low.shape)
    values = np.where(started[..., None], high, low)
    values[inside] = outputs[latest[inside]]
    values[:, :, -1:] = high
    return np.concatenate([low, values], axis=2).swapaxes(1, 2), len(outputs)


def outputs_both_ways(
    evaluator: Evaluator, rank: np.ndarray, rows: np.ndarray, references: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Outputs ``(w, p + 1, m, K)`` of antithetic walks: on the way there, on the way back, and what
    they cost.

    ``references`` is ``(w, 2, m)``: those of the way there, and those of the way back.
    """
    # Taking players away is adding them in the opposite order, read backwards.
    opposite = evaluator.n_active - 1 - rank
    outputs, cost = outputs_along(
        evaluator,
        np.concatenate([rank, opposite]),
        np.tile(rows, 2),
        np.concatenate([references[:, 0], references[:, 1]]),
    )
    count = len(rank)
    return outputs[:count], outputs[count:, ::-1], cost


def step_contributions(adding: np.ndarray, removing: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """What each player changes ``(w, p, K)``, the mean of both ways, from values ``(w, p + 1, K)``
    along them."""
    steps = (np.diff(adding, axis=1) - np.diff(removing, axis=1)) / 2
    return np.take_along_axis(steps, rank[:, :, None], axis=1)
