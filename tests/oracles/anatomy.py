"""What every chapter must have, as a list of complaints about its text."""

from __future__ import annotations

import re

import jupytext

FORBIDDEN = {
    r"plt\.show\(": "plt.show() is not needed, figures show themselves",
    r"pip install": "no pip cells, the set-up installs everything",
    r"raises-exception": "show errors with try/except and print",
    r"\bTODO\b|\bFIXME\b|lorem ipsum": "unfinished text",
}


def complaints(text: str) -> list[str]:
    """Return what is wrong with the text of a chapter; an empty list when nothing is."""
    notebook = jupytext.reads(text, fmt="md:myst")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    parameters = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(parameters) != 1:
        found.append(f"expected one cell tagged 'parameters', found {len(parameters)}")
    elif not (
        re.search(r'^profile = "quick"$', parameters[0].source, re.M)
        and re.search(r"^seed = 0$", parameters[0].source, re.M)
    ):
        found.append('the parameters cell must set profile = "quick" and seed = 0')
    if not any(re.search(r"^\s*assert |np\.testing\.assert", cell.source, re.M) for cell in code):
        found.append("no cell asserts anything")
    exercises = set(re.findall(r"\{exercise(?:-start)?\}[^\n]*\n:label: (\S+)", text))
    solved = set(re.findall(r"\{solution(?:-start)?\} (\S+)", text))
    if not exercises:
        found.append("no exercise with a label")
    for label in sorted(exercises ^ solved):
        found.append(f"exercise {label!r} without a solution, or a solution without its exercise")
    if not re.search(r"\{cite(:\w+)?\}`", text):
        found.append("no citation")
    if not re.search(r"^:class:.*\bgoals\b", text, re.M):
        found.append("no goals box (an admonition with :class: goals)")
    if not re.search(r"^#+ .*what this does not say", text, re.M | re.I):
        found.append("no section 'What this does not say'")
    if not re.search(r"^\([\w-]+\)=\n# ", text, re.M):
        found.append("no label above the title")
    for pattern, why in FORBIDDEN.items():
        if re.search(pattern, text):
            found.append(f"{pattern} found: {why}")
    return found


def figure_complaints(notebook: dict) -> list[str]:
    """Return the cells of an executed chapter whose figures lack a caption, a name or an
    alternative text."""
    found = []
    for number, cell in enumerate(notebook["cells"]):
        images = [
            o
            for o in cell.get("outputs", [])
            if any(k.startswith("image/") for k in o.get("data", {}))
        ]
        if not images or {"remove-cell", "remove-output"} & set(cell["metadata"].get("tags", [])):
            continue
        options = cell["metadata"].get("mystnb", {})
        if len(images) > 1:
            found.append(
                f"cell {number}: {len(images)} figures in one cell, a caption describes one"
            )
        if not options.get("figure", {}).get("caption") or not options.get("figure", {}).get(
            "name"
        ):
            found.append(f"cell {number}: a figure without a caption or a name")
        if not options.get("image", {}).get("alt"):
            found.append(f"cell {number}: a figure without an alternative text")
    return found
