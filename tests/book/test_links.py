"""Links inside the built pages lead somewhere, and what the pages offer to download is there and
runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from run_chapters import chapters
from shaplab_sphinx import INSTALL

pytestmark = pytest.mark.book


class Page(HTMLParser):
    """The links and the ids of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.update(v for v in (values.get("id"), values.get("name")) if v)
        if tag == "a" and values.get("href"):
            self.links.add(values["href"] or "")


def test_links_lead_somewhere(html):
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in html.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            name, fragment = urldefrag(unquote(link))
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.exists():
                broken.append(f"{path.relative_to(html)}: {link}")
            elif fragment and target in pages and fragment not in pages[target].ids:
                broken.append(f"{path.relative_to(html)}: {link} (no such place in the page)")
    assert len(pages) > 3
    assert broken == []


def test_chapters_can_be_downloaded_as_notebooks(html, root):
    for page in chapters(root):
        links = Page((html / f"book/{page}.html").read_text(encoding="utf-8")).links
        notebooks = [
            link for link in links if link.endswith(".ipynb") and not re.match(r"[a-z]+:", link)
        ]
        assert notebooks, page
        for link in notebooks:
            assert_installs_where_missing(((html / "book" / page).parent / link).resolve(), root)


def assert_installs_where_missing(path, root):
    """The first code cell installs the library from the book's repository, unless it is there."""
    code = [
        cell
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    assert len(code) > 3
    first = "".join(code[0]["source"])
    address = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    assert (
        f'%pip install --quiet "shaplab[book] @ git+{address["url"]}@{address["branch"]}"' in first
    )
    assert sum("%pip" in "".join(cell["source"]) for cell in code) == 1


def test_the_install_cell_asks_for_nothing_that_is_there():
    asked: list[str] = []
    shell = InteractiveShell()
    shell.register_magic_function(asked.append, magic_name="pip")
    cell = INSTALL.format(url="https://example.org/book", branch="main")
    assert shell.run_cell(cell).success
    assert asked == []
    assert shell.run_cell(cell.replace('"myst_nb"', '"a_package_that_is_not_there"')).success
    assert asked == ['install --quiet "shaplab[book] @ git+https://example.org/book@main"']


def test_chapters_lead_to_the_pages_of_the_library(html, root):
    for page in chapters(root):
        links = Page((html / f"book/{page}.html").read_text(encoding="utf-8")).links
        assert [link for link in links if re.search(r"reference/api/\w+\.html#shaplab\.", link)], (
            page
        )


def test_take_home_files_compile(html):
    files = list((html / "_downloads" / "take_home").glob("*.py"))
    assert files
    for path in files:
        assert compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_launch_buttons_open_notebooks(html, root):
    address = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    place = address["url"].removeprefix("https://github.com/")
    for page in chapters(root):
        links = Page((html / f"book/{page}.html").read_text(encoding="utf-8")).links
        colab = [link for link in links if "colab.research" in link]
        binder = [link for link in links if "mybinder" in link]
        assert len(colab) == len(binder) == 1
        assert colab[0].endswith(f"/github/{place}/blob/gh-pages/_sources/book/{page}.ipynb")
        assert_installs_where_missing(html / "_sources" / f"book/{page}.ipynb", root)
        assert binder[0].endswith(
            f"/v2/gh/{place}/{address['branch']}?urlpath=lab/tree/book/{page}.ipynb"
        )
