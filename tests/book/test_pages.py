"""The built pages in a browser: nothing fails, nothing leaves the machine, and everybody can read
them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from run_chapters import pages as listed

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*(f"book/{page}" for page in listed(ROOT)), "genindex", "search"]
pytestmark = pytest.mark.browser

# Without preload: axe would fetch style sheets again, from wrong addresses.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
RULES = {"resultTypes": ["violations"], "runOnly": TAGS, "preload": False}
READY = """async () => {
  if (window.MathJax && MathJax.startup && MathJax.startup.promise) await MathJax.startup.promise;
  await document.fonts.ready;
}"""
WIDE = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return [];
  const wide = [...document.querySelectorAll("main *:not(pre *, .math *)")]
    .filter(e => e.getBoundingClientRect().right > room + 1);
  return [document.documentElement.scrollWidth, ...wide.slice(0, 5).map(e => e.outerHTML.slice(0, 160))];
}"""

# Words of up to 24 letters in cells of tables that stand on more than one line.
BROKEN = r"""() => {
  const broken = [];
  for (const cell of document.querySelectorAll("main :is(td, th)")) {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) {
      if (node.parentElement.closest(".math, mjx-container, pre, svg")) continue;
      for (const word of node.data.matchAll(/[^\s\-\u2010-\u2015\/]{2,}/g)) {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].map(box => Math.round(box.bottom / 4)));
        if (lines.size > 1 && word[0].length < 25) broken.push(word[0]);
      }
    }
  }
  return broken;
}"""

# Formulas in the text that are wider than their room and do not scroll.
CUT = """() => [...document.querySelectorAll("main span.math")].filter(box => {
  const formula = box.querySelector("mjx-math");
  const fits = !formula || formula.getBoundingClientRect().width <= box.clientWidth + 3;
  return !fits && getComputedStyle(box).overflowX === "hidden";
}).map(box => box.closest("p, li, td, section").textContent.slice(0, 80))"""


# Boxes with the bell that the theme hangs on every box that it does not know.
BELLS = r"""() => [...document.querySelectorAll("main .admonition-title")]
  .filter(title => getComputedStyle(title, "::after").content.includes("\uf0f3"))
  .map(title => title.parentElement.className)"""


class Visit:
    """One page, opened, with everything it said and asked for."""

    def __init__(self, browser: Any, address: str, name: str) -> None:
        self.problems: list[str] = []
        self.page = browser.new_page()
        self.page.on(
            "console", lambda m: m.type == "error" and self.problems.append(f"console: {m.text}")
        )
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on(
            "requestfailed", lambda request: self.problems.append(f"failed: {request.url}")
        )
        self.page.on(
            "response", lambda r: r.status >= 400 and self.problems.append(f"{r.status}: {r.url}")
        )
        self.page.on("request", lambda request: self._check(request.url, address))
        self.page.goto(f"{address}/{name}.html", wait_until="load")
        self.page.evaluate(READY)

    def _check(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.problems.append(f"left the page: {url}")

    def theme(self, name: str) -> None:
        self.page.evaluate(
            # Colours fade on their way: wait for them, or axe measures something between.
            "async name => { document.documentElement.dataset.mode = name; "
            "document.documentElement.dataset.theme = name; "
            "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))); "
            "await Promise.allSettled(document.getAnimations().map(one => one.finished)); }",
            name,
        )

    def axe(self) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, options=RULES).response["violations"]
        return [
            f"{rule['id']}: {node['target']} {node['html'][:150]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"][:3]
        ]


@pytest.fixture
def visit(browser: Any, address: str):
    opened = []

    def open_page(name: str) -> Visit:
        opened.append(Visit(browser, address, name))
        return opened[-1]

    yield open_page
    for each in opened:
        each.page.close()


@pytest.mark.parametrize("name", PAGES)
def test_page(visit, name):
    seen = visit(name)
    seen.page.add_style_tag(
        content="* { transition: none !important; animation: none !important; }"
    )
    formulas = seen.page.locator(".math").count()
    assert formulas == 0 or seen.page.locator("mjx-container").count() > 0
    assert seen.page.locator("mjx-merror, .MathJax_Error").count() == 0
    assert seen.page.locator("img:not([alt]), img[alt='']:not(.logo__image)").count() == 0
    for theme in ("light", "dark"):
        seen.theme(theme)
        assert seen.axe() == [], f"{theme} theme"
    assert seen.page.evaluate(BROKEN) == [], "words broken in cells of a table"
    assert seen.page.evaluate(CUT) == [], "formulas cut"
    assert seen.page.evaluate(BELLS) == []
    seen.page.set_viewport_size({"width": 390, "height": 844})
    assert seen.page.evaluate(BROKEN) == [], "words broken in cells of a table, on a phone"
    assert seen.page.evaluate(CUT) == [], "formulas cut on a phone"
    assert seen.page.evaluate(WIDE) == [], "wider than a phone"
    assert (
        seen.page.locator(".cell_input .copybtn").count()
        == seen.page.locator(".cell_input pre").count()
    )
    _solutions_unfold(seen)
    _explorers_react(seen)
    _explorables_react(seen)
    assert seen.problems == []


def _solutions_unfold(seen: Visit) -> None:
    boxes = seen.page.locator(".solution.dropdown, .solution.toggle")
    for number in range(boxes.count()):
        box = boxes.nth(number)
        body = box.locator(".section, section").first
        assert not body.is_visible()
        box.locator("button.toggle-button").first.click()
        body.wait_for(state="visible", timeout=3000)


def _explorers_react(seen: Visit) -> None:
    for explorer in seen.page.locator(".shaplab-explorer").all():
        shown = explorer.locator("[data-role='value']").first
        before = shown.inner_text()
        players = explorer.locator("button[data-player]")
        for number in range(players.count()):
            players.nth(number).click()
        assert shown.inner_text() != before, "the explorer does not react to the mouse"
        after = shown.inner_text()
        for number in range(players.count()):
            players.nth(number).focus()
            seen.page.keyboard.press("Enter")
        assert shown.inner_text() != after, "the explorer does not react to the keyboard"
        _orderings_add_up(seen, explorer, players.count())


def _explorables_react(seen: Visit) -> None:
    for box in seen.page.locator(".shaplab-explorable").all():
        table = box.locator("tbody")
        told = {table.inner_text()}
        sliders = box.locator("input[type=range]")
        for key in ("End", "Home") if sliders.count() else ():
            sliders.first.focus()
            seen.page.keyboard.press(key)
            told.add(table.inner_text())
        if not sliders.count():
            box.locator("button").last.focus()
            seen.page.keyboard.press("Enter")
            told.add(table.inner_text())
            box.locator("button").first.click()
            told.add(table.inner_text())
        assert len(told) > 1, "the explorable does not react"


def _orderings_add_up(seen: Visit, explorer: Any, n: int) -> None:
    """One ordering by keyboard, a hundred by mouse: the running means share what the last player
    completes."""
    runs, order = explorer.locator("[data-role='runs']"), explorer.locator("[data-role='order']")
    for number in range(n):
        assert runs.inner_text() == "0 orderings finished"
        explorer.locator("[data-action='step']").focus()
        seen.page.keyboard.press("Enter")
        assert order.inner_text().count("next: ") == (number < n - 1)
    assert runs.inner_text() == "1 ordering finished"
    explorer.locator("[data-action='many']").click()
    assert runs.inner_text() == "101 orderings finished"
    table = explorer.evaluate(r"""e => [...e.querySelectorAll("tbody tr")].map(row => [2, 3].map(k =>
        parseFloat(row.children[k].textContent.replace("\u2212", "-").replace(/[^-\d.]/g, ""))))""")
    data = explorer.evaluate("e => JSON.parse(e.querySelector('script').textContent)")
    rounding = n * 10.0 ** -data["digits"]
    for column in zip(*table, strict=True):
        assert abs(sum(column) - (data["values"][-1] - data["values"][0])) <= rounding
    # A hundred orderings: the standard error is a tenth of the spread of one, which is at most that
    # of the worths.
    spread = max(data["values"]) - min(data["values"])
    assert all(abs(mean - share) < 0.2 * spread for mean, share in table)
    explorer.locator("[data-action='reset']").click()
    assert order.inner_text() == "no ordering yet"
    assert runs.inner_text() == "0 orderings finished"


def test_search_finds_a_term(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=coalition")
    page.locator("#search-results li a").first.wait_for(timeout=10000)
    assert page.locator("#search-results li a").count() > 0
    page.goto(f"{address}/search.html?q=zzxqy")
    page.wait_for_function(
        "document.querySelector('#search-results .search-summary, #search-results p') !== null"
    )
    assert page.locator("#search-results li a").count() == 0
    page.close()


def test_no_built_page_names_a_host_for_its_scripts_or_styles(html):
    pattern = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]+\"")
    for path in html.rglob("*.html"):
        found = [
            tag
            for tag in pattern.findall(path.read_text(encoding="utf-8"))
            if 'rel="canonical"' not in tag
        ]
        assert found == [], path.name


def test_chapters_stay_below_250_kilobytes(html):
    heavy = {
        path.name: path.stat().st_size
        for path in (html / "book").rglob("*.html")
        if "api" not in path.parts and path.stat().st_size > 250_000
    }
    assert heavy == {}


def test_code_without_a_span_has_the_colour_that_its_span_would_have(html):
    style = (html / "_static" / "pygments.css").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        scope = rf'html\[data-theme="{theme}"\] \.highlight'
        everywhere = re.search(scope + r" \{[^}]*(?<!-)color: (#\w+)", style)[1]
        for token in "npw":
            assert re.search(rf"{scope} \.{token} \{{ color: (#\w+)", style)[1] == everywhere
