"""Open a chapter in JupyterLab, as a notebook with its theorems and boxes rendered.

The settings live under ``_build``: nothing of the reader's own JupyterLab is changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from run_chapters import chapters, suggested

SETTINGS = {
    "@jupyterlab/docmanager-extension/plugin": {
        "defaultViewers": {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"}
    },
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
}


def write_settings(folder: Path) -> None:
    """Write JupyterLab's settings as it names them: a folder an extension, a file a plugin."""
    for name, values in SETTINGS.items():
        extension, plugin = name.rsplit("/", 1)
        path = folder / extension / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2), encoding="utf-8")


def command(root: Path, page: str, extra: list[str]) -> list[str]:
    """Return the command that opens a chapter, such as ``foundations/exact``."""
    folder = root / "_build" / "lab"
    write_settings(folder / "settings")
    return [
        sys.executable, "-m", "jupyterlab",
        f"--LabApp.user_settings_dir={folder / 'settings'}",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        f"--ServerApp.root_dir={root}",
        "--LabApp.default_url=/lab/tree/" + f"book/{page}.md",
        *extra,
    ]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Open the chapter named first, or the first one; other arguments go to JupyterLab."""
    root = Path(__file__).resolve().parents[2]
    known = chapters(root)
    page = arguments[0] if arguments and not arguments[0].startswith("-") else known[0]
    if page not in known:
        print(f"chapter: expected one of the book's, got {page!r}. {suggested(page, known)}")
        return 2
    extra = [a for a in arguments if a != page]
    return subprocess.call(command(root, page, extra), cwd=root)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
