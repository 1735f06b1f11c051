"""What the handler of an operation may ask of the watched run, and what a rule is given.

A handler sees one call of the model while it runs. It records the call as a *unit* with a *rule*.
Later, for each pair of rows, the rule turns multipliers of the unit's output into multipliers of
its inputs.

Chapter: deep/graph
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol

from torch import Tensor

from shaplab.deep._facts import Notes

__all__: list[str] = []


class UnitPass(NamedTuple):
    """One backward pass through a unit.

    ``f`` and ``b`` are its inputs on the explained row and on the reference rows, ``q`` the
    multipliers of its output, ``kept`` a dict that lives as long as the reference rows: what
    depends on them alone is computed once. ``kept["axes"]`` says where the rows are.
    """

    f: list[Tensor]
    b: list[Tensor]
    q: Tensor
    kept: dict[str, Any]


Rule = Callable[[UnitPass], list[Tensor]]


class WatchedRun(Protocol):
    """A run of the model on explained or reference rows."""

    rule: str
    max_rule: str
    calling: str  # the operation that is being handled, as the model called it
    handlers: dict[str, Callable[..., Any]]
    notes: Notes
    affine: dict[int, Any]  # id of a tensor -> the linear layer that made it
    fused: int

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the input."""

    def unit(
        self,
        inputs: list[Tensor],
        out: Tensor,
        rule: Rule,
        others: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Record a unit; the result is ``out``, connected to ``inputs`` by the rule. ``others`` are
        stored with its inputs for the rule to look up."""

    def watch(self, places: Tensor, name: str = "") -> None:
        """A tensor of integers that is a decision as soon as it is used."""

    def refuse(self, name: str, why: str = ...) -> NoReturn:
        """Raise an error that names the operation and its line."""

    def __enter__(self) -> Any:
        """Watch the operations of a composition one by one."""

    def __exit__(self, *_: Any) -> Any: ...
