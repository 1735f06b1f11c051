"""How long would the full benchmark of explanation methods take? Measured on a part of one split, and scaled.

Runs the cells of book/insight/metrics.md that define methods and models, with the settings of the full profile but
few test rows of one split. Time grows with the number of test rows and splits; what a method does once is in it.

    OMP_NUM_THREADS=1 python benchmarks/grades_full.py [--rows 5]
"""

import argparse
import re
import time
from pathlib import Path

from shaplab.insight.metrics import grade_methods

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, default=5)
rows = parser.parse_args().rows
text = (Path(__file__).parents[1] / "book" / "insight" / "metrics.md").read_text(encoding="utf-8")
cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", text, re.M | re.S)
given = {"profile": "full", "seed": 0, "record": None}
for cell in cells:
    if "import matplotlib" in cell or "full = profile" in cell or "def lime" in cell:
        code = cell.split("start, cpu =")[0].replace("from shaplab_book import record\n", "")
        exec(code, given)
total = 0.0
print(f"1 split, {rows} test rows, 100 draws, scaled to 10 splits of 100 rows")
for source, data in given["sources"].items():
    for name, model in given["models_for"][source].items():
        spent = {}
        for method, prepare in given["methods"].items():
            start = time.process_time()
            grade_methods({method: prepare}, {name: model}, data.X.to_numpy(), data.y, n_splits=1, n_test=rows,
                          n_resample=100, rng=0)
            spent[method] = (time.process_time() - start) * 10 * 100 / rows
        total += sum(spent.values())
        slow = sorted(spent, key=lambda method: -spent[method])[:3]
        print(f"{source:<14} {name:<14} {sum(spent.values()):8,.0f} s   most: "
              + ", ".join(f"{method} {spent[method]:,.0f}" for method in slow), flush=True)
print(f"in all {total:,.0f} s, {total / 3600:.1f} hours of CPU")
