import json
import re

import numpy as np
import pytest
from shaplab_book.explorer import CoalitionExplorer

from shaplab.foundations.games import TableGame, company_game


def _payload(page: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json">(.*?)</script>', page, re.S).group(1)
    )


def test_page_carries_the_whole_game():
    explorer = CoalitionExplorer(company_game(), unit="$", digits=0)
    data = _payload(explorer._repr_html_())
    assert data["values"] == pytest.approx(company_game().table.tolist())
    assert sum(data["shapley"]) == pytest.approx(1_000_000)
    assert data["names"] == ["CEO", "Ann", "Bob", "Cleo", "Dan"]
    assert "$268,750" in explorer._repr_html_()


def test_same_game_same_html_and_other_title_other_id():
    first, second = (CoalitionExplorer(company_game())._repr_html_() for _ in range(2))
    assert first == second
    ids = {
        re.search(
            r'id="(shaplab-\w+)"', CoalitionExplorer(company_game(), title=t)._repr_html_()
        ).group(1)
        for t in ("one", "two")
    }
    assert len(ids) == 2


def test_nothing_is_fetched():
    page = CoalitionExplorer(company_game())._repr_html_()
    assert not re.search(r"https?://|src=|@import|url\(", page)


def test_hostile_names_are_text():
    name = '</script><script>alert("x")</script>' + "&'\"" + "long" * 120
    page = CoalitionExplorer(TableGame([0.0, 1.0]), names=[name], title=name)._repr_html_()
    assert page.count("<script") == 2
    assert 'alert("x")' not in page.replace('alert(\\"x\\")', "")
    assert "long" * 30 not in page
    assert _payload(page)["names"][0].startswith("</script>")
    page = CoalitionExplorer(TableGame([0.0, 1.0]), unit="<script>" + "long" * 120)._repr_html_()
    assert page.count("<script") == 2
    assert "long" * 10 not in page


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CoalitionExplorer(lambda S: S[:, 0]), "names: expected the players' names"),
        (
            lambda: CoalitionExplorer(lambda S: S[:, 0], names=list("abcdefghijk")),
            "expected at most 10",
        ),
        (lambda: CoalitionExplorer(TableGame(np.zeros((2, 3)))), "game: expected a scalar payoff"),
        (
            lambda: CoalitionExplorer(company_game(), names=5),
            "names: expected the players' names, got 5",
        ),
        (
            lambda: CoalitionExplorer(company_game(), names=["a", "b"]),
            "n_players: expected 5, the players of",
        ),
        (lambda: CoalitionExplorer(TableGame([0.0, np.nan])), "game: expected finite values"),
        (lambda: CoalitionExplorer(company_game(), digits="2"), "digits: expected an integer"),
        (lambda: CoalitionExplorer(company_game(), digits=-1), "digits: expected an integer >= 0"),
        (lambda: CoalitionExplorer(company_game(), seed="<script>"), "seed: expected an integer"),
    ],
)
def test_bad_input_is_named(make, text):
    with pytest.raises((ValueError, TypeError), match=text):
        make()
