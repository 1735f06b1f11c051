"""The book's schematic drawings, one for each idea, with the numbers of the chapter's example.

Each function returns a `Sketch`. Numbers are arguments or are computed here from the definition, so
that a drawing cannot disagree with the text without a cell noticing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from math import erf, exp, pi, sqrt

from shaplab_book.sketch import Sketch

__all__ = [
    "butterfly",
    "chord",
    "coalition_lattice",
    "difference_of_differences",
    "four_kinds",
    "kinds_not_rows",
    "loss_steps",
    "max_levels",
    "monitoring_stream",
    "multipliers",
    "normal_through_relu",
    "ordering_and_twin",
    "orderings_left",
    "parts_of_a_unit",
    "path_product",
    "product_polynomial",
    "rows_to_global",
    "series_of_models",
    "shapley_transform_step",
    "small_functions",
    "three_loss_games",
    "three_removals",
    "tree_with_covers",
    "unfair_rules",
    "window_shares",
]


def number(value: float, digits: int = 2) -> str:
    """A number for a drawing: short, with a true minus sign."""
    text = f"{abs(value):.{digits}f}".rstrip("0").rstrip(".") if digits else f"{abs(value):.0f}"
    return ("−" if value < 0 and text != "0" else "") + text


# Foundations


def coalition_lattice(
    names: Sequence[str], worth: Mapping[tuple[int, ...], float], order: Sequence[int], unit: str
) -> Sketch:
    """The coalitions of three players, with one ordering as a path from nobody to everybody."""
    first, second, _ = order
    path = [(), (first,), tuple(sorted((first, second))), (0, 1, 2)]
    steps = [worth[path[k + 1]] - worth[path[k]] for k in range(3)]
    told = ", ".join(f"{names[p]} adds {number(s, 0)}" for p, s in zip(order, steps, strict=True))
    sketch = Sketch(
        292,
        f"The eight coalitions of {', '.join(names)}, from nobody at the bottom to all three "
        f"at the "
        f"top, with their worth in {unit}, joined by lines. One path from bottom to top is marked: "
        f"{told}.",
        f"All coalitions of three players, with what each is worth ({unit}). An ordering is a path "
        f"from the bottom to the top. On the marked one {told}. The Shapley value of a player is "
        "the mean of what it adds over all six paths.",
    )
    across = {0: [180], 1: [62, 180, 298], 2: [62, 180, 298], 3: [180]}
    place: dict[tuple[int, ...], tuple[float, float]] = {}
    for size, subsets in enumerate(
        ([()], [(0,), (1,), (2,)], [(0, 1), (0, 2), (1, 2)], [(0, 1, 2)])
    ):
        for x, subset in zip(across[size], subsets, strict=True):
            place[subset] = (x, 258 - 76 * size)
    for small, (x, y) in place.items():
        for large, (u, w) in place.items():
            if len(large) == len(small) + 1 and set(small) < set(large):
                marked = small in path and large in path
                sketch.line(
                    (x, y - 17),
                    (u, w + 17),
                    colour="for" if marked else "quiet",
                    width=3 if marked else 1,
                    arrow=marked,
                )
    for subset, (x, y) in place.items():
        label = " + ".join(names[p] for p in subset) or "nobody"
        if len(subset) == 3:
            label = "all three"
        sketch.node(x, y, [label, number(worth[subset], 0)], width=104, size=12)
    for k, (player, step) in enumerate(zip(order, steps, strict=True)):
        (x, y), (u, w) = place[path[k]], place[path[k + 1]]
        side = 12 if u >= x else -12
        anchor = "start" if side > 0 else "end"
        middle = ((x + u) / 2 + side, (y + w) / 2)
        sketch.text(
            *middle,
            f"{names[player]} +{number(step, 0)}",
            colour="for",
            size=11,
            anchor=anchor,
            bold=True,
        )
    return sketch


def unfair_rules() -> Sketch:
    """Four rules, each of which breaks one axiom on a small game."""
    sketch = Sketch(
        250,
        "Four panels with bars. Equal shares pay a player who adds nothing. Last-come shares "
        "do not "
        "add up to the whole. The order of the alphabet pays two equal players differently. Paying "
        "the whole to the larger half gives other shares for a sum of two games than the sum of "
        "the shares.",
        "Each axiom stops one rule. Bars are what two players A and B are paid; dashed, what the "
        "four axioms pay them.",
    )
    panels = [
        (("equal", "shares"), "B adds nothing", (0.5, 0.5), (1.0, 0.0), "null player"),
        (("what one", "adds last"), "both are needed", (1.0, 1.0), (0.5, 0.5), "efficiency"),
        (("all to the", "first name"), "A, B are alike", (1.0, 0.0), (0.5, 0.5), "symmetry"),
        (("all to", "the larger"), "a sum of games", (1.0, 0.0), (0.6, 0.4), "linearity"),
    ]
    for k, (rule, game, paid, due, axiom) in enumerate(panels):
        left = 8 + 88 * k
        for line, words in enumerate(rule):
            sketch.text(left + 40, 10 + 14 * line, words, size=11, bold=True)
        sketch.text(left + 40, 42, game, size=10.5, colour="quiet")
        for j, (have, should) in enumerate(zip(paid, due, strict=True)):
            x = left + 12 + 34 * j
            sketch.box(x, 190 - 130 * have, 22, 130 * have, colour="for", fill="for", round=0)
            sketch.box(
                x - 3, 190 - 130 * should, 28, 130 * should, colour="ink", dash=True, round=0
            )
            sketch.text(x + 11, 202, "AB"[j], size=12)
        sketch.line((left, 190), (left + 80, 190))
        sketch.text(left + 40, 226, "breaks", size=10.5, colour="quiet")
        sketch.text(left + 40, 240, axiom, size=11, bold=True)
    return sketch


def three_removals(
    row: Sequence[str],
    baseline: Sequence[str],
    others: Sequence[Sequence[str]],
    alike: Sequence[int],
) -> Sketch:
    """One row of three features whose second one is known, in the three games."""
    sketch = Sketch(
        262,
        "Three tables for one row of which only the second value is known. In the baseline "
        "game the "
        "unknown cells hold one reference row. In the marginal game they hold every row of the "
        "background in turn. In the conditional game only rows that agree with the known value.",
        "Only the middle feature is known (orange). The baseline game fills the gaps from one row, "
        "the marginal game from every row of the background, the conditional game from those that "
        "agree with what is known.",
    )
    titles = ["baseline", "marginal", "conditional"]
    kept = [[baseline], list(others), [others[k] for k in alike]]
    for k, (title, rows) in enumerate(zip(titles, kept, strict=True)):
        left = 10 + 120 * k
        sketch.text(left + 50, 12, title, bold=True)
        sketch.text(left + 50, 34, "the row", size=10, colour="quiet")
        for j, value in enumerate(row):
            known = j == 1
            sketch.box(
                left + 34 * j,
                44,
                32,
                24,
                colour="for" if known else "quiet",
                fill="for" if known else "none",
                dash=not known,
            )
            sketch.text(left + 34 * j + 16, 56, value if known else "?", size=11)
        sketch.line((left + 50, 74), (left + 50, 92), arrow=True, colour="quiet")
        for r, filled in enumerate(rows):
            for j, value in enumerate(filled):
                known = j == 1
                sketch.box(
                    left + 34 * j,
                    98 + 28 * r,
                    32,
                    24,
                    colour="for" if known else "against",
                    fill="for" if known else "against",
                )
                sketch.text(left + 34 * j + 16, 110 + 28 * r, row[1] if known else value, size=11)
        mean = "its output" if len(rows) == 1 else f"mean of {len(rows)} outputs"
        sketch.text(left + 50, 108 + 28 * len(rows) + 6, mean, size=10.5)
    return sketch


def difference_of_differences(corner: Mapping[tuple[int, int], float]) -> Sketch:
    """The four corners of a pair of players, two of them counted with a minus."""
    change = corner[1, 1] - corner[1, 0] - corner[0, 1] + corner[0, 0]
    sketch = Sketch(
        216,
        f"A square. Corners: neither {number(corner[0, 0])}, only i {number(corner[1, 0])}, only j "
        f"{number(corner[0, 1])}, both {number(corner[1, 1])}. The interaction is "
        f"{number(change)}: both and neither count plus, the two single ones minus.",
        f"What j adds with i there is {number(corner[1, 1] - corner[1, 0])}, without i "
        f"{number(corner[0, 1] - corner[0, 0])}. The difference of these differences, "
        f"{number(change)}, is the interaction: corners with + count for it, corners with − "
        f"against.",
    )
    names = {(0, 0): "neither", (1, 0): "only i", (0, 1): "only j", (1, 1): "both"}
    for (i, j), value in corner.items():
        x = 96 + 168 * i
        y = 160 - 110 * j
        plus = (i + j) % 2 == 0
        colour = "for" if plus else "against"
        sketch.node(
            x,
            y,
            [names[i, j], f"{'+' if plus else '−'} {number(value)}"],
            width=78,
            colour=colour,
            fill=colour,
        )
    for x, with_i in ((96, 0), (264, 1)):
        sketch.line((x, 136), (x, 76), arrow=True, colour="quiet")
        step = corner[with_i, 1] - corner[with_i, 0]
        sketch.text(
            x + (22 if with_i else -22),
            106,
            f"{'+' if step >= 0 else ''}{number(step)}",
            size=12,
            anchor="start" if with_i else "end",
        )
    sketch.text(180, 106, f"{number(change)}", size=20, bold=True)
    sketch.text(
        180, 204, "what j adds, without i (left) and with i (right)", size=11, colour="quiet"
    )
    return sketch


def orderings_left(players: str, family: str, before: str) -> Sketch:
    """All orderings of three players, and which of them a family and an order leave."""
    free = ["".join(order) for order in permutations(players)]
    rows = [
        ("no structure", [True] * 6),
        (f"family {{{', '.join(family)}}}", [family in o or family[::-1] in o for o in free]),
        (
            f"{before[0]} before {before[1]}",
            [o.index(before[0]) < o.index(before[1]) for o in free],
        ),
    ]
    counts = ", ".join(f"{name}: {sum(left)}" for name, left in rows)
    sketch = Sketch(
        216,
        f"The six orderings of {', '.join(players)} in three rows; those that a structure forbids "
        f"are crossed out. Left are: {counts}.",
        f"The same six orderings three times; crossed out are those that a structure forbids. "
        f"Left: {counts}. Each value of this chapter is a mean over the orderings that are left.",
    )
    for r, (name, left) in enumerate(rows):
        y = 40 + 66 * r
        sketch.text(6, y - 20, name, anchor="start", bold=True)
        for k, (order, good) in enumerate(zip(free, left, strict=True)):
            x = 6 + 59 * k
            for j, player in enumerate(order):
                marked = r > 0 and player in (family if r == 1 else before)
                fill = "for" if marked and good else "none"
                colour = "for" if marked else "quiet"
                sketch.box(x + 18 * j, y, 17, 24, colour=colour, fill=fill, round=2)
                sketch.text(x + 18 * j + 8.5, y + 12, player, colour="ink" if good else "quiet")
            if not good:
                sketch.line((x - 2, y + 28), (x + 56, y - 4), colour="against", width=2)
    return sketch


def ordering_and_twin(order: str, worth: Mapping[str, float]) -> Sketch:
    """One ordering walked forwards and its reverse, with what one player adds in each."""
    player = order[1]
    sketch = Sketch(
        190,
        f"The ordering {order} walked from left to right and its reverse. {player} comes second in "
        "the one and second to last in the other, so it meets one player in the one and all the "
        "others in the other.",
        f"An ordering and its twin, the same ordering from behind. {player} meets few players "
        f"in one "
        "and many in the other, so what it adds varies in opposite directions, and the mean of the "
        "two varies less than the mean of two orderings drawn apart.",
    )
    for r, walk in enumerate((order, order[::-1])):
        y = 34 + 84 * r
        sketch.text(
            8, y - 18, "an ordering" if r == 0 else "its twin", anchor="start", bold=True, size=12
        )
        for j, name in enumerate(walk):
            mine = name == player
            sketch.node(
                34 + 52 * j,
                y + 8,
                name,
                width=36,
                colour="for" if mine else "quiet",
                fill="for" if mine else "none",
            )
            if j:
                sketch.line(
                    (34 + 52 * j - 32, y + 8),
                    (34 + 52 * j - 20, y + 8),
                    arrow=True,
                    colour="quiet",
                    width=1,
                )
        before = "".join(sorted(walk[: walk.index(player)]))
        after = "".join(sorted(before + player))
        step = worth[after] - worth[before]
        sketch.text(
            354, y + 8, f"{player} adds {number(step)}", anchor="end", colour="for", size=12
        )
        sketch.text(
            354, y + 26, f"to {{{', '.join(before)}}}", anchor="end", colour="quiet", size=11
        )
    mean = (
        worth["".join(sorted(order[:2]))]
        - worth[order[0]]
        + worth["".join(sorted(order[1:]))]
        - worth["".join(sorted(order[2:]))]
    ) / 2
    sketch.text(354, 176, f"mean of the two {number(mean)}", anchor="end", bold=True, size=12)
    return sketch


# Trees


def tree_with_covers(
    questions: Sequence[str],
    covers: Sequence[int],
    leaves: Sequence[float],
    known: Sequence[bool],
    goes_left: Sequence[bool],
) -> Sketch:
    """A tree of two levels and a row of which some features are known.

    Three questions (root, left, right), seven covers in the order of the levels, four leaves.
    """
    weight = [1.0] + [0.0] * 6
    for node in range(3):
        for side in range(2):
            child = 2 * node + 1 + side
            share = covers[child] / covers[node]
            if known[node]:
                share = float(goes_left[node] == (side == 0))
            weight[child] = weight[node] * share
    worth = sum(w * leaf for w, leaf in zip(weight[3:], leaves, strict=True))
    sums = " + ".join(
        f"{number(w)} · {number(leaf)}" for w, leaf in zip(weight[3:], leaves, strict=True) if w
    )
    asked = [questions[k] for k in range(3) if known[k]]
    sketch = Sketch(
        262,
        f"A tree with the covers {', '.join(map(str, covers))}. The row is known where the "
        f"tree asks "
        f"{' and '.join(asked) or 'nothing'}; there it goes one way. Elsewhere it goes both "
        f"ways, by "
        f"the covers. The weights at the leaves are "
        f"{', '.join(number(w) for w in weight[3:])}; the worth is {number(worth)}.",
        "Numbers in brackets are covers. Where the feature is known (orange question) the whole "
        "weight goes one way; where it is not (dashed), it is divided as the training rows were. "
        f"The worth of this coalition is {sums} = {number(worth)}.",
    )
    place = [(180, 26), (92, 104), (268, 104), (48, 190), (136, 190), (224, 190), (312, 190)]
    for node in range(3):
        for side in range(2):
            child = 2 * node + 1 + side
            (x, y), (u, w) = place[node], place[child]
            used = weight[child] > 0
            sketch.line(
                (x, y + 20),
                (u, w - 20),
                width=1 + 4 * weight[child],
                colour="for" if known[node] and used else "quiet",
                dash=not known[node] or not used,
            )
    for node, question in enumerate(questions):
        colour = "for" if known[node] else "quiet"
        sketch.node(
            *place[node],
            [question, f"({covers[node]})"],
            width=84,
            colour=colour,
            size=11,
            fill=colour if known[node] else "none",
            dash=not known[node],
        )
    for k, leaf in enumerate(leaves):
        x, y = place[3 + k]
        sketch.node(x, y, number(leaf), width=48)
        sketch.text(x, y + 22, f"({covers[3 + k]})", size=10, colour="quiet")
        sketch.text(
            x,
            y + 42,
            f"weight {number(weight[3 + k])}",
            size=11,
            colour="for" if weight[3 + k] else "quiet",
        )
    return sketch


def path_product(
    features: Sequence[str], zero: Sequence[str], one: Sequence[int], known: Sequence[bool]
) -> Sketch:
    """One path of a tree: a factor for each feature, o if it is known and z if it is not."""
    factors = [str(o) if here else z for z, o, here in zip(zero, one, known, strict=True)]
    sketch = Sketch(
        170,
        "A path with the features " + ", ".join(features) + ". Each has two factors: z, its share "
        "of cover, and o, 1 or 0. Known are "
        + (", ".join(f for f, k in zip(features, known, strict=True) if k) or "none")
        + f"; the leaf pays c times {' times '.join(factors)}.",
        "A leaf is a product with one factor for each feature of its path: o (top) if the feature "
        "is known, z (bottom) if it is not. Marked: the factors of one coalition. The leaf "
        "pays c · " + " · ".join(factors) + ".",
    )
    step = 300 / len(features)
    for k, (name, z, o, here) in enumerate(zip(features, zero, one, known, strict=True)):
        x = 60 + step * (k + 0.5)
        sketch.text(x, 14, name, size=12)
        sketch.node(
            x,
            56,
            str(o),
            width=62,
            colour="for" if here else "quiet",
            fill="for" if here else "none",
        )
        sketch.node(
            x,
            106,
            z,
            width=62,
            colour="quiet" if here else "against",
            fill="none" if here else "against",
        )
        if k:
            sketch.text(x - step / 2, 82, "·", size=18)
    sketch.text(14, 56, "o", size=16, italic=True)
    sketch.text(14, 106, "z", size=16, italic=True)
    sketch.text(34, 82, "c  ·", size=14, italic=True)
    sketch.text(200, 150, "c · " + " · ".join(factors), size=15, bold=True)
    return sketch


def product_polynomial(zero: Sequence[float], one: Sequence[int]) -> Sketch:
    """EXTEND as the growth of a polynomial: coefficients by the number of known features."""
    rows = [[1.0]]
    for z, o in zip(zero, one, strict=True):
        last = rows[-1]
        grown = [0.0] * (len(last) + 1)
        for k, value in enumerate(last):
            grown[k] += z * value
            grown[k + 1] += o * value
        rows.append(grown)
    sketch = Sketch(
        34 + 62 * len(rows),
        "A triangle of numbers. Each row multiplies the row above by one feature's factor: to the "
        "left below by z, unknown, to the right below by o, known. The last row is "
        + ", ".join(number(v, 3) for v in rows[-1])
        + ".",
        "EXTEND multiplies a polynomial by one factor z + o t for each feature of the path "
        "(here without the Shapley weights). A "
        "number stands for all coalitions of a size: down to the left the feature is unknown "
        "(times z), down to the right it is known (times o). UNWIND goes back one row.",
    )
    for r, row in enumerate(rows):
        y = 24 + 62 * r
        for k, value in enumerate(row):
            x = 200 + 70 * (k - (len(row) - 1) / 2)
            if r + 1 < len(rows):
                for side, factor in ((0, zero[r]), (1, one[r])):
                    u = 200 + 70 * (k + side - len(row) / 2)
                    colour = "for" if side else "against"
                    sketch.line(
                        (x, y + 13),
                        (u, y + 48),
                        colour=colour if factor else "quiet",
                        dash=not factor,
                        arrow=bool(factor),
                    )
            sketch.node(x, y, number(value, 3), width=54, size=12)
        if r:
            for line, words in enumerate((f"z = {number(zero[r - 1], 3)}", f"o = {one[r - 1]}")):
                sketch.text(4, y - 8 + 16 * line, words, anchor="start", size=11, colour="quiet")
    sketch.text(
        200,
        24 + 62 * len(rows) - 28,
        "known features: 0, 1, 2, ... from the left",
        size=11,
        colour="quiet",
    )
    return sketch


def four_kinds() -> Sketch:
    """The four kinds of feature of a path, by what x and the background row do."""
    sketch = Sketch(
        214,
        "A table of two rows and two columns. If x and the background row both meet the "
        "question the "
        "feature never matters; if only x does, the leaf needs the feature present; if only the "
        "background row does, the leaf needs it absent; if neither does, the leaf is never "
        "reached.",
        "For one leaf, one explained row x and one background row b there are four kinds of "
        "feature. "
        "Only two of them play: those that must be present, and those that must be absent.",
    )
    sketch.text(232, 14, "background row b meets the question", size=12)
    sketch.text(162, 34, "yes", size=12)
    sketch.text(292, 34, "no", size=12)
    sketch.text(8, 84, "x meets it", anchor="start", size=12)
    sketch.text(8, 160, "x does not", anchor="start", size=12)
    cells = [
        (162, 84, ["both: no player", "always on the path"], "quiet", "none"),
        (292, 84, ["only x: must be", "present (+)"], "for", "for"),
        (162, 160, ["only b: must be", "absent (−)"], "against", "against"),
        (292, 160, ["neither: the leaf", "is never reached"], "quiet", "none"),
    ]
    for x, y, lines, colour, fill in cells:
        sketch.node(x, y, lines, width=122, colour=colour, fill=fill, size=11.5)
    return sketch


def kinds_not_rows(bits: Sequence[str], counts: Sequence[int]) -> Sketch:
    """Rows become patterns of bits, patterns are counted, and a table holds a value for each."""
    total = sum(counts)
    sketch = Sketch(
        226,
        f"Many rows on the left fall into {len(bits)} kinds by the bits of a path: "
        + ", ".join(f"{b} {c} rows" for b, c in zip(bits, counts, strict=True))
        + ". A table has one value for each kind; every row looks its value up.",
        f"{total} rows, {len(bits)} kinds. Rows that answer a path's questions alike get the same "
        "values from its leaf, so the values are computed once for each kind and looked up.",
    )
    sketch.text(44, 12, "rows", bold=True, size=12)
    sketch.text(184, 12, "kinds", bold=True, size=12)
    sketch.text(310, 12, "table", bold=True, size=12)
    row = 0
    for k, (pattern, count) in enumerate(zip(bits, counts, strict=True)):
        y = 50 + 176 * (k + 0.5) / len(bits) - 22
        for _ in range(count):
            at = 30 + 184 * (row + 0.5) / total
            sketch.line(
                (18, at), (70, at), width=3, colour=("for", "against", "ink", "quiet")[k % 4]
            )
            sketch.line((74, at), (148, y), width=0.8, colour="quiet")
            row += 1
        sketch.node(184, y, f"{pattern}  × {count}", width=70, size=12)
        sketch.line((222, y), (274, y), arrow=True, colour="quiet")
        sketch.node(312, y, f"φ({pattern})", width=70, size=12)
    return sketch


def three_loss_games(outputs: Sequence[float], target: float) -> Sketch:
    """Mean first or loss first: two squared-error games for one coalition."""
    mean = sum(outputs) / len(outputs)
    first = (mean - target) ** 2
    second = sum((f - target) ** 2 for f in outputs) / len(outputs)
    sketch = Sketch(
        214,
        f"Outputs {', '.join(map(number, outputs))} against two background rows, target "
        f"{number(target)}. Averaged first, the loss is {number(first)}; loss first, the "
        f"average is "
        f"{number(second)}.",
        f"The same outputs of hybrid rows, two games. Mean first, then the loss: {number(first)}. "
        f"Loss first, then the mean: {number(second)}, more by the spread of the outputs, "
        f"{number(second - first)}.",
    )
    for k, output in enumerate(outputs):
        y = 62 + 72 * k
        sketch.node(48, y, ["output", number(output)], width=72, size=12)
        sketch.line((86, y - 4), (122, 44), arrow=True, colour="for")
        sketch.line((86, y + 4), (122, 132 + 48 * k), arrow=True, colour="against")
        loss = (output - target) ** 2
        sketch.node(164, 134 + 48 * k, f"loss {number(loss)}", width=80, size=12, colour="against")
        sketch.line((206, 134 + 48 * k), (252, 158), arrow=True, colour="against")
    sketch.node(164, 40, f"mean {number(mean)}", width=80, size=12, colour="for")
    sketch.line((206, 40), (246, 40), arrow=True, colour="for")
    sketch.node(
        302, 40, ["loss of the mean", number(first)], width=106, size=12, colour="for", fill="for"
    )
    sketch.node(
        302,
        158,
        ["mean of the loss", number(second)],
        width=106,
        size=12,
        colour="against",
        fill="against",
    )
    return sketch


# Networks


def multipliers(
    weights: Sequence[float], row: Sequence[float], reference: Sequence[float]
) -> Sketch:
    """A sum and a ReLU: values go forward, multipliers flow back."""
    before = sum(w * r for w, r in zip(weights, reference, strict=True))
    after = sum(w * x for w, x in zip(weights, row, strict=True))
    low, high = max(before, 0.0), max(after, 0.0)
    slope = (high - low) / (after - before)
    values = [slope * w * (x - r) for w, x, r in zip(weights, row, reference, strict=True)]
    sketch = Sketch(
        236,
        "Two inputs, their sum h and its ReLU y. Forward the values of the row and, in "
        "brackets, of "
        f"the reference. Back flows the multiplier, {number(slope)} per unit of h; the inputs get "
        f"{' and '.join(number(v) for v in values)}.",
        "Forwards (black): values of the explained row, in brackets those of the reference. "
        "Backwards (orange): output per unit of change. An input's share is its multiplier times "
        "how far it moved.",
    )
    for k, (x, r) in enumerate(zip(row, reference, strict=True)):
        y = 62 + 96 * k
        sketch.node(46, y, [f"x_{k + 1}", f"{number(x)} ({number(r)})"], width=78)
        sketch.line((86, y - 6), (142, 104 if k == 0 else 112), arrow=True)
        sketch.line(
            (142, 92 if k == 0 else 126),
            (88, y + (8 if k else -14)),
            arrow=True,
            colour="for",
            dash=True,
        )
        sketch.text(46, y + 32, f"share {number(values[k])}", colour="for", bold=True, size=12)
        sketch.text(
            112,
            y + (26 if k else -22),
            f"{number(slope * weights[k])} a unit",
            colour="for",
            size=11,
        )
    sketch.node(182, 108, ["h", f"{number(after)} ({number(before)})"], width=78)
    sketch.line((222, 104), (276, 104), arrow=True)
    sketch.line((276, 116), (222, 116), arrow=True, colour="for", dash=True)
    sketch.text(249, 136, f"{number(slope)} a unit", colour="for", size=11)
    sketch.text(249, 72, "max(h, 0)", size=11)
    sketch.node(316, 108, ["y", f"{number(high)} ({number(low)})"], width=76)
    sketch.text(316, 144, f"moved by {number(high - low)}", size=12, colour="quiet")
    return sketch


def chord(function: Callable[[float], float], low: float, high: float, name: str) -> Sketch:
    """The slope of a chord between reference and row, beside the tangent at the row."""
    left, right = min(low, high), max(low, high)
    margin = 0.25 * (right - left)
    grid = [left - margin + k * (right - left + 2 * margin) / 80 for k in range(81)]
    values = [function(v) for v in grid]
    floor, top = min(values), max(values)
    step = 1e-6 * (right - left)
    tangent = (function(high + step) - function(high - step)) / (2 * step)
    slope = (function(high) - function(low)) / (high - low)
    sketch = Sketch(
        230,
        f"The curve {name}. The chord from the reference at {number(low)} to the row at "
        f"{number(high)} has slope {number(slope)}; the tangent at the row has slope "
        f"{number(tangent)}.",
        f"A gradient asks for the slope at the row ({number(tangent)}, blue). The multiplier of "
        f"Rescale is the slope of the chord from the reference to the row ({number(slope)}, "
        "orange), so it accounts for the whole change.",
    )

    def at(v: float, w: float) -> tuple[float, float]:
        across = 30 + 300 * (v - grid[0]) / (grid[-1] - grid[0])
        return across, 180 - 150 * (w - floor) / (top - floor)

    sketch.line(at(grid[0], floor), at(grid[-1], floor), colour="quiet", width=1)
    sketch.line(*[at(v, w) for v, w in zip(grid, values, strict=True)], width=2)
    reach = 0.35 * (right - left)
    sketch.line(
        *[
            at(v, function(high) + tangent * (v - high))
            for v in (high - reach, high + margin * 0.8)
        ],
        colour="against",
        width=2,
        dash=True,
    )
    sketch.line(at(low, function(low)), at(high, function(high)), colour="for", width=2.5)
    for v, label in ((low, "reference"), (high, "row")):
        x, y = at(v, function(v))
        sketch.dot(x, y, 5, fill="ink")
        sketch.line((x, y), (x, 180), colour="quiet", width=1, dash=True)
        sketch.text(x, 194, label, size=12)
        sketch.text(x, 210, number(v), size=11, colour="quiet")
    return sketch


def max_levels(row: Sequence[float], reference: Sequence[float]) -> Sketch:
    """A maximum as a sum over levels: at each level, who is above it."""
    start, end = max(reference), max(row)
    cuts = sorted({*row, *reference})
    sketch = Sketch(
        250,
        "Bars of the inputs of a maximum, from their reference to their row, cut by horizontal "
        "levels. In each band between two levels the maximum is above if any input is above.",
        f"The maximum moves from {number(start)} to {number(end)}. Cut the height into bands: in "
        "each band (between dotted lines) ask whether any input reaches it, by its row's value "
        "if it is present, by its reference if not. The shares of that game are known; add up the "
        "bands.",
    )
    low, high = min(cuts), max(cuts)

    def y(v: float) -> float:
        return 200 - 170 * (v - low) / (high - low)

    for level in cuts:
        sketch.line((40, y(level)), (340, y(level)), colour="quiet", width=1, dash=True)
        sketch.text(32, y(level), number(level), size=11, anchor="end")
    step = 270 / len(row)
    for k, (x, r) in enumerate(zip(row, reference, strict=True)):
        across = 60 + step * (k + 0.5)
        rises = x >= r
        colour = "for" if rises else "against"
        sketch.box(
            across - 14,
            y(max(x, r)),
            28,
            y(min(x, r)) - y(max(x, r)),
            colour=colour,
            fill=colour,
            round=0,
        )
        sketch.line((across, y(r)), (across, y(x)), colour=colour, arrow=True, width=2)
        sketch.text(across, 218, f"x_{k + 1}", size=13)
    sketch.text(
        200, 240, "each input, from its reference value to the row's", size=11, colour="quiet"
    )
    return sketch


def parts_of_a_unit(contributions: Sequence[float], threshold: float) -> Sketch:
    """Contributions to one unit in two groups, above and below a line."""
    sketch = Sketch(
        220,
        "Bars of the contributions "
        + ", ".join(number(c) for c in contributions)
        + f" to one unit, and a line at {number(threshold)}. Those above form one player, those "
        "below the other.",
        f"Contributions to one unit, and a line at their mean, {number(threshold)}. Those above "
        "(orange) play as one, those at or below it (blue) as the other; within a group each "
        "takes its part in proportion. With the line at zero all would stand in one group.",
    )
    low = min(0.0, *contributions)
    high = max(0.0, *contributions)

    def y(v: float) -> float:
        return 180 - 150 * (v - low) / (high - low)

    step = 290 / len(contributions)
    for k, c in enumerate(contributions):
        colour = "for" if c > threshold else "against"
        across = 50 + step * (k + 0.5)
        sketch.box(
            across - 16, min(y(c), y(0)), 32, abs(y(c) - y(0)), colour=colour, fill=colour, round=0
        )
        sketch.text(across, y(c) - 10, number(c), size=12)
        sketch.text(across, 198, f"c_{k + 1}", size=13)
    sketch.line((40, y(0)), (345, y(0)))
    sketch.line((40, y(threshold)), (345, y(threshold)), dash=True, width=2)
    sketch.text(352, y(threshold) - 11, f"line {number(threshold)}", anchor="end", size=11)
    return sketch


def series_of_models(stages: Sequence[str], notes: Sequence[str]) -> Sketch:
    """Models in a row: values forwards, shares backwards, a rule of its own for each stage."""
    sketch = Sketch(
        176,
        "Boxes in a row: " + ", ".join(stages) + ". Arrows forwards carry values, arrows backwards "
        "carry multipliers; under each box stands how it shares: " + ", ".join(notes) + ".",
        "Values go forwards through the stages. Backwards, each stage turns what its outputs are "
        "worth into what its inputs are worth, by whatever rule suits it; only multipliers pass "
        "between them. This is done for one reference at a time, and averaged at the end.",
    )
    step = 360 / len(stages)
    for k, (stage, note) in enumerate(zip(stages, notes, strict=True)):
        x = step * (k + 0.5)
        sketch.node(x, 66, stage, width=step - 34, size=12)
        sketch.text(x, 136, note, size=11, colour="for")
        sketch.line((x, 122), (x, 84), colour="for", width=1, arrow=True)
        if k:
            sketch.line((x - step / 2 - 14, 58), (x - step / 2 + 14, 58), arrow=True)
            sketch.line(
                (x - step / 2 + 14, 76),
                (x - step / 2 - 14, 76),
                arrow=True,
                colour="for",
                dash=True,
            )
    sketch.text(180, 22, "values →", size=12)
    sketch.text(180, 162, "← multipliers", size=12, colour="for")
    return sketch


def normal_through_relu(mean: float, deviation: float) -> Sketch:
    """A normal law before and after a ReLU, with the mean and deviation that come out."""
    z = mean / deviation
    density = exp(-z * z / 2) / sqrt(2 * pi)
    below = (1 + erf(z / sqrt(2))) / 2
    out = mean * below + deviation * density
    square = (mean**2 + deviation**2) * below + mean * deviation * density
    spread = sqrt(max(0.0, square - out**2))
    sketch = Sketch(
        216,
        f"On the left a bell curve with mean {number(mean)} and deviation {number(deviation)}. On "
        "the right its part above zero, and a bar at zero for all that was below. Its mean is "
        f"{number(out)}, its deviation {number(spread)}.",
        "Left: the sum over a random coalition is nearly normal. A ReLU piles all that is below "
        "zero (blue) onto zero. Right: what comes out, with mean "
        f"{number(out)} and deviation {number(spread)}; the next layer is given a normal law with "
        "these.",
    )
    top = 1 / (deviation * sqrt(2 * pi))
    reach = 3.2 * deviation
    for left, after in ((10, False), (196, True)):

        def at(v: float, d: float, left: float = left) -> tuple[float, float]:
            return left + 155 * (v - mean + reach) / (2 * reach), 160 - 120 * d / top

        grid = [mean - reach + 2 * reach * k / 80 for k in range(81)]
        curve = [(v, exp(-(((v - mean) / deviation) ** 2) / 2) * top) for v in grid]
        for sign, colour in ((-1, "against"), (1, "for")):
            part = [(v, d) for v, d in curve if sign * v >= 0]
            if not part or (after and sign < 0):
                continue
            shape = [at(v, d) for v, d in part]
            ends = (at(part[0][0], 0), at(part[-1][0], 0))
            sketch.line(ends[0], *shape, ends[1], colour=colour, fill=colour, opacity=0.25)
        x, y = at(0, 0)
        if after:
            height = 120 * (1 - below)
            sketch.box(
                x - 4, y - height, 8, height, colour="against", fill="against", opacity=0.6, round=0
            )
        sketch.line(at(grid[0], 0), at(grid[-1], 0))
        sketch.line((x, 160), (x, 166))
        sketch.text(x, 176, "0", size=11)
        words = (
            f"mean {number(out)}, deviation {number(spread)}"
            if after
            else (f"mean {number(mean)}, deviation {number(deviation)}")
        )
        sketch.text(left + 78, 200, words, size=11)
        sketch.text(left + 78, 16, "after the ReLU" if after else "before", size=12, bold=True)
    sketch.line((168, 90), (192, 90), arrow=True)
    return sketch


# Networks that explain themselves


def shapley_transform_step(
    function: Callable[[float, float], float],
    row: tuple[float, float],
    reference: tuple[float, float],
) -> Sketch:
    """Two inputs, four evaluations, two Shapley values."""
    (x1, x2), (r1, r2) = row, reference
    worth = [function(r1, r2), function(x1, r2), function(r1, x2), function(x1, x2)]
    first = (worth[1] - worth[0] + worth[3] - worth[2]) / 2
    second = (worth[2] - worth[0] + worth[3] - worth[1]) / 2
    sketch = Sketch(
        216,
        f"Inputs {number(x1)} and {number(x2)}, references {number(r1)} and {number(r2)}. Four "
        f"evaluations: {', '.join(number(w) for w in worth)}. They become the two values "
        f"{number(first)} and {number(second)}.",
        "A Shapley transform evaluates a function of two inputs at its four coalitions and passes "
        f"on two Shapley values, {number(first)} and {number(second)}, in place of one output. "
        "Each still belongs to one feature.",
    )
    for k, (x, r) in enumerate(((x1, r1), (x2, r2))):
        sketch.node(
            50,
            62 + 90 * k,
            [f"x_{k + 1} = {number(x)}", f"r_{k + 1} = {number(r)}"],
            width=82,
            size=12,
        )
        sketch.line((94, 62 + 90 * k), (118, 62 + 90 * k), arrow=True)
    labels = [("r_1", "r_2"), ("x_1", "r_2"), ("r_1", "x_2"), ("x_1", "x_2")]
    for k, (label, value) in enumerate(zip(labels, worth, strict=True)):
        sketch.node(
            174, 26 + 52 * k, f"f({label[0]}, {label[1]}) = {number(value)}", width=108, size=11.5
        )
    for k, value in enumerate((first, second)):
        sketch.line((232, 62 + 90 * k), (264, 62 + 90 * k), arrow=True)
        sketch.node(
            312,
            62 + 90 * k,
            [f"φ_{k + 1} = {number(value)}", f"feature {k + 1}"],
            width=88,
            size=12,
            colour="for",
            fill="for",
        )
    sketch.text(312, 200, f"sum {number(first + second)}", size=12, colour="quiet")
    return sketch


def butterfly(values: Sequence[float], pairs: Sequence[Sequence[tuple[int, int]]]) -> Sketch:
    """Stages of modules that multiply pairs; each output is halved between its two features."""
    layers = [list(values)]
    for stage in pairs:
        now = [0.0] * len(values)
        for a, b in stage:
            now[a] = now[b] = layers[-1][a] * layers[-1][b] / 2
        layers.append(now)
    n = len(values)
    sketch = Sketch(
        40 + 48 * n,
        f"{n} features in columns of numbers, one column for each stage: "
        + "; ".join(", ".join(number(v) for v in layer) for layer in layers)
        + ". Lines join the two features that a module takes.",
        f"{n} features, {len(pairs)} stages of small modules (crossing lines). Each number belongs "
        "to a feature at every stage. After the last stage every feature has met every other.",
    )
    step = 270 / len(pairs)
    for k, layer in enumerate(layers):
        x = 45 + step * k
        sketch.text(x, 12, "input" if k == 0 else f"stage {k}", size=11, colour="quiet")
        for j, value in enumerate(layer):
            y = 46 + 48 * j
            last = k == len(layers) - 1
            if not last:
                a, b = next(pair for pair in pairs[k] if j in pair)
                for other in (a, b):
                    sketch.line(
                        (x + 24, y),
                        (x + step - 24, 46 + 48 * other),
                        colour="for" if a in (0,) or b in (0,) else "against",
                        width=1.6 if other == j else 1,
                    )
            sketch.node(
                x,
                y,
                number(value),
                width=44,
                fill="for" if last else "none",
                colour="for" if last else "ink",
            )
    return sketch


def window_shares(pixels: Sequence[float], values: Sequence[float]) -> Sketch:
    """A window over two pixels: an ordinary unit passes one number on, a ShapNet one a pixel."""
    out = max(0.0, sum(pixels))
    sketch = Sketch(
        214,
        f"A window over the pixels {', '.join(number(p) for p in pixels)}. An ordinary unit gives "
        f"{number(out)}. A ShapNet sends {' and '.join(number(v) for v in values)} back to the "
        "pixels.",
        f"An ordinary convolution passes on one number, {number(out)}, and forgets whose it is. A "
        "ShapNet puts a value back onto each pixel of the window, and adds up what a pixel gets "
        "from all windows that cover it.",
    )
    strip = [0.0, *pixels, 0.0]
    for row, title in ((40, "pixels"), (168, "values by pixel")):
        sketch.text(
            8, row - 26 if row < 100 else row + 30, title, anchor="start", size=11, colour="quiet"
        )
        for k, value in enumerate(strip):
            inside = 0 < k < len(strip) - 1
            shown = value if row < 100 else (values[k - 1] if inside else 0.0)
            label = number(shown) if inside else "·"
            colour = "quiet"
            if inside and row > 100:
                colour = "for" if shown >= 0 else "against"
            sketch.node(
                40 + 54 * k,
                row,
                label,
                width=46,
                colour=colour if inside else "quiet",
                fill=colour if inside and row > 100 else "none",
                dash=not inside,
            )
    sketch.box(66, 22, 54 * len(pixels) + 2, 36, colour="ink")
    middle = 67 + 27 * len(pixels)
    sketch.line((middle + 34, 62), (252, 92), arrow=True)
    sketch.node(300, 104, ["ordinary unit", number(out)], width=96, size=12)
    for k in range(len(pixels)):
        x = 94 + 54 * k
        sketch.line((x, 62), (x, 150), arrow=True, colour="for")
    return sketch


def small_functions(terms: Sequence[tuple[tuple[int, int], float]], n: int) -> Sketch:
    """A sum of functions of pairs: each is shared by its two features, and shares add up."""
    shares = [0.0] * n
    for (a, b), worth in terms:
        shares[a] += worth / 2
        shares[b] += worth / 2
    sketch = Sketch(
        208,
        "Functions of two features each: "
        + ", ".join(f"x{a + 1} x{b + 1} worth {number(w)}" for (a, b), w in terms)
        + ". Halves go to the features, which get "
        + ", ".join(number(s) for s in shares)
        + ".",
        "A shallow network is a sum of small functions. Each is a game of its own two "
        "features; the "
        "shares of a feature in all its games add up to its value.",
    )
    across = [60 + 240 * k / max(1, n - 1) for k in range(n)]
    for (a, b), worth in terms:
        x = (across[a] + across[b]) / 2
        sketch.node(x, 44, [f"x_{a + 1} x_{b + 1}", f"worth {number(worth)}"], width=86, size=12)
        for player in (a, b):
            sketch.line((x, 66), (across[player], 138), arrow=True, colour="for")
            sketch.text(
                (x + across[player]) / 2 + (12 if player == b else -12),
                96,
                f"+{number(worth / 2)}",
                size=11,
                colour="for",
            )
    for k, share in enumerate(shares):
        sketch.node(
            across[k],
            162,
            [f"feature {k + 1}", number(share)],
            width=78,
            size=12,
            colour="for",
            fill="for",
        )
    return sketch


# Importance and monitoring


def loss_steps(names: Sequence[str], worth: Sequence[float]) -> Sketch:
    """The loss of one row as features become known, one after the other."""
    sketch = Sketch(
        220,
        "Steps of the loss of one row: "
        + ", ".join(f"{n} {number(w)}" for n, w in zip(["nothing", *names], worth, strict=True))
        + " known.",
        "The loss of one row while its features become known. A feature that lowers the loss "
        "(orange, down) made the prediction better, one that raises it (blue, up) made it worse, "
        "whatever it did to the prediction.",
    )
    low, high = 0.0, max(worth) or 1.0

    def y(w: float) -> float:
        return 170 - 130 * (w - low) / (high - low)

    step = 320 / len(worth)
    for k, (name, w) in enumerate(
        zip(["nothing known", *(f"+ {n}" for n in names)], worth, strict=True)
    ):
        left = 30 + step * k
        sketch.line((left, y(w)), (left + step * 0.7, y(w)), width=3)
        sketch.text(left + step * 0.35, y(w) - 12, number(w), size=12)
        sketch.text(left + step * 0.35, 186, name, size=11)
        if k:
            better = w <= worth[k - 1]
            x = left - step * 0.15
            sketch.line(
                (x, y(worth[k - 1])),
                (x, y(w)),
                arrow=True,
                width=2,
                colour="for" if better else "against",
            )
    sketch.line((24, y(0)), (350, y(0)), colour="quiet", width=1)
    sketch.text(12, 100, "loss", size=12)
    sketch.text(180, 208, "features known, in one ordering", size=11, colour="quiet")
    return sketch


def rows_to_global(rows: Sequence[Sequence[float]], names: Sequence[str]) -> Sketch:
    """LossSHAP of several rows, and their mean, which is SAGE."""
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    largest = max(abs(v) for row in [*rows, mean] for v in row) or 1.0
    sketch = Sketch(
        70 + 44 * (len(rows) + 1),
        f"Bars of {len(names)} features for {len(rows)} rows and their mean: "
        + ", ".join(f"{n} {number(v)}" for n, v in zip(names, mean, strict=True))
        + ".",
        "LossSHAP says for one row how much each feature lowered its loss (orange) or raised it "
        "(blue). The mean over all rows is SAGE: a feature may harm many rows and help on the "
        "whole.",
    )
    step = 264 / len(names)
    for k, name in enumerate(names):
        sketch.text(84 + step * (k + 0.5), 14, name, size=12)
    for r, row in enumerate([*rows, mean]):
        last = r == len(rows)
        y = 44 + 44 * r + (16 if last else 0)
        label = ("mean:", "SAGE") if last else (f"row {r + 1}",)
        for line, words in enumerate(label):
            height = y + 14 * (line - (len(label) - 1) / 2)
            sketch.text(70, height, words, anchor="end", size=12, bold=last)
        for k, value in enumerate(row):
            middle = 84 + step * (k + 0.5)
            width = 0.4 * step * abs(value) / largest
            colour = "for" if value >= 0 else "against"
            sketch.box(
                middle if value >= 0 else middle - width,
                y - 10,
                width,
                20,
                colour=colour,
                fill=colour,
                opacity=0.5,
                round=0,
            )
            sketch.line((middle, y - 14), (middle, y + 14), width=1)
    y = 44 + 44 * len(rows) - 14
    sketch.line((10, y), (350, y), colour="quiet", width=1, dash=True)
    return sketch


def monitoring_stream(before: Sequence[float], after: Sequence[float]) -> Sketch:
    """A feature's stream of loss values in three periods, with a rise in the last one."""
    sketch = Sketch(
        206,
        "A stream of points: a period the model was fitted on, which is not used, a reference "
        "period, and the deployment. In the deployment the points rise above the reference, and an "
        "alarm is raised.",
        "One feature's part in the loss, row after row. The fitting period is not used: the model "
        "knows those rows. The rank of each new row among all rows so far tells when values "
        "are too high too often.",
    )
    values = [*before, *after]
    low, high = min(values), max(values)
    for k, value in enumerate(values):
        x = 92 + 256 * (k + 0.5) / len(values)
        y = 150 - 104 * (value - low) / (high - low)
        late = k >= len(before)
        colour = "against" if late else "ink"
        sketch.dot(x, y, 3, colour=colour, fill=colour)
    cut = 92 + 256 * len(before) / len(values)
    sketch.box(8, 30, 80, 130, colour="quiet", fill="quiet", opacity=0.15, round=0)
    sketch.line((cut, 30), (cut, 160), dash=True)
    for x, words in (
        (48, "fitted on"),
        ((92 + cut) / 2, "reference"),
        ((cut + 348) / 2, "deployment"),
    ):
        sketch.text(x, 18, words, size=12, bold=True)
    sketch.text(48, 94, "not used", size=11, colour="quiet")
    sketch.line((8, 160), (352, 160))
    sketch.text(220, 176, "rows in the order of time →", size=11, colour="quiet")
    sketch.text(220, 194, "up: knowing the feature raised this row's loss", size=11, colour="quiet")
    return sketch
