"""What only the book needs: data sets and simulators, a game to play with, the user study, networks
to compare with, ``check``, which tells a reader whether an answer is right, and ``record``, which
puts a measured value into the page of reproductions."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

try:
    import yaml
    from IPython.display import display
except ImportError as missing:
    raise ImportError(
        f"shaplab_book: expected the packages of the book, {missing.name} is not installed. "
        "Run: pip install 'shaplab[book]'."
    ) from missing

from shaplab_book.checking import check

__all__ = ["VERDICTS", "check", "claims", "record"]

VERDICTS = ("reproduced", "reproduced on a stand-in", "implemented", "undecided", "differs")
PREFIX = "application/papermill.record/"


@cache
def claims() -> dict[str, dict[str, str]]:
    """Return every claim of the sources by its id: claim, set-up, what the source reports, part."""
    table = yaml.safe_load(
        files("shaplab_book").joinpath("reproduction.yml").read_text(encoding="utf-8")
    )
    return {
        row["id"]: {**row, "part": part["title"]}
        for part in table["parts"]
        for row in part["claims"]
    }


def record(
    id: str, value: Any, *, unit: str = "", source: str = "", verdict: str, note: str = ""
) -> None:
    """Record what this chapter measured for a claim of the sources.

    The row appears in the book's page of reproductions, and the value can be quoted in the
    chapter's prose as ``{glue:text}`` followed by the id.

    Parameters
    ----------
    id : id of the claim, as listed in the page of reproductions.
    value : what was measured here: a number already rounded, or a short text.
    unit : unit of the value, if it has one.
    source : what the source reports, when a chapter can say it more exactly than the list of claims
        does.
    verdict : one of ``VERDICTS``, as the page of reproductions defines them. A claim without a
        number cannot be reproduced; it is "implemented".
    note : how the set-up differs from the source's, or why the result does.
    """
    if id not in claims():
        known = ", ".join(claims())
        raise ValueError(
            f"id: expected an id of the page of reproductions, got {id!r}. Known ids: {known}."
        )
    if verdict not in VERDICTS:
        raise ValueError(
            f"verdict: expected one of {', '.join(map(repr, VERDICTS))}, got "
            f"{verdict!r}. Choose one."
        )
    if verdict.startswith("reproduced") and not (source or claims()[id]["reported"]):
        raise ValueError(
            f"verdict: expected 'implemented' for {id}, whose source reports no result, got "
            f"{verdict!r}. Choose it, or pass source with what the source reports."
        )
    if not str(value).strip():
        raise ValueError("value: expected a number or a text, got nothing. Pass what was measured.")
    text = f"{value} {unit}".strip()
    row = {
        "id": id,
        "value": str(value),
        "unit": unit,
        "source": source,
        "verdict": verdict,
        "note": note,
    }
    display(
        {PREFIX + "text/plain": text},
        metadata={"scrapbook": {"name": id, "mime_prefix": PREFIX}, "shaplab": row},
        raw=True,
    )
