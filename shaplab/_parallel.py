"""Parallel loops and progress bars: joblib and tqdm, the same for every explainer.

Results never depend on the number of workers: work is cut into chunks whose size does not
depend on ``n_jobs``, each chunk has its own seed, and results come back in task order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import cloudpickle
import numpy as np
from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from shaplab._validation import fail

__all__: list[str] = []


def chunks(n: int, size: int) -> Iterator[slice]:
    """Cut ``range(n)`` into slices of at most ``size``, which counts as 1 if smaller."""
    step = max(1, size)
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def spawn(rng: np.random.Generator, n: int) -> list[np.random.Generator]:
    """Independent generators, one for each task, fixed before any worker starts."""
    # Drawing the entropy from rng, not from its seed sequence, makes a second call differ from the
    # first.
    entropy = [int(word) for word in rng.integers(0, 2**63, size=2)]
    return [np.random.default_rng(child) for child in np.random.SeedSequence(entropy).spawn(n)]


def progress_bar(total: int, progress: bool, description: str = "") -> Any:
    """A tqdm bar; unless ``progress``, one that does nothing, always the same."""
    if not progress:
        return _silent_bar()
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=description, smoothing=0.1)


@lru_cache(maxsize=1)  # made once: a service explains one row in 0.2 ms, of which it took 0.05
def _silent_bar() -> Any:
    from tqdm import tqdm  # tqdm.auto warns in a notebook without ipywidgets, whoever sees the bar

    return tqdm(disable=True)


def counted(game: Callable[[np.ndarray], Any], bar: Any) -> Callable[[np.ndarray], Any]:
    """``game``, which tells ``bar`` how many coalitions it has valued."""

    def call(coalitions: np.ndarray) -> Any:
        worths = game(coalitions)
        bar.update(len(coalitions))
        return worths

    return call


def _indexed(function: Callable[..., Any], index: int, *task: Any) -> tuple[int, Any]:
    return index, function(*task)


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    n_jobs: int | None = None,
    progress: bool = False,
    description: str = "",
) -> list[Any]:
    """Call ``function(*task)`` for each task through joblib and return the results in order.

    ``n_jobs=None`` follows the surrounding ``joblib.parallel_config``, one worker by default. An
    exception carries what was finished before it, with None for the rest, in its attribute
    ``finished``.
    """
    if n_jobs is not None and (not isinstance(n_jobs, int | np.integer) or n_jobs == 0):
        fail(
            "n_jobs",
            "None or an integer other than 0",
            repr(n_jobs),
            "Pass a number of workers, or -1 for all cores",
        )
    results: list[Any] = [None] * len(tasks)
    jobs = (delayed(_indexed)(function, index, *task) for index, task in enumerate(tasks))
    with progress_bar(len(tasks), progress, description) as bar:
        try:
            for index, result in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
                results[index] = result
                bar.update()
        except BaseException as problem:
            problem.finished = results  # type: ignore[attr-defined]
            raise
    return results


# What this process has received, by digest. A dictionary of the process, not of the task: that is
# what makes the object travel once.
_RECEIVED: dict[str, Any] = {}
_MISSING = "the worker has not received this object yet"


def _on_worker(
    function: Callable[..., Any], digest: str, packed: np.ndarray | None, *task: Any
) -> Any:
    """Unpack the shared object unless this worker has it already, then do the task."""
    # One look, as another thread of a cluster's worker may put this object away at any time.
    shared = _RECEIVED.get(digest, _MISSING)
    if shared is _MISSING:
        if packed is None:
            return _MISSING
        shared = cloudpickle.loads(packed.tobytes())
        # Two objects at most: who explains many models, one after the other, fills no memory.
        while len(_RECEIVED) > 1:
            _RECEIVED.pop(next(iter(_RECEIVED)), None)
        _RECEIVED[digest] = shared
    return function(shared, *task)


class Crew:
    """Workers that share one large object, such as a model with its tables.

    Threads use the object itself. Processes and clusters get it once each, in one array, which
    joblib maps into memory (processes) or scatters (Dask); later calls name it by its digest only.

    Parameters
    ----------
    shared : the object, first argument of every task.
    n_jobs : as for ``run_tasks``.
    """

    def __init__(self, shared: Any, n_jobs: int | None = None) -> None:
        self.shared = shared
        self.n_jobs = n_jobs
        self._local = _is_local(n_jobs)
        self._sent = False
        if not self._local:
            self._packed = _pack(shared)
            self._digest = hashlib.sha256(self._packed.tobytes()).hexdigest()

    def run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        progress: bool = False,
        description: str = "",
    ) -> list[Any]:
        """``[function(shared, *task) for task in tasks]``, in order; ``progress`` counts tasks."""
        told: dict[str, Any] = {"progress": progress, "description": description}
        if self._local:
            local = [(self.shared, *task) for task in tasks]
            return run_tasks(function, local, n_jobs=self.n_jobs, **told)
        results = self._send(function, tasks, None if self._sent else self._packed, **told)
        self._sent = True
        # A worker that joined later has not received the object: its tasks go once more, with it.
        late = [i for i, result in enumerate(results) if _is_missing(result)]
        again = self._send(function, [tasks[i] for i in late], self._packed)
        for i, result in zip(late, again, strict=True):
            results[i] = result
        return results

    def _send(
        self,
        function: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        packed: np.ndarray | None,
        **told: Any,
    ) -> list[Any]:
        jobs = [(function, self._digest, packed, *task) for task in tasks]
        return run_tasks(_on_worker, jobs, n_jobs=self.n_jobs, **told)


def _is_local(n_jobs: int | None) -> bool:
    """Whether tasks run where the object is: in this process, alone or in threads."""
    backend, configured = get_active_backend()
    if getattr(backend, "supports_sharedmem", False):
        return True
    is_cluster = not type(backend).__module__.startswith("joblib._par")
    workers = configured if n_jobs is None else n_jobs
    return workers in (None, 1) and not is_cluster


def _pack(shared: Any) -> np.ndarray:
    """The object as one array of bytes."""
    try:
        return np.frombuffer(cloudpickle.dumps(shared), dtype=np.uint8)
    except Exception as problem:
        fail(
            "model",
            "a model that can be sent to other processes (pickled)",
            f"{type(problem).__name__}: {problem}",
            'Use joblib.parallel_config("threading"), n_jobs=1, or a model that pickles',
            TypeError,
        )


def _is_missing(result: Any) -> bool:
    return isinstance(result, str) and result == _MISSING
