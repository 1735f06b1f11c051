"""Where data files are: inside an installed package, in ``SHAPLAB_DATA_DIR``, or below
``SHAPLAB_DATA_URL``.

Every file of a full set is checked by its sha256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any, NoReturn

from shaplab._validation import fail

__all__: list[str] = []


def package_file(package: str, path: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent / path
    if file is None or not file.is_file():
        fail(
            f"package {package}",
            f"an installed package with the file {path}",
            "none",
            f"Run: pip install {package}",
            ModuleNotFoundError,
        )
    return file


FILES = {
    "bike/bike.csv.gz": "4883db9b34b59a8b691249bb26a7a93afcf6200ad2003c479d0adfaa8187100e",
    "cifar10/cifar10_jpeg_6k.npz": "1d40f2bdb02b4e21fd8b38a6b4aae09626310e332a18829f3c9f6ef33cda70cb",
    "elec2/elec.csv.gz": "67a53c45ac6d607360377e81aa3d3fc9db8cd9ed6580d499ab49f10131e9fdcc",
    "mnist/mnist.npz": "fb1528a6ef57ed3e2c3d896b3159b8d65fbf3cb9e0df7e87fa59ce2e4ae62ca5",
    "nhanes1/NHANESI_subset_X.csv.gz": "83fb9cc1f334403cdf32937f4d62949920f48b81ef8309165f1e5c24bb97c43a",
    "nhanes1/NHANESI_subset_y.csv.gz": "5d4a2500489827cc2802570dbfdb40227b055080090fc8c616da7b8cd072c508",
    "parkinsons/parkinsons_updrs.csv.gz": "73dc247cb9a549db6c762a2c519d784167bebc3291d8c9fc015c6fa188d1c97c",
    "yeast/yeast.data.gz": "08ab2a17762e06755d10bb97587034749e4c99fb4871aa91a3f8108d624af52c",
}
# What would do instead, by folder.
_INSTEAD = {
    "bike": "load_diabetes",
    "cifar10": "load_mnist_small",
    "elec2": "simulate_deployment",
    "mnist": "load_mnist_small",
    "nhanes1": "load_nhefs",
    "parkinsons": "simulate_parkinsons",
    "yeast": "load_wine",
}


def data_file(file: str) -> Path:
    """Find a file in ``SHAPLAB_DATA_DIR`` or fetch it from ``SHAPLAB_DATA_URL``; check its sha256
    either way."""
    folder, url, known = (
        os.environ.get("SHAPLAB_DATA_DIR"),
        os.environ.get("SHAPLAB_DATA_URL"),
        FILES[file],
    )
    instead = f"shaplab_book.datasets.{_INSTEAD[file.split('/')[0]]}()"

    def refuse(variable: str, got: str, kind: type[Exception] = FileNotFoundError) -> NoReturn:
        fail(
            variable,
            f"the file {file} (sha256 {known})",
            got,
            "Set SHAPLAB_DATA_DIR to a folder that holds this file, or SHAPLAB_DATA_URL to an "
            "address that serves it, "
            f"or use {instead}, which needs no file",
            kind,
        )

    if folder and (path := Path(folder).expanduser() / file).is_file():
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != known:
            refuse("SHAPLAB_DATA_DIR", f"{path} with sha256 {found}", ValueError)
        return path
    if not url:
        refuse(
            "SHAPLAB_DATA_DIR",
            f"no such file in {Path(folder).expanduser()}"
            if folder
            else "neither this variable nor SHAPLAB_DATA_URL set",
        )
    try:
        import pooch

        return Path(
            pooch.retrieve(
                f"{url.rstrip('/')}/{file}",
                f"sha256:{known}",
                fname=file.replace("/", "-"),
                path=pooch.os_cache("shaplab"),
                downloader=pooch.HTTPDownloader(timeout=60),
            )
        )
    except ImportError:
        fail(
            "package pooch",
            "pooch, which downloads files",
            "none",
            "Run: pip install pooch",
            ModuleNotFoundError,
        )
    except (
        Exception
    ) as problem:  # pooch and requests raise many kinds: each gets the one message, with its cause
        refuse(
            "SHAPLAB_DATA_URL",
            f"from {url}: {type(problem).__name__}: {problem}",
            ValueError if "hash" in str(problem) else OSError,
        )


def read_csv(file: str, **options: Any) -> Any:
    """The DataFrame in a gzipped text file."""
    import pandas as pd

    return pd.read_csv(data_file(file), **{"compression": "gzip", **options})
