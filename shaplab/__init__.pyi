"""What editors and type checkers see: the public names, which are loaded on first use."""

from shaplab import deep as deep
from shaplab import extract as extract
from shaplab import foundations as foundations
from shaplab import importance as importance
from shaplab import insight as insight
from shaplab import players as players
from shaplab import plots as plots
from shaplab import shapnets as shapnets
from shaplab import trees as trees
from shaplab._validation import UnsupportedModelError
from shaplab.deep.baselines import (
    deeplift,
    gradients,
    input_x_gradient,
    integrated_gradients,
    occlusion,
)
from shaplab.deep.dasp import compare_attributions, dasp
from shaplab.deep.deep_shap import deep_shap
from shaplab.deep.stacks import FunctionStage, SplitStage, stack_shap
from shaplab.deep.stepwise import stepwise_deep_shap
from shaplab.explanation import Explanation, concat
from shaplab.foundations.additive import AdditiveModel, additive_shap
from shaplab.foundations.answers import EstimatedValues
from shaplab.foundations.estimate import estimate_values
from shaplab.foundations.exact import axioms, banzhaf_values, shapley_values
from shaplab.foundations.games import GroupedGame, MeanGame, TableGame, all_coalitions, company_game
from shaplab.foundations.interactions import Interactions, interaction_values
from shaplab.foundations.kernel import kernel_shap
from shaplab.foundations.orderings import game_shap, sampled_values
from shaplab.foundations.permutation import confidence_interval, ime, permutation_shap
from shaplab.foundations.predictions import (
    BaselineGame,
    CopulaGame,
    DiscreteGame,
    GaussianGame,
    LossOfMean,
    MarginalGame,
    MeanLoss,
    NearestGame,
    RescaledMargin,
    exact_shap,
)
from shaplab.foundations.structures import CausalGame, asymmetric_values, owen_values
from shaplab.importance.comparisons import (
    leave_one_out_importance,
    mean_importance,
    permutation_test,
    univariate_importance,
)
from shaplab.importance.loss_shap import loss_shap
from shaplab.importance.sage import sage
from shaplab.insight.metrics import explanation_metrics, grade_methods, plot_tiles, scale_tiles
from shaplab.insight.monitoring import Monitor, monitor, plot_monitor
from shaplab.insight.summaries import (
    cluster_rows,
    embed_rows,
    feature_ranking,
    rare_effects,
    standardized,
    variance_explained,
)
from shaplab.parquet import explain_parquet
from shaplab.players.regions import (
    RegionGame,
    grid_regions,
    quadtree_unions,
    segment_regions,
)
from shaplab.players.rows import NeighbourGame, knn_shapley
from shaplab.players.words import WordGame, phrases_of
from shaplab.shapnets.deep import DeepShapNet, butterfly
from shaplab.shapnets.image import ImageShapNet
from shaplab.shapnets.pruning import prune, strip_modules
from shaplab.shapnets.regularization import explanation_penalty
from shaplab.shapnets.shallow import ShallowShapNet, gam_network
from shaplab.shapnets.transform import ShapleyTransform, shapley_transform
from shaplab.trees.conditional_expectation import (
    gain_importance,
    path_dependent_game,
    saabas,
    split_count,
)
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.interactions import interventional_tree_shap_interactions, tree_shap_interactions
from shaplab.trees.interventional import BackgroundTrees, interventional_tree_shap
from shaplab.trees.loss import tree_loss_shap, tree_output_shap
from shaplab.trees.path_dependent import PreparedTrees, tree_shap

__version__: str
_PUBLIC: dict[str, str]
_HOME: dict[str, str]

__all__ = [
    "__version__",
    "UnsupportedModelError",
    "Explanation",
    "concat",
    "explain_parquet",
    "TableGame",
    "GroupedGame",
    "MeanGame",
    "all_coalitions",
    "company_game",
    "shapley_values",
    "banzhaf_values",
    "axioms",
    "BaselineGame",
    "MarginalGame",
    "GaussianGame",
    "CopulaGame",
    "NearestGame",
    "DiscreteGame",
    "LossOfMean",
    "MeanLoss",
    "RescaledMargin",
    "exact_shap",
    "AdditiveModel",
    "additive_shap",
    "Interactions",
    "interaction_values",
    "CausalGame",
    "asymmetric_values",
    "owen_values",
    "game_shap",
    "sampled_values",
    "estimate_values",
    "EstimatedValues",
    "permutation_shap",
    "ime",
    "confidence_interval",
    "kernel_shap",
    "TreeEnsemble",
    "gain_importance",
    "path_dependent_game",
    "saabas",
    "split_count",
    "PreparedTrees",
    "tree_shap",
    "BackgroundTrees",
    "interventional_tree_shap",
    "interventional_tree_shap_interactions",
    "tree_shap_interactions",
    "tree_loss_shap",
    "tree_output_shap",
    "deep_shap",
    "stepwise_deep_shap",
    "deeplift",
    "gradients",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "stack_shap",
    "FunctionStage",
    "SplitStage",
    "dasp",
    "compare_attributions",
    "ShapleyTransform",
    "shapley_transform",
    "ShallowShapNet",
    "gam_network",
    "DeepShapNet",
    "butterfly",
    "ImageShapNet",
    "explanation_penalty",
    "prune",
    "strip_modules",
    "loss_shap",
    "sage",
    "permutation_test",
    "leave_one_out_importance",
    "mean_importance",
    "univariate_importance",
    "Monitor",
    "monitor",
    "plot_monitor",
    "cluster_rows",
    "embed_rows",
    "feature_ranking",
    "rare_effects",
    "standardized",
    "variance_explained",
    "explanation_metrics",
    "grade_methods",
    "plot_tiles",
    "scale_tiles",
    "NeighbourGame",
    "knn_shapley",
    "WordGame",
    "phrases_of",
    "RegionGame",
    "grid_regions",
    "quadtree_unions",
    "segment_regions",
]
