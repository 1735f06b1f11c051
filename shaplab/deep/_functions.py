"""Custom ``autograd.Function``s and checkpoints inside a watched run.

Neither asks a ``TorchFunctionMode``. So while at least one run is on, ``Function.apply`` looks
whether the present thread is being watched: then the run treats the call as one operation. A
checkpoint only saves memory in training; a watched run calls what it wraps.

Cost: one more Python call for each custom function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint

from shaplab.deep.graph import Capture

__all__: list[str] = []

_LOCK = threading.Lock()
_SAVED: list[Any] = []  # what was there before the first of the present runs
_COUNT = [0]


def _watched() -> Any:
    """The run that watches this thread now, or None."""
    mode = torch.overrides._get_current_function_mode()
    return mode if isinstance(mode, Capture) else None


def _apply(original: Callable[..., Any]) -> Any:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        run = _watched()
        if run is None:
            return original(cls, *args, **kwargs)
        if cls is torch.utils.checkpoint.CheckpointFunction:
            return args[0](*args[2:])

        def call(*own: Any, **named: Any) -> Any:
            return original(cls, *own, **named)

        call.written_by_user = True  # type: ignore[attr-defined]
        return run.custom(cls.__name__, call, args, kwargs)

    return classmethod(apply)


def _plain(original: Callable[..., Any]) -> Callable[..., Any]:
    def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        if _watched() is None:
            yield from original(*args, **kwargs)
        else:
            yield

    return generator


@contextmanager
def functions_watched() -> Iterator[None]:
    """Let custom functions and checkpoints come to the run of their thread; restored at the end."""
    function, module = torch.autograd.Function, torch.utils.checkpoint
    name = "_checkpoint_without_reentrant_generator"
    with _LOCK:
        if _COUNT[0] == 0:
            _SAVED[:] = [function.__dict__["apply"], getattr(module, name, None)]
            function.apply = _apply(_SAVED[0].__func__)  # type: ignore[method-assign]
            if _SAVED[1] is not None:
                setattr(module, name, _plain(_SAVED[1]))
        _COUNT[0] += 1
    try:
        yield
    finally:
        with _LOCK:
            _COUNT[0] -= 1
            if _COUNT[0] == 0:
                function.apply = _SAVED[0]  # type: ignore[method-assign]
                if _SAVED[1] is not None:
                    setattr(module, name, _SAVED[1])
                _SAVED.clear()
