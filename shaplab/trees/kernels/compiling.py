"""How the loops over trees are compiled, beside ``njit``'s own options."""

from __future__ import annotations

from typing import Any

__all__ = ["UNCOUNTED"]

# For loops that make no arrays: references to the arrays they are given are not counted, since the
# caller holds them. To take an array out of a tuple or to pass it on would count one otherwise, and
# in the loops over nodes counting costs more than the arithmetic. Such a loop cannot be compiled if
# it makes an array after all.
UNCOUNTED: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
