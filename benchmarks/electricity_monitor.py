"""Does the monitor see the real change of regime in the electricity stream, and is it silent
before?

ELEC2: half hours of the market of New South Wales; on day 363 (row 17,424) Victoria joined it. Half
hours in a row are anything but exchangeable, so the loss of a day, its mean, is one row. The model
is fitted on 24 of the first 48 weeks, drawn at random; the other 24 are the reference, which thus
holds weeks of the whole time.

    SHAPLAB_DATA_DIR=... python benchmarks/electricity_monitor.py
"""

import numpy as np
import xgboost
from shaplab_book import datasets

from shaplab import Explanation, monitor, tree_loss_shap

JOINED, WEEKS = 363, 48
try:
    data = datasets.load_electricity()
except FileNotFoundError as missing:
    print(f"left out: {missing}")
    raise SystemExit(0) from None
y, half_hour = np.asarray(data.y), np.arange(len(data.y))
drawn = np.random.default_rng(0).permutation(WEEKS)[: WEEKS // 2]
fitted = np.isin(half_hour // 336, drawn)
model = xgboost.XGBClassifier(
    n_estimators=100, max_depth=3, learning_rate=0.1, n_jobs=1, random_state=0
)
model.fit(data.X[fitted], y[fitted])
loss = tree_loss_shap(
    model,
    data.X[~fitted],
    y[~fitted],
    data.X[fitted].sample(20, random_state=0),
    loss="logistic",
    game="rescaled_margin",
)
day = half_hour[~fitted] // 48
days = np.unique(day)
means = Explanation(
    [loss.values[day == d].mean(axis=0) for d in days],
    [loss.base_values[day == d].mean() for d in days],
    feature_names=loss.names,
)
watched = monitor(
    means,
    days.astype(float),
    reference_until=7 * WEEKS,
    false_alarm_rate=0.05,
    least_rise=0.05,
    rng=0,
)
print(
    f"{(days < 7 * WEEKS).sum()} reference days, deployed from day {7 * WEEKS}; the markets "
    f"joined on day {JOINED}"
)
print(
    watched.report()[["reference", "now", "evidence", "alarm", "since", "rise"]]
    .round(2)
    .to_string()
)
print(f"alarms before day {JOINED}: {sum(alarm['time'] < JOINED for alarm in watched.alarms)}")
