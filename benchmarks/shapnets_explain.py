"""How long does one explanation of a Deep ShapNet take, beside explaining it from outside? (Table 5
of the paper)

One thread, 16 features, one row at a time, the explainers taking turns; time of the processor. Each
explainer's distance from exact Shapley values (full enumeration) and its additivity gap are printed
beside its time, because a fast wrong answer is no answer.
Run: OMP_NUM_THREADS=1 python benchmarks/shapnets_explain.py [repeats]
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
import torch

import shaplab
from shaplab.shapnets import DeepShapNet

D = 16


def explainers(net: DeepShapNet) -> dict:
    from shaplab.deep.deep_shap import deep_shap

    zero = torch.zeros(1, D)

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.as_tensor(rows, dtype=torch.float32)).numpy()[:, 0]

    found = {
        "forward pass": lambda x: net.explain(x).detach()[0, :, 0].numpy(),
        "deep_shap": lambda x: deep_shap(net, x, zero).values.reshape(D),
    }
    try:
        from captum.attr import DeepLift

        found["captum DeepLift"] = lambda x: (
            DeepLift(net).attribute(x, zero, target=0).detach().numpy()[0]
        )
    except ImportError:
        print("captum is not installed")
    try:
        import shap

        kernel, deep = shap.KernelExplainer(predict, zero.numpy()), shap.DeepExplainer(net, zero)
        found["shap Deep"] = lambda x: np.asarray(
            deep.shap_values(x, check_additivity=False)
        ).reshape(D)
        for n in (40, 77, 2 * D + 2048):
            found[f"shap Kernel, {n}"] = lambda x, n=n: kernel.shap_values(
                x.numpy(), nsamples=n, silent=True
            ).reshape(D)
        # By default it keeps ten values and sets the others to zero.
        found["Kernel, 77, all"] = lambda x: kernel.shap_values(
            x.numpy(), nsamples=77, silent=True, l1_reg=False
        ).reshape(D)
    except ImportError:
        print("shap is not installed")
    return found


def main(repeats: int) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    net = DeepShapNet(D, 1, hidden=(100,), seed=0)
    x = torch.randn(1, D, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = shaplab.shapley_values(lambda S: net(torch.tensor(S) * x)[:, 0].double().numpy(), D)
        rise = float(net(x) - net(torch.zeros(1, D)))
    times: dict[str, list[float]] = {}
    values = {}
    calls = explainers(net)
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            try:
                values[name] = call(x)
            except Exception as problem:
                if turn == 0:
                    print(f"{name} fails: {problem}")
                continue
            if turn:
                times.setdefault(name, []).append(time.process_time() - start)
    ours = float(np.median(times["forward pass"]))
    print(
        f"{'explainer':<18} {'ms':>9} {'ratio':>7} {'error / mean |phi|':>19} "
        f"{'additivity gap':>15}"
    )
    for name, measured in times.items():
        error = np.abs(values[name] - exact).mean() / np.abs(exact).mean()
        print(
            f"{name:<18} {np.median(measured) * 1e3:9.3f} {np.median(measured) / ours:7.1f} "
            f"{error:19.2e} "
            f"{abs(values[name].sum() - rise):15.1e}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
