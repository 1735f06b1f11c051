"""What all figures share: colours, text that is safe to draw, axes, and numbers out of mixed
columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from shaplab._validation import check_int, digits, fail, imported, shorten
from shaplab.explanation import Explanation

__all__: list[str] = []

# Orange raises, blue lowers; both keep 4.5:1 against white, and differ for every common kind of
# colour blindness.
UP = "#c2500c"
DOWN = "#2166ac"
INK = "#1a1a1a"
GREY = "#767676"
MISSING = "#b4006e"  # far from every colour of the scale; grey is its middle
COLOURS = "cividis"
# Of categories, told apart by every common kind of colour blindness (Okabe and Ito, without yellow,
# which is too pale on white); more categories than these are the last one together.
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#1a1a1a", "#e69f00")
Units = Mapping[str, str] | Sequence[str] | None
# What each plot shows, as a table, for as long as the plot lives.
TOLD: WeakKeyDictionary[Any, Callable[[], Any]] = WeakKeyDictionary()


def escape(text: object, limit: int = 34) -> str:
    """Text for a figure: one line, cut, with dollar signs that are not read as formulas."""
    return shorten(text, limit).replace("$", r"\$")


def one_output(
    explanation: Any, output: int | str | None, argument: str = "explanation"
) -> Explanation:
    """Attributions of a table with one output, all finite."""
    if not isinstance(explanation, Explanation):
        fail(
            argument,
            "an Explanation",
            explanation,
            "Pass what an explaining function returned",
            TypeError,
        )
    if explanation.interaction or len(explanation.feature_shape) != 1:
        fail(
            argument,
            "attributions of shape (N, d)",
            f"values of shape {explanation.shape}",
            "Select a table's attributions; images and interactions have their own plots",
        )
    if len(explanation) == 0 or explanation.feature_shape[0] == 0:
        fail(
            argument,
            "at least one row and one feature",
            f"shape {explanation.shape}",
            "Select some",
        )
    if not np.isfinite(explanation.prediction).all():
        fail(argument, "finite values", "NaN or infinity", "Explain rows that the model can score")
    if explanation.has_outputs:
        if output is None and explanation.shape[-1] > 1:
            names = explanation.output_names or [str(k) for k in range(explanation.shape[-1])]
            fail(
                "output",
                f"one of {shorten(', '.join(names))}",
                "None",
                "Say which output, for example output=0",
            )
        return explanation[:, :, 0 if output is None else output]
    if output is not None:
        fail("output", "None, as the model has one output", repr(output), "Leave it out")
    return explanation


def feature_units(explanation: Explanation, units: Units) -> list[str]:
    """One unit a feature, "" where there is none."""
    if units is None:
        return [""] * len(explanation.names)
    if isinstance(units, Mapping):
        return [str(units.get(name, "")) for name in explanation.names]
    if (
        isinstance(units, str)
        or not hasattr(units, "__len__")
        or len(units) != len(explanation.names)
    ):
        fail(
            "units",
            f"{len(explanation.names)} units or a mapping from names",
            units,
            "Give '' where there is none",
        )
    return [str(unit) for unit in units]


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA, which compares to nothing."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def missing(column: np.ndarray) -> np.ndarray:
    """Where a column has no value."""
    return np.array([is_missing(value) for value in column.tolist()], dtype=bool)


def number(value: Any) -> str:
    """A value of a table as short text."""
    if is_missing(value):
        return "missing"
    return (
        digits(value) if isinstance(value, int | float | np.integer | np.floating) else str(value)
    )


def cell(explanation: Explanation, row: int, j: int, units: Sequence[str], limit: int = 26) -> str:
    """``name = value unit`` of one feature of one row."""
    if explanation.data is None or explanation.data.ndim != 2:
        return escape(explanation.names[j])
    value = number(explanation.data[row, j])
    # Explanations of codes ("1 = yes") belong to tables; beside a number only a short unit is
    # readable.
    unit = (
        f" {escape(units[j])}"
        if 0 < len(units[j]) <= 12 and "=" not in units[j] and value != "missing"
        else ""
    )
    return f"{escape(explanation.names[j], limit)} = {escape(value, 2 * limit // 3)}{unit}"


def codes_of(column: np.ndarray) -> tuple[np.ndarray, list[str] | None]:
    """A column as numbers with NaN for missing, and category names if it held text."""
    gone = missing(column)
    try:
        return np.where(gone, np.nan, np.where(gone, 0, column).astype(float)), None
    except (TypeError, ValueError):
        labels, inverse = np.unique(column[~gone].astype(str), return_inverse=True)
        codes = np.full(len(column), np.nan)
        codes[~gone] = inverse
        return codes, labels.tolist()


def axes(ax: Any, width: float, height: float) -> Any:
    """The Axes to draw on: the user's, or those of a new white figure."""
    return panels(ax, 1, 1, width, height)[0]


def panels(ax: Any, rows: int, columns: int, width: float, height: float) -> Any:
    """Axes of a figure with several panels in a flat array: the user's, or new ones with dark text
    on white."""
    found = np.ravel(np.array(ax, dtype=object))
    if ax is None:
        plt = imported("matplotlib.pyplot", "plots")
        figure, found = plt.subplots(
            rows,
            columns,
            figsize=(width, height),
            layout="constrained",
            facecolor="white",
            squeeze=False,
        )
        figure.patch.set_alpha(1.0)
        found = found.ravel()
    if len(found) != rows * columns or not all(hasattr(one, "spines") for one in found):
        fail(
            "ax",
            f"{rows * columns} Axes",
            f"{len(found)} of type {type(found[0]).__name__}" if len(found) else "0",
            f"Pass those of plt.subplots({rows}, {columns})",
        )
    for one in found:
        if ax is None:
            one.tick_params(colors=INK)
            for text in (one.xaxis.label, one.yaxis.label, one.title):
                text.set_color(INK)
            for side in ("left", "bottom"):
                one.spines[side].set_color(GREY)
        one.set_facecolor("white")
        one.spines[["top", "right"]].set_visible(False)
    return found


def plain_numbers(ax: Any, values: np.ndarray) -> None:
    """Write 500000 at the axis across, and not 0.5 beside a corner that says 1e6."""
    form = ax.xaxis.get_major_formatter()
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    if hasattr(form, "set_scientific") and 1e-4 <= largest < 1e9:
        form.set_scientific(False)
        form.set_useOffset(False)


def tell(drawn: Any, table: Callable[[], Any]) -> Any:
    """Keep what a plot shows for ``plots.table(drawn)``, as anything that a DataFrame is made of;
    returns the plot."""
    TOLD[drawn] = table
    return drawn


def signed_colours() -> Any:
    """Blue lowers, white is nothing, orange raises."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [DOWN, "white", UP])


def position(names: Sequence[str], feature: int | str, argument: str = "feature") -> int:
    """The column of a feature given by number or name."""
    if isinstance(feature, str):
        if feature not in names:
            fail(
                argument,
                f"one of {shorten(', '.join(names))}",
                repr(shorten(feature)),
                "Check the spelling",
            )
        return list(names).index(feature)
    return check_int(feature, argument, minimum=0, maximum=len(names) - 1)


def partner(e: Explanation, j: int, color_by: Any) -> int | None:
    """The feature that gives the colour: named, of the largest interaction, or of the largest share
    of the spread."""
    if isinstance(color_by, Explanation):
        if (
            not color_by.interaction
            or color_by.has_outputs
            or color_by.shape[1:] != (len(e.names),) * 2
        ):
            fail(
                "color_by",
                f"interactions of shape (N, {len(e.names)}, {len(e.names)})",
                f"values of shape {color_by.shape}",
                "Pass interactions of the same model, of one output",
            )
        size = np.abs(color_by.values[:, j]).mean(axis=0)
    elif color_by is True and e.data is not None:
        # In groups of like values, how much of the spread a line in the other feature's rank
        # explains.
        size = np.zeros(len(e.names))
        for k in range(len(size)):
            rank = np.unique(
                np.nan_to_num(codes_of(e.data[:, k])[0], nan=-np.inf), return_inverse=True
            )[1]
            for _, inside in groups_of(e.data[:, j]):
                r, z = (part[inside] - part[inside].mean() for part in (e.values[:, j], rank))
                size[k] += (r @ z) ** 2 / ((z @ z) or 1.0)
    else:
        return (
            None
            if color_by is None or color_by is False
            else position(e.names, color_by, "color_by")
        )
    size = np.where(np.arange(len(size)) == j, -1.0, size)
    return int(size.argmax()) if len(size) > 1 else None


def groups_of(column: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Names and masks of rows of like value: by category, or ten from low to high; the missing ones
    last."""
    codes, labels = codes_of(column)
    gone = np.isnan(codes)
    groups = [] if labels is None else [(label, codes == code) for code, label in enumerate(labels)]
    if labels is None and not gone.all():
        edges = np.unique(np.nanquantile(codes, np.linspace(0, 1, 11)))
        cut = np.clip(np.searchsorted(edges, codes, side="right") - 1, 0, max(len(edges) - 2, 0))
        for b in np.unique(cut[~gone]):
            inside = (cut == b) & ~gone
            low = codes[inside].min()
            high = codes[inside].max()
            name = digits(low) if low == high else f"{digits(low)} to {digits(high)}"
            groups.append((name, inside))
    return [*groups, *([("missing", gone)] if gone.any() else [])]


def axis_label(unit: str, what: str = "contribution to the output") -> str:
    """A label with its unit in brackets, if there is one."""
    return f"{what} ({escape(unit)})" if unit else what


def largest_first(sizes: np.ndarray, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices to show, largest first, and those that are put together; never a group of one."""
    order = np.argsort(-sizes, kind="stable")
    limit = len(order) if limit is None else check_int(limit, "max_features")
    return (order, order[:0]) if len(order) <= limit else (order[: limit - 1], order[limit - 1 :])


def ranked(e: Explanation, limit: int | None) -> np.ndarray:
    """Features by mean absolute contribution, the largest first, at most ``limit``."""
    order = np.argsort(-np.abs(e.values).mean(axis=0), kind="stable")
    return order if limit is None else order[: check_int(limit, "max_features")]


def check_row(explanation: Explanation, row: int) -> int:
    """The number of a row, counted from the front."""
    return check_int(row, "row", minimum=-len(explanation), maximum=len(explanation) - 1) % len(
        explanation
    )


def spread_out(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Heights in [-0.4, 0.4] that keep equal values apart: the denser a place, the wider."""
    span = np.ptp(values) or 1.0
    bins = np.minimum((60 * (values - values.min()) / span).astype(int), 59)
    counts = np.bincount(bins, minlength=60)
    heights = np.empty(len(values))
    for b in np.flatnonzero(counts):
        inside = np.flatnonzero(bins == b)
        reach = 0.4 * counts[b] / counts.max()
        heights[generator.permutation(inside)] = (
            np.linspace(-reach, reach, len(inside)) if len(inside) > 1 else 0.0
        )
    return heights


def to_unit(codes: np.ndarray) -> np.ndarray:
    """Numbers to [0, 1] between the 5th and 95th percentile, NaN kept."""
    known = codes[~np.isnan(codes)]
    if known.size == 0:
        return codes
    low, high = np.percentile(known, [5, 95])
    if low == high:
        low = known.min()
        high = known.max()
    return (
        np.clip((codes - low) / (high - low), 0, 1)
        if low < high
        else np.where(np.isnan(codes), np.nan, 0.5)
    )


def dots(
    ax: Any,
    x: np.ndarray,
    y: np.ndarray,
    colours: np.ndarray | None,
    name: str | None,
    ends: Sequence[str] = ("low", "high"),
) -> None:
    """Points coloured by a number in [0, 1]; rings where it is missing; a colour bar if
    ``name``."""
    options = {"s": 16, "linewidths": 0, "zorder": 2, "rasterized": len(x) > 2000}
    if colours is None:
        ax.scatter(x, y, color=DOWN, **options)
        return
    gone = np.isnan(colours)
    dots = ax.scatter(
        x[~gone], y[~gone], c=colours[~gone], cmap=COLOURS, vmin=0, vmax=1.12, **options
    )
    if gone.any():
        ax.scatter(
            x[gone],
            y[gone],
            **{**options, "s": 14, "linewidths": 0.8},
            facecolors="none",
            edgecolors=MISSING,
        )
    if name is not None:
        colour_bar(ax, dots, name, ends)


def dots_by_category(
    ax: Any, x: np.ndarray, y: np.ndarray, codes: np.ndarray, labels: Sequence[str], name: str
) -> None:
    """Points in the colours of categories, with a legend: the most frequent by name, the others
    together; rings where there is none."""
    options = {"s": 16, "zorder": 2, "rasterized": len(x) > 2000}
    known = ~np.isnan(codes)
    counts = np.bincount(codes[known].astype(int), minlength=len(labels))
    order = np.argsort(-counts, kind="stable")
    named = order if len(order) <= len(CATEGORIES) else order[: len(CATEGORIES) - 1]
    parts = [(escape(labels[code], 20), codes == code) for code in sorted(named)]
    if len(named) < len(order):
        others = known & ~np.isin(codes, named)
        parts.append((f"{len(order) - len(named)} others", others))
    for colour, (label, inside) in zip(CATEGORIES, parts, strict=False):
        ax.scatter(x[inside], y[inside], color=colour, linewidths=0, label=label, **options)
    if not known.all():
        ring = {"facecolors": "none", "edgecolors": MISSING, "linewidths": 0.8}
        ax.scatter(x[~known], y[~known], label="missing", **ring, **options)
    legend = ax.legend(
        title=name, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    for text in (legend.get_title(), *legend.get_texts()):
        text.set_color(INK)


def colour_bar(
    ax: Any, drawn: Any, name: str, ends: Sequence[str] | None = ("low", "high")
) -> None:
    """A colour bar from 0 to 1 with words at its ends, or with numbers if there are none."""
    options = {} if ends is None else {"ticks": [0, 1], "boundaries": np.linspace(0, 1, 65)}
    figure = (ax[0] if isinstance(ax, list) else ax).figure
    legend = figure.colorbar(drawn, ax=ax, fraction=0.03, pad=0.02, **options)
    legend.ax.tick_params(colors=INK)
    if ends is not None:
        legend.ax.set_yticklabels(ends, color=INK)
    legend.set_label(name, color=INK)
    legend.solids.set_alpha(1.0)
    legend.outline.set_visible(False)
