"""What does the error of DASP depend on? One architecture, several trainings, three moments in
each.

Run: SHAPLAB_DATA_DIR=... python benchmarks/dasp_trainings.py [trainings] [folder]

Parkinson's telemonitoring, 18 features in [-1, 1], 880 test rows by chance; a network 18-128-64-1
with dropout 0.2, trained on the score less its mean by Adam at 0.001 in batches of 64; stopped when
the error on a tenth of the training rows has not fallen for 20 epochs. The source names neither
optimiser nor rate. Truth: all 2^18 coalitions of 10 test rows, baseline 0. Some two minutes of CPU
for each training; networks and truths found in `folder` are not made again.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from shaplab_book import datasets
from torch import nn

from shaplab import dasp, deep_shap, exact_shap
from shaplab.deep.dasp import compare_attributions

torch.set_num_threads(1)
STOPS = (50, 200)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(18, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 1),
    )


def trained(seed: int) -> tuple[np.ndarray, dict[str, tuple[dict[str, torch.Tensor], int, float]]]:
    """Ten test rows, and weights, epoch and held-out RMSE after some epochs and at the best one."""
    data = datasets.load_parkinsons()
    X, y = data.X.to_numpy(dtype=float), np.asarray(data.y, dtype=float)
    # A mean of 29 would hold most units open: a network that hardly bends.
    y = y - y.mean()
    X = 2 * (X - X.min(0)) / (X.max(0) - X.min(0)) - 1
    order = np.random.default_rng(seed).permutation(len(X))
    test, fit = order[:880], order[880:]
    torch.manual_seed(seed)
    net, size = network(), len(fit) // 10
    A, b, held, c = (
        torch.as_tensor(part, dtype=torch.float32)
        for part in (X[fit[:-size]], y[fit[:-size]], X[fit[-size:]], y[fit[-size:]])
    )
    optimizer, best, since, epoch, kept = torch.optim.Adam(net.parameters(), 1e-3), np.inf, 0, 0, {}
    while since < 20:
        epoch, since = epoch + 1, since + 1
        net.train()
        for rows in torch.randperm(len(A)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(A[rows])[:, 0], b[rows]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            error = nn.functional.mse_loss(net(held)[:, 0], c).item()
        if error < best:
            best, since = error, 0
            kept["stop"] = copy.deepcopy(net.state_dict()), epoch, error**0.5
        if epoch in STOPS:
            kept[str(epoch)] = copy.deepcopy(net.state_dict()), epoch, error**0.5
    return X[test[:10]], kept


def compared(net: nn.Module, rows: np.ndarray, truth: np.ndarray):
    zero = np.zeros((1, 18))
    return compare_attributions(
        truth,
        {
            "Rescale": lambda: deep_shap(net, rows, zero),
            "RevealCancel": lambda: deep_shap(net, rows, zero, rule="reveal_cancel"),
            "DASP": lambda: dasp(net, rows, zero),
            "Owen": lambda: dasp(net, rows, zero, method="owen", sizes=3),
            "full": lambda: dasp(net, rows, zero, covariance="full", sizes=6),
            "skewed": lambda: dasp(net, rows, zero, covariance="skewed", sizes=6),
        },
    )


def main() -> None:
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    print(
        "when stop epoch held_out  Rescale RevealCancel  DASP  Owen3  full skewed   Spearman of "
        "DASP, full, skewed"
    )
    lines = []
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 6):
        if not (folder / f"{seed}_stop.npz").exists():
            rows, kept = trained(seed)
            for stop, (weights, epoch, error) in kept.items():
                net = network().eval()
                net.load_state_dict(weights)
                truth = exact_shap(
                    lambda z, net=net: (
                        net(torch.as_tensor(z, dtype=torch.float32))[:, 0].detach().numpy()
                    ),
                    rows,
                    np.zeros((1, 18)),
                ).values
                np.savez(
                    folder / f"{seed}_{stop}.npz",
                    rows=rows,
                    truth=truth,
                    epoch=epoch,
                    error=error,
                    **{key: value.numpy() for key, value in weights.items()},
                )
        for stop in (*map(str, STOPS), "stop"):
            if not (folder / f"{seed}_{stop}.npz").exists():  # it had stopped before
                continue
            with np.load(folder / f"{seed}_{stop}.npz") as file:
                rows, truth, epoch, error = (
                    file["rows"],
                    file["truth"],
                    int(file["epoch"]),
                    float(file["error"]),
                )
                net = network().eval()
                net.load_state_dict({key: torch.as_tensor(file[key]) for key in net.state_dict()})
            table = compared(net, rows, truth)
            numbers = [*table["RMSE"], *table.loc[["DASP", "full", "skewed"], "Spearman"]]
            lines.append((stop, numbers))
            print(
                f"{seed:4d} {stop:>4s} {epoch:5d} {error:8.2f}  "
                + " ".join(f"{value:7.3f}" for value in numbers),
                flush=True,
            )
    print("\nmedians over the trainings, and the error as a share of that of Rescale")
    for stop in (*map(str, STOPS), "stop"):
        found = np.array([numbers for when, numbers in lines if when == stop])
        shares = found[:, 2:6] / found[:, :1]
        print(
            f"{stop:>5s}  RMSE "
            + " ".join(f"{value:6.3f}" for value in np.median(found[:, :6], axis=0)),
            "  share of Rescale",
            " ".join(f"{value:5.3f}" for value in np.median(shares, axis=0)),
        )


if __name__ == "__main__":
    main()
