"""An outcome that is made, with a dial from straight to bent, and two models tuned to it.

Lundberg et al. (2020), Figure 2b to d and Methods 4: real people and features, an outcome made of
age and body mass index alone, a logistic regression with an L1 penalty against boosted trees. The
outcome is a probability without noise. Chapter: insight/why_trees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xgboost
from sklearn.linear_model import LogisticRegression

from shaplab_book.mortality import Split

__all__ = ["TREE_SEARCHES", "dial_table", "excess", "penalised_line", "tuned_line", "tuned_trees"]

# The full search is the source's. The quick one has a tenth of the rows, so a tenth of the penalty
# on splits (gamma) and of the rows that a leaf needs.
TREE_SEARCHES = {
    "quick": {
        "depths": (1, 2, 4),
        "bags": (0.5,),
        "settings": {"eta": 0.05, "gamma": 0.1, "min_child_weight": 1},
        "most": 300,
    },
    "full": {
        "depths": (1, 2, 4, 8, 10),
        "bags": (0.2, 0.5, 0.8, 1.0),
        "settings": {"eta": 0.01, "gamma": 1.0, "min_child_weight": 10},
        "most": 1000,
    },
}


def dial_table(people: pd.DataFrame) -> pd.DataFrame:
    """Features in standard deviations, cut at their 1st and 99th percentiles, the mean for what is
    missing, BMI in place of weight and height."""
    table = people.rename(columns={"Age": "age"})
    if "weight" in table:
        metres = table.pop("height") / 100
        table["BMI"] = table.pop("weight") / metres**2
    table = table.clip(table.quantile(0.01), table.quantile(0.99), axis=1)
    table = table.loc[:, table.std() > 0]
    return ((table - table.mean()) / table.std()).fillna(0.0)


def excess(outcome: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The cross entropy of each row above that of the true probability: 0 for a perfect model."""
    q = np.clip(predicted, 1e-9, 1 - 1e-9)
    return outcome * np.log(outcome / q) + (1 - outcome) * np.log((1 - outcome) / (1 - q))


def penalised_line(rows: np.ndarray, outcome: np.ndarray, penalty: float) -> LogisticRegression:
    """A logistic regression of a probability with an L1 penalty: each row counts once as a 1 and
    once as a 0, with the probability of each as its weight."""
    count = len(rows)
    model = LogisticRegression(
        l1_ratio=1.0,
        C=1 / penalty,
        solver="liblinear",
        intercept_scaling=100.0,
        # A looser one stops while features of no use still have a third of the weight.
        tol=1e-7,
        max_iter=10_000,
        random_state=0,
    )
    return model.fit(
        np.concatenate([rows, rows]),
        np.repeat([1.0, 0.0], count),
        sample_weight=np.concatenate([outcome, 1 - outcome]),
    )


def tuned_line(
    rows: np.ndarray, outcome: np.ndarray, split: Split, penalties: Sequence[float]
) -> LogisticRegression:
    """The logistic regression of the penalty that does best on the validation rows."""
    models = [
        penalised_line(rows[split.train], outcome[split.train], penalty) for penalty in penalties
    ]
    judged = rows[split.valid]
    losses = [
        excess(outcome[split.valid], model.predict_proba(judged)[:, 1]).mean() for model in models
    ]
    return models[int(np.argmin(losses))]


def tuned_trees(
    rows: np.ndarray,
    outcome: np.ndarray,
    split: Split,
    *,
    depths: Sequence[int],
    bags: Sequence[float],
    settings: dict[str, float],
    most: int,
) -> xgboost.Booster:
    """The boosted trees of the depth and the share of rows per tree that do best on the validation
    rows, cut at their best round."""
    learned = xgboost.DMatrix(rows[split.train], outcome[split.train])
    judged = xgboost.DMatrix(rows[split.valid], outcome[split.valid])
    best = np.inf
    answer = None
    for depth in depths:
        for bag in bags:
            model = xgboost.train(
                {
                    "objective": "binary:logistic",
                    "max_depth": depth,
                    "subsample": bag,
                    "base_score": float(outcome[split.train].mean()),
                    "nthread": 1,
                    "seed": 20,
                    **settings,
                },
                learned,
                most,
                evals=[(judged, "valid")],
                early_stopping_rounds=10,
                verbose_eval=False,
            )
            model = model[: model.best_iteration + 1]
            predicted = model.inplace_predict(rows[split.valid])
            loss = excess(outcome[split.valid], predicted).mean()
            if loss < best:
                best = loss
                answer = model
    assert answer is not None
    return answer
