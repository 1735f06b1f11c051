"""The same mistakes made with every public function: each is answered in the one form, and names
the argument."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor

import shaplab
from shaplab import Explanation

FORM = re.compile(r"^(\w+|\w+ \w+): expected .+, got .+\. .+\.$", re.DOTALL)
HOSTILE = '<script>alert("x")</script>\'' + "n" * 500
X = np.random.default_rng(0).normal(size=(6, 3))
B = np.random.default_rng(1).normal(size=(5, 3))
Y = (X[:, 0] > 0) * 1.0
FRAME, BACK = pd.DataFrame(X, columns=list("abc")), pd.DataFrame(B, columns=list("abc"))
TREE, NAMED = (
    DecisionTreeRegressor(max_depth=3, random_state=0).fit(table, Y) for table in (X, FRAME)
)
NET = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
T, TB = (torch.tensor(table, dtype=torch.float32) for table in (X, B))


def first(rows: object) -> np.ndarray:
    return np.asarray(rows)[:, 0] * 1.0


def refuses(call, argument: str, *parts: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert FORM.match(message), message
    assert len(message) < 700
    assert re.match(rf"({argument}): ", message), message
    for part in parts:
        assert part in message


# Any model, rows and a background; with y where the loss is explained.

PLAIN = ["exact_shap", "permutation_shap", "kernel_shap", "ime"]
LOSSES = [
    "loss_shap",
    "sage",
    "leave_one_out_importance",
    "mean_importance",
    "univariate_importance",
]


@pytest.mark.parametrize("name", [*PLAIN, *LOSSES])
def test_models_rows_and_backgrounds(name: str) -> None:
    function, y = getattr(shaplab, name), (Y,) if name in LOSSES else ()

    def explain(model=first, X=X, B=B, **options):
        return lambda: function(model, X, *y, B, **options)

    refuses(explain(None), "model", "a callable")
    refuses(explain(TREE), "model", "model.predict")
    refuses(explain(lambda rows: first(rows)[:-1]), "model", "one output row for each input row")
    refuses(explain(lambda rows: first(rows) * np.nan), "model", "finite outputs")
    refuses(explain(lambda rows: ["yes"] * len(rows)), "model", "not labels")
    refuses(explain(X=X[0]), "X", "X.reshape(1, -1)")
    refuses(explain(X=None), "X", "None")
    refuses(explain(X=X.astype(str)), "X", "Encode text")
    refuses(explain(B=B[:0]), "background", "at least one row")
    refuses(explain(B=B[:, :2]), "background", "3 columns")
    refuses(
        explain(X=FRAME, B=BACK[["b", "a", "c"]]),
        "background",
        "same order",
        "background[list(X.columns)]",
    )
    refuses(
        explain(X=FRAME, B=BACK.rename(columns={"a": HOSTILE})),
        "background",
        "missing a",
        "unknown <script>",
    )
    refuses(explain(X=FRAME), "background", "a DataFrame exactly when X is one")
    refuses(explain(X=FRAME.set_axis(["a", HOSTILE, HOSTILE], axis=1)), "X|background")
    refuses(explain(batch_size=0), "batch_size")


@pytest.mark.parametrize("name", [*PLAIN, "loss_shap", "sage"])
def test_groups_and_workers(name: str) -> None:
    function, y = getattr(shaplab, name), (Y,) if name in LOSSES else ()
    refuses(lambda: function(first, X, *y, B, groups=[0, 1, 2]), "groups", "a list of groups")
    refuses(lambda: function(first, X, *y, B, groups=[[0], [1]]), "groups", "named 0 times")
    refuses(
        lambda: function(first, FRAME, *y, BACK, groups=[[HOSTILE], ["a"]]),
        "groups",
        "player '<script>",
    )
    if name != "exact_shap":
        for n_jobs in ("two", 0, 1.5):
            refuses(lambda n_jobs=n_jobs: function(first, X, *y, B, n_jobs=n_jobs), "n_jobs")


@pytest.mark.parametrize("name", LOSSES)
def test_targets_and_losses(name: str) -> None:
    function = getattr(shaplab, name)
    refuses(lambda: function(first, X, list("abcdef"), B), "y", "number classes from 0")
    refuses(lambda: function(first, X, Y[:3], B), "y", "shape (6,)")
    refuses(lambda: function(first, X, Y * np.nan, B), "y", "finite")
    refuses(lambda: function(first, X, Y, B, loss=HOSTILE), "loss", "one of 'squared_error'")
    refuses(
        lambda: function(lambda rows: np.asarray(rows)[:, :2], X, Y, B, loss="logistic"),
        "loss",
        "2 outputs",
    )
    refuses(lambda: function(first, X, Y, B, loss="softmax_cross_entropy"), "loss", "one output")


# Trees.


@pytest.mark.parametrize(
    "name",
    [
        "tree_shap",
        "tree_shap_interactions",
        "saabas",
        "path_dependent_game",
        "interventional_tree_shap",
        "interventional_tree_shap_interactions",
    ],
)
def test_trees(name: str) -> None:
    function, back = getattr(shaplab, name), (B,) if name.startswith("inter") else ()
    named = (BACK,) if back else ()
    for model in (None, first, "model.json"):
        refuses(lambda model=model: function(model, X, *back), "model")
    refuses(lambda: function(TREE, X[0], *back), "X", "X.reshape(1, -1)")
    refuses(lambda: function(TREE, X[:, :2], *back), "X|background", "columns")
    refuses(lambda: function(TREE, X[:0], *back), "X", "at least one row")
    refuses(lambda: function(TREE, None, *back), "X")
    refuses(lambda: function(TREE, X.astype(str), *back), "X", "Encode text")
    refuses(lambda: function(NAMED, FRAME[["b", "a", "c"]], *named), "X|background", "order")
    refuses(
        lambda: function(NAMED, FRAME.rename(columns={"a": HOSTILE}), *named),
        "X|background",
        "<script>",
    )
    if back:
        refuses(lambda: function(TREE, X, B[:0]), "background", "at least one row")
        refuses(lambda: function(TREE, X, B[:, :2]), "background", "columns")
        refuses(lambda: function(NAMED, FRAME, BACK[["b", "a", "c"]]), "background", "order")


def test_tree_losses() -> None:
    refuses(
        lambda: shaplab.tree_loss_shap(TREE, X, list("abcdef"), B, loss="mse"),
        "y",
        "number classes from 0",
    )
    refuses(lambda: shaplab.tree_loss_shap(TREE, X, Y, B, loss=HOSTILE), "loss")
    refuses(
        lambda: shaplab.tree_loss_shap(TREE, X, Y, B, loss="softmax_cross_entropy"),
        "loss",
        "one output",
    )
    refuses(lambda: shaplab.tree_loss_shap(TREE, X, Y, B, loss="mse", game=HOSTILE), "game")
    refuses(lambda: shaplab.tree_output_shap(TREE, X, B, transform=HOSTILE), "transform")
    for name in ("gain_importance", "split_count"):
        refuses(lambda name=name: getattr(shaplab, name)(None), "model")


# Networks.


@pytest.mark.parametrize(
    "name",
    ["deep_shap", "input_x_gradient", "integrated_gradients", "occlusion", "deeplift", "dasp"],
)
def test_networks(name: str) -> None:
    function, called = (
        getattr(shaplab, name),
        "baseline" if name in ("deeplift", "dasp") else "background",
    )
    b, frame = (TB[0], BACK.iloc[:1]) if name == "deeplift" else (TB, BACK)
    refuses(lambda: function(None, T, b), "model")
    refuses(lambda: function(NET, "x", b), "X")
    refuses(lambda: function(NET, T * np.nan, b), "X", "finite")
    refuses(lambda: function(NET, T, b[..., :2]), called, "shape")
    refuses(lambda: function(NET, FRAME, frame[["b", "a", "c"]]), called, "same order")
    refuses(
        lambda: function(NET, FRAME, frame.rename(columns={"a": HOSTILE})),
        called,
        "missing a",
        "<script>",
    )
    if name not in ("deeplift", "dasp"):
        refuses(lambda: function(NET, T, TB[:0]), "background")
    assert function(NET, FRAME, frame).names == ("a", "b", "c")


def test_stacks() -> None:
    for stages in (None, [], ["x"]):
        refuses(lambda stages=stages: shaplab.stack_shap(stages, T, TB), "stages|model")
    refuses(
        lambda: shaplab.stack_shap([NET], FRAME, BACK[["b", "a", "c"]]), "background", "same order"
    )
    refuses(lambda: shaplab.stack_shap([NET], T, TB[:, :2]), "background")


def test_networks_that_explain_themselves() -> None:
    refuses(lambda: shaplab.ShallowShapNet("x", 1), "n_features")
    refuses(lambda: shaplab.ShallowShapNet(3, 1, active_sets=[(0, 9)]), "active_sets")
    refuses(lambda: shaplab.DeepShapNet(3, 0), "n_outputs")
    refuses(lambda: shaplab.prune(NET, fraction=0.5), "net", "a DeepShapNet or ImageShapNet")
    refuses(
        lambda: shaplab.strip_modules(None, T, stage=0, keep=1),
        "net",
        "a ShallowShapNet or DeepShapNet",
    )
    refuses(lambda: shaplab.butterfly(-1), "n_features")
    refuses(lambda: shaplab.explanation_penalty(l1="x"), "l1")


# What is done with explanations.


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: shaplab.confidence_interval(None), "explanation"),
        (lambda: shaplab.confidence_interval(Explanation(X, 0.0)), "explanation"),
        (lambda: shaplab.cluster_rows(None), "table"),
        (lambda: shaplab.cluster_rows(X, n_clusters=99), "n_clusters"),
        (lambda: shaplab.embed_rows("x"), "table"),
        (lambda: shaplab.feature_ranking(None), "explanation"),
        (lambda: shaplab.rare_effects(None), "explanation"),
        (lambda: shaplab.Monitor(None, [1]), "\\w+"),
        (lambda: shaplab.Monitor(Explanation(X, 0.0), [3, 2, 1, 0, 5, 6]), "time"),
        (lambda: shaplab.plot_monitor(None, 0), "watched"),
        (lambda: shaplab.explanation_metrics(3, first, X, Y, None), "hider"),
        (lambda: shaplab.grade_methods({}, {}, X, Y, n_test=2), "methods"),
        (lambda: shaplab.plot_tiles(None, "x"), "grades"),
        (lambda: shaplab.permutation_test(first, X, Y, n_repeats=1), "n_repeats"),
    ],
)
def test_explanations_and_summaries(call, argument: str) -> None:
    refuses(call, argument)
