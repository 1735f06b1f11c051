"""A picture with its regions tinted by what they contribute."""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._figures import (
    INK,
    axes,
    check_row,
    colour_bar,
    one_output,
    signed_colours,
    tell,
)
from shaplab._validation import as_numbers, check_real, digits, fail
from shaplab.explanation import Explanation
from shaplab.players.regions import players_of_regions

__all__ = ["regions"]

# The picture in pale grey, so that colours show on dark places, too.
DARKEST = 0.65


def regions(
    explanation: Explanation,
    image: Any,
    regions: Any,
    *,
    row: int = 0,
    output: int | str | None = None,
    limit: float | None = None,
    numbers: bool = False,
    ax: Any = None,
) -> Any:
    """A picture in grey whose regions are tinted: orange raises the output, blue lowers it, no tint
    does nothing.

    Parameters
    ----------
    explanation : Explanation whose features are the regions, such as ``RegionGame.explanation``
        makes.
    image : array or tensor ``(C, H, W)``, ``(H, W, C)`` or ``(H, W)``, the picture; channels are
        averaged.
    regions : int array ``(H, W)``, as ``RegionGame`` takes it.
    row : int, which row to show.
    output : name or number of the output, when there are several.
    limit : float, the size of contribution of the strongest tint; None: the largest of this row.
        Give panels that are compared the same.
    numbers : bool, write each contribution at the middle of its region.
    ax : matplotlib Axes; None: a new figure.

    Returns
    -------
    matplotlib Axes. ``plots.table`` says where each region stands and what it contributes.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    e = one_output(explanation, output)
    row = check_row(e, row)
    values = e.values[row]
    player, labels = players_of_regions(regions, np.shape(regions)[:2])
    if len(labels) != len(values):
        remedy = "Pass the regions that the explanation belongs to"
        fail("regions", f"{len(values)} numbers from 0 up", f"{len(labels)}", remedy)
    picture = _grey(image, player.shape)
    largest = float(np.abs(values).max()) or 1.0
    if limit is not None:
        largest = check_real(limit, "limit", low=0.0, open_low=True)
    # Pixels of no region keep their grey.
    tint = np.where(player >= 0, values[player], 0.0)
    ax = axes(ax, 3.6, 3.4)
    hues = Normalize(-largest, largest, clip=True)
    shade = DARKEST + (1.0 - DARKEST) * picture
    # Grey times colour: what contributes nothing stays grey, dark strokes show through.
    ax.imshow(shade[:, :, None] * signed_colours()(hues(tint))[:, :, :3])
    drawn = ScalarMappable(hues, signed_colours())
    _outlines(ax, player)
    middles = [np.argwhere(player == number).mean(axis=0) for number in range(len(values))]
    if numbers:
        for (down, right), value in zip(middles, values, strict=True):
            written = digits(value, 2, "+", largest)
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
            ax.text(right, down, written, ha="center", va="center", color=INK, fontsize=7, bbox=box)
    ax.set(xticks=[], yticks=[])
    base, total = (digits(number, 4) for number in (e.base_values[row], e.prediction[row]))
    ax.set_title(f"{base} with none, {total} with all", color=INK, fontsize=9)
    colour_bar(ax, drawn, "contribution", None)

    told = {
        "region": list(e.names),
        "pixels": np.bincount(player[player >= 0], minlength=len(values)),
        "middle row": [middle[0] for middle in middles],
        "middle column": [middle[1] for middle in middles],
        "contribution": values,
    }
    if e.std is not None:
        told["standard error"] = e.std[row]
    return tell(ax, lambda: told)


def _grey(image: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A picture between 0 and 1, without channels."""
    rule = f"a picture ({shape[0]}, {shape[1]}), its channels first or last"
    remedy = "Pass the picture that has these regions"
    picture = as_numbers(image, "image", rule, remedy)
    if picture.ndim == 3:
        picture = picture.mean(axis=0 if picture.shape[1:] == shape else 2)
    if picture.shape != shape:
        fail("image", rule, f"shape {np.shape(image)}", remedy)
    low = picture.min()
    return (picture - low) / ((picture.max() - low) or 1.0)


def _outlines(ax: Any, player: np.ndarray) -> None:
    """Lines between pixels of different regions."""
    from matplotlib.collections import LineCollection

    beside = np.argwhere(player[:, 1:] != player[:, :-1])
    below = np.argwhere(player[1:] != player[:-1])
    upright = [((x + 0.5, y - 0.5), (x + 0.5, y + 0.5)) for y, x in beside]
    level = [((x - 0.5, y + 0.5), (x + 0.5, y + 0.5)) for y, x in below]
    ax.add_collection(LineCollection(upright + level, colors=INK, linewidths=0.6))
