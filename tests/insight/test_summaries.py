"""Summaries: against hand-computed tables, literal twins, planted groups and planted rare
effects."""

from __future__ import annotations

import numpy as np
import pytest

from shaplab.explanation import Explanation
from shaplab.insight.summaries import (
    cluster_rows,
    embed_rows,
    feature_ranking,
    rare_effects,
    standardized,
    variance_explained,
)


def complete_linkage_literal(table: np.ndarray) -> list[float]:
    """Heights of the merges: join the two groups whose furthest members are closest, until one is
    left."""
    groups, heights = [[n] for n in range(len(table))], []
    while len(groups) > 1:
        best = (np.inf, 0, 0)
        for a in range(len(groups)):
            for b in range(a):
                far = max(
                    float(np.sqrt(((table[n] - table[m]) ** 2).sum()))
                    for n in groups[a]
                    for m in groups[b]
                )
                best = min(best, (far, a, b))
        far, a, b = best
        heights.append(far)
        groups[b] += groups.pop(a)
    return heights


def principal_components_literal(
    table: np.ndarray, n_components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of the covariance matrix with the largest eigenvalues, and their shares of the
    variance."""
    centered = table - table.mean(axis=0)
    size, vectors = np.linalg.eigh(centered.T @ centered / len(table))
    return vectors[:, ::-1][:, :n_components].T, size[::-1][:n_components] / size.sum()


def explanation(values, **options):
    return Explanation(np.asarray(values, dtype=float), 0.0, **options)


def test_ranking_by_hand():
    e = explanation([[1, -4, 0], [-3, 0, 0], [2, 4, 0], [2, 0, 0]], feature_names=["a", "b", "c"])
    found = feature_ranking(e)
    assert list(found.index) == ["a", "b", "c"]  # a and b tie at 2: the order of columns decides
    assert found["mean |value|"].tolist() == [2, 2, 0]
    assert found.loc["b", ["min", "median", "max"]].tolist() == [-4, 0, 4]
    assert found["largest for"].tolist() == [0.5, 0.5, 0]
    # |b| = 4, 0, 4, 0: variance 16/3, divided by four rows.
    assert found.loc["b", "standard error"] == pytest.approx(np.sqrt(4 / 3), rel=1e-12)


def test_ranking_of_one_row_has_no_standard_error():
    assert feature_ranking(explanation([[1, 2]]))["standard error"].isna().all()


def test_ranking_asks_which_output():
    e = Explanation(np.ones((3, 2, 2)), np.zeros((3, 2)), output_names=["no", "yes"])
    with pytest.raises(ValueError, match="output: expected one of no, yes"):
        feature_ranking(e)
    assert len(feature_ranking(e, output="yes")) == 2


@pytest.mark.parametrize("side", [1, -1])
def test_rare_effects_finds_what_was_planted(side):
    values = np.random.default_rng(0).normal(size=(500, 6))
    values[:, 2] = 0.01 * values[:, 2]
    values[[7, 11, 400], 2] = side * np.array([0.5, 0.9, 0.7])
    found = rare_effects(explanation(values), times=6.0)
    assert list(found.index) == ["x2"]
    one = found.iloc[0]
    assert (one["rows"], one["right"], one["row"], one["rank"]) == (3, 3 if side > 0 else 0, 11, 6)
    assert one["reach right" if side > 0 else "reach left"] == pytest.approx(0.9, abs=0.01)


def test_an_effect_of_many_rows_is_not_rare():
    values = np.zeros((100, 1))
    values[:10] = 1.0
    assert len(rare_effects(explanation(values), share=0.09)) == 0
    assert rare_effects(explanation(values), share=0.10)["rows"].tolist() == [10]
    assert len(rare_effects(explanation(np.zeros((9, 2))))) == 0


@pytest.mark.parametrize("seed", range(5))
def test_complete_linkage_is_the_literal_one(seed):
    table = np.random.default_rng(seed).normal(size=(14, 3))
    found = cluster_rows(table, n_clusters=4)
    # The same distances, added in another order.
    assert np.allclose(found.links[:, 2], complete_linkage_literal(table), rtol=1e-12, atol=0)
    assert sorted(found.order) == list(range(14))
    assert len(np.unique(found.labels)) == 4
    assert (np.diff(found.labels[found.order]) >= 0).all()
    assert found.labels[found.order][0] == 0


def test_planted_groups_are_found_and_scale_decides_for_data():
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1, 2], 20)
    values = np.array([[0, 0], [5, 0], [0, 5]])[truth] + 0.1 * rng.normal(size=(60, 2))
    found = cluster_rows(explanation(values), n_clusters=3)
    assert variance_explained(found.labels, truth) == 1.0
    assert variance_explained(truth, found.labels) == 1.0
    noise = np.column_stack([values, 1000 * rng.normal(size=60)])
    assert variance_explained(cluster_rows(noise, n_clusters=3).labels, truth) < 0.5


@pytest.mark.parametrize("shape", [(30, 4), (5, 9)])
def test_embedding_is_the_literal_one(shape):
    table = np.random.default_rng(1).normal(size=shape) * np.arange(1, shape[1] + 1)
    found = embed_rows(table, n_components=3)
    components, explained = principal_components_literal(table, 3)
    # An eigenvector has no sign; both decompositions are backward stable.
    assert np.allclose(np.abs((found.components * components).sum(axis=1)), 1, rtol=0, atol=1e-9)
    assert np.allclose(found.explained, explained, rtol=1e-9, atol=0)
    assert np.allclose(
        found.points, (table - found.center) @ found.components.T, rtol=0, atol=1e-10
    )
    assert (found.components[np.arange(3), np.abs(found.components).argmax(axis=1)] > 0).all()
    whole = embed_rows(table, n_components=min(shape))
    assert np.allclose(whole.points @ whole.components + whole.center, table, rtol=0, atol=1e-10)
    assert whole.explained.sum() == pytest.approx(1, abs=1e-12)


def test_equal_rows_embed_at_zero():
    assert not embed_rows(np.ones((4, 2)), n_components=1).points.any()


def test_standardized():
    X = np.array([[1.0, 0.1, np.nan, np.nan], [3.0, 0.1, 2.0, np.nan], [5.0, 0.1, 4.0, np.nan]])
    before = X.copy()
    Z = standardized(X)
    assert np.allclose(Z[:, 0], np.array([-1, 0, 1]) * np.sqrt(1.5), rtol=1e-12, atol=1e-15)
    assert Z[:, 1].tolist() == [0, 0, 0]
    assert Z[:, 3].tolist() == [0, 0, 0]
    assert Z[:, 2].tolist() == [0, -1, 1]
    assert np.array_equal(X, before, equal_nan=True)


def test_variance_explained_by_hand():
    assert variance_explained([0, 0, 1, 1], [1.0, 3.0, 5.0, 7.0]) == pytest.approx(0.8, abs=1e-15)
    assert (
        variance_explained(["a", "b", "a", "b"], np.array([[1.0, 0], [1, 0], [2, 0], [2, 0]])) == 0
    )
    assert variance_explained(np.array([None, 1], dtype=object), [1.0, 2.0]) == 1.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: cluster_rows([[1.0]]), "table: expected at least two rows"),
        (lambda: cluster_rows([[1.0], [2.0]], n_clusters=3), "n_clusters: expected an integer"),
        (lambda: cluster_rows([[1.0], [np.nan]]), "table: expected"),
        (
            lambda: cluster_rows([[1.0], [2.0]], n_clusters=1, linkage="best"),
            "linkage: expected one of",
        ),
        (lambda: embed_rows([[1.0], [2.0]], n_components=2), "n_components: expected"),
        (lambda: standardized([[np.inf]]), "X: expected finite"),
        (lambda: variance_explained([0, 1], [1.0, 1.0]), "values: expected values that differ"),
        (lambda: variance_explained([0], [1.0, 2.0]), "values: expected one row for each label"),
        (lambda: feature_ranking(explanation([[np.nan]])), "explanation: expected finite"),
        (lambda: rare_effects(explanation([[1.0]]), share=2), "share: expected"),
        (lambda: rare_effects(np.ones((2, 2))), "explanation: expected an Explanation"),
        (lambda: feature_ranking(None), "explanation: expected an Explanation, got None"),
        (lambda: variance_explained([0, 1], ["a", "b"]), "values: expected a numeric table"),
        (lambda: variance_explained([], []), "values: expected at least one row"),
        (lambda: variance_explained([0, 1], [np.nan, 1.0]), "values: expected finite numbers"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises((ValueError, TypeError), match=text.replace("(", r"\(")):
        call()
