"""Which chapters run to their end, with all their assertions, for which seed and profile?

    python benchmarks/chapter_runs.py --seeds 0 1 2 3
    python benchmarks/chapter_runs.py --profile full trees/loss foundations/kernel

Runs what has changed since its last run and writes seconds, or what failed, into
``results/chapter_runs.csv``, which the page on reproduction shows. Chapters that are not named keep
what is recorded.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "results" / "chapter_runs.csv"
COLUMNS = ["quick, seed 0", "quick, seed 1", "quick, seed 2", "quick, seed 3", "full, seed 0"]
LINE = re.compile(r"\[\d+/\d+\] (\S+): (ran in|FAILED after) ([\d.]+) s")


def known() -> dict[str, dict[str, str]]:
    """What is recorded, by chapter."""
    if not RECORD.is_file():
        return {}
    with RECORD.open(encoding="utf-8", newline="") as file:
        return {row["chapter"]: row for row in csv.DictReader(file)}


def run(profile: str, seed: int, jobs: int, chosen: list[str]) -> dict[str, str]:
    """Run chapters; what the record says of those that were not current already."""
    command = [sys.executable, str(ROOT / "book" / "_ext" / "run_chapters.py"), *chosen]
    command += ["--profile", profile, "--seed", str(seed), "--jobs", str(jobs)]
    found = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            if done := LINE.match(line):
                passed = done[2] == "ran in"
                found[done[1]] = f"{float(done[3]):.0f} s" if passed else "failed"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", help="such as trees/loss; all when none is named")
    parser.add_argument("--profile", default="quick", choices=["quick", "full"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for seed in options.seeds:
        column = f"{options.profile}, seed {seed}"
        if column not in COLUMNS:
            parser.error(f"the record has the columns {', '.join(COLUMNS)}")
        found = run(options.profile, seed, options.jobs, options.chapters)
        rows = known()
        for chapter, outcome in found.items():
            rows.setdefault(chapter, {"chapter": chapter})[column] = outcome
        # In the order of the book; a chapter that is gone leaves the record.
        listed = [name for name in re.findall(r"file: book/(\S+)", toc) if name in rows]
        with RECORD.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["chapter", *COLUMNS], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[name] for name in listed)


if __name__ == "__main__":
    main()
