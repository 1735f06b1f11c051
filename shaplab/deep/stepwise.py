"""DeepSHAP in steps: nearer to the Shapley values, for a few passes more.

``deep_shap`` goes from a reference row to the explained row in one step, in which every feature
changes at once; what a rule gets wrong, it gets wrong there. ``permutation_shap`` goes in ``n``
steps, one feature each, and gets nothing wrong but has to draw many orderings. Between them lies
this: cut a random ordering of the features into ``steps`` blocks, walk from the reference to the
row block by block, and let the rules share out each step among the features that change in it.
Each ordering is walked backwards, too.

Theorem: if the rules were exact in each step, the mean over all orderings would be the Shapley
values, for any number of steps (proved in the chapter). So the orderings add noise but no bias, and
what is left of the rules' bias comes from games with ``1 / steps`` of the players. With
``steps=1`` it is ``deep_shap``, with as many steps as features it is permutation sampling.

Cost: ``N * B * orderings * steps`` pairs of rows, each two rows forward and one backward for each
output.

Chapter: deep/stepwise
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from shaplab._parallel import chunks, progress_bar
from shaplab._units import unit_near
from shaplab._validation import check_choice, check_int, fail, resolve_rng
from shaplab.deep._inputs import (
    as_inputs,
    check_model,
    check_tables,
    each_table,
    names_of,
    shown_rows,
)
from shaplab.deep._pairs import Settings, aligned_pairs, outputs_of
from shaplab.deep.deep_shap import (
    RULES,
    Found,
    by_name,
    checked_gap,
    chosen_outputs,
    coarsest,
    deep_shap,
)
from shaplab.explanation import Explanation

__all__ = ["stepwise_deep_shap"]


def stepwise_deep_shap_literal(
    model: Any, x: Tensor, reference: Tensor, orderings: np.ndarray, steps: int
) -> np.ndarray:
    """Values of one row against one reference: the definition, ordering by ordering.

    ``x`` and ``reference`` are single rows ``(1, n)``; ``orderings`` ``(count, n)`` are walked as
    they are, without their reverse.
    """
    n = x.shape[1]
    values = np.zeros(n)
    step_of_place = np.arange(n) * steps // n
    for ordering in orderings:
        here = reference.clone()
        for step in range(steps):
            block = ordering[step_of_place == step]
            there = here.clone()
            there[:, block] = x[:, block]
            shares: Any = deep_shap(model, there, here, outputs=0)
            values += shares.values[0]
            here = there
    return values / len(orderings)


@torch.inference_mode(False)
def stepwise_deep_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    steps: int = 2,
    orderings: int = 4,
    players: Any = None,
    rule: str = "rescale",
    outputs: int | list[int] | None = None,
    batch_size: int = 256,
    rng: Any = None,
    feature_names: Any = None,
    output_names: Any = None,
    progress: bool = False,
) -> Explanation | tuple[Explanation, ...]:
    """DeepSHAP along random walks of a few steps from each background row to each explained row.

    Parameters
    ----------
    model, X, background, rule, outputs, feature_names, output_names, progress
        As in :func:`deep_shap`.
    steps : blocks of features in which a walk goes from the background row to the explained one. 2
        is the best use of a small budget; more steps leave less of the rules' bias and need more
        orderings, as each step is a smaller game.
    orderings : random orderings for each pair of rows, an even number: half of them are drawn, and
        each of these is walked backwards, too.
    players : integers in the shape of one row of ``X`` (a tuple or dict of such for several
        inputs): entries with the same number change together, such as the tokens of a word or the
        pixels of a region. None: every entry is a player of its own.
    batch_size : pairs of rows held in memory at once.
    rng : None, a seed or a generator for the orderings.

    Returns
    -------
    Explanation
        As from :func:`deep_shap`, entry by entry: the value of a player is the sum of its entries.
        Each row still sums to the change of output. ``std`` is the standard error that comes from
        drawing the orderings, None with 2 orderings. It says nothing about the rules' bias, which
        it does not see unless ``steps`` is the number of features that change.
        ``info["evaluations"]`` counts rows run forward.

    Raises
    ------
    ValueError, UnsupportedModelError
        As :func:`deep_shap`; for an odd number of orderings, or players of another shape.

    Notes
    -----
    Approximates the interventional game. On ``benchmarks/deep_accuracy.py`` the default, eight
    backward passes for each pair of rows, has about half the error of :func:`deep_shap` and of
    integrated gradients with 20.

    Examples
    --------
    >>> import torch
    >>> def product(x):
    ...     return x[:, 0] * x[:, 1] * x[:, 2]
    >>> found = stepwise_deep_shap(product, torch.ones(1, 3), torch.zeros(1, 3), steps=3, rng=0)
    >>> round(float(found.values.sum()), 6)
    1.0
    """
    check_choice(rule, "rule", RULES)
    check_int(steps, "steps")
    check_int(orderings, "orderings")
    check_int(batch_size, "batch_size")
    if orderings % 2:
        fail(
            "orderings",
            "an even number, as every ordering is walked backwards, too",
            orderings,
            f"Pass {orderings + 1}",
        )
    check_model(model)
    if isinstance(X, dict):
        options: dict[str, Any] = {"steps": steps, "orderings": orderings, "rule": rule}
        options |= {"outputs": outputs, "batch_size": batch_size, "rng": rng, "progress": progress}
        options |= {"feature_names": feature_names, "output_names": output_names}
        if isinstance(players, dict):
            players = tuple(players.get(name) for name in X)
        return by_name(stepwise_deep_shap, model, X, background, options | {"players": players})
    check_tables(X, background)
    rows = as_inputs(model, X, "X")
    references = as_inputs(model, background, "background", rows)
    walks = _Walks(steps, orderings // 2, _players(players, rows), resolve_rng(rng))
    settings = Settings(rule, batch_size=batch_size)
    totals = _WalkTotals(model, rows, references, settings, outputs, walks.pairs)
    n, size = len(totals.out), len(totals.out_references)
    with progress_bar(n * size, progress, "stepwise_deep_shap") as bar:
        together = max(1, batch_size // (steps * orderings))
        for one in range(n):
            for part in chunks(size, together):
                others = [_row(references, other) for other in range(part.start, part.stop)]
                totals.take(one, [_walked_steps(walks, _row(rows, one), other) for other in others])
                bar.update(len(others))
    found = totals.found()
    info = {"evaluations": totals.evaluations, "shared": totals.shared}
    data = [shown_rows(row) for row in rows]
    named = {"feature_names": names_of(X, feature_names), "output_names": output_names}
    method = f"stepwise_deep_shap, {rule}, {steps} steps, interventional game"
    return found.explanations(data, method, info, **named)


class _Walks(NamedTuple):
    """How to walk; ``players`` number the entries of each input from 0, without gaps."""

    steps: int
    pairs: int
    players: list[np.ndarray]
    rng: np.random.Generator


class _Steps(NamedTuple):
    """All steps of all walks between two rows: ``upper`` and ``lower`` ``(m, *input)`` of each
    input, ordered by pair of orderings, direction and step; ``m`` is 0 between equal rows."""

    upper: list[Tensor]
    lower: list[Tensor]


def _row(table: tuple[Tensor, ...], number: int) -> list[Tensor]:
    return [value[number] for value in table]


def _walked_steps(walks: _Walks, x: list[Tensor], reference: list[Tensor]) -> _Steps:
    """The steps of all walks from a reference row to an explained row."""
    count = 1 + max(int(numbers.max(initial=-1)) for numbers in walks.players)
    # Drawn for all players, whether they change or not: so no draw hangs on another row's values.
    orderings = walks.rng.permuted(np.tile(np.arange(count), (walks.pairs, 1)), axis=1)
    changes = np.zeros(count, dtype=bool)
    for numbers, value, other in zip(walks.players, x, reference, strict=True):
        changes[numbers[(value != other).cpu().numpy()]] = True
    moving = int(changes.sum())
    steps = min(walks.steps, moving)
    both = np.stack([orderings, orderings[:, ::-1]], axis=1).reshape(-1, count)
    # Step at which each player changes: its place among those that change, cut into blocks.
    place = np.cumsum(changes[both], axis=1) - 1
    when = np.empty_like(both)
    np.put_along_axis(when, both, place * steps // max(moving, 1), axis=1)
    begun = when[:, None, :] < np.arange(steps)[:, None]
    done = when[:, None, :] <= np.arange(steps)[:, None]
    return _Steps(
        _mixed(done.reshape(-1, count), walks.players, x, reference),
        _mixed(begun.reshape(-1, count), walks.players, x, reference),
    )


def _mixed(
    present: np.ndarray, players: list[np.ndarray], x: list[Tensor], reference: list[Tensor]
) -> list[Tensor]:
    """Rows with the entries of the players present from ``x``, the others from the reference."""
    mixed = []
    for numbers, value, other in zip(players, x, reference, strict=True):
        mask = torch.as_tensor(present[:, numbers], device=value.device)
        mixed.append(torch.where(mask, value, other))
    return mixed


class _WalkTotals:
    """Means over background rows and walks, and how much the walks differ."""

    def __init__(
        self,
        model: Any,
        rows: tuple[Tensor, ...],
        references: tuple[Tensor, ...],
        settings: Settings,
        outputs: Any,
        pairs: int,
    ) -> None:
        self.model = model
        self.pairs = pairs
        self.settings = settings
        out = outputs_of(model, rows, settings)
        several = out.dim() == 2
        self.chosen = chosen_outputs(outputs, out.shape[1] if several else 1)
        self.several = several
        self.single = not several or isinstance(outputs, int | np.integer)
        self.out = self._chosen_of(out)
        self.out_references = self._chosen_of(outputs_of(model, references, settings))
        self.digits = max(coarsest(model, rows), torch.finfo(out.dtype).eps)
        # Variances count in squares of it.
        self.unit = unit_near(np.concatenate([self.out, self.out_references]))
        shapes = [(len(row), *row.shape[1:], len(self.chosen)) for row in rows]
        self.sums = [np.zeros(shape) for shape in shapes]
        self.squares = [np.zeros(shape) for shape in shapes]
        self.units = 0
        self.shared = 0.0
        self.evaluations = len(self.out) + len(self.out_references)

    def _chosen_of(self, out: Tensor) -> np.ndarray:
        return out.double().reshape(len(out), -1)[:, self.chosen].cpu().numpy()

    def take(self, one: int, walks: list[_Steps]) -> None:
        """Add the walks from some background rows to explained row ``one``."""
        counts = [len(steps.upper[0]) for steps in walks]
        total = sum(counts)
        self.evaluations += 2 * total
        upper = tuple(torch.cat(tables) for tables in zip(*[w.upper for w in walks], strict=True))
        lower = tuple(torch.cat(tables) for tables in zip(*[w.lower for w in walks], strict=True))
        # Which background row and which pair of orderings each step belongs to.
        other = np.repeat(np.arange(len(walks)), counts)
        pair = np.concatenate([np.arange(count) * self.pairs // max(count, 1) for count in counts])
        shape = len(walks), self.pairs
        walked = [np.zeros((*shape, *sums.shape[1:])) for sums in self.sums]
        for part in chunks(total, self.settings.batch_size):
            rows = tuple(table[part] for table in upper)
            references = tuple(table[part] for table in lower)
            for place, credits in self._credits(rows, references):
                for table, credit in zip(walked, credits, strict=True):
                    if credit is not None:
                        at = other[part], pair[part]
                        np.add.at(table[..., place], at, credit.double().cpu().numpy())
        for place, table in enumerate(walked):
            values = table / 2  # an ordering and its reverse
            self.sums[place][one] += values.mean(1).sum(0)
            if self.pairs > 1:  # variance of the mean over the pairs of one background row
                variance = (values / self.unit).var(1, ddof=1)
                self.squares[place][one] += variance.sum(0) / self.pairs

    def _credits(
        self, rows: tuple[Tensor, ...], references: tuple[Tensor, ...]
    ) -> Iterator[tuple[int, list[Tensor | None]]]:
        """Number of an output, and attributions ``(m, *input)`` of each input to it."""
        block = aligned_pairs(self.model, rows, references, self.settings)
        self.units = max(self.units, block.steps)
        for place, output in enumerate(self.chosen):
            seed = torch.zeros_like(block.out_many)
            seed[..., output if self.several else slice(None)] = 1
            yield place, block.read(seed)
        self.shared = max(self.shared, block.shared())

    def found(self) -> Found:
        """Means over the background, with the residual of additivity checked."""
        size = len(self.out_references)
        values = [_column_of_numbers(total / size) for total in self.sums]
        std = None
        if self.pairs > 1:
            std = [
                _column_of_numbers(self.unit * np.sqrt(squares) / size) for squares in self.squares
            ]
        sums = sum(value.reshape(len(self.out), -1, len(self.chosen)).sum(1) for value in values)
        change = self.out - self.out_references.mean(0)
        rounding = self.digits * (1 + self.units) ** 0.5
        gap = checked_gap(change - sums, self.out, self.out_references, rounding)
        return Found(values, self.out, self.out_references, gap, self.single, std)


def _column_of_numbers(values: np.ndarray) -> np.ndarray:
    """One number a row becomes a column."""
    return values[:, None] if values.ndim == 2 else values


def _players(players: Any, rows: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Number of the player that each entry belongs to, from 0 without gaps, for every input."""
    shapes = [tuple(row.shape[1:]) for row in rows]
    if players is None:
        sizes = [int(np.prod(shape)) for shape in shapes]
        starts = np.cumsum([0, *sizes[:-1]])
        return [
            start + np.arange(size).reshape(shape)
            for start, size, shape in zip(starts, sizes, shapes, strict=True)
        ]
    given = [np.asarray(numbers) for numbers in each_table(players)]
    fits = [numbers.shape for numbers in given] == shapes
    if not fits or any(numbers.dtype.kind not in "iu" for numbers in given):
        wanted = " and ".join(map(str, shapes))
        shown = ", ".join(f"{numbers.dtype} {numbers.shape}" for numbers in given)
        fail(
            "players",
            f"integers in the shape of one row, {wanted}",
            shown,
            "Number the player that each entry belongs to, such as [0, 0, 1] for three entries",
        )
    _, numbered = np.unique(np.concatenate([g.reshape(-1) for g in given]), return_inverse=True)
    cuts = np.cumsum([numbers.size for numbers in given])[:-1]
    parts = np.split(numbered.reshape(-1), cuts)
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
