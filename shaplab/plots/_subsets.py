"""Plot of interactions of any order: ``interaction_bars`` ranks subsets of players."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from shaplab._figures import axis_label, check_row, one_output, tell
from shaplab._validation import check_int, fail, shorten
from shaplab.explanation import Explanation
from shaplab.foundations.interactions import Interactions
from shaplab.plots._features import bar

__all__ = ["interaction_bars"]

_LABEL = 34  # letters of a subset that stand beside the axis


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
