"""The store of paid coalitions, and the result that it leads to."""

import numpy as np
import pytest
from scipy.stats import t as student

from shaplab import EstimatedValues, estimate_values, sampled_values
from shaplab.foundations._sampling import Budget
from shaplab.foundations.answers import Answers, widened
from shaplab.foundations.games import all_coalitions


def worth(S):
    return S @ np.arange(5.0)


def test_a_coalition_is_asked_for_once_whatever_a_call_holds():
    calls = []

    def game(S):
        calls.append(S.copy())
        return worth(S)

    answers = Answers(game, 5, Budget(), 4)
    S = all_coalitions(5)[[3, 7, 3, 9, 7, 1, 2, 3]]
    answers.ask(S)
    answers.ask(S[:2])
    assert [len(call) for call in calls] == [4, 1]
    assert answers.asked == 5
    assert np.array_equal(answers.values(S)[:, 0], worth(S))
    assert answers.count_known(all_coalitions(5)[[3, 9, 4, 1]]) == 2
    assert answers.count_sizes().tolist() == [0, 2, 2, 1, 0, 0]


def test_batches_before_an_exception_are_kept_in_the_file(tmp_path):
    def fails(S):
        if S[:, 4].any():
            raise RuntimeError("no more")
        return worth(S)

    state = tmp_path / "answers.npz"
    answers = Answers(fails, 5, Budget(state=state), 4)
    with pytest.raises(RuntimeError):
        answers.ask(all_coalitions(5))
    resumed = Answers(worth, 5, Budget(state=state), 4)
    assert resumed.resumed and len(resumed.known) == 16
    assert resumed.entropy == answers.entropy


@pytest.mark.parametrize("freedom", [1.0, 4.0, 30.0])
def test_widened_errors_make_intervals(freedom):
    std = np.array([2.0, 0.0])
    of_values = np.full(2, freedom)
    wide = widened(std, of_values)
    assert wide[0] * 1.96 == pytest.approx(2.0 * student.ppf(0.975, freedom))
    found = EstimatedValues(np.ones(2), wide, np.float64(2), 9, np.ones(3), of_values, "budget")
    for level in (0.5, 0.95, 0.99):
        low, high = found.interval(level)
        assert high[0] - 1.0 == pytest.approx(2.0 * student.ppf(0.5 + level / 2, freedom))
        assert low[1] == high[1] == 1.0
    # A level of one is everything, but for what is certain.
    assert found.interval(1.0)[1].tolist() == [np.inf, 1.0]


def test_one_result_for_regressions_and_orderings():
    game = lambda S: worth(S[:, :5]) + S[:, 6] * S[:, 7] * S[:, 8]  # noqa: E731
    kinds = (
        estimate_values(game, 26, max_evaluations=400, rng=0),
        sampled_values(game, 26, max_evaluations=1500, rng=0),
    )
    for found in kinds:
        assert isinstance(found, EstimatedValues)
        assert found.values.sum() == pytest.approx(float(found.total))
        assert list(found.to_frame().columns) == ["value", "std"]
        low, high = found.interval()
        assert np.allclose(high - low, 2 * 1.96 * found.std)
