"""Three models of the time to death, and a fair comparison over splits that overlap.

The linear model and the network minimise the loss of Cox (1972); the network follows Katzman et al.
(2018), the trees are XGBoost's. Lundberg et al. (2020), Figure 2a, compare the same three. Years
are signed: positive for a death, negative for a person last seen alive. Chapter: insight/why_trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import xgboost
from scipy import stats
from sklearn.model_selection import train_test_split
from torch import nn

__all__ = [
    "Split",
    "c_statistic",
    "corrected_p",
    "cox_loss",
    "fit_linear",
    "fit_network",
    "fit_trees",
    "overlapping_splits",
    "standardised",
]


class Split(NamedTuple):
    """Row numbers: 64% to learn from, 16% to choose settings, 20% to judge."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def overlapping_splits(rows: int, count: int, seed: int) -> Iterator[Split]:
    """Yield ``count`` random splits of ``rows`` rows; their test rows overlap."""
    for number in range(count):
        # Seeds that follow each other must not share splits.
        state = 1000 * seed + number
        rest, test = train_test_split(np.arange(rows), test_size=0.2, random_state=state)
        train, valid = train_test_split(rest, test_size=0.2, random_state=state)
        yield Split(train, valid, test)


def cox_loss(hazards: torch.Tensor, years: torch.Tensor) -> torch.Tensor:
    """The mean over deaths of log(sum of e^f over those still watched) - f, in one pass over the
    people from the longest time to the shortest."""
    order = torch.argsort(-years.abs(), stable=True)
    hazards = hazards[order]
    years = years[order]
    watched = torch.logcumsumexp(hazards, 0)
    # People with equal times watch each other: take the sum at the last of them.
    last = torch.searchsorted(-years.abs(), -years.abs(), right=True) - 1
    return (watched[last] - hazards)[years > 0].mean()


def c_statistic(hazards: np.ndarray, years: np.ndarray) -> float:
    """The share of pairs, one dead while the other was still watched, in the right order; a tie is
    half a pair."""
    right = 0.0
    pairs = 0
    for person in np.flatnonzero(years > 0):
        later = hazards[np.abs(years) > years[person]]
        right += (hazards[person] > later).sum() + 0.5 * (hazards[person] == later).sum()
        pairs += len(later)
    return float(right / pairs)


def corrected_p(differences: Sequence[float], ratio: float) -> float:
    """The p-value of a paired t-test over J splits that overlap (Nadeau and Bengio 2003): the
    variance of the mean is that of one difference times 1/J + ratio, test rows over the others.
    Differences that are all equal have no variance: then it is 1 if they are 0, and 0 otherwise."""
    gaps = np.asarray(differences, float)
    count = len(gaps)
    if np.ptp(gaps) == 0:
        return float(gaps[0] == 0)
    error = np.sqrt((1 / count + ratio) * gaps.var(ddof=1))
    return float(2 * stats.t.sf(abs(gaps.mean() / error), count - 1))


def standardised(table: pd.DataFrame, train: np.ndarray) -> torch.Tensor:
    """The table in standard deviations of its training rows; what is missing is the mean."""
    mean = table.iloc[train].mean()
    spread = table.iloc[train].std().replace(0, 1)
    filled = ((table - mean) / spread).fillna(0.0)
    return torch.tensor(filled.to_numpy(), dtype=torch.float32)


def fit_linear(rows: torch.Tensor, years: torch.Tensor, split: Split) -> np.ndarray:
    """Log hazards of all rows by the best of five penalties on the squared weights."""
    best = np.inf
    answer = np.zeros(len(rows))
    for penalty in (0.3, 0.1, 0.03, 0.01, 0.003):
        weights = torch.zeros(rows.shape[1], requires_grad=True)
        search = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def step(weights=weights, search=search, penalty=penalty) -> torch.Tensor:
            search.zero_grad()
            misfit = cox_loss(rows[split.train] @ weights, years[split.train])
            loss = misfit + penalty * (weights**2).sum()
            loss.backward()
            return loss

        search.step(step)
        hazards = (rows @ weights).detach()
        loss = float(cox_loss(hazards[split.valid], years[split.valid]))
        if loss < best:
            best = loss
            answer = hazards.numpy()
    return answer


def fit_network(rows: torch.Tensor, years: torch.Tensor, split: Split, seed: int) -> np.ndarray:
    """Log hazards of all rows by one hidden layer of 20 units with batch normalisation and dropout
    of one half; the better of two weight decays, each stopped 40 steps after its best."""
    best = np.inf
    answer = np.zeros(len(rows))
    for decay in (0.1, 1.0):
        loss, hazards = _trained_network(rows, years, split, seed=seed, decay=decay)
        if loss < best:
            best = loss
            answer = hazards
    return answer


def _trained_network(
    rows: torch.Tensor, years: torch.Tensor, split: Split, *, seed: int, decay: float
) -> tuple[float, np.ndarray]:
    best = np.inf
    answer = np.zeros(len(rows))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = 20
        net = nn.Sequential(
            nn.Linear(rows.shape[1], hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, 1),
            nn.Flatten(0),
        )
        search = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=decay)
        waited = 0
        while waited < 40:
            net.train()
            search.zero_grad()
            cox_loss(net(rows[split.train]), years[split.train]).backward()
            search.step()
            net.eval()
            with torch.no_grad():
                hazards = net(rows)
            loss = float(cox_loss(hazards[split.valid], years[split.valid]))
            waited += 1
            if loss < best:
                best = loss
                answer = hazards.numpy().copy()
                waited = 0
    return best, answer


def fit_trees(
    table: pd.DataFrame, years: np.ndarray, split: Split, *, seed: int, depth: int, eta: float
) -> np.ndarray:
    """Log hazards of all rows by boosted trees with the objective of Cox, half of the rows for each
    tree, stopped 50 trees after the best."""
    settings = {
        "objective": "survival:cox",
        "max_depth": depth,
        "eta": eta,
        "subsample": 0.5,
        "lambda": 5.5,
        "base_score": 1.0,
        "nthread": 1,
        "seed": seed,
    }
    learned = xgboost.DMatrix(table.iloc[split.train], years[split.train])
    judged = xgboost.DMatrix(table.iloc[split.valid], years[split.valid])
    model = xgboost.train(
        settings,
        learned,
        3000,
        evals=[(judged, "valid")],
        early_stopping_rounds=50,
        verbose_eval=False,
    )
    kept = (0, model.best_iteration + 1)
    return model.predict(xgboost.DMatrix(table), output_margin=True, iteration_range=kept)
