r"""The Shapley transform: Shapley values as a layer of a network.

For a function :math:`f` of ``d`` explained positions, each with ``C`` channels, a reference
:math:`r` and a coalition :math:`z \in \{0,1\}^d`, let :math:`\Psi(z) = z \odot x + (1-z) \odot r`.
The transform sends ``(d, C)`` to the representation :math:`Z` of shape ``(d, C')``,

.. math:: Z_{ij} = \frac1d \sum_{z:\, z_i=0} \binom{d-1}{|z|}^{-1} [f_j(\Psi(z \cup i)) -
   f_j(\Psi(z))].

A *Shapley module* knows that its function reads only an *active set* of ``k`` positions: ``2**k``
evaluations, zeros elsewhere. A layer sums many modules (Lemma 1: a linear map of a transform is a
transform). Two savings, both exact, follow from linearity: the first linear map is applied once per
member instead of once per coalition, and the last one once per member after the Shapley weights.
Source: Wang, Wang & Inouye (2021), Def. 1-7, Lemma 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations, pairwise, product
from math import comb, factorial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from shaplab._validation import check_choice, check_int, fail
from shaplab.foundations.exact import shapley_coefficients
from shaplab.foundations.games import all_coalitions

__all__ = [
    "ShapleyTransform",
    "coalition_weights",
    "shapley_transform",
    "shapley_transform_literal",
]

MAX_ACTIVE = 8
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": nn.functional.relu,
    "leaky_relu": nn.functional.leaky_relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
}


def shapley_transform_literal(
    f: Callable[[np.ndarray], Any], x: np.ndarray, r: np.ndarray
) -> np.ndarray:
    """Definitions 1 and 3 for one input ``x (d, C)`` and reference ``r (d, C)``: ``Z (d, C')``."""
    d = len(x)

    def f_of(z: Sequence[int]) -> np.ndarray:
        return np.asarray(f(np.where(np.array(z)[:, None] == 1, x, r)))

    Z = []
    for i in range(d):
        phi_i: Any = 0.0
        for z in product((0, 1), repeat=d):
            if z[i] == 0:
                z_with_i = (*z[:i], 1, *z[i + 1 :])
                phi_i = phi_i + (f_of(z_with_i) - f_of(z)) / comb(d - 1, sum(z))
        Z.append(phi_i / d)
    return np.array(Z)


def coalition_weights(k: int) -> tuple[Tensor, Tensor]:
    """Coalitions ``(2**k, k)``, bool, bit ``j`` of the row number being player ``j``, and weights
    ``(k, 2**k)``.

    The weights, float64, turn the values of all coalitions into Shapley values: ``phi = weights @
    values``.
    """
    members = all_coalitions(k)
    weights = np.ascontiguousarray(shapley_coefficients(members))
    return torch.from_numpy(members), torch.from_numpy(weights)


def subset_sums(base: Tensor, terms: Tensor) -> Tensor:
    """``base (*, 1, ...)`` plus every subset of ``terms (*, k, ...)`` along axis 1, in the order of
    coalitions."""
    sums = base
    for j in range(terms.shape[1]):
        sums = torch.cat([sums, sums + terms[:, j : j + 1]], dim=1)
    return sums


def missing_to_zero(values: Tensor, delta: Tensor) -> Tensor:
    """Exact zeros where a feature equals its reference: there ``values`` is only rounding.
    Gradients stay."""
    # An explainer that watches torch calls has nothing to explain in rounding.
    with torch._C.DisableTorchFunction():
        # The largest size is faster than all(-1); NaN is not missing.
        missing = delta.detach().abs().amax(-1, keepdim=True) == 0
        rounding = torch.where(missing, values.detach(), 0.0)
    return values - rounding


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a private stream inside the block; with ``None`` from torch's own, as every module
    does."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(check_int(seed, "seed", minimum=0))
        yield


def uniform(*shape: int, fan_in: float, gain: float = 1.0) -> nn.Parameter:
    """A parameter drawn uniformly within ``gain / sqrt(fan_in)``; gain 6**.5 keeps the scale before
    a ReLU."""
    return nn.Parameter((2 * torch.rand(*shape) - 1) * gain / fan_in**0.5)


def shapley_transform(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    reference: Tensor | float = 0.0,
    *,
    explainable: int = 1,
) -> Tensor:
    """Shapley transform of any function, by evaluating every coalition.

    Parameters
    ----------
    f : callable, tensor ``(n, *D, *C)`` to ``(n, *C')``.
    x : tensor ``(N, *D, *C)``: rows, then explainable dimensions, then channels.
    reference : tensor that broadcasts to ``(*D, *C)``, what an absent position is set to.
    explainable : how many dimensions after the first are explained. The rest are channels, which
        share one value.

    Returns
    -------
    tensor ``(N, *D, *C')``, the Shapley representation of ``x``, differentiable.

    Raises
    ------
    ValueError
        For more than 16 explained positions: the cost is ``2**positions`` evaluations of ``f`` for
        each row.

    References
    ----------
    Wang, Wang & Inouye (2021), Definitions 1 to 4.

    Examples
    --------
    >>> x = torch.tensor([[2.0, 3.0]])
    >>> shapley_transform(lambda t: t[:, 0] * t[:, 1], x)
    tensor([[3., 3.]])
    """
    if not callable(f):
        fail("f", "a callable of a batch of rows", f, "See the docstring's example", TypeError)
    if not isinstance(x, Tensor):
        fail("x", "a torch tensor", x, "See the docstring's example", TypeError)
    check_int(explainable, "explainable", maximum=max(1, x.ndim - 1))
    shape = x.shape[1 : 1 + explainable]
    positions = int(np.prod(shape))
    if positions > 16:
        fail(
            "x",
            "at most 16 explained positions",
            f"{positions}",
            "Use a ShapNet, whose modules read few positions",
        )
    members, weights = coalition_weights(positions)
    channel_axes = x.ndim - 1 - explainable
    present = members.to(x.device).reshape(-1, 1, *shape, *[1] * channel_axes)
    absent = torch.as_tensor(reference, dtype=x.dtype, device=x.device)
    # All coalitions of all rows in one call.
    hybrids = torch.where(present, x, absent)
    values = f(hybrids.flatten(0, 1)).unflatten(0, (len(members), len(x)))
    phi = torch.tensordot(weights.to(values), values, dims=1)
    return phi.movedim(0, 1).reshape(len(x), *shape, *values.shape[2:])


class _Modules(nn.Module):
    """All modules of one active-set size ``k``: inner networks with stacked weights, evaluated in
    one call."""

    active: Tensor
    weights: Tensor

    def __init__(
        self,
        active: Tensor,
        channels: tuple[int, int],
        hidden: Sequence[int],
        activation: str,
        shared: bool,
    ):
        super().__init__()
        self.k = active.shape[1]
        self.activation = activation
        self.register_buffer("active", active)
        # Whole numbers over k!: a network made in float32 and moved to float64 keeps exact weights.
        whole = (coalition_weights(self.k)[1] * factorial(self.k)).round().long()
        self.register_buffer("weights", whole, persistent=False)
        n_networks = 1 if shared else len(active)
        fan_in = self.k * channels[0]
        self.first = uniform(n_networks, self.k, channels[0], hidden[0], fan_in=fan_in, gain=6**0.5)
        fans = (fan_in, *hidden[:-1])
        self.biases = nn.ParameterList(
            [
                uniform(n_networks, 1, width, fan_in=fan)
                for width, fan in zip(hidden, fans, strict=True)
            ]
        )
        self.middle = nn.ParameterList(
            [
                uniform(n_networks, before, after, fan_in=before, gain=6**0.5)
                for before, after in pairwise(hidden)
            ]
        )
        # How many modules a feature's value is summed over.
        overlap = active.numel() / len(active.unique())
        # No bias after the last map: Shapley values are differences, a constant would never be
        # seen.
        self.last = uniform(
            n_networks, hidden[-1], channels[1], fan_in=hidden[-1] * overlap, gain=3**0.5
        )

    def values(self, delta: Tensor, reference: Tensor, modules: Tensor | None = None) -> Tensor:
        """Shapley values ``(M, k, N, C')`` of each module's members, ``delta (M, k, N, C)`` from
        the reference; ``modules`` are their numbers, None if all are given."""
        count = len(delta)
        rows = delta.shape[2]

        def own(parameter: Tensor) -> Tensor:
            # A shared network has one parameter for all modules.
            if modules is not None and len(parameter) > 1:
                parameter = parameter[modules]
            return parameter.expand(count, *parameter.shape[1:])

        first = own(self.first)
        # By index: the compiler of older versions of torch cannot unpack a ParameterList.
        middle = [own(self.middle[i]) for i in range(len(self.middle))]
        biases = [own(self.biases[i]) for i in range(len(self.biases))]
        act = ACTIVATIONS[self.activation]
        base = (reference.unsqueeze(-2) @ first).sum(1) + biases[0]
        base = base.unsqueeze(1).expand(-1, 1, rows, -1)
        # The first map is linear: once for each member, then summed over every coalition.
        inner = act(subset_sums(base, torch.matmul(delta, first)))
        for weight, bias in zip(middle, biases[1:], strict=True):
            inner = act(inner.flatten(1, 2) @ weight + bias).unflatten(1, (2**self.k, rows))
        # So is the last: Shapley weights first, then the map once for each member.
        weights = self.weights.to(inner.dtype) / factorial(self.k)
        shares = (weights @ inner.flatten(2)).unflatten(2, inner.shape[2:])
        return (shares.flatten(1, 2) @ own(self.last)).unflatten(1, (self.k, rows))

    def forward(self, delta: Tensor, reference: Tensor, skip: bool | str = False) -> Tensor:
        """The same from ``delta (d, N, C)`` of all features; ``skip`` as in ``ShapNet.layers``."""
        flat = self.active.flatten()
        members = delta.index_select(0, flat).unflatten(0, self.active.shape)
        references = reference.index_select(0, flat).unflatten(0, self.active.shape)
        if skip is not True:
            return self.values(members, references)
        alive = (members != 0).any(-1).any(1)
        if bool(alive.all()):
            return self.values(members, references)
        return self._values_of_alive(members, references, alive)

    @property
    def multiply_adds(self) -> int:
        """Multiplications in the matrix products of one module and row."""
        middle = sum(weight[0].numel() for weight in self.middle)
        return self.first[0].numel() + 2**self.k * middle + self.k * self.last[0].numel()

    def _values_of_alive(self, members: Tensor, references: Tensor, alive: Tensor) -> Tensor:
        """The same where only the modules and rows in ``alive (M, N)`` are computed; zeros
        elsewhere."""
        n_rows = alive.shape[1]
        result = members.new_zeros(len(members), self.k, n_rows, self.last.shape[-1])
        needed = alive.any(1).nonzero().flatten()
        if n_rows < 32:
            # Few rows: one call for the modules that any row needs.
            values = self.values(members[needed], references[needed], needed)
            result[needed] = values.to(result.dtype)
            return result
        for module in needed.unsqueeze(1):
            rows = alive[module[0]].nonzero().flatten()
            values = self.values(members[module][:, :, rows], references[module], module)
            result[module, :, rows] = values[0].transpose(0, 1).to(result.dtype)
        return result


class WithReference(nn.Module):
    """A module with a buffer ``reference`` that keeps its digits when the module changes its
    dtype.

    A reference of 0.1 in single precision is not 0.1 in double precision: inputs at the reference
    would be a rounding away from it, where exact zeros are promised.
    """

    reference: Tensor

    def keep_reference(self, reference: Tensor) -> None:
        """Register the buffer, in torch's default dtype, and remember all digits."""
        self._digits = reference.double()
        self.register_buffer("reference", reference.to(torch.get_default_dtype()))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.reference
        result = super()._apply(fn, recurse)
        after = self.reference
        if before.is_meta or after.is_meta or before.dtype == after.dtype:
            return result
        # A loaded state has brought another reference: then its digits are all there are.
        own = before.detach().cpu()
        if not torch.equal(self._digits.to(own.dtype), own):
            self._digits = own.double()
        self.reference = self._digits.to(after)
        return result


class ShapleyTransform(WithReference):
    """A layer of Shapley modules whose values are summed for each feature.

    Parameters
    ----------
    n_features : int, ``d``.
    active_sets : sequence of sequences of feature numbers, each of 1 to 8 (usually 2 to 4); they
        may overlap.
    channels_in, channels_out : int, ``C`` and ``C'``.
    hidden : widths of the inner networks' hidden layers, at least one.
    activation : "relu", "leaky_relu", "gelu", "tanh" or "softplus".
    shared : one inner network for all modules of a size, instead of one for each module.
    reference : array ``(d,)`` or ``(d, C)``, or None for zeros; stored in ``state_dict``.

    Notes
    -----
    For each module: ``k C h + 2**k (inner layers) + k h C'`` multiplications, and ``2**k h``
    activations. ``transform(x)`` sends ``(N, d, C)`` to ``(N, d, C')``. Features equal to their
    reference get exactly zero.

    References
    ----------
    Wang, Wang & Inouye (2021), Definition 7 and Lemma 1.

    Examples
    --------
    >>> layer = ShapleyTransform(3, [(0, 1), (1, 2)], 1, 5)
    >>> layer(torch.zeros(4, 3, 1)).shape
    torch.Size([4, 3, 5])
    """

    def __init__(
        self,
        n_features: int,
        active_sets: Sequence[Sequence[int]],
        channels_in: int,
        channels_out: int,
        *,
        hidden: Sequence[int] = (32,),
        activation: str = "relu",
        shared: bool = False,
        reference: Any = None,
    ):
        super().__init__()
        d = check_int(n_features, "n_features")
        channels_in = check_int(channels_in, "channels_in")
        self.channels_out = check_int(channels_out, "channels_out")
        hidden = (hidden,) if isinstance(hidden, int) else hidden
        widths = [check_int(width, "hidden") for width in hidden]
        if not widths:
            fail(
                "hidden",
                "at least one width",
                "none",
                "Pass hidden=(32,); a linear function needs no network",
            )
        check_choice(activation, "activation", tuple(ACTIVATIONS))
        sets = check_active_sets(active_sets, d)
        self.keep_reference(as_reference(reference, (d, channels_in)))
        self.groups = nn.ModuleList()
        for size in sorted({len(members) for members in sets}):
            active = torch.tensor([members for members in sets if len(members) == size])
            channels = (channels_in, self.channels_out)
            self.groups.append(_Modules(active, channels, widths, activation, shared))

    def forward(self, x: Tensor, skip: bool | str = False) -> Tensor:
        """Shapley representation ``(N, d, C')`` of ``x (N, d, C)``; ``skip`` as in
        ``ShapNet.layers``."""
        delta = (x - self.reference).transpose(0, 1)
        parts = [group(delta, self.reference, skip).flatten(0, 1) for group in self.modules_by_size]
        total = parts[0].new_zeros(len(delta), *parts[0].shape[1:])
        for group, values in zip(self.modules_by_size, parts, strict=True):
            total = total.index_add(0, group.active.flatten(), values.to(total.dtype))
        return missing_to_zero(total, delta).transpose(0, 1)

    def contributions(self, x: Tensor) -> list[Tensor]:
        """What each module gives its members before the sum: for each size, ``(N, M, k, C')``."""
        delta = (x - self.reference).transpose(0, 1)
        return [group(delta, self.reference).permute(2, 0, 1, 3) for group in self.modules_by_size]

    def live_modules(self, x: Tensor) -> Tensor:
        """How many modules have an input away from its reference, for each row: ``(N,)``."""
        moved = (x != self.reference).any(-1)
        live = [moved[:, group.active].any(-1).sum(-1) for group in self.modules_by_size]
        return torch.stack(live).sum(0)

    @property
    def modules_by_size(self) -> list[_Modules]:
        """The modules of each active-set size."""
        return cast(list[_Modules], list(self.groups))

    @property
    def active_sets(self) -> list[tuple[int, ...]]:
        """The active sets, by size, in the order of ``contributions``."""
        return [tuple(row) for group in self.modules_by_size for row in group.active.tolist()]

    @property
    def multiply_adds(self) -> int:
        """Multiplications in one row's matrix products (activations not counted)."""
        return sum(len(group.active) * group.multiply_adds for group in self.modules_by_size)


def check_active_sets(active_sets: Any, d: int) -> list[tuple[int, ...]]:
    """Names ``"pairs"``, ``"singles"``, ``"triples"`` or a list of sets, each checked."""
    if isinstance(active_sets, str):
        sizes = {"singles": 1, "pairs": 2, "triples": 3}
        k = sizes[check_choice(active_sets, "active_sets", tuple(sizes))]
        return list(combinations(range(d), min(k, d)))
    sets = [tuple(int(i) for i in np.atleast_1d(members)) for members in active_sets]
    if not sets:
        fail(
            "active_sets",
            "at least one set of features",
            "none",
            "Pass for example active_sets='pairs'",
        )
    for members in sets:
        are_features = all(0 <= i < d for i in members)
        are_different = len(set(members)) == len(members)
        if not 1 <= len(members) <= MAX_ACTIVE or not are_features or not are_different:
            fail(
                "active_sets",
                f"sets of 1 to {MAX_ACTIVE} different features from 0 to {d - 1}",
                repr(members),
                "Correct this set",
            )
    return sets


def as_reference(reference: Any, shape: tuple[int, ...]) -> Tensor:
    """A reference of the given shape ``(d, C)`` in double precision, from None, a scalar, ``(d,)``
    or ``(d, C)``."""
    if reference is None:
        return torch.zeros(shape, dtype=torch.float64)
    if not isinstance(reference, Tensor):
        reference = torch.as_tensor(np.asarray(reference))
    values = reference.detach().double()
    if values.ndim == 1 and len(shape) == 2:
        values = values.unsqueeze(-1)
    is_number = values.ndim == 0
    if not is_number and not _fits(tuple(values.shape), shape):
        fail(
            "reference",
            f"a number or an array of shape {shape} or ({shape[0]},)",
            f"shape {tuple(values.shape)}",
            "Give one reference value for each feature",
        )
    if not bool(torch.isfinite(values).all()):
        fail(
            "reference",
            "finite numbers",
            "NaN or infinity",
            "Choose a reference value such as the mean",
        )
    return values.expand(shape).clone()


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array gives each feature one number, or one for each channel."""
    if len(given) != len(shape):
        return False
    return given[0] == shape[0] and given[-1] in (shape[-1], 1)
