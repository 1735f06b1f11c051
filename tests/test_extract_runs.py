"""Take it home: every public function runs, and gives what it should, in one file where shaplab
cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import shaplab
from shaplab.extract import extract, write

NAMES = [name for name in shaplab.__all__ if name != "__version__"]

# What the calls below share. Kernels run uncompiled here: compiled, they are tested in
# test_extract.py.
SETTING = """
import numpy as np, pandas as pd, torch
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeRegressor
rng = np.random.default_rng(0)
X = rng.normal(size=(8, 3))
y = X[:, 0] * X[:, 1] + X[:, 2]
tree = DecisionTreeRegressor(max_depth=3, random_state=0).fit(X, y)
net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).double()
T = torch.tensor(X)
linear = lambda t: np.asarray(t)[:, 0] - 2.0 * np.asarray(t)[:, 1]
both = lambda S: S[:, :2].all(axis=1) * 1.0
everything = np.ones((1, 3), bool)
image = torch.rand(1, 1, 6, 6)
graded = pd.DataFrame({"model": "f", "method": ["b", "a"], "metric": "consistency", "score": [0.0, 1.0]})
import pathlib, tempfile
out_folder = pathlib.Path(tempfile.mkdtemp()) / "out"
in_file = out_folder.parent / "rows.parquet"
pd.DataFrame({"a": [1.0, 2.0]}).to_parquet(in_file)
stream = rng.normal(size=(80, 2))
class Played:
    n_players = 3
    def __call__(self, S):
        return np.where(S[:, :1], X[:, 0], 0.0)
    def outputs(self, S):
        return self(S)[:, :, None]
import tokenizers, transformers
cutter = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[MASK]": 0, "not": 1, "good": 2}, unk_token="[MASK]"))
cutter.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
cutter = transformers.PreTrainedTokenizerFast(tokenizer_object=cutter, mask_token="[MASK]")
def near(a, b):
    return np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).max() < 1e-6
def sums(e, outputs):
    return near(e.prediction, np.reshape(outputs, e.prediction.shape))
"""

# One call for each public name, true when the file does at home what it does here.
CALLS = {
    "UnsupportedModelError": "issubclass(m.UnsupportedModelError, ValueError)",
    "Explanation": "float(m.Explanation([[1.0, 2.0]], 0.5).prediction[0]) == 3.5",
    "concat": "m.concat([m.Explanation([[1.0]], 0.0), m.Explanation([[2.0]], 0.0)]).values.tolist() == "
    "[[1.0], [2.0]]",
    "explain_parquet": "[p.name for p in m.explain_parquet(lambda t: m.Explanation(np.stack([t['a']]).T, 0.0), "
    "in_file, out_folder)] == [in_file.name]",
    "TableGame": "m.TableGame([0.0, 2.0])(np.array([[True]])).tolist() == [2.0]",
    "GroupedGame": "m.GroupedGame(both, [[0, 1], [2]])(np.array([[True, "
    "False]])).tolist() == [1.0]",
    "MeanGame": "m.MeanGame(lambda S: S * 1.0)(everything).tolist() == [-1.0]",
    "all_coalitions": "m.all_coalitions(3).sum() == 12",
    "company_game": "m.company_game()(np.ones((1, 5), bool)).tolist() == [1e6]",
    "shapley_values": "m.shapley_values(lambda S: S[:, 0] * 1.0 + S.all(axis=1), 2).tolist() "
    "== [1.5, 0.5]",
    "banzhaf_values": "m.banzhaf_values(lambda S: S.sum(axis=1) * 1.0, 3).tolist() == "
    "[1.0, 1.0, 1.0]",
    "axioms": "m.axioms(np.array([1.0, 0.0]), both, 2)['symmetry'] == 1.0",
    "BaselineGame": "near(m.BaselineGame(linear, X, X[0])(everything)[0], linear(X))",
    "MarginalGame": "near(m.MarginalGame(linear, X, X)(~everything)[0], linear(X).mean())",
    "GaussianGame": "near(m.GaussianGame(linear, X, X, rng=0)(everything)[0], linear(X))",
    "CopulaGame": "near(m.CopulaGame(linear, X, X, rng=0)(everything)[0], linear(X))",
    "NearestGame": "near(m.NearestGame(linear, X, X, n_neighbors=1)(everything)[0], linear(X))",
    "DiscreteGame": "near(m.DiscreteGame(linear, X, X)(~everything)[0], linear(X).mean())",
    "LossOfMean": "near(m.LossOfMean(Played(), y, 'mse')(everything)[0], (X[:, 0] - y) ** 2)",
    "MeanLoss": "near(m.MeanLoss(Played(), y, 'mse')(everything)[0], (X[:, 0] - y) ** 2)",
    "RescaledMargin": "near(m.RescaledMargin(Played(), y, 'mse')(everything)[0], (X[:, "
    "0] - y) ** 2)",
    "exact_shap": "near(m.exact_shap(lambda t: t[:, 0] * t[:, 1], [[1.0, 1.0]], [[0.0, "
    "0.0]]).values, 0.5)",
    "AdditiveModel": "m.AdditiveModel({0: np.square, (0, 1): np.multiply})(X[:, :2]).tolist() == "
    "(X[:, 0] ** 2 + X[:, 0] * X[:, 1]).tolist()",
    "additive_shap": "near(m.additive_shap(Ridge().fit(X, y), X, X).prediction, Ridge().fit(X, y).predict(X))",
    "Interactions": "m.Interactions([[2.0]], ((0, 1),), 2, 'SII', [1.0], 2)[1, 0] == 2.0",
    "interaction_values": "m.interaction_values(both, 2).tolist() == [[0.0, 0.5], [0.5, 0.0]]"
    " and m.interaction_values(both, 2, index='STII')[1, 0] == 1.0",
    "sampled_values": "near(m.sampled_values(both, 3, unions=[[0, 1], [2]]).values, [0.5, 0.5, 0.0])",
    "game_shap": "near(m.game_shap(Played(), rng=0).values[:, 0], X[:, 0])",
    "owen_values": "m.owen_values(both, [[0, 1], [2]]).tolist() == [0.5, 0.5, 0.0]",
    "asymmetric_values": "m.asymmetric_values(both, [(0, 1)], 2).tolist() == [0.0, 1.0]",
    "CausalGame": "near(m.CausalGame(linear, X, X, [[0], [1], [2]], rng=0)(everything)[0], linear(X))",
    "estimate_values": "near(m.estimate_values(lambda S: S @ np.arange(3.0), 3).values, [0, 1, 2])",
    "EstimatedValues": "len(m.EstimatedValues(np.ones(2), None, 2.0, 4, np.ones(3), None, 'exact')) == 2",
    "permutation_shap": "near(m.permutation_shap(linear, X[:1, :2], X[1:2, :2], rng=0).values,"
    " (X[0, :2] - X[1, :2]) * [1, -2])",
    "ime": "near(m.ime(linear, X[:1, :2], X[1:2, :2], rng=0).values, (X[0, :2] - X[1, "
    ":2]) * [1, -2])",
    "confidence_interval": "near(m.confidence_interval(m.Explanation([[1.0]], 0.0, std=[[0.5]],"
    " info={'rounds': np.array([1000])}))[1], 1.0 + 0.5 * 1.9623415)",
    "kernel_shap": "near(m.kernel_shap(linear, X[:1, :2], X[1:2, :2]).values, (X[0, :2] - X[1, "
    ":2]) * [1, -2])",
    "TreeEnsemble": "near(m.TreeEnsemble.from_model(tree).predict(X), tree.predict(X))",
    "gain_importance": "near(m.gain_importance(tree).sum(), 1.0) or "
    "m.gain_importance(tree).shape == (3,)",
    "path_dependent_game": "near(m.path_dependent_game(tree, X)(everything)[0], tree.predict(X))",
    "saabas": "sums(m.saabas(tree, X), tree.predict(X))",
    "split_count": "m.split_count(tree).sum() == tree.tree_.node_count // 2",
    "tree_shap": "sums(m.tree_shap(tree, X), tree.predict(X))",
    "PreparedTrees": "sums(m.PreparedTrees(tree)(X), tree.predict(X))",
    "BackgroundTrees": "sums(m.BackgroundTrees(tree, X)(X), tree.predict(X))",
    "interventional_tree_shap": "sums(m.interventional_tree_shap(tree, X, X), tree.predict(X))",
    "interventional_tree_shap_interactions": "sums(m.interventional_tree_shap_interactions(tree, X, X),"
    " tree.predict(X))",
    "tree_shap_interactions": "sums(m.tree_shap_interactions(tree, X), tree.predict(X))"
    " and near(m.tree_shap_interactions(tree, X, order=3, index='k-SII').total, tree.predict(X))",
    "tree_loss_shap": "sums(m.tree_loss_shap(tree, X, y, X, loss='mse'), "
    "(tree.predict(X) - y) ** 2)",
    "tree_output_shap": "sums(m.tree_output_shap(tree, X, X, transform='exp'), "
    "np.exp(tree.predict(X)))",
    "deep_shap": "sums(m.deep_shap(net, T, T), net(T).detach())",
    "stepwise_deep_shap": "sums(m.stepwise_deep_shap(net, T, T, rng=0), net(T).detach())",
    "deeplift": "sums(m.deeplift(net, T), net(T).detach())",
    "gradients": "m.gradients(net, T).values.shape[:2] == (8, 3)",
    "input_x_gradient": "m.input_x_gradient(net, T, T).values.shape[:2] == (8, 3)",
    "integrated_gradients": "np.abs(m.integrated_gradients(net, T, T, "
    "steps=400).gap(net(T).detach())).max() < 0.02",
    "occlusion": "m.occlusion(net, T, T).values.shape[:2] == (8, 3)",
    "stack_shap": "sums(m.stack_shap([net], T, T), net(T).detach())",
    "FunctionStage": "m.FunctionStage(linear).function is linear",
    "SplitStage": "m.SplitStage([(net, [0, 1, 2])]) is not None",
    "dasp": "m.dasp(net, T, torch.zeros(3).double()).values.shape[:2] == (8, 3)",
    "compare_attributions": "len(m.compare_attributions(X, {'same': lambda: X})) == 1",
    "ShapleyTransform": "m.ShapleyTransform(3, [(0, 1), (1, 2)], 1, 1)(torch.ones(2, 3, 1)).shape "
    "== (2, 3, 1)",
    "shapley_transform": "near(m.shapley_transform(lambda z: z.sum(-1, keepdim=True), "
    "torch.ones(1, 3)).sum(), 3.0)",
    "ShallowShapNet": "m.ShallowShapNet(3, 1, seed=0)(T.float()).shape == (8, 1)",
    "gam_network": "m.gam_network(3, 1, seed=0)(T.float()).shape == (8, 1)",
    "DeepShapNet": "m.DeepShapNet(3, 1, seed=0)(T.float()).shape == (8, 1)",
    "butterfly": "sorted(i for pair in m.butterfly(4)[0] for i in pair) == [0, 1, 2, 3]",
    "ImageShapNet": "m.ImageShapNet(1, 2, channels=(2, 2), seed=0)(image).shape == (1, 2)",
    "explanation_penalty": "m.explanation_penalty(l1=0.1) is not None",
    "prune": "m.prune(m.DeepShapNet(4, 1, seed=0), fraction=0.5)(torch.ones(1, 4)).shape == (1, 1)",
    "strip_modules": "m.strip_modules(m.DeepShapNet(4, 1, seed=0), torch.ones(2, 4), stage=0, "
    "keep=1) is not None",
    "loss_shap": "sums(m.loss_shap(linear, X, y, X, rng=0, rounds=2), -((linear(X) - y) ** 2))",
    "sage": "near(m.sage(linear, X, y, X, rng=0, rounds=2).prediction, -((linear(X) - y) "
    "** 2).mean())",
    "permutation_test": "m.permutation_test(linear, X, y, rng=0).values[0, 2] == 0.0",
    "leave_one_out_importance": "near(m.leave_one_out_importance(linear, X, y, "
    "X).values[0, 2], 0.0)",
    "mean_importance": "near(m.mean_importance(linear, X, y, X).values[0, 2], 0.0)",
    "univariate_importance": "near(m.univariate_importance(linear, X, y, X).values[0, 2], 0.0)",
    "Monitor": "m.Monitor(m.Explanation(stream, 0.0), np.arange(80.0), rng=0).alarms == []",
    "monitor": "len(m.monitor(m.Explanation(stream, 0.0), np.arange(80.0), reference_until=40.0, "
    "rng=0).time) == 80",
    "plot_monitor": "len(m.plot_monitor(m.Monitor(m.Explanation(stream, 0.0), np.arange(80.0), "
    "rng=0), 0, window=20)"
    ".lines) > 0",
    "cluster_rows": "len(m.cluster_rows(X, n_clusters=2).labels) == 8",
    "embed_rows": "m.embed_rows(X).points.shape == (8, 2)",
    "feature_ranking": "len(m.feature_ranking(m.Explanation(X, 0.0))) == 3",
    "rare_effects": "m.rare_effects(m.Explanation(X, 0.0)) is not None",
    "standardized": "near(m.standardized(X).mean(axis=0), 0.0)",
    "variance_explained": "near(m.variance_explained(np.arange(8), y), 1.0)",
    "explanation_metrics": "len(m.explanation_metrics(lambda Z: Z * [1, -2, 0], linear, X, y,"
    " m.Hider(X, rng=0), rng=0)[0]) == 21",
    "grade_methods": "set(m.grade_methods({'a': lambda f, B: lambda Z: Z}, {'f': lambda B, t, "
    "seed: linear}, X, y,"
    " n_splits=1, n_test=4, n_resample=4, rng=0)['method']) == {'a'}",
    "plot_tiles": "m.plot_tiles(graded, 'f').get_xticklabels()[0].get_text() == 'a'",
    "NeighbourGame": "m.NeighbourGame(X, [0] * 8, X, [0] * 8)(np.ones((1, 8), bool)).min() == 1.0",
    "knn_shapley": "sums(m.knn_shapley(X, [0] * 8, X, [0] * 8), np.ones(8))",
    "WordGame": "m.WordGame(lambda ids, counts: ids.prod(dim=1), cutter, 'not good')"
    "(np.ones((1, 2), bool)).tolist() == [2.0]",
    "phrases_of": "m.phrases_of(['a', ',', 'b']) == [[0, 1], [2]]",
    "RegionGame": "m.RegionGame(lambda t: t.sum(dim=(1, 2, 3)), image[0], np.arange(36).reshape(6, 6) // 9, absent=0.0)"
    "(np.ones((1, 4), bool)).tolist() == [float(image.sum())]",
    "grid_regions": "m.grid_regions(2, 2, 1, 2).tolist() == [[0, 1], [0, 1]]",
    "quadtree_unions": "m.quadtree_unions([[0, 1, 2]]) == [[0, 1], 2]",
    "segment_regions": "m.segment_regions(np.eye(2)[None], 4).max() == 3",
    "scale_tiles": "m.scale_tiles(graded, 'f').index[0] == 'a'",
}

# Some need a network of another kind beside them: names may go into one file together.
BESIDE = {
    "concat": ["Explanation"],
    "explain_parquet": ["Explanation"],
    "prune": ["DeepShapNet"],
    "strip_modules": ["DeepShapNet"],
}

RUN = """
import importlib, json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "shaplab":
            raise ModuleNotFoundError("shaplab is blocked: " + name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
calls = json.loads(sys.argv[2])
failed = {}
for name, (call, names) in calls.items():
    try:
        m = importlib.import_module("only_" + name)
        assert m.__all__ == names, "not exported"
        assert eval(call), "wrong result of " + call
    except BaseException as problem:
        failed[name] = repr(problem)
assert not any(name.split(".")[0] == "shaplab" for name in sys.modules)
print("RESULT" + json.dumps(failed))
"""


# Extracts every public function and runs it in a process without shaplab: 25 s, once for all tests.
# pytest-timeout counts a fixture with the first test that asks for it, hence the higher limit.
@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What happens to each public name in one process where shaplab cannot be imported."""
    folder = tmp_path_factory.mktemp("home")
    failed: dict[str, str] = {}
    for name in NAMES:
        try:
            write(extract(name, *BESIDE.get(name, [])), folder / f"only_{name}.py")
        except Exception as problem:
            failed[name] = repr(problem)
    calls = {
        name: [CALLS[name], [name, *BESIDE.get(name, [])]] for name in NAMES if name not in failed
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", SETTING + RUN, str(folder), json.dumps(calls)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stderr
    return failed | json.loads(done.stdout.split("RESULT")[1])


def test_there_is_a_call_for_every_public_name() -> None:
    assert set(CALLS) == set(NAMES)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_public_name_runs_with_shaplab_absent(name: str, verdicts: dict[str, str]) -> None:
    assert name not in verdicts, verdicts[name]
