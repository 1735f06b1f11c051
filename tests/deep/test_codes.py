"""Integers and masks: every way in which a model may touch them before they become numbers.

Oracle: enumeration over the integer inputs. A network in which each code acts through one table
entry, with at most one scalar function behind it, has exact values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from oracles.nets import Linear, Net, brute_force
from torch import nn

from shaplab import UnsupportedModelError, deep_shap

RNG = np.random.default_rng(0)
X, B = torch.tensor(RNG.integers(1, 9, (3, 5))), torch.tensor(RNG.integers(1, 9, (4, 5)))


def _sum(n: Any, words: torch.Tensor) -> torch.Tensor:
    return n.l(torch.tanh(words).sum(1))[:, 0]


def _overwritten(n: Any, i: torch.Tensor) -> torch.Tensor:
    codes = i.clone()
    codes[codes > 5] = 0
    codes += 1
    return _sum(n, n.e(codes))


EXACT: dict[str, Callable[..., torch.Tensor]] = {
    "offset": lambda n, i: _sum(n, n.e(i + torch.arange(5) * 2)),
    "remainder": lambda n, i: _sum(n, n.e(i % 4)),
    "clamp": lambda n, i: _sum(n, n.e(i.clamp(max=6))),
    "where": lambda n, i: _sum(n, n.e(torch.where(i > 5, torch.zeros_like(i), i))),
    "masked_fill": lambda n, i: _sum(n, n.e(i.masked_fill(i > 5, 0))),
    "overwritten": _overwritten,
    "stack": lambda n, i: _sum(n, n.e(torch.stack([i[:, k] for k in range(5)], 1))),
    "all tokens kept": lambda n, i: _sum(n, n.e(i[i > 0].reshape(len(i), 5))),
    "picked by name": lambda n, i: _sum(
        n, n.e(torch.index_select(input=i, dim=1, index=torch.arange(5)))
    ),
    "first token added": lambda n, i: _sum(n, n.e(F.pad(i, (1, 0), value=9))),
    "token joined": lambda n, i: _sum(n, n.e(torch.cat([torch.full_like(i[:, :1], 9), i], 1))),
    "parameter[codes]": lambda n, i: _sum(n, n.e.weight[i]),
    "parameter[:, codes]": lambda n, i: torch.tanh(n.e.weight.T[:, i]).sum((0, 2)),
    "index_select": lambda n, i: _sum(
        n, n.e.weight.index_select(0, i.reshape(-1)).reshape(len(i), 5, 3)
    ),
    "gather": lambda n, i: torch.tanh(n.e.weight[:, 0].expand(len(i), 20).gather(1, i)).sum(1),
    "one_hot": lambda n, i: torch.tanh(n.o(F.one_hot(i, 20).double())).sum((1, 2)),
    "code of a code": lambda n, i: _sum(n, n.e(torch.arange(20).flip(0)[i])),
    "double": lambda n, i: torch.tanh(i.double() / 9).sum(1),
    "mask": lambda n, i: n.l((torch.tanh(n.e(i)) * (i > 4).double()[..., None]).sum(1))[:, 0],
    "mask in where": lambda n, i: n.l(
        torch.where((i > 4)[..., None], torch.tanh(n.e(i)), 0.0).sum(1)
    )[:, 0],
    "mask in masked_fill": lambda n, i: n.l(
        torch.tanh(n.e(i)).masked_fill(~(i > 4)[..., None], 0.0).sum(1)
    )[:, 0],
    "isin": lambda n, i: torch.isin(i, torch.tensor([1, 3])).double().sum(1),
    "EmbeddingBag, padded sum": lambda n, i: n.l(n.kept(i))[:, 0],
    "two masks": lambda n, i: ((i > 2) & (i < 7) | (i == 8)).double().sum(1),
}


def _model(run: Callable[..., torch.Tensor]) -> Net:
    torch.manual_seed(0)
    parts: dict[str, Any] = {"e": nn.Embedding(20, 3), "l": Linear(3, 1), "o": Linear(20, 1)}
    parts["bag"] = nn.EmbeddingBag(20, 3, mode="mean")
    parts["padded"] = nn.EmbeddingBag(20, 3, mode="mean", padding_idx=5)
    parts["kept"] = nn.EmbeddingBag(20, 3, mode="sum", padding_idx=5)
    parts["top"] = nn.EmbeddingBag(20, 3, mode="max", padding_idx=5)
    parts["total"] = nn.EmbeddingBag(20, 3, mode="sum")
    return Net(run, **parts).double().eval()


def _exact(model: Net) -> np.ndarray:
    return np.mean([[brute_force(model, x, r).numpy() for r in B] for x in X], axis=1)


@pytest.mark.parametrize("name", list(EXACT))
def test_codes_are_followed_to_where_they_become_numbers(name: str) -> None:
    model = _model(EXACT[name])
    found = deep_shap(model, X, B).values
    # One function of each code: exact, up to rounding.
    assert_allclose(found, _exact(model), atol=1e-12)


NEAR: dict[str, tuple[Callable[..., torch.Tensor], float]] = {
    "EmbeddingBag, mean": (lambda n, i: n.l(torch.tanh(n.bag(i)))[:, 0], 0.1),
    "EmbeddingBag, sum": (lambda n, i: n.l(torch.tanh(n.total(i)))[:, 0], 0.6),
    "EmbeddingBag, padded mean": (lambda n, i: n.l(n.padded(i))[:, 0], 0.6),
    "masked mean": (
        lambda n, i: n.l(
            (torch.tanh(n.e(i)) * (i > 4)[..., None]).sum(1)
            / (i > 4).sum(1, keepdim=True).clamp(min=1)
        )[:, 0],
        0.6,
    ),
    "masked attention": (
        lambda n, i: n.l(
            (n.e(i).sum(-1).masked_fill(i > 6, -1e9).softmax(1)[..., None] * n.e(i)).sum(1)
        )[:, 0],
        1.0,
    ),
}


@pytest.mark.parametrize("name", list(NEAR))
def test_masks_and_bags_add_up_and_stay_near_enumeration(name: str) -> None:
    run, bound = NEAR[name]
    model = _model(run)
    found, exact = deep_shap(model, X, B), _exact(model)
    change = (model(X) - model(B).mean()).detach().numpy()
    assert_allclose(found.values.sum(1), change, atol=1e-12)
    # Several codes meet in one function here; bounds are the measured errors, rounded up.
    assert np.sqrt(np.mean((found.values - exact) ** 2)) / exact.std() < bound


def test_infinite_masks_behind_a_softmax_add_up() -> None:
    model = _model(
        lambda n, i: n.l(
            (n.e(i).sum(-1).masked_fill(i > 7, -torch.inf).softmax(1)[..., None] * n.e(i)).sum(1)
        )[:, 0]
    )
    found = deep_shap(model, X, B)
    change = (model(X) - model(B).mean()).detach().numpy()
    assert_allclose(found.values.sum(1), change, atol=1e-9)


def test_a_bag_behind_a_large_constant_is_explained_not_silently_zero() -> None:
    model = _model(lambda n, i: n.l(n.bag(i))[:, 0])
    nn.init.constant_(model.l.bias, 100.0)
    assert_allclose(deep_shap(model, X, B).values, _exact(model), atol=1e-12)


def test_images_of_bytes_are_explained_as_numbers() -> None:
    model = _model(lambda n, i: torch.tanh(i.float().double() / 9 - 0.5).sum(1))
    found = deep_shap(model, X.to(torch.uint8), B.to(torch.uint8)).values
    assert_allclose(found, _exact(model), atol=1e-7)  # the model's own float32


def test_codes_and_constants_of_two_inputs_keep_their_input() -> None:
    def run(n: Any, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return _sum(n, n.e(torch.cat([torch.full_like(j[:, :1], 9), j, i], 1)))

    model = _model(run)
    first, second = deep_shap(model, (X[:, :2], X[:, 2:]), (B[:, :2], B[:, 2:]))
    whole = _model(lambda n, i: _sum(n, n.e(i)))
    exact = _exact(whole)
    assert_allclose(first.values, exact[:, :2], atol=1e-12)
    assert_allclose(second.values, exact[:, 2:], atol=1e-12)


DECIDED: dict[str, Callable[..., torch.Tensor]] = {
    "rows of a mask": lambda n, i: _sum(n, n.e(i)) + n.e(i)[i > 4].sum(),
    "codes of a mask": lambda n, i: _sum(n, n.e(i)) + n.e.weight[i[i > 4], 0].sum(),
    "codes in order": lambda n, i: _sum(n, n.e(i[torch.arange(len(i))[:, None], i.argsort(1)])),
    "branch": lambda n, i: _sum(n, n.e(i)) * int((i > 4).sum()),
    "order": lambda n, i: _sum(n, n.e(i.argsort(1))),
}


@pytest.mark.parametrize("name", list(DECIDED))
def test_decisions_on_codes_that_differ_are_refused_with_their_line(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"at .*test_codes\.py:\d+"):
        deep_shap(_model(DECIDED[name]), X, B)


def test_decisions_on_codes_that_are_alike_are_allowed() -> None:
    model = _model(lambda n, i: _sum(n, n.e(i)) if bool((i > 0).all()) else n.e(i).sum((1, 2)))
    assert_allclose(deep_shap(model, X, B).values, _exact(model), atol=1e-12)


def test_numbers_turned_into_codes_are_told_to_be_an_input_of_their_own() -> None:
    model = _model(lambda n, x: _sum(n, n.e(x.long())))
    with pytest.raises(UnsupportedModelError, match=r"`long` at .*an integer input of their own"):
        deep_shap(model, X.double(), B.double())


def _bags(n: Any, i: torch.Tensor) -> torch.Tensor:
    ends = torch.arange(len(i)) * i.shape[1] + torch.arange(len(i)) % 2
    return n.l(n.bag(i.reshape(-1), ends))[:, 0]


REFUSED: dict[str, tuple[Callable[..., torch.Tensor], str]] = {
    "uneven bags": (_bags, "`embedding_bag` .*bags of different sizes"),
    "maximum without padding": (lambda n, i: n.l(n.top(i))[:, 0], "`embedding_bag` .*padding"),
    "positions that count words": (
        lambda n, i: _sum(n, n.e((i > 4).long().cumsum(1))),
        "`embedding` .*counts several entries",
    ),
    "bins": (
        lambda n, i: _sum(n, n.e(torch.bucketize(n.e(i)[..., 0], torch.tensor([0.0]).double()))),
        "`bucketize` .*an integer input of their own",
    ),
    "places of a sort": (
        lambda n, i: n.l(n.e(i).gather(1, n.e(i).argsort(1))[:, 0])[:, 0],
        "`argsort`",
    ),
    "places of a pool": (
        lambda n, i: n.l(
            F.max_unpool1d(*F.max_pool1d(n.e(i).mT, 2, return_indices=True), 2).mT[:, 0]
        )[:, 0],
        "`max_pool1d_with_indices`",
    ),
    "no derivative": (
        lambda n, i: n.l(n.e(i).sum(1).unique(dim=1))[:, 0],
        "`unique` .*no derivative",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_slope_is_refused_with_its_reason_and_line(name: str) -> None:
    run, reason = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=reason) as problem:
        deep_shap(_model(run), X, B)
    assert re.search(r"at .*test_codes\.py:\d+", str(problem.value))


@pytest.mark.parametrize("padded", ["none", "rows", "both"])
def test_padding_masks_of_an_encoder_are_followed(padded: str) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.words, self.body = nn.Embedding(20, 8), nn.TransformerEncoder(layer, 2)
            self.head = nn.Linear(8, 1)

        def forward(self, i: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(self.words(i), src_key_padding_mask=i == 0)[:, 0])[:, 0]

    model = Encoder().double().eval()
    rows, others = X.clone(), B.clone()
    if padded != "none":
        rows[:, -1] = 0
    if padded == "both":
        others[:, -1] = 0
    exact = np.mean([[brute_force(model, x, r).numpy() for r in others] for x in rows], axis=1)
    found = deep_shap(model, rows, others)
    change = (model(rows) - model(others).mean()).detach().numpy()
    assert_allclose(found.values.sum(1), change, atol=1e-12)
    assert np.sqrt(np.mean((found.values - exact) ** 2)) / exact.std() < 0.4  # measured: .1 to .2
