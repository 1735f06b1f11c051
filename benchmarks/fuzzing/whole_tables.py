"""Tables of text, numbers and gaps as a person has them: pipelines, categories, additive models."""

from __future__ import annotations

import catboost
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor
from sklearn import ensemble as forests
from sklearn import linear_model as linear
from sklearn import preprocessing as steps
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor

import shaplab
from fuzzing.oracles import close, coalitions_of
from fuzzing.tables import draw_parts, draw_table, draw_unions, draw_weights, spoken

WORDS = ["Ulm", "Köln", "Bonn", "Linz", "", "a b", "17"]


def draw_frame(rng, n, gaps=True):
    """Columns of words, counts, truth values, numbers with gaps, and a rough target."""
    count = int(rng.integers(2, 7))
    columns, score = {}, np.zeros(n)
    kinds = ["words", "number", *rng.choice(["words", "number", "count", "truth", "same"], count)]
    for place, kind in enumerate(kinds[:count]):
        name = f"{kind} {place}"
        if kind == "words":
            drawn = rng.choice(WORDS[: int(rng.integers(2, 8))], n)
            columns[name] = drawn.astype(object)
            score += drawn == WORDS[0]
        elif kind == "number":
            columns[name] = np.round(rng.normal(size=n), 1)
            score += columns[name]
            if gaps:
                columns[name] = np.where(rng.random(n) < 0.1, np.nan, columns[name])
        elif kind == "count":
            columns[name] = rng.integers(0, 5, n)
            score += (columns[name] > 2) * score
        elif kind == "truth":
            columns[name] = rng.random(n) < 0.4
            score += columns[name]
        else:
            columns[name] = np.ones(n)
    order = rng.permutation(list(columns))
    return pd.DataFrame(columns)[order.tolist()], score + 0.1 * rng.normal(size=n)


def draw_players(rng, frame):
    """Options of a call, the player of each column, how many there are, and unions."""
    names = list(frame.columns)
    options, player, n_players, titles = {}, np.arange(len(names)), len(names), names
    if rng.random() < 0.4:
        groups = draw_parts(rng, len(names), 4)
        for number, members in enumerate(groups):
            player[members] = number
        titles = [f"group {number}" for number in range(len(groups))]
        options["groups"] = dict(zip(titles, spoken(groups, names), strict=True))
        n_players = len(groups)
    unions = None
    if rng.random() < 0.4:
        unions = draw_unions(rng, list(range(n_players)))
        options["unions"] = spoken(unions, titles)
    return options, player, n_players, unions


def values_of(worth, unions):
    """Values ``(N, n[, K])`` of a table ``(2^n, N[, K])``."""
    n = len(worth).bit_length() - 1
    game = shaplab.TableGame(worth)
    found = shaplab.shapley_values(game, n) if unions is None else shaplab.owen_values(game, unions)
    return np.moveaxis(found, 0, 1)


def frame_worth(predict, rows, background, player, weights=None):
    """The marginal game of frames: each cell from the row or from a reference, types kept."""
    known = coalitions_of(int(player.max()) + 1)[:, player]
    m, n, count = len(known), len(rows), len(background)
    coalition, row, reference = (axis.ravel() for axis in np.indices((m, n, count)))
    both = pd.concat([rows, background], ignore_index=True)
    columns = {}
    for place, name in enumerate(both.columns):
        taken = np.where(known[coalition, place], row, n + reference)
        columns[name] = both[name].take(taken).reset_index(drop=True)
    outputs = np.asarray(predict(pd.DataFrame(columns)), float)
    return np.average(outputs.reshape(m, n, count, *outputs.shape[1:]), axis=2, weights=weights)


# Pipelines ----------------------------------------------------------------------------------------


def draw_numeric(rng):
    """Steps for numbers, each of one column."""
    strategy = str(rng.choice(["mean", "median", "most_frequent"]))
    found = [SimpleImputer(strategy=strategy, add_indicator=bool(rng.random() < 0.3))]
    more = [
        steps.StandardScaler(),
        steps.MinMaxScaler(clip=True),
        steps.RobustScaler(),
        steps.QuantileTransformer(n_quantiles=20),
        steps.KBinsDiscretizer(4, encode="onehot", quantile_method="averaged_inverted_cdf"),
        steps.KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"),
        steps.SplineTransformer(4),
        steps.PowerTransformer(),
        steps.FunctionTransformer(np.cbrt, feature_names_out="one-to-one"),
        None,
    ][rng.integers(10)]
    return make_pipeline(*found, more) if more is not None else make_pipeline(*found)


def draw_wordy(rng):
    """Steps for words, each of one column."""
    return [
        steps.OneHotEncoder(handle_unknown="ignore"),
        steps.OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=15),
        steps.OneHotEncoder(drop="if_binary", sparse_output=False, handle_unknown="ignore"),
        steps.OneHotEncoder(max_categories=3, handle_unknown="infrequent_if_exist"),
        steps.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        steps.TargetEncoder(cv=2),
    ][rng.integers(6)]


def draw_steps(rng, frame):
    wordy = [name for name in frame if name.startswith("words")]
    rest = [name for name in frame if not name.startswith("words")]
    parts = []
    if rest and rng.random() < 0.5:
        cut = int(rng.integers(len(rest) + 1))
        parts += [
            ("numbers", draw_numeric(rng), rest[:cut]),
            ("others", draw_numeric(rng), rest[cut:]),
        ]
    elif rest:
        parts.append(("numbers", draw_numeric(rng), rest))
    if wordy:
        parts.insert(int(rng.integers(len(parts) + 1)), ("words", draw_wordy(rng), wordy))
    return ColumnTransformer(parts)


def draw_last(rng):
    """The last step, how to ask the pipeline, and a tolerance."""
    return [
        ("random forest", forests.RandomForestRegressor(4, max_depth=5), "predict", 1e-9),
        ("boosting", forests.GradientBoostingRegressor(n_estimators=5), "predict", 1e-9),
        ("lightgbm", lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1), "predict", 1e-9),
        ("xgboost", xgboost.XGBRegressor(n_estimators=5, n_jobs=1), "predict", 5e-6),
        ("catboost", catboost.CatBoostRegressor(**QUIET), "predict", 1e-9),
        (
            "forest classifier",
            forests.RandomForestClassifier(4, max_depth=5),
            "predict_proba",
            1e-9,
        ),
        (
            "boosting 3",
            forests.GradientBoostingClassifier(n_estimators=3),
            "decision_function",
            1e-9,
        ),
        (
            "bagging",
            forests.BaggingRegressor(DecisionTreeRegressor(max_depth=4), 3),
            "predict",
            1e-9,
        ),
        ("adaboost", forests.AdaBoostClassifier(n_estimators=4), "decision_function", 1e-9),
    ][rng.integers(9)]


QUIET = {"iterations": 5, "depth": 4, "verbose": 0, "thread_count": 1, "allow_writing_files": False}


def pipelines_case(rng):
    n = int(rng.integers(60, 200))
    frame, y = draw_frame(rng, n)
    name, last, ask, tolerance = draw_last(rng)
    last.set_params(
        **{"random_seed" if name == "catboost" else "random_state": int(rng.integers(99))}
    )
    model = make_pipeline(draw_steps(rng, frame), last)
    search = rng.random() < 0.15
    if search:
        model = GridSearchCV(model, {f"{model.steps[-1][0]}__{_size_of(last)}": [2, 3]}, cv=2)
    labels = np.digitize(y, np.quantile(y, [0.4, 0.7])) if ask != "predict" else y
    model.fit(frame, labels)
    options, player, _, unions = draw_players(rng, frame)
    rows = frame.iloc[:3]
    background = frame.iloc[rng.integers(n, size=int(rng.integers(1, 6)))]
    weights = draw_weights(rng, len(background))
    described = re_spaced(getattr(model, "best_estimator_", model)[0])
    described = f"{described} {name}, search {search}, {list(frame)}"
    yield f"pipeline {described}, {options}, weights {weights}"

    predict = getattr(model, ask)
    worth = frame_worth(predict, rows, background, player, weights)
    found = shaplab.interventional_tree_shap(model, rows, background, weights=weights, **options)
    close(found.values, values_of(worth, unions), tolerance, "interventional")
    found = shaplab.tree_shap(model, rows, **options)
    game = shaplab.path_dependent_game(model, rows)
    worth = game(coalitions_of(int(player.max()) + 1)[:, player])
    close(found.values, values_of(worth, unions), 1e-9, "path-dependent")
    close(found.prediction, predict(rows), tolerance, "path-dependent: sum")
    if unions is not None or int(player.max()) == 0:
        return
    pairs = shaplab.tree_shap_interactions(model, rows, **options)
    matrix = shaplab.interaction_values(shaplab.TableGame(worth), int(player.max()) + 1)
    close(pairs.values, np.moveaxis(matrix, 2, 0), 1e-9, "path-dependent pairs")


def _size_of(last):
    return "iterations" if hasattr(last, "get_all_params") else "n_estimators"


def re_spaced(model):
    return " ".join(str(model).split())


# Categories ---------------------------------------------------------------------------------------


def categories_case(rng):
    """Models that read words by themselves."""
    n = int(rng.integers(80, 250))
    frame, y = draw_frame(rng, n)
    wordy = [name for name in frame if name.startswith("words")]
    library = str(rng.choice(["lightgbm", "xgboost", "catboost", "histogram"]))
    seed = int(rng.integers(1000))
    if library == "catboost":
        policy = str(rng.choice(["SymmetricTree", "Depthwise", "Lossguide"]))
        one_hot = int(rng.choice([2, 4, 10]))
        options = QUIET | {"max_ctr_complexity": 1, "one_hot_max_size": one_hot}
        model = catboost.CatBoostRegressor(
            **options, grow_policy=policy, cat_features=wordy, random_seed=seed
        )
        told = f"{policy} one-hot up to {one_hot}"
    else:
        frame = frame.astype(dict.fromkeys(wordy, "category"))
        told = f"seed {seed}"
    if library == "lightgbm":
        few = {
            "min_data_per_group": 5,
            "cat_smooth": 1.0,
            "max_cat_to_onehot": int(rng.choice([1, 4])),
        }
        model = lightgbm.LGBMRegressor(n_estimators=6, verbose=-1, n_jobs=1, **few)
    if library == "xgboost":
        model = xgboost.XGBRegressor(
            n_estimators=6,
            max_depth=4,
            enable_categorical=True,
            max_cat_to_onehot=int(rng.choice([1, 10])),
            n_jobs=1,
        )
    if library == "histogram":
        model = forests.HistGradientBoostingRegressor(max_iter=6, categorical_features="from_dtype")
    model.fit(frame, y)
    options, player, _, unions = draw_players(rng, frame)
    rows = frame.iloc[:3]
    background = frame.iloc[rng.integers(n, size=int(rng.integers(1, 6)))]
    weights = draw_weights(rng, len(background))
    yield f"categories {library} {told}, {list(frame)}, {options}, weights {weights}"

    tolerance = 5e-6 if library == "xgboost" else 1e-9
    worth = frame_worth(model.predict, rows, background, player, weights)
    found = shaplab.interventional_tree_shap(model, rows, background, weights=weights, **options)
    close(found.values, values_of(worth, unions), tolerance, "interventional")
    found = shaplab.tree_shap(model, rows, **options)
    worth = shaplab.path_dependent_game(model, rows)(
        coalitions_of(int(player.max()) + 1)[:, player]
    )
    close(found.values, values_of(worth, unions), 1e-9, "path-dependent")
    close(found.prediction, model.predict(rows), tolerance, "path-dependent: sum")
    prepared = shaplab.PreparedTrees(model, feature_names=list(frame), **options)
    close(prepared(rows.iloc[1:2]).values, found.values[1:2], 1e-9, "prepared")


# Additive models ----------------------------------------------------------------------------------


def draw_sum(rng, d, outputs):
    """An AdditiveModel of drawn functions."""
    makers = [np.sin, np.square, np.tanh, lambda x: np.where(x > 0.3, 1.0, -x)]
    joint = [np.multiply, np.maximum, lambda x, z: np.sin(x) * z**2]
    signs = rng.normal(size=outputs)

    def widened(function):
        return function if outputs == 1 else (lambda *x: function(*x)[:, None] * signs)

    terms = {}
    for _ in range(int(rng.integers(1, 2 * d + 1))):
        if d > 1 and rng.random() < 0.5:
            pair = rng.choice(d, 2, replace=False)
            terms[int(pair[0]), int(pair[1])] = widened(joint[rng.integers(3)])
        else:
            terms[int(rng.integers(d))] = widened(makers[rng.integers(4)])
    return shaplab.AdditiveModel(terms, intercept=0.5 if outputs == 1 else rng.normal(size=outputs))


def draw_linear(rng, frame):
    """A linear model, alone on numbers or after steps on a frame, and how to ask it."""
    model, ask = [
        (linear.Ridge(), "predict"),
        (linear.LinearRegression(), "predict"),
        (linear.Lasso(0.01), "predict"),
        (linear.LogisticRegression(), "decision_function"),
        (linear.RidgeClassifier(), "decision_function"),
        (linear.SGDRegressor(max_iter=20, tol=None), "predict"),
        (linear.HuberRegressor(max_iter=500), "predict"),
    ][rng.integers(7)]
    return make_pipeline(draw_steps(rng, frame), model), ask


def additive_case(rng):
    kind = str(rng.choice(["sum", "sum", "linear", "steps", "steps", "boosting machine"]))
    n = int(rng.integers(60, 150))
    if kind in ("steps", "boosting machine"):
        frame, y = draw_frame(rng, n, gaps=kind == "steps" or rng.random() < 0.5)
    else:
        d = int(rng.integers(1, 7))
        numbers = np.clip(draw_table(rng, n, d, missing=False), -50.0, 50.0)
        frame = pd.DataFrame(numbers, columns=[f"column {j}" for j in range(d)])
        y = numbers.sum(axis=1) + rng.normal(size=n)
    classes = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    if kind == "sum":
        model = draw_sum(rng, frame.shape[1], int(rng.integers(1, 3)))
        ask = model
    elif kind == "boosting machine":
        classify = rng.random() < 0.4
        maker = ExplainableBoostingClassifier if classify else ExplainableBoostingRegressor
        pairs = 0 if classify and rng.random() < 0.5 else int(rng.integers(0, 4))
        labels = (classes > 1) if pairs else classes
        model = maker(interactions=pairs, max_rounds=10, outer_bags=2, n_jobs=1, random_state=1)
        model.fit(frame, labels if classify else y)
        ask = model.decision_function if classify else model.predict
    else:
        model, how = draw_linear(rng, frame)
        model = model if kind == "steps" else model[-1]
        model.fit(frame, y if how == "predict" else classes)
        ask = getattr(model, how)
    options, player, _, _ = draw_players(rng, frame)
    options.pop("unions", None)
    rows = frame.iloc[:3]
    background = frame.iloc[rng.integers(n, size=int(rng.integers(1, 7)))]
    weights = draw_weights(rng, len(background))
    described = re_spaced(model)[:200] if kind != "sum" else list(model.terms)
    yield f"additive {kind} {described}, {list(frame)}, {options}, weights {weights}"

    found = shaplab.additive_shap(model, rows, background, weights=weights, **options)
    close(found.prediction, ask(rows), 1e-9, "sum")
    expected = values_of(frame_worth(ask, rows, background, player, weights), None)
    close(found.values, expected, 1e-9, "enumeration")
    if kind in ("sum", "linear"):
        plain = shaplab.additive_shap(
            model,
            rows.to_numpy(),
            background.to_numpy(),
            weights=weights,
            feature_names=list(frame),
            **options,
        )
        close(plain.values, expected, 1e-9, "as arrays")
