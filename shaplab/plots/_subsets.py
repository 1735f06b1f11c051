"""Plots of interactions: ``interaction_bars`` ranks subsets of players of any order,
``interaction_network`` draws pairs between players on a circle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from shaplab._figures import (
    DOWN,
    GREY,
    INK,
    UP,
    axes,
    axis_label,
    check_row,
    escape,
    one_output,
    tell,
)
from shaplab._validation import check_int, digits, fail, shorten
from shaplab.explanation import Explanation
from shaplab.foundations.interactions import Interactions
from shaplab.plots._features import bar

__all__ = ["interaction_bars", "interaction_network"]

_LABEL = 34  # letters of a subset that stand beside the axis
_WIDEST = 9.0  # points of the strongest line
_LARGEST = 26.0  # points across the disc of the player that matters most


def interaction_bars(
    interactions: Interactions | Explanation,
    *,
    row: int | None = None,
    order: int | None = None,
    output: int | None = None,
    max_subsets: int | None = 12,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """The largest interactions, the largest on top; orange raises the payoff, blue lowers it.

    Parameters
    ----------
    interactions : what ``interaction_values`` returned with an order, or
        ``tree_shap_interactions``; its payoff is one number, or ``(N,)`` or ``(N, K)`` for rows. Of
        an Explanation of interactions each pair has one bar, both halves together, and each main
        effect one.
    row : the row to show, with signs; by default the mean absolute value over all rows.
    order : show subsets of that many players only.
    output : which of several outputs, by number.
    max_subsets : bars; the others are put together in the last one. None shows all.
    output_unit : unit of the payoff.
    ax : Axes to draw on, or None for a new figure.

    Returns
    -------
    Axes. Lines show standard errors where values are estimated.
    """
    if isinstance(interactions, Explanation):
        interactions = _pairs_once(interactions)
    e, sizes = _as_attributions(interactions, order)
    e = one_output(e, output, "interactions")
    if row is not None:
        e = e[check_row(e, row)]
    if max_subsets is not None:
        max_subsets = check_int(max_subsets, "max_subsets")
    names = interactions.player_names
    subsets = [T for T in interactions.subsets if order is None or len(T) == order]
    short = [_label([names[i] for i in T]) for T in subsets]
    ax = bar(replace(e, feature_names=tuple(short)), max_features=max_subsets, ax=ax)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    if len(labels) < len(subsets):
        labels[-1] = f"{len(subsets) - len(labels) + 1} other subsets"
    ax.set_yticks(ax.get_yticks(), labels)
    low, high = ax.get_xlim()
    if low < 0:  # room for numbers of many digits beside bars to the left
        ax.set_xlim(low - 0.1 * (high - low), high)
    signed = len(e) == 1
    what = f"{interactions.index} interaction"
    ax.set_xlabel(axis_label(output_unit, what if signed else f"mean |{what}|"))
    return tell(ax, lambda: _ranking(e, sizes, what))


def interaction_network(
    interactions: Interactions,
    *,
    row: int | None = None,
    output: int | None = None,
    max_pairs: int | None = 20,
    max_players: int | None = 20,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """Players on a circle, the largest interactions of two as lines between them.

    Orange and solid raises the payoff, blue and dashed lowers it; a line is as wide as its pair is
    strong, beside the strongest. Discs are the players alone, in the same way, where the
    interactions hold single players.

    Parameters
    ----------
    interactions : what ``interaction_values`` returned with an order of 2 and more, or
        ``tree_shap_interactions``; its payoff is one number, or ``(N,)`` or ``(N, K)`` for rows.
    row : the row to show, with signs; by default the mean absolute value over all rows, in grey.
    output : which of several outputs, by number.
    max_pairs : lines; weaker pairs are left out. None draws all.
    max_players : players, those with the strongest pairs. None draws all.
    output_unit : unit of the payoff.
    ax : Axes to draw on, or None for a new figure.

    Returns
    -------
    Axes. ``plots.table`` lists the lines, with standard errors where values are estimated.
    """
    pairs = _value_of_subsets(interactions, 2, row, output)
    signed = interactions.values.ndim == 1 or row is not None or interactions.values.shape[1] == 1
    limits = [
        None if limit is None else check_int(limit, name)
        for limit, name in ((max_pairs, "max_pairs"), (max_players, "max_players"))
    ]
    n = interactions.n_players
    strength = np.zeros(n)
    for (i, j), number in pairs.items():
        strength[[i, j]] += abs(number)
    # As everywhere, players stand in the order of the columns.
    players = np.sort(np.argsort(-strength, kind="stable")[: limits[1]])
    shown = {T: number for T, number in pairs.items() if np.isin(T, players).all()}
    lines = sorted(shown, key=lambda T: -abs(shown[T]))[: limits[0]]
    ax = axes(ax, 6.0, 5.4)
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(players)) / len(players)
    place = dict(
        zip(players.tolist(), np.column_stack([np.cos(angle), np.sin(angle)]), strict=True)
    )
    strongest = max((abs(number) for number in shown.values()), default=0.0)
    for T in reversed(lines):
        if shown[T] != 0.0:
            _draw_line(ax, place[T[0]], place[T[1]], shown[T] / strongest, signed)
    alone = {}
    if any(len(T) == 1 for T in interactions.subsets):
        alone = {
            T[0]: number for T, number in _value_of_subsets(interactions, 1, row, output).items()
        }
    _draw_players(ax, place, alone, interactions.player_names, signed)
    what = f"{interactions.index} interaction"
    told = what if signed else f"mean |{what}|"
    strongest_told = f"widest line {digits(strongest)}"
    ax.set_xlabel(f"{axis_label(output_unit, told)}; {strongest_told}")
    return tell(ax, lambda: _lines_told(interactions, lines, shown, told))


def _value_of_subsets(
    interactions: Interactions, order: int, row: int | None, output: int | None
) -> dict[tuple[int, ...], float]:
    """The value of each subset of that many players, in a row or on average over rows."""
    e = one_output(_as_attributions(interactions, order)[0], output, "interactions")
    if row is not None:
        e = e[check_row(e, row)]
    values = e.values[0] if len(e) == 1 else np.abs(e.values).mean(axis=0)
    subsets = [T for T in interactions.subsets if len(T) == order]
    return dict(zip(subsets, values.tolist(), strict=True))


def _colour(number: float, signed: bool) -> str:
    if not signed:
        return GREY
    return UP if number > 0 else DOWN


def _draw_line(ax: Any, start: np.ndarray, end: np.ndarray, share: float, signed: bool) -> None:
    """One pair, ``share`` of the strongest one."""
    lowers = signed and share < 0
    ax.plot(
        *np.column_stack([start, end]),
        color=_colour(share, signed),
        linewidth=max(0.4, _WIDEST * abs(share)),
        linestyle=(0, (2.0, 0.8)) if lowers else "solid",
        dash_capstyle="butt",
        alpha=0.75,
        zorder=1,
    )


def _draw_players(
    ax: Any, place: dict[int, np.ndarray], alone: dict[int, float], names: Any, signed: bool
) -> None:
    """Discs and names around the circle."""
    largest = max((abs(alone.get(player, 0.0)) for player in place), default=0.0)
    for player, point in place.items():
        number = alone.get(player, 0.0)
        share = abs(number) / largest if largest else 0.0
        ax.plot(
            *point,
            marker="o",
            # An area says how much.
            markersize=max(5.0, _LARGEST * np.sqrt(share)),
            color=_colour(number, signed) if share else INK,
            markeredgecolor="white",
            zorder=2,
        )
        side = "left" if point[0] > 0 else "right"
        if abs(point[0]) < 0.2:
            side = "center"
        ax.annotate(
            escape(names[player], 18),
            1.18 * point,
            ha=side,
            va="center",
            color=INK,
            annotation_clip=False,
        )
    ax.set(xlim=(-1.7, 1.7), ylim=(-1.35, 1.35), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)


def _lines_told(
    interactions: Interactions,
    lines: list[tuple[int, ...]],
    shown: dict[tuple[int, ...], float],
    what: str,
) -> dict[str, Any]:
    """The lines in words and numbers."""
    names = interactions.player_names
    told: dict[str, Any] = {
        "one": [names[T[0]] for T in lines],
        "other": [names[T[1]] for T in lines],
        what: np.array([shown[T] for T in lines]),
    }
    if interactions.std is not None:
        told["standard error"] = np.array([np.mean(interactions.error(T)) for T in lines])
    return told


def _label(names: list[str]) -> str:
    """Names of a subset; too long ones are cut one by one, so that all players can be seen."""
    whole = " × ".join(names)
    if len(whole) <= _LABEL:
        return whole
    letters = max(4, (_LABEL + 3) // len(names) - 3)
    return " × ".join(shorten(name, letters) for name in names)


def _pairs_once(e: Explanation) -> Interactions:
    """Interactions whose halves stand in the cells of a matrix, as subsets of one and two."""
    if not e.interaction:
        fail(
            "interactions",
            "Interactions, or an Explanation of interactions",
            f"attributions of shape {e.shape}",
            "Use tree_shap_interactions or interaction_values",
        )
    first, second = np.triu_indices(e.shape[1])
    share = np.where(first == second, 0.5, 1.0).reshape(-1, *[1] * e.base_values.ndim)

    def gathered(cells: np.ndarray) -> np.ndarray:
        return share * np.moveaxis(cells[:, first, second] + cells[:, second, first], 1, 0)

    return Interactions(
        gathered(e.values),
        tuple(tuple(sorted({int(i), int(j)})) for i, j in zip(first, second, strict=True)),
        2,
        "k-SII",
        e.base_values,
        e.shape[1],
        e.names,
        std=None if e.std is None else gathered(e.std),
    )


def _as_attributions(
    interactions: Interactions, order: int | None
) -> tuple[Explanation, np.ndarray]:
    """Each subset as if it were a feature, and how many players it has."""
    if not isinstance(interactions, Interactions):
        fail(
            "interactions",
            "Interactions, or an Explanation of interactions",
            interactions,
            "Use interaction_values or tree_shap_interactions with order=",
            TypeError,
        )
    sizes = np.array([len(T) for T in interactions.subsets], dtype=int)
    payoff = interactions.values.shape[1:]
    if len(payoff) > 2:
        fail(
            "interactions",
            "a payoff of one number, of rows (N,) or of rows and outputs (N, K)",
            f"payoff {payoff}",
            "Compute the interactions of a part of the game",
        )
    shown = np.ones(len(sizes), bool)
    if order is not None:
        shown = sizes == check_int(order, "order", maximum=interactions.order)
    if not shown.any():
        fail("interactions", "at least one subset", "none", "No players of the game interact")
    labels = [label for label, chosen in zip(interactions.labels, shown, strict=True) if chosen]

    def by_row(array: np.ndarray) -> np.ndarray:
        part = array[shown]
        return np.moveaxis(part if payoff else part[:, None], 0, 1)

    std = None if interactions.std is None else by_row(interactions.std)
    base = interactions.base_value if payoff else interactions.base_value[None]
    return Explanation(by_row(interactions.values), base, None, tuple(labels), std=std), sizes[
        shown
    ]


def _ranking(e: Explanation, sizes: np.ndarray, what: str) -> dict[str, Any]:
    """The bars in words and numbers, all of them."""
    values = e.values[0] if len(e) == 1 else np.abs(e.values).mean(axis=0)
    ranks = np.argsort(-np.abs(values), kind="stable")
    told: dict[str, Any] = {
        "subset": [e.names[j] for j in ranks],
        "players": sizes[ranks],
        what if len(e) == 1 else f"mean |{what}|": values[ranks],
    }
    if e.std is not None:
        told["standard error"] = e.std.mean(axis=0)[ranks]
    return told
