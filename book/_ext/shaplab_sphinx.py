"""What the book adds to Sphinx: outputs from the one execution, local MathJax, take-home files,
reproductions."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import nbformat
from book_map import chapter_map, part_map
from chapter_numbers import connect_numbers
from course import without_solutions
from docutils import nodes
from docutils.statemachine import StringList
from flat_notebook import Names, flatten
from left_out import HIDDEN, connect, without_dead_links
from run_chapters import (
    cache_path,
    chapters,
    complete,
    executed_path,
    is_chapter,
    main,
    pages,
    with_outputs,
)
from shaplab_book import VERDICTS, claims
from shaplab_book.checking import LEVELS
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

GLOSSARY = "book/reference/glossary"
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2/")


def profile() -> str:
    """Return the profile whose outputs the book shows."""
    return os.environ.get("PROFILE", "quick")


def project_root(app: Sphinx) -> Path:
    return Path(app.srcdir)


# -- one execution
# --------------------------------------------------------------------------------------------------


def use_executed_chapters(app: Sphinx, config: Any) -> None:
    """Run what has changed, point myst-nb at the cache, and make a miss an error instead of a
    second execution."""
    import myst_nb.core.execute.cache as cache

    root = project_root(app)
    if not complete(root, profile()) and main(["--root", str(root), "--profile", profile()]):
        raise ExtensionError("A chapter failed; its cell and its error stand above.")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        page = app.env.docname
        raise ExtensionError(f"{page} changed while the book was built. Build it again.")

    cache.single_nb_execution = refuse
    if profile() != "quick":
        config.html_theme_options["announcement"] = (
            f"Built with the parameters profile = {profile()!r}, seed = 0."
        )
    config.nb_execution_mode = "cache"
    config.nb_execution_cache_path = str(cache_path(root, profile()))


def extend_chapter(app: Sphinx, docname: str, source: list[str]) -> None:
    """Read a chapter again when its outputs changed, though its text did not; add what it offers to
    take home."""
    if not is_chapter(source[0]):
        return
    page = docname.removeprefix("book/")
    app.env.note_dependency(str(executed_path(project_root(app), page, profile())))
    lines = ["", "## Take it home", ""]
    if "{nb-download}" not in source[0]:
        lines += [
            f"The whole chapter as a notebook: {{nb-download}}`{page.split('/')[-1]}.ipynb`.",
            "",
        ]
    names = [] if "{take-home}" in source[0] else functions_of(project_root(app), page)
    if names:
        lines += ["Each function in one file of plain Python that needs no shaplab:", ""]
        lines += ["```{take-home} " + " ".join(names), "```", ""]
    if len(lines) > 3:
        source[0] += "\n".join(lines)


def functions_of(root: Path, page: str) -> list[str]:
    """Return the public functions of the modules that a chapter explains.

    These are the module with the chapter's name, and those whose docstring says ``Chapter:
    <part>/<topic>``.
    """
    import shaplab

    found = []
    for name, module in shaplab._HOME.items():
        path = root / (module.replace(".", "/") + ".py")
        own = module == "shaplab." + page.replace("/", ".")
        if path.exists() and (own or f"\nChapter: {page}\n" in path.read_text(encoding="utf-8")):
            found += [name] if name.islower() else []
    return found


# -- MathJax
# --------------------------------------------------------------------------------------------------


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy MathJax and its fonts from the installed package into the built pages; nothing is
    committed or fetched."""
    if exception or app.builder.format != "html":
        return
    found = False
    for entry in distribution("sphinx-mathjax-offline").files or []:
        inside = entry.as_posix().partition("/static/mathjax/")[2]
        if inside.startswith(MATHJAX):
            target = Path(app.outdir) / "_static" / "mathjax" / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(entry.locate()), target)
            found = True
    if not found:
        raise ExtensionError(
            "sphinx-mathjax-offline holds no tex-mml-chtml.js; its layout must have changed."
        )


# -- take it home
# --------------------------------------------------------------------------------------------------


class TakeHome(SphinxDirective):
    """``{take-home}`` followed by names of public functions: one self-contained file for each, to
    download."""

    has_content = True
    required_arguments = 0
    optional_arguments = 100

    def run(self) -> list[nodes.Node]:
        names = " ".join([*self.arguments, *self.content]).replace(",", " ").split()
        if not names:
            raise self.error(
                "take-home: expected names of public functions of shaplab, got none. Name "
                "at least one."
            )
        folder = Path(self.env.app.outdir) / "_downloads" / "take_home"
        items = nodes.bullet_list(classes=["take-home"])
        for name in names:
            text = self._extract(name)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.py"
            path.write_text(text, encoding="utf-8")
            self.env.metadata[self.env.docname].setdefault("take_home", {})[name] = text
            up = "../" * self.env.docname.count("/")
            link = (
                f'<a download href="{up}_downloads/take_home/{name}.py"><code>{name}.py</code></a>'
            )
            paragraph = nodes.paragraph()
            paragraph += nodes.raw(
                "", f"{link}: {len(text.splitlines())} lines, without shaplab", format="html"
            )
            items += nodes.list_item("", paragraph)
        return [items]

    def _extract(self, name: str) -> str:
        try:
            from shaplab.extract import extract
        except ImportError as error:
            raise self.error(f"take-home: shaplab.extract cannot be imported: {error}") from error
        try:
            return extract(name)
        except Exception as error:
            raise self.error(f"take-home: {name}: {error}") from error


def write_take_home(app: Sphinx, exception: Exception | None) -> None:
    """Write the take-home files also when their pages came from an earlier build."""
    if exception or app.builder.format != "html":
        return
    for values in app.env.metadata.values():
        for name, text in values.get("take_home", {}).items():
            path = Path(app.outdir) / "_downloads" / "take_home" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


class BookMap(SphinxDirective):
    """``{book-map}``: the parts of the book; ``{book-map} deep``: the chapters of a part."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        root = project_root(self.env.app)
        for page in chapters(root):
            self.env.note_dependency(str(root / "book" / f"{page}.md"))
        drawn = chapter_map(root, self.arguments[0]) if self.arguments else part_map(root)
        return [nodes.raw("", without_dead_links(root, drawn), format="html")]


# -- pages of the library
# --------------------------------------------------------------------------------------------------


class LibraryPages(SphinxDirective):
    """``{library} part``: the documentation of every public module of a part, or of shaplab itself,
    from docstrings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        part = self.arguments[0]
        lines: list[str] = []
        for module in public_modules(project_root(self.env.app), part):
            spec = importlib.util.find_spec(module)
            self.env.note_dependency(str(spec.origin if spec else module))
            lines += [
                f"## {module.partition('.')[2]}",
                "",
                "```{eval-rst}",
                f".. automodule:: {module}",
            ]
            lines += ["   :members:", "   :member-order: bysource", "```", ""]
        if not lines:
            raise self.error(
                f"library: expected a part of shaplab with public modules, got {part!r}."
            )
        box = nodes.section()
        box.document = self.state.document
        self.state.nested_parse(
            StringList(lines, self.env.docname), self.content_offset, box, match_titles=True
        )
        return box.children


def find_at_home(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Resolve ``shaplab.name`` to the module where the name lives; leave private names without a
    link."""
    import shaplab

    target = str(node.get("reftarget"))
    if node.get("refdomain") != "py" or not target.startswith("shaplab."):
        return None
    if any(part.startswith("_") for part in target.split(".")):
        return content
    name, _, rest = target.removeprefix("shaplab.").partition(".")
    home = shaplab._HOME.get(name)
    if home is None:
        return None
    path = ".".join(filter(None, [home, name, rest]))
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], path, node, content
    )


def read_returns_as_text() -> None:
    """Let napoleon read "name : text", "Returns" and the docstrings of properties as sentences, not
    as types first."""
    from sphinx.ext.napoleon.docstring import NumpyDocstring

    def returns(self: Any, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
        return [("", "", self._dedent(self._consume_to_next_section()))]

    def field(
        self: Any, parse_type: bool = True, prefer_type: bool = False
    ) -> tuple[str, str, list[str]]:
        if prefer_type or not parse_type:
            return typed(self, parse_type, prefer_type)
        line = self._lines.next()
        named, _, text = self._partition_field_on_colon(line)
        below = self._dedent(self._consume_indented_block(self._get_indent(line) + 1))
        text = self.__class__([text.strip(), *below], self._config).lines()
        return self._escape_args_and_kwargs(named.strip()), "", text

    typed = NumpyDocstring._consume_field
    NumpyDocstring._consume_field = field
    NumpyDocstring._consume_returns_section = returns
    NumpyDocstring._parse_attribute_docstring = lambda self: self._consume_to_end()


def tidy_docstring(
    app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    """Turn the line that names a module's chapter into a link."""
    if what != "module":
        return
    text = "\n".join(lines)
    named = re.findall(r"^Chapter: (\S+?)\.?$", text, re.M) or [
        name.removeprefix("shaplab.").replace(".", "/")
    ]
    text = re.sub(r"^Chapter: .*$", "", text, flags=re.M)
    listed = pages(project_root(app))
    known = [f":doc:`/book/{page}`" for page in named if page in listed]
    lines[:] = [*text.splitlines(), "", *([f"Derived in {', '.join(known)}."] if known else []), ""]


def public_modules(root: Path, part: str) -> list[str]:
    """Return the public modules of a part; those offered at the top level first, in reading
    order."""
    import shaplab

    if part == "shaplab_book":
        folder, prefix = root / "book" / "_ext" / part, part
    elif part == "shaplab":
        folder, prefix = root / part, part
    else:
        folder, prefix = root / "shaplab" / part, f"shaplab.{part}"
    names = {
        f"{prefix}.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("_")
    }
    names -= {"shaplab_book.check"}  # a command line; its name belongs to the function
    # A part that is one door has no public modules: its own page shows what the door offers.
    names = names or {prefix}
    order = list(shaplab._PUBLIC)
    return sorted(
        names, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


# -- reproductions
# --------------------------------------------------------------------------------------------------


def recorded(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (page, row) for every ``record`` in the executed chapters, in reading order."""
    for page in chapters(root):
        path = executed_path(root, page, profile())
        if path.exists():
            for cell in nbformat.read(path, as_version=4).cells:
                for output in cell.get("outputs", []):
                    if "shaplab" in output.get("metadata", {}):
                        yield page, output["metadata"]["shaplab"]


class ReproductionTable(SphinxDirective):
    """``{reproduction-table}``: what executed chapters recorded, beside what the sources report; or
    the ``count``."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        root = project_root(self.env.app)
        rows: dict[str, list[tuple[str, dict[str, str]]]] = {}
        for page, row in recorded(root):
            rows.setdefault(row["id"], []).append((page, row))
        for page in chapters(root):
            self.env.note_dependency(str(executed_path(root, page, profile())))
        if self.arguments == ["count"]:
            return [nodes.paragraph("", self._count(rows))]
        lines: list[str] = []
        part = None
        for id, claim in claims().items():
            if claim["part"] != part:
                part = claim["part"]
                lines += [":::", ""] if lines else []
                lines += [f"## {part}", "", ":::{div} reproduction"]
                lines += [
                    "| id | claim, and its set-up | the source reports | measured here |",
                    "|---|---|---|---|",
                ]
            lines.append(self._row(id, claim, rows.get(id, [])))
        box = nodes.section()
        box.document = self.state.document
        text = StringList([*lines, ":::"], self.env.docname)
        self.state.nested_parse(text, self.content_offset, box, match_titles=True)
        return box.children

    def _count(self, rows: dict[str, list[tuple[str, dict[str, str]]]]) -> str:
        counts = {verdict: 0 for verdict in (*VERDICTS, "open")}
        for id in claims():
            for verdict in {row["verdict"] for _, row in rows.get(id, [])} or {"open"}:
                counts[verdict] += 1
        return (
            f"{len(claims())} claims: "
            + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
            + "."
        )

    def _row(self, id: str, claim: dict[str, str], found: list[tuple[str, dict[str, str]]]) -> str:
        cells = []
        for page, row in found:
            value = _sentence(f"{row['value']} {row['unit']}")
            cells.append(
                f"**{row['verdict']}**: {value} {_sentence(row['note'])} [](/book/{page}.md)"
            )
        reported = next((row["source"] for _, row in found if row["source"]), claim["reported"])
        about = f"{_sentence(claim['claim'])} {_sentence(claim['setup'])}"
        return (
            f"| {id} | {about} | {_sentence(reported) or '–'} | {'<br>'.join(cells) or '*open*'} |"
        )


def _sentence(text: str) -> str:
    """Return a text for a Markdown table cell, begun and ended like a sentence; symbols stay
    small."""
    text = _cell(text)
    if re.match(r"a (?=[a-zA-Z])|[a-z][a-z-]+(?![\w(])", text):
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?" else text + "."


def _cell(text: str) -> str:
    """Escape a text for a Markdown table cell."""
    for mark in "\\`*_{}[]<>|$#~^":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


# -- notebooks that run elsewhere
# -------------------------------------------------------------------------------------

INSTALL = """\
# Only where the library or the book's packages are missing, as on Colab: it takes a few minutes.
from importlib.util import find_spec

if not all(map(find_spec, ["shaplab", "shaplab_book", "myst_nb"])):
    %pip install --quiet "shaplab[book] @ git+{url}@{branch}"
"""


def lead_with_install(app: Sphinx, env: Any) -> list[str]:
    """Let the notebooks that readers download, or open in Colab, install the library where it is
    missing, and be readable without Sphinx."""
    options = app.config.html_theme_options
    source = INSTALL.format(url=options["repository_url"], branch=options["repository_branch"])
    folder = Path(app.outdir).parent / "jupyter_execute"
    names = Names.of_book(project_root(app))
    for path in folder.rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        page = path.relative_to(folder).with_suffix("").as_posix()
        # What Sphinx writes has no outputs, and so not the values that stand in sentences.
        ran = executed_path(project_root(app), page.removeprefix("book/"), profile())
        installs = [cell for cell in notebook.cells if cell.get("id") == "install"]
        if ran.exists() and not installs:
            notebook = with_outputs(notebook, nbformat.read(ran, as_version=4), page)
        if app.config[HIDDEN] and not installs:
            notebook = without_solutions(notebook)
        flatten(notebook, page, names)
        if not installs:
            first = next(
                (i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"), 0
            )
            notebook.cells.insert(first, nbformat.v4.new_code_cell(source, id="install"))
            nbformat.write(notebook, path)
    return []


# -- pages everybody can read, and buttons
# ----------------------------------------------------------------------------


def leave_thebe_out(app: Sphinx) -> None:
    """Disconnect sphinx-thebe, which names a host for its script on every page, asked for or
    not."""
    for listeners in app.events.listeners.values():
        listeners[:] = [entry for entry in listeners if entry.handler.__module__ != "sphinx_thebe"]


def fix_roles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop a list role from lists of citations, whose entries have another role."""
    if "body" in context:
        wrong, right = '<div role="list" class="citation-list">', '<div class="citation-list">'
        context["body"] = context["body"].replace(wrong, right)


# Names, punctuation and blanks have the colour of all code in both styles.
PLAIN_SPAN = re.compile(r'<span class="[npw]">([^<]*)</span>')


# A short formula and the comma or the full stop that ends its sentence.
FORMULA_AND_MARK = re.compile(
    r'(<span class="math notranslate nohighlight">\\\([^<]{1,40}\\\)</span>)([,.;:?!)]+)'
)


def tidy_body(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Code without the spans that change nothing, a third of the bytes of a page; no line begins
    with the comma behind a formula."""
    if "body" in context:
        plain = PLAIN_SPAN.sub(r"\1", context["body"])
        context["body"] = FORMULA_AND_MARK.sub(r'<span class="together">\1\2</span>', plain)


def explain_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Words of the glossary show their sentence when one points at them."""
    links = [
        link
        for link in doctree.findall(nodes.reference)
        if any("std-term" in part.get("classes", ()) for part in link.findall(nodes.inline))
    ]
    if not links:
        return
    sentences = {}
    for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        *words, sentence = item.children
        for word in words:
            for anchor in word.get("ids", ()):
                sentences[anchor] = sentence.astext().strip()
    for link in links:
        anchor = link.get("refid") or str(link.get("refuri", "")).partition("#")[2]
        link["reftitle"] = sentences[anchor]


def show_levels(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the level of an exercise behind its title: three circles for the eye, words for a screen
    reader."""
    for node in doctree.findall(lambda node: "exercise" in " ".join(_classes(node))):
        levels = [int(name[-1]) for name in _classes(node) if re.fullmatch(r"level-[123]", name)]
        title = next(iter(node.findall(nodes.title)), None)
        if levels and title is not None:
            circles, words = LEVELS[levels[0]]
            title += nodes.raw(
                "",
                f'<span class="exercise-level" title="{words}">'
                f'<span aria-hidden="true">{circles}</span>'
                f'<span class="visually-hidden">Level {levels[0]} of 3: {words}</span></span>',
                format="html",
            )


def _classes(node: nodes.Node) -> list[str]:
    return node.get("classes", []) if isinstance(node, nodes.Admonition) else []


def fix_launch_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Point Colab at the notebooks published beside the pages, and Binder at those that its
    postBuild makes."""
    for button in context.get("header_buttons", []):
        for entry in button.get("buttons", []) if isinstance(button, dict) else []:
            url = str(entry.get("url", ""))
            if "colab.research" in url:
                head = url.split("/blob/")[0]
                entry["url"] = f"{head}/blob/gh-pages/_sources/{pagename}.ipynb"
            elif "mybinder" in url:
                entry["url"] = url.removesuffix(".md") + (".ipynb" if url.endswith(".md") else "")


def setup(app: Sphinx) -> dict[str, Any]:
    read_returns_as_text()
    connect(app)
    connect_numbers(app)
    app.add_directive("take-home", TakeHome)
    app.add_directive("library", LibraryPages)
    app.add_directive("book-map", BookMap)
    app.add_directive("reproduction-table", ReproductionTable)
    app.connect("config-inited", use_executed_chapters, priority=10)
    app.connect("builder-inited", leave_thebe_out, priority=10)
    app.connect("source-read", extend_chapter)
    app.connect("autodoc-process-docstring", tidy_docstring)
    app.connect("missing-reference", find_at_home)
    app.connect("doctree-resolved", explain_terms)
    app.connect("doctree-resolved", show_levels)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_take_home)
    app.connect("env-updated", lead_with_install)
    app.connect("html-page-context", fix_roles, priority=900)
    app.connect("html-page-context", tidy_body, priority=900)
    app.connect("html-page-context", fix_launch_buttons, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
