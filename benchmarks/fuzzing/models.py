"""Tree models of all libraries with drawn options.

Each maker returns a label, the model, its raw output, its final output and a tolerance.
"""

from __future__ import annotations

import catboost
import lightgbm
import numpy as np
import xgboost
from sklearn import ensemble as forests
from sklearn import tree as single_trees
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor


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


CATBOOST = {
    "RMSE": "real",
    "MAE": "real",
    "Quantile:alpha=0.3": "real",
    "MultiQuantile:alpha=0.2,0.8": "real",
    "Huber:delta=1": "real",
    "RMSEWithUncertainty": "real",
    "Poisson": "count",
    "Tweedie:variance_power=1.5": "positive",
    "Cox": "signed",
    "Logloss": "label",
    "CrossEntropy": "share",
    "MultiClass": "classes",
    "MultiClassOneVsAll": "classes",
}


def catboost_model(rng, X, y):
    objective = str(rng.choice(list(CATBOOST)))
    policy = str(rng.choice(["SymmetricTree", "Depthwise", "Lossguide"]))
    parameters = {
        "loss_function": objective,
        "grow_policy": policy,
        "iterations": int(rng.integers(1, 12)),
        "depth": int(rng.integers(1, 8)),
        "learning_rate": float(rng.choice([0.1, 0.5])),
        "boosting_type": "Plain",
        "nan_mode": str(rng.choice(["Min", "Max"])),
        "boost_from_average": False,
        "random_seed": int(rng.integers(1000)),
        "thread_count": 1,
        "verbose": 0,
        "allow_writing_files": False,
    }
    if policy != "SymmetricTree":
        parameters["min_data_in_leaf"] = int(rng.choice([1, 10]))
    if objective in ("RMSE", "MAE") and rng.random() < 0.5:
        parameters["boost_from_average"] = True
    model = catboost.CatBoost(parameters)
    model.fit(X, draw_labels(rng, y, CATBOOST[objective]))

    def raw(Z):
        return model.predict(Z, prediction_type="RawFormulaVal", thread_count=1)

    final = None
    if objective in ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll"):
        final = "probability", lambda Z: model.predict(Z, prediction_type="Probability")
    elif objective.startswith(("Poisson", "Tweedie")):
        final = "prediction", lambda Z: model.predict(Z, prediction_type="Exponent")
    return f"catboost {parameters}", model, raw, final, 1e-9


def wrapper_model(rng, X, y):
    """A model of tree models; ``raw`` is what it adds up."""
    X = np.nan_to_num(X)
    kind = str(rng.choice(["bagging", "voting", "soft", "hard", "adaboost", "several", "search"]))
    depth = int(rng.integers(1, 6))
    seed = int(rng.integers(1000))
    regressors = [
        single_trees.DecisionTreeRegressor(max_depth=depth, random_state=seed),
        forests.RandomForestRegressor(3, max_depth=depth, random_state=seed),
        lightgbm.LGBMRegressor(n_estimators=3, num_leaves=6, verbose=-1, n_jobs=1),
        xgboost.XGBRegressor(n_estimators=3, max_depth=depth, n_jobs=1),
        forests.GradientBoostingRegressor(n_estimators=3, random_state=seed),
        forests.HistGradientBoostingRegressor(max_iter=3, random_state=seed),
    ]
    classifiers = [
        single_trees.DecisionTreeClassifier(max_depth=depth, random_state=seed),
        forests.RandomForestClassifier(3, max_depth=depth, random_state=seed),
        forests.ExtraTreesClassifier(3, max_depth=depth, random_state=seed),
    ]
    label = f"wrapper {kind} of depth {depth}"
    if kind in ("soft", "hard", "adaboost"):
        return label, *_classifying(rng, kind, classifiers, X, y, seed)
    chosen = [regressors[place] for place in rng.permutation(6)[:3]]
    label = f"{label}: {', '.join(type(part).__name__ for part in chosen)}"
    if kind == "bagging":
        model = forests.BaggingRegressor(
            chosen[0],
            n_estimators=3,
            max_features=float(rng.choice([0.5, 1.0])),
            bootstrap_features=bool(rng.random() < 0.5),
            random_state=seed,
        )
    elif kind == "voting":
        parts = [(f"part {place}", part) for place, part in enumerate(chosen)]
        weights = rng.integers(1, 4, 3).tolist() if rng.random() < 0.5 else None
        model = forests.VotingRegressor(parts, weights=weights)
    elif kind == "several":
        model = MultiOutputRegressor(chosen[0])
        y = np.stack([y, y**2, -np.abs(y)], axis=1)
    else:
        model = GridSearchCV(regressors[0], {"max_depth": [2, 4]}, cv=2)
    model.fit(X, y)
    return label, model, model.predict, ("prediction", model.predict), 5e-6


def _classifying(rng, kind, classifiers, X, y, seed):
    labels = draw_labels(rng, y, str(rng.choice(["label", "classes"])))
    if kind == "adaboost":
        part = single_trees.DecisionTreeClassifier(max_depth=2, random_state=seed)
        model = forests.AdaBoostClassifier(part, n_estimators=4, random_state=seed).fit(X, labels)
        return model, model.decision_function, None, 1e-9
    weights = rng.integers(1, 4, 3).astype(float) if rng.random() < 0.5 else np.ones(3)
    parts = [(f"part {place}", part) for place, part in enumerate(classifiers)]
    if kind == "hard":  # votes of trees; those of forests are no sum
        parts = [
            (name, single_trees.DecisionTreeClassifier(max_depth=k + 1))
            for k, (name, _) in enumerate(parts)
        ]
    model = forests.VotingClassifier(parts, voting=kind, weights=weights).fit(X, labels)
    if kind == "soft":
        return model, model.predict_proba, ("probability", model.predict_proba), 1e-9

    def votes(Z):
        each = np.stack([part.predict(Z) for part in model.estimators_])
        voted = each[..., None] == np.arange(len(model.classes_))
        return np.tensordot(weights / weights.sum(), voted, axes=1)

    return model, votes, None, 1e-9


def draw_model(rng, X, y):
    """A model of any library; see the makers."""
    makers = (xgboost_model, lightgbm_model, sklearn_model, catboost_model, wrapper_model)
    return makers[rng.integers(len(makers))](rng, X, y)


def as_taken(label, X):
    """The table as the model of this label takes it: some know no gaps."""
    without_gaps = label.startswith(("sklearn boosting", "isolation", "wrapper"))
    return np.nan_to_num(X) if without_gaps else X
