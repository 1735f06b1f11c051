r"""Training a ShapNet, with a penalty on its explanation.

The explanation :math:`Z` is a layer, so a loss may look at it: :math:`\ell(G(x), y) +
\lambda\,\Omega(Z)`, and one backward pass gives all gradients. For a row with values
:math:`\varphi_{ik}` (position ``i``, output ``k``) the penalties are :math:`\ell_1 = \frac1K
\sum_{ik} |\varphi_{ik}|` (small values in all, few of them or many) and
:math:`\ell_\infty = \frac1K \sum_k \max_i |\varphi_{ik}|` (no position alone), averaged over rows;
the layer-wise one is the mean of :math:`\ell_1` over all stages. Source: Wang, Wang & Inouye
(2021), section 2.4, which states neither the normalisation nor the coefficients: these are ours.
Cost: nothing next to the forward pass.

Chapter: shapnets/regularization
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shaplab._parallel import progress_bar
from shaplab._validation import as_numbers, check_choice, check_int, check_real, fail
from shaplab.shapnets.shallow import ShapNet, row_tensor
from shaplab.shapnets.transform import seeded

__all__ = ["coefficient_of_variation", "explanation_penalty", "fit", "sparsity"]

Penalty = Callable[[list[Tensor]], Tensor]


def explanation_penalty(
    *,
    l1: float = 0.0,
    l_inf: float = 0.0,
    layerwise_l1: float = 0.0,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> Penalty:
    """A penalty on the representations of a ShapNet, to be passed to :func:`fit`.

    Parameters
    ----------
    l1, l_inf : coefficients of the two norms of the last representation.
    layerwise_l1 : coefficient of the mean l1 norm over all stages.
    prior : any differentiable function of the last representation ``(N, d, K)`` or ``(N, H, W,
        K)``, to a scalar.

    Returns
    -------
    callable, the list that ``net.layers(x)`` returns to a scalar tensor.

    References
    ----------
    Wang, Wang & Inouye (2021), section 2.4.

    Examples
    --------
    >>> float(explanation_penalty(l1=1.0, l_inf=10.0)([torch.tensor([[[1.0], [-3.0]]])]))
    34.0
    """
    for value, name in ((l1, "l1"), (l_inf, "l_inf"), (layerwise_l1, "layerwise_l1")):
        check_real(value, name, low=0.0)

    def penalty(layers: list[Tensor]) -> Tensor:
        size = [z.flatten(1, -2).abs() for z in layers]
        total = size[-1].new_zeros(())
        if l1:
            total = total + l1 * size[-1].sum(1).mean()
        if l_inf:
            total = total + l_inf * size[-1].amax(1).mean()
        if layerwise_l1:
            by_stage = torch.stack([stage.sum(1).mean() for stage in size])
            total = total + layerwise_l1 * by_stage.mean()
        return total if prior is None else total + prior(layers[-1])

    return penalty


def _mean_squared_error(output: Tensor, y: Tensor) -> Tensor:
    return nn.functional.mse_loss(output.squeeze(-1), y)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "squared_error": _mean_squared_error,
}


def fit(
    net: nn.Module,
    X: Any,
    y: Any,
    *,
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy",
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    penalty: Penalty | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    one_cycle: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train a network in place with Adam; small enough to read.

    Parameters
    ----------
    net : a ShapNet, or any module when there is no ``penalty``. Its parameters are changed, and its
        mode set to eval.
    X : table ``(n, d)`` or array ``(n, ...)``, cast to the network's dtype and device.
    y : labels ``0 .. K-1`` for "cross_entropy", numbers for "squared_error".
    loss : one of these names, or a callable of the output ``(N, K)`` and ``y`` (whole numbers as
        labels) to a scalar.
    epochs, batch_size, learning_rate : as usual; the defaults of Adam otherwise.
    penalty : from :func:`explanation_penalty`, or any callable of the list ``net.layers(x)``.
    augment : callable of an input batch to a changed one, for training only.
    one_cycle : let the rate rise from a small one to ``learning_rate`` and fall to almost nothing
        (torch's OneCycleLR).
    seed : order of the batches and everything else that is random; torch's own generator is left as
        it was.
    progress : show a bar.

    Returns
    -------
    list of the mean training loss, penalty included, of each epoch.

    Raises
    ------
    ValueError
        When the loss is no longer finite; the message names the epoch.
    """
    if not isinstance(net, nn.Module):
        fail("net", "a torch module", net, "Make the network first", TypeError)
    check_real(learning_rate, "learning_rate", low=0.0, open_low=True)
    if penalty is not None and not isinstance(net, ShapNet):
        fail(
            "penalty",
            "None for a network without Shapley layers",
            type(net).__name__,
            "Train a ShapNet",
        )
    if isinstance(loss, str):
        price = LOSSES[check_choice(loss, "loss", tuple(LOSSES))]
    else:
        price = loss
    like = next(net.parameters())
    inputs = row_tensor(X).to(like)
    target = _target_tensor(y, loss, like)
    if len(target) != len(inputs) or (isinstance(loss, str) and target.ndim != 1):
        fail(
            "y",
            f"{len(inputs)} values, as X has rows",
            f"shape {tuple(target.shape)}",
            "Give one target a row",
        )
    if isinstance(loss, str):
        _check_targets(net, inputs, target, loss)
    steps = check_int(epochs, "epochs") * -(-len(inputs) // check_int(batch_size, "batch_size"))
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    schedule = None
    if one_cycle:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    history = []
    net.train()
    with seeded(seed), progress_bar(epochs, progress, type(net).__name__) as bar:
        for epoch in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(inputs)).to(like.device).split(batch_size):
                x = inputs[rows] if augment is None else augment(inputs[rows])
                value = _batch_loss(net, x, target[rows], price, penalty)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                if schedule is not None:
                    schedule.step()
                total += float(value.detach()) * len(rows)
            history.append(total / len(inputs))
            if not np.isfinite(history[-1]):
                fail(
                    "learning_rate",
                    "a finite loss",
                    f"{history[-1]} in epoch {epoch + 1}",
                    "Lower learning_rate, or check X for missing and very large values",
                )
            bar.set_postfix(loss=f"{history[-1]:.4g}")
            bar.update()
    net.eval()
    return history


def _batch_loss(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    price: Callable[[Tensor, Tensor], Tensor],
    penalty: Penalty | None,
) -> Tensor:
    """The loss of a batch, and the penalty on what it was computed from."""
    if not isinstance(net, ShapNet):
        return price(net(x), y)
    layers = net.layers(x)
    value = price(net.readout(layers[-1]), y)
    return value if penalty is None else value + penalty(layers)


def _target_tensor(y: Any, loss: Any, like: Tensor) -> Tensor:
    """Targets in the network's dtype, or whole numbers where they are labels."""
    if isinstance(y, Tensor):
        target = y
    else:
        target = torch.as_tensor(as_numbers(y, "y", dtype=None).copy())
    are_whole = not target.is_floating_point() or bool((target == target.round()).all())
    if loss == "cross_entropy" and not are_whole:
        fail("y", "whole numbers as labels for 'cross_entropy'", "others", "Number classes from 0")
    are_labels = loss == "cross_entropy" or (callable(loss) and not target.is_floating_point())
    target = target.to(like.device, torch.long if are_labels else like.dtype)
    # A column is a list of targets, not one row against all others.
    is_column = target.ndim > 1 and target.shape[1:].numel() == 1
    return target.flatten() if is_column else target


def _check_targets(net: nn.Module, inputs: Tensor, target: Tensor, loss: str) -> None:
    """Require targets that suit the net's outputs: of the first row, with nothing changed."""
    training = net.training
    net.eval()
    with torch.no_grad():
        made = net(inputs[:1])
    net.train(training)
    count = made.shape[1] if made.ndim == 2 else 1
    if loss == "squared_error" and count != 1:
        fail("loss", "a net of one output for 'squared_error'", f"{count}", "Make one output")
    if loss == "cross_entropy" and (int(target.min()) < 0 or int(target.max()) >= count):
        fail(
            "y",
            f"labels 0 to {count - 1} for 'cross_entropy'",
            f"values from {int(target.min())} to {int(target.max())}",
            "Number classes from 0, and make as many outputs",
        )
    if not torch.isfinite(target).all():
        fail("y", "finite targets", "NaN or infinity", "Drop rows without a target")


def coefficient_of_variation(values: Any) -> float:
    """Standard deviation over mean of ``|values|`` across positions, averaged over rows and
    outputs.

    Parameters
    ----------
    values : array ``(N, d, K)``, or ``(N, H, W, K)``. Rows and outputs with no attribution at all
        are left out.
    """
    size = _sizes(values)
    mean = size.mean(axis=1)
    std = size.std(axis=1)
    return float((std[mean > 0] / mean[mean > 0]).mean())


def sparsity(values: Any, *, tolerance: float = 0.01) -> float:
    """Share of values of at most ``tolerance`` times the largest one of their row and output, in
    absolute size.

    Parameters
    ----------
    values : array ``(N, d, K)``, or ``(N, H, W, K)``.
    tolerance : share of the largest value up to which a value counts as zero. The paper does not
        state its own.
    """
    size = _sizes(values)
    return float((size <= tolerance * size.max(axis=1, keepdims=True)).mean())


def _sizes(values: Any) -> np.ndarray:
    """Absolute values ``(N, positions, K)``."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    size = np.abs(np.asarray(values))
    return size.reshape(len(size), -1, size.shape[-1])
