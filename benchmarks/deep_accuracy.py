"""How far are deep_shap's values from the Shapley values they stand for, beside other methods?

Run: OMP_NUM_THREADS=1 python benchmarks/deep_accuracy.py > benchmarks/results/deep_accuracy.txt
Every network has 8 inputs and one output, so the interventional game (features of x inside the
coalition, of a background row outside, averaged over the background) is enumerated. The error is
the root mean square error over rows and features, over the spread of the exact values. Beside it:
integrated gradients with 20 Gauss-Legendre nodes from every background row (what captum does by
default, with 20 steps); stepwise_deep_shap as it comes, two steps along four orderings, which has
eight backward passes for each pair of rows where deep_shap has one; and, where it runs, captum's
DeepLiftShap and shap's DeepExplainer. Each network meets five backgrounds (random rows, a row of
zeros, a row near zero, a constant row, rows that share some inputs with the explained ones), logits
or scores of growing size, and inputs of size 1 and 10.
"""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from math import comb
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from shaplab import deep_shap, integrated_gradients, stepwise_deep_shap

D = 8
ROWS = 3
BACKGROUNDS = ("random", "zero", "near zero", "constant", "shared")


class Net(nn.Module):
    """A network from modules and a forward function, with a scale for its logits."""

    def __init__(self, run: Callable[..., torch.Tensor], gain: float, **parts: Any) -> None:
        super().__init__()
        self.run, self.gain = run, gain
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


class _Cube(torch.autograd.Function):
    """A function with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3 / 3

    @staticmethod
    def backward(ctx: Any, q: torch.Tensor) -> torch.Tensor:
        return q * ctx.saved_tensors[0] ** 2


def _mlp(part: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda n, x: n.c(part(n.b(part(n.gain * n.a(x))))).squeeze(1)


def _hidden(part: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda n, x: n.c(part(n.gain * n.b(torch.tanh(n.a(x))))).squeeze(1)


def _first(part: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda n, x: n.c(torch.tanh(n.b(part(x)))).squeeze(1)


def _last(n: Any, x: torch.Tensor) -> torch.Tensor:
    return n.c(n.body(n.gain * x.reshape(-1, 4, 2))[0][:, -1]).squeeze(1)


def _tokens(n: Any, x: torch.Tensor) -> list[torch.Tensor]:
    tokens = n.t(x.reshape(-1, 4, 2))
    return [n.gain * n.q(tokens), n.k(tokens), n.v(tokens)]


def _fused(n: Any, x: torch.Tensor) -> torch.Tensor:
    return n.c(F.scaled_dot_product_attention(*_tokens(n, x)).mean(1)).squeeze(1)


def _by_hand(n: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = _tokens(n, x)
    weights = torch.exp(q @ k.transpose(1, 2) * 0.5)
    return n.c((weights / weights.sum(-1, keepdim=True) @ v).mean(1)).squeeze(1)


def _pooling(n: Any, x: torch.Tensor) -> torch.Tensor:
    tokens = torch.tanh(n.t(x.reshape(-1, 4, 2)))
    weights = (n.gain * n.s(tokens)).softmax(1)
    return n.c((weights * tokens).sum(1)).squeeze(1)


def _rotary(n: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = _tokens(n, x)
    angle = torch.polar(torch.ones(4, 2, dtype=x.dtype), torch.arange(8.0).reshape(4, 2).to(x))
    q, k = (
        torch.view_as_real(torch.view_as_complex(t.reshape(-1, 4, 2, 2)) * angle).flatten(2)
        for t in (q, k)
    )
    return n.c(F.scaled_dot_product_attention(q, k, v).mean(1)).squeeze(1)


def _standard(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


def _variance(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-5)


def _share(x: torch.Tensor) -> torch.Tensor:
    positive = torch.exp(x)
    return positive / positive.sum(1, keepdim=True)


def _squeeze(n: Any, x: torch.Tensor) -> torch.Tensor:
    maps = torch.relu(n.m(x.reshape(-1, 1, 8)))
    scale = torch.sigmoid(n.gain * n.s(torch.relu(n.r(maps.mean(2)))))
    return n.c((maps * scale[..., None]).amax(2)).squeeze(1)


def _grid(n: Any, x: torch.Tensor) -> torch.Tensor:
    place = torch.tanh(n.a(x)).reshape(-1, 2, 2, 2)
    return F.grid_sample(x.reshape(-1, 1, 2, 4), place, align_corners=False).sum((1, 2, 3))


SHAPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "LayerNorm": lambda x: F.layer_norm(x, (D,)),
    "GroupNorm": lambda x: F.group_norm(x.reshape(-1, 2, 4), 2).flatten(1),
    "InstanceNorm": lambda x: F.instance_norm(x.reshape(-1, 2, 4)).flatten(1),
    "RMSNorm": lambda x: F.rms_norm(x, (D,)),
    "F.normalize": F.normalize,
    "standardise": _standard,
    "variance by hand": _variance,
    "softmax": lambda x: x.softmax(1),
    "log-softmax": lambda x: x.log_softmax(1),
    "exp over sum": _share,
}
FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "elu": F.elu,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
    "silu gate": lambda x: x * torch.sigmoid(x),
    "silu": F.silu,
}
ENDS: dict[str, Callable[..., torch.Tensor]] = {
    "softmax of an MLP": lambda n, x: (n.gain * n.b(torch.tanh(n.a(x)))).softmax(1)[:, 0],
    "logsumexp": lambda n, x: (n.gain * n.a(x)).logsumexp(1),
    "norm": lambda n, x: (n.gain * n.a(x)).norm(dim=1),
    "std": lambda n, x: n.a(x).std(1),
    "maximum": lambda n, x: n.a(x).amax(1),
    "gate": lambda n, x: n.c(n.a(x) * torch.sigmoid(n.gain * n.b(x))).squeeze(1),
    "tanh gate": lambda n, x: n.c(torch.tanh(n.a(x)) * torch.sigmoid(n.gain * n.b(x))).squeeze(1),
    "glu": lambda n, x: n.h(F.glu(n.gain * n.a(x), 1)).squeeze(1),
    "product": lambda n, x: n.c(n.a(x) * n.b(x)).squeeze(1),
    "quotient": lambda n, x: n.c(n.a(x) / (1 + n.b(x) ** 2)).squeeze(1),
    "quotient of softplus": lambda n, x: n.c(n.a(x) / (0.1 + F.softplus(n.b(x)))).squeeze(1),
    "atan2": lambda n, x: n.c(torch.atan2(n.a(x), n.b(x))).squeeze(1),
    "cosine similarity": lambda n, x: F.cosine_similarity(n.a(x), n.b(x)),
    "pairwise distance": lambda n, x: F.pairwise_distance(n.a(x), n.b(x)),
    "cdist": lambda n, x: torch.cdist(n.a(x)[:, None], n.b(x)[:, None]).flatten(),
    "prod": lambda n, x: torch.prod(1 + 0.3 * torch.tanh(n.a(x)), 1),
    "cumprod": lambda n, x: n.c(torch.cumprod(1 + 0.3 * torch.tanh(n.a(x)), 1)).squeeze(1),
    "lerp": lambda n, x: n.c(torch.lerp(n.a(x), n.b(x), torch.sigmoid(x))).squeeze(1),
    "sort": lambda n, x: n.c(torch.sort(n.a(x), 1)[0]).squeeze(1),
    "topk": lambda n, x: torch.topk(n.a(x), 3, 1)[0].sum(1),
    "einsum of three": lambda n, x: torch.einsum("ni,ni,ni->n", n.a(x), n.b(x), torch.tanh(x)),
    "cross entropy": lambda n, x: F.cross_entropy(
        n.gain * n.a(x), torch.zeros(len(x), dtype=torch.long), reduction="none"
    ),
    "logit": lambda n, x: torch.logit(torch.sigmoid(n.a(x)) * 0.9 + 0.05).sum(1) + n.b(x)[:, 0],
    "fft": lambda n, x: torch.fft.rfft(n.a(x)).abs().sum(1),
    "custom function": lambda n, x: n.c(_Cube.apply(n.a(x))).squeeze(1),
    "scatter_reduce": lambda n, x: (
        torch.zeros(len(x), 4, dtype=x.dtype)
        .scatter_reduce(1, (torch.arange(8) % 4).expand(len(x), 8), n.a(x), "amax")
        .sum(1)
    ),
}


def networks(gain: float) -> Iterator[tuple[str, nn.Module]]:
    """Networks with 8 inputs, in double precision and evaluation mode."""

    def build(name: str, run: Callable[..., torch.Tensor], **parts: Any) -> tuple[str, nn.Module]:
        return name, Net(run, gain, **parts).double().eval()

    def three() -> dict[str, nn.Module]:
        parts = {"a": nn.Linear(D, D), "b": nn.Linear(D, D), "c": nn.Linear(D, 1)}
        return {**parts, "h": nn.Linear(D // 2, 1)}

    def attention() -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {key: nn.Linear(4, 4) for key in "qkv"}
        return {**parts, "t": nn.Linear(2, 4), "c": nn.Linear(4, 1), "s": nn.Linear(4, 1)}

    for name, part in FUNCTIONS.items():
        yield build(name, _mlp(part), **three())
    for name, part in SHAPES.items():
        yield build(f"hidden {name}", _hidden(part), **three())
        if gain == 1:
            yield build(f"{name} first", _first(part), **three())
    for name, end in ENDS.items():
        yield build(name, end, **three())
    for name, run in (
        ("self-attention, fused", _fused),
        ("self-attention by hand", _by_hand),
        ("attention pooling", _pooling),
        ("rotary attention", _rotary),
    ):
        yield build(name, run, **attention())
    for name, body in (
        ("LSTM", nn.LSTM(2, 4, batch_first=True)),
        ("GRU", nn.GRU(2, 4, batch_first=True)),
    ):
        yield build(name, _last, body=body, c=nn.Linear(4, 1))
    squeeze = {"m": nn.Conv1d(1, 4, 3), "r": nn.Linear(4, 2), "s": nn.Linear(2, 4)}
    yield build("squeeze and excite", _squeeze, **squeeze, c=nn.Linear(4, 1))
    yield build("grid_sample", _grid, a=nn.Linear(8, 8))
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation="gelu")
    yield build(
        "transformer layer",
        lambda n, x: n.c(n.body(n.gain * n.t(x.reshape(-1, 4, 2))).mean(1)).squeeze(1),
        body=encoder,
        t=nn.Linear(2, 4),
        c=nn.Linear(4, 1),
    )


def backgrounds(kind: str, X: torch.Tensor, size: float) -> torch.Tensor:
    """Rows of one kind of background."""
    if kind == "random":
        return size * torch.randn(3, D, dtype=X.dtype)
    if kind == "zero":
        return torch.zeros(1, D, dtype=X.dtype)
    if kind == "near zero":
        return 1e-6 * torch.randn(1, D, dtype=X.dtype)
    if kind == "constant":
        return torch.full((1, D), 0.7 * size, dtype=X.dtype)
    shared = size * torch.randn(3, D, dtype=X.dtype)
    shared[:, :3] = X[0, :3]
    return shared


def enumerate_values(model: Any, x: torch.Tensor, r: torch.Tensor) -> np.ndarray:
    """Exact Shapley values of one row against one background row."""
    masks = torch.tensor([[m >> i & 1 for i in range(D)] for m in range(2**D)], dtype=torch.bool)
    with torch.no_grad():
        v = model(torch.where(masks, x, r)).double().numpy()
    sizes = masks.sum(1).numpy()
    found = np.zeros(D)
    for i in range(D):
        out = np.flatnonzero(~masks[:, i].numpy())
        weight = np.array([1.0 / (D * comb(D - 1, int(s))) for s in sizes[out]])
        found[i] = (weight * (v[out + 2**i] - v[out])).sum()
    return found


def exact(model: Any, X: torch.Tensor, B: torch.Tensor) -> np.ndarray:
    """Exact Shapley values ``(N, 8)`` of the interventional game."""
    return np.array([np.mean([enumerate_values(model, x, r) for r in B], axis=0) for x in X])


def cases(gains: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)) -> Iterator[tuple[Any, ...]]:
    """Name, gain, size of inputs, background, model and both tables."""
    for gain in gains:
        for size in (1.0, 10.0) if gain == 1.0 else (1.0,):
            torch.manual_seed(0)
            for name, model in networks(gain):
                X = size * torch.randn(ROWS, D, dtype=torch.float64)
                for kind in BACKGROUNDS:
                    B = backgrounds(kind, X, size)
                    if kind == "shared":
                        X = X.clone()
                        X[:, :3] = X[0, :3]
                    yield name, gain, size, kind, model, X, B


def errors(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Root mean square error over the spread, and the largest value over the largest exact one."""
    spread = float(np.std(truth))
    error = float(np.sqrt(np.mean((values - truth) ** 2))) / spread
    return error, float(np.abs(values).max() / np.abs(truth).max())


def in_steps(model: nn.Module, X: torch.Tensor, B: torch.Tensor) -> np.ndarray:
    """Two steps along two orderings and their reverses: eight backward passes a pair of rows."""
    found: Any = stepwise_deep_shap(model, X, B, steps=2, orderings=4, rng=0)
    return np.asarray(found.values)


def with_captum(model: nn.Module, X: torch.Tensor, B: torch.Tensor) -> np.ndarray:
    from captum.attr import DeepLiftShap

    return DeepLiftShap(model).attribute(X, B).detach().numpy()


def with_shap(model: nn.Module, X: torch.Tensor, B: torch.Tensor) -> np.ndarray:
    import shap

    wide = nn.Sequential(model, nn.Unflatten(0, (-1, 1)))
    found = shap.DeepExplainer(wide, B).shap_values(X, check_additivity=False)
    return np.asarray(found).reshape(X.shape)


def measure(
    gains: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0), full: bool = True
) -> list[dict[str, Any]]:
    """Errors of every case; peers only when ``full``."""
    rows = []
    for name, gain, size, kind, model, X, B in cases(gains):
        truth = exact(model, X, B)
        row: dict[str, Any] = {"name": name, "gain": gain, "size": size, "background": kind}
        if not np.std(truth) > 1e-9:  # nothing to share, or a model that is NaN itself
            continue
        row["IG"] = errors(integrated_gradients(model, X, B, steps=20).values, truth)[0]
        methods: dict[str, Any] = {
            "deep_shap": lambda m, x, b: deep_shap(m, x, b).values,
            "in steps": in_steps,
            "float32": lambda m, x, b: deep_shap(m.float(), x.float(), b.float()).values,
        }
        if full:
            methods |= {"captum": with_captum, "shap": with_shap}
        for method, run in methods.items():
            try:
                row[method], row[f"{method} largest"] = errors(run(model, X, B), truth)
            except Exception as problem:
                row[method], row[f"{method} largest"] = np.nan, np.nan
                row[f"{method} refused"] = str(problem)
            finally:
                model.double()
        rows.append(row)
    return rows


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows = measure()
    print(f"python {platform.python_version()}", end="")
    for package in ("torch", "captum", "shap"):
        print(f", {package} {metadata.version(package)}", end="")
    print(f"\n{len(rows)} cases; error over spread, median over backgrounds and scales, worst\n")
    print(f"{'network':<26}{'deep_shap':>16}{'in 2 steps':>16}{'IG, 20 steps':>16}", end="")
    print(f"{'captum':>16}{'shap':>16}")
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        cells = []
        for method in ("deep_shap", "in steps", "IG", "captum", "shap"):
            found = np.array([row[method] for row in mine])
            if np.isnan(found).all():
                cells.append("-")
                continue
            cells.append(f"{np.nanmedian(found):.2f} {np.nanmax(found):.2g}")
        print(f"{name:<26}" + "".join(f"{cell:>16}" for cell in cells))
    summary(rows)


def summary(rows: list[dict[str, Any]]) -> None:
    """Print how the targets are met."""
    ig = np.array([row["IG"] for row in rows])
    print(f"\nmedian of IG: {np.median(ig):.3f}")
    for method in ("deep_shap", "in steps"):
        ours = np.array([row[method] for row in rows])
        largest = np.array([row[f"{method} largest"] for row in rows])
        refused = np.isnan(ours)
        ratio = ours[~refused] / np.maximum(ig[~refused], 1e-6)
        bad = ours > np.maximum(1.5 * ig, 0.6)
        print(f"{method}: median {np.nanmedian(ours):.3f}; median of the ratio to IG ", end="")
        print(
            f"{np.median(ratio):.3f}; refused: {refused.sum()} cases; above max(1.5 IG, .6): ",
            end="",
        )
        print(f"{bad.sum()}; largest value over 3 x exact: {(largest > 3).sum()}")
    if "-v" not in sys.argv:
        return
    for row in rows:
        ours = row["deep_shap"]
        near = ours <= max(1.5 * row["IG"], 0.6)  # not so for NaN: a case that was refused
        if not near or row["deep_shap largest"] > 3:
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
