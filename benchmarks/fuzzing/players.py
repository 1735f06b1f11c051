"""Trees whose players are groups, in unions, with weights of the background, prepared, priced by a
loss, in interactions of any order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import shaplab
from fuzzing.models import as_taken, draw_model
from fuzzing.oracles import close, coalitions_of, outputs_of, worth_of
from fuzzing.tables import (
    as_form,
    column_names,
    draw_form,
    draw_parts,
    draw_table,
    draw_target,
    draw_unions,
    draw_weights,
    spoken,
)

MOST_GROUPS = 6


class Drawn(NamedTuple):
    """A model, rows, a background, and who plays: options for shaplab, and what they mean."""

    label: str
    model: Any
    raw: Any
    final: Any
    tolerance: float
    X: np.ndarray
    background: np.ndarray
    kind: str
    options: dict[str, Any]
    player: np.ndarray
    n_players: int
    unions: list[Any] | None

    def rows(self):
        return as_form(self.kind, self.X)

    def references(self):
        return as_form(self.kind, self.background)

    def values(self, worth):
        """Shapley or Owen values ``(N, n[, K])`` of a table ``(2^n, N[, K])``."""
        game = shaplab.TableGame(worth)
        if self.unions is None:
            return np.moveaxis(shaplab.shapley_values(game, self.n_players), 0, 1)
        return np.moveaxis(shaplab.owen_values(game, self.unions), 0, 1)

    def path_worth(self):
        """The table of the path-dependent game of these players."""
        game = shaplab.path_dependent_game(self.model, self.X)
        return game(coalitions_of(self.n_players)[:, self.player])

    def marginal_worth(self, weights=None):
        return worth_of(self.raw, self.X, self.background, self.player, weights)


def draw_problem(rng, families=True, most_wide=150):
    """A model on narrow columns, or on many columns in few groups."""
    wide = rng.random() < 0.25
    d = int(rng.integers(15, most_wide)) if wide else int(rng.integers(1, 8))
    n = int(rng.integers(60, 250))
    X = draw_table(rng, n, d, missing=rng.random() < 0.5)
    label, model, raw, final, tolerance = draw_model(rng, X, draw_target(rng, X))
    X = as_taken(label, X)
    kind, _ = draw_form(rng, X[:1])
    names = column_names(d)
    named = kind in ("pandas", "polars", "arrow")
    options = {}
    player, n_players, titles = np.arange(d), d, names
    if wide or rng.random() < 0.6:
        groups = draw_parts(rng, d, MOST_GROUPS)
        options["groups"], player, titles = draw_groups(rng, groups, names, named)
        n_players = len(titles)
    if not named and rng.random() < 0.3:
        options["feature_names"] = names
        named = True
    unions = None
    if families and rng.random() < 0.5:
        unions = draw_unions(rng, list(range(n_players)))
        by_name = rng.random() < 0.5 and (named or isinstance(options.get("groups"), dict))
        by_name = by_name and len(set(titles)) == n_players
        options["unions"] = spoken(unions, titles) if by_name else unions
    background = X[rng.integers(n, size=int(rng.integers(1, 9)))]
    return Drawn(
        f"{label} on {n} x {d} as {kind}, {options}",
        model,
        raw,
        final,
        tolerance,
        X[:3],
        background,
        kind,
        options,
        player,
        n_players,
        unions,
    )


def draw_groups(rng, groups, names, named):
    """Groups as a person gives them, the player of each column, and what players are called."""
    d = sum(map(len, groups))
    player = np.zeros(d, int)
    for number, members in enumerate(groups):
        player[members] = number
    given = spoken(groups, names) if named and rng.random() < 0.5 else groups
    if rng.random() < 0.5:
        return given, player, [" + ".join(spoken(members, names)) for members in groups]
    titles = [f"group {number}" for number in range(len(groups))]
    last = groups[-1]
    if named and len(groups) > 1 and len(last) == 1:  # who is in no group plays alone, last
        titles = [*titles[:-1], names[last[0]]]
        return dict(zip(titles[:-1], given[:-1], strict=True)), player, titles
    return dict(zip(titles, given, strict=True)), player, titles


def draw_run(rng, rows=3):
    """How a call is run, which must not matter."""
    options = {"batch_size": int(rng.integers(1, 5))} if rng.random() < 0.3 else {}
    if rng.random() < 0.2:
        options["n_jobs"] = 2
    return options


def players_case(rng):
    drawn = draw_problem(rng)
    weights = draw_weights(rng, len(drawn.background))
    run = draw_run(rng)
    # Under unions there is one way.
    routes = 1 if drawn.unions is not None else 3
    path_route = ["auto", "tables", "walk"][rng.integers(routes)]
    pair_route = ["auto", "tables", "patterns"][rng.integers(routes)]
    yield f"{drawn.label}, {run}, {path_route}, {pair_route}, weights {weights}"

    own = drawn.values(drawn.path_worth())
    found = shaplab.tree_shap(drawn.model, drawn.rows(), route=path_route, **run, **drawn.options)
    close(found.values, own, 1e-9, "path-dependent")
    close(found.prediction, drawn.raw(drawn.X), drawn.tolerance, "path-dependent: sum")
    expected = drawn.values(drawn.marginal_worth(weights))
    found = shaplab.interventional_tree_shap(
        drawn.model,
        drawn.rows(),
        drawn.references(),
        weights=weights,
        route=pair_route,
        **run,
        **drawn.options,
    )
    close(found.values, expected, drawn.tolerance, "interventional")
    out = np.full(own.shape, np.nan)
    shaplab.tree_shap(drawn.model, drawn.rows(), out=out, **drawn.options)
    close(out, own, 1e-9, "path-dependent: out")


def prepared_case(rng):
    pairs = rng.random() < 0.4
    drawn = draw_problem(rng, families=not pairs)
    weights = draw_weights(rng, len(drawn.background))
    settings = {"interactions": pairs, "n_rows": int(rng.choice([1, 3, 10_000]))}
    settings["memory_limit"] = int(rng.choice([0, 10_000, 10**9]))
    yield f"prepared {settings}: {drawn.label}, weights {weights}"

    options = {"feature_names": column_names(drawn.X.shape[1])} | drawn.options
    path = shaplab.PreparedTrees(drawn.model, **settings, **options)
    against = shaplab.BackgroundTrees(
        drawn.model, drawn.references(), weights=weights, **settings, **options
    )
    worths = (drawn.path_worth(), drawn.marginal_worth(weights))
    tolerances = (1e-9, drawn.tolerance)
    for explainer, worth, tolerance in zip((path, against), worths, tolerances, strict=True):
        kind = type(explainer).__name__
        if pairs:
            matrix = shaplab.interaction_values(shaplab.TableGame(worth), drawn.n_players)
            expected = np.moveaxis(matrix, 2, 0)
        else:
            expected = drawn.values(worth)
        whole = explainer(drawn.rows())
        close(whole.values, expected, tolerance, kind)
        one = explainer(as_form(drawn.kind, drawn.X[1:2]))
        close(one.values, expected[1:2], tolerance, f"{kind}: one row")
        again = explainer(drawn.rows())
        close(again.values, whole.values, 1e-12, f"{kind}: once more")


INDICES = ["SII", "k-SII", "STII", "FSII", "Banzhaf", "Moebius"]


def orders_case(rng):
    drawn = draw_problem(rng, families=False, most_wide=40)
    weights = draw_weights(rng, len(drawn.background))
    index = str(rng.choice(INDICES))
    most = min(4, drawn.n_players)
    if most < 2:
        yield "one player"
        return
    order = int(rng.integers(2, most + 1))
    run = draw_run(rng)
    yield f"{index} of order {order}: {drawn.label}, {run}, weights {weights}"

    found = shaplab.tree_shap_interactions(
        drawn.model, drawn.rows(), order=order, index=index, **run, **drawn.options
    )
    same_interactions(found, drawn.path_worth(), order, index, 1e-9)
    found = shaplab.interventional_tree_shap_interactions(
        drawn.model,
        drawn.rows(),
        drawn.references(),
        order=order,
        index=index,
        weights=weights,
        **run,
        **drawn.options,
    )
    same_interactions(found, drawn.marginal_worth(weights), order, index, drawn.tolerance)
    matrix = shaplab.tree_shap_interactions(drawn.model, drawn.rows(), **run, **drawn.options)
    game = shaplab.TableGame(drawn.path_worth())
    expected = np.moveaxis(shaplab.interaction_values(game, drawn.n_players), 2, 0)
    close(matrix.values, expected, 1e-9, "path-dependent pairs")


def same_interactions(found, worth, order, index, tolerance):
    """Compare all subsets with those of the table of the game."""
    n = len(worth).bit_length() - 1
    game = shaplab.TableGame(worth)
    expected = shaplab.interaction_values(game, n, order=order, index=index)
    values = np.stack([found[subset] for subset in expected.subsets])
    close(values, expected.values, tolerance, f"{found.method} {index}")
    close(found.base_value, expected.base_value, tolerance, f"{found.method} {index}: base")


# Losses -------------------------------------------------------------------------------------------


def softplus(margin):
    return np.logaddexp(0.0, margin)


def cross_entropy(logits, y):
    """Of logits ``(..., N, K)`` and each row's class."""
    top = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
    return total - logits[..., np.arange(len(y)), y]


def draw_loss(rng, drawn):
    """A name, or a function, of a loss; what it prices, on which scale, and targets."""
    rows = len(drawn.X)
    shape = np.shape(drawn.raw(drawn.X))
    several = len(shape) == 2
    if rng.random() < 0.3:
        if several:
            return (
                lambda o, y: (o**2).sum(axis=-1) + y * o[..., 0],
                None,
                drawn.raw,
                rng.normal(size=rows),
            )
        return lambda o, y: np.abs(o - y) ** 1.5, None, drawn.raw, rng.normal(size=rows)
    if several:
        return cross_entropy, "softmax_cross_entropy", drawn.raw, rng.integers(shape[1], size=rows)
    if drawn.label.startswith("wrapper adaboost"):  # it predicts a class
        return lambda o, y: o * y, None, drawn.raw, rng.normal(size=rows)
    if drawn.final is None or drawn.final[0] == "prediction":
        final = drawn.raw if drawn.final is None else drawn.final[1]
        return lambda o, y: (o - y) ** 2, "squared_error", final, rng.normal(size=rows)
    y = rng.integers(2, size=rows)
    doubled = ("'sigmoid': 2.0", "'loss': 'exponential'")  # log-odds are twice their margin
    factor = 2.0 if any(option in drawn.label for option in doubled) else 1.0
    return lambda o, y: softplus(factor * o) - y * factor * o, "logistic", drawn.raw, y


def losses_case(rng):
    drawn = draw_problem(rng, most_wide=60)
    function, name, scale, y = draw_loss(rng, drawn)
    game = str(rng.choice(["mean_of_loss", "loss_of_mean"]))
    yield f"loss {name} {game}: {drawn.label}"

    outputs = outputs_of(scale, drawn.X, drawn.background, drawn.player)
    if game == "loss_of_mean":
        worth = function(outputs.mean(axis=2), y)
    else:
        worth = function(np.moveaxis(outputs, 1, 2), y).mean(axis=1)
    if not np.isfinite(worth).all():
        return
    found = shaplab.tree_loss_shap(
        drawn.model,
        drawn.rows(),
        y,
        drawn.references(),
        loss=function if name is None else name,
        game=game,
        **drawn.options,
    )
    # Losses square and multiply what single precision has rounded.
    close(found.values, drawn.values(worth), max(drawn.tolerance * 4, 1e-9), f"{name} {game}")
    close(found.base_values, worth[0], max(drawn.tolerance * 4, 1e-9), f"{name} {game}: base")
    if drawn.final is None or drawn.final[0] != "probability":
        return
    outputs = outputs_of(drawn.final[1], drawn.X, drawn.background, drawn.player)
    seen = shaplab.tree_output_shap(
        drawn.model, drawn.rows(), drawn.references(), transform="probability", **drawn.options
    )
    worth = outputs.mean(axis=2)
    if seen.values.ndim == 2 and worth.ndim == 3:
        worth = worth[..., 1]
    close(seen.values, drawn.values(worth), max(drawn.tolerance, 5e-6), "probability")
