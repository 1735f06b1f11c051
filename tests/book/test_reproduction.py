"""The page of reproductions: its ids, what chapters may record, and that nothing on it is typed by
hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from run_chapters import chapters, executed_path
from shaplab_book import VERDICTS, claims, record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shown(monkeypatch) -> list[tuple[dict, dict]]:
    import shaplab_book

    seen: list[tuple[dict, dict]] = []
    monkeypatch.setattr(
        shaplab_book, "display", lambda data, metadata, raw: seen.append((data, metadata))
    )
    return seen


def test_every_claim_is_complete_and_named_once():
    text = (ROOT / "book/_ext/shaplab_book/reproduction.yml").read_text(encoding="utf-8")
    ids = re.findall(r"\{id: \"([^\"]+)\"", text)
    assert len(ids) == len(set(ids)) == len(claims())
    assert {id.split("-")[0] for id in ids} == {"TREE", "DEEP", "DASP", "NET", "SAGE"}
    assert all(row["claim"] and row["part"] for row in claims().values())


def test_record_glues_the_value_and_keeps_the_row(shown):
    record("TREE-A2", 1.5, unit="s", verdict="reproduced", note="Same order.")
    ((data, metadata),) = shown
    assert metadata["scrapbook"]["name"] == "TREE-A2"
    assert data == {metadata["scrapbook"]["mime_prefix"] + "text/plain": "1.5 s"}
    assert metadata["shaplab"]["value"] == "1.5"
    assert metadata["shaplab"]["verdict"] == "reproduced"


@pytest.mark.parametrize(
    ("id", "value", "verdict", "expected"),
    [
        ("TREE-A9", 1, "reproduced", r"id: .*got 'TREE-A9'"),
        ("TREE-A2", 1, "Reproduced", r"verdict: .*'differs', got 'Reproduced'"),
        ("NET-E", 1, "reproduced", r"verdict: expected 'implemented' for NET-E"),
        ("TREE-A2", " ", "differs", r"value: expected"),
    ],
)
def test_record_refuses(shown, id, value, verdict, expected):
    with pytest.raises(ValueError, match=expected):
        record(id, value, verdict=verdict)
    assert shown == []


def rows() -> list[tuple[str, dict]]:
    found = []
    for page in chapters(ROOT):
        for cell in json.loads(executed_path(ROOT, page, "quick").read_text(encoding="utf-8"))[
            "cells"
        ]:
            for output in cell.get("outputs", []):
                if "shaplab" in output.get("metadata", {}):
                    found.append((page, output["metadata"]["shaplab"]))
    return found


@pytest.mark.book
def test_the_page_shows_what_chapters_recorded(html):
    page = (html / "book" / "reference" / "reproduction.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    recorded = rows()
    assert all(row["verdict"] in VERDICTS for _, row in recorded)
    opened = set(claims()) - {row["id"] for _, row in recorded}
    assert f"{len(claims())} claims: " in text
    assert f"{len(opened)} open." in text
    for id in claims():
        assert id in text
    for chapter, row in recorded:
        assert f"{chapter}.html" in page, f"no link to {chapter}"
        value = row["value"]
        # A cell begins like a sentence.
        value = value[0].upper() + value[1:] if re.match(r"[a-z]{2,} ", value) else value
        words = re.findall(r"[A-Za-z0-9.,]{3,}", value)
        assert all(word.rstrip(".,") in text for word in words), row


@pytest.mark.book
def test_a_chapter_records_an_id_once():
    seen = [(page, row["id"]) for page, row in rows()]
    assert len(seen) == len(set(seen))


def test_the_page_has_no_rows_of_its_own():
    text = (ROOT / "book" / "reference" / "reproduction.md").read_text(encoding="utf-8")
    assert not any(id in text for id in claims())
    assert "{reproduction-table}" in text
