"""shaplab: Shapley-value explanations, derived, implemented and checked chapter by chapter.

Public names are resolved on first use (PEP 562): importing shaplab loads neither torch nor numba.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

# One line a module, in reading order: what it offers to readers at the top level.
_PUBLIC = {
    "shaplab._validation": "UnsupportedModelError",
    "shaplab.explanation": "Explanation concat",
    "shaplab.parquet": "explain_parquet",
    "shaplab.foundations.games": "TableGame GroupedGame MeanGame all_coalitions company_game",
    "shaplab.foundations.exact": "shapley_values banzhaf_values axioms",
    "shaplab.foundations.predictions": "BaselineGame MarginalGame GaussianGame CopulaGame "
    "NearestGame DiscreteGame "
    "LossOfMean MeanLoss RescaledMargin exact_shap",
    "shaplab.foundations.additive": "AdditiveModel additive_shap",
    "shaplab.foundations.answers": "EstimatedValues",
    "shaplab.foundations.interactions": "Interactions interaction_values",
    "shaplab.foundations.structures": "CausalGame asymmetric_values owen_values",
    "shaplab.foundations.orderings": "game_shap sampled_values",
    "shaplab.foundations.estimate": "estimate_values",
    "shaplab.foundations.permutation": "permutation_shap ime confidence_interval",
    "shaplab.foundations.kernel": "kernel_shap",
    "shaplab.trees.ensemble": "TreeEnsemble",
    "shaplab.trees.conditional_expectation": "gain_importance path_dependent_game saabas "
    "split_count",
    "shaplab.trees.path_dependent": "PreparedTrees tree_shap",
    "shaplab.trees.interventional": "BackgroundTrees interventional_tree_shap",
    "shaplab.trees.interactions": "interventional_tree_shap_interactions tree_shap_interactions",
    "shaplab.trees.loss": "tree_loss_shap tree_output_shap",
    "shaplab.deep.deep_shap": "deep_shap",
    "shaplab.deep.stepwise": "stepwise_deep_shap",
    "shaplab.deep.baselines": "deeplift gradients input_x_gradient integrated_gradients occlusion",
    "shaplab.deep.stacks": "stack_shap FunctionStage SplitStage",
    "shaplab.deep.dasp": "dasp compare_attributions",
    "shaplab.shapnets.transform": "ShapleyTransform shapley_transform",
    "shaplab.shapnets.shallow": "ShallowShapNet gam_network",
    "shaplab.shapnets.deep": "DeepShapNet butterfly",
    "shaplab.shapnets.image": "ImageShapNet",
    "shaplab.shapnets.regularization": "explanation_penalty",
    "shaplab.shapnets.pruning": "prune strip_modules",
    "shaplab.importance.loss_shap": "loss_shap",
    "shaplab.importance.sage": "sage",
    "shaplab.importance.comparisons": "permutation_test leave_one_out_importance mean_importance "
    "univariate_importance",
    "shaplab.insight.monitoring": "Monitor monitor plot_monitor",
    "shaplab.insight.summaries": "cluster_rows embed_rows feature_ranking rare_effects "
    "standardized variance_explained",
    "shaplab.insight.metrics": "explanation_metrics grade_methods plot_tiles scale_tiles",
    "shaplab.players.rows": "NeighbourGame knn_shapley",
    "shaplab.players.words": "WordGame phrases_of",
    "shaplab.players.regions": "RegionGame grid_regions quadtree_unions segment_regions",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}
_MODULES = (
    "plots",
    "extract",
    "foundations",
    "trees",
    "deep",
    "shapnets",
    "importance",
    "insight",
    "players",
)


def _is_ready(name: str) -> bool:
    """Whether what a name's module needs is installed: networks need torch."""
    if not _HOME[name].startswith(("shaplab.deep.", "shaplab.shapnets.")):
        return True
    try:
        return find_spec("torch") is not None
    except (ImportError, ValueError):
        return False


# Names that cannot be had here are not listed, so that ``import *`` and pydoc work without torch.
__all__ = ["__version__", *filter(_is_ready, _HOME)]


# Names of the package shap that its users try first, and the calls that do the same.
_OF_SHAP = {
    "DeepExplainer": "deep_shap(network, X, background)",
    "ExactExplainer": "exact_shap(model.predict, X, background)",
    "Explainer": "tree_shap(model, X), or permutation_shap(model.predict, X, background)",
    "GradientExplainer": "integrated_gradients(network, X, background)",
    "KernelExplainer": "kernel_shap(model.predict, X, background)",
    "LinearExplainer": "additive_shap(model, X, background)",
    "PermutationExplainer": "permutation_shap(model.predict, X, background)",
    "SamplingExplainer": "permutation_shap(model.predict, X, background)",
    "TreeExplainer": "tree_shap(model, X), or interventional_tree_shap(model, X, background)",
    "bar_plot": "plots.bar(explanation)",
    "decision_plot": "plots.decision(explanation)",
    "dependence_plot": "plots.scatter(explanation, feature)",
    "force_plot": "plots.force(explanation[0])",
    "summary_plot": "plots.beeswarm(explanation)",
    "waterfall_plot": "plots.waterfall(explanation[0])",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"shaplab.{name}")
    if name not in _HOME:
        instead = f". What shap calls so is shaplab.{_OF_SHAP[name]}" if name in _OF_SHAP else ""
        raise AttributeError(f"module 'shaplab' has no attribute {name!r}{instead}")
    if not _is_ready(name):
        raise ModuleNotFoundError(
            f"{name}: expected the package torch beside shaplab, got an environment without it. "
            "Install it: pip install torch."
        )
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
