r"""Deep ShapNets: a cascade of Shapley transforms, each explaining in the features of the input.

:math:`H = b + \mathrm{sum} \circ \Omega^{(L)} \circ \dots \circ \Omega^{(1)}`. The first transform
has the user's reference, all later ones have reference 0, because a feature at its reference has
representation 0. So such a feature is 0 in every later layer and has no attribution (missingness,
Corollary 4), and the values sum to
:math:`H(x) - H(r)` (local accuracy, Theorem 3). They are *not* the Shapley values of :math:`H` in
general. The butterfly of the fast Fourier transform pairs ``i`` with ``i + 2**s`` in stage ``s``:
after ``log2 d`` stages every feature can act on every other. Source: Wang, Wang & Inouye (2021),
Def. 8. Cost: ``d/2 log2 d`` modules of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shaplab._validation import check_choice, check_int, fail
from shaplab.shapnets.shallow import ShapNet
from shaplab.shapnets.transform import (
    ShapleyTransform,
    as_reference,
    check_active_sets,
    seeded,
    shapley_transform_literal,
)

__all__ = ["DeepShapNet", "butterfly", "deep_shapnet_literal"]


def deep_shapnet_literal(
    stages: Sequence[Sequence[tuple[Sequence[int], Callable[[np.ndarray], Any]]]],
    x: np.ndarray,
    r: np.ndarray,
) -> list[np.ndarray]:
    """Definition 8 for one input ``x (d, C)``: every stage is a list of (active set, function of
    ``(k, C)``)."""
    Z = np.asarray(x)
    reference = np.asarray(r)
    layers = []
    for stage in stages:
        total: Any = 0.0
        for A, f in stage:
            local = shapley_transform_literal(f, Z[list(A)], reference[list(A)])
            wide = np.zeros((len(Z), local.shape[1]))
            wide[list(A)] = local
            total = total + wide
        Z = total
        reference = np.zeros_like(total)
        layers.append(Z)
    return layers


def butterfly(n_features: int) -> list[list[tuple[int, int]]]:
    """Disjoint pairs for each stage: ``i`` with ``i + 2**s``, after padding to a power of two.

    Pairs that hold padding only are left out: ``butterfly(30)`` has 15, 16, 16, 16 and 16 pairs.

    Examples
    --------
    >>> butterfly(4)
    [[(0, 1), (2, 3)], [(0, 2), (1, 3)]]
    """
    d = check_int(n_features, "n_features", minimum=2)
    n_stages = (d - 1).bit_length()
    return [
        [(i, i + 2**stage) for i in range(d) if not i >> stage & 1] for stage in range(n_stages)
    ]


class DeepShapNet(ShapNet):
    """A cascade of Shapley transforms with layer-wise explanations.

    Parameters
    ----------
    n_features, n_outputs : int, ``d`` and ``K``.
    channels : numbers in the representation of a feature after each stage but the last, an int or
        one a stage.
    channels_in : numbers that describe one input feature; the input is ``(N, d)`` when 1, else
        ``(N, d, channels_in)``.
    reference : array ``(d,)`` or ``(d, channels_in)`` for the first stage; zeros if None.
    stages : "butterfly", or a list of stages, each a list of active sets (or "pairs"), which may
        overlap.
    hidden : widths of the inner networks' hidden layers; or a list of such tuples, one a stage.
    activation, shared : as in :class:`~shaplab.shapnets.transform.ShapleyTransform`.
    intercept : add a learned constant to the output; False is the source's network, with output 0
        at the reference.
    seed : int, or None to draw the weights from torch's own generator.

    Notes
    -----
    Local accuracy and missingness hold for any weights; the values are Shapley values of each
    stage, not of the whole network. Padding is kept at its reference, so it has no part in any
    result.

    References
    ----------
    Wang, Wang & Inouye (2021), Definition 8, Theorem 3, Corollary 4.

    Examples
    --------
    >>> net = DeepShapNet(5, 2, seed=0)
    >>> [tuple(z.shape) for z in net.layers(torch.ones(4, 5))]
    [(4, 5, 16), (4, 5, 16), (4, 5, 2)]
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        channels: int | Sequence[int] = 16,
        channels_in: int = 1,
        reference: Any = None,
        stages: Any = "butterfly",
        hidden: Any = (32,),
        activation: str = "relu",
        shared: bool = False,
        intercept: bool = True,
        seed: int | None = None,
    ):
        d = check_int(n_features, "n_features", minimum=2)
        width = d
        if isinstance(stages, str):
            check_choice(stages, "stages", ("butterfly",))
            stages = butterfly(d)
            width = 2 ** (d - 1).bit_length()
        else:
            stages = [check_active_sets(stage, d) for stage in stages]
        sizes = _per_stage(channels, len(stages) - 1, "channels")
        is_one = isinstance(hidden, int) or isinstance(hidden[0], int)
        widths = [hidden] * len(stages) if is_one else list(hidden)
        if len(widths) != len(stages):
            fail(
                "hidden",
                f"one tuple of widths, or {len(stages)} of them",
                f"{len(widths)}",
                "Give one a stage",
            )
        start = as_reference(reference, (d, check_int(channels_in, "channels_in")))
        start = torch.cat([start, start.new_zeros(width - d, channels_in)])
        sizes = [channels_in, *sizes, check_int(n_outputs, "n_outputs")]
        with seeded(seed):
            transforms = [
                ShapleyTransform(
                    width,
                    sets,
                    sizes[number],
                    sizes[number + 1],
                    hidden=widths[number],
                    activation=activation,
                    shared=shared,
                    reference=start if number == 0 else None,
                )
                for number, sets in enumerate(stages)
            ]
        super().__init__(transforms, (d, channels_in), n_outputs, intercept)
        self.padding = width - d

    def prepare(self, x: Tensor) -> Tensor:
        """Check the input and append the padding, which lies at its reference, 0."""
        return nn.functional.pad(super().prepare(x), (0, 0, 0, self.padding))

    def visible(self, z: Tensor) -> Tensor:
        """The representation without padding."""
        return z[:, : z.shape[1] - self.padding]


def _per_stage(value: int | Sequence[int], count: int, argument: str) -> list[int]:
    """One integer for each of ``count`` stages."""
    sizes = [value] * count if isinstance(value, int) else list(value)
    if len(sizes) != count:
        fail(
            argument,
            f"an integer or {count} integers",
            f"{len(sizes)}",
            "Give one for each stage but the last",
        )
    return [check_int(size, argument) for size in sizes]
