"""Data sets: shapes, names, truth of the simulators, checksums and error paths."""

from __future__ import annotations

import hashlib
import http.server
import os
import sys
import threading
from functools import partial

import numpy as np
import pandas as pd
import pytest
from shaplab_book import data_files, datasets

PACKAGES = {
    "load_nhefs": (1629, 50),
    "load_german_credit": (1000, 20),
    "load_breast_cancer": (569, 30),
    "load_diabetes": (442, 10),
    "load_wine": (178, 13),
    "load_digits": (1797, 1, 8, 8),
    "load_mnist_small": (5000, 1, 28, 28),
}
SIMULATED = {
    "simulate_corrgroups60": (1000, 60),
    "simulate_independent60": (1000, 60),
    "simulate_shapnet16": (1000, 16),
    "simulate_parkinsons": (2000, 18),
    "simulate_deployment": (20_000, 25),
    "simulate_dna": (2000, 4, 200),
}
FULL = {
    "load_nhanes": (9550, 18),
    "load_mnist": (70_000, 1, 28, 28),
    "load_cifar10_jpeg": (6000, 3, 32, 32),
    "load_yeast": (1484, 8),
    "load_bike": (10_886, 12),
    "load_parkinsons": (5875, 18),
    "load_electricity": (45_312, 6),
}
needs_files = pytest.mark.skipif(
    not os.environ.get("SHAPLAB_DATA_DIR"), reason="SHAPLAB_DATA_DIR is not set"
)


def check(data: datasets.Dataset, shape: tuple[int, ...]) -> None:
    assert data.X.shape == shape
    assert len(data.y) == shape[0]
    assert not pd.isna(data.y).any()
    if isinstance(data.X, pd.DataFrame):
        assert data.feature_names == tuple(data.X.columns)
        assert len(set(data.feature_names)) == len(data.feature_names) == len(data.units)
        assert data.codes().dtypes.eq(np.float64).all()
    else:
        assert data.X.dtype == np.float32
        assert 0 <= data.X.min() < data.X.max() <= 1
    for text in (data.name, data.target, data.source, data.licence, data.description):
        assert text.strip()
    for text in (data.name, data.target, data.source, data.licence, f"{shape[0]:,}"):
        assert text in repr(data)


def test_every_public_function_is_tested_here() -> None:
    listed = {"Dataset", "simulate_large", "simulate_large_chunks", *PACKAGES, *SIMULATED, *FULL}
    assert listed == set(datasets.__all__)
    for name in listed - {"Dataset"}:
        assert f"``{name}()``" in datasets.__doc__, "the module docstring names every function"


@pytest.mark.parametrize(("name", "shape"), [*PACKAGES.items(), *SIMULATED.items()])
def test_defaults_need_no_files(
    name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHAPLAB_DATA_DIR", raising=False)
    monkeypatch.delenv("SHAPLAB_DATA_URL", raising=False)
    check(getattr(datasets, name)(), shape)


def test_a_data_set_cannot_be_changed_by_name_and_each_call_is_fresh() -> None:
    first = datasets.load_wine()
    with pytest.raises(AttributeError):
        first.y = None  # type: ignore[misc]
    first.X.iloc[0, 0] = -1.0
    assert datasets.load_wine().X.iloc[0, 0] != -1.0


def test_nhefs_keeps_no_outcome_and_no_later_measurement() -> None:
    data = datasets.load_nhefs()
    assert data.y.sum() == 318
    # Nothing that is known only after 1982 may predict deaths that well; death dates would reach 1.
    correlation = data.X.corrwith(pd.Series(data.y)).abs()
    assert correlation.max() < 0.5
    assert set(data.X["sex"].unique()) == {0.0, 1.0}
    assert data.X["sex"].sum() == 830
    assert data.X["high blood pressure"].max() == 1
    years = data.extra["signed_years"]
    assert ((years > 0) == (data.y == 1)).all()
    assert years.min() == -10
    assert 0 < years[years > 0].min() <= years.max() <= 10


def test_german_credit_has_labels_in_their_order() -> None:
    data = datasets.load_german_credit()
    assert data.y.sum() == 700
    assert not data.X.isna().any().any()
    savings = data.X["savings account"].cat
    assert list(savings.categories)[1] == "... < 100 DM"
    assert list(savings.categories)[-1] == "... >= 1000 DM"
    codes = data.codes()
    assert (codes["savings account"] == savings.codes).all()
    assert (codes["duration"] == data.X["duration"]).all()
    assert sum(kind == "category" for kind in data.X.dtypes.astype(str)) == 13


def test_codes_keep_missing_values() -> None:
    frame = pd.DataFrame({"a": pd.Categorical(["x", None, "y"]), "b": [1.0, np.nan, 3.0]})
    data = datasets.Dataset(frame, np.zeros(3), ("a", "b"), ("", ""), "t", "n", "s", "l", "d")
    np.testing.assert_array_equal(data.codes().to_numpy(), [[0, 1], [np.nan, np.nan], [1, 3]])
    assert data.X["a"].dtype == "category"


@pytest.mark.parametrize("name", SIMULATED)
def test_a_seed_fixes_a_simulation(name: str) -> None:
    simulate = getattr(datasets, name)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = simulate(200, rng=3), simulate(200, rng=3), simulate(200, rng=4)
    np.testing.assert_array_equal(np.asarray(first.X), np.asarray(second.X))
    np.testing.assert_array_equal(first.y, second.y)
    assert not np.array_equal(first.y, other.y) or not np.array_equal(
        np.asarray(first.X), np.asarray(other.X)
    )
    assert (np.random.get_state()[1] == state).all(), "global random state is the user's"  # noqa: NPY002
    with pytest.raises(TypeError, match="n: expected an integer"):
        simulate("many")


def test_corrgroups_have_the_stated_correlations_and_coefficients() -> None:
    data = datasets.simulate_corrgroups60(20_000)
    found = np.corrcoef(data.X.to_numpy().T)
    # Standard error of a correlation at rho = 0 is 1/sqrt(20,000) = 0.007; 1,770 pairs stay within
    # 5 of them.
    assert np.abs(found - data.extra["covariance"]).max() < 0.035
    assert data.extra["covariance"][0, 1] == 0.99
    assert data.extra["covariance"][2, 3] == 0
    noise = data.y - data.X.to_numpy() @ data.extra["coefficients"]
    assert noise.std() == pytest.approx(0.01, rel=0.05)
    assert list(np.flatnonzero(data.extra["coefficients"])) == list(range(0, 60, 3))
    assert datasets.simulate_independent60(10).extra["covariance"][0, 1] == 0


def test_shapnet_response_is_the_formula_plus_noise() -> None:
    data = datasets.simulate_shapnet16(5000)
    X = data.X.to_numpy()
    assert np.abs(X).max() <= 0.5
    assert (data.y - (X + X**2).sum(axis=1)).std() == pytest.approx(0.05, rel=0.05)


def test_deployment_faults_are_where_they_are_said_to_be() -> None:
    faulty, clean = (
        datasets.simulate_deployment(rng=1),
        datasets.simulate_deployment(rng=1, faults=False),
    )
    extra = faulty.extra
    assert (np.diff(extra["day"]) >= 0).all()
    assert not any(
        (extra[fault] & extra["train"]).any() for fault in ("swapped", "blank", "fading")
    )
    assert not any(clean.extra[fault].any() for fault in ("swapped", "blank", "fading"))
    swapped = extra["swapped"]
    assert swapped.mean() == pytest.approx(1 / 3, abs=1e-3)
    for there, here in (("room 6", "room 13"), ("room 13", "room 6")):
        assert (faulty.X.loc[swapped, there] == clean.X.loc[swapped, here]).all()
        assert (faulty.X.loc[~swapped, there] == clean.X.loc[~swapped, there]).all()
    blank = extra["blank"]
    assert (faulty.X.loc[blank, "general anesthesia"] == 0).all()
    assert clean.X.loc[blank, "general anesthesia"].mean() > 0.4
    assert (faulty.X.loc[blank, "site B"] == 1).all()
    assert np.ptp(extra["day"][blank]) < 30
    # Recording faults leave the durations alone, and only the fading effect changes them.
    changed = faulty.y != clean.y
    assert (changed <= (faulty.X["ablation"] == 1)).all()
    assert (changed == extra["fading"]).all()
    late = extra["fading"] & (extra["day"] > 1400)
    assert (clean.y - faulty.y)[late].mean() > 120
    rooms = faulty.X.filter(like="room ")
    assert rooms.shape[1] == 16
    assert (rooms.sum(axis=1) == 1).all()
    assert faulty.y.min() > 0


def test_dna_masks_mark_the_planted_motifs() -> None:
    data = datasets.simulate_dna(800, rng=2)
    masks, tasks = data.extra["masks"], data.extra["tasks"]
    assert (data.X.sum(axis=1) == 1).all()
    assert tasks.mean(axis=0) == pytest.approx([0.25, 0.5, 0.5])
    assert (data.y == (tasks[:, 1] & tasks[:, 2])).all()
    for code, (name, motif) in enumerate(data.extra["motifs"].items(), start=1):
        assert ((masks == code).sum(axis=1) == len(motif) * tasks[:, code]).all(), name
        rows = np.flatnonzero(tasks[:, code])
        planted = np.stack([data.X[row][:, masks[row] == code] for row in rows])
        # The wanted letter has probability .88; with some 400 rows the standard error is 0.016.
        hits = planted[:, ["ACGT".index(letter) for letter in motif], range(len(motif))].mean(
            axis=0
        )
        assert np.abs(hits - 0.88).max() < 0.08
    background = data.X.transpose(0, 2, 1)[masks == 0]
    assert background[:, [1, 2]].sum(axis=1).mean() == pytest.approx(0.46, abs=0.01)
    with pytest.raises(ValueError, match="gc: expected"):
        datasets.simulate_dna(10, gc=1.5)


def test_parkinsons_simulation_has_people_whose_rows_are_alike() -> None:
    data = datasets.simulate_parkinsons()
    person = data.extra["person"]
    assert len(np.unique(person)) == 42
    assert data.X.groupby(person)["age"].nunique().eq(1).all()
    spread = data.X.groupby(person)["HNR"].mean().var() / data.X["HNR"].var()
    assert spread > 0.3


def test_large_comes_in_chunks_that_are_the_whole() -> None:
    whole = datasets.simulate_large(2500, 12, chunk=1000, rng=7)
    pieces = list(datasets.simulate_large_chunks(2500, 12, chunk=1000, rng=7))
    assert [len(y) for _, y in pieces] == [1000, 1000, 500]
    np.testing.assert_array_equal(whole.X, np.concatenate([X for X, _ in pieces]))
    np.testing.assert_array_equal(whole.y, np.concatenate([y for _, y in pieces]))
    assert whole.X.dtype == np.float32
    assert whole.X.shape == (2500, 12)
    assert len(whole.feature_names) == 12
    assert not np.array_equal(pieces[0][0][:500], pieces[1][0][:500])
    assert np.corrcoef(whole.X[:, 0], whole.X[:, 1])[0, 1] > 0.6


# Full sets: where files come from and what is said when they do not.

CONTENT = b"not,the,real,data\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with one file whose checksum is made the known one."""
    (tmp_path / "data/bike").mkdir(parents=True)
    (tmp_path / "data/bike/bike.csv.gz").write_bytes(CONTENT)
    monkeypatch.setitem(data_files.FILES, "bike/bike.csv.gz", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.delenv("SHAPLAB_DATA_DIR", raising=False)
    monkeypatch.delenv("SHAPLAB_DATA_URL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


@pytest.fixture
def server(folder):
    """The same folder over HTTP on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


@pytest.mark.parametrize("name", FULL)
def test_without_files_the_error_names_everything(name: str, folder) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        getattr(datasets, name)()
    message = str(caught.value)
    for part in (
        "SHAPLAB_DATA_DIR",
        "SHAPLAB_DATA_URL",
        ".gz" if ".gz" in message else ".npz",
        "sha256",
    ):
        assert part in message
    instead = message.split("shaplab_book.datasets.")[1].split("(")[0]
    assert instead in {**PACKAGES, **SIMULATED}, "the way out must itself need no file"


def test_a_file_that_is_missing_from_the_folder(folder, monkeypatch) -> None:
    monkeypatch.setenv("SHAPLAB_DATA_DIR", str(folder))
    with pytest.raises(
        FileNotFoundError, match=rf"yeast/yeast\.data\.gz .* no such file in {folder}"
    ):
        datasets.load_yeast()


def test_a_file_is_read_from_the_folder_and_never_written_there(folder, monkeypatch) -> None:
    monkeypatch.setenv("SHAPLAB_DATA_DIR", str(folder))
    assert data_files.data_file("bike/bike.csv.gz") == folder / "bike/bike.csv.gz"
    assert sorted(path.name for path in folder.rglob("*")) == ["bike", "bike.csv.gz"]


def test_a_changed_file_is_refused(folder, monkeypatch) -> None:
    (folder / "bike/bike.csv.gz").write_bytes(CONTENT + b"!")
    monkeypatch.setenv("SHAPLAB_DATA_DIR", str(folder))
    with pytest.raises(
        ValueError, match=r"expected the file bike/bike.csv.gz .sha256 .*got .*with sha256"
    ):
        datasets.load_bike()


def test_a_file_is_downloaded_checked_and_kept(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SHAPLAB_DATA_URL", server + "/")
    path = data_files.data_file("bike/bike.csv.gz")
    assert path.read_bytes() == CONTENT
    assert tmp_path / "cache" in path.parents
    monkeypatch.setenv("SHAPLAB_DATA_URL", "http://127.0.0.1:9/nobody")
    assert data_files.data_file("bike/bike.csv.gz") == path, "the kept copy is used"


def test_the_folder_goes_before_the_address(server, folder, monkeypatch) -> None:
    monkeypatch.setenv("SHAPLAB_DATA_DIR", str(folder))
    monkeypatch.setenv("SHAPLAB_DATA_URL", "http://127.0.0.1:9/nobody")
    assert data_files.data_file("bike/bike.csv.gz").parent == folder / "bike"


@pytest.mark.parametrize(
    ("address", "kind"),
    [("http://127.0.0.1:9", OSError), ("{server}/nowhere", OSError), ("ftp-typo://x", OSError)],
)
def test_an_address_that_does_not_serve(address, kind, server, monkeypatch) -> None:
    monkeypatch.setenv("SHAPLAB_DATA_URL", address.format(server=server))
    with pytest.raises(kind, match=r"SHAPLAB_DATA_URL: expected the file bike/bike.csv.gz"):
        data_files.data_file("bike/bike.csv.gz")


def test_an_address_that_serves_something_else(server, folder, tmp_path, monkeypatch) -> None:
    (folder / "bike/bike.csv.gz").write_bytes(b"<html>please log in</html>")
    monkeypatch.setenv("SHAPLAB_DATA_URL", server)
    with pytest.raises(ValueError, match=r"SHAPLAB_DATA_URL: expected the file bike/bike.csv.gz"):
        data_files.data_file("bike/bike.csv.gz")
    assert not list((tmp_path / "cache").rglob("*bike.csv.gz")), (
        "nothing wrong may stay in the cache"
    )


def test_a_package_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ModuleNotFoundError, match="Run: pip install causaldata"):
        datasets.load_nhefs()


def test_pickles_are_never_loaded(folder, monkeypatch) -> None:
    import io

    evil = io.BytesIO()
    np.savez(evil, X_train=np.array([{"a": 1}], dtype=object), y_train=np.zeros(1))
    (folder / "mnist").mkdir()
    (folder / "mnist/mnist.npz").write_bytes(evil.getvalue())
    monkeypatch.setitem(
        data_files.FILES, "mnist/mnist.npz", hashlib.sha256(evil.getvalue()).hexdigest()
    )
    monkeypatch.setenv("SHAPLAB_DATA_DIR", str(folder))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        datasets.load_mnist()


@needs_files
@pytest.mark.parametrize(("name", "shape"), FULL.items())
def test_full_sets(name: str, shape: tuple[int, ...]) -> None:
    check(getattr(datasets, name)(), shape)


@needs_files
def test_facts_of_the_full_sets() -> None:
    nhanes = datasets.load_nhanes()
    assert (nhanes.y != 0).all()
    assert nhanes.X["Poverty index"].max() < 999
    mnist = datasets.load_mnist()
    assert mnist.extra["test"].sum() == 10_000
    assert len(np.unique(mnist.y[:100])) == 10, "shuffled"
    electricity = datasets.load_electricity().X.iloc[:, 3]
    assert electricity[:17_000].nunique() == 1
    assert electricity[18_000:].nunique() > 1


def test_short_dna_has_room_for_both_motifs_under_any_seed():
    for seed in range(60):
        found = datasets.simulate_dna(40, length=20, rng=seed)
        masks, tasks = found.extra["masks"], found.extra["tasks"]
        assert ((masks == 1).sum(axis=1) == 8 * tasks[:, 1]).all()
        assert ((masks == 2).sum(axis=1) == 8 * tasks[:, 2]).all()
