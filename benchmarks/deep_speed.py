"""How fast is deep_shap beside shap and captum, and how much memory does each take?

Run: OMP_NUM_THREADS=1 python benchmarks/deep_speed.py [repeats] > benchmarks/results/deep_speed.txt
Times are CPU seconds on one thread, the best of `repeats` alternating runs. On the MLP, where all
programs have the same rule, they must give the same values; the CNN's maxima each treats in its own
way, so there the difference from shap is printed. Peak memory is the largest resident size above
that after a small warm-up, watched every millisecond in a fresh process for each method. captum
runs as people call it, all rows at once (10 GB on the CNN), and also one row at a time; ratios are
beside the faster of the two. The chapter deep/graph prints the recorded file.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import threading
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shaplab import deep_shap

warnings.filterwarnings("ignore")
torch.set_num_threads(1)


def cases() -> dict[str, tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    mlp = nn.Sequential(
        nn.Linear(79, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1)
    ).eval()
    cnn = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 1),
    ).eval()
    images = torch.rand(200, 1, 28, 28)
    images = images * (images > 0.6)  # mostly black, like digits
    return {
        "MLP 79-256-128-1, 100 x 1000": (mlp, torch.randn(100, 79), torch.randn(1000, 79)),
        "CNN two conv-ReLU-pool, 100 x 100": (cnn, images[:100], images[100:]),
    }


def with_shap(net: nn.Module, X: torch.Tensor, B: torch.Tensor) -> np.ndarray:
    import shap

    return np.asarray(shap.DeepExplainer(net, B).shap_values(X, check_additivity=False))[..., 0]


def with_captum(net: nn.Module, X: torch.Tensor, B: torch.Tensor) -> np.ndarray:
    from captum.attr import DeepLiftShap

    return DeepLiftShap(net).attribute(X, B).detach().numpy()


def with_captum_by_row(net: nn.Module, X: torch.Tensor, B: torch.Tensor) -> np.ndarray:
    return np.concatenate([with_captum(net, row[None], B) for row in X])


def ours(rule: str, max_rule: str = "cross"):
    return lambda net, X, B: (
        deep_shap(net, X, B, rule=rule, max_rule=max_rule, batch_size=1000, outputs=0).values
    )


METHODS = {
    "shap Rescale": with_shap,
    "captum Rescale": with_captum,
    "captum, row by row": with_captum_by_row,
    "rescale": ours("rescale"),
    "rescale, exact max": ours("rescale", "exact"),
    "reveal_cancel": ours("reveal_cancel"),
    "reveal_cancel_mean": ours("reveal_cancel_mean"),
}


def resident() -> float:
    """Megabytes resident now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def memory(case: str, method: str) -> float:
    """Peak megabytes above the state after a small warm-up, in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "memory", case, method],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    if sys.argv[1:2] == ["memory"]:
        net, X, B = cases()[sys.argv[2]]
        METHODS[sys.argv[3]](net, X[:2], B[:3])
        before, peak, done = resident(), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.001):
                peak[0] = max(peak[0], resident() - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        METHODS[sys.argv[3]](net, X, B)
        done.set()
        watcher.join()
        print(json.dumps(peak[0]))
        return
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "shap", "captum", "numba")
    )
    print(
        f"Python {platform.python_version()}, {versions}; CPU seconds, one thread, best "
        f"of {repeats}"
    )
    for case, (net, X, B) in cases().items():
        out = net(X).detach().numpy()[:, 0] - float(net(B).detach().mean())
        best: dict[str, float] = {}
        gaps: dict[str, float] = {}
        for run in METHODS.values():
            run(net, X[:2], B[:3])
        for _ in range(repeats):
            for name, run in METHODS.items():
                start = time.process_time()
                values = run(net, X, B)
                best[name] = min(best.get(name, np.inf), time.process_time() - start)
                gaps[name] = float(
                    np.abs(values.reshape(len(X), -1).sum(1) - out).max() / np.abs(out).max()
                )
                if name == "shap Rescale":
                    peer = values
                if name == "rescale":  # same rule: the same numbers
                    difference = np.abs(values - peer).max() / np.abs(peer).max()
        # Single precision; all have sums of some hundred terms.
        if case.startswith("MLP") and not difference < 1e-4:
            raise SystemExit(f"{case}: rescale differs from shap by {difference:.0e}")
        print(f"\n{case}; rescale differs from shap by {difference:.0e} of the largest value")
        print(f"  {'':<20} {'s':>7} {'shap /':>8} {'captum /':>9} {'gap':>7} {'peak MB':>8}")
        captum = min(best["captum Rescale"], best["captum, row by row"])
        for name in METHODS:
            peers = [peer / best[name] for peer in (best["shap Rescale"], captum)]
            print(
                f"  {name:<20} {best[name]:7.2f} {peers[0]:8.1f} {peers[1]:9.1f} {gaps[name]:7.0e} "
                f"{memory(case, name):8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
