"""Plots of many rows at once: ``decision`` follows each from the base value to its output,
``violin`` shows how a feature's contributions are spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._figures import (
    COLOURS,
    DOWN,
    GREY,
    INK,
    axes,
    axis_label,
    check_row,
    escape,
    largest_first,
    one_output,
    ranked,
    tell,
    to_unit,
)
from shaplab._validation import check_int
from shaplab.explanation import LEFT_OUT, Explanation
from shaplab.plots._features import table

__all__ = ["decision", "violin"]


def decision(
    explanation: Explanation,
    *,
    rows: Any = None,
    highlight: Any = (),
    output: int | str | None = None,
    max_features: int | None = 12,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """Rows as lines from the base value, at the bottom, to their outputs, at the top: each level
    adds the contribution of one feature, the largest last. Rows alike run together.

    Parameters
    ----------
    explanation : Explanation of a table.
    rows : positions of the rows to draw; None: all, at most 500, evenly chosen.
    highlight : positions of rows, among all, whose lines are dark and thick.
    output : name or position, needed when there are several outputs.
    max_features : levels to draw; the smallest are one level together.
    output_unit : unit of the output.
    ax : Axes to draw on.

    Returns
    -------
    matplotlib Axes. Lines are coloured by their outputs, dark to light is low to high.
    """
    e = one_output(explanation, output)
    if rows is None:
        chosen = np.unique(np.linspace(0, len(e) - 1, min(len(e), 500)).round().astype(int))
    else:
        chosen = np.array([check_row(e, row) for row in np.atleast_1d(np.asarray(rows))])
    marked = [check_row(e, row) for row in np.atleast_1d(np.asarray(highlight, dtype=int))]
    chosen = np.concatenate([chosen, np.setdiff1d(marked, chosen)]).astype(int)
    names, steps = _levels(e, chosen, max_features)
    base = e.base_values[chosen]
    paths = np.concatenate([base[:, None], base[:, None] + np.cumsum(steps, axis=1)], axis=1)
    ax = axes(ax, 6.4, 1.2 + 0.32 * len(names))
    heights = np.arange(len(names) + 1)
    part = f"{len(chosen)} of {len(e):,} rows"
    from matplotlib import colormaps

    shades = colormaps[COLOURS](to_unit(paths[:, -1]) / 1.12)
    for place, row in enumerate(chosen):
        is_marked = row in marked
        ax.plot(
            paths[place],
            heights,
            color=INK if is_marked else shades[place],
            lw=2.0 if is_marked else 0.9,
            alpha=1.0 if is_marked or len(chosen) < 30 else 0.5,
            zorder=3 if is_marked else 2,
        )
    ax.axvline(float(np.mean(base)), color=GREY, lw=0.8, ls=":", zorder=1)
    for height in heights:
        ax.axhline(height, color=GREY, lw=0.3, zorder=0)
    ax.set(
        yticks=heights[1:] - 0.5,
        yticklabels=[escape(name) for name in names],
        ylim=(0, len(names)),
        xlabel=axis_label(output_unit, "output" if len(chosen) == len(e) else f"output, {part}"),
    )
    ax.tick_params(axis="y", length=0)
    return tell(
        ax,
        lambda: {
            "row": chosen,
            "base value": base,
            **{f"after {name}": paths[:, level + 1] for level, name in enumerate(names)},
        },
    )


def _levels(e: Explanation, rows: np.ndarray, limit: int | None) -> tuple[list[str], np.ndarray]:
    """Names and contributions ``(rows, levels)``, from the smallest to the largest."""
    shown, others = largest_first(np.abs(e.values[rows]).mean(axis=0), limit)
    names = [e.names[j] for j in shown[::-1]]
    steps = e.values[rows][:, shown[::-1]]
    if len(others):
        names.insert(0, f"{len(others)} other features")
        steps = np.concatenate([e.values[rows][:, others].sum(axis=1)[:, None], steps], axis=1)
    if e.rest is not None:
        names.insert(0, LEFT_OUT)
        steps = np.concatenate([e.rest[rows, None], steps], axis=1)
    return names, steps


def violin(
    explanation: Explanation,
    *,
    output: int | str | None = None,
    max_features: int | None = 12,
    bins: int = 40,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """How the contributions of each feature are spread: as wide as rows are many there, the largest
    feature on top; a dark line from the first to the third quartile, a white dot at the median.

    For many rows, where the points of ``beeswarm`` run together. The width is the root of the
    number of rows in each of ``bins`` steps of the axis, on one scale for all features. Other
    parameters as in ``waterfall``.
    """
    e = one_output(explanation, output)
    order = ranked(e, max_features)
    edges = np.histogram_bin_edges(e.values[:, order], check_int(bins, "bins", minimum=2))
    middle = (edges[1:] + edges[:-1]) / 2
    counts = np.stack([np.histogram(e.values[:, j], edges)[0] for j in order])
    # The root keeps far rows visible beside a feature's crowd at zero.
    widths = 0.45 * np.sqrt(counts / counts.max())
    ax = axes(ax, 7.0, 1.0 + 0.42 * len(order))
    ax.axvline(0, color=GREY, lw=0.8, zorder=1)
    for place, j, half in zip(np.arange(len(order))[::-1], order, widths, strict=True):
        ax.fill_between(middle, place - half, place + half, step="mid", color=DOWN, lw=0, zorder=2)
        low, median, high = np.percentile(e.values[:, j], [25, 50, 75])
        ax.plot([low, high], [place, place], color=INK, lw=2, zorder=3)
        ax.scatter([median], [place], s=18, color="white", edgecolors=INK, zorder=4)
    ax.set(
        yticks=np.arange(len(order))[::-1],
        yticklabels=[escape(e.names[j]) for j in order],
        ylim=(-0.6, len(order) - 0.4),
        xlabel=axis_label(output_unit),
    )
    quartiles = np.percentile(e.values, [25, 50, 75], axis=0)

    def told() -> Any:
        frame = table(e)
        at = ranked(e, None)  # the order of the table, too
        titles = ("first quartile", "median", "third quartile")
        for title, numbers in zip(titles, quartiles, strict=True):
            frame[title] = numbers[at]
        return frame

    return tell(ax, told)
