"""What editors and type checkers see: the networks, which are loaded on first use."""

from shaplab.shapnets import deep as deep
from shaplab.shapnets import image as image
from shaplab.shapnets import pruning as pruning
from shaplab.shapnets import regularization as regularization
from shaplab.shapnets import shallow as shallow
from shaplab.shapnets import transform as transform
from shaplab.shapnets.deep import DeepShapNet, butterfly
from shaplab.shapnets.image import ImageShapNet
from shaplab.shapnets.pruning import PrunedShapNet, prune, strip_modules
from shaplab.shapnets.regularization import (
    coefficient_of_variation,
    explanation_penalty,
    fit,
    sparsity,
)
from shaplab.shapnets.shallow import ShallowShapNet, gam_network
from shaplab.shapnets.transform import ShapleyTransform, coalition_weights, shapley_transform

__all__ = [
    "ShapleyTransform",
    "coalition_weights",
    "shapley_transform",
    "ShallowShapNet",
    "gam_network",
    "DeepShapNet",
    "butterfly",
    "ImageShapNet",
    "coefficient_of_variation",
    "explanation_penalty",
    "fit",
    "sparsity",
    "PrunedShapNet",
    "prune",
    "strip_modules",
]
