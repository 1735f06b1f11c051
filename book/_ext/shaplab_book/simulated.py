"""Dataset, the one type of data set, and simulators whose truth is known.

Use them from ``shaplab_book.datasets``, which lists all data. A simulator returns the same numbers
for the same ``rng``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shaplab._validation import check_int, check_real, resolve_rng, shorten

__all__ = [
    "Dataset",
    "simulate_corrgroups60",
    "simulate_deployment",
    "simulate_dna",
    "simulate_independent60",
    "simulate_large",
    "simulate_large_chunks",
    "simulate_parkinsons",
    "simulate_shapnet16",
]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows, a target, and what a reader must know about them.

    Parameters
    ----------
    X : DataFrame or float array ``(n, d)``; images ``(n, channels, height, width)`` in [0, 1]; DNA
        ``(n, 4, length)``.
    y : array ``(n,)``, or ``(n, tasks)`` for DNA read from files.
    feature_names, units : one string a feature (empty tuples for images); a unit is "" where there
        is none.
    target : name and unit of ``y``.
    source, licence, description : where the data come from, on what terms, and what to beware of.
    extra : further arrays by name (masks, groups of rows, times, true coefficients).
    """

    X: Any
    y: np.ndarray
    feature_names: tuple[str, ...]
    units: tuple[str, ...]
    target: str
    name: str
    source: str
    licence: str
    description: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        extra = f"\n  extra: {', '.join(self.extra)}" if self.extra else ""
        return (
            f"<Dataset {self.name}: X {' x '.join(f'{size:,}' for size in self.X.shape)}, y = "
            f"{self.target}>\n"
            f"  {shorten(self.description, 300)}\n  source: {self.source}\n  licence: "
            f"{self.licence}{extra}"
        )

    def codes(self) -> Any:
        """``X`` as a float64 DataFrame: categories become 0, 1, ... in their listed order, missing
        ones NaN."""
        table = self.X.copy()
        for column, kind in table.dtypes.items():
            if hasattr(kind, "categories"):
                table[column] = table[column].cat.codes.astype(float).where(table[column].notna())
        return table.astype(np.float64)


def pack(
    name: str,
    X: Any,
    y: Any,
    target: str,
    units: Mapping[str, str] | Sequence[str],
    source: str,
    licence: str,
    description: str,
    **extra: Any,
) -> Dataset:
    """A Dataset of a DataFrame: numbers become float64, all else categories."""
    import pandas as pd

    X = X.reset_index(drop=True)
    for column, kind in X.dtypes.items():
        X[column] = X[column].astype(float if pd.api.types.is_numeric_dtype(kind) else "category")
    names = tuple(str(column) for column in X.columns)
    units = (
        tuple(units.get(column, "") for column in names)
        if isinstance(units, Mapping)
        else tuple(units)
    )
    return Dataset(X, np.array(y), names, units, target, name, source, licence, description, extra)


def pack_images(
    name: str, X: np.ndarray, y: Any, source: str, licence: str, description: str, **extra: Any
) -> Dataset:
    """A Dataset of images of ten classes."""
    return Dataset(
        X,
        np.asarray(y, dtype=np.int64),
        (),
        (),
        "class, 0 to 9",
        name,
        source,
        licence,
        description,
        extra,
    )


def _groups60(name: str, n: int, rng: Any, rho: float, description: str) -> Dataset:
    import pandas as pd

    generator = resolve_rng(rng)
    covariance = np.kron(np.eye(20), np.full((3, 3), rho)) + (1 - rho) * np.eye(60)
    X = generator.standard_normal((check_int(n, "n"), 60)) @ np.linalg.cholesky(covariance).T
    beta = (np.arange(60) % 3 == 0).astype(float)
    y = X @ beta + 0.01 * generator.standard_normal(n)
    return pack(
        name,
        pd.DataFrame(X, columns=[f"x{j}" for j in range(60)]),
        y,
        "response",
        [""] * 60,
        "simulated",
        "none needed",
        description,
        coefficients=beta,
        covariance=covariance,
    )


def simulate_corrgroups60(n: int = 1000, *, rng: Any = 0) -> Dataset:
    """Sixty Gaussian features, correlated .99 in triples; only the first of each triple counts
    (coefficient 1).

    Parameters
    ----------
    n, rng : int, rows; seed or Generator.
    """
    return _groups60(
        "Corrgroups60",
        n,
        rng,
        0.99,
        "Linear response, noise of standard deviation 0.01; features 0, 3, 6, ... have "
        "coefficient 1 and "
        "two near copies each that have 0.",
    )


def simulate_independent60(n: int = 1000, *, rng: Any = 0) -> Dataset:
    """As ``simulate_corrgroups60`` with independent features.

    Parameters as in ``simulate_corrgroups60``.
    """
    return _groups60(
        "Independent60",
        n,
        rng,
        0.0,
        "Linear response, noise of standard deviation 0.01; features 0, 3, 6, ... have "
        "coefficient 1, "
        "the others 0; all are independent.",
    )


def simulate_shapnet16(n: int = 1000, *, rng: Any = 0) -> Dataset:
    """The regression of the ShapNet paper: v uniform on [-0.5, 0.5]^16, y = sum v_i + sum v_i^2 +
    0.05 noise.

    Parameters as in ``simulate_corrgroups60``.
    """
    import pandas as pd

    generator = resolve_rng(rng)
    X = generator.uniform(-0.5, 0.5, (check_int(n, "n"), 16))
    y = (X + X**2).sum(axis=1) + 0.05 * generator.standard_normal(n)
    return pack(
        "ShapNet 16",
        pd.DataFrame(X, columns=[f"v{j}" for j in range(1, 17)]),
        y,
        "response",
        [""] * 16,
        "simulated",
        "none needed",
        "Additive, so each Shapley value against a reference r is v + v² - r - r². The first "
        "operator is lost "
        "in the paper's text that we read; we take it to be a sum.",
    )


_VOICE = [
    "Jitter(%)",
    "Jitter(Abs)",
    "Jitter:RAP",
    "Jitter:PPQ5",
    "Jitter:DDP",
    "Shimmer",
    "Shimmer(dB)",
    "Shimmer:APQ3",
    "Shimmer:APQ5",
    "Shimmer:APQ11",
    "Shimmer:DDA",
    "NHR",
    "HNR",
    "RPDE",
    "DFA",
    "PPE",
]


def simulate_parkinsons(n: int = 2000, *, rng: Any = 0) -> Dataset:
    """Eighteen features in the likeness of Parkinson's telemonitoring: 42 people, correlated voice
    measures.

    Parameters as in ``simulate_corrgroups60``.
    """
    import pandas as pd

    generator = resolve_rng(rng)
    person = np.sort(generator.integers(0, 42, check_int(n, "n")))
    age, sex = np.round(generator.normal(65, 9, 42)), (generator.random(42) < 0.3).astype(float)
    # Three latent qualities of a voice (pitch, loudness, noise), partly a person's own, drive
    # sixteen measures.
    latent = 0.8 * generator.standard_normal((42, 3))[person] + 0.6 * generator.standard_normal(
        (n, 3)
    )
    loading = np.zeros((3, 16))
    loading[0, :5] = loading[1, 5:11] = loading[2, 11:] = 1.0
    loading[2, [12, 14]] = -1.0
    voice = latent @ loading + 0.35 * generator.standard_normal((n, 16))
    X = np.column_stack([age[person], sex[person], voice])
    y = (
        29
        + 0.4 * (X[:, 0] - 65)
        + 3 * np.tanh(latent[:, 0]) * latent[:, 1]
        - 2.5 * np.maximum(voice[:, 12], 0)
        + 4 * np.maximum(voice[:, 15] - 0.5, 0) * (1 - sex[person])
        + 1.5 * generator.standard_normal(n)
    )
    return pack(
        "Parkinson-like",
        pd.DataFrame(X, columns=["age", "sex", *_VOICE]),
        y,
        "total score (points)",
        ["years", "1 = female", *["standard score"] * 16],
        "simulated",
        "none needed",
        "Names and size of the Parkinson's telemonitoring data, invented numbers. Rows of one "
        "person are "
        "alike: split by extra['person'], not by row.",
        person=person,
    )


def simulate_deployment(n: int = 20_000, *, faults: bool = True, rng: Any = 0) -> Dataset:
    """Four years of operating-room bookings in order of time, with three planted faults after the
    first year.

    ``y`` is the duration of a procedure in minutes. The first 365 days are meant for training. With
    ``faults``: from two thirds of the rows on, the labels of rooms 6 and 13 are swapped; for 30
    days from day 400 the general anesthesia flag of site B is blank (0); from day 550 on the effect
    of an ablation fades from +120 to -20 minutes. ``extra`` holds ``day``, ``train``, and rows
    where each fault is active: ``swapped``, ``blank``, ``fading``.

    Parameters
    ----------
    n, faults, rng : int, rows; bool; seed or Generator.
    """
    import pandas as pd

    generator = resolve_rng(rng)
    n = check_int(n, "n", minimum=100)
    day = np.sort(generator.uniform(0, 1461, n))
    room = generator.integers(0, 16, n)
    age, bmi = (
        generator.normal(55, 17, n).clip(18, 95).round(),
        generator.normal(28, 5, n).clip(15, 60).round(1),
    )
    hour, weekday = generator.uniform(7, 18, n).round(1), np.floor(day % 7)
    site_b = (room >= 8).astype(float)
    rates = np.array([[0.6], [0.1], [0.05], [0.08]])
    anesthesia, emergency, ablation, robot = (generator.random((4, n)) < rates).astype(float)
    # Minutes that a room adds; the long room 6 and the short room 13 are far apart.
    effect = np.array([-3, -21, 9, -9, 21, 45, -15, 3, 15, -27, 27, -33, -45, 33, -39, 39])
    swapped, blank = np.arange(n) >= 2 * n // 3, (day >= 400) & (day < 430) & (site_b == 1)
    fade = (
        np.where(day < 550, 120.0, 120.0 - 140.0 * (day - 550) / (1461 - 550))
        if faults
        else np.full(n, 120.0)
    )
    y = (
        140
        + effect[room]
        + 45 * anesthesia
        + fade * ablation
        + 30 * robot * (bmi / 28)
        - 20 * emergency
        + 0.3 * (age - 55)
        + 25 * np.exp(-((hour - 7.5) ** 2))
        + 20 * generator.standard_normal(n)
    )
    if faults:
        room = np.where(swapped & (room == 5), 12, np.where(swapped & (room == 12), 5, room))
        anesthesia = np.where(blank, 0.0, anesthesia)
    columns = {
        "age": age,
        "BMI": bmi,
        "start hour": hour,
        "weekday": weekday,
        "site B": site_b,
        "general anesthesia": anesthesia,
        "ablation": ablation,
        "emergency": emergency,
        "robot": robot,
        **{f"room {r + 1}": room == r for r in range(16)},
    }
    units = ["years", "kg/m²", "h", "0 to 6", *["1 = yes"] * 21]
    return pack(
        "Deployment",
        pd.DataFrame(columns).astype(float),
        y,
        "procedure duration (minutes)",
        units,
        "simulated",
        "none needed",
        "Bookings of two sites over 1,461 days. Durations always follow the true room, flag and "
        "effect; only "
        "what is recorded goes wrong.",
        day=day,
        train=day < 365,
        swapped=swapped & faults,
        blank=blank & faults,
        fading=(day >= 550) & (ablation == 1) & faults,
    )


# Our own position weights: the consensus letter has probability .88, each other letter .04.
_MOTIFS = {"GATA": "AGATAAGG", "E-box": "ACAGCTGT"}


def simulate_dna(n: int = 2000, *, length: int = 200, gc: float = 0.46, rng: Any = 0) -> Dataset:
    """One-hot DNA (order ACGT) with a GATA motif, an E-box, both or none, a quarter each; y = 1
    when both are there.

    Parameters: rows ``n``, letters ``length``, share ``gc`` of C and G, ``rng`` a seed or
    Generator. ``extra["masks"]`` ``(n, length)``: 0 background, 1 GATA, 2 E-box. ``extra["tasks"]``
    ``(n, 3)``: both, GATA, E-box.
    """
    generator = resolve_rng(rng)
    n, length = check_int(n, "n"), check_int(length, "length", minimum=20)
    gc = check_real(gc, "gc", low=0.0, high=1.0)
    letters = generator.choice(4, size=(n, length), p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
    kind, masks = generator.permutation(n) % 4, np.zeros((n, length), dtype=np.int8)
    for row in range(n):
        for code, motif in enumerate(_MOTIFS.values(), start=1):
            if not kind[row] & code:
                continue
            free = [
                s
                for s in range(length - len(motif) + 1)
                if not masks[row, s : s + len(motif)].any()
                # The first of two leaves room for the second, before or after itself.
                and (kind[row] != 3 or code == 2 or max(s, length - s - len(motif)) >= len(motif))
            ]
            span = slice(start := int(generator.choice(free)), start + len(motif))
            wanted = np.array(["ACGT".index(letter) for letter in motif])
            noise = (
                generator.random(len(motif)) < 0.16
            )  # a fresh letter is the wanted one a quarter of the time
            letters[row, span] = np.where(noise, generator.integers(0, 4, len(motif)), wanted)
            masks[row, span] = code
    tasks = np.column_stack([kind == 3, (kind & 1) > 0, (kind & 2) > 0]).astype(np.int64)
    X = (letters[:, None, :] == np.arange(4)[:, None]).astype(np.float32)
    return Dataset(
        X,
        tasks[:, 0],
        (),
        (),
        "both motifs present (1 = both)",
        "DNA, two motifs",
        "simulated",
        "none needed",
        f"{length} bp, GC {gc:.0%}. Motifs can also arise by chance in the background; masks mark "
        "planted ones.",
        {"masks": masks, "tasks": tasks, "motifs": dict(_MOTIFS)},
    )


def simulate_large_chunks(
    n: int = 1_000_000, d: int = 50, *, chunk: int = 10_000, rng: Any = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(X, y)`` pieces of ``simulate_large``, ``X`` float32 ``(chunk, d)``; memory stays
    that of one piece.

    Parameters as in ``simulate_large``.
    """
    n, d, chunk = check_int(n, "n"), check_int(d, "d", minimum=5), check_int(chunk, "chunk")
    root = np.random.SeedSequence([int(word) for word in resolve_rng(rng).integers(0, 2**63, 2)])
    for start in range(0, n, chunk):
        generator = np.random.default_rng(root.spawn(1)[0])
        X = generator.standard_normal((min(chunk, n - start), d), dtype=np.float32)
        X[:, 1::5] = 0.7 * X[:, ::5][:, : X[:, 1::5].shape[1]] + 0.7 * X[:, 1::5]
        wave = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + (X[:, 3] > 0.5) * X[:, 4]
        yield (
            X,
            wave
            + 0.3 * X[:, ::3].mean(axis=1)
            + 0.1 * generator.standard_normal(len(X), dtype=np.float32),
        )


def simulate_large(
    n: int = 1_000_000, d: int = 50, *, chunk: int = 10_000, rng: Any = 0
) -> Dataset:
    """A large table, float32 array ``(n, d)``: 200 MB at the default size.

    Parameters: rows ``n``, features ``d``, rows made at once ``chunk`` (part of the seed), ``rng``
    a seed or Generator.
    """
    pieces = list(simulate_large_chunks(n, d, chunk=chunk, rng=rng))
    X, y = np.concatenate([X for X, _ in pieces]), np.concatenate([y for _, y in pieces])
    return Dataset(
        X,
        y,
        tuple(f"x{j}" for j in range(d)),
        ("",) * d,
        "response",
        "Large",
        "simulated",
        "none needed",
        "Gaussian features, neighbours correlated in fives; response from six features and "
        "a mean of a "
        "third of them.",
    )
