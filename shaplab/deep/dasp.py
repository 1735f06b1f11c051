r"""DASP: Shapley values of a network by propagating the distribution of random coalitions.

For player :math:`i` let the other :math:`n-1` players form a random coalition of size :math:`k`.
What a linear layer then sees is a sum of :math:`k` random terms, so it is described by its mean and
variance, and these are carried through the network (``shaplab.deep.moments``). The value of
:math:`i` is the mean over :math:`k` of the output's mean with :math:`i` present minus without. With
contributions :math:`c_j` of single players to a unit before the first non-linearity, :math:`N' =
n-1` and :math:`j \ne i`,

.. math:: \mu = \mu_b + \tfrac{k}{N'} \sum_j c_j, \qquad
          v = \tfrac{k (N'-k)}{N'(N'-1)} \Bigl[\sum_j c_j^2 - \tfrac{1}{N'} \bigl(\sum_j
          c_j\bigr)^2\Bigr].

Exact for networks that are linear in the players; otherwise an approximation whose additivity gap
is reported. Source: Ancona, Öztireli and Gross (2019). Cost: two propagations a player and
coalition size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shaplab._parallel import chunks, progress_bar
from shaplab._validation import (
    UnsupportedModelError,
    check_choice,
    check_frames,
    check_int,
    check_names,
    column_names,
    fail,
    imported,
    row_labels,
)
from shaplab.deep._propagation import Propagation
from shaplab.explanation import Explanation

__all__ = ["coalition_moments_literal", "compare_attributions", "dasp", "size_nodes"]


def coalition_moments_literal(contributions: np.ndarray, i: int, k: int) -> tuple[float, float]:
    """Mean and variance of the sum of k contributions drawn without replacement from all but the
    i-th."""
    others = [c for j, c in enumerate(contributions) if j != i]
    count = len(others)
    mean = sum(others) / count
    if count == 1:
        return k * mean, 0.0
    population = sum((c - mean) ** 2 for c in others) / count
    return k * mean, k * population * (1 - (k - 1) / (count - 1))


def size_nodes(
    n_players: int, sizes: int | str | Sequence[int], method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Coalition sizes of the others, as shares of ``n - 1``, and their weights.

    Parameters
    ----------
    n_players : int
    sizes : "all", a number of quadrature nodes, or a list of sizes 0 to n - 1.
    method : "hypergeometric" or "owen".

    Returns
    -------
    arrays ``(K,)``: shares in [0, 1] and weights with sum 1.

    Notes
    -----
    A number K gives the Gauss quadrature for the uniform distribution on the sizes 0 to n - 1 (by
    the recurrence of the Gram polynomials), or Gauss-Legendre on [0, 1] for "owen". Both integrate
    polynomials up to degree 2K - 1 without error, where evenly spaced sizes are biased.
    """
    n = n_players
    if isinstance(sizes, str):
        check_choice(sizes, "sizes", ["all"])
        if method == "hypergeometric":
            return np.arange(n) / max(1, n - 1), np.full(n, 1.0 / n)
        sizes = n
    if isinstance(sizes, int | np.integer):
        count = check_int(sizes, "sizes", maximum=n if method == "hypergeometric" else None)
        if method == "owen":
            nodes, weights = np.polynomial.legendre.leggauss(count)
            return (nodes + 1) / 2, weights / 2
        j = np.arange(1, count)
        off = np.sqrt(j**2 * (n**2 - j**2) / (4.0 * (4.0 * j**2 - 1)))
        nodes, axes = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
        return np.clip((nodes + (n - 1) / 2) / max(1, n - 1), 0, 1), axes[0] ** 2
    chosen = np.array([check_int(k, "sizes", minimum=0, maximum=n - 1) for k in sizes], dtype=float)
    if len(chosen) == 0:
        fail(
            "sizes",
            '"all", a number of nodes, or a list of sizes',
            "an empty list",
            "Name at least one size",
        )
    return chosen / max(1, n - 1), np.full(len(chosen), 1.0 / len(chosen))


def like_parameters(model: torch.nn.Module, value: Any, argument: str) -> Tensor:
    """Rows with the dtype and device of the model's parameters, float64 when it has none."""
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    if first is None or not first.is_floating_point():
        first = torch.zeros(1, dtype=torch.float64)
    try:
        rows = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.array(value))
    except (TypeError, ValueError):
        fail(argument, "an array or tensor (n, ...)", value, "Pass numbers", TypeError)
    rows = rows.to(first)
    if not torch.isfinite(rows).all():
        fail(argument, "finite numbers", "NaN or infinity", "Impute missing values first")
    return rows


@torch.inference_mode(False)
def dasp(
    model: torch.nn.Module,
    X: Any,
    baseline: Any,
    *,
    sizes: int | str | Sequence[int] = "all",
    method: str = "hypergeometric",
    covariance: str = "diagonal",
    players: str = "features",
    normalize: bool = False,
    batch_size: int = 4096,
    progress: bool = False,
    feature_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Explanation:
    """Approximate Shapley values of a network by propagating distributions of coalitions.

    Parameters
    ----------
    model : torch.nn.Module in evaluation mode, ``(n, ...)`` to ``(n,)`` or ``(n, K)``. Explain
        scores before a softmax.
    X : array or tensor ``(N, ...)``, rows to explain.
    baseline : array or tensor with the shape of one row, or ``(B, ...)`` rows to average over.
    sizes : coalition sizes of the other players: "all" (0 to n - 1), a number of quadrature nodes,
        or a list.
    method : "hypergeometric" draws coalitions of a fixed size, as in the paper; "owen" lets every
        other player be present with probability p and integrates over p by Gauss-Legendre.
    covariance : "diagonal" carries variances and takes the units of a layer as independent; "full"
        carries how each unit depends on the players to second order, and so all covariances;
        "skewed" third cumulants, too. The last two lower the error while sums are nearly normal,
        and can raise it in a network that bends much. They are for few players: each propagation
        costs ``n (n + 3) / 2`` more passes.
    players : "features", every input entry; or "pixels", all channels of a position together.
    normalize : True spreads each row's additivity gap over its values in proportion to their size.
    batch_size : rows in one run, at least ``n + 1``; bounds memory.
    progress : show a progress bar.
    feature_names, output_names : names of the players (the columns of a DataFrame by default) and
        of the outputs.

    Returns
    -------
    Explanation
        ``values`` has the input's shape (``(N, *spatial)`` for pixels), and a last axis exactly
        when the model's output has one. ``info`` holds ``gap``, f(x) minus base minus the values as
        propagated, and ``evaluations``, all propagations.

    Raises
    ------
    UnsupportedModelError
        For an operation without a moment rule, by name and place; and when the output propagated
        for nobody or everybody present, which leaves nothing to chance, is not the model's.

    Notes
    -----
    Approximate: the network's units are treated as Gaussian (nearly, if "skewed"). Where random
    tensors are added (residual links) or entries repeated (reflecting padding) "diagonal" takes
    them as independent. Networks without a non-linearity are exact. Cost: ``2 K`` propagations for
    each player, row and reference, and one run more to check the model; a propagation has the
    multiplications of about two forward passes (diagonal), and takes the time of several, of dozens
    through convolutions.

    References
    ----------
    Ancona, Öztireli and Gross, "Explaining Deep Neural Networks with a Polynomial Time Algorithm
    for Shapley Values Approximation" (2019).

    Examples
    --------
    >>> net = torch.nn.Linear(2, 1, bias=False).double()
    >>> _ = torch.nn.init.ones_(net.weight)
    >>> dasp(net, [[1.0, 2.0]], [0.0, 0.0]).values
    array([[1., 2.]])
    """
    if not isinstance(model, torch.nn.Module):
        fail(
            "model",
            "a torch.nn.Module",
            type(model).__name__,
            "Wrap the function in a Module",
            TypeError,
        )
    check_choice(method, "method", ["hypergeometric", "owen"])
    check_choice(covariance, "covariance", ["diagonal", "full", "skewed"])
    pixels = check_choice(players, "players", ["features", "pixels"]) == "pixels"
    batch = check_int(batch_size, "batch_size")
    check_frames(X, baseline, "baseline")
    rows = like_parameters(model, X, "X")
    references = like_parameters(model, baseline, "baseline")
    if rows.ndim < 2 or len(rows) == 0:
        fail("X", "rows (N, ...)", f"shape {tuple(rows.shape)}", "Give a single row as X[None]")
    if pixels and rows.ndim < 3:
        fail(
            "X",
            "shape (N, channels, ...) for pixel players",
            f"shape {tuple(rows.shape)}",
            'Use players="features"',
        )
    if references.ndim == rows.ndim - 1:
        references = references[None]
    if references.shape[1:] != rows.shape[1:] or len(references) == 0:
        fail(
            "baseline",
            f"rows of shape {tuple(rows.shape[1:])}",
            f"shape {tuple(references.shape)}",
            "Match X",
        )
    shape = tuple(rows.shape[2:] if pixels else rows.shape[1:])
    n = int(np.prod(shape))
    shares, weights = size_nodes(n, sizes, method)
    # One row for each player: where its entries are.
    masks = torch.eye(n, dtype=torch.bool, device=rows.device)
    masks = masks.reshape(n, *((1,) if pixels else ()), *shape)
    propagator = _Propagator(model, masks, method, covariance)
    ends = propagator.means(rows[0], references[0], np.arange(1), np.array([0.0, 1.0]))
    with torch.no_grad():
        # That run has refused dropout and batch statistics: the model may run unwatched.
        top = model(rows).double()
        base = model(references).double()
    _check_ends(ends, top, base, torch.finfo(rows.dtype).eps)
    several = top.ndim == 2
    with progress_bar(len(rows) * len(references) * n, progress, "dasp") as bar:
        step = _players_at_once(n, len(shares), batch, covariance)
        values = _values(propagator, (rows, references), (shares, weights), step, bar)
    center = base.mean(0).reshape(-1).cpu()
    gap = top.reshape(len(rows), -1).cpu() - center - values.sum(1)
    if normalize:
        values = values + gap[:, None] * _shares_by_size(values)
    result = values.reshape(len(rows), *shape, -1)
    names = column_names(X) if feature_names is None else feature_names
    scaled = ", normalised" if normalize else ""
    return Explanation(
        (result if several else result[..., 0]).numpy(),
        (center if several else center[0]).expand(gap.shape if several else (len(rows),)).numpy(),
        data=(rows.float() if rows.dtype.itemsize < 4 else rows).cpu().numpy(),
        feature_names=check_names(names, n, "feature_names"),
        output_names=None if output_names is None else tuple(output_names),
        index=row_labels(X),
        method=f"dasp ({method}, {len(shares)} sizes, {covariance} covariance{scaled})",
        info={
            "gap": (gap if several else gap[:, 0]).numpy(),
            "evaluations": 2 * len(shares) * n * len(references) * len(rows),
        },
    )


@dataclass(frozen=True)
class _Propagator:
    """A network and how coalitions are drawn; ``masks`` tell each player's entries in a row."""

    model: torch.nn.Module
    masks: Tensor
    method: str
    covariance: str

    def means(self, x: Tensor, b: Tensor, players: np.ndarray, shares: np.ndarray) -> Tensor:
        """Means of the outputs ``(players, shares, 2, K)``, without and with the player."""
        run = Propagation(self.model, players, shares, self.method, self.covariance)
        alone = torch.where(self.masks, x, b)
        with torch.no_grad(), run:
            out = self.model(run.leaf(torch.cat([b[None], alone])))
        mean = run.moments(out).mean[: 2 * len(shares) * len(players)].double().cpu()
        return mean.reshape(len(players), len(shares), 2, -1)


def _players_at_once(n: int, sizes: int, batch: int, covariance: str) -> int:
    """How many players share one run: the batch bounds rows and terms, and plain rows must fit."""
    pair = 2 * sizes
    passes = 1 if covariance == "diagonal" else 1 + n * (n + 3) // 2
    return max(-(-(n + 1) // pair), batch // (pair * passes))


def _values(
    propagator: _Propagator,
    tables: tuple[Tensor, Tensor],
    sizes: tuple[np.ndarray, np.ndarray],
    step: int,
    bar: Any,
) -> Tensor:
    """Values ``(N, n, K)``: weighted over the sizes, averaged over the references."""
    rows, references = tables
    shares, weights = sizes
    n = len(propagator.masks)
    weight = torch.as_tensor(weights, device="cpu")
    values = torch.zeros(len(rows), n, 1, dtype=torch.float64, device="cpu")
    for r, x in enumerate(rows):
        for b in references:
            for part in chunks(n, step):
                mean = propagator.means(x, b, np.arange(n)[part], shares)
                if mean.shape[3] > values.shape[2]:
                    values = values.repeat(1, 1, mean.shape[3])
                difference = mean[:, :, 1] - mean[:, :, 0]
                mine = torch.einsum("iko,k->io", difference, weight)
                values[r, part] += mine / len(references)
                bar.update(part.stop - part.start)
    return values


def _check_ends(ends: Tensor, top: Tensor, base: Tensor, digits: float) -> None:
    """Refuse a model whose output for nobody and for everybody, where nothing is left to chance, is
    not the propagated one; as with the sums of deep_shap, beside the change of output."""
    scale = max(top.abs().max().item(), base.abs().max().item())
    rise = (top.amax(0) - base.amin(0)).max().item()
    fall = (base.amax(0) - top.amin(0)).max().item()
    change = max(rise, fall)
    allowed = min(0.1, 10 * digits**0.5) * change + 30 * digits * scale
    nobody = ends[0, 0, 0]
    everybody = ends[0, 1, 1]
    for mean, true, what in ((nobody, base[0], "nobody"), (everybody, top[0], "everybody")):
        off = (mean - true.reshape(-1).cpu()).abs().max().item()
        if not off <= allowed:  # also NaN
            fail(
                "model",
                f"the model's own output for the coalition of {what}",
                f"one that is {off:.3g} off, where the outputs change by up to {change:.3g}",
                "Some step is hidden from torch "
                "or mixes rows; rewrite it in torch operations on the input, row by row",
                UnsupportedModelError,
            )


def _shares_by_size(values: Tensor) -> Tensor:
    """Shares ``(N, n, K)`` of each row's total size; equal ones where all values are 0."""
    size = values.abs()
    total = size.sum(1, keepdim=True)
    return torch.where(total > 0, size / total.clamp_min(1e-300), 1.0 / values.shape[1])


def compare_attributions(truth: np.ndarray, methods: Mapping[str, Callable[[], Any]]) -> Any:
    """Error, rank agreement and cost of several ways to attribute, beside a known truth.

    Parameters
    ----------
    truth : array ``(N, d)``, exact or well-converged values.
    methods : name -> callable without arguments that returns an Explanation of the same rows, or an
        array ``(N, d)``.

    Returns
    -------
    DataFrame indexed by name: ``RMSE`` (in the output's unit), ``Spearman`` (mean over rows),
    ``evaluations per feature`` (from ``info``, NaN when unknown) and ``CPU seconds``.
    """
    from scipy.stats import spearmanr

    pd = imported("pandas", "compare_attributions")
    truth = np.asarray(truth, dtype=np.float64).reshape(len(truth), -1)
    if not methods:
        fail(
            "methods",
            "at least one method",
            methods,
            "Pass a dict from name to a callable without arguments",
        )
    lines = {}
    for name, call in methods.items():
        start = time.process_time()
        result = call()
        seconds = time.process_time() - start
        values = np.asarray(getattr(result, "values", result), dtype=np.float64)
        if values.size != truth.size:
            fail(
                f"methods[{name!r}]",
                f"values of shape {truth.shape}, as truth has",
                f"shape {values.shape}",
                "Explain the same rows and one output",
            )
        values = values.reshape(truth.shape)
        ranks = [spearmanr(a, b).statistic for a, b in zip(values, truth, strict=True)]
        cost = getattr(result, "info", {}).get("evaluations", np.nan)
        error = float(np.sqrt(((values - truth) ** 2).mean()))
        lines[name] = {
            "RMSE": error,
            "Spearman": float(np.mean(ranks)),
            "evaluations per feature": cost / truth.size,
            "CPU seconds": seconds,
        }
    return pd.DataFrame(lines).T
