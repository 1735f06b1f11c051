"""A text with its words coloured by what they contribute, on lines as one reads it."""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._figures import INK, axes, check_row, escape, one_output, signed_colours, tell
from shaplab._validation import check_int, digits
from shaplab.explanation import Explanation

__all__ = ["text"]

# Heights in lines: a word with its number below, and the space between lines.
LINE_HEIGHT = 1.0
NUMBER_BELOW = 0.36
# Widths in letters: around a word, and between words.
PADDING = 0.5
GAP = 0.5


def text(
    explanation: Explanation,
    *,
    row: int = 0,
    output: int | str | None = None,
    width: int = 56,
    numbers: bool = True,
    ax: Any = None,
) -> Any:
    """A text whose words are coloured: orange raises the output, blue lowers it, white does
    nothing.

    Parameters
    ----------
    explanation : Explanation whose features are words, in the order of the text, such as
        ``WordGame.explanation`` makes.
    row : int, which row to show.
    output : name or number of the output, when there are several.
    width : int, letters in a line, before the next word begins a new one.
    numbers : bool, write each contribution under its word.
    ax : matplotlib Axes; None: a new figure.

    Returns
    -------
    matplotlib Axes. ``plots.table`` says the same in words and numbers, with standard errors if
    there are any.
    """
    e = one_output(explanation, output)
    row = check_row(e, row)
    width = check_int(width, "width")
    values = e.values[row]
    names = list(e.feature_names or map(str, range(len(values))))
    places, lines = _lines(names, width)
    ax = axes(ax, 7.4, 0.3 + 0.46 * lines)
    largest = float(np.abs(values).max()) or 1.0
    colours = signed_colours()((values / largest + 1.0) / 2.0)
    for name, value, colour, (line, left) in zip(names, values, colours, places, strict=True):
        length = len(escape(name)) + 2 * PADDING
        top = -line * LINE_HEIGHT
        ax.fill_between([left, left + length], top - 0.26, top + 0.3, color=colour, lw=0)
        middle = left + length / 2
        # White on dark boxes: both texts keep 4.5:1.
        ink = "white" if abs(value) > 0.7 * largest else INK
        ax.text(middle, top, escape(name), ha="center", va="center", color=ink, family="monospace")
        if numbers:
            told = digits(value, 2, "+", largest)
            below = top - NUMBER_BELOW
            ax.text(middle, below, told, ha="center", va="center", color=INK, fontsize=7)
    ax.set_xlim(0, width)
    ax.set_ylim(-(lines - 1) * LINE_HEIGHT - 0.6, 0.5)
    ax.axis("off")
    base, total = (digits(number, 4) for number in (e.base_values[row], e.prediction[row]))
    ax.set_title(f"{base} without any word, {total} with all", color=INK, fontsize=9, loc="left")

    def twin() -> dict[str, Any]:
        columns = {"word": names, "contribution": values}
        if e.std is not None:
            columns["standard error"] = e.std[row]
        return columns

    return tell(ax, twin)


def _lines(names: list[str], width: int) -> tuple[list[tuple[int, float]], int]:
    """The line and the left end of each word, and how many lines there are."""
    places = []
    line = 0
    at = 0.0
    for name in names:
        # A number below a short word needs some room.
        length = max(len(escape(name)) + 2 * PADDING, 2.0)
        if at > 0.0 and at + length > width:
            line += 1
            at = 0.0
        places.append((line, at))
        at += length + GAP
    return places, line + 1
