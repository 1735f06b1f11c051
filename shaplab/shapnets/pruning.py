r"""Pruning a Deep ShapNet for each instance as it is computed, and stripping modules while it
learns.

A representation near 0 at some stage says that the feature hardly matters from there on; set to 0
it stays 0 (Corollary 4), and a module whose inputs are all 0 need not be computed, because its
Shapley values are 0. Which positions go is decided for each row and stage, from the channel l1
norm: those at or below a threshold times the row's largest norm, or the lowest fraction. Learning
interactions (Appendix E) starts from more modules than needed, then strips those that give least,
from the last stage to the first, and trains on.
Source: Wang, Wang & Inouye (2021), sections 2.5, E and H; thresholds ours. Cost: that of the
modules left.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shaplab._validation import check_int, check_real, fail
from shaplab.shapnets.shallow import ShapNet
from shaplab.shapnets.transform import ShapleyTransform

__all__ = ["PrunedShapNet", "keep_mask", "prune", "strip_modules"]


def keep_mask(
    z: Tensor, *, threshold: float | None = None, fraction: float | None = None
) -> Tensor:
    """Positions ``(N, d)`` or ``(N, H, W)`` that survive: exactly one of the two rules.

    Parameters
    ----------
    z : representation ``(N, d, C)`` or ``(N, H, W, C)``.
    threshold : a position goes when its channel l1 norm is at most this times the largest norm of
        its row.
    fraction : this share of each row's positions goes, the smallest norms first.
    """
    norm = z.abs().sum(-1).flatten(1)
    if threshold is not None:
        keep = norm > threshold * norm.amax(1, keepdim=True)
    else:
        count = round(float(fraction or 0.0) * norm.shape[1])
        smallest = norm.argsort(dim=1, stable=True)[:, :count]
        keep = torch.ones_like(norm, dtype=torch.bool).scatter(1, smallest, False)
    return keep.view(z.shape[:-1])


class PrunedShapNet(nn.Module):
    """A trained ShapNet that drops small positions after each stage and skips the modules they
    leave without input.

    Made by :func:`prune`. It has ``net(x)``, ``explain``, ``layers`` and ``work`` and shares the
    weights of ``net``.
    """

    def __init__(
        self, net: ShapNet, stages: Sequence[int], threshold: float | None, fraction: float | None
    ):
        super().__init__()
        self.net = net
        self.stages = tuple(stages)
        self.threshold = threshold
        self.fraction = fraction
        self.skip: bool | str = "exact" if threshold == 0 else True

    def _edit(self, stage: int, z: Tensor) -> Tensor:
        if stage not in self.stages:
            return z
        visible = self.net.visible(z)
        keep = keep_mask(visible, threshold=self.threshold, fraction=self.fraction).unsqueeze(-1)
        # Selected, not multiplied: a kept number stays the same to the last bit.
        kept = torch.where(keep, visible, torch.zeros_like(visible))
        if visible.shape == z.shape:
            return kept
        padding = z[:, visible.shape[1] :]
        return torch.cat([kept, padding], dim=1)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Representation after every stage, with zeros where it was pruned."""
        return self.net.layers(x, edit=self._edit, skip=self.skip)

    def explain(self, x: Tensor) -> Tensor:
        """The explanation of the pruned network's own output."""
        return self.layers(x)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(N, K)`` of a batch."""
        return self.net.readout(self.explain(x))

    def work(self, x: Tensor) -> dict[str, Any]:
        """Modules that had to be computed for ``x``, out of all: ``computed``, ``total``,
        ``share``, ``by_stage``.

        For images a module is a window. A module counts as computed for a row when one of its
        inputs is not zero.
        """
        computed = []
        total = []
        z = self.net.prepare(x)
        for number, transform in enumerate(self.net.transforms):
            computed.append(int(transform.live_modules(z).sum()))  # type: ignore[operator]
            sets = getattr(transform, "active_sets", None)
            n_modules = z.shape[1] * z.shape[2] if sets is None else len(sets)
            total.append(len(x) * n_modules)
            z = self._edit(number, transform(z, self.skip))
        return {
            "computed": sum(computed),
            "total": sum(total),
            "share": sum(computed) / sum(total),
            "by_stage": [ours / theirs for ours, theirs in zip(computed, total, strict=True)],
        }


def prune(
    net: ShapNet,
    *,
    threshold: float | None = None,
    fraction: float | None = None,
    stages: Sequence[int] | None = None,
) -> PrunedShapNet:
    """Prune a trained ShapNet per instance; the network itself is not changed.

    Parameters
    ----------
    net : DeepShapNet or ImageShapNet.
    threshold : number in [0, 1], against each row's largest norm. 0 drops nothing but exact zeros:
        no bit changes, and on a processor windows of missing pixels are skipped. (Fewer modules of
        a table would round otherwise.)
    fraction : number in [0, 1], share of positions to drop. Exactly one of ``threshold`` and
        ``fraction`` is needed.
    stages : numbers of the stages after which to prune; None for all but the last, whose output is
        the explanation.

    Returns
    -------
    PrunedShapNet, which also skips the computation that pruning makes needless.

    References
    ----------
    Wang, Wang & Inouye (2021), section 2.5, Corollary 4, Figure 5.

    Examples
    --------
    >>> from shaplab.shapnets import DeepShapNet
    >>> net = DeepShapNet(8, 1, seed=0)
    >>> prune(net, fraction=0.5).work(torch.ones(1, 8))["by_stage"][0]
    1.0
    """
    if (threshold is None) == (fraction is None):
        fail(
            "threshold",
            "exactly one of threshold and fraction",
            "both" if threshold is not None else "neither",
            "Pass for example fraction=0.6",
        )
    if threshold is None:
        check_real(fraction, "fraction", low=0.0, high=1.0)
    else:
        check_real(threshold, "threshold", low=0.0, high=1.0)
    if not isinstance(net, ShapNet):
        fail(
            "net",
            "a DeepShapNet or ImageShapNet",
            net,
            "Other networks have no explanations to prune",
            TypeError,
        )
    last = len(net.transforms) - 1
    if stages is None:
        stages = range(last)
    chosen = [check_int(stage, "stages", minimum=0, maximum=last) for stage in stages]
    return PrunedShapNet(net, chosen, threshold, fraction)


def strip_modules(net: ShapNet, x: Tensor, *, stage: int, keep: int) -> ShapNet:
    """A copy of the network with only the modules of one stage that contribute most; train it on
    afterwards.

    Parameters
    ----------
    net : ShallowShapNet or DeepShapNet, usually made with more active sets than needed.
    x : rows on which the contributions are measured.
    stage : number of the stage; the source goes from the last to the first as training proceeds.
    keep : int, how many modules stay.

    Returns
    -------
    a new network of the same class.

    Notes
    -----
    The source looks at the size of a module's inputs. Those of the first stage are data, so we use
    what a module gives: the mean over rows of the l1 norm of its values.

    References
    ----------
    Wang, Wang & Inouye (2021), Appendix E.
    """
    if not isinstance(net, ShapNet):
        fail(
            "net",
            "a ShallowShapNet or DeepShapNet",
            net,
            "Other networks have no such modules",
            TypeError,
        )
    check_int(stage, "stage", minimum=0, maximum=len(net.transforms) - 1)
    result = copy.deepcopy(net)
    transform = result.transforms[stage]
    if not isinstance(transform, ShapleyTransform):
        fail(
            "net",
            "a ShallowShapNet or DeepShapNet",
            type(net).__name__,
            "Windows of an image share one function",
        )
    z = net.prepare(x)
    with torch.no_grad():
        for earlier in net.transforms[:stage]:
            z = earlier(z)
        scores = torch.cat([part.abs().sum((2, 3)).mean(0) for part in transform.contributions(z)])
    largest = scores.argsort(descending=True)[: check_int(keep, "keep", maximum=len(scores))]
    chosen = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    chosen[largest] = True
    groups = transform.modules_by_size
    left = []
    for group, mine in zip(groups, chosen.split([len(g.active) for g in groups]), strict=True):
        if not bool(mine.any()):
            continue
        group.active = group.active[mine]
        for parameter in group.parameters():
            # A shared inner network has one for all.
            if len(parameter) == len(mine):
                parameter.data = parameter.data[mine]
        left.append(group)
    transform.groups = nn.ModuleList(left)
    return result
