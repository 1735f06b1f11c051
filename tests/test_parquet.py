"""Parquet files in, Parquet files out: the values of one call, in bounded memory, on a cluster."""

from __future__ import annotations

import json
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

import shaplab
from shaplab import explain_parquet, permutation_shap, tree_shap

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

rng = np.random.default_rng(0)
FRAME = pd.DataFrame(rng.normal(size=(500, 3)), columns=["a", "b", "c"])
FRAME["customer"] = [f"n{number}" for number in range(500)]
NUMBERS = FRAME[["a", "b", "c"]]
Y = FRAME["a"] * FRAME["b"] + FRAME["c"]
FOREST = RandomForestRegressor(5, max_depth=4, random_state=0).fit(NUMBERS, Y)
# Few rows are explained by another route than many; the two round differently.
ROUNDING = {"rtol": 0, "atol": 1e-13}


@pytest.fixture
def folder(tmp_path):
    """Three files, one of them in a folder of its own, and one without rows."""
    source = tmp_path / "source"
    (source / "day=2").mkdir(parents=True)
    FRAME[:200].to_parquet(source / "one.parquet", row_group_size=70)
    FRAME[200:300].to_parquet(source / "two.parquet")
    FRAME[300:].to_parquet(source / "day=2" / "one.parquet")
    FRAME[:0].to_parquet(source / "zero.parquet")
    return source


def together(paths):
    return pd.concat([parquet.ParquetFile(path).read().to_pandas() for path in paths])


def explain_forest(rows):
    return tree_shap(FOREST, rows)


@pytest.mark.parametrize("batch_rows", [1, 64, 1000])
def test_a_folder_of_files_gives_what_one_call_gives(folder, tmp_path, batch_rows):
    source = folder if batch_rows > 1 else folder / "two.parquet"
    written = explain_parquet(
        explain_forest, source, tmp_path / "out", keep=["customer"], batch_rows=batch_rows
    )
    found = together(written).set_index("customer")
    assert list(found.columns) == ["base value", "a", "b", "c"]
    wanted = tree_shap(FOREST, NUMBERS)
    rows = [int(name[1:]) for name in found.index]
    assert sorted(rows) == list(range(500) if batch_rows > 1 else range(200, 300))
    np.testing.assert_allclose(found[["a", "b", "c"]], wanted.values[rows], **ROUNDING)
    np.testing.assert_array_equal(found["base value"], wanted.base_values[rows])
    if batch_rows > 1:
        names = [path.relative_to(tmp_path / "out").as_posix() for path in written]
        assert names == ["day=2/one.parquet", "one.parquet", "two.parquet"]


def test_outputs_standard_errors_and_chosen_columns_have_names(folder, tmp_path):
    model = RandomForestClassifier(5, max_depth=3, random_state=0)
    model.fit(NUMBERS[["c", "a"]], np.digitize(Y, [-1, 1]))
    background = NUMBERS[["c", "a"]][:20]

    def explain(rows):
        return permutation_shap(model.predict_proba, rows.to_pandas(), background, rounds=4, rng=0)

    files = [folder / "two.parquet"]
    written = explain_parquet(explain, files, tmp_path / "out", columns=["c", "a"])
    found = together(written)
    wanted = permutation_shap(
        model.predict_proba, NUMBERS[["c", "a"]][200:300], background, rounds=4, rng=0
    )
    assert list(found.columns[:5]) == [*(f"base value [{k}]" for k in "012"), "c [0]", "c [1]"]
    assert list(found.columns[-1:]) == ["std of a [2]"]
    np.testing.assert_array_equal(found["c [1]"], wanted.values[:, 0, 1])
    np.testing.assert_array_equal(found["std of a [2]"], wanted.std[:, 1, 2])


def test_an_interrupted_run_leaves_whole_files_and_goes_on(folder, tmp_path):
    calls = []

    def fails_late(rows):
        calls.append(rows.num_rows)
        if len(calls) == 4:
            raise ConnectionError("the model went away")
        return tree_shap(FOREST, rows)

    out = tmp_path / "out"
    with pytest.raises(ConnectionError):
        explain_parquet(fails_late, folder, out, columns=["a", "b", "c"], batch_rows=100)
    assert [path.name for path in sorted(out.rglob("*"))] == ["day=2", "one.parquet"]
    with pytest.raises(ValueError, match="resume=True"):
        explain_parquet(explain_forest, folder, out, columns=["a", "b", "c"])
    before = next(out.rglob("*.parquet")).stat().st_mtime_ns
    written = explain_parquet(explain_forest, folder, out, columns=["a", "b", "c"], resume=True)
    assert len(written) == 3
    assert written[0].stat().st_mtime_ns == before
    np.testing.assert_allclose(
        together(written[1:])["a"], tree_shap(FOREST, NUMBERS[:300]).values[:, 0], **ROUNDING
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "nowhere.parquet"}, "source: expected .* not there"),
        ({"source": []}, "source: expected"),
        ({"source": 3}, "source: expected"),
        ({"target": "SOURCE"}, "target: expected"),
        (
            {"columns": ["a", "q"]},
            "columns: expected columns of one.parquet: a, b, c, customer, got q",
        ),
        ({"keep": ["q"]}, "keep: expected"),
        ({"keep": ["customer", "a"], "columns": ["a", "b", "c"]}, "keep: expected .*'a'"),
        ({"batch_rows": 0}, "batch_rows"),
        ({"explain": None}, "explain: expected a callable"),
        ({"explain": lambda rows: rows}, "explain: expected .* Explanation"),
        ({"explain": lambda rows: explain_forest(rows)[:1]}, "explain: expected one explanation"),
    ],
)
def test_errors_say_what_to_do(folder, tmp_path, options, words):
    settings = {"explain": explain_forest, "source": folder, "target": tmp_path / "out"}
    settings |= {"columns": ["a", "b", "c"], **options}
    if settings["target"] == "SOURCE":
        settings["target"] = folder
    with pytest.raises((ValueError, TypeError), match=words):
        explain_parquet(**settings)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_categories_go_through_and_names_of_features_differ(tmp_path):
    frame = FRAME.assign(kind=pd.Categorical(np.where(FRAME["a"] > 0, "up", None)))
    frame["late"] = pd.Categorical([f"k{number // 50}" for number in range(500)])
    frame.to_parquet(tmp_path / "rows.parquet")

    def explain(rows):
        codes = rows.to_pandas()["kind"].notna().to_numpy(dtype=float)
        return shaplab.Explanation(np.stack([codes, codes], axis=1), 0.0, feature_names=names)

    names = ["x", "y"]
    written = explain_parquet(
        explain,
        tmp_path / "rows.parquet",
        tmp_path / "out",
        columns=["kind"],
        keep=["late", "kind"],
        batch_rows=70,
    )
    found = together(written)
    assert found["late"].tolist() == frame["late"].tolist()
    assert found["kind"].notna().tolist() == frame["kind"].notna().tolist()
    assert found["x"].tolist() == (FRAME["a"] > 0).astype(float).tolist()
    names = ["x", "x"]
    with pytest.raises(ValueError, match="explain: expected features of different names"):
        explain_parquet(explain, tmp_path / "rows.parquet", tmp_path / "twice", columns=["kind"])


MEMORY = """
import json, resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
import shaplab
folder, rows = sys.argv[1], int(sys.argv[2])
model = shaplab.TreeEnsemble.from_arrays(
    [0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, 1.0, 2.0],
    feature_names=[f"f{j}" for j in range(40)])
explain = lambda table: shaplab.tree_shap(model, table)
shaplab.explain_parquet(explain, f"{folder}/small.parquet", f"{folder}/warm", batch_rows=4096)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
shaplab.explain_parquet(explain, f"{folder}/{rows}.parquet", f"{folder}/out", batch_rows=4096)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


# Two processes that compile their kernels: 20 s.
def test_memory_is_bounded_by_the_batch(tmp_path):
    """The growth of a process, in kB, for a file of 12 MB and for one of 96 MB, each of which gives
    results of the same size."""
    grown = {}
    for rows in (40_000, 320_000):
        names = [f"f{j}" for j in range(40)]
        with parquet.ParquetWriter(
            tmp_path / f"{rows}.parquet", arrow.schema([(name, arrow.float64()) for name in names])
        ) as writer:
            for start in range(0, rows, 10_000):
                part = np.random.default_rng(start).normal(size=(40, 10_000))
                writer.write_table(arrow.table(dict(zip(names, part, strict=True))))
        small = {name: np.zeros(10) for name in names}
        parquet.write_table(arrow.table(small), tmp_path / "small.parquet")
        for old in ("warm", "out"):
            for file in (tmp_path / old).glob("*"):
                file.unlink()
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path), str(rows)],
            capture_output=True,
            text=True,
            check=True,
        )
        grown[rows] = json.loads(done.stdout)
    # Rows and values of the large file are 200 MB together. Compiling takes 40 MB; what is kept of a
    # file beside a batch are footers and what the allocators of Arrow and Python hold back.
    assert grown[320_000] < 80_000
    assert grown[320_000] - grown[40_000] < 20_000


# Starts processes and a cluster, each of which compiles the kernels: 20 s.
@pytest.mark.slow
def test_the_same_on_threads_processes_and_a_cluster(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    settings = {"columns": ["a", "b", "c"], "keep": ["customer"]}
    alone = together(explain_parquet(explain_forest, folder, tmp_path / "alone", **settings))
    model = FOREST

    def explain(rows):
        return shaplab.tree_shap(model, rows)

    for name in ("threading", "loky"):
        with joblib.parallel_config(name, n_jobs=2):
            found = together(explain_parquet(explain, folder, tmp_path / name, **settings))
        pd.testing.assert_frame_equal(found, alone)
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path / "scratch"),
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        found = together(explain_parquet(explain, folder, tmp_path / "dask", **settings))
    pd.testing.assert_frame_equal(found, alone)
