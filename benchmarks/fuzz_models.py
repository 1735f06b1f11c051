"""Random models, options and tables against oracles, for a given number of minutes.

    python benchmarks/fuzz_models.py --minutes 60 --seed 0
    python benchmarks/fuzz_models.py --seed 0 --case 1234     # one case again, with its traceback

    python benchmarks/fuzz_models.py --areas players,losses   # only these

Each case draws an area (see AREAS), a model or a function, a table and a form of the table, all
from its own seed, and compares what shaplab says with an oracle that does not use it: the library's
own raw prediction, enumeration of all coalitions or orderings through its own predict, closed
forms; and the path-dependent game, Algorithm 1 node by node. A clear refusal (``<argument>:
expected ...``) is counted by its message, so that a reader can see whether it is deserved; anything
else that goes wrong, or takes more than a minute of processor time, is a finding and is printed
with the number that runs it again.
"""

from __future__ import annotations

import argparse
import collections
import math
import re
import signal
import time
import traceback
import warnings

import lightgbm
import numpy as np
import pandas as pd
import polars
import pyarrow
import torch
import xgboost
from fuzzing.models import as_taken, draw_model
from fuzzing.oracles import MOST_PLAYERS, by_orderings, close, enumerated, worth_of
from fuzzing.players import losses_case, orders_case, players_case, prepared_case
from fuzzing.sampled import estimates_case, interactions_case, orderings_case, structures_case
from fuzzing.tables import (
    NAMES,
    draw_form,
    draw_parts,
    draw_table,
    draw_target,
    draw_weights,
)
from fuzzing.whole_tables import additive_case, categories_case, pipelines_case
from scipy.stats import t as student
from sklearn import ensemble as forests

import shaplab

SECONDS_A_CASE = 60


# Trees --------------------------------------------------------------------------------------------


def trees_case(rng):
    wide = rng.random() < 0.15
    d = int(rng.integers(60, 300)) if wide else int(rng.integers(1, MOST_PLAYERS + 1))
    n = int(rng.integers(60, 250))
    X = draw_table(rng, n, d, missing=rng.random() < 0.5)
    label, model, raw, final, tolerance = draw_model(rng, X, draw_target(rng, X))
    X = as_taken(label, X)
    kind, form = draw_form(rng, X[:12])
    yield f"{label} on {n} x {d} as {kind}"

    trees = shaplab.TreeEnsemble.from_model(model)
    expected = raw(X[:12])
    close(trees.predict(X[:12]), expected, tolerance, "raw output")
    quick = shaplab.tree_shap(model, form)
    close(quick.prediction, expected, tolerance, "path-dependent: sum")
    pairs = shaplab.tree_shap_interactions(model, form)
    close(pairs.values.sum(axis=2), quick.values, 1e-9, "interactions: rows")
    close(pairs.values, pairs.values.swapaxes(1, 2), 1e-9, "interactions: symmetry")
    background = X[12:18]
    against = shaplab.interventional_tree_shap(model, form, background)
    close(against.prediction, expected, tolerance, "interventional: sum")
    both = shaplab.interventional_tree_shap_interactions(model, form, background)
    close(both.values.sum(axis=2), against.values, 1e-9, "interventional interactions: rows")
    if wide:
        one_by_one = [
            shaplab.interventional_tree_shap(model, X[:12], background[r : r + 1]).values
            for r in range(len(background))
        ]
        close(against.values, np.mean(one_by_one, axis=0), 1e-9, "mean over references")
        return
    values = np.stack([enumerated(raw, row, background) for row in X[:2]])
    close(against.values[:2], values, tolerance, "interventional: enumeration")
    game = shaplab.path_dependent_game(model, X[:2])
    close(quick.values[:2], np.moveaxis(shaplab.shapley_values(game, d), 1, 0), 1e-9, "Algorithm 1")
    if final is not None:
        transform, predict = final
        seen = shaplab.tree_output_shap(model, X[:2], background, transform=transform)
        values = np.stack([enumerated(predict, row, background) for row in X[:2]])
        if seen.values.ndim == 2 and values.ndim == 3:
            values = values[..., 1]
        if not np.isfinite(values).all():  # beyond single precision; ours are double
            return
        # The libraries turn raw outputs in single precision; an exponential multiplies the error.
        close(seen.values, values, max(tolerance, 5e-6), f"{transform}: enumeration")


# Linear leaves ------------------------------------------------------------------------------------


def linear_case(rng):
    """Leaves that are linear models, as LightGBM fits them, in groups or not."""
    d = int(rng.integers(1, 7))
    X = draw_table(rng, int(rng.integers(60, 250)), d, missing=rng.random() < 0.5)
    objective = str(rng.choice(["regression", "binary", "multiclass", "poisson"]))
    parameters = {
        "objective": objective,
        "linear_tree": True,
        "linear_lambda": float(rng.choice([0.0, 0.1])),
        "num_leaves": int(rng.integers(2, 20)),
        "learning_rate": float(rng.choice([0.1, 0.5])),
        "min_data_in_leaf": int(rng.choice([1, 5, 20])),
        "num_threads": 1,
        "seed": int(rng.integers(1000)),
        "verbose": -1,
    }
    y = draw_target(rng, X)
    if objective in ("binary", "multiclass"):
        y = np.digitize(y, np.quantile(y, [0.5] if objective == "binary" else [0.3, 0.6]))
    if objective == "multiclass":
        parameters["num_class"] = 3
    if objective == "poisson":
        y = np.abs(y)
    data = lightgbm.Dataset(X, y, free_raw_data=False)
    booster = lightgbm.train(parameters, data, int(rng.integers(1, 8)))
    background = X[rng.integers(len(X), size=int(rng.integers(1, 9)))]
    groups = draw_parts(rng, d, MOST_PLAYERS) if rng.random() < 0.5 else None
    kind, form = draw_form(rng, X[:3])
    weights = draw_weights(rng, len(background))
    yield f"linear {parameters} on {X.shape} as {kind}, groups {groups}, weights {weights}"

    def raw(Z):
        return booster.predict(Z, raw_score=True)

    player = np.arange(d)
    for number, members in enumerate(groups or []):
        player[members] = number
    worth = worth_of(raw, X[:3], background, player, weights)
    expected = np.moveaxis(by_orderings(worth), 0, 1)
    found = shaplab.interventional_tree_shap(
        booster, form, background, groups=groups, weights=weights
    )
    # LightGBM sums slopes in double precision, ours do in another order.
    close(found.values, expected, 1e-9, "linear leaves: enumeration")
    close(found.prediction, raw(X[:3]), 1e-9, "linear leaves: sum")


# Names --------------------------------------------------------------------------------------------


def names_case(rng):
    """A model fitted on named columns must refuse, or put in order, columns in another order."""
    d = int(rng.integers(2, MOST_PLAYERS + 1))
    X = draw_table(rng, 80, d, missing=False)
    y = draw_target(rng, X)
    names = [NAMES[j] for j in rng.permutation(len(NAMES))[:d]]
    library = str(rng.choice(["xgboost", "lightgbm", "sklearn"]))
    frame = pd.DataFrame(X, columns=names)
    if library == "xgboost":
        model = xgboost.XGBRegressor(n_estimators=4, max_depth=3, n_jobs=1)
    elif library == "lightgbm":
        model = lightgbm.LGBMRegressor(n_estimators=4, num_leaves=6, verbose=-1, n_jobs=1)
    else:
        model = forests.RandomForestRegressor(n_estimators=4, max_depth=4)
    model.fit(frame, y)
    order = rng.permutation(d)
    form = str(rng.choice(["pandas", "polars", "arrow"]))
    yield f"names {names} of {library} in order {order.tolist()} as {form}"

    def table(columns):
        if form == "pandas":
            return frame[columns][:5]
        make = polars.DataFrame if form == "polars" else pyarrow.table
        return make({name: frame[name].to_numpy()[:5] for name in columns})

    values = shaplab.tree_shap(model, X[:5]).values
    close(shaplab.tree_shap(model, table(names)).values, values, 1e-12, "columns in order")
    if (order == np.arange(d)).all():
        return
    try:
        found = shaplab.tree_shap(model, table([names[j] for j in order]))
    except ValueError as problem:
        if not CLEAR.match(str(problem)):
            raise
        return
    columns = [list(found.feature_names).index(name) for name in names]
    close(found.values[:, columns], values, 1e-12, "columns in another order")


# Samplers -----------------------------------------------------------------------------------------


def samplers_case(rng):
    d, idle = int(rng.integers(1, 7)), int(rng.integers(0, 4))
    units = 10.0 ** rng.integers(-8, 9, size=d + idle)
    weights, pairs = rng.normal(size=d), rng.normal(size=(d, d))
    outputs = int(rng.integers(1, 4))
    signs = rng.normal(size=outputs)

    def model(Z):
        Z = np.asarray(Z, float)[:, :d] / units[:d]
        score = Z @ weights + np.einsum("ni,ij,nj->n", np.tanh(Z), pairs, np.cos(Z))
        return score if outputs == 1 else np.tanh(score[:, None] * signs)

    rows, references = int(rng.integers(1, 4)), int(rng.choice([1, 2, 5, 40]))
    X = rng.normal(size=(rows, d + idle)) * units
    background = rng.normal(size=(references, d + idle)) * units
    background[:, d:] = X[0, d:]
    X[:, d:] = X[0, d:]
    function = (shaplab.permutation_shap, shaplab.kernel_shap, shaplab.ime)[rng.integers(3)]
    options = {"rng": int(rng.integers(1000))}
    if function is shaplab.kernel_shap and rng.random() < 0.5:
        options["sampling"] = "leverage"
    yield f"{function.__name__} d={d}+{idle} rows={rows} references={references} {options}"

    truth = np.stack([enumerated(model, row, background) for row in X])
    exact = shaplab.exact_shap(model, X, background)
    close(exact.values, truth, 1e-10, "exact_shap")
    _, form = draw_form(rng, X, tables=False)
    found = function(model, form, background, **options)
    if found.values[:, d:].any():
        raise AssertionError("an idle column has a value")
    if function is shaplab.ime:  # its intervals are known to be too short
        return
    error = np.abs(found.values - truth)
    allowed = 1e-9 * max(1.0, np.ptp(truth))
    if found.std is not None:
        # One interval in ten million fails. Kernel SHAP's degrees of freedom: its groups.
        rounds = np.min(found.info.get("rounds", 8))
        allowed = allowed + student.ppf(1 - 5e-8, max(rounds - 1, 1)) * np.asarray(found.std)
    if not (error <= allowed).all():
        worst = np.argmax(error - allowed)
        raise AssertionError(
            f"off by {error.ravel()[worst]:.3g}, allowed {np.ravel(allowed)[worst]:.3g}"
        )


# Networks -----------------------------------------------------------------------------------------

LAYERS = {
    "relu": torch.nn.ReLU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
    "elu": torch.nn.ELU,
    "selu": torch.nn.SELU,
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
    "softplus": torch.nn.Softplus,
    "leaky": torch.nn.LeakyReLU,
    "hardswish": torch.nn.Hardswish,
    "mish": torch.nn.Mish,
    "prelu": torch.nn.PReLU,
}


def networks_case(rng):
    d = int(rng.integers(1, 7))
    seed = int(rng.integers(10**6))
    width, outputs = int(rng.integers(2, 12)), int(rng.integers(1, 4))
    chosen = [str(rng.choice(list(LAYERS))) for _ in range(int(rng.integers(1, 4)))]
    normalised = rng.random() < 0.3
    width = max(width, 6) if normalised else width  # over two units LayerNorm is a sign
    softmax = outputs > 1 and rng.random() < 0.4
    dtype = torch.float64 if rng.random() < 0.5 else torch.float32
    scale = float(rng.choice([1.0, 5.0]))
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    layers, size = [], d
    for name in chosen:
        layers += [torch.nn.Linear(size, width), LAYERS[name]()]
        layers += [torch.nn.LayerNorm(width)] if normalised else []
        size = width
    layers.append(torch.nn.Linear(size, outputs))
    layers += [torch.nn.Softmax(1)] if softmax else []
    model = torch.nn.Sequential(*layers).to(dtype).eval()
    torch.random.set_rng_state(state)
    X = scale * rng.normal(size=(3, d))
    background = scale * rng.normal(size=(4, d))
    background[0] = X[0]
    if rng.random() < 0.3:
        background[1] = 0.0
    rule = str(rng.choice(["rescale", "reveal_cancel", "reveal_cancel_mean"]))
    net = f"{chosen} d={d} {dtype} norm={normalised} width={width} softmax={softmax}"
    yield f"network {net} {rule} x {scale}"

    def predict(Z):
        with torch.no_grad():
            return model(torch.as_tensor(Z, dtype=dtype)).double().numpy()

    found = shaplab.deep_shap(
        model, torch.as_tensor(X, dtype=dtype), torch.as_tensor(background, dtype=dtype), rule=rule
    )
    if not np.isfinite(found.values).all():
        raise AssertionError("a value is not finite")
    change = np.abs(predict(X)[:, None] - predict(background)[None]).max()
    gap = np.abs(np.asarray(found.prediction).reshape(predict(X).shape) - predict(X)).max()
    floor = torch.finfo(dtype).eps * np.abs(predict(X)).max() * 50
    limit = (1e-11 if dtype == torch.float64 else 1e-4) * change + floor
    if not gap <= limit:
        raise AssertionError(f"sums are off by {gap:.3g}, the output changes by {change:.3g}")
    truth = np.stack([enumerated(predict, row, background) for row in X])
    size = np.abs(found.values).max()
    # RevealCancel looks at sums that no coalition of inputs may reach, so its parts may be larger.
    if rule == "rescale" and size > 3 * np.abs(truth).max() + limit:
        raise AssertionError(
            f"a value of {size:.3g} where the largest is {np.abs(truth).max():.3g}"
        )
    alone = shaplab.deep_shap(
        model, torch.as_tensor(X[:1], dtype=dtype), torch.as_tensor(X[:1], dtype=dtype), rule=rule
    )
    if alone.values.any():
        raise AssertionError("a row that is its own reference has values")


# Games --------------------------------------------------------------------------------------------


def games_case(rng):
    n = int(rng.integers(1, 9))
    payoff = [(), (2,), (3, 2)][rng.integers(3)]
    scale = 10.0 ** rng.integers(-9, 10)
    table = rng.normal(size=(2**n, *payoff)) * scale
    game = shaplab.TableGame(table)
    yield f"game of {n} players, payoff {payoff}, scale {scale:g}"

    values = shaplab.shapley_values(game, n)
    by_hand = np.zeros_like(values)
    for index in range(2**n):
        for player in range(n):
            if index >> player & 1:
                continue
            size = index.bit_count()
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            by_hand[player] += weight * (table[index | 1 << player] - table[index])
    close(values / scale, by_hand / scale, 1e-12, "Shapley values")
    pairs = shaplab.interaction_values(game, n)
    close(pairs.sum(axis=1) / scale, values / scale, 1e-11, "interactions: rows")


# The run ------------------------------------------------------------------------------------------

AREAS = {
    "trees": (trees_case, 0.5),
    "linear": (linear_case, 0.05),
    "names": (names_case, 0.05),
    "samplers": (samplers_case, 0.2),
    "networks": (networks_case, 0.15),
    "games": (games_case, 0.1),
    "players": (players_case, 0.3),
    "prepared": (prepared_case, 0.1),
    "orders": (orders_case, 0.15),
    "losses": (losses_case, 0.15),
    "pipelines": (pipelines_case, 0.15),
    "categories": (categories_case, 0.1),
    "additive": (additive_case, 0.15),
    "structures": (structures_case, 0.15),
    "orderings": (orderings_case, 0.15),
    "estimates": (estimates_case, 0.15),
    "interactions": (interactions_case, 0.15),
}
CLEAR = re.compile(r"^[\w.\[\]()'\" ]+: expected .+, got ", re.DOTALL)


class TooLong(Exception):
    """A case that did not end."""


def stop(signum, frame):
    raise TooLong(f"more than {SECONDS_A_CASE} s of processor time")


def run_case(seed, case, areas):
    """Return (area, description, outcome, message)."""
    rng = np.random.default_rng([seed, case])
    weights = np.array([AREAS[name][1] for name in areas])
    area = str(rng.choice(areas, p=weights / weights.sum()))
    steps = AREAS[area][0](rng)
    described = "while it was made"
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS_A_CASE)
    try:
        described = next(steps)
        for _ in steps:
            pass
    except Exception as problem:
        message = f"{type(problem).__name__}: {problem}"
        clear = isinstance(problem, (ValueError, TypeError)) and CLEAR.match(str(problem))
        if clear or described == "while it was made":
            return area, described, "refused" if clear else "not drawn", message
        return area, described, "FOUND", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return area, described, "right", ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int)
    parser.add_argument("--areas", default=",".join(AREAS))
    options = parser.parse_args()
    areas = options.areas.split(",")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.case is not None:
        print(*run_case(options.seed, options.case, areas), sep="\n")
        return
    began, case = time.monotonic(), 0
    counts, refusals, findings = collections.Counter(), collections.Counter(), collections.Counter()
    while time.monotonic() - began < 60 * options.minutes:
        area, described, outcome, message = run_case(options.seed, case, areas)
        counts[area, outcome] += 1
        if outcome == "refused":
            refusals[re.sub(r"-?\d[-\d.e+]*", "#", message)[:150]] += 1
        if outcome == "FOUND":
            last = message.strip().split("\n")[-1]
            kind = re.sub(r"-?\d[-\d.e+]*", "#", last)[:60]
            findings[kind] += 1
            if findings[kind] <= 5:
                print(f"--seed {options.seed} --case {case}: {described}\n    {last}", flush=True)
        case += 1
    print(f"\n{case} cases in {options.minutes:g} minutes, seed {options.seed}")
    for (area, outcome), count in sorted(counts.items()):
        print(f"{count:7d}  {area}: {outcome}")
    for title, counter in (("refusals", refusals), ("findings", findings)):
        print(f"\n{title}")
        for message, count in counter.most_common(25):
            print(f"{count:7d}  {message}")


if __name__ == "__main__":
    main()
