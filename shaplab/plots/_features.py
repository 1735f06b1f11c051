"""Plots of one row, of a table of rows and of one feature, and the table that says the same.

``waterfall`` and ``force`` show one row, ``bar`` and ``beeswarm`` a whole table, ``scatter`` one
feature. ``table`` takes what any plot of shaplab returned, or the explanation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._figures import (  # isort: skip
    DOWN,
    GREY,
    INK,
    TOLD,
    UP,
    Units,
    axes,
    axis_label,
    cell,
    check_row,
    codes_of,
    dots,
    dots_by_category,
    escape,
    feature_units,
    groups_of,
    largest_first,
    number,
    one_output,
    partner,
    plain_numbers,
    position,
    ranked,
    spread_out,
    tell,
    to_unit,
)
from shaplab._validation import digits, fail, imported, resolve_rng
from shaplab.explanation import LEFT_OUT, Explanation
from shaplab.plots._cohorts import bars_of_cohorts

_NO_ORDER = -1.0  # the colour of what has no low and high

__all__ = ["bar", "beeswarm", "force", "scatter", "table", "waterfall"]


def _steps(
    e: Explanation, row: int, limit: int | None, units: Units, cut: int
) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Labels, contributions and standard errors of one row, largest first, the small ones together
    at the end."""
    shown, others = largest_first(np.abs(e.values[row]), limit)
    unit = feature_units(e, units)
    labels = [cell(e, row, j, unit, cut) for j in shown]
    values = e.values[row, shown].tolist()
    errors = None if e.std is None else e.std[row, shown].tolist()
    if len(others):
        labels.append(f"{len(others)} other features")
        values.append(float(e.values[row, others].sum()))
        if errors is not None and e.std is not None:
            # The sum bounds the error whatever the correlation.
            errors.append(float(e.std[row, others].sum()))
    if e.rest is not None:
        # What was sliced away is no part of the features shown, and its error is not known.
        labels.append(LEFT_OUT)
        values.append(float(e.rest[row]))
        if errors is not None:
            errors.append(0.0)
    return labels, np.array(values), None if errors is None else np.array(errors)


def waterfall(
    explanation: Explanation,
    *,
    row: int = 0,
    output: int | str | None = None,
    max_features: int | None = 10,
    units: Units = None,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """From the base value to the output of one row, one feature a step, the largest on top.

    Parameters
    ----------
    explanation : Explanation of a table.
    row : position of the row.
    output : name or position, needed when there are several outputs.
    max_features : steps to draw; smaller contributions are put together.
    units : one unit a feature, or a mapping from names.
    output_unit : unit of the output.
    ax : Axes to draw on.

    Returns
    -------
    matplotlib Axes
    """
    e = one_output(explanation, output)
    row = check_row(e, row)
    labels, values, errors = _steps(e, row, max_features, units, 26)
    base = float(e.base_values[row])
    prediction = float(e.prediction[row])
    ax = axes(ax, 6.8, 1.3 + 0.34 * len(values))
    ends = base + np.cumsum(values[::-1])[::-1]
    starts = ends - values
    places = np.arange(len(values))[::-1]
    ax.barh(
        places, values, left=starts, height=0.66, color=np.where(values >= 0, UP, DOWN), zorder=2
    )
    for place, start, end, value, error in zip(
        places, starts, ends, values, [0.0] * len(values) if errors is None else errors, strict=True
    ):
        side = 1 if value >= 0 else -1
        ax.annotate(
            digits(value, 3, "+"),
            (end + side * error, place),
            xytext=(side * 4, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            color=INK,
            fontsize=9,
        )
        if place > 0:
            ax.plot(
                [start, start], [place - 1.33, place - 0.33 + 0.66], color=GREY, lw=0.8, zorder=1
            )
    if errors is not None:
        ax.errorbar(
            ends, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=3, zorder=3
        )
    size = float(np.abs(values).max(initial=0.0))
    for value, text, height, at in (
        (base, "base value", 0.0, "bottom"),
        (prediction, "output", 1.0, "top"),
    ):
        ax.axvline(value, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.annotate(
            f"{text} {digits(value, 4, '', size)}",
            (value, height),
            xycoords=("data", "axes fraction"),
            ha="center",
            color=INK,
            xytext=(0, 3 if at == "bottom" else 2),
            textcoords="offset points",
            va="bottom",
            fontsize=9,
        )
    reach = np.concatenate([starts, ends, [base]])
    spare = 0.24 * (np.ptp(reach) or 1.0) + (0.0 if errors is None else errors.max())
    ax.set(
        yticks=places,
        yticklabels=labels,
        ylim=(-1.15, len(values) - 0.4),
        xlabel=axis_label(output_unit, "output"),
        xlim=(reach.min() - spare, reach.max() + spare),
    )
    return tell(ax, lambda: table(e, row=row, units=units))


def bar(
    explanation: Explanation,
    *,
    output: int | str | None = None,
    cohorts: Any = None,
    max_features: int | None = 12,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """Mean absolute contribution of each feature over all rows, the largest on top; of one row, the
    contribution with its sign.

    ``cohorts`` are labels ``(N,)`` of the rows, such as a column of the table, or a dict from names
    to rows (a mask or numbers): each feature then has one bar for each cohort, at most seven, with
    features in the order of all rows. Lines show the mean of the standard errors where values are
    estimated: an upper bound of the error of the mean. Other parameters as in ``waterfall``.
    """
    e = one_output(explanation, output)
    if cohorts is not None:
        return bars_of_cohorts(e, cohorts, max_features, output_unit, ax)
    sizes = np.abs(e.values).mean(axis=0)
    shown, others = largest_first(sizes, max_features)
    signed = len(e) == 1
    if signed:
        sizes = e.values[0]
    labels = [escape(e.names[j]) for j in shown] + (
        [f"{len(others)} other features"] if len(others) else []
    )
    lengths = np.append(sizes[shown], sizes[others].sum() if len(others) else [])
    ax = axes(ax, 6.4, 0.9 + 0.3 * len(labels))
    places = np.arange(len(labels))[::-1]
    errors = None
    if e.std is not None:
        mean = e.std.mean(axis=0)
        errors = np.append(mean[shown], mean[others].sum() if len(others) else [])
    colour = np.where(lengths >= 0, UP, DOWN) if signed else DOWN
    ax.barh(places, lengths, height=0.68, color=colour, zorder=2)
    if errors is not None:
        ax.errorbar(
            lengths, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=3, zorder=3
        )
    for place, length, error in zip(
        places, lengths, np.zeros(len(places)) if errors is None else errors, strict=True
    ):
        side = -1 if length < 0 else 1
        ax.annotate(
            digits(length, 3, "+" if signed else ""),
            (length + side * error, place),
            xytext=(4 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            color=INK,
            fontsize=9,
        )
    ends = lengths if errors is None else lengths + np.where(lengths < 0, -errors, errors)
    longest = float(np.abs(ends).max()) or 1.0
    low = min(0.0, float(ends.min()))
    high = max(0.0, float(ends.max())) or (0.0 if low < 0 else 1.0)
    spare = 0.12 * longest if not signed else 0.2 * longest
    ax.set(
        yticks=places,
        yticklabels=labels,
        xlim=(low - spare if low < 0 else 0.0, high + spare),
        xlabel=axis_label(output_unit, "contribution" if signed else "mean |contribution|"),
    )
    if signed:
        ax.axvline(0, color=GREY, lw=0.8, zorder=1)
        return tell(ax, lambda: table(e, row=0))
    return tell(ax, lambda: table(e))


def beeswarm(
    explanation: Explanation,
    *,
    output: int | str | None = None,
    max_features: int | None = 12,
    output_unit: str = "",
    rng: Any = 0,
    ax: Any = None,
) -> Any:
    """One point a row and feature: across its contribution, in colour the feature's value, the
    largest feature on top.

    ``rng`` seeds the heights of points only. Columns of text have no low and high: their points are
    grey, and rings where they are missing. Other parameters as in ``waterfall``.
    """
    e = one_output(explanation, output)
    generator = resolve_rng(rng)
    order = ranked(e, max_features)
    ax = axes(ax, 7.0, 1.0 + 0.36 * len(order))
    places = np.arange(len(order))[::-1]
    data = e.data if e.data is not None and e.data.ndim == 2 else None
    x = e.values[:, order].T
    y = np.stack([place + spread_out(row, generator) for place, row in zip(places, x, strict=True)])
    colours = None if data is None else np.stack([_shades(data[:, j]) for j in order])
    ax.axvline(0, color=GREY, lw=0.8, zorder=1)
    if e.std is not None:
        errors = e.std[:, order].T
        ax.hlines(
            y.ravel(),
            (x - errors).ravel(),
            (x + errors).ravel(),
            color=GREY,
            lw=0.5,
            alpha=0.6,
            zorder=1,
        )
    is_text = np.zeros(y.shape, dtype=bool) if colours is None else colours == _NO_ORDER
    if is_text.any():
        ax.scatter(x[is_text], y[is_text], s=16, color=GREY, linewidths=0, zorder=2)
    shades = None if colours is None else colours[~is_text]
    has_order = shades is None or (~np.isnan(shades)).any()
    dots(ax, x[~is_text], y[~is_text], shades, "feature value" if has_order else None)
    ax.set(
        yticks=places,
        yticklabels=[escape(e.names[j]) for j in order],
        ylim=(-0.6, len(order) - 0.4),
        xlabel=axis_label(output_unit),
    )
    return tell(ax, lambda: table(e))


def _shades(column: np.ndarray) -> np.ndarray:
    """Colours of a column: from 0 to 1, NaN where it is missing, a number of its own for text."""
    codes, labels = codes_of(column)
    if labels is None:
        return to_unit(codes)
    return np.where(np.isnan(codes), np.nan, _NO_ORDER)


def scatter(
    explanation: Explanation,
    feature: int | str,
    *,
    color_by: Any = None,
    output: int | str | None = None,
    units: Units = None,
    output_unit: str = "",
    rng: Any = 0,
    ax: Any = None,
) -> Any:
    """Dependence: the contribution of one feature against its value, in colour a second feature.

    ``color_by`` names the second feature, or asks for the one that the vertical spread comes from:
    an Explanation of interactions gives the partner with the largest mean absolute interaction;
    True needs none and takes the feature whose rank explains most of the spread among rows of like
    value. Categories stand side by side, spread a little by ``rng``, and a second feature of
    categories has a legend; rows whose value is missing stand left of a line. Other parameters as
    in ``waterfall``.
    """
    e = one_output(explanation, output)
    if e.data is None or e.data.ndim != 2:
        fail(
            "explanation",
            "an explanation with the explained rows in .data",
            "none",
            "Make it with data=X",
        )
    j = position(e.names, feature)
    unit = feature_units(e, units)
    k = partner(e, j, color_by)
    x, labels = codes_of(e.data[:, j])
    y = e.values[:, j]
    gone = np.isnan(x)
    ax = axes(ax, 6.4, 3.8)
    generator = resolve_rng(rng)
    if labels is not None:
        x = x + generator.uniform(-0.18, 0.18, len(x))
        ax.set_xticks(
            range(len(labels)),
            [escape(label, 18) for label in labels],
            **({"rotation": 25, "ha": "right"} if sum(map(len, labels)) > 40 else {}),
        )
    if gone.any():
        x, low = _beside(ax, x, gone, generator)
    ax.axhline(0, color=GREY, lw=0.8, zorder=1)
    if e.std is not None:
        ax.vlines(x, y - e.std[:, j], y + e.std[:, j], color=GREY, lw=0.6, alpha=0.6, zorder=1)
    codes, kinds = (None, None) if k is None else codes_of(e.data[:, k])
    if k is not None and codes is not None and kinds is not None:
        dots_by_category(ax, x, y, codes, kinds, escape(e.names[k]))
    else:
        shades = None if codes is None else to_unit(codes)
        dots(ax, x, y, shades, None if k is None else escape(e.names[k]))
    if gone.any() and labels is None:
        # No number stands below the rows whose value is missing.
        ends = ax.get_xlim()
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= ends[1]])
        ax.set_xlim(ends)
    if labels is None:
        plain_numbers(ax, x)
    ax.set(
        xlabel=axis_label(unit[j], escape(e.names[j])),
        ylabel=axis_label(output_unit, "contribution"),
    )
    return tell(ax, lambda: table(e, feature=j, color_by=k, units=units))


def _beside(
    ax: Any, x: np.ndarray, gone: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Places of all rows, the missing ones left of a line, and the least that is known."""
    low, high = (1.0, 1.0) if gone.all() else (np.nanmin(x), np.nanmax(x))
    wide = 0.08 * ((high - low) or 1.0)
    ax.axvline(low - wide, color=GREY, lw=0.8)
    ax.annotate(
        "missing",
        (low - 2 * wide, 1),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        color=INK,
        fontsize=9,
    )
    spread = generator.uniform(-0.4, 0.4, len(x)) * wide
    return np.where(gone, low - 2 * wide + spread, x), float(low)


def force(
    explanation: Explanation,
    *,
    row: int = 0,
    output: int | str | None = None,
    max_features: int | None = 8,
    units: Units = None,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """One row on one line: what raises the output pushes from the left, what lowers it from the
    right.

    Parameters as in ``waterfall``; the largest contributions touch the output.
    """
    e = one_output(explanation, output)
    row = check_row(e, row)
    labels, values, errors = _steps(e, row, max_features, units, 19)
    base = float(e.base_values[row])
    prediction = float(e.prediction[row])
    width = float(np.abs(values).sum()) or 1.0
    sides = [
        (side, colour, np.flatnonzero(values * side > 0)) for side, colour in ((1, UP), (-1, DOWN))
    ]
    named = [[i for i in pushing if abs(values[i]) > 0.04 * width] for _, _, pushing in sides]
    levels = max(map(len, named))
    ax = axes(ax, 7.4, 1.3 + 0.34 * levels)
    for (side, colour, pushing), told in zip(sides, named, strict=True):
        at = prediction
        for i in pushing:
            end = at - values[i]
            tip = side * min(abs(values[i]), 0.012 * width)
            ax.fill(
                [end, at - tip, at, at - tip, end, end + tip],
                [0, 0, 0.5, 1, 1, 0.5],
                color=colour,
                ec="white",
                lw=1.0,
                zorder=2,
            )
            if i in told:
                # Far segments are named above near ones, away from the output: no line crosses a
                # name.
                error = "" if errors is None else f" ± {digits(errors[i], 1)}"
                ax.annotate(
                    f"{labels[i]}\n{digits(values[i], 3, '+')}{error}",
                    ((end + at) / 2, 0),
                    va="top",
                    color=colour,
                    xytext=((end + at) / 2, -0.3 - 0.95 * (len(told) - 1 - told.index(i))),
                    fontsize=8.5,
                    ha="right" if side > 0 else "left",
                    arrowprops={
                        "arrowstyle": "-",
                        "color": colour,
                        "lw": 0.7,
                        "relpos": (side > 0, 1.0),
                    },
                )
            at = end
    for value, text, height in ((base, "base value", 1.9), (prediction, "output", 1.15)):
        ax.plot(
            [value, value],
            [0, height],
            color=INK,
            lw=1.0,
            ls=":" if text == "base value" else "-",
            zorder=3,
        )
        ax.annotate(
            f"{text} {digits(value, 4, '', width)}",
            (value, height),
            ha="center",
            va="bottom",
            color=INK,
            fontsize=9,
        )
    far = [abs(values[pushing].sum()) for _, _, pushing in sides]
    spare = [width * (0.34 if told else 0.06) for told in named]
    ax.set(
        yticks=[],
        ylim=(-0.4 - 0.95 * levels, 2.6),
        xlabel=axis_label(output_unit, "output"),
        xlim=(min(prediction - far[0], base) - spare[0], max(prediction + far[1], base) + spare[1]),
    )
    ax.spines["left"].set_visible(False)
    return tell(ax, lambda: table(e, row=row, units=units))


def table(
    explanation: Any,
    *,
    row: int | None = None,
    feature: int | str | None = None,
    color_by: Any = None,
    output: int | str | None = None,
    units: Units = None,
) -> Any:
    """What a plot shows, as a pandas DataFrame: numbers in the order of the plot, names in full.

    Parameters
    ----------
    explanation : the Axes or Figure that any plot of shaplab returned, and nothing else; or an
        Explanation.
    output, units : as in ``waterfall``; ``color_by`` as in ``scatter``, for a mean of the half of
        each group in which the second feature is low, and of the half in which it is high.
    row : give it for the steps of ``waterfall`` and ``force``.
    feature : give it for the dependence of ``scatter``, in ten groups of rows from low to high or
        by category. Neither: the ranking of ``bar`` and ``beeswarm``, with the direction (rank
        correlation of value and contribution).

    Returns
    -------
    pandas.DataFrame
    """
    pd = imported("pandas", "table")
    if not isinstance(explanation, Explanation):
        if not hasattr(explanation, "findobj") or explanation not in TOLD:
            fail(
                "explanation",
                "an Explanation, or what a plot of shaplab returned",
                explanation,
                "Pass one of the two",
                TypeError,
            )
        return pd.DataFrame(TOLD[explanation]())
    e = one_output(explanation, output)
    unit = feature_units(e, units)
    if row is not None and feature is not None:
        fail("feature", "None when row is given", repr(feature), "Ask for one table at a time")
    known = e.data is not None and e.data.ndim == 2
    if row is not None:
        row = check_row(e, row)
        order = np.argsort(-np.abs(e.values[row]), kind="stable")
        frame = pd.DataFrame(
            {"feature": [e.names[j] for j in order], "contribution": e.values[row, order]}
        )
        if known and e.data is not None:
            told = [f" ({unit[j]})" if unit[j] else "" for j in order]
            frame.insert(
                1,
                "value",
                [number(e.data[row, j]) + text for j, text in zip(order, told, strict=True)],
            )
        if e.std is not None:
            frame["standard error"] = e.std[row, order]
        first, *last = (
            pd.DataFrame({"feature": [name], "contribution": [part[row]]})
            for name, part in (
                ("base value", e.base_values),
                (LEFT_OUT, e.rest),
                ("output", e.prediction),
            )
            if part is not None
        )
        return pd.concat([first, frame, *last], ignore_index=True)[list(frame.columns)]
    if feature is not None:
        if not known or e.data is None:
            fail(
                "explanation",
                "an explanation with the explained rows in .data",
                "none",
                "Make it with data=X",
            )
        j = position(e.names, feature)
        k = partner(e, j, color_by)
        y = e.values[:, j]
        title = f"{e.names[j]} ({unit[j]})" if unit[j] else e.names[j]
        lines = []
        for name, inside in groups_of(e.data[:, j]):
            lines.append(
                {
                    title: name,
                    "rows": int(inside.sum()),
                    "mean contribution": y[inside].mean(),
                    "smallest": y[inside].min(),
                    "largest": y[inside].max(),
                }
            )
            if k is not None:
                other = codes_of(e.data[:, k])[0]
                # NaN is in neither half; a half without rows has the mean NaN.
                middle = np.nanmedian(other[inside]) if (~np.isnan(other[inside])).any() else 0.0
                low = other <= middle if (other[inside] > middle).any() else other < middle
                for word, half in (
                    ("low", inside & low),
                    ("high", inside & ~low & ~np.isnan(other)),
                ):
                    lines[-1][f"mean, {e.names[k]} {word}"] = (
                        y[half].mean() if half.any() else np.nan
                    )
        return pd.DataFrame(lines)
    size = np.abs(e.values).mean(axis=0)
    order = np.argsort(-size, kind="stable")
    frame = pd.DataFrame(
        {"feature": [e.names[j] for j in order], "mean |contribution|": size[order]}
    )
    if e.std is not None:
        frame["standard error"] = e.std.mean(axis=0)[order]
    frame["smallest"] = e.values[:, order].min(axis=0)
    frame["largest"] = e.values[:, order].max(axis=0)
    if known and e.data is not None:
        ranks = [
            pd.Series(codes_of(e.data[:, j])[0]).rank().corr(pd.Series(e.values[:, j]).rank())
            for j in order
        ]
        frame["direction"] = ranks
    return frame
