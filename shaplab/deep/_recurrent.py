"""LSTM, GRU and plain recurrent layers written out step by step, so that every gate is seen.

torch runs a whole recurrent layer as one operation. Here the same weights are applied time step by
time step in linear maps, sigmoids, tanhs and products, which the capture propagates one by one.

Cost: one pass over time for each layer and direction.

Chapter: deep/graph
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from shaplab.deep._watched import WatchedRun
from shaplab.deep.graph import Call

__all__: list[str] = []

State = tuple[Tensor, ...]


class CellWeights(NamedTuple):
    """Weights of one layer and direction; what it does not have is None."""

    of_x: Tensor
    of_h: Tensor
    bias_x: Tensor | None
    bias_h: Tensor | None
    projection: Tensor | None


def _lstm(x: Tensor, state: State, weights: CellWeights) -> State:
    h, c = state
    gates = linear(x, weights.of_x, weights.bias_x) + linear(h, weights.of_h, weights.bias_h)
    enter, forget, candidate, leave = gates.chunk(4, -1)
    c = forget.sigmoid() * c + enter.sigmoid() * candidate.tanh()
    h = leave.sigmoid() * c.tanh()
    if weights.projection is not None:
        h = linear(h, weights.projection)
    return h, c


def _gru(x: Tensor, state: State, weights: CellWeights) -> State:
    (h,) = state
    reset_x, update_x, new_x = linear(x, weights.of_x, weights.bias_x).chunk(3, -1)
    reset_h, update_h, new_h = linear(h, weights.of_h, weights.bias_h).chunk(3, -1)
    reset = (reset_x + reset_h).sigmoid()
    update = (update_x + update_h).sigmoid()
    new = (new_x + reset * new_h).tanh()
    return (new + update * (h - new),)


def _squashed(squash: Callable[[Tensor], Tensor]) -> Callable[..., State]:
    """A plain recurrent cell."""

    def step(x: Tensor, state: State, weights: CellWeights) -> State:
        (h,) = state
        total = linear(x, weights.of_x, weights.bias_x) + linear(h, weights.of_h, weights.bias_h)
        return (squash(total),)

    return step


RECURRENT: dict[str, Callable[[Tensor, State, CellWeights], State]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _squashed(torch.tanh),
    "rnn_relu": _squashed(torch.relu),
}


class _Layers(NamedTuple):
    """What ``torch.lstm`` and its kind are called with, after the input."""

    state: Any
    params: list[Tensor]
    has_biases: bool
    num_layers: int
    dropout: float = 0.0
    train: bool = False
    bidirectional: bool = False
    batch_first: bool = False

    def weights(self, depth: int, side: int) -> CellWeights:
        """Weights of one layer and direction."""
        directions = 2 if self.bidirectional else 1
        count = len(self.params) // (self.num_layers * directions)
        start = (depth * directions + side) * count
        own = list(self.params[start : start + count])
        projection = own.pop() if count in (3, 5) else None
        biases = own[2:] if self.has_biases else [None, None]
        return CellWeights(own[0], own[1], biases[0], biases[1], projection)


def recurrent_layer(name: str) -> Callable[[WatchedRun, Call], Any]:
    """Handler of ``torch.lstm``, ``gru``, ``rnn_tanh`` and ``rnn_relu``."""

    def handler(run: WatchedRun, call: Call) -> Any:
        x, second, third, fourth = call.args[:4]
        if not isinstance(fourth, list | tuple):
            with run:
                return _unrolled(run, name, x, _Layers(*call.args[1:], **call.kwargs))
        # Packed: (data, number of rows at each time, state, parameters, ...).
        sizes = second
        with run:
            if not bool((sizes == sizes[0]).all()):
                run.refuse(name, "packed sequences of different lengths; pad the sequences instead")
            padded = x.reshape(len(sizes), int(sizes[0]), x.shape[-1])
            layers = _Layers(third, list(fourth), *call.args[4:], **call.kwargs)
            out, *last = _unrolled(run, name, padded, layers)
            return (out.flatten(0, 1), *last)

    return handler


def _unrolled(run: WatchedRun, name: str, x: Tensor, layers: _Layers) -> Any:
    """All layers and directions, one step of time after the other."""
    if layers.train and layers.dropout > 0:
        run.refuse(name, "dropout between layers is active; call model.eval()")
    state = tuple(layers.state) if isinstance(layers.state, list | tuple) else (layers.state,)
    steps = list((x.transpose(0, 1) if layers.batch_first else x).unbind(0))
    directions = 2 if layers.bidirectional else 1
    last: list[State] = []
    for depth in range(layers.num_layers):
        sides = []
        for side in range(directions):
            weights = layers.weights(depth, side)
            now = tuple(part[depth * directions + side] for part in state)
            outs = []
            for step in steps if side == 0 else reversed(steps):
                now = RECURRENT[name](step, now, weights)
                outs.append(now[0])
            last.append(now)
            sides.append(outs if side == 0 else outs[::-1])
        steps = sides[0]
        if directions == 2:
            steps = [torch.cat(both, -1) for both in zip(*sides, strict=True)]
    out = torch.stack(steps)
    if layers.batch_first:
        out = out.transpose(0, 1)
    return (out, *[torch.stack(part) for part in zip(*last, strict=True)])


def recurrent_cell(name: str) -> Callable[[WatchedRun, Call], Any]:
    """Handler of ``torch.lstm_cell``, ``gru_cell``, ``rnn_tanh_cell`` and ``rnn_relu_cell``."""

    def handler(run: WatchedRun, call: Call) -> Any:
        given = call.named("x hx w_ih w_hh b_ih b_hh")
        hx = given["hx"]
        state = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
        biases = given.get("b_ih"), given.get("b_hh")
        weights = CellWeights(given["w_ih"], given["w_hh"], *biases, None)
        with run:
            made = RECURRENT[name](given["x"], state, weights)
        return made if name == "lstm" else made[0]

    return handler
