"""Models of the time to death and of a made outcome: their losses against the definitions, and that
no model sees the rows that judge it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.special import expit
from shaplab_book import mortality
from shaplab_book.dial import dial_table, excess, penalised_line, tuned_line, tuned_trees


def drawn(rng, rows=40):
    """Scores with ties, and signed times with ties, a third of them still alive."""
    scores = rng.normal(size=rows).round(1)
    years = rng.integers(1, 12, size=rows) * np.where(rng.random(rows) < 0.6, 1.0, -1.0)
    years[0] = abs(years[0])
    return scores, years


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_and_the_statistic_are_their_definitions(seed):
    scores, years = drawn(np.random.default_rng(seed))
    time = np.abs(years)
    deaths = np.flatnonzero(years > 0)
    losses = [np.log(np.exp(scores[time >= time[n]]).sum()) - scores[n] for n in deaths]
    found = mortality.cox_loss(torch.tensor(scores), torch.tensor(years))
    # Sums of forty numbers in float64.
    assert float(found) == pytest.approx(np.mean(losses), rel=0, abs=1e-12)
    pairs = [(n, m) for n in deaths for m in range(len(years)) if time[m] > time[n]]
    right = [float(scores[n] > scores[m]) + 0.5 * (scores[n] == scores[m]) for n, m in pairs]
    assert mortality.c_statistic(scores, years) == pytest.approx(np.mean(right), abs=1e-12)


def test_a_test_without_overlap_is_the_paired_test():
    gaps = np.random.default_rng(0).normal(0.3, 1, size=9)
    assert mortality.corrected_p(gaps, 0.0) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert mortality.corrected_p(gaps, 0.25) > mortality.corrected_p(gaps, 0.0)
    assert mortality.corrected_p([0.0, 0.0], 0.25) == 1.0
    assert mortality.corrected_p([0.1, 0.1], 0.25) == 0.0


def test_splits_are_parts_and_differ_between_seeds():
    first = list(mortality.overlapping_splits(100, 3, 0))
    again = list(mortality.overlapping_splits(100, 3, 0))
    other = list(mortality.overlapping_splits(100, 3, 1))
    for split, same in zip(first, again, strict=True):
        assert [len(part) for part in split] == [64, 16, 20]
        assert sorted(np.concatenate(split)) == list(range(100))
        assert all((a == b).all() for a, b in zip(split, same, strict=True))
    tests = [tuple(split.test) for split in first + other]
    assert len(set(tests)) == 6


@pytest.mark.parametrize("kind", ["linear", "network", "trees"])
def test_models_order_people_and_do_not_see_the_test_rows(kind):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(400, 3)), columns=["a", "b", "c"])
    years = rng.exponential(np.exp(-1.5 * table["a"].to_numpy()))
    years = np.where(rng.random(400) < 0.7, years, -years)
    (split,) = mortality.overlapping_splits(400, 1, 0)
    changed = years.copy()
    changed[split.test] = 1.0

    def fitted(years):
        if kind == "trees":
            return mortality.fit_trees(table, years, split, seed=0, depth=2, eta=0.1)
        rows = mortality.standardised(table, split.train)
        signed = torch.tensor(years, dtype=torch.float32)
        if kind == "linear":
            return mortality.fit_linear(rows, signed, split)
        return mortality.fit_network(rows, signed, split, 0)

    state = torch.random.get_rng_state()
    hazards = fitted(years)
    assert mortality.c_statistic(hazards[split.test], years[split.test]) > 0.75
    assert np.array_equal(hazards, fitted(changed))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_table_of_the_dial():
    rng = np.random.default_rng(0)
    people = pd.DataFrame(
        {
            "Age": rng.uniform(20, 80, 500),
            "weight": rng.normal(70, 9, 500),
            "height": rng.normal(170, 8, 500),
            "same": 1.0,
        }
    )
    people.loc[3, "Age"] = np.nan
    before = people.copy()
    table = dial_table(people)
    assert list(table.columns) == ["age", "BMI"]
    assert np.allclose(table.mean(), 0, atol=0.01)
    assert table.loc[3, "age"] == 0
    bmi = people["weight"] / (people["height"] / 100) ** 2
    assert np.corrcoef(bmi, table["BMI"])[0, 1] > 0.99
    assert table["BMI"].nunique() < bmi.nunique()
    pd.testing.assert_frame_equal(people, before)


def test_a_line_that_has_the_truth_gives_nothing_to_correlated_bystanders():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(2000, 8)) @ (np.eye(8) + 0.6 * rng.normal(size=(8, 8)))
    rows = np.column_stack([rows, rows[:, 0] ** 2])
    weights = penalised_line(rows, expit(rows[:, 0] + 0.5 * rows[:, 8] - 1), 1e-2).coef_[0]
    # A solver that stopped at 1e-3 left 0.045 on one of them.
    assert np.abs(weights[1:8]).max() < 1e-4
    assert np.allclose(weights[[0, 8]], [1, 0.5], atol=1e-3)


def test_a_line_fits_a_probability_and_the_best_setting_is_kept():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3))
    outcome = expit(rows @ [1.0, -0.5, 0.0])
    (split,) = mortality.overlapping_splits(500, 1, 0)
    faint = penalised_line(rows, outcome, 1e-3)
    # The penalty pulls a little.
    assert np.allclose(faint.coef_[0], [1, -0.5, 0], atol=1e-4)
    tuned = tuned_line(rows, outcome, split, (100.0, 1e-3, 10.0))
    assert np.isclose(tuned.C, 1000)
    assert excess(outcome, outcome) == pytest.approx(0, abs=1e-12)
    chance = tuned.predict_proba(rows)[:, 1]
    assert excess(outcome, chance).mean() < 1e-3
    search = {"bags": (0.5,), "settings": {"eta": 0.1}, "most": 60}
    judged = rows[split.valid]
    losses = {}
    for depths in ((1,), (3,), (1, 3)):
        trees = tuned_trees(rows, outcome, split, depths=depths, **search)
        losses[depths] = excess(outcome[split.valid], trees.inplace_predict(judged)).mean()
    assert losses[1, 3] == min(losses.values())
