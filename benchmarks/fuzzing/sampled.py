"""Structures on the players, and what is estimated within its errors."""

from __future__ import annotations

import numpy as np

import shaplab
from fuzzing.oracles import by_orderings, close, coalitions_of, within_errors, worth_of
from fuzzing.tables import draw_parts, draw_unions, draw_weights
from shaplab.foundations.interactions import higher_interactions_literal

# Pairs of orderings. Of fifty the spread is a good error, but its tails are not: a pair in two
# hundred that is far off may be among none of them.
PAIRS = 200


def draw_order(rng, n):
    """Levels or pairs, as ``order=`` takes them, and the pairs they mean."""
    if rng.random() < 0.5:
        levels = draw_parts(rng, n, n)
        numbered = [(level, player) for level, part in enumerate(levels) for player in part]
        pairs = [(a, b) for i, a in numbered for j, b in numbered if i < j]
        return levels, pairs
    ranked = rng.permutation(n)
    pairs = []
    for _ in range(int(rng.integers(1, n + 1))):
        first, second = np.sort(rng.choice(n, 2, replace=False))
        pairs.append((int(ranked[first]), int(ranked[second])))
    return pairs, pairs


def draw_structure(rng, n):
    """Options for shaplab and for the oracle."""
    kind = rng.integers(3 if n > 1 else 2)
    if kind == 0:
        return {}, {}
    if kind == 1:
        unions = draw_unions(rng, list(range(n)))
        return {"unions": unions}, {"unions": unions}
    order, pairs = draw_order(rng, n)
    return {"order": order}, {"before": pairs}


def draw_function(rng, d):
    """A smooth or stepped function of rows with interactions of all orders, one output or two."""
    slopes, pairs = rng.normal(size=d), rng.normal(size=(d, d)) / d
    outputs = int(rng.integers(1, 3))
    stepped = rng.random() < 0.3

    def model(Z):
        Z = np.asarray(Z, float)
        Z = np.where(Z > 0, 1.0, -0.5) if stepped else Z
        score = Z @ slopes + np.einsum("ni,ij,nj->n", np.tanh(Z), pairs, np.cos(Z))
        score = score + np.tanh(score)
        return score if outputs == 1 else np.stack([score, np.cos(score)], axis=1)

    return model


def structures_case(rng):
    """Rows of a model: exact_shap and the samplers under groups, weights, unions and orders."""
    d = int(rng.integers(1, 8))
    groups = draw_parts(rng, d, 5) if d > 5 or rng.random() < 0.4 else None
    player = np.arange(d)
    for number, members in enumerate(groups or ()):
        player[members] = number
    n = int(player.max()) + 1
    given, meant = draw_structure(rng, n)
    model = draw_function(rng, d)
    X = rng.normal(size=(int(rng.integers(1, 4)), d))
    background = rng.normal(size=(int(rng.choice([1, 2, 5, 30])), d))
    if rng.random() < 0.3:
        background[:, 0] = X[0, 0]
    options = {"groups": groups, "weights": draw_weights(rng, len(background)), **given}
    seed = int(rng.integers(10**6))
    samplers = ["permutation", "game"] if given else ["permutation", "game", "kernel"]
    sampler = str(rng.choice(samplers))  # a regression fits all orderings
    rounds = int(rng.integers(12, 30)) if rng.random() < 0.7 else None
    size = f"d={d} rows={len(X)} references={len(background)}"
    yield f"structures {size} {sampler} {rounds} {options}"

    worth = worth_of(model, X, background, player, options["weights"])
    truth = np.moveaxis(by_orderings(worth, **meant), 0, 1)
    exact = shaplab.exact_shap(model, X, background, **options)
    close(exact.values, truth, 1e-10, "exact_shap")
    if sampler == "kernel":
        found = shaplab.kernel_shap(model, X, background, rng=seed, **options)
    elif sampler == "permutation":
        found = shaplab.permutation_shap(model, X, background, rng=seed, rounds=rounds, **options)
    else:
        weights = options.pop("weights")
        game = shaplab.MarginalGame(model, X, background, groups=groups, weights=weights)
        found = shaplab.game_shap(game, max_evaluations=2 * n * PAIRS, rng=seed, **given)
    close(found.prediction, model(X), 1e-9, "sum")
    freedom = np.maximum(np.min(found.info.get("rounds", 8)) - 1, 1)
    std = found.std
    if std is not None and freedom < 11:  # few rounds may agree by chance: the row's largest
        std = np.broadcast_to(std.max(axis=1, keepdims=True), std.shape)
    within_errors(found.values, truth, std, freedom, sampler)


def draw_game(rng, n):
    """A game of any number of players: pairs and triples, and a bend that has all orders."""
    slopes = rng.normal(size=n) * 10.0 ** rng.integers(-2, 3, n)
    count = int(rng.integers(0, 2 * n + 1))
    subsets = [rng.choice(n, min(n, int(rng.integers(2, 4))), replace=False) for _ in range(count)]
    heights = rng.normal(size=count)
    bend = float(rng.choice([0.0, 0.0, 1.0, 5.0]))
    scale = 10.0 ** rng.integers(-8, 9)
    payoff = [(), (2,), (2, 3)][rng.integers(3)]
    signs = rng.normal(size=payoff)

    def game(coalitions):
        coalitions = np.asarray(coalitions)
        worth = coalitions @ slopes
        for members, height in zip(subsets, heights, strict=True):
            worth = worth + height * coalitions[:, members].all(axis=1)
        worth = worth + bend * np.sqrt(1.0 + coalitions.sum(axis=1))
        worth = scale * (worth + bend * np.tanh(worth))
        return worth.reshape(-1, *(1 for _ in payoff)) * signs

    # A table answers the same in batches of any size; a matrix product rounds otherwise.
    return shaplab.TableGame(game(coalitions_of(n)))


def orderings_case(rng):
    """owen_values, asymmetric_values and sampled_values against all orderings."""
    n = int(rng.integers(1, 7))
    given, meant = draw_structure(rng, n)
    game = draw_game(rng, n)
    budget = None if rng.random() < 0.3 else int(2 * n * PAIRS * rng.choice([1, 2, 5]))
    options = {"rng": int(rng.integers(10**6)), "max_evaluations": budget}
    if rng.random() < 0.3:
        options["batch_size"] = int(rng.integers(1, 20))
    yield f"orderings of {n} players {given} {options}"

    worth = game.table
    truth = by_orderings(worth, **meant)
    size = np.abs(worth).max()
    if "unions" in given:
        close(shaplab.owen_values(game, given["unions"]) / size, truth / size, 1e-11, "Owen")
    elif "order" in given:
        found = shaplab.asymmetric_values(game, given["order"], n)
        close(found / size, truth / size, 1e-11, "asymmetric")
    found = shaplab.sampled_values(game, n, **given, **options)
    within_errors(found.values / size, truth / size, found.std / size, found.freedom, "sampled")
    close(found.values.sum(axis=0) / size, found.total / size, 1e-11, "sampled: sum")
    again = shaplab.sampled_values(game, n, **given, **(options | {"batch_size": 7}))
    if not np.array_equal(found.values, again.values):
        raise AssertionError("another batch size gives other values")


def estimates_case(rng):
    """estimate_values at any budget, and sampled_values without a structure."""
    n = int(rng.integers(1, 15))
    game = draw_game(rng, n)
    budget = int(2 ** rng.uniform(3, n + 1)) + 6
    options = {"rng": int(rng.integers(10**6)), "max_evaluations": budget, "thresh": None}
    if rng.random() < 0.3:
        options |= {"thresh": 0.02, "max_evaluations": None}
    if rng.random() < 0.3:
        options["batch_size"] = int(rng.integers(1, 40))
    yield f"estimate of {n} players {options}"

    worth = game.table
    size = np.abs(worth).max()
    truth = shaplab.shapley_values(game, n)
    found = shaplab.estimate_values(game, n, **options)
    most = options["max_evaluations"] or np.inf
    if found.evaluations > most:
        raise AssertionError(f"{found.evaluations} evaluations of at most {most}")
    close(found.values.sum(axis=0) / size, found.total / size, 1e-10, "sum")
    if found.std is None:
        close(found.values / size, truth / size, 1e-11, "exact")
        return
    within_errors(found.values / size, truth / size, found.std / size, found.freedom, "estimate")
    again = shaplab.estimate_values(game, n, **(options | {"batch_size": 50}))
    if not np.array_equal(found.values, again.values):
        raise AssertionError("another batch size gives other values")


def interactions_case(rng):
    """interaction_values of all indices, by definition where small, else within their errors."""
    exact = rng.random() < 0.4
    n = int(rng.integers(1, 7 if exact else 13))
    index = str(rng.choice(["SII", "k-SII", "STII", "FSII", "Banzhaf", "Moebius"]))
    order = int(rng.integers(1, min(n, 5 if exact else 3) + 1))
    game = draw_game(rng, n)
    budget = None if exact else int(2 ** rng.uniform(1, n + 0.5)) + 60
    options = {} if exact else {"rng": int(rng.integers(10**6)), "max_evaluations": budget}
    yield f"{index} of order {order} of {n} players {options}"

    worth = game.table
    size = np.abs(worth).max()
    found = shaplab.interaction_values(game, n, order=order, index=index, **options)
    if exact:
        literal = higher_interactions_literal(game, n, order, index)
        truth = np.stack([literal[subset] for subset in found.subsets])
        close(found.values / size, truth / size, 1e-9, "definition")
        return
    truth = shaplab.interaction_values(game, n, order=order, index=index)
    values = np.stack([found[subset] for subset in truth.subsets])
    errors = None
    if found.std is not None:
        errors = np.stack([found.error(subset) for subset in truth.subsets]) / size
    within_errors(values / size, truth.values / size, errors, found.info.get("pairs", 8), "index")
    again = shaplab.interaction_values(
        game, n, order=order, index=index, **(options | {"batch_size": 7})
    )
    if not np.array_equal(found.values, again.values):
        raise AssertionError("another batch size gives other values")
