"""Plots of a whole model, of interactions, of pictures, and of one row against several backgrounds.

``summary`` puts bar and beeswarm side by side, ``interaction`` shows one cell of the interaction
values, ``heatmap`` rows in the order of their clustering, ``embedding`` rows on a plane,
``compare`` one row explained several times, ``images`` signed maps beside the pictures,
``partial_dependence`` a model's curves, of each row and on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shaplab._figures import (  # isort: skip
    COLOURS,
    DOWN,
    GREY,
    INK,
    Units,
    axes,
    axis_label,
    check_row,
    codes_of,
    colour_bar,
    dots,
    dots_by_category,
    escape,
    one_output,
    panels,
    position,
    ranked,
    signed_colours,
    tell,
    to_unit,
)
from shaplab._validation import (  # isort: skip
    as_matrix,
    as_numbers,
    check_callable,
    check_choice,
    check_int,
    check_names,
    column_names,
    digits,
    fail,
    is_frame,
    resolve_rng,
    shorten,
)
from shaplab._rows import Rows
from shaplab.explanation import Explanation
from shaplab.insight.summaries import Clusters, Embedding, cluster_rows
from shaplab.plots._features import bar, beeswarm, force, scatter, table, waterfall

_CHANNELS = 4  # what a picture file has at most: red, green, blue and opacity

__all__ = [
    "compare",
    "embedding",
    "heatmap",
    "images",
    "interaction",
    "partial_dependence",
    "summary",
]


def summary(
    explanation: Explanation,
    *,
    output: int | str | None = None,
    max_features: int | None = 12,
    output_unit: str = "",
    rng: Any = 0,
    ax: Any = None,
) -> Any:
    """Bar and beeswarm side by side, the same features in the same order. Parameters as in
    ``plots.beeswarm``."""
    e = one_output(explanation, output)
    part = e[:, list(ranked(e, max_features))]
    left, right = panels(ax, 1, 2, 10.0, 1.0 + 0.34 * len(part.names))
    bar(part, max_features=None, output_unit=output_unit, ax=left)
    beeswarm(part, max_features=None, output_unit=output_unit, rng=rng, ax=right)
    left.set_ylim(right.get_ylim())
    right.tick_params(labelleft=False)
    return tell(left.figure, lambda: table(e))


def interaction(
    explanation: Explanation,
    feature: int | str,
    other: int | str,
    *,
    output: int | str | None = None,
    units: Units = None,
    output_unit: str = "",
    rng: Any = 0,
    ax: Any = None,
) -> Any:
    """Interaction dependence: the interaction of two features against the first one's value, in
    colour the second.

    ``explanation`` holds interactions, with ``data``. The height is one cell ``values[n, feature,
    other]``: half of the interaction, the other half has the plot with the two exchanged; with
    ``other`` equal to ``feature`` it is the main effect. The rest as in ``plots.scatter``.
    """
    if not isinstance(explanation, Explanation) or not explanation.interaction:
        fail(
            "explanation",
            "interaction values of shape (N, d, d)",
            explanation,
            "Use tree_shap_interactions",
        )
    i = position(explanation.names, feature)
    j = position(explanation.names, other, "other")
    e = one_output(
        replace(
            explanation,
            values=explanation.values[:, :, j],
            interaction=False,
            std=None if explanation.std is None else explanation.std[:, :, j],
        ),
        output,
    )
    colour = None if i == j else j
    names = [escape(e.names[k], 22) for k in (i, j)]
    ax = scatter(e, i, color_by=colour, units=units, rng=rng, ax=ax)
    ax.set_ylabel(
        axis_label(
            output_unit,
            f"main effect of {names[0]}"
            if i == j
            else f"interaction of {names[0]}\nand {names[1]}",
        )
    )
    said = {
        "mean contribution": "mean main effect" if i == j else f"mean interaction with {e.names[j]}"
    }
    return tell(ax, lambda: table(e, feature=i, color_by=colour, units=units).rename(columns=said))


def heatmap(
    explanation: Explanation,
    clusters: Clusters | None = None,
    *,
    output: int | str | None = None,
    max_features: int | None = 10,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """Rows across in the order of their clustering, features down, in colour the contribution, the
    output on top.

    Lines divide the groups of ``clusters``: from ``cluster_rows`` of the same rows, by default of
    this explanation, in at most eight groups. Other parameters as in ``plots.beeswarm``.
    """
    e = one_output(explanation, output)
    if len(e) < 2:
        fail("explanation", "at least two rows", f"{len(e)}", "There is nothing to put in order")
    found = cluster_rows(e, n_clusters=min(8, len(e))) if clusters is None else clusters
    if not isinstance(found, Clusters) or len(found.order) != len(e):
        fail(
            "clusters",
            f"cluster_rows of the {len(e)} explained rows",
            f"an order of {len(found.order)}" if isinstance(found, Clusters) else found,
            "Cluster the explained rows",
        )
    top = ranked(e, max_features)
    cells = e.values[found.order][:, top].T
    limit = float(np.percentile(np.abs(cells), 98)) or float(np.abs(cells).max()) or 1.0
    ax = axes(ax, 8.6, 2.0 + 0.27 * len(top))
    image = ax.imshow(
        cells,
        aspect="auto",
        cmap=signed_colours(),
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    above = axes(ax.inset_axes([0, 1.04, 1, 0.3], sharex=ax), 0, 0)
    above.plot(np.arange(len(e)), e.prediction[found.order], color=GREY, lw=0.8)
    above.tick_params(labelbottom=False, bottom=False, colors=INK)
    above.set_ylabel("output", color=INK)
    for end in np.flatnonzero(np.diff(found.labels[found.order])):
        for part in (ax, above):
            part.axvline(end + 0.5, color=INK, lw=0.8)
    ax.set(
        yticks=range(len(top)),
        yticklabels=[escape(e.names[j]) for j in top],
        xlim=(-0.5, len(e) - 0.5),
        xlabel="rows, in the order of the clustering",
    )
    colour_bar(ax, image, axis_label(output_unit, "contribution"), None)
    groups = {int(g): found.labels == g for g in np.unique(found.labels)}
    return tell(
        ax,
        lambda: [
            {
                "group": g,
                "rows": int(inside.sum()),
                "mean output": e.prediction[inside].mean(),
                **{e.names[j]: e.values[inside, j].mean() for j in top},
            }
            for g, inside in groups.items()
        ],
    )


def embedding(
    embedded: Embedding,
    *,
    color_by: Any = None,
    color_name: str = "",
    feature_names: Any = None,
    unit: str = "",
    ax: Any = None,
) -> Any:
    """Rows on their first two principal components, coloured by a number or category of each row.

    Parameters
    ----------
    embedded : from ``embed_rows``, with two components or more.
    color_by : array ``(N,)``, or None; ``color_name`` stands at its colour bar.
    feature_names : of the columns that were embedded, for the table; ``unit`` is the unit of their
        values.
    ax : Axes to draw on.
    """
    if not isinstance(embedded, Embedding) or embedded.points.shape[1] < 2:
        fail(
            "embedded",
            "an Embedding of at least two components",
            f"{embedded.points.shape[1]}" if isinstance(embedded, Embedding) else embedded,
            "Use embed_rows(..., n_components=2)",
        )
    points = embedded.points
    d = embedded.components.shape[1]
    if color_by is not None and np.shape(color_by) != points.shape[:1]:
        fail(
            "color_by",
            f"{len(points)} values, one a row",
            f"shape {np.shape(color_by)}",
            "Pass one for each row",
        )
    codes, labels = (None, None) if color_by is None else codes_of(np.asarray(color_by))
    names = check_names(feature_names, d, "feature_names") or [f"x{i}" for i in range(d)]
    ax = axes(ax, 5.6, 4.2)
    if codes is not None and labels is not None:
        dots_by_category(ax, points[:, 0], points[:, 1], codes, labels, escape(color_name))
    else:
        ends = ["low", "high"]
        if codes is not None and (~np.isnan(codes)).any():
            ends = [digits(end, 2) for end in np.nanpercentile(codes, [5, 95])]
        shades = None if codes is None else to_unit(codes)
        dots(ax, points[:, 0], points[:, 1], shades, escape(color_name), ends)
    said = [f"component {k + 1}, {embedded.explained[k]:.0%} of the variance" for k in (0, 1)]
    ax.set(xlabel=axis_label(unit, said[0]), ylabel=axis_label(unit, said[1]))
    far = np.argsort(-np.abs(embedded.components), axis=1)[:, :3]
    return tell(
        ax,
        lambda: [
            {
                "component": k + 1,
                "share of variance": embedded.explained[k],
                "from": points[:, k].min(),
                "to": points[:, k].max(),
                "made of": ", ".join(
                    f"{embedded.components[k, i]:+.2f} {names[i]}" for i in far[k]
                ),
                **(
                    {}
                    if codes is None
                    else {
                        f"covariance with {color_name or 'colour'}": np.nanmean(
                            (points[:, k] - points[:, k].mean()) * (codes - np.nanmean(codes))
                        )
                    }
                ),
            }
            for k in (0, 1)
        ],
    )


def compare(
    explanations: Mapping[str, Explanation],
    *,
    row: int = 0,
    kind: str = "waterfall",
    output: int | str | None = None,
    max_features: int | None = 8,
    units: Units = None,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """One row explained several times, for example against two backgrounds, on one scale.

    ``explanations`` are titles to Explanations of the same features, ``kind`` is "waterfall" (side
    by side) or "force" (one below the other). The rest as in ``plots.waterfall``.
    """
    plot = {"waterfall": waterfall, "force": force}[
        check_choice(kind, "kind", ("waterfall", "force"))
    ]
    given = explanations if isinstance(explanations, Mapping) else {}
    parts = {str(title): one_output(e, output) for title, e in given.items()}
    if len({e.names for e in parts.values()}) != 1:
        fail(
            "explanations",
            "at least one explanation, all of the same features",
            f"{len(parts)} explanations",
            "Explain the same columns in the same order",
        )
    names = next(iter(parts.values())).names
    n = len(parts)
    steps = min(len(names), max_features or len(names))
    drawn = (
        panels(ax, 1, n, 5.4 * n, 1.8 + 0.34 * steps)
        if kind == "waterfall"
        else panels(ax, n, 1, 7.4, (1.9 + 0.2 * steps) * n)
    )
    for one, (title, e) in zip(drawn, parts.items(), strict=True):
        plot(e, row=row, max_features=max_features, units=units, output_unit=output_unit, ax=one)
        one.set_title(escape(title, 60), pad=18, fontsize=10)
    low, high = np.transpose([one.get_xlim() for one in drawn])
    room = 0.1 * (
        high.max() - low.min()
    )  # numbers beside a step keep their width when a wide scale is shared
    for one in drawn:
        one.set_xlim(low.min() - room, high.max() + room)
    at = [(e, check_row(e, row)) for e in parts.values()]
    order = np.argsort(-np.max([np.abs(e.values[r]) for e, r in at], axis=0), kind="stable")
    left_out = any(e.rest is not None for e, _ in at)
    said = ["base value", *(names[j] for j in order), *["features left out"] * left_out, "output"]
    return tell(
        drawn[0].figure,
        lambda: {
            "feature": said,
            **{
                title: [
                    e.base_values[r],
                    *e.values[r, order],
                    *[0.0 if e.rest is None else e.rest[r]] * left_out,
                    e.prediction[r],
                ]
                for title, (e, r) in zip(parts, at, strict=True)
            },
        },
    )


def _maps(e: Explanation, title: str, output: int | str | None) -> dict[str, np.ndarray]:
    """Signed maps ``(N, H, W)`` by title: one for each output, channels summed."""
    if (
        not isinstance(e, Explanation)
        or e.interaction
        or len(e.feature_shape) not in (2, 3)
        or not len(e)
        or not np.isfinite(e.values).all()
    ):
        fail(
            "explanation",
            "attributions of images, finite and of shape (N, H, W) or (N, C, H, W)",
            f"values of shape {e.shape}" if isinstance(e, Explanation) else e,
            "Tables have their own plots",
        )
    found = {title: e.values}
    if e.has_outputs:
        names = e.output_names or [str(k) for k in range(e.shape[-1])]
        chosen = range(len(names)) if output is None else [position(names, output, "output")]
        found = {f"{title} {names[k]}".strip(): e.values[..., k] for k in chosen}
    elif output is not None:
        fail("output", "None, as the model has one output", repr(output), "Leave it out")
    axis = None if len(e.feature_shape) == 2 else channel_axis(e.feature_shape)
    return {
        name or "contribution": part if axis is None else part.sum(axis=1 + axis)
        for name, part in found.items()
    }


def channel_axis(shape: tuple[int, ...]) -> int:
    """Which axis of an image ``(C, H, W)`` or ``(H, W, C)`` are the channels: the one that is
    short."""
    few = [axis for axis in (0, 2) if shape[axis] in (1, 3)]
    if len(few) != 1:
        few = [axis for axis in (0, 2) if shape[axis] <= _CHANNELS]
    if len(few) != 1:
        # Many channels, or tiny pictures: square pictures still tell.
        few = [axis for axis in (0, 2) if shape[1] == shape[2 - axis] != shape[axis]]
    if len(few) != 1 and shape != (1, 1, 1):
        fail(
            "explanation",
            "images (N, C, H, W) or (N, H, W, C) whose channels can be told from their pixels",
            f"features of shape {shape}, which may be either",
            "Sum the channels first: Explanation(values.sum(axis=1), ..., data=data.mean(axis=1))",
        )
    return few[0] if few else 0


def _pictures(data: np.ndarray, maps: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Images to draw, ``(N, H, W)`` or three channels last; None where they do not fit the maps."""
    pictures = np.asarray(data, dtype=float)
    shapes = {part.shape for part in maps.values()}
    if len(shapes) != 1 or pictures.ndim not in (3, 4):
        return None
    shape = shapes.pop()
    if pictures.ndim == 3:
        return pictures if pictures.shape == shape else None
    # The maps tell which axis is left over; both do only where channels count as many as pixels.
    fits = [axis for axis in (1, 3) if np.delete(pictures.shape, axis).tolist() == list(shape)]
    if not fits:
        return None
    axis = fits[0] if len(fits) == 1 else 1 + channel_axis(pictures.shape[1:])
    count = pictures.shape[axis]
    return np.moveaxis(pictures, axis, -1) if count == 3 else pictures.mean(axis=axis)


def images(
    explanation: Explanation | Mapping[str, Explanation],
    *,
    rows: Sequence[int] | None = None,
    output: int | str | None = None,
    output_unit: str = "",
    ax: Any = None,
) -> Any:
    """Pictures, and beside each its signed maps: orange raises the output, blue lowers it, channels
    are summed.

    Parameters
    ----------
    explanation : Explanation of images ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, H, W, C)`` (which
        axis are the channels is read from the shape) with ``data``, a map for each output; or
        titles to Explanations of the same images, for example by several methods. All maps have one
        scale.
    rows : positions of the images; the first four.
    output : name or position, for one map instead of all.
    ax : Axes, for each image one and one a map. Below each map stands the sum of its contributions.
    """
    given = explanation if isinstance(explanation, Mapping) else {"": explanation}
    maps = {
        name: part
        for title, e in given.items()
        for name, part in _maps(e, str(title), output).items()
    }
    first = next(iter(given.values()), None)
    pictures = None if first is None or first.data is None else _pictures(first.data, maps)
    if first is None or pictures is None:
        fail(
            "explanation",
            "explanations of the same images, with data (N, H, W), (N, C, H, W) or (N, H, W, C)",
            "none or others",
            "Make them with data=X",
        )
    chosen = [
        check_row(first, row)
        for row in (range(min(4, len(first))) if rows is None else np.ravel(rows).tolist())
    ]
    if not chosen:
        fail("rows", "positions of at least one image", rows, "Leave it out for the first four")
    size = np.abs([part[chosen] for part in maps.values()])
    limit = float(np.percentile(size, 99.5)) or float(size.max()) or 1.0
    titles = ["image", *maps]
    drawn = panels(ax, len(chosen), len(titles), 1.75 * len(titles) + 0.9, 1.95 * len(chosen) + 0.2)
    for place, n in enumerate(chosen):
        line = drawn[place * len(titles) :][: len(titles)]
        low = pictures[n].min()
        high = pictures[n].max()
        line[0].imshow((pictures[n] - low) / ((high - low) or 1.0), cmap="gray", vmin=0, vmax=1)
        line[0].set_xlabel(f"row {n}")
        for one, part in zip(line[1:], maps.values(), strict=True):
            image = one.imshow(part[n], cmap=signed_colours(), vmin=-limit, vmax=limit)
            one.set_xlabel(f"sum {digits(part[n].sum(), 3, '+')}")
        for one, title in zip(line, titles, strict=True):
            one.set(xticks=[], yticks=[], title=escape(title, 22) if place == 0 else "")
            one.spines[:].set_visible(True)
    colour_bar(list(drawn), image, axis_label(output_unit, "contribution"), None)
    return tell(
        drawn[0].figure,
        lambda: [
            {
                "row": n,
                "map": name,
                "sum": m.sum(),
                "raises": m.clip(0).sum(),
                "lowers": m.clip(max=0).sum(),
                "most raising pixel": tuple(map(int, np.unravel_index(m.argmax(), m.shape))),
                "most lowering pixel": tuple(map(int, np.unravel_index(m.argmin(), m.shape))),
            }
            for n in chosen
            for name, part in maps.items()
            for m in [part[n]]
        ],
    )


def partial_dependence(
    model: Any,
    X: Any,
    feature: int | str,
    *,
    grid: Any = None,
    centered: bool = False,
    color_by: int | str | None = None,
    max_curves: int = 200,
    output: int | None = None,
    unit: str = "",
    output_unit: str = "",
    rng: Any = 0,
    ax: Any = None,
) -> Any:
    """Individual curves, what the model says of each row as one feature moves, and their mean in
    front.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``; then ``output`` is a position.
    X : array or DataFrame ``(N, d)``; the mean is over all rows. N rows go through the model for
        each grid value.
    feature, unit : name or position of a column of numbers, and its unit; ``color_by`` is a second
        feature.
    grid : increasing values; by default its distinct values, or 25 steps from the 1st to the 99th
        percentile.
    centered : subtract from each curve its own mean, so that only shapes are compared.
    max_curves : curves to draw, chosen by ``rng``. The rest as in ``plots.scatter``.
    """
    X = X if is_frame(X) else as_matrix(X, "X")
    names = column_names(X) or [f"x{i}" for i in range(X.shape[1])]
    j = position(names, feature)
    k = None if color_by is None else position(names, color_by, "color_by")
    columns = [X.iloc[:, c].to_numpy() if is_frame(X) else X[:, c] for c in range(len(names))]
    own, labels = codes_of(columns[j])
    own = np.unique(own[~np.isnan(own)])
    if labels is not None or not len(own):
        fail(
            "feature",
            "a column of numbers",
            shorten(names[j]),
            "Draw categories with plots.scatter",
        )
    if grid is None:
        low, high = np.nanpercentile(codes_of(columns[j])[0], [1, 99])
        grid = own if len(own) <= 25 else np.linspace(low, high, 25)
    steps = as_numbers(grid, "grid")
    if steps.ndim != 1 or len(steps) < 2 or not (np.diff(steps) > 0).all():
        fail(
            "grid",
            "at least two increasing numbers",
            grid,
            f"Give values of {shorten(names[j], 40)}",
        )
    moved = X.iloc[[0] * len(steps)].copy() if is_frame(X) else X[[0] * len(steps)].astype(float)
    if is_frame(X):
        moved.isetitem(j, steps)
    else:
        moved[:, j] = steps
    rows = Rows(check_callable(model, "model"), X, moved)
    n = len(X)
    count = check_int(max_curves, "max_curves")
    present = np.tile(np.arange(len(names)) != j, (n, 1))
    found = np.stack(
        [rows.outputs(present, np.arange(n), np.full(n, g)) for g in range(len(steps))], axis=1
    )
    if found.ndim == 2 and output is not None:
        fail("output", "None, as the model has one output", repr(output), "Leave it out")
    if found.ndim == 3 and (output is not None or found.shape[2] == 1):
        found = found[..., check_int(output or 0, "output", minimum=0, maximum=found.shape[2] - 1)]
    if found.ndim == 3:
        fail("output", f"one of 0 to {found.shape[2] - 1}", "None", "Say which output to plot")
    curves = found - found.mean(axis=1, keepdims=True) if centered else found
    shown = np.sort(resolve_rng(rng).permutation(n)[:count])
    ax = axes(ax, 6.4, 3.8)
    from matplotlib.collections import LineCollection

    lines = ax.add_collection(
        LineCollection(
            [np.column_stack([steps, curve]) for curve in curves[shown]],
            lw=0.7,
            alpha=0.7,
            colors=GREY if k is None else None,
            zorder=1,
        )
    )
    if k is not None:
        lines.set(
            array=np.ma.masked_invalid(to_unit(codes_of(columns[k])[0])[shown]),
            cmap=COLOURS,
            clim=(0, 1.12),
        )
        colour_bar(ax, lines, escape(names[k]))
    for colour, width in (("white", 4.5), (DOWN, 2.5)):
        ax.plot(steps, curves.mean(axis=0), color=colour, lw=width, zorder=3)
    what = "output minus its mean" if centered else "output"
    ax.set(xlabel=axis_label(unit, escape(names[j])), ylabel=axis_label(output_unit, what))
    five, ninety_five = np.quantile(curves, [0.05, 0.95], axis=0)
    return tell(
        ax,
        lambda: {
            f"{names[j]} ({unit})" if unit else names[j]: steps,
            f"mean {what}": curves.mean(axis=0),
            "5% of rows below": five,
            "5% of rows above": ninety_five,
            "smallest": curves.min(axis=0),
            "largest": curves.max(axis=0),
        },
    )
