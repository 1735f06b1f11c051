"""How the loops over trees are compiled, beside ``njit``'s own options."""

from __future__ import annotations

from typing import Any

from shaplab._compiling import announce_compiling

__all__ = ["ENTRY", "UNCOUNTED"]

# Here, since every call on trees imports this module before it compiles.
_ANNOUNCER = announce_compiling()

# For loops that other kernels call and that make no arrays. References to the arrays they are given
# are not counted, since the caller holds them: to take an array out of a tuple or to pass it on
# would count one otherwise, and in the loops over nodes counting costs more than the arithmetic.
# Such a loop cannot be compiled if it makes an array after all. It is stored with the kernel that
# calls it, and gets no entry from Python, which would take as long to compile as the loop itself.
UNCOUNTED: dict[str, Any] = {
    "nogil": True,
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

# For loops that are called from Python and make no arrays, which would count references, too. An
# entry from C, which nobody takes, would compile as long as the one from Python.
ENTRY: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False, "no_cfunc_wrapper": True}
