"""The user study: the models say what the study says, and the grades are those of the source's
figure."""

from __future__ import annotations

import numpy as np
import pytest
from shaplab_book.scenarios import score_scenarios, sickness_literal, user_study

from shaplab.foundations.exact import shapley_values
from shaplab.foundations.kernel import kernel_shap
from shaplab.foundations.permutation import ime, permutation_shap
from shaplab.foundations.predictions import exact_shap
from shaplab.trees.conditional_expectation import path_dependent_game, saabas
from shaplab.trees.interventional import interventional_tree_shap
from shaplab.trees.path_dependent import tree_shap

# One symptom in a thousand million people moves an expectation of at most 10 by at most 2e-8 a
# feature.
HEALTHY = 1e-7
SHAPLEY = {
    "tree_shap": lambda m, X, b: tree_shap(m, X),
    "interventional": lambda m, X, b: interventional_tree_shap(m, X, b),
    "exact": lambda m, X, b: exact_shap(m, X, b),
    "kernel": lambda m, X, b: kernel_shap(m, X, b, rng=0),
    "permutation": lambda m, X, b: permutation_shap(m, X, b, rng=0),
}


@pytest.mark.parametrize("first", ["fever", "cough"])
def test_models_are_the_study_s(first):
    names = [scene.name for scene in user_study(first=first)]
    assert names == [f"{m} {p}" for m in ("AND", "OR", "XOR", "SUM") for p in ("F/F", "F/T", "T/T")]
    for scene in user_study(first=first):
        joint = scene.name.split()[0]
        for fever in (False, True):
            for cough in (False, True):
                for headache in (False, True):
                    said = scene.model([[fever, cough, headache]])[0]
                    assert said == sickness_literal(joint, fever, cough)
        assert scene.X[0, 2] == 1
        assert scene.model(scene.background)[0] == sickness_literal(joint, False, False)


def test_people_share_out_the_whole_score():
    for scene in user_study():
        assert scene.consensus.sum() == scene.model(scene.X)[0]


@pytest.mark.parametrize("first", ["fever", "cough"])
@pytest.mark.parametrize("name", SHAPLEY)
def test_shapley_methods_agree_with_people(name, first):
    assert (
        score_scenarios(SHAPLEY[name], scenarios=user_study(first=first))["score"].max() < HEALTHY
    )


def test_literal_values_agree_with_people():
    for scene in user_study():
        phi = shapley_values(path_dependent_game(scene.model, scene.X), 3)[:, 0]
        assert np.abs(phi - scene.consensus).max() < HEALTHY


def test_sampling_agrees_within_its_error():
    # 12,000 pairs: the spread of one difference is at most 6, so five standard errors stay below
    # 0.5.
    assert score_scenarios(lambda m, X, b: ime(m, X, b, samples=12_000, rng=0))["score"].max() < 0.5


def test_saabas_fails_where_the_source_says():
    scores = score_scenarios(lambda m, X, b: saabas(m, X))["score"]
    # By hand, fever first: AND 2/8, OR 8/2, XOR 8/-4 against 5/5, 5/5 and 2/2.
    wrong = {"AND T/T": 6.0, "OR T/T": 6.0, "XOR T/T": 12.0}
    for name, score in scores.items():
        assert abs(score - wrong.get(name, 0.0)) < HEALTHY


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"first: expected one of 'fever', 'cough', got 'headache'"
    ):
        user_study(first="headache")
    with pytest.raises(ValueError, match=r"symptom_rate: expected a number in \(0, 1\]"):
        user_study(symptom_rate=0.0)
    with pytest.raises(ValueError, match=r"explain: expected shape \(1, 3\) of finite numbers"):
        score_scenarios(lambda m, X, b: np.zeros(3))
    with pytest.raises(TypeError, match="explain"):
        score_scenarios("saabas")
    for scenes in ([], [1], 3):
        with pytest.raises(TypeError, match="scenarios: expected a list of Scenario, got"):
            score_scenarios(lambda m, X, b: X, scenarios=scenes)
