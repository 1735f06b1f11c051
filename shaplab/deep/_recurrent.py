"""LSTM, GRU and plain recurrent layers written out step by step, so that every gate is seen.

torch runs a whole recurrent layer as one operation. Here the same weights are applied time step by
time step in linear maps, sigmoids, tanhs and products, which the capture propagates one by one.

Cost: one pass over time for each layer and direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

__all__: list[str] = []

State = tuple[torch.Tensor, ...]


def _lstm(
    x: torch.Tensor, state: State, w: list[torch.Tensor], biases: bool, proj: torch.Tensor | None
) -> State:
    h, c = state
    gates = F.linear(x, w[0], w[2] if biases else None) + F.linear(
        h, w[1], w[3] if biases else None
    )
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if proj is None else F.linear(h, proj)), c


def _gru(
    x: torch.Tensor, state: State, w: list[torch.Tensor], biases: bool, proj: torch.Tensor | None
) -> State:
    (h,) = state
    reset_x, update_x, new_x = F.linear(x, w[0], w[2] if biases else None).chunk(3, -1)
    reset_h, update_h, new_h = F.linear(h, w[1], w[3] if biases else None).chunk(3, -1)
    reset, update = (reset_x + reset_h).sigmoid(), (update_x + update_h).sigmoid()
    new = (new_x + reset * new_h).tanh()
    return (new + update * (h - new),)


def _plain(squash: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., State]:
    def cell(
        x: torch.Tensor,
        state: State,
        w: list[torch.Tensor],
        biases: bool,
        proj: torch.Tensor | None,
    ) -> State:
        total = F.linear(x, w[0], w[2] if biases else None) + F.linear(
            state[0], w[1], w[3] if biases else None
        )
        return (squash(total),)

    return cell


CELLS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _plain(torch.tanh), "rnn_relu": _plain(torch.relu)}


def layer(name: str) -> Callable[..., Any]:
    """Handler body for ``torch.lstm``, ``gru``, ``rnn_tanh`` and ``rnn_relu``."""

    def body(
        run: Any,
        x: torch.Tensor,
        hx: Any,
        params: Any,
        has_biases: Any,
        num_layers: Any,
        dropout: Any = 0.0,
        train: bool = False,
        bidirectional: bool = False,
        batch_first: Any = False,
    ) -> Any:
        if isinstance(has_biases, list | tuple):  # packed: (data, lengths, hx, params, ...)
            sizes, hx, params, has_biases = hx, params, has_biases, num_layers
            num_layers, dropout, train, bidirectional = dropout, train, bidirectional, batch_first
            if not bool((sizes == sizes[0]).all()):
                run.refuse(name, "packed sequences of different lengths; pad the sequences instead")
            padded = x.reshape(len(sizes), int(sizes[0]), x.shape[-1])
            found = body(
                run, padded, hx, params, has_biases, num_layers, dropout, train, bidirectional
            )
            return (found[0].flatten(0, 1), *found[1:])
        if train and dropout > 0:
            run.refuse(name, "dropout between layers is active; call model.eval()")
        state = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
        steps = list((x.transpose(0, 1) if batch_first else x).unbind(0))
        directions = 2 if bidirectional else 1
        count = len(params) // (num_layers * directions)
        biases, projected = bool(has_biases), count in (3, 5)
        ends: list[State] = []
        for depth in range(num_layers):
            found = []
            for side in range(directions):
                at = depth * directions + side
                weights = list(params[at * count : (at + 1) * count])
                proj = weights.pop() if projected else None
                now = tuple(part[at] for part in state)
                outs = []
                for step in steps if side == 0 else reversed(steps):
                    now = CELLS[name](step, now, weights, biases, proj)
                    outs.append(now[0])
                ends.append(now)
                found.append(outs if side == 0 else outs[::-1])
            steps = (
                [torch.cat(pair, -1) for pair in zip(*found, strict=True)]
                if directions == 2
                else found[0]
            )
        result = torch.stack(steps)
        last = [torch.stack(part) for part in zip(*ends, strict=True)]
        return (result.transpose(0, 1) if batch_first else result, *last)

    return body


def cell(name: str) -> Callable[..., Any]:
    """Handler body for ``torch.lstm_cell``, ``gru_cell``, ``rnn_tanh_cell`` and
    ``rnn_relu_cell``."""

    def body(
        run: Any, x: torch.Tensor, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
    ) -> Any:
        state = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
        found = CELLS[name](x, state, [w_ih, w_hh, b_ih, b_hh], b_ih is not None, None)
        return found if name == "lstm" else found[0]

    return body
