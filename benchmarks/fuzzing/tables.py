"""Tables as people have them, in the forms that libraries give them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars
import pyarrow


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
    kinds = ["array", "fortran", "reversed"]
    kinds += ["pandas", "polars", "arrow"] if tables else []
    kind = str(rng.choice(kinds))
    return kind, as_form(kind, X)


def column_names(n_columns):
    """Names with blanks, dots and letters that no identifier has, each once."""
    return [f"{NAMES[j % len(NAMES)]} {j}" for j in range(n_columns)]


def as_form(kind, X):
    """A table as the kind of array or frame that this is."""
    names = column_names(X.shape[1])
    forms = {
        "array": lambda: X,
        "fortran": lambda: np.asfortranarray(X),
        "reversed": lambda: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
        "pandas": lambda: pd.DataFrame(X, columns=names),
        "polars": lambda: polars.DataFrame({name: X[:, j] for j, name in enumerate(names)}),
        "arrow": lambda: pyarrow.table({name: X[:, j] for j, name in enumerate(names)}),
    }
    return forms[kind]()


def draw_parts(rng, n, most):
    """Players ``0 .. n - 1`` in at most so many lists, none of them empty."""
    count = int(rng.integers(1, min(n, most) + 1))
    label = np.concatenate([np.arange(count), rng.integers(count, size=n - count)])
    label = rng.permutation(label)
    return [np.flatnonzero(label == part).tolist() for part in range(count)]


def draw_unions(rng, players, depth=3):
    """Nested lists of players: some alone, some in a family, some in a family of a family."""
    found = []
    for part in draw_parts(rng, len(players), len(players)):
        members = [players[place] for place in part]
        if len(members) == 1 and rng.random() < 0.7:
            found += members
        elif depth > 1 and len(members) > 1 and rng.random() < 0.5:
            found.append(draw_unions(rng, members, depth - 1))
        else:
            found.append(members)
    return found


def spoken(players, names):
    """Nested lists of players by their names."""
    if isinstance(players, list):
        return [spoken(player, names) for player in players]
    return names[players]


def draw_weights(rng, n):
    """Nothing, whole numbers with zeros, or any shares; never all zero."""
    kind = rng.integers(3)
    if kind == 0:
        return None
    weights = rng.integers(0, 4, n).astype(float) if kind == 1 else rng.random(n) * 10.0
    weights[rng.integers(n)] += 1.0
    return weights
