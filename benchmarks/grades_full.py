"""How long would the full benchmark of explanation methods take? Measured on a part of one split,
and scaled.

Runs the cells of book/insight/metrics.md that define methods and models, with the settings of the
full profile but few test rows of one split. What is done once for a split (fitting, preparing) is
scaled with the splits, the rest with the rows.

    OMP_NUM_THREADS=1 python benchmarks/grades_full.py [--rows 5]
"""

import argparse
import re
import time
from pathlib import Path

from shaplab.insight.metrics import Hider, explanation_metrics

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, default=5)
rows = parser.parse_args().rows
text = (Path(__file__).parents[1] / "book" / "insight" / "metrics.md").read_text(encoding="utf-8")
cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", text, re.M | re.S)
given = {"profile": "full", "seed": 0, "record": None}
for cell in cells:
    if "import matplotlib" in cell or "full = profile" in cell or "def lime" in cell:
        exec(re.sub(r"^:tags:.*$", "", cell, flags=re.M), given)
total = 0.0
print(
    f"{rows} test rows of 1 split, 100 draws, scaled to 10 splits of 100 rows; CPU "
    f"seconds, one thread"
)
for source, data in given["sources"].items():
    X, y = data.X.to_numpy(), data.y
    for name, fit in given["models_for"][source].items():
        start = time.process_time()
        model, hider = fit(X[100:], y[100:], 0), Hider(X[100:], n_resample=100, rng=0)
        spent = {"fitting": (time.process_time() - start) * 10}
        for method, prepare in given["methods"].items():
            start = time.process_time()
            explain = prepare(model, X[100:])
            spent[method] = (time.process_time() - start) * 10
            start = time.process_time()
            explanation_metrics(explain, model, X[:rows], y[:rows], hider, rng=0)
            spent[method] += (time.process_time() - start) * 10 * 100 / rows
        total += sum(spent.values())
        slow = sorted(spent, key=lambda method: -spent[method])[:3]
        print(
            f"{source:<14} {name:<14} {sum(spent.values()):7,.0f}   most: "
            + ", ".join(f"{method} {spent[method]:,.0f}" for method in slow),
            flush=True,
        )
print(f"in all {total:,.0f} s, {total / 3600:.1f} hours of CPU")
