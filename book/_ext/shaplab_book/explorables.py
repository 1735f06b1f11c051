"""Explorables: small games in the page, played offline by mouse, keyboard or touch.

Each carries its numbers and a short script, so a static page needs neither a kernel nor a network.
What is moved is a slider or a button with a name; what follows is a table of numbers with bars, and
a sentence that a screen reader reads aloud. The tests move them in a browser and compare the
numbers with the library's.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import TableGame
from shaplab.foundations.permutation import MIN_ORDERINGS
from shaplab.insight.monitoring import _BETS

__all__ = [
    "Explorable",
    "background_points",
    "drawn_orderings",
    "fault_in_a_stream",
    "losses_to_sage",
    "path_polynomial",
    "rules_on_a_network",
    "shares_under_structures",
    "which_method_for",
    "who_meets_whom",
    "words_on_and_off",
]


class Explorable:
    """Sliders, buttons, and a table that follows them.

    Parameters
    ----------
    kind : what the page computes, a name in explorables.js.
    title : heading of the box.
    task : what to try.
    rows, columns : names of the table's rows and columns.
    controls : HTML of sliders and buttons, from ``slider`` and ``buttons``.
    start : the state at the beginning.
    digits : decimals shown, one number or one for each column.
    picture : height of a picture above the table, in units of which the width has 220, or 0.
    data : what else the page needs.
    """

    def __init__(
        self,
        kind: str,
        *,
        title: str,
        task: str,
        rows: Sequence[str],
        columns: Sequence[str],
        controls: Sequence[str],
        start: Mapping[str, Any],
        digits: int | Sequence[int] = 2,
        picture: int = 0,
        **data: Any,
    ) -> None:
        self.kind = kind
        self.title = title
        self.task = task
        self.rows = tuple(rows)
        self.columns = tuple(columns)
        self.controls = tuple(controls)
        self.picture = picture
        self.data = {
            "kind": kind,
            "rows": list(self.rows),
            "columns": list(self.columns),
            "start": dict(start),
            "digits": digits if isinstance(digits, int) else list(digits),
            **data,
        }

    def __repr__(self) -> str:
        return f"<Explorable: {self.title}>"

    def _repr_html_(self) -> str:
        payload = json.dumps(self.data, ensure_ascii=True)
        payload = payload.replace("<", "\\u003c").replace("&", "\\u0026")
        identity = "shaplab-" + hashlib.sha256((self.title + payload).encode()).hexdigest()[:12]
        title = html.escape(self.title)
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.columns)
        cells = "<td>–</td>" * len(self.columns)
        body = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>' for name in self.rows
        )
        drawn = ""
        if self.picture:
            drawn = (
                f'<svg viewBox="0 0 220 {self.picture}" role="img" aria-label="{title}" '
                'data-role="picture"></svg>'
            )
        script, style = (
            files("shaplab_book").joinpath(f"explorables.{kind}").read_text(encoding="utf-8")
            for kind in ("js", "css")
        )
        return (
            f'<style>{style}</style><section class="shaplab-explorable" id="{identity}" '
            f'aria-label="{title}">'
            f'<script type="application/json">{payload}</script><p><strong>{title}</strong></p>'
            f"<p>{html.escape(self.task)}</p>"
            f'<div class="controls">{"".join(self.controls)}</div>{drawn}'
            f'<p aria-live="polite" data-role="say"></p>'
            f'<table><thead><tr><th scope="col"></th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
            f"</section><script>{script.replace('ROOT', json.dumps(identity))}</script>"
        )


def slider(name: str, words: str, low: float, high: float, step: float, digits: int = 1) -> str:
    """A slider of the state's entry ``name``."""
    words = html.escape(words)
    return (
        f'<label>{words}<input type="range" data-name="{name}" min="{low:g}" max="{high:g}" '
        f'step="{step:g}" data-digits="{digits}" aria-label="{words}"><output></output></label>'
    )


def buttons(name: str, choices: Sequence[str]) -> str:
    """Buttons of which one is pressed: the state's entry ``name`` is its number."""
    return "".join(
        f'<button type="button" data-set="{name}" data-value="{k}" aria-pressed="false">'
        f"{html.escape(words)}</button>"
        for k, words in enumerate(choices)
    )


def rules_on_a_network(
    weights: Sequence[Sequence[float]], bias: Sequence[float], out: Sequence[float]
) -> Explorable:
    """Rules beside enumeration on a network of one hidden layer of ReLUs with three inputs.

    Parameters
    ----------
    weights : ``(units, 3)``; bias, out : ``(units,)``. The output is ``out @ relu(weights @ x +
        bias)``.
    """
    start = {f"x{i}": value for i, value in enumerate((1.2, 0.8, 1.5))}
    start |= {f"r{i}": 0.0 for i in range(3)}
    sliders = [slider(f"x{i}", f"row {i + 1}", -2, 2, 0.1) for i in range(3)]
    sliders += [slider(f"r{i}", f"reference {i + 1}", -2, 2, 0.1) for i in range(3)]
    return Explorable(
        "network",
        title="Move a row and its reference",
        task="Which rule follows the exact values? Look for places where one of them gives an "
        "input the wrong sign.",
        rows=[f"input {i + 1}" for i in range(3)],
        columns=["exact", "Rescale", "Reveal Cancel", "Reveal Cancel Mean"],
        controls=sliders,
        start=start,
        weights=[list(map(float, row)) for row in weights],
        bias=list(map(float, bias)),
        out=list(map(float, out)),
    )


def shares_under_structures(
    names: Sequence[str], worth: Mapping[tuple[int, ...], float]
) -> Explorable:
    """Three players: Shapley's, Owen's and asymmetric values while the structure changes."""
    table = [0.0] * 8
    for members, value in worth.items():
        table[sum(1 << player for player in members)] = float(value)
    pairs = [(0, 1), (0, 2), (1, 2)]
    orders = [*pairs, *(pair[::-1] for pair in pairs)]
    families = [f"family {names[a]}, {names[b]}" for a, b in pairs]
    before = [f"{names[a]} before {names[b]}" for a, b in orders]
    return Explorable(
        "structures",
        title="Families and orders change the shares",
        task="Choose a family, then an order. Who gains by staying together, who by coming first?",
        rows=names,
        columns=["Shapley", "with the family", "with the order"],
        controls=[buttons("family", families), buttons("order", before)],
        start={"family": 0, "order": 0},
        worth=table,
        families=pairs,
        orders=orders,
    )


def drawn_orderings(names: Sequence[str], worth: np.ndarray, digits: int = 0) -> Explorable:
    """Orderings drawn one by one, in pairs of twins and in pairs drawn apart."""
    table = np.asarray(worth, dtype=float)
    exact = shapley_values(TableGame(table), len(names))
    draw = "".join(
        f'<button type="button" data-draw="{count}">{words}</button>'
        for count, words in ((1, "one pair more"), (10, "ten more"), (100, "a hundred more"))
    )
    return Explorable(
        "orderings",
        title="Watch the error shrink",
        task="Each click draws pairs of orderings: two drawn apart for one column, an ordering and "
        "its twin for the other. The ± is 1.96 standard errors: a 95% interval, once there are "
        "many pairs.",
        rows=names,
        columns=["exact", "drawn apart", "twins"],
        controls=[draw, '<button type="button" data-reset="1">start over</button>'],
        start={"random": 7, "pending": 0, "sums": [[], []]},
        digits=digits,
        worth=table.tolist(),
        exact=exact.tolist(),
    )


def background_points(
    cuts: Sequence[float], leaves: Sequence[float], covers: Sequence[float]
) -> Explorable:
    """A tree of two questions on a square: a background that moves, and covers that do not.

    Parameters
    ----------
    cuts : of the first feature at the root, of the second on the right.
    leaves : left, right and low, right and high.
    covers : of the root, of the right child, of its low leaf.
    """
    points = [[0.15, 0.3], [0.3, 0.8], [0.6, 0.2], [0.75, 0.65], [0.9, 0.85]]
    start = {
        "x0": 0.8, "x1": 0.3, "chosen": 0, "shown": 0, "points": points,
        "p0": points[0][0], "p1": points[0][1],
    }  # fmt: skip
    chosen = buttons("chosen", [f"point {k + 1}" for k in range(len(points))])
    return Explorable(
        "trees",
        title="Move the background",
        task="The diamond is the row, the dots are the background. Move a dot from one side of a "
        "line to the other: interventional values follow, path-dependent ones stay.",
        rows=["across", "up"],
        columns=["interventional", "path-dependent"],
        controls=[
            slider("x0", "row, across", 0, 1, 0.05, 2),
            slider("x1", "row, up", 0, 1, 0.05, 2),
            chosen,
            slider("p0", "chosen point, across", 0, 1, 0.05, 2),
            slider("p1", "chosen point, up", 0, 1, 0.05, 2),
        ],
        start=start,
        picture=220,
        cuts=list(map(float, cuts)),
        leaves=list(map(float, leaves)),
        covers=list(map(float, covers)),
    )


def path_polynomial(zero: Sequence[float], one: Sequence[int]) -> Explorable:
    """EXTEND and UNWIND: features of a path multiplied in and divided out."""
    toggles = "".join(
        f'<button type="button" data-toggle="on{i}" aria-pressed="false">feature {i + 1}: '
        f"z = {z:g}, o = {o}</button>"
        for i, (z, o) in enumerate(zip(zero, one, strict=True))
    )
    return Explorable(
        "extend",
        title="EXTEND and UNWIND",
        task="Press a feature to extend the path by it, press it again to unwind it. The order in "
        "which you press does not matter.",
        rows=[f"{k} known" for k in range(len(zero) + 1)],
        columns=["sum of products", "weight", "product of both"],
        controls=[toggles],
        start={f"on{i}": i == 0 for i in range(len(zero))},
        digits=4,
        zero=list(map(float, zero)),
        one=list(map(int, one)),
    )


def losses_to_sage(names: Sequence[str], losses: np.ndarray, digits: int = 3) -> Explorable:
    """LossSHAP values of rows ``(N, d)``, averaged over more and more of them."""
    rows = np.asarray(losses, dtype=float)
    return Explorable(
        "sage",
        title="From LossSHAP to SAGE",
        task="Average over more rows. Single rows disagree about what helps; the mean settles.",
        rows=names,
        columns=["the last row", "mean so far", "all rows: SAGE"],
        controls=[slider("rows", "rows", 1, len(rows), 1, 0)],
        start={"rows": 1},
        digits=digits,
        losses=[[round(float(v), 6) for v in row] for row in rows],
    )


def fault_in_a_stream(
    names: Sequence[str],
    inputs: np.ndarray,
    noise: np.ndarray,
    weights: Sequence[float],
    ties: np.ndarray,
    false_alarm_rate: float = 0.05,
) -> Explorable:
    """A linear model in use: one of its features goes wrong, and the evidence of each share of the
    squared error grows.

    Parameters
    ----------
    names : of the features.
    inputs : ``(n, d)`` with mean 0, which stands in for a feature that is left out; the model says
        ``inputs @ weights``, the label has ``noise`` ``(n,)`` on top.
    ties : ``(n - n0,)`` uniform numbers, which also say that the first ``n0`` rows are reference.
    """
    rows = np.asarray(inputs, dtype=float).round(3)
    labels = rows @ np.asarray(weights, dtype=float) + np.asarray(noise, dtype=float)
    watched = [*names, "whole loss"]
    last = len(ties) - 10
    return Explorable(
        "stream",
        title="Break a feature and wait for the alarm",
        task="Choose a feature, the row from which on it goes wrong, and what is left of it: 1 is "
        "as it should be, 0 is lost, −1 is the wrong way round. Does its share ring before the "
        "whole loss does? The table has the means before and since, the largest evidence as a "
        "power of ten, and how many rows of the fault it took to ring.",
        rows=watched,
        columns=["before", "since", "power of ten", "alarm"],
        controls=[
            buttons("feature", names),
            slider("at", "goes wrong at row", 0, last, 1, 0),
            slider("left", "what is left of it", -1, 1, 0.1),
        ],
        start={"feature": 0, "at": 20, "left": -1},
        digits=[1, 1, 1, 0],
        picture=50 * len(watched),
        inputs=rows.tolist(),
        labels=[round(float(v), 6) for v in labels],
        weights=list(map(float, weights)),
        ties=[round(float(v), 6) for v in ties],
        reference=len(rows) - len(ties),
        bets=_BETS.tolist(),
        limit=len(watched) / false_alarm_rate,
    )


def who_meets_whom(stages: Sequence[Sequence[tuple[int, int]]]) -> Explorable:
    """A butterfly: which features one feature can know of after each stage."""
    n = 2 * len(stages[0])
    return Explorable(
        "butterfly",
        title="Who has met whom?",
        task="Choose a feature. A 1 marks the features it can depend on after each stage.",
        rows=[f"feature {i + 1}" for i in range(n)],
        columns=[f"stage {k + 1}" for k in range(len(stages))],
        controls=[buttons("feature", [str(i + 1) for i in range(n)])],
        start={"feature": 0},
        digits=0,
        stages=[[list(pair) for pair in stage] for stage in stages],
    )


def words_on_and_off(words: Sequence[str], tables: Mapping[str, np.ndarray]) -> Explorable:
    """A sentence whose words are switched on and off, in several games.

    Parameters
    ----------
    words : the players, in the order of the sentence.
    tables : name of a game -> worths of all coalitions ``(2^n,)``, word i in the place of bit i.
    """
    toggles = "".join(
        f'<button type="button" data-toggle="on{i}" aria-pressed="true">{html.escape(word)}'
        "</button>"
        for i, word in enumerate(words)
    )
    worths = [np.asarray(table, dtype=float).round(5).tolist() for table in tables.values()]
    return Explorable(
        "words",
        title="Switch words off",
        task="Each word is a button. What is left is explained anew: the bars are the Shapley "
        "values of the words that are on, one column for each way in which the others are absent.",
        rows=words,
        columns=list(tables),
        controls=[toggles, '<button type="button" data-reset="1">all words</button>'],
        start={f"on{i}": True for i in range(len(words))},
        digits=3,
        worths=worths,
    )


def which_method_for() -> Explorable:
    """What each method asks of a model, and how long that takes, for any size of the task."""
    kinds = ["trees", "a network", "a sum of terms", "anything else"]
    speeds = ["1,000 rows a second", "100,000", "10 million"]
    return Explorable(
        "methods",
        title="Which method, for your model?",
        task="Say what your model is, how fast it predicts, and how large the task is: one "
        "prediction, explained against so many background rows. The table counts rows that the "
        "model is asked for.",
        rows=[
            "the definition",
            "orderings, 4 rounds",
            "reading the trees",
            "rules",
            "reading the terms",
        ],
        columns=["model rows", "time", "error"],
        controls=[
            f'<div class="choice" role="group" aria-label="Model">{buttons("model", kinds)}</div>',
            f'<div class="choice" role="group" aria-label="Speed">{buttons("speed", speeds)}</div>',
            slider("features", "features", 2, 60, 1, 0),
            slider("background", "background rows", 1, 200, 1, 0),
        ],
        start={"model": 3, "speed": 1, "features": 30, "background": 100},
        speeds=[1e3, 1e5, 1e7],
        least=MIN_ORDERINGS,
    )
