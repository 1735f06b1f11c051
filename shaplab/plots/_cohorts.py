"""Bars of groups of rows side by side: ``bar`` with cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shaplab._figures import (
    CATEGORIES,
    INK,
    axes,
    axis_label,
    codes_of,
    escape,
    number,
    ranked,
    tell,
)
from shaplab._validation import fail, shorten
from shaplab.explanation import Explanation

__all__: list[str] = []


def bars_of_cohorts(
    e: Explanation, cohorts: Any, max_features: int | None, output_unit: str, ax: Any
) -> Any:
    """Mean absolute contributions of each cohort, one colour a cohort, features in the order of all
    rows."""
    groups = cohort_rows(cohorts, len(e))
    order = ranked(e, max_features)
    ax = axes(ax, 6.4, 1.2 + len(order) * (0.12 + 0.17 * len(groups)))
    places = np.arange(len(order))[::-1]
    height = 0.8 / len(groups)
    for number_of, (name, rows) in enumerate(groups.items()):
        lengths = np.abs(e.values[rows][:, order]).mean(axis=0)
        at = places + 0.4 - height * (number_of + 0.5)
        ax.barh(
            at,
            lengths,
            height=0.9 * height,
            color=CATEGORIES[number_of],
            label=f"{escape(name, 24)} ({len(rows)} rows)",
            zorder=2,
        )
        if e.std is not None:
            errors = e.std[rows][:, order].mean(axis=0)
            ax.errorbar(lengths, at, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, zorder=3)
    legend = ax.legend(frameon=False, fontsize=8, loc="lower right")
    for text in legend.get_texts():
        text.set_color(INK)
    ax.set(
        yticks=places,
        yticklabels=[escape(e.names[j]) for j in order],
        xlabel=axis_label(output_unit, "mean |contribution|"),
    )
    ax.set_xlim(left=0.0)
    full = ranked(e, None)
    return tell(
        ax,
        lambda: {
            "feature": [e.names[j] for j in full],
            **{
                f"{name} ({len(rows)} rows)": np.abs(e.values[rows][:, full]).mean(axis=0)
                for name, rows in groups.items()
            },
        },
    )


def cohort_rows(cohorts: Any, n: int) -> dict[str, np.ndarray]:
    """Row numbers of each cohort, by name; rows whose label is missing are in none."""
    rule = f"labels of {n} rows, or a dict from names to rows"
    found: dict[str, np.ndarray] = {}
    if isinstance(cohorts, Mapping):
        for name, rows in cohorts.items():
            chosen = np.asarray(rows)
            if chosen.dtype == bool:
                if chosen.shape != (n,):
                    fail("cohorts", rule, f"a mask of shape {chosen.shape}", "Give one entry a row")
                chosen = np.flatnonzero(chosen)
            is_rows = chosen.ndim == 1 and chosen.dtype.kind in "iu" and chosen.size
            if not is_rows or chosen.min() < -n or chosen.max() >= n:
                what = f"{shorten(name, 40)!r} with {shorten(chosen, 60)}"
                fail("cohorts", rule, what, "Give row numbers or a mask with at least one row")
            found[str(name)] = chosen
    else:
        labels = np.asarray(cohorts)
        if labels.shape != (n,):
            fail("cohorts", rule, f"shape {labels.shape}", "Give one label a row")
        codes, names = codes_of(labels)
        for code in np.unique(codes[~np.isnan(codes)]):
            rows = np.flatnonzero(codes == code)
            found[number(labels[rows[0]]) if names is None else names[int(code)]] = rows
    if not 1 <= len(found) <= len(CATEGORIES):
        fail(
            "cohorts",
            f"1 to {len(CATEGORIES)} cohorts",
            f"{len(found)}",
            "Put values together, for example by np.digitize, or pass a dict from names to rows",
        )
    return found
