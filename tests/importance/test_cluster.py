"""A real Dask cluster of two worker processes: the same numbers, the model sent once, its own
errors."""

import os
import uuid
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

from shaplab.foundations.kernel import kernel_shap
from shaplab.foundations.permutation import permutation_shap
from shaplab.importance.loss_shap import loss_shap
from shaplab.importance.sage import sage

pytestmark = pytest.mark.slow

KIND = pd.CategoricalDtype(["a", "b", "c"])


def frame(n, rng):
    return pd.DataFrame(
        {
            "size": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "flag": rng.random(n) < 0.5,
            "kind": pd.Series(rng.choice(["a", "b", "c", None], n), dtype=KIND),
            "count": pd.array(
                np.where(rng.random(n) < 0.1, None, rng.integers(0, 5, n)), dtype="Int64"
            ),
        }
    )


class ReadsFrames:
    """A model that takes only the DataFrames of its training, and leaves a file whenever it is
    packed or unpacked."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, table):
        assert [str(kind) for kind in table.dtypes] == ["float64", "bool", "category", "Int64"]
        assert table["kind"].dtype == KIND
        found = table["size"].fillna(-1.0) * (table["kind"].cat.codes + 2) * (1 + table["flag"])
        return np.asarray(found + table["count"].fillna(9).astype(float) * table["flag"])

    def __getstate__(self):
        (self.folder / f"packed-{uuid.uuid4()}").touch()
        return {"folder": self.folder}

    def __setstate__(self, state):
        self.folder = state["folder"]
        (self.folder / f"unpacked-{os.getpid()}-{uuid.uuid4()}").touch()


def fails(table):
    if len(table) > 100:
        raise ZeroDivisionError("deep inside the model")
    return np.asarray(table["flag"], dtype=float)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as local,
        distributed.Client(local),
    ):
        yield


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    return frame(24, rng), frame(40, rng), rng.normal(size=24)


@pytest.mark.parametrize(
    "method", ["permutation_shap", "kernel_shap", "sage", "sage, a loss of its own", "loss_shap"]
)
def test_a_cluster_changes_no_bit_and_gets_the_model_once(cluster, tables, tmp_path, method):
    X, B, y = tables
    model = ReadsFrames(tmp_path)

    def run():
        if method == "permutation_shap":
            return permutation_shap(model, X, B, rounds=12, rng=0)
        if method == "kernel_shap":
            return kernel_shap(model, X, B, rng=0)
        if method == "loss_shap":
            return loss_shap(model, X, y, B, rounds=4, rng=0)
        return sage(
            model,
            X,
            y,
            B,
            thresh=0.05,
            rng=0,
            loss="mse" if method == "sage" else lambda p, y: np.abs(p - y),
        )

    alone = run()
    assert not list(tmp_path.iterdir())
    with joblib.parallel_config("dask"):
        together = run()
    assert np.array_equal(alone.values, together.values)
    assert (alone.std is None and together.std is None) or np.array_equal(alone.std, together.std)
    assert alone.info["evaluations"] == together.info["evaluations"]
    names = [path.name for path in tmp_path.iterdir()]
    assert sum(name.startswith("packed") for name in names) == 1
    # Several calls of the cluster, one for every few rounds; each of two workers unpacks at most
    # once.
    workers = [name.split("-")[1] for name in names if name.startswith("unpacked")]
    assert 1 <= len(workers) == len(set(workers)) <= 2


def test_an_exception_on_a_worker_names_the_model(cluster, tables):
    X, B, _ = tables
    with (
        pytest.raises(ZeroDivisionError, match="deep inside the model") as caught,
        joblib.parallel_config("dask"),
    ):
        permutation_shap(fails, X, B, rounds=2, rng=0)
    assert "in fails" in str(caught.value.__cause__)
