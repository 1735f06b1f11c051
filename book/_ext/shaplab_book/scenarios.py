"""The user study: twelve tiny predictions that people can explain themselves.

Four models of a *sickness score* ask for fever and cough and never for headache:

    score = 2 fever + 2 cough + 6 [joint condition],    joint = AND, OR, XOR or none (SUM).

Three persons each, with fever/cough no/no, no/yes, yes/yes; all have a headache. The consensus is
the most frequent answer of 33 people. A method's grade is the sum of absolute differences from it,
so 0 is perfect agreement.
Source: Lundberg et al. 2020, Methods 12, Supplementary Figures 6 and 34-40.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shaplab._validation import as_finite, check_callable, check_choice, check_real, fail
from shaplab.trees.ensemble import TreeEnsemble

__all__ = ["Scenario", "score_scenarios", "user_study"]

FEATURES = ("fever", "cough", "headache")
_JOINT: dict[str, Callable[[bool, bool], bool]] = {
    "AND": lambda fever, cough: fever and cough,
    "OR": lambda fever, cough: fever or cough,
    "XOR": lambda fever, cough: fever != cough,
    "SUM": lambda fever, cough: False,
}
# What people said for no/no, no/yes and yes/yes: fever, cough, headache.
_CONSENSUS = {
    "AND": ((0, 0, 0), (0, 2, 0), (5, 5, 0)),
    "OR": ((0, 0, 0), (0, 8, 0), (5, 5, 0)),
    "XOR": ((0, 0, 0), (0, 8, 0), (2, 2, 0)),
    "SUM": ((0, 0, 0), (0, 2, 0), (2, 2, 0)),
}


@dataclass(frozen=True, eq=False)
class Scenario:
    """One model, one person, and what people say about them.

    Attributes
    ----------
    name : "AND F/F", ..., "SUM T/T": the model, then fever and cough.
    model : ``TreeEnsemble`` of one tree of depth two, callable on rows ``(n, 3)``.
    X : float array ``(1, 3)``, the person: fever, cough, headache.
    background : float array ``(1, 3)``, a healthy person.
    consensus : float array ``(3,)``, the credit that people give.
    """

    name: str
    model: TreeEnsemble
    X: np.ndarray
    background: np.ndarray
    consensus: np.ndarray


def sickness_literal(name: str, fever: bool, cough: bool) -> float:
    """The sickness score as the study words it."""
    return 2.0 * fever + 2.0 * cough + 6.0 * _JOINT[name](fever, cough)


def user_study(*, first: str = "fever", symptom_rate: float = 1e-9) -> list[Scenario]:
    """The twelve scenarios, in the source's order.

    Parameters
    ----------
    first : "fever" or "cough", the question at the root of the trees. No Shapley value depends on
        it.
    symptom_rate : share of the population with each symptom, independent of the other; it sets the
        covers. The study uses a healthy population, so it is close to 0, but every branch must have
        been seen by somebody.

    Returns
    -------
    list of 12 :class:`Scenario`.

    Examples
    --------
    >>> scene = user_study()[2]
    >>> scene.name, scene.model(scene.X).tolist(), scene.consensus.tolist()
    ('AND T/T', [10.0], [5.0, 5.0, 0.0])
    """
    root = FEATURES.index(check_choice(first, "first", FEATURES[:2]))
    p = check_real(symptom_rate, "symptom_rate", low=0.0, high=1.0, open_low=True)
    cover = [1.0, 1 - p, p, (1 - p) ** 2, (1 - p) * p, p * (1 - p), p * p]
    found = []
    for name, answers in _CONSENSUS.items():
        leaves = [
            sickness_literal(name, *(pair if root == 0 else pair[::-1]))
            for pair in ((False, False), (False, True), (True, False), (True, True))
        ]
        tree = TreeEnsemble.from_arrays(
            feature=[root, 1 - root, 1 - root, -1, -1, -1, -1],
            threshold=[0.5] * 7,
            left=[1, 3, 5, -1, -1, -1, -1],
            right=[2, 4, 6, -1, -1, -1, -1],
            value=[0, 0, 0, *leaves],
            cover=cover,
            feature_names=FEATURES,
        )
        for (fever, cough), answer in zip(((0, 0), (0, 1), (1, 1)), answers, strict=True):
            found.append(
                Scenario(
                    f"{name} {'FT'[fever]}/{'FT'[cough]}",
                    tree,
                    np.array([[fever, cough, 1.0]]),
                    np.zeros((1, 3)),
                    np.array(answer, dtype=float),
                )
            )
    return found


def score_scenarios(
    explain: Callable[..., Any], *, scenarios: Sequence[Scenario] | None = None
) -> Any:
    """Grade a method against people.

    Parameters
    ----------
    explain : callable ``(model, X, background)`` that returns an ``Explanation`` or values ``(1,
        3)``, in units of the sickness score.
    scenarios : by default ``user_study()``.

    Returns
    -------
    DataFrame, one row a scenario: the method's credit for fever, cough and headache, the people's
    (``people: ...``), and ``score``, the sum of absolute differences (0 is best).

    Examples
    --------
    >>> score_scenarios(lambda model, X, background: X * 2.0).loc["SUM T/T", "score"]
    np.float64(2.0)
    """
    import pandas as pd

    check_callable(explain, "explain")
    rows, scenes = {}, user_study() if scenarios is None else scenarios
    if (
        not isinstance(scenes, Sequence)
        or not scenes
        or not all(isinstance(scene, Scenario) for scene in scenes)
    ):
        fail("scenarios", "a list of Scenario", scenes, "Pass some of user_study()", TypeError)
    for scene in scenes:
        found = explain(scene.model, scene.X, scene.background)
        values = as_finite(
            getattr(found, "values", found), "explain", (1, 3), "Return one number for each symptom"
        )
        rows[scene.name] = [*values[0], *scene.consensus, np.abs(values[0] - scene.consensus).sum()]
    people = [f"people: {name}" for name in FEATURES]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*FEATURES, *people, "score"])
