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

from shaplab.deep.graph import Call, Capture

__all__: list[str] = []

_LOCK = threading.Lock()
_REPLACED: list[Any] = []  # what was there before the first of the present runs
_RUNS = [0]


def _watching_run() -> Capture | None:
    """The run that watches this thread now, or None."""
    mode = torch.overrides._get_current_function_mode()
    return mode if isinstance(mode, Capture) else None


def _watched_apply(original: Any) -> Any:
    """``Function.apply`` that asks the run of its thread; ``original`` is a class method, written
    in Python up to torch 2.13 and in C since."""

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        run = _watching_run()
        if run is None:
            return original.__get__(None, cls)(*args, **kwargs)
        if cls is torch.utils.checkpoint.CheckpointFunction:
            wrapped, _preserve_random_state, *inputs = args
            return wrapped(*inputs)

        def call(*own: Any, **named: Any) -> Any:
            return original.__get__(None, cls)(*own, **named)

        call.written_by_user = True  # type: ignore[attr-defined]
        return run.custom(Call(cls.__name__, cls.__name__, call, args, kwargs))

    return classmethod(apply)


def _watched_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    """The generator behind ``checkpoint`` that does nothing in a watched run."""

    def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        if _watching_run() is None:
            yield from original(*args, **kwargs)
        else:
            yield

    return generator


@contextmanager
def functions_watched() -> Iterator[None]:
    """Let custom functions and checkpoints come to the run of their thread; restored at the end."""
    function = torch.autograd.Function
    module = torch.utils.checkpoint
    # The second name is that of torch 2.14 and later, where the first calls it.
    name = "_checkpoint_without_reentrant_generator"
    name += "_impl" * hasattr(module, name + "_impl")
    with _LOCK:
        if _RUNS[0] == 0:
            apply = function.__dict__["apply"]
            generator = getattr(module, name, None)
            _REPLACED[:] = [apply, generator]
            function.apply = _watched_apply(apply)  # type: ignore[method-assign]
            if generator is not None:
                setattr(module, name, _watched_checkpoint(generator))
        _RUNS[0] += 1
    try:
        yield
    finally:
        with _LOCK:
            _RUNS[0] -= 1
            if _RUNS[0] == 0:
                apply, generator = _REPLACED
                function.apply = apply  # type: ignore[method-assign]
                if generator is not None:
                    setattr(module, name, generator)
                _REPLACED.clear()
