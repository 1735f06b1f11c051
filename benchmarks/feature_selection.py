"""Which ranking of features finds the true ones? The chapter insight/choosing on many data sets.

Run: OMP_NUM_THREADS=1 python benchmarks/feature_selection.py [data sets] >
benchmarks/results/feature_selection.csv The code is the chapter's own: its cells tagged
"experiment" are executed here. One row a data set, model and number of true features; the chapter
shows the table. 200 data sets take about a quarter of an hour of CPU time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "_ext")]
VARIED = {"400 rows": {"n": 400}, "noise 0.5": {"noise": 0.5}, "features on [-1, 1]": {"low": -1.0}}


def main() -> None:
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    chapter = jupytext.read(ROOT / "book" / "insight" / "choosing.md")
    cells = [cell.source for cell in chapter.cells if "experiment" in cell.metadata.get("tags", [])]
    names: dict = {}
    exec("\n".join(cells), names)
    for s in range(sets):  # set by set, so that a run that is cut short is a smaller experiment
        tables = [names["experiment"]([s], (6, 18, 30, 45, 60)).assign(**{"set-up": "main"})]
        if s % 4 == 0:
            tables += [
                names["experiment"]([s], (30,), **change).assign(**{"set-up": name})
                for name, change in VARIED.items()
            ]
        table = names["pd"].concat(tables).round(5)
        print(table.to_csv(index=False, header=s == 0), end="", flush=True)


if __name__ == "__main__":
    main()
