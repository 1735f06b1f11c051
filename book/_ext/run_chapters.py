"""Run every chapter once, and hand its outputs to the book build.

A chapter is converted by jupytext, run by papermill with a profile and a seed, and kept in
``_build/executed/<profile>/``. It is skipped while its text, its parameters, the library and the
versions of the dependencies are what they were. The outputs then go into the jupyter-cache that
myst-nb reads, on the notebook as myst-nb itself reads it (cell metadata is part of the key), so
that the book build never executes anything.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import platform
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ipc_kernels  # noqa: F401
import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_SEED = 0


def chapters(root: Path) -> list[str]:
    """Return the chapters (pages that are notebooks) in the order of the table of contents."""
    return [
        page
        for page in pages(root)
        if is_chapter((root / "book" / f"{page}.md").read_text(encoding="utf-8"))
    ]


def pages(root: Path) -> list[str]:
    """Return all pages in the order of the table of contents, as they are named inside
    ``book/``; where ``CHAPTERS`` names some, those and what goes with them."""
    return [page for page in all_pages(root) if _is_built(page)]


def all_pages(root: Path) -> list[str]:
    """Return the pages of the table of contents, whatever ``CHAPTERS`` says."""
    listed = _pages(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    return [page.removeprefix("book/") for page in listed]


def chapter_numbers(root: Path) -> dict[str, int]:
    """Return the number of each chapter; the start page, pages of parts and the reference have
    none."""
    counted = [
        page
        for page in all_pages(root)
        if "/" in page and not page.startswith("reference/") and not page.endswith("/index")
    ]
    return {page: number for number, page in enumerate(counted, 1)}


def _is_built(page: str) -> bool:
    """Say whether ``CHAPTERS`` leaves a page in: it is named, the start page, the page of a part of
    which a chapter is named, or of the reference."""
    chosen = os.environ.get("CHAPTERS", "").split()
    name = page.removeprefix("book/")
    part = name.partition("/")[0] + "/"
    return (
        not chosen
        or name in (*chosen, "index")
        or part == "reference/"
        or (name == f"{part}index" and any(one.startswith(part) for one in chosen))
    )


def write_toc(root: Path) -> Path:
    """Write the table of contents of a build of some chapters."""
    whole = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    target = root / "_build" / "some" / "_toc.yml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(_left(whole), sort_keys=False), encoding="utf-8")
    return target


def _left(node: Any) -> Any:
    """Return a table of contents without the pages that are not built, and without empty parts."""
    if isinstance(node, dict):
        return {key: _left(value) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    built = [item for item in node if "file" not in item or _is_built(item["file"])]
    kept = [_left(item) for item in built]
    return [item for item in kept if item.get("chapters", True)]


def _pages(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from _pages(value)
    elif isinstance(node, list):
        for item in node:
            yield from _pages(item)


def suggested(name: str, known: list[str]) -> str:
    """Return what may have been meant by a name that is no chapter's."""
    close = [page for page in known if page.endswith(f"/{name}")]
    close += difflib.get_close_matches(name, known, n=3, cutoff=0.8)
    if close:
        return f"Did you mean {' or '.join(dict.fromkeys(close))}?"
    return f"Chapters: {', '.join(known)}."


def is_chapter(text: str) -> bool:
    """Say whether a page is a notebook: its front matter names jupytext."""
    return bool(re.match(r"---\n(?:.*\n)*?jupytext:(?:.*\n)*?---\n", text))


def fingerprint(root: Path) -> str:
    """Hash what every chapter's outputs depend on: the library, the book's helper, Python and the
    dependencies."""
    digest = hashlib.sha256(platform.python_version().encode())
    for folder in ("shaplab", "book/_ext/shaplab_book"):
        found = [
            p for p in (root / folder).rglob("*") if p.suffix in (".py", ".yml", ".js", ".css")
        ]
        for path in sorted(found):
            digest.update(
                path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
            )
    for name in dependencies(root):
        try:
            digest.update(f"{name}=={metadata.version(name)}\n".encode())
        except metadata.PackageNotFoundError:
            digest.update(f"{name} missing\n".encode())
    return digest.hexdigest()[:16]


def dependencies(root: Path) -> list[str]:
    """Return the names of all packages that pyproject.toml asks for."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.match(r"[\w.-]+", line).group().lower() for line in lines}  # type: ignore[union-attr]
    return sorted(names - {"shaplab"})


def cache_path(root: Path, profile: str) -> Path:
    """Return the folder of the jupyter-cache, which changes with the library and the
    dependencies."""
    some = os.environ.get("CHAPTERS", "").split()
    mark = "-" + hashlib.sha256(" ".join(some).encode()).hexdigest()[:8] if some else ""
    return root / "_build" / "cache" / f"{profile}-{fingerprint(root)}{mark}"


def executed_path(root: Path, page: str, profile: str, seed: int = DEFAULT_SEED) -> Path:
    """Return where the executed notebook of a chapter is kept."""
    folder = profile if seed == DEFAULT_SEED else f"{profile}-seed{seed}"
    return root / "_build" / "executed" / folder / f"{page}.ipynb"


def key_of(text: str, profile: str, seed: int, library: str) -> str:
    """Return the key that must be unchanged for a chapter to be skipped."""
    return hashlib.sha256(f"{text}\0{profile}\0{seed}\0{library}".encode()).hexdigest()


def is_current(path: Path, key: str) -> bool:
    """Say whether an executed notebook exists with this key."""
    if not path.exists():
        return False
    return nbformat.read(path, as_version=4).metadata.get("shaplab", {}).get("key") == key


def complete(root: Path, profile: str) -> bool:
    """Say whether every chapter's outputs are those of its present text and library, and in the
    cache."""
    library = fingerprint(root)
    return cache_path(root, profile).exists() and all(
        is_current(
            executed_path(root, page, profile),
            key_of(
                (root / "book" / f"{page}.md").read_text("utf-8"), profile, DEFAULT_SEED, library
            ),
        )
        for page in chapters(root)
    )


def run_one(root: Path, page: str, profile: str, seed: int, key: str) -> tuple[float, str]:
    """Execute one chapter; return the seconds it took and the text of what went wrong, if anything
    did."""
    import jupytext
    import papermill

    os.environ["OMP_NUM_THREADS"] = "1"
    here = os.pathsep.join([str(root), str(root / "book" / "_ext")])
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [here, os.environ.get("PYTHONPATH", "")])
    )
    target = executed_path(root, page, profile, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    source, partial = target.with_suffix(".source.ipynb"), target.with_suffix(".partial.ipynb")
    started = time.perf_counter()
    try:
        jupytext.write(jupytext.read(root / "book" / f"{page}.md"), source)
        parameters = {"profile": profile, "seed": seed}
        notebook = papermill.execute_notebook(
            source, partial, parameters, cwd=str(root), progress_bar=False, kernel_name="python3"
        )
        seconds = time.perf_counter() - started
        notebook.metadata["shaplab"] = {
            "key": key,
            "seconds": round(seconds, 1),
            "profile": profile,
            "seed": seed,
        }
        nbformat.write(notebook, partial)
        partial.replace(target)
        return seconds, ""
    except papermill.PapermillExecutionError as error:
        cell = f"cell {error.cell_index} of book/{page}.md:\n{error.source}"
        return time.perf_counter() - started, f"{cell}\n\n" + "\n".join(error.traceback)
    except Exception as error:  # a dead kernel, a chapter that is not a notebook: say which chapter
        return time.perf_counter() - started, f"{type(error).__name__}: {error}"
    finally:
        source.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def run(
    root: Path, chosen: list[str], profile: str, seed: int, jobs: int, force: bool = False
) -> list[str]:
    """Execute the chapters that changed, with a line of progress each; return those that failed."""
    library = fingerprint(root)
    keys = {
        page: key_of((root / "book" / f"{page}.md").read_text("utf-8"), profile, seed, library)
        for page in chosen
    }
    todo = [
        p for p in chosen if force or not is_current(executed_path(root, p, profile, seed), keys[p])
    ]
    word = "chapter" if len(chosen) == 1 else "chapters"
    print(
        f"{len(chosen)} {word}, {len(chosen) - len(todo)} unchanged, {len(todo)} to run "
        f"({profile}, seed {seed})"
    )
    failed: list[str] = []
    if not todo:
        return failed
    with ProcessPoolExecutor(min(jobs, len(todo)), mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(run_one, root, page, profile, seed, keys[page]): page for page in todo
        }
        for count, done in enumerate(as_completed(waiting), 1):
            page, (seconds, problem) = waiting[done], done.result()
            what = "FAILED after" if problem else "ran in"
            print(f"[{count}/{len(todo)}] {page}: {what} {seconds:.1f} s", flush=True)
            if problem:
                failed.append(page)
                print(problem, file=sys.stderr, flush=True)
    return failed


def as_myst_nb_reads(root: Path, text: str) -> nbformat.NotebookNode:
    """Read a chapter exactly as the book build does."""
    from myst_nb.core.read import read_myst_markdown_notebook
    from myst_parser.config.main import MdParserConfig

    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    extensions = config.get("parse", {}).get("myst_enable_extensions", [])
    return read_myst_markdown_notebook(
        text, config=MdParserConfig(enable_extensions=extensions), add_source_map=True
    )


def with_outputs(
    notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode, page: str
) -> nbformat.NotebookNode:
    """Put the outputs of papermill's notebook on the notebook that myst-nb reads."""
    ran = [cell for cell in executed.cells if cell.cell_type == "code"]
    ran = [cell for cell in ran if "injected-parameters" not in cell.metadata.get("tags", [])]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [c.source.strip() for c in cells] != [c.source.strip() for c in ran]:
        raise ValueError(
            f"book/{page}.md: jupytext and myst-nb read other cells. Keep code cells at "
            f"the top level."
        )
    for number, (cell, source) in enumerate(zip(cells, ran, strict=True), 1):
        cell.outputs, cell.execution_count = source.outputs, number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    notebook.metadata["language_info"] = executed.metadata["language_info"]
    return notebook


def fill_cache(root: Path, chosen: list[str], profile: str) -> Path:
    """Write the outputs of all chapters into a fresh jupyter-cache; drop those of older
    libraries."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    path = cache_path(root, profile)
    shutil.rmtree(path.parent, ignore_errors=True)
    cache = get_cache(str(path))
    for page in chosen:
        source = root / "book" / f"{page}.md"
        executed = nbformat.read(executed_path(root, page, profile), as_version=4)
        notebook = with_outputs(
            as_myst_nb_reads(root, source.read_text(encoding="utf-8")), executed, page
        )
        data = {"execution_seconds": executed.metadata["shaplab"]["seconds"]}
        bundle = CacheBundleIn(notebook, str(source), data=data)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the chapters named, or all of them and fill the cache; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "pages", nargs="*", help="chapters such as foundations/exact; all when none is named"
    )
    parser.add_argument("--profile", default="quick", choices=["quick", "full"])
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--force", action="store_true", help="run even what has not changed")
    parser.add_argument("--root", type=Path, default=ROOT)
    options = parser.parse_args(arguments)
    some = os.environ.get("CHAPTERS", "").split()
    for name in sorted(set(some) - set(pages(options.root))):
        parser.error(f"CHAPTERS: no such page: {name}. {suggested(name, all_pages(options.root))}")
    if some:
        write_toc(options.root)
    known = chapters(options.root)
    unknown = sorted(set(options.pages) - set(known))
    for name in unknown:
        parser.error(f"no such chapter: {name}. {suggested(name, known)}")
    chosen = options.pages or known
    failed = run(options.root, chosen, options.profile, options.seed, options.jobs, options.force)
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    if options.pages:
        for page in chosen:
            print(executed_path(options.root, page, options.profile, options.seed))
    elif options.seed == DEFAULT_SEED:
        fill_cache(options.root, chosen, options.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
