"""Random models, options and tables against oracles, for a given number of minutes.

    python benchmarks/fuzz_models.py --minutes 60 --seed 0
    python benchmarks/fuzz_models.py --seed 0 --case 1234     # one case again, with its traceback

Each case draws an area (trees, names, samplers, networks, games), a model or a function, a table
and a form of the table, all from its own seed, and compares what shaplab says with an oracle that
does not use it: the library's own raw prediction, enumeration of all coalitions through its own
predict, closed forms. A clear refusal (``<argument>: expected ...``) is counted by its message, so
that a reader can see whether it is deserved; anything else that goes wrong, or takes more than a
minute of processor time, is a finding and is printed with the number that runs it again.
"""

from __future__ import annotations

import argparse
import collections
import itertools
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
from scipy.stats import t as student
from sklearn import ensemble as forests
from sklearn import tree as single_trees

import shaplab

SECONDS_A_CASE = 60
MOST_PLAYERS = 8  # what is enumerated: 256 coalitions


# Oracles ------------------------------------------------------------------------------------------


def enumerated(predict, row, background):
    """Shapley values ``(d, ...)`` of the marginal game of one row, by the definition."""
    d = len(row)
    worth = {}
    for size in range(d + 1):
        for members in itertools.combinations(range(d), size):
            mixed = np.array(background, copy=True)
            mixed[:, list(members)] = row[list(members)]
            worth[frozenset(members)] = np.asarray(predict(mixed), float).mean(axis=0)
    values = np.zeros((d, *worth[frozenset()].shape))
    for members, value in worth.items():
        for player in set(range(d)) - members:
            weight = math.factorial(len(members)) * math.factorial(d - len(members) - 1)
            gain = worth[members | {player}] - value
            values[player] += weight / math.factorial(d) * gain
    return values


def close(found, expected, tolerance, what):
    """Raise with the largest difference when it is above ``tolerance`` times the scale."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: shape {found.shape}, expected {expected.shape}")
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    worst = np.abs(found - expected).max(initial=0.0)
    if not worst <= tolerance * scale:
        raise AssertionError(f"{what}: off by {worst:.3g} at a scale of {scale:.3g}")


# Tables -------------------------------------------------------------------------------------------


def draw_table(rng, n, d, missing):
    """Columns as people have them: rounded, counted, constant, huge, tiny, with gaps."""
    X = rng.normal(size=(n, d))
    for j in range(d):
        kind = rng.integers(6)
        if kind == 0:
            X[:, j] = np.round(X[:, j], 1)
        elif kind == 1:
            X[:, j] = rng.integers(0, 5, n)
        elif kind == 2:
            X[:, j] = X[:, j] * 10.0 ** rng.integers(-6, 7)
        elif kind == 3 and rng.random() < 0.3:
            X[:, j] = 1.0
        elif kind == 4:
            X[:, j] = np.where(rng.random(n) < 0.9, 0.0, X[:, j])
    if missing:
        X[rng.random((n, d)) < 0.08] = np.nan
    return X


def draw_target(rng, X):
    """A rough function of a few columns with noise, of spread one."""
    Z = np.nan_to_num(X)
    Z = (Z - Z.mean(axis=0)) / np.maximum(Z.std(axis=0), 1e-300)
    first, second, third = rng.integers(X.shape[1], size=3)
    return Z[:, first] + (Z[:, second] > 0.3) * Z[:, third] + 0.2 * rng.normal(size=len(X))


NAMES = ["unit price", "unit_price", "größe", "a.b", "x x", "f0", "Column_1", "size m²"]


def draw_form(rng, X, tables=True):
    """The same table as an array of some layout or as a frame of some library."""
    names = [f"{NAMES[j % len(NAMES)]} {j}" for j in range(X.shape[1])]
    frame = pd.DataFrame(X, columns=names)
    kinds = ["array", "fortran", "reversed"]
    kinds += ["pandas", "polars", "arrow"] if tables else []
    kind = str(rng.choice(kinds))
    forms = {
        "array": lambda: X,
        "fortran": lambda: np.asfortranarray(X),
        "reversed": lambda: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
        "pandas": lambda: frame,
        "polars": lambda: polars.DataFrame({name: X[:, j] for j, name in enumerate(names)}),
        "arrow": lambda: pyarrow.table({name: X[:, j] for j, name in enumerate(names)}),
    }
    return kind, forms[kind]()


# Trees --------------------------------------------------------------------------------------------


def draw_labels(rng, y, kind):
    """Targets that an objective accepts, from a real target."""
    if kind == "classes":
        edges = np.quantile(y, [0.4, 0.7])
        return np.digitize(y, edges)
    return {
        "real": lambda: y,
        "share": lambda: 1 / (1 + np.exp(-y)),
        "label": lambda: (y > np.median(y)).astype(int),
        "count": lambda: np.floor(np.abs(y) * 3),
        "positive": lambda: np.abs(y) + 0.1,
        "signed": lambda: (np.abs(y) + 0.1) * np.where(rng.random(len(y)) < 0.8, 1, -1),
        "grade": lambda: np.clip(np.round(y + 2), 0, 4).astype(int),
    }[kind]()


XGBOOST = {
    "reg:squarederror": "real",
    "reg:squaredlogerror": "positive",
    "reg:pseudohubererror": "real",
    "reg:absoluteerror": "real",
    "reg:logistic": "share",
    "binary:logistic": "label",
    "binary:logitraw": "label",
    "binary:hinge": "label",
    "count:poisson": "count",
    "reg:gamma": "positive",
    "reg:tweedie": "positive",
    "survival:cox": "signed",
    "rank:pairwise": "grade",
    "rank:ndcg": "grade",
    "multi:softprob": "classes",
    "multi:softmax": "classes",
}


def xgboost_model(rng, X, y):
    objective = str(rng.choice(list(XGBOOST)))
    labels = draw_labels(rng, y, XGBOOST[objective])
    data = xgboost.DMatrix(X, labels)
    if objective.startswith("rank"):
        data.set_group([len(X) // 2, len(X) - len(X) // 2])
    parameters = {
        "objective": objective,
        "max_depth": int(rng.integers(1, 9)),
        "eta": float(rng.choice([0.1, 0.5, 1.0])),
        "grow_policy": str(rng.choice(["depthwise", "lossguide"])),
        "booster": str(rng.choice(["gbtree", "gbtree", "dart"])),
        "num_parallel_tree": int(rng.choice([1, 1, 3])),
        "subsample": float(rng.choice([1.0, 0.6])),
        "min_child_weight": float(rng.choice([0.0, 1.0])),
        "nthread": 1,
        "seed": int(rng.integers(1000)),
    }
    if objective.startswith("multi"):
        parameters["num_class"] = 3
        if rng.random() < 0.3:
            parameters["multi_strategy"] = "multi_output_tree"
            parameters["booster"] = "gbtree"
    if rng.random() < 0.3 and objective not in ("survival:cox", "reg:gamma"):
        parameters["base_score"] = 0.4
    booster = xgboost.train(parameters, data, int(rng.integers(1, 12)))
    final = None
    if objective in ("binary:logistic", "multi:softprob"):
        final = "probability", lambda Z: booster.predict(xgboost.DMatrix(Z))
    elif objective not in ("multi:softmax", "binary:hinge"):
        final = "prediction", lambda Z: booster.predict(xgboost.DMatrix(Z))
    return (
        f"xgboost {parameters}",
        booster,
        lambda Z: booster.predict(xgboost.DMatrix(Z), output_margin=True),
        final,
        5e-6,
    )


LIGHTGBM = {
    "regression": "real",
    "regression_l1": "real",
    "huber": "real",
    "fair": "real",
    "poisson": "count",
    "quantile": "real",
    "mape": "positive",
    "gamma": "positive",
    "tweedie": "positive",
    "binary": "label",
    "cross_entropy": "share",
    "cross_entropy_lambda": "share",
    "multiclass": "classes",
    "multiclassova": "classes",
    "lambdarank": "grade",
}


def lightgbm_model(rng, X, y):
    objective = str(rng.choice(list(LIGHTGBM)))
    labels = draw_labels(rng, y, LIGHTGBM[objective])
    parameters = {
        "objective": objective,
        "num_leaves": int(rng.integers(2, 40)),
        "max_depth": int(rng.choice([-1, 3, 6])),
        "learning_rate": float(rng.choice([0.1, 0.5])),
        "boosting": str(rng.choice(["gbdt", "gbdt", "dart", "rf"])),
        "min_data_in_leaf": int(rng.choice([1, 5, 20])),
        "zero_as_missing": bool(rng.random() < 0.2),
        "use_missing": bool(rng.random() < 0.9),
        "bagging_freq": 1,
        "bagging_fraction": 0.7,
        "num_threads": 1,
        "seed": int(rng.integers(1000)),
        "verbose": -1,
    }
    if objective in ("binary", "multiclassova"):
        parameters["sigmoid"] = float(rng.choice([1.0, 2.0]))
    if objective.startswith("multi"):
        parameters["num_class"] = 3
    group = [len(X) // 2, len(X) - len(X) // 2] if objective == "lambdarank" else None
    data = lightgbm.Dataset(X, labels, group=group, free_raw_data=False)
    rounds = int(rng.integers(1, 12))
    booster = lightgbm.train(parameters, data, rounds)
    # With raw_score=True a random forest of LightGBM's gives the sum, elsewhere the mean.
    share = booster.current_iteration() if parameters["boosting"] == "rf" else 1
    chances = ("binary", "cross_entropy", "multiclass", "multiclassova")
    return (
        f"lightgbm {parameters}",
        booster,
        lambda Z: booster.predict(Z, raw_score=True) / share,
        ("probability" if objective in chances else "prediction", booster.predict),
        1e-9,
    )


def sklearn_model(rng, X, y):
    kinds = {
        "tree": (single_trees.DecisionTreeRegressor, "real"),
        "tree classifier": (single_trees.DecisionTreeClassifier, "classes"),
        "forest": (forests.RandomForestRegressor, "real"),
        "forest classifier": (forests.RandomForestClassifier, "label"),
        "extra": (forests.ExtraTreesRegressor, "real"),
        "extra classifier": (forests.ExtraTreesClassifier, "classes"),
        "boosting": (forests.GradientBoostingRegressor, "real"),
        "boosting classifier": (forests.GradientBoostingClassifier, "label"),
        "boosting classifier 3": (forests.GradientBoostingClassifier, "classes"),
        "histogram": (forests.HistGradientBoostingRegressor, "real"),
        "histogram poisson": (forests.HistGradientBoostingRegressor, "count"),
        "histogram classifier": (forests.HistGradientBoostingClassifier, "label"),
        "histogram classifier 3": (forests.HistGradientBoostingClassifier, "classes"),
        "isolation": (forests.IsolationForest, "real"),
    }
    kind = str(rng.choice(list(kinds)))
    maker, labels = kinds[kind]
    options = {"random_state": int(rng.integers(1000))}
    if "tree" not in kind:
        options["max_iter" if "histogram" in kind else "n_estimators"] = int(rng.integers(1, 10))
    if kind != "isolation":
        options["max_depth"] = None if rng.random() < 0.3 else int(rng.integers(1, 8))
    if kind == "boosting classifier" and rng.random() < 0.5:
        options["loss"] = "exponential"
    if "poisson" in kind:
        options["loss"] = "poisson"
    if kind.startswith(("boosting", "isolation")):
        X = np.nan_to_num(X)
    model = maker(**options).fit(X, draw_labels(rng, y, labels))
    if kind == "isolation":
        final = "prediction", model.score_samples
        return kind, model, lambda Z: -np.log2(-model.score_samples(Z)), final, 1e-9
    if "classifier" not in kind:
        logs = "poisson" in kind
        raw = (lambda Z: np.log(model.predict(Z))) if logs else model.predict
        return f"sklearn {kind} {options}", model, raw, ("prediction", model.predict), 1e-9
    boosted = "boosting" in kind or "histogram" in kind
    raw = model.decision_function if boosted else model.predict_proba
    return f"sklearn {kind} {options}", model, raw, ("probability", model.predict_proba), 1e-9


def trees_case(rng):
    wide = rng.random() < 0.15
    d = int(rng.integers(60, 300)) if wide else int(rng.integers(1, MOST_PLAYERS + 1))
    n = int(rng.integers(60, 250))
    maker = (xgboost_model, lightgbm_model, sklearn_model)[rng.integers(3)]
    X = draw_table(rng, n, d, missing=rng.random() < 0.5)
    y = draw_target(rng, X)
    label, model, raw, final, tolerance = maker(rng, X, y)
    if label.startswith(("sklearn boosting", "isolation")):
        X = np.nan_to_num(X)
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
    "names": (names_case, 0.05),
    "samplers": (samplers_case, 0.2),
    "networks": (networks_case, 0.15),
    "games": (games_case, 0.1),
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
