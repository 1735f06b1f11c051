"""The page for teachers: course plans keep the order that the table asks for, and the table is that
of the chapters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from run_chapters import chapters

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "book" / "practice" / "teaching.md").read_text(encoding="utf-8")
LABELS = {
    page: re.search(r"^\((ch-[\w-]+)\)=\n# ", (ROOT / f"book/{page}.md").read_text("utf-8"), re.M)[
        1
    ]
    for page in chapters(ROOT)
    if "/" in page
}
PAGES = {label: page for page, label in LABELS.items()}
FIRST = ("ch-exact", "ch-predictions")
# Pages that point at the whole book.
FREE = ("ch-which-method", "ch-exams")
PARTS = {"any other chapter on trees": "trees", "any other chapter on deep networks": "deep"}
REF = re.compile(r"\{ref\}`(ch-[\w-]+)`")


def section(title: str) -> str:
    return re.split(r"^## ", TEXT.split(f"\n## {title}\n")[1], flags=re.M)[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][1:]


def needs() -> dict[str, set[str]]:
    """What each chapter needs, by the table, directly."""
    found: dict[str, set[str]] = {label: set(FIRST) - {label} for label in PAGES}
    found["ch-exact"] = set()
    for before, read in rows(section("What depends on what")):
        first = REF.findall(read)
        wanted = set(first)
        if before in PARTS:  # what all others need is itself read in this order
            for number, label in enumerate(first):
                found[label] |= set(first[:number])
        if before == "any chapter on ShapNets":
            listed = [LABELS[page] for page in LABELS if page.startswith("shapnets/")]
            for number, label in enumerate(listed):
                found[label] |= set(listed[:number])
            continue
        later = REF.findall(before) or [
            label
            for label, page in PAGES.items()
            if page.startswith(f"{PARTS[before]}/") and label not in wanted
        ]
        for label in later:
            found[label] |= wanted
    return found


def all_needs(label: str, direct: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = set(direct[label])
    while todo:
        one = todo.pop()
        found.add(one)
        todo |= direct[one] - found
    return found


def plans() -> dict[str, str]:
    text = section("Five courses")
    parts = re.split(r"^\*\*(.+?)[,.]", text, flags=re.M)
    return {name: body for name, body in zip(parts[1::2], parts[2::2], strict=True) if "|" in body}


def test_the_table_has_all_that_the_chapters_say_they_need():
    direct = needs()
    for page, label in LABELS.items():
        text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
        line = re.search(r"^\*\*You need\*\*(.+?)\*\*Time", text, re.M)[1]
        said = set(REF.findall(line))
        for target in re.findall(r"\{doc\}`([^`]+)`", line):
            own = f"{page.split('/')[0]}/{target}"
            said.add(LABELS[target.removeprefix("/book/")] if "/" in target else LABELS[own])
        if label not in FREE:
            assert said <= all_needs(label, direct), (
                f"{page} needs {said - all_needs(label, direct)}"
            )


@pytest.mark.parametrize("name", plans())
def test_a_plan_keeps_the_order_of_the_table(name):
    direct = needs()
    intro, _, table = plans()[name].partition("\n|")
    read = set(REF.findall(intro)) if "begins where" in intro else set()
    for number, chapters_of, _ in rows("|" + table):
        for label in REF.findall(chapters_of):
            if label not in FREE:
                missing = all_needs(label, direct) - read
                assert not missing, f"{name}, meeting {number}: {label} before {sorted(missing)}"
            read.add(label)
    assert len(read) >= 3


def test_there_are_plans_outcomes_and_a_project_for_each_part():
    assert len(plans()) == 4  # the fifth, a seminar, has no table
    outcomes = re.split(
        r"^\*\*.+\*\* Students can$", section("What students can do afterwards"), flags=re.M
    )
    assert len(outcomes) == 8
    assert all(3 <= len(re.findall(r"^- ", part, re.M)) <= 5 for part in outcomes[1:])
    projects = re.split(r"^### ", section("A project for each part"), flags=re.M)[1:]
    assert len(projects) == 7
    for project in projects:
        assert re.findall(r"^\*(Question\.|Data\.|Steps\.|A good answer)\*", project, re.M) == [
            "Question.", "Data.", "Steps.", "A good answer",
        ]  # fmt: skip
    points = [int(row[0]) for row in rows(section("A project for each part"))]
    assert sum(points) == 20


def test_data_of_the_projects_are_in_the_library():
    from shaplab_book import datasets

    for name in re.findall(r"`(?:shaplab_book\.datasets\.)?((?:load|simulate)_\w+)\(", TEXT):
        assert name in datasets.__all__


def test_an_exam_has_six_questions_and_ninety_points():
    text = (ROOT / "book" / "practice" / "exams.md").read_text(encoding="utf-8")
    exams = re.split(r"^## (?:First|Second) exam.*$", text, flags=re.M)[1:]
    assert len(exams) == 2
    for exam in exams:
        points = re.findall(r"^```\{exercise-start\} .+, (\d+) points$", exam, re.M)
        assert len(points) == 6
        assert sum(map(int, points)) == 90
