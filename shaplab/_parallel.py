"""Parallel loops and progress bars: joblib and tqdm, the same for every explainer.

Results never depend on the number of workers: work is cut into chunks whose size does not
depend on ``n_jobs``, each chunk has its own seed, and results come back in task order.

Needs: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed

__all__: list[str] = []


def chunks(n: int, size: int) -> Iterator[slice]:
    """Cut ``range(n)`` into slices of at most ``size``."""
    for start in range(0, n, max(1, size)):
        yield slice(start, min(n, start + max(1, size)))


def spawn(rng: np.random.Generator, n: int) -> list[np.random.Generator]:
    """Independent generators, one for each task, fixed before any worker starts."""
    # Drawing the entropy from rng, not from its seed sequence, makes a second call differ from the first.
    entropy = [int(word) for word in rng.integers(0, 2**63, size=2)]
    return [np.random.default_rng(child) for child in np.random.SeedSequence(entropy).spawn(n)]


def progress_bar(total: int, progress: bool, description: str = "") -> Any:
    """A tqdm bar, silent unless ``progress``."""
    from tqdm.auto import tqdm

    return tqdm(total=total, disable=not progress, desc=description, smoothing=0.1)


def _indexed(function: Callable[..., Any], index: int, task: tuple[Any, ...]) -> tuple[int, Any]:
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

    ``n_jobs=None`` follows the surrounding ``joblib.parallel_config``, one worker by default.
    """
    results: list[Any] = [None] * len(tasks)
    with progress_bar(len(tasks), progress, description) as bar:
        worker = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        for index, result in worker(delayed(_indexed)(function, i, task) for i, task in enumerate(tasks)):
            results[index] = result
            bar.update()
    return results
