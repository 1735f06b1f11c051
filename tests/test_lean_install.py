"""Only what pyproject.toml requires: everything that can be looked at can be looked at, and what
needs more says what."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Modules that no requirement of shaplab brings along.
OPTIONAL = """
pandas polars pyarrow narwhals matplotlib torch xgboost lightgbm catboost sklearn shap captum sage dask
distributed interpret transformers
"""

LEAN = f"""
import importlib, sys
sys.path.insert(0, {{root!r}})
OPTIONAL = set({OPTIONAL.split()!r})
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {{{{name!r}}}}", name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
import shaplab
{{code}}
assert not OPTIONAL & {{{{name.split(".")[0] for name in sys.modules}}}}
"""


def lean(code: str) -> subprocess.CompletedProcess[str]:
    from pathlib import Path

    root = str(Path(__file__).resolve().parents[1])
    script = LEAN.format(root=root, code=code)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "code",
    [
        "from shaplab import *\nassert tree_shap and 'deep_shap' not in dir()",
        "from shaplab.shapnets import *\nfrom shaplab.plots import *",
        "import pydoc\nassert 'permutation_shap' in pydoc.plain(pydoc.render_doc(shaplab))",
        "import inspect\nassert dict(inspect.getmembers(shaplab))['sage'] is shaplab.sage",
        "import inspect\nassert inspect.getmembers(shaplab.shapnets) is not None",
        "assert all(getattr(shaplab, name) is not None for name in dir(shaplab))",
        "e = shaplab.kernel_shap(lambda Z: Z @ [1.0, 2.0], np.ones((2, 2)), np.zeros((1, 2)))\n"
        "assert np.allclose(e.values, [1.0, 2.0]) and repr(e) and e._repr_html_()",
        "t = shaplab.TreeEnsemble.from_arrays([0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1],"
        " [0, 10.0, 20.0])\nassert shaplab.tree_shap(t, [[0.0]]).values.shape == (1, 1)",
        "m = shaplab.AdditiveModel({0: np.sin})\nassert shaplab.additive_shap(m, np.ones((2, 1)), "
        "np.ones((1, 1))).values.shape == (2, 1)",
    ],
)
def test_a_lean_install_can_be_looked_at_and_used(code: str) -> None:
    done = lean(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "package"),
    [
        ("shaplab.deep_shap", "torch"),
        ("shaplab.shapnets.gam_network", "torch"),
        ("e.to_frame()", "pandas"),
        ("e.to_shap()", "shap"),
        ("shaplab.plots.bar(e)", "matplotlib"),
        ("shaplab.plots.table(e)", "pandas"),
        ("shaplab.feature_ranking(e)", "pandas"),
        ("shaplab.explain_parquet(lambda rows: e, 'rows.parquet', 'out')", "pyarrow"),
    ],
)
def test_what_needs_another_package_says_which(call: str, package: str) -> None:
    code = f"""
e = shaplab.Explanation([[1.0, 2.0]], 0.0)
try:
    {call}
except ModuleNotFoundError as problem:
    assert str(problem).endswith("Install it: pip install {package}."), problem
    assert ": expected the package {package} beside shaplab, got " in str(problem), problem
else:
    raise SystemExit("no error")
"""
    done = lean(code)
    assert done.returncode == 0, done.stdout + done.stderr
