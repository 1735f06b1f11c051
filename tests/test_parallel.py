"""Parallel loops: order, seeds and results do not depend on workers, batches or the backend."""

from __future__ import annotations

import joblib
import numpy as np
import pytest

from shaplab._parallel import Crew, chunks, progress_bar, run_tasks, spawn


def _draw(generator: np.random.Generator, n: int) -> np.ndarray:
    return generator.normal(size=n)


def _fail_on_three(i: int) -> int:
    if i == 3:
        raise ValueError("task three")
    return i


def _share(model: dict, i: int) -> tuple[int, float]:
    return i, float(model["table"][i])


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [
        (5, 2, [(0, 2), (2, 4), (4, 5)]),
        (4, 2, [(0, 2), (2, 4)]),
        (1, 100, [(0, 1)]),
        (0, 3, []),
        (3, 0, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_chunks_cover_the_range_once(n: int, size: int, expected: list[tuple[int, int]]) -> None:
    assert [(piece.start, piece.stop) for piece in chunks(n, size)] == expected


def test_spawned_generators_are_fixed_independent_and_new_each_time() -> None:
    first = [g.random() for g in spawn(np.random.default_rng(0), 4)]
    assert first == [g.random() for g in spawn(np.random.default_rng(0), 4)]
    assert len(set(first)) == 4
    assert first[:2] == [g.random() for g in spawn(np.random.default_rng(0), 2)], (
        "more tasks keep the first ones"
    )
    rng = np.random.default_rng(0)
    spawn(rng, 4)
    assert first != [g.random() for g in spawn(rng, 4)], "a second call draws something else"


@pytest.mark.parametrize(("backend", "n_jobs"), [("sequential", 1), ("threading", 2), ("loky", 2)])
def test_results_are_the_same_for_every_backend(backend: str, n_jobs: int) -> None:
    def tasks() -> list[tuple]:
        return [(generator, 3) for generator in spawn(np.random.default_rng(7), 5)]

    alone = run_tasks(_draw, tasks())
    if backend == "sequential":
        found = run_tasks(_draw, tasks(), n_jobs=n_jobs)
    else:
        with joblib.parallel_config(backend, n_jobs=n_jobs):
            found = run_tasks(_draw, tasks())
    np.testing.assert_array_equal(np.stack(alone), np.stack(found))


def test_results_come_back_in_the_order_of_tasks() -> None:
    import time

    def slow_first(i: int) -> int:
        time.sleep(0.02 * (3 - i))
        return i

    with joblib.parallel_config("threading", n_jobs=3):
        assert run_tasks(slow_first, [(i,) for i in range(3)]) == [0, 1, 2]
    assert run_tasks(slow_first, []) == []


@pytest.mark.parametrize("backend", ["threading", "sequential"])
def test_errors_of_a_task_reach_the_caller(backend: str) -> None:
    with joblib.parallel_config(backend), pytest.raises(ValueError, match="task three"):
        run_tasks(_fail_on_three, [(i,) for i in range(5)])


def test_a_crew_gives_every_worker_the_shared_object() -> None:
    model = {"table": np.arange(10.0)}
    expected = [(i, float(i)) for i in (4, 1, 9)]
    for backend, n_jobs in (("sequential", None), ("threading", 2), ("loky", 2)):
        with joblib.parallel_config(backend, **({} if n_jobs is None else {"n_jobs": n_jobs})):
            crew = Crew(model)
            assert crew.run(_share, [(4,), (1,), (9,)]) == expected
            assert crew.run(_share, [(9,)]) == expected[2:], "a second call, by digest only"


def test_a_shared_object_that_cannot_travel_is_explained() -> None:
    import threading

    told = "model: expected a model that can be sent"
    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(TypeError, match=told):
        Crew({"lock": threading.Lock()})
    assert Crew({"lock": threading.Lock()}, n_jobs=1).run(lambda shared, i: i, [(1,)]) == [1]


def test_progress_is_silent_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    run_tasks(_fail_on_three, [(1,), (2,)])
    silent = capsys.readouterr()
    assert silent.out + silent.err == ""
    run_tasks(_fail_on_three, [(1,), (2,)], progress=True, description="rows")
    told = capsys.readouterr()
    assert "rows" in told.err
    assert "2/2" in told.err
    assert told.out == ""
    with progress_bar(3, False) as bar:
        bar.update(2)
    with progress_bar(5, False) as again:  # one for all, which counts nothing
        again.update()
    assert again is bar
    assert bar.disable
    assert bar.n == 0
