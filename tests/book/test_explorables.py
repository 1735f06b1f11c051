"""Explorables are moved in a browser, and their numbers are the library's."""

from __future__ import annotations

import re

import numpy as np
import pytest
from shaplab_book import explorables

import shaplab
from shaplab import (
    TreeEnsemble,
    asymmetric_values,
    interventional_tree_shap,
    owen_values,
    tree_shap,
)
from shaplab.deep.rules import rescale_literal, reveal_cancel_literal
from shaplab.foundations.games import company_game
from shaplab.insight.monitoring import evidence_literal

KIOSK = {(): 0, (0,): 6, (1,): 6, (2,): 0, (0, 1): 6, (0, 2): 8, (1, 2): 14, (0, 1, 2): 14}
NET = {"weights": [[1, 1, 1], [1, -1, 0.5]], "bias": [-1, 0.5], "out": [1, -1]}
STAGES = [[(0, 1), (2, 3)], [(0, 2), (1, 3)]]
LOSSES = np.random.default_rng(0).normal(size=(20, 3)).round(3)
SQUARE = {"cuts": [0.5, 0.4], "leaves": [10, 40, 80], "covers": [100, 60, 20]}
STREAM = {
    "names": ["room", "team", "hour"],
    "inputs": np.random.default_rng(3).normal(size=(150, 3)).round(3),
    "noise": (3 * np.random.default_rng(4).normal(size=150)).round(3),
    "weights": [3, 2, 1],
    "ties": np.random.default_rng(5).random(90).round(6),
}
WORTHS = {
    name: np.random.default_rng(seed).normal(size=16).round(5)
    for seed, name in enumerate(("mask", "pad", "delete"))
}
ALL = {
    "rules_on_a_network": lambda: explorables.rules_on_a_network(**NET),
    "shares_under_structures": lambda: explorables.shares_under_structures(list("sth"), KIOSK),
    "drawn_orderings": lambda: explorables.drawn_orderings(
        company_game().names, company_game().table
    ),
    "background_points": lambda: explorables.background_points(**SQUARE),
    "path_polynomial": lambda: explorables.path_polynomial([0.5, 0.25, 0.6], [1, 1, 0]),
    "losses_to_sage": lambda: explorables.losses_to_sage(list("abc"), LOSSES),
    "fault_in_a_stream": lambda: explorables.fault_in_a_stream(**STREAM),
    "which_method_for": explorables.which_method_for,
    "words_on_and_off": lambda: explorables.words_on_and_off(list("abcd"), WORTHS),
    "who_meets_whom": lambda: explorables.who_meets_whom(STAGES),
}


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_whole_and_fetches_nothing(name):
    page = ALL[name]()._repr_html_()
    assert page == ALL[name]()._repr_html_()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|src=|@import|url\(", page)
    assert page.count("<script") == 2


def test_hostile_names_are_text():
    name = "</script><script>alert(1)</script>&"
    page = explorables.losses_to_sage([name, "b", "c"], LOSSES)._repr_html_()
    assert page.count("<script") == 2
    assert "<script>alert" not in page


def test_every_one_stands_in_a_chapter(root):
    text = "".join(path.read_text(encoding="utf-8") for path in (root / "book").glob("*/*.md"))
    assert [name for name in ALL if f"explorables.{name}(" not in text] == []
    assert set(ALL) | {"Explorable"} == set(explorables.__all__)


@pytest.fixture
def play(browser):
    """Open a drawing on a page of its own; returns the page and a reader of its table."""
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    def start(name):
        page.set_content(f"<html><body>{ALL[name]()._repr_html_()}</body></html>")

        def numbers():
            rows = page.locator("tbody tr").all()
            cells = [[td.inner_text() for td in row.locator("td").all()] for row in rows]
            return [[number(text) for text in row] for row in cells]

        return page, numbers

    yield start
    assert problems == []
    page.close()


def number(text):
    """The number at the front of a cell, with its ± if there is one."""
    if text.strip() == "–":
        return None
    parts = [float(part.replace("−", "-")) for part in text.split("±")]
    return parts[0] if len(parts) == 1 else tuple(parts)


def move(page, name, value):
    slider = page.locator(f"input[data-name={name}]")
    slider.evaluate(
        "(node, value) => {node.value = value; node.dispatchEvent(new Event('input'))}", str(value)
    )


@pytest.mark.browser
def test_rules_are_the_librarys(play):
    page, numbers = play("rules_on_a_network")

    def relu(z):
        return max(z, 0.0)

    W, b, a = (np.array(NET[k], dtype=float) for k in ("weights", "bias", "out"))
    rng = np.random.default_rng(1)
    for k in range(12):
        row, ref = rng.integers(-20, 21, size=(2, 3)) / 10
        if k == 3:
            row[1] = ref[1]
        for i in range(3):
            move(page, f"x{i}", row[i])
            move(page, f"r{i}", ref[i])
        found = np.array(numbers())

        def net(S, row=row, ref=ref):
            return np.maximum(np.where(S, row, ref) @ W.T + b, 0) @ a

        columns = [shaplab.shapley_values(net, 3)]
        steps = [
            rescale_literal(relu, W[u] @ row + b[u], W[u] @ ref + b[u]) * W[u] * (row - ref)
            for u in range(2)
        ]
        columns.append(a @ np.array(steps))
        for line in (0.0, "mean"):
            parts = [reveal_cancel_literal(relu, W[u], row, ref, line, b[u]) for u in range(2)]
            columns.append(a @ np.array(parts))
        np.testing.assert_allclose(found, np.array(columns).T, atol=0.0051, err_msg=f"{row} {ref}")


@pytest.mark.browser
def test_structures_are_the_librarys(play):
    page, numbers = play("shares_under_structures")
    game = shaplab.TableGame([KIOSK[tuple(j for j in range(3) if k >> j & 1)] for k in range(8)])
    pairs = [(0, 1), (0, 2), (1, 2)]
    orders = [*pairs, *(pair[::-1] for pair in pairs)]
    for k, order in enumerate(orders):
        family = pairs[k % 3]
        page.locator(f"button[data-set=family][data-value='{k % 3}']").click()
        page.locator(f"button[data-set=order][data-value='{k}']").press("Enter")
        alone = next(j for j in range(3) if j not in family)
        expected = [
            shaplab.shapley_values(game, 3),
            owen_values(game, [list(family), [alone]]),
            asymmetric_values(game, [order], n_players=3),
        ]
        np.testing.assert_allclose(numbers(), np.array(expected).T, atol=0.0051)


@pytest.mark.browser
def test_a_background_that_moves_moves_one_game_only(play):
    page, numbers = play("background_points")
    tree = TreeEnsemble.from_arrays(
        [0, -1, 1, -1, -1], [SQUARE["cuts"][0], 0, SQUARE["cuts"][1], 0, 0], [1, -1, 3, -1, -1],
        [2, -1, 4, -1, -1], [0, 10, 0, 40, 80], cover=[100, 40, 60, 20, 40],
    )  # fmt: skip
    points = np.array([[0.15, 0.3], [0.3, 0.8], [0.6, 0.2], [0.75, 0.65], [0.9, 0.85]])
    rng = np.random.default_rng(2)
    for _ in range(10):
        chosen = int(rng.integers(5))
        spot, row = rng.integers(0, 21, size=(2, 2)) / 20
        page.locator(f"button[data-set=chosen][data-value='{chosen}']").click()
        points[chosen] = spot
        for i in range(2):
            move(page, f"p{i}", spot[i])
            move(page, f"x{i}", row[i])
        expected = [
            interventional_tree_shap(tree, row[None], points).values[0],
            tree_shap(tree, row[None]).values[0],
        ]
        np.testing.assert_allclose(numbers(), np.array(expected).T, atol=0.0051)
    assert page.locator("svg circle").count() == 5


@pytest.mark.browser
def test_a_path_grows_and_shrinks(play):
    page, numbers = play("path_polynomial")
    for i in (1, 2, 0):
        page.locator(f"button[data-toggle=on{i}]").click()
    # Features 2 and 3 are on, feature 1 was unwound.
    grown = np.convolve([0.25, 1], [0.6, 0])
    weights = np.array([2, 1, 2]) / 6
    expected = np.stack([grown, weights, grown * weights], axis=1)
    found = numbers()
    np.testing.assert_allclose(found[:3], expected, atol=5.1e-5)
    assert found[3] == [None] * 3


@pytest.mark.browser
def test_orderings_settle_at_the_exact_values(play):
    page, numbers = play("drawn_orderings")
    assert all(row[1] is None for row in numbers())
    page.locator("button[data-draw='1']").click()
    page.locator("button[data-draw='100']").click()
    page.locator("button[data-draw='100']").press("Enter")
    assert "402 orderings" in page.locator("[data-role=say]").inner_text()
    found = numbers()
    exact = shaplab.shapley_values(company_game(), 5)
    np.testing.assert_allclose([row[0] for row in found], exact, atol=0.51)
    for column in (1, 2):
        means, halves = np.array([row[column] for row in found]).T
        # Five means within 4 of their standard errors; the draws are the same on every machine.
        assert (np.abs(means - exact) <= 4 * halves / 1.96).all()
    assert found[0][2][1] < found[0][1][1] / 2  # what the CEO adds depends on who is there: twins
    page.locator("button[data-reset]").click()
    assert all(row[1] is None for row in numbers())


@pytest.mark.browser
def test_losses_become_sage_and_features_meet(play):
    page, numbers = play("losses_to_sage")
    move(page, "rows", 7)
    found = numbers()
    np.testing.assert_allclose([r[0] for r in found], LOSSES[6], atol=5.1e-4)
    half = 1.96 * LOSSES[:7].std(axis=0, ddof=1) / np.sqrt(7)
    np.testing.assert_allclose(
        [r[1] for r in found], np.stack([LOSSES[:7].mean(axis=0), half], axis=1), atol=5.1e-4
    )
    np.testing.assert_allclose([r[2] for r in found], LOSSES.mean(axis=0), atol=5.1e-4)
    page, numbers = play("who_meets_whom")
    page.locator("button[data-value='3']").click()
    assert numbers() == [[0, 1], [0, 1], [1, 1], [1, 1]]


@pytest.mark.browser
def test_a_broken_feature_rings_as_the_library_says(play):
    page, numbers = play("fault_in_a_stream")
    weights = np.array(STREAM["weights"], dtype=float)
    labels = STREAM["inputs"] @ weights + STREAM["noise"]
    rung = set()
    for feature, at, left in ((0, 20, -1.0), (0, 5, 0.0), (1, 40, -0.5), (2, 0, 1.0)):
        page.locator(f"button[data-set=feature][data-value='{feature}']").press("Enter")
        move(page, "at", at)
        move(page, "left", left)
        told = STREAM["inputs"].copy()
        told[60 + at :, feature] *= left

        def loss(S, row, label):
            return (label - (S * row) @ weights) ** 2

        shares = [
            shaplab.shapley_values(lambda S, r=r, y=y: loss(S, r, y), 3)
            for r, y in zip(told, labels, strict=True)
        ]
        streams = np.column_stack([shares, (labels - told @ weights) ** 2])
        expected = []
        for stream in streams.T:
            # A feature that is lost has shares of 0 but for rounding: they are ties.
            grown = evidence_literal(stream.round(9), 60, STREAM["ties"])
            hits = np.flatnonzero(grown >= 80)
            wait = float(hits[0] - at + 1) if len(hits) and hits[0] >= at else None
            means = stream[: 60 + at].mean(), stream[60 + at :].mean()
            expected.append([*means, np.log10(grown.max()), wait])
        for found, wanted in zip(numbers(), expected, strict=True):
            assert found[3] == wanted[3]
            # One decimal is shown.
            np.testing.assert_allclose(found[:3], wanted[:3], atol=0.051)
        rung |= {k for k, row in enumerate(expected) if row[3] is not None}
        said = page.locator("[data-role=say]").inner_text()
        assert ("Nothing rings" in said) == all(row[3] is None for row in expected)
    assert 0 in rung
    assert page.locator("svg .evidence").count() == 4


@pytest.mark.browser
def test_words_that_are_left_are_explained_as_the_library_does(play):
    page, numbers = play("words_on_and_off")
    on = [True] * 4
    for word in (None, 1, 3, 1, 0, 2, 1):
        if word is not None:
            page.locator(f"button[data-toggle=on{word}]").press("Enter" if word else " ")
            on[word] = not on[word]
        left = [i for i in range(4) if on[i]]
        found = numbers()
        for column, table in enumerate(WORTHS.values()):
            game = shaplab.TableGame(table)

            def of_left(S, game=game, left=left):
                whole = np.zeros((len(S), 4), dtype=bool)
                whole[:, left] = S
                return game(whole)

            values = shaplab.shapley_values(of_left, len(left)) if left else []
            shown = [found[i][column] for i in left]
            np.testing.assert_allclose(shown, values, atol=5.1e-4)  # three decimals are shown
            assert [found[i][column] for i in range(4) if not on[i]] == [None] * (4 - len(left))
        said = page.locator("[data-role=say]").inner_text().replace("−", "-")
        bits = sum(1 << i for i in left)
        assert f"output mask {WORTHS['mask'][bits]:.3f}, pad {WORTHS['pad'][bits]:.3f}" in said
    page.locator("button[data-reset]").click()
    assert all(None not in row for row in numbers())


@pytest.mark.browser
def test_methods_ask_for_as_many_rows_as_the_page_says(play):
    page, _ = play("which_method_for")

    def cells(row):
        return [td.inner_text() for td in page.locator("tbody tr").nth(row).locator("td").all()]

    rng = np.random.default_rng(0)
    asked = 0

    def model(Z):
        nonlocal asked
        asked += len(Z)
        return np.tanh(Z).prod(axis=1) + Z[:, 0]

    for features, rows in ((3, 5), (6, 20), (9, 7), (10, 30)):
        move(page, "features", features)
        move(page, "background", rows)
        X = rng.normal(size=(1, features))
        background = rng.normal(size=(rows, features))
        for row, call in enumerate(
            (
                lambda X=X, B=background: shaplab.exact_shap(model, X, B),
                lambda X=X, B=background: shaplab.permutation_shap(model, X, B, rounds=4, rng=0),
            )
        ):
            asked = 0
            call()
            assert cells(row)[0] == f"{asked:,}"
    # The speed, large numbers, and what a model does not have.
    move(page, "features", 30)
    move(page, "background", 100)
    page.locator("button[data-set=speed][data-value='0']").press("Enter")
    assert cells(0) == ["1.1 · 10¹¹", "3 years", "none"]
    page.locator("button[data-set=speed][data-value='2']").click()
    assert cells(0)[1] == "3 hours"
    assert cells(1)[0] == f"{4 * 4 * 29 * 100 + 103:,}"
    calls = ("interventional_tree_shap", "permutation_shap", "additive_shap", "permutation_shap")
    for kind, name in enumerate(calls):
        page.locator(f"button[data-set=model][data-value='{kind}']").click()
        assert page.locator("[data-role=say]").inner_text().startswith(f"Call {name}")
        own = [row for row in (2, 3, 4) if cells(row) != ["–"] * 3]
        assert own == ([kind + 2] if kind < 3 else [])
    move(page, "features", 5)
    assert page.locator("[data-role=say]").inner_text().startswith("Call exact_shap")
