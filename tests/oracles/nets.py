"""Small networks that between them use every supported operation; shared by the tests of this
part."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

Linear = nn.Linear


class Net(nn.Module):
    """A network from modules and a forward function."""

    def __init__(self, run: Callable[..., torch.Tensor], **modules: Any) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.run(self, *inputs)


def brute_force(
    model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, r: torch.Tensor
) -> torch.Tensor:
    """Exact Shapley values of one row against one reference by the definition, all 2^d
    coalitions."""
    d = x.numel()
    masks = torch.tensor([[m >> i & 1 for i in range(d)] for m in range(2**d)], dtype=torch.bool)
    v = model(torch.where(masks, x, r)).detach().double().reshape(2**d)
    sizes = masks.sum(1)
    weight = torch.tensor(
        [1.0 / (d * comb(d - 1, s)) if s < d else 0.0 for s in sizes.tolist()], dtype=torch.float64
    )
    phi = []
    for i in range(d):
        out = ~masks[:, i]
        phi.append((weight[out] * (v[torch.arange(2**d)[out] + 2**i] - v[out])).sum())
    return torch.stack(phi)


def _residual(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = F.relu(net.a(x))
    h = h + F.relu(net.b(h))
    return net.c(F.relu(h) - x[:, :1])


def _written(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = net.a(x)
    y = torch.sigmoid(h)
    h += 1.0  # changes a tensor that the sigmoid has already read
    h[:, 0] = y[:, 1]
    y.mul_(h)
    return net.c(torch.cat([y.relu_(), h], 1))


def _last(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.head(net.body(x)[0][:, -1])


def _sequence_first(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.head(net.body(x.transpose(0, 1))[0][-1])


def _folded(net: Any, x: torch.Tensor) -> torch.Tensor:
    tokens = torch.tanh(net.a(x.reshape(-1, 3)))  # rows and tokens in one axis
    other = torch.tanh(net.a(x.reshape(-1, 4, 3).transpose(0, 1).reshape(-1, 3)))  # tokens first
    return net.c(tokens.reshape(-1, 4 * 5)) + net.c(
        other.reshape(4, -1, 5).transpose(0, 1).reshape(-1, 20)
    )


def _cells(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = c = x.new_zeros(x.shape[0], 5)
    for step in x.unbind(1):
        h, c = net.lstm(step, (h, c))
    return net.head(net.gru(h, c))


def _attention(net: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = nn.Transformer.generate_square_subsequent_mask(
        x.shape[1], dtype=x.dtype, device=x.device
    )
    return net.head(net.body(x, x, x, attn_mask=hidden)[0].mean(1))


def _quiet(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        h = torch.tanh(net.a(x))
    return net.c(F.dropout(h.detach(), 0.5, training=False))


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name -> (network in eval mode, shape of one row); call with the torch seed you want."""

    def mlp(module: nn.Module, out: int = 1) -> tuple[nn.Module, tuple[int, ...]]:
        return nn.Sequential(Linear(6, 8), module, Linear(8, 8), module, Linear(8, out)), (6,)

    def image(*layers: nn.Module, out: int) -> tuple[nn.Module, tuple[int, ...]]:
        return nn.Sequential(*layers, nn.Flatten(), Linear(out, 3)), (1, 8, 8)

    conv, encoder = nn.Conv2d, nn.TransformerEncoderLayer
    pair = {"a": Linear(6, 8), "b": Linear(6, 8), "c": Linear(8, 1)}
    found: dict[str, Any] = {
        "functional residual": (
            Net(_residual, a=Linear(6, 8), b=Linear(8, 8), c=Linear(8, 1)),
            (6,),
        ),
        "reused ReLU": mlp(nn.ReLU(), 2),
        "in place": (Net(_written, a=Linear(6, 8), c=Linear(16, 1)), (6,)),
        "no_grad and detach": (Net(_quiet, a=Linear(6, 8), c=Linear(8, 1)), (6,)),
        "conv relu pool": image(conv(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), out=36),
        "overlapping pool": image(conv(1, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 1, 1), out=144),
        "ceil, dilated, strided": image(
            conv(1, 4, 3, 2, 1, groups=1),
            nn.SiLU(),
            nn.MaxPool2d(2, 1, 0, 2, ceil_mode=True),
            out=16,
        ),
        "functional conv": (
            Net(
                lambda n, x: n.l(F.max_pool2d(F.relu(n.c(x)), 2).view(-1, 36)),
                c=conv(1, 4, 3),
                l=Linear(36, 2),
            ),
            (1, 8, 8),
        ),
        "norms and adaptive pools": image(
            conv(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.InstanceNorm2d(4),
            nn.AdaptiveAvgPool2d(2),
            nn.Dropout(0.5),
            out=16,
        ),
        "transposed conv": image(
            nn.ConvTranspose2d(1, 4, 3, 2), nn.ReLU(), nn.AvgPool2d(2), nn.GroupNorm(2, 4), out=256
        ),
        "grouped conv1d": (
            nn.Sequential(
                nn.Conv1d(4, 8, 3, padding=1, groups=2),
                nn.ReLU(),
                nn.MaxPool1d(2),
                nn.Flatten(),
                Linear(24, 1),
            ),
            (4, 6),
        ),
        "conv3d": (
            nn.Sequential(
                nn.Conv3d(2, 3, 2, stride=(1, 2, 1)),
                nn.ReLU(),
                nn.MaxPool3d(2, 1),
                nn.Flatten(),
                Linear(3, 1),
            ),
            (2, 3, 4, 3),
        ),
        "gate": (Net(lambda n, x: n.c(n.a(x) * torch.sigmoid(n.b(x))), **pair), (6,)),
        "quotient and norm": (
            Net(lambda n, x: n.c(F.normalize(n.a(x)) / (1 + n.b(x) ** 2)), **pair),
            (6,),
        ),
        "two-player units": (
            Net(
                lambda n, x: n.c(torch.maximum(n.a(x), n.b(x)) + torch.atan2(n.a(x), n.b(x))),
                **pair,
            ),
            (6,),
        ),
        "reductions": (
            Net(
                lambda n, x: (
                    n.a(x).std(1) + n.a(x).amin(1) + n.a(x).logsumexp(1) + n.a(x).max(1)[0]
                ),
                a=Linear(6, 8),
            ),
            (6,),
        ),
        "chunk": (
            Net(
                lambda n, x: n.c(torch.relu(torch.cat(n.a(x).chunk(2, 1)[::-1], 1))),
                a=Linear(6, 8),
                c=Linear(8, 1),
            ),
            (6,),
        ),
        "folded rows": (Net(_folded, a=Linear(3, 5), c=Linear(20, 1)), (12,)),
        "bi-LSTM": (
            Net(
                _last,
                body=nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True, proj_size=3),
                head=Linear(6, 1),
            ),
            (4, 4),
        ),
        "sequence-first LSTM": (
            Net(_sequence_first, body=nn.LSTM(4, 5), head=Linear(5, 1)),
            (4, 4),
        ),
        "GRU": (
            Net(
                _last,
                body=nn.GRU(4, 5, 2, bidirectional=True, batch_first=True),
                head=Linear(10, 1),
            ),
            (4, 4),
        ),
        "RNN": (Net(_last, body=nn.RNN(4, 5, batch_first=True), head=Linear(5, 1)), (4, 4)),
        "cells": (
            Net(_cells, lstm=nn.LSTMCell(4, 5), gru=nn.GRUCell(5, 5), head=Linear(5, 1)),
            (4, 4),
        ),
        "attention with mask": (
            Net(_attention, body=nn.MultiheadAttention(8, 2, batch_first=True), head=Linear(8, 1)),
            (5, 8),
        ),
        "transformer layer": (
            nn.Sequential(encoder(8, 2, 16, batch_first=True), nn.Flatten(), Linear(40, 2)),
            (5, 8),
        ),
        "transformer, norm first": (
            nn.Sequential(
                encoder(8, 2, 16, batch_first=True, norm_first=True, activation="gelu"),
                nn.Flatten(),
                Linear(40, 2),
            ),
            (5, 8),
        ),
    }
    scalar = (
        nn.GELU(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.ELU(),
        nn.SELU(),
        nn.CELU(),
        nn.Softplus(),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.Mish(),
        nn.Hardswish(),
        nn.PReLU(8),
        nn.LeakyReLU(),
        nn.ReLU6(),
        nn.Softsign(),
        nn.LogSigmoid(),
        nn.Hardshrink(),
        nn.LayerNorm(8),
        nn.RMSNorm(8),
        nn.Softmax(-1),
        nn.LogSoftmax(-1),
    )
    for module in scalar:
        found[f"{type(module).__name__} {len(found)}"] = mlp(module)
    for module, _ in found.values():
        module.eval()
        for part in module.modules():  # BatchNorm that is not the identity
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2.0)
    return found
