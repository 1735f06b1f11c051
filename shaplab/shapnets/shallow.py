r"""Shallow ShapNets: one Shapley transform, then a sum. Exact Shapley values from one forward pass.

With :math:`g(x) = \Omega(x, f)` the network is :math:`G(x) = b + \sum_i g_i(x)`. Local accuracy of
the transform makes the sum :math:`b + f(x) - f(r)`, so :math:`G` and :math:`f` differ by a constant
and have the same Shapley values:
:math:`g(x) = \varphi(G, x)` (Theorem 2). Values are for the baseline game: absent features take the
reference ``r``. The intercept ``b`` is ours: without it the output at the reference is 0 whatever
the weights, because a Shapley value is a difference. Source: Wang, Wang & Inouye (2021), Def. 5,
Theorem 2. Cost: ``2**k`` small networks a module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shaplab._validation import (
    as_matrix,
    as_numbers,
    check_int,
    column_names,
    fail,
    is_frame,
    row_labels,
)
from shaplab.explanation import Explanation
from shaplab.shapnets.transform import ShapleyTransform, check_active_sets, seeded

__all__ = ["ShallowShapNet", "ShapNet", "gam_network"]


def row_tensor(X: Any) -> Tensor:
    """Rows as a tensor of their own numbers; arrays of any layout, order of bytes and kind."""
    if isinstance(X, Tensor):
        return X.detach()
    is_table = is_frame(X) or np.ndim(X) == 2
    array = as_matrix(X, "X") if is_table else as_numbers(X, "X", dtype=None)
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="))
    # Torch wants arrays that may be written to, and warns of others.
    return torch.as_tensor(np.require(array, requirements=["C", "W"]))


class ShapNet(nn.Module):
    """What all ShapNets share: a cascade of Shapley transforms, a sum over the features, an
    intercept.

    ``net(x)`` is the output ``(N, K)``; ``net.explain(x)`` the Shapley representation ``(N, d,
    K)``, or ``(N, H, W, K)`` for images; ``net.layers(x)`` the representation after every stage.
    """

    def __init__(
        self,
        transforms: Iterable[nn.Module],
        input_shape: tuple[int | None, ...],
        n_outputs: int,
        intercept: bool,
    ):
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.input_shape = input_shape
        start = torch.zeros(check_int(n_outputs, "n_outputs"))
        if intercept:
            self.intercept = nn.Parameter(start)
        else:
            self.register_buffer("intercept", start)

    def prepare(self, x: Tensor) -> Tensor:
        """Check an input and bring it to the shape of the first transform, ``(N, d, C)``."""
        d, channels = self.input_shape
        if channels == 1 and x.ndim == 2:
            x = x.unsqueeze(-1)
        if x.ndim != 3 or tuple(x.shape[1:]) != (d, channels):
            fail(
                "x",
                f"shape (N, {d})" if channels == 1 else f"shape (N, {d}, {channels})",
                f"{tuple(x.shape)}",
                "Pass a batch of rows with the features that the network was made for",
            )
        return x

    def layers(
        self,
        x: Tensor,
        *,
        edit: Callable[[int, Tensor], Tensor] | None = None,
        skip: bool | str = False,
    ) -> list[Tensor]:
        """Shapley representation after every stage, the last one being the explanation.

        Parameters
        ----------
        x : the input batch.
        edit : called with the number of the stage and its representation, returns what the next
            stage reads.
        skip : leave out modules whose inputs all equal their reference, since they would give zero.
            With True sums may round otherwise; with "exact" no bit changes, and only windows of
            four taps on a processor are left out.
        """
        z = self.prepare(x)
        stages = []
        for number, transform in enumerate(self.transforms):
            z = transform(z, skip)
            if edit is not None:
                z = edit(number, z)
            stages.append(self.visible(z))
        return stages

    def visible(self, z: Tensor) -> Tensor:
        """The representation without padding."""
        return z

    def explain(self, x: Tensor) -> Tensor:
        """Shapley representation of the output, ``(N, d, K)`` or ``(N, H, W, K)``;
        differentiable."""
        return self.layers(x)[-1]

    def readout(self, phi: Tensor) -> Tensor:
        """Output ``(N, K)`` from its explanation: the intercept plus the sum of the values."""
        return phi.flatten(1, -2).sum(1) + self.intercept

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(N, K)`` of a batch."""
        return self.readout(self.explain(x))

    def explanation(
        self,
        X: Any,
        *,
        batch_size: int = 256,
        feature_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> Explanation:
        """Explain rows, in batches and without gradients.

        Parameters
        ----------
        X : array, DataFrame (its names are kept) or tensor, rows first; cast to the network's dtype
            and device.
        batch_size : int, rows in memory at once.
        feature_names, output_names : names of the features (a DataFrame's columns by default) and
            of the outputs.

        Returns
        -------
        Explanation with values ``(N, d, K)`` or ``(N, H, W, K)``; the base value is the intercept,
        the output at the reference.
        """
        like = next(self.parameters())
        rows = row_tensor(X)
        # NumPy has no bfloat16.
        data = rows.float() if rows.dtype == torch.bfloat16 else rows
        batches = rows.to(like).split(check_int(batch_size, "batch_size"))
        with torch.no_grad():
            values = torch.cat([self.explain(batch) for batch in batches])
        names = column_names(X) if feature_names is None else feature_names
        intercept = self.intercept.detach().cpu().double().numpy()
        return Explanation(
            values=values.cpu().double().numpy(),
            base_values=np.tile(intercept, (len(rows), 1)),
            data=data.cpu().numpy(),
            feature_names=None if names is None else tuple(names),
            output_names=None if output_names is None else tuple(output_names),
            method=type(self).__name__,
            index=row_labels(X),
        )

    @property
    def multiply_adds(self) -> int:
        """Multiplications in the matrix products of one row (for images, of one pixel)."""
        return sum(transform.multiply_adds for transform in self.transforms)  # type: ignore[misc]


class ShallowShapNet(ShapNet):
    """A sum of Shapley modules over chosen active sets: its explanation is its exact Shapley
    values.

    Parameters
    ----------
    n_features, n_outputs : int, ``d`` and ``K``.
    active_sets : "pairs" (all of them), "singles" (a generalised additive model), "triples", or any
        list of sets of feature numbers, such as the edges of a graph. A feature in no set has no
        effect.
    channels : int, numbers that describe one feature; the input is ``(N, d)`` when 1, else ``(N, d,
        channels)``.
    reference : array ``(d,)`` or ``(d, channels)``, what an absent feature is set to; zeros if
        None.
    hidden, activation, shared : the inner networks, as in
        :class:`~shaplab.shapnets.transform.ShapleyTransform`.
    intercept : add a learned constant to the output; False is the source's network, with output 0
        at the reference.
    seed : int, or None to draw the weights from torch's own generator.

    Notes
    -----
    Exact for the baseline game, up to floating point. All pairs need ``d (d-1) / 2`` modules.

    References
    ----------
    Wang, Wang & Inouye (2021), Definition 5 and Theorem 2.

    Examples
    --------
    >>> net = ShallowShapNet(3, 2, seed=0)
    >>> x = torch.tensor([[1.0, 0.0, 2.0]])
    >>> net.explain(x).shape, bool((net.explain(x)[0, 1] == 0).all())
    (torch.Size([1, 3, 2]), True)
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        active_sets: Any = "pairs",
        channels: int = 1,
        reference: Any = None,
        hidden: Sequence[int] = (32,),
        activation: str = "relu",
        shared: bool = False,
        intercept: bool = True,
        seed: int | None = None,
    ):
        sets = check_active_sets(active_sets, check_int(n_features, "n_features"))
        with seeded(seed):
            layer = ShapleyTransform(
                n_features,
                sets,
                channels,
                check_int(n_outputs, "n_outputs"),
                hidden=hidden,
                activation=activation,
                shared=shared,
                reference=reference,
            )
        super().__init__([layer], (n_features, channels), n_outputs, intercept)


def gam_network(n_features: int, n_outputs: int, **options: Any) -> ShallowShapNet:
    """A generalised additive model: modules of one feature, where each value is that feature's own
    function.

    Parameters
    ----------
    n_features, n_outputs, options : as for :class:`ShallowShapNet`, which this calls with
        ``active_sets="singles"``.
    """
    return ShallowShapNet(n_features, n_outputs, active_sets="singles", **options)
