"""Words for the wait: the first call after installation compiles its loops, and says so.

numba keeps what it compiled, so this happens once for each version of shaplab and numba, and
machine. Nothing is said of less than two seconds, nor with ``SHAPLAB_QUIET=1`` in the environment.

The compiler makes millions of small objects and keeps most of them, so looking for garbage among
them again and again takes a seventh of the time and finds next to nothing. While shaplab's loops
are compiled Python does not look; afterwards it does as before.

Chapter: trees/kernels
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from typing import Any

from numba.core import event

__all__: list[str] = []

PATIENCE = 2.0  # seconds without a word
# What all kernels of a call on trees take to compile, in times of the first one: so a slow machine
# is told its own time. Where another comes first, it is all there is.
_FIRST = "follow_trees"
_TIMES_FIRST = 16.0
_GUESS = 5.0
# The one listener of this process, once some kernels are loaded.
_LISTENING: list[CompileAnnouncer] = []


class CompileAnnouncer(event.Listener):
    """Hears when numba compiles, and tells once that shaplab's own loops take a while."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}
        self.spent = 0.0
        self._starts: list[float] = []
        self._current = ""
        self._timer: threading.Timer | None = None
        self._has_told = False
        self._collects = False

    def on_start(self, event: Any) -> None:
        """Begin to wait, unless this is part of what is compiled already, or another's."""
        if not self._starts and not _is_ours(event):
            return
        self._starts.append(time.perf_counter())
        if len(self._starts) == 1:
            self._current = event.data["dispatcher"].py_func.__name__
            self._collects = gc.isenabled()
            gc.disable()
        if len(self._starts) == 1 and not self._has_told and not os.environ.get("SHAPLAB_QUIET"):
            self._timer = threading.Timer(max(0.0, PATIENCE - self.spent), self._tell)
            self._timer.daemon = True
            self._timer.start()

    def on_end(self, event: Any) -> None:
        """Add up, and let a wait that is over end in silence."""
        if not self._starts:
            return
        seconds = time.perf_counter() - self._starts.pop()
        if self._starts:
            return
        if self._collects:
            gc.enable()
        self.spent += seconds
        self.took[self._current] = seconds
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._has_told = True
        known = PATIENCE if self._current == _FIRST else 0.0
        first = self.took.get(_FIRST, known)
        about = max(_GUESS, _TIMES_FIRST * first)
        text = f"shaplab: compiling once (about {about:.0f} s), later calls start at once"
        sys.stderr.write(f"{text}; SHAPLAB_QUIET=1 hides this\n")
        sys.stderr.flush()


def _is_ours(event: Any) -> bool:
    return str(event.data["dispatcher"].py_func.__module__).startswith("shaplab.")


def announce_compiling() -> CompileAnnouncer:
    """Listen to numba from now on; a second call changes nothing."""
    if not _LISTENING:
        _LISTENING.append(CompileAnnouncer())
        event.register("numba:compile", _LISTENING[0])
    return _LISTENING[0]
