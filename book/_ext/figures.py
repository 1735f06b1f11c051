"""The figures of the book as files for a lecture, with their captions and alternative texts.

    make figures       writes _build/course/figures

Plots come from the executed chapters as they are. Drawings are written as SVG, with the colours of
a light page, and as PNG where chromium is installed. ``captions.csv`` says what each file shows.
"""

from __future__ import annotations

import base64
import csv
import html
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from flat_notebook import Names
from run_chapters import chapters, executed_path, run

__all__ = ["figures_of", "write_figures"]

DRAWING = re.compile(r'<figure class="shaplab-sketch">(<svg.*?</svg>)(.*?)</figure>', re.S)
# What a drawing takes from the page, for a file that stands alone: ink, and the light colours.
COLOURS = {
    "currentColor": "#222222",
    "var(--for)": "#c2500c",
    "var(--against)": "#2166ac",
    "var(--quiet)": "#767676",
}
COLUMNS = ("file", "chapter", "title", "name", "caption", "alternative text")
LEFT_OUT = {"remove-cell", "remove-output"}


@dataclass(frozen=True)
class Figure:
    """A plot, as the bytes of a PNG, or a drawing, as SVG; name is its label in the chapter."""

    png: bytes
    svg: str
    name: str
    caption: str
    alt: str


def figures_of(notebook: Any) -> Iterator[Figure]:
    """Yield what an executed chapter shows, in its order."""
    for cell in notebook.cells:
        if LEFT_OUT & set(cell.metadata.get("tags", [])):
            continue
        options = cell.metadata.get("mystnb", {})
        figure, image = options.get("figure", {}), options.get("image", {})
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                png = base64.b64decode(data["image/png"])
                caption = " ".join(str(figure.get("caption", "")).split())
                alt = " ".join(str(image.get("alt", "")).split())
                yield Figure(png, "", figure.get("name", ""), caption, alt)
            for picture, rest in DRAWING.findall(data.get("text/html", "")):
                caption = html.unescape(re.sub(r"<[^>]+>", "", rest)).strip()
                label = re.search(r'aria-label="([^"]*)"', picture)
                alt = html.unescape(label[1]) if label else ""
                yield Figure(b"", _alone(picture), "", caption, alt)


def _alone(picture: str) -> str:
    """Return an SVG that needs nothing of a page."""
    for name, colour in COLOURS.items():
        picture = picture.replace(name, colour)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture)
    size = f' width="{box[1]}" height="{box[2]}"' if box else ""
    start = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif"{size} '
    return picture.replace("<svg ", start, 1)


def write_figures(root: Path, folder: Path, chosen: list[str]) -> list[dict[str, str]]:
    """Write the figures of executed chapters and ``captions.csv``; return the rows of that file."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = Names.of_book(root).titles
    rows = []
    drawings = []
    for page in chosen:
        notebook = nbformat.read(executed_path(root, page, "quick"), as_version=4)
        for number, figure in enumerate(figures_of(notebook), 1):
            path = folder / f"{page.replace('/', '-')}-{number}.png"
            if figure.png:
                path.write_bytes(figure.png)
            else:
                path = path.with_suffix(".svg")
                path.write_text(figure.svg, encoding="utf-8")
                drawings.append(path)
            told = (page, titles[f"book/{page}"], figure.name, figure.caption, figure.alt)
            rows.append(dict(zip(COLUMNS, (path.name, *told), strict=True)))
    if photograph(drawings):
        for row in rows:
            row["file"] = row["file"].removesuffix(".svg").removesuffix(".png") + ".png"
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return rows


def chromium() -> str | None:
    """Return where chromium is, if it is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def photograph(drawings: list[Path]) -> bool:
    """Write a PNG beside each SVG, three pixels a unit; say whether there was a browser for it."""
    where = chromium()
    if where is None:
        return False
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        page = browser.new_page(device_scale_factor=3)
        for path in drawings:
            page.set_content(f"<body style='margin:0'>{path.read_text(encoding='utf-8')}</body>")
            page.locator("svg").screenshot(path=path.with_suffix(".png"))
        browser.close()
    return True


def main(arguments: list[str]) -> int:
    """Run what is not current, then write the figures of the chapters named, or of all."""
    root = Path(__file__).resolve().parents[2]
    chosen = arguments or [page for page in chapters(root) if "/" in page]
    if run(root, chosen, "quick", 0, 2, False):
        return 1
    folder = root / "_build" / "course" / "figures"
    rows = write_figures(root, folder, chosen)
    print(f"{len(rows)} figures of {len(chosen)} chapters in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
