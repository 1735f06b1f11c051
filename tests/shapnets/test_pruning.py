"""Pruning per instance and stripping modules: exactness at threshold 0, zeros that stay, work that
is saved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.shapnets import DeepShapNet, ImageShapNet, ShallowShapNet, prune, strip_modules
from shaplab.shapnets import image as image_module
from shaplab.shapnets.pruning import keep_mask
from shaplab.shapnets.transform import _Modules


def pictures(n=3):
    x = torch.randn(n, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    x[:, :, :, :4] = 0  # an empty left side, as on MNIST
    return x


def table(n=6):
    x = torch.randn(n, 12, generator=torch.Generator().manual_seed(0))
    x[:, 3:7] = 0
    return x


CASES = [
    (lambda: ImageShapNet(1, 4, channels=(6, 5), seed=0), pictures),
    (lambda: DeepShapNet(12, 3, seed=0), table),
]


@pytest.mark.parametrize(("make", "rows"), CASES)
def test_threshold_zero_is_bit_identical_and_saves_work(make, rows):
    net, x = make(), rows()
    pruned = prune(net, threshold=0.0)
    with torch.no_grad():
        assert torch.equal(pruned(x), net(x))
        assert all(torch.equal(a, b) for a, b in zip(pruned.layers(x), net.layers(x), strict=True))
    work = pruned.work(x)
    assert 0 < work["computed"] < work["total"]


@examples(40)
@given(
    rows=st.sampled_from([1, 3, 31, 40]),
    d=st.integers(2, 18),
    width=st.integers(1, 90),
    channels=st.integers(1, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_threshold_zero_is_bit_identical_for_any_table(rows, d, width, channels, share, seed):
    # Products of fewer rows or matrices round otherwise: skipping some of them changed bits in one
    # of ten such nets.
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, d, generator=draw)
    x[:, torch.rand(d, generator=draw) < share] = 0
    x[torch.rand(rows, d, generator=draw) < share / 2] = 0
    net = DeepShapNet(d, 2, channels=channels, hidden=(width,), seed=seed)
    with torch.no_grad():
        assert all(
            torch.equal(a, b)
            for a, b in zip(prune(net, threshold=0.0).layers(x), net.layers(x), strict=True)
        )


@examples(40)
@given(
    side=st.integers(1, 12),
    left=st.integers(0, 40),
    channels=st.integers(1, 60),
    seed=st.integers(0, 10**6),
    activation=st.sampled_from(["leaky_relu", "gelu"]),
)
def test_threshold_zero_is_bit_identical_for_any_picture(side, left, channels, seed, activation):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 2, side, side, generator=draw)
    hidden = (
        torch.rand(2, 1, side, side, generator=draw)
        .flatten()
        .argsort()
        .argsort()
        .view(2, 1, side, side)
        >= left
    )
    x[hidden.expand_as(x)] = 0
    net = ImageShapNet(2, 3, channels=(channels, 5), activation=activation, seed=seed)
    with torch.no_grad():
        assert all(
            torch.equal(a, b)
            for a, b in zip(prune(net, threshold=0.0).layers(x), net.layers(x), strict=True)
        )


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 0.3}, {"fraction": 0.7}])
def test_what_is_counted_is_what_is_computed(options, monkeypatch):
    computed = []
    kernel, values = image_module.values_of_four, _Modules.values

    def counting_kernel(terms, base, sources, *rest):
        computed.append(sources.shape[1])
        kernel(terms, base, sources, *rest)

    def counting_values(self, delta, reference, modules=None):
        computed.append(delta.shape[0] * delta.shape[2])
        return values(self, delta, reference, modules)

    monkeypatch.setattr(image_module, "values_of_four", counting_kernel)
    monkeypatch.setattr(_Modules, "values", counting_values)
    with torch.no_grad():
        pruned = prune(ImageShapNet(1, 4, channels=(6, 5), seed=0), **options)
        pruned(pictures())
        assert sum(computed) == pruned.work(pictures())["computed"]
        if (
            options.get("threshold") != 0.0
        ):  # at 0 a table computes every module, so that no bit changes
            computed.clear()
            pruned, rows = prune(DeepShapNet(12, 3, seed=0), **options), table(40)
            pruned(rows)
            assert sum(computed) == pruned.work(rows)["computed"]


@pytest.mark.parametrize("rows", [4, 40])
def test_pruning_under_autocast_and_without_rows(rows):
    net = DeepShapNet(12, 3, seed=0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = prune(net, fraction=0.3)(table(rows))
    # bfloat16 keeps 8 bits, and a position near the limit may fall on the other side.
    torch.testing.assert_close(
        low.float(), prune(net, fraction=0.3)(table(rows)), atol=0.1, rtol=0.1
    )
    assert prune(net, fraction=0.3)(table(rows)[:0]).shape == (0, 3)


@pytest.mark.parametrize(("make", "rows"), CASES)
def test_a_pruned_feature_stays_zero(make, rows):
    net, x = make(), rows()
    layers = prune(net, fraction=0.5, stages=[0]).layers(x)
    gone = (layers[0] == 0).all(-1)
    assert bool((gone.flatten(1).sum(1) >= round(0.5 * gone[0].numel())).all())
    for z in layers[1:]:
        assert bool((z[gone] == 0).all())
    # Skipping agrees with computing everything on the same pruned input.
    dense = net.layers(x, edit=prune(net, fraction=0.5, stages=[0])._edit)
    torch.testing.assert_close(
        layers[-1], dense[-1], atol=1e-5, rtol=1e-5
    )  # float32, other batch sizes


def test_rules_by_hand():
    z = torch.tensor([[[4.0, 0.0], [1.0, -1.0], [0.1, 0.0], [0.0, 0.0]]])
    assert keep_mask(z, threshold=0.0).tolist() == [[True, True, True, False]]
    assert keep_mask(z, threshold=0.5).tolist() == [[True, False, False, False]]
    assert keep_mask(z, fraction=0.5).tolist() == [[True, True, False, False]]
    assert keep_mask(z, fraction=0.0).all()
    assert not keep_mask(z, fraction=1.0).any()


def test_work_by_hand():
    net = DeepShapNet(4, 1, seed=0)
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    # Stage 1: (0,1) for the first row. Stage 2: (0,2) and (1,3) for the first row.
    work = prune(net, threshold=0.0).work(x)
    assert (work["computed"], work["total"], work["by_stage"]) == (3, 8, [0.25, 0.5])
    image = ImageShapNet(1, 1, channels=(), seed=0)
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1  # one pixel lies in four windows
    assert prune(image, threshold=0.0).work(x)["computed"] == 4


def test_pruning_everything_leaves_the_intercept():
    net = ImageShapNet(1, 2, channels=(3,), seed=0)
    with torch.no_grad():
        net.intercept += 2.0
    assert torch.equal(prune(net, fraction=1.0)(pictures()), net.intercept.expand(3, 2))
    assert prune(net, fraction=1.0, stages=[0, 1]).explain(pictures()).count_nonzero() == 0


def test_padding_is_not_counted_as_a_position():
    net = DeepShapNet(5, 1, seed=0)
    layers = prune(net, fraction=0.4, stages=[0]).layers(torch.randn(8, 5))
    assert bool(((layers[0] == 0).all(-1).sum(1) == 2).all())


def test_stripping_keeps_what_contributes():
    torch.manual_seed(0)
    net = ShallowShapNet(5, 1, seed=0)
    sets = net.transforms[0].active_sets
    with torch.no_grad():
        for m, s in enumerate(sets):
            if s not in ((0, 1), (2, 4)):
                net.transforms[0].groups[0].last[m] *= 1e-3
    x = torch.randn(50, 5)
    small = strip_modules(net, x, stage=0, keep=2)
    assert small.transforms[0].active_sets == [(0, 1), (2, 4)]
    assert len(net.transforms[0].active_sets) == 10
    assert small.transforms[0].multiply_adds * 5 == net.transforms[0].multiply_adds
    torch.testing.assert_close(
        small(x), net(x), atol=1e-2, rtol=1e-2
    )  # eight modules of size 1e-3 are gone
    small(x).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_stripping_a_later_stage_and_mixed_sizes():
    net = DeepShapNet(
        4, 2, stages=["pairs", [(0, 1, 2), (2, 3), (1, 3), (0,)]], shared=True, seed=0
    )
    small = strip_modules(net, torch.randn(9, 4), stage=1, keep=1)
    assert len(small.transforms[1].active_sets) == 1
    assert small(torch.randn(2, 4)).shape == (2, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prune(ShallowShapNet(2, 1)), "exactly one of threshold and fraction, got neither"),
        (lambda: prune(ShallowShapNet(2, 1), threshold=0.1, fraction=0.1), "got both"),
        (lambda: prune(DeepShapNet(4, 1), fraction=1.2), "fraction"),
        (lambda: prune(DeepShapNet(4, 1), fraction=0.2, stages=[2]), "stages"),
        (
            lambda: strip_modules(ImageShapNet(1, 1), torch.zeros(1, 1, 4, 4), stage=0, keep=1),
            "net: expected a Shallow",
        ),
        (lambda: strip_modules(ShallowShapNet(3, 1), torch.zeros(1, 3), stage=0, keep=9), "keep"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
