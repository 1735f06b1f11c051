"""Every check of an exercise rejects the mistake that its docstring names."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import shaplab_book
import torch
from scipy.stats import norm

import shaplab

# -- foundations


def shapley_matrix(n):
    inside = shaplab.all_coalitions(n).T
    size = inside.sum(axis=0)
    weights = [math.factorial(s - 1) * math.factorial(n - s) if s else 0 for s in size]
    return np.where(inside, weights, 0.0) / math.factorial(n)


def voting_power(weights, quota):
    return shaplab.banzhaf_values(lambda S: (S @ np.array(weights) >= quota) * 1.0, len(weights))


def one_call_game(f, x, background):
    def v(coalitions):
        hybrids = np.where(np.asarray(coalitions)[:, None, :], background, x)
        return f(hybrids.reshape(-1, len(x))).reshape(len(coalitions), -1).mean(axis=1)

    return v


def same_rows_game(f, x, rows):
    return lambda coalitions: np.array([f(np.where(S, x, rows)).mean() for S in coalitions])


def walk_both_ways(game, order):
    present = np.zeros((len(order) + 1, len(order)), dtype=bool)
    present[:, order] = np.tri(len(order) + 1, len(order), -1, dtype=bool)
    return (np.diff(game(present)) - np.diff(game(~present))) / 2


def stratified(game, n, draws, rng):
    phi = np.zeros(n)
    for i in range(n):
        S = rng.random((draws * n, n)) < 0.5
        S[:, i] = False
        phi[i] = (game(S | (np.arange(n) == i)) - game(S)).mean()
    return phi


def constrained_fit(coalitions, gains, weights, total):
    root = np.sqrt(weights)
    free = np.linalg.lstsq(coalitions * root[:, None], gains * root, rcond=None)[0]
    return free + (total - free.sum()) / len(free)


def draw_pairs(n, pairs, rng):
    S = rng.random((pairs, n)) < 0.5
    S[:, 0] |= ~S.any(axis=1)
    S[:, 1] &= ~S.all(axis=1)
    return np.concatenate([S, ~S])


def moebius(table):
    bit = 1
    while bit < len(table):
        present = np.arange(len(table)) & bit > 0
        table[present] -= table[np.flatnonzero(present) - bit]
        bit *= 2
    return table


def sii(dividends, T):
    return sum(worth / len(U) for U, worth in dividends.items() if set(T) <= U)


def owen(game, unions):
    n = sum(map(len, unions))
    return shaplab.shapley_values(game, n)


def count_orderings(pairs, n):
    return math.factorial(n) // 2 ** len(pairs)


# -- importance


def square_of_mean(errors):
    return errors.mean(axis=0) ** 2


def telescoped_loss(outputs, loss, reach, rng):
    top = len(reach) - 1
    start = rng.integers(2**top)
    last = sum(rng.random() < chance for chance in reach) - 1
    return loss(outputs[start % 2 ** (top - last) :: 2 ** (top - last)].mean())


def performance(f, X, y, background, known):
    losses = [(f(np.where(known, X, b)) - y) ** 2 for b in background]
    return -np.mean(losses)


def swap_importance(f, X, y, j):
    n = len(X)
    errors = []
    for shift in range(1, n):
        swapped = X.copy()
        swapped[:, j] = np.roll(X[:, j], shift)
        errors.append(np.mean((f(swapped) - y) ** 2))
    return np.mean(errors or [0.0]) - np.mean((f(X) - y) ** 2)


def mutual_information(joint):
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(joint * np.log(joint / apart))


def given(mean, covariance, known, x):
    slopes = np.linalg.solve(covariance[np.ix_(known, known)], covariance[np.ix_(known, ~known)])
    left = covariance[np.ix_(~known, ~known)] - covariance[np.ix_(~known, known)] @ slopes
    return mean[~known] + x[known] @ slopes, left


# -- trees


def expectation(x, S, tree):
    v, a, b, t, r, d = tree

    def below(j):
        if v[j] is not None:
            return v[j]
        if S[d[j]]:
            return below(a[j]) if x[d[j]] < t[j] else below(b[j])
        return (below(a[j]) * r[a[j]] + below(b[j]) * r[b[j]]) / r[j]

    return below(0)


def node_mean(tree, j):
    v, a, b, _, r, _ = tree
    if v[j] is not None:
        return v[j]
    kids = a[j], b[j]
    return sum(node_mean(tree, kid) * r[kid] for kid in kids) / r[j]


def saabas_by_means(x, tree):
    v, a, b, t, _, d = tree
    phi = np.zeros(len(x))
    j = 0
    while v[j] is None:
        child = a[j] if x[d[j]] <= t[j] else b[j]
        phi[d[child]] += node_mean(tree, child) - node_mean(tree, j)
        j = child
    return phi


def leaf_values(z, o):
    count = len(z)
    e = np.ones(1)
    for g in range(count):
        e = np.convolve(e, [z[g], o[g]])
    orders = [1 / (count * math.comb(count - 1, k)) for k in range(count)]
    return (np.asarray(o) - z) * (e[:count] @ orders)


def tree_values(x, tree):
    """Takes questions for players: a feature that is asked twice has two factors."""
    v, a, b, t, r, d = tree
    phi = np.zeros(len(x))
    waiting = [(0, [])]
    while waiting:
        j, path = waiting.pop()
        if v[j] is not None:
            z = np.array([z for _, z, _ in path])
            o = np.array([o for _, _, o in path])
            found = shaplab.shapley_values(
                lambda S, z=z, o=o: np.where(S, o, z).prod(axis=1), max(1, len(path))
            )
            for (feature, _, _), value in zip(path, found, strict=False):
                phi[feature] += v[j] * value
            continue
        taken = a[j] if x[d[j]] <= t[j] else b[j]
        for child in (a[j], b[j]):
            step = (d[j], r[child] / r[j], 1.0 * (child == taken))
            waiting.append((child, [*path, step]))
    return phi


def leaf_against(x_meets, b_meets):
    of_row = x_meets & ~b_meets
    of_reference = b_meets & ~x_meets
    U = of_row.sum()
    V = U + of_reference.sum()
    phi = np.zeros(len(x_meets))
    if U:
        phi[of_row] = 1 / (U * math.comb(V, U))
    if V > U:
        phi[of_reference] = -1 / ((V - U) * math.comb(V, U))
    return phi


def counted_covers(tree, X):
    v, a, b, t, _, d = tree
    covers = np.zeros(len(v), dtype=int)
    for x in X:
        j = 0
        covers[j] += 1
        while v[j] is None:
            j = a[j] if x[d[j]] < t[j] else b[j]
            covers[j] += 1
    return covers


def leaf_index(z, o, T):
    whole = shaplab.interaction_values(
        lambda S: np.where(S, o, z).prod(axis=1), len(z), order=len(z), index="SII"
    )[tuple(T)]
    return whole / 2 if len(T) == 2 else whole


def pairs_that_meet(tree):
    features = sorted({feature for feature in tree[5] if feature >= 0})
    return {(i, j) for i in features for j in features if i < j}


def rescaled(phi, f, starts, y):
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ((f - y) ** 2 - (starts - y) ** 2) / (f - starts)
    return np.mean(ratio[:, None] * phi, axis=0)


def cox_terms(f, times):
    years = np.abs(times)
    later = years[None, :] > years[:, None]
    terms = np.log(np.exp(f) + later @ np.exp(f)) - f
    return np.where(times > 0, terms, 0.0)


def ranks(cuts, values):
    found = np.searchsorted(cuts.astype(float), values, side="right")
    return np.where(np.isnan(values), -1, found)


def butterflies(h, matrices):
    bits = len(matrices)
    for g, matrix in enumerate(matrices):
        pairs = h.reshape(-1, 2, 1 << (bits - 1 - g))
        h = np.einsum("ab,xby->xay", matrix, pairs).reshape(-1)
    return h


# -- shapnets


def pair_transform(f, x, r):
    both = f(x)
    values = []
    for feature in (0, 1):
        without = x.clone()
        without[:, feature] = r[feature]
        values.append(both - f(without))
    return torch.stack(values, dim=1)


def module_layer(x, active_sets, functions, r):
    Z = torch.zeros_like(x)
    for active, f in zip(active_sets, functions, strict=True):
        members = list(active)
        Z[:, members] = shaplab.shapley_transform(f, x[:, members], r[members])
    return Z


def product_values(Q, x, r):
    return (x * ((Q + Q.T) @ x) - r * ((Q + Q.T) @ r)) / 2


def pair_matrix(modules, x, r):
    matrix = np.zeros((len(x), len(x)))
    for (i, j), f in modules:
        none, only_i, only_j = f(r[i], r[j]), f(x[i], r[j]), f(r[i], x[j])
        together = f(x[i], x[j]) - only_i - only_j + none
        matrix[[i, j], [j, i]] += together
        matrix[i, i] += only_i - none
        matrix[j, j] += only_j - none
    return matrix


def butterfly_pairs(size):
    stages = []
    step = 1
    while step < size:
        stages.append([(i, i + step) for i in range(size - step)])
        step *= 2
    return stages


def deep_values(stages, x, r):
    for stage in stages:
        phi = np.zeros(len(x))
        for (i, j), f in stage:
            both, none = f(x[i], x[j]), f(r[i], r[j])
            only_i, only_j = f(x[i], r[j]), f(r[i], x[j])
            phi[i] += (both - only_j + only_i - none) / 2
            phi[j] += (both - only_i + only_j - none) / 2
        x = phi
    return x


def shrunk(a, strength):
    return a - np.sign(a) * strength


def cut(a, strength):
    return np.sign(a) * np.maximum(np.abs(a) - strength, 0.0)


def needed_share(active_sets, present):
    needed = [present[:, list(active)].all(axis=1).mean() for active in active_sets]
    return float(np.mean(needed))


def keep_share(z, share):
    n = np.abs(z).sum(axis=1)
    order = np.argsort(-n, kind="stable")
    keep = np.zeros(len(n), dtype=bool)
    keep[order[np.cumsum(n[order]) <= share * n.sum()]] = True
    return keep


def window_values(terms, start, act):
    return shaplab.shapley_values(lambda S: act(S @ np.asarray(terms)), len(terms))


def fold(phi, taps):
    height, width, _ = phi.shape
    Z = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        for j, (down, right) in enumerate(taps):
            if 0 <= row - down < height and 0 <= column - right < width:
                Z[row - down, column - right] += phi[row, column, j]
    return Z


# -- deep


def rescale_values(layers, f, b):
    slopes = []
    h = f
    for W, bias in layers[:-1]:
        z = W @ h + bias
        slopes.append(z > 0)
        h = np.maximum(z, 0)
    multiplier = layers[-1][0][0]
    for (W, _), slope in zip(layers[-2::-1], slopes[::-1], strict=True):
        multiplier = (multiplier * slope) @ W
    return multiplier * (f - b)


def triple_product(f, b):
    return np.array(
        [(f[i] - b[i]) * (f[i - 1] * f[i - 2] + b[i - 1] * b[i - 2]) / 2 for i in range(3)]
    )


def weighted_values(explain, x, background, weights):
    return weights @ np.array([explain(x, b) for b in background])


def integrated(gradient, x, b, steps):
    places = (np.arange(steps) + 0.5) / steps
    return np.mean([gradient(b + place * (x - b)) for place in places], axis=0)


def reveal(g, c, start, t):
    shares = np.zeros(len(c))
    for group in (c > t, ~(c > t)):
        own = c[group].sum()
        if own != 0:
            shares[group] = c[group] / own * (g(start + own) - g(start))
    return shares


def exact_unit(g, c, start):
    return shaplab.banzhaf_values(lambda S: g(start + S @ c), len(c))


def pass_back(worth, change, inner):
    with np.errstate(divide="ignore", invalid="ignore"):
        return inner @ (worth / change)


def series(first, second, x, references):
    worth = shaplab.exact_shap(second, first(x[None]), first(references)).values[0]
    change = first(x[None])[0] - first(references).mean(axis=0)
    inner = shaplab.exact_shap(first, x[None], references).values[0]
    return inner.reshape(len(x), -1) @ (worth / change)


def chord(g, f, b):
    return (g(f) - g(b)) / (f - b)


def count_calls(model, *inputs):
    found = {}
    if isinstance(model, torch.nn.Module):
        for module in model.modules():
            name = type(module).__name__
            found[name] = found.get(name, 0) + 1
    return found


def block_values(game, n, sizes):
    orderings = list(itertools.permutations(range(n)))
    values = np.zeros(n)
    for ordering in orderings:
        here = np.zeros((1, n), dtype=bool)
        for block in np.split(np.array(ordering), np.cumsum(sizes)[:-1]):
            there = here.copy()
            there[:, block] = True
            values[block] += (game(there) - game(here)) / len(block)
            here = there
    return values / len(orderings)


def all_moments(c):
    n = len(c)
    others = [np.delete(c, i) for i in range(n)]
    k = np.arange(n)
    means = np.array([k * part.mean() for part in others])
    return means, np.array([k * part.var() for part in others])


def relu_mean(mu, v):
    s = np.where(v > 0, v, 1.0)
    normal = mu * norm.cdf(mu / s) + s * norm.pdf(mu / s)
    return np.where(v > 0, normal, np.maximum(mu, 0))


# -- insight


def largest_for(phi):
    top = np.abs(phi).argmax(axis=1)
    return np.bincount(top, minlength=phi.shape[1]) / len(phi)


def far_share(phi, times):
    size = np.abs(phi)
    return (size > times * size.mean(axis=0)).mean(axis=0)


def rank_of_last(values, uniform):
    return (np.asarray(values) >= values[-1]).mean()


def evidence(p, reference, stake, power):
    h = 1 - 2 * np.asarray(p)
    return np.cumprod(1 + stake * np.sign(h) * np.abs(h) ** power)


def keep_positive(f, x, phi, hidden):
    rank = np.argsort(np.argsort(-phi, kind="stable"), kind="stable")
    return f(np.where(rank < np.arange(len(x) + 1)[:, None], x, hidden))


def misfit(outputs, phi):
    return np.sqrt(((outputs - phi.sum(axis=1)) ** 2).mean() / (outputs**2).mean())


def variance_held(labels, output):
    inside = [output[labels == group].var() for group in np.unique(labels)]
    return 1 - np.mean(inside) / output.var()


def medoids(values, labels):
    typical = []
    for group in range(labels.max() + 1):
        members = np.flatnonzero(labels == group)
        apart = values[members] - values[members].mean(axis=0)
        typical.append(members[np.linalg.norm(apart, axis=1).argmin()])
    return np.array(typical)


def individual_curves(f, X, i, grid):
    rows = np.tile(X, (len(grid), 1))
    rows[:, i] = np.repeat(grid, len(X))
    return f(rows).reshape(len(X), len(grid))


def pair_effect(f, X, i, j, low, high):
    before, after = X.copy(), X.copy()
    before[:, [i, j]] = low
    after[:, [i, j]] = high
    return f(after).mean() - f(before).mean()


def loss_scores(phi, y):
    return (phi * y[:, None]).mean(axis=0)


def share_found(scores, real):
    return real[np.argsort(scores)[: real.sum()]].mean()


def weight_beside(z, x, y):
    off = z - z.mean()
    return off @ (y - y.mean()) / (off @ off)


def count_pairs(time, died):
    return int((len(time) - np.searchsorted(np.sort(time), time, side="left"))[died].sum())


def path_credit(score, order):
    nobody = score(frozenset())
    return {symptom: score(frozenset([symptom])) - nobody for symptom in order}


def fair_credit(score, symptoms):
    everybody = frozenset(symptoms)
    credit = {}
    for symptom in symptoms:
        first = score(frozenset([symptom])) - score(frozenset())
        last = score(everybody) - score(everybody - {symptom})
        credit[symptom] = (first + last) / 2
    return credit


# -- practice


def cheaper(features, background, rounds):
    walked = rounds * 2 * (features - 1) * background
    return "enumeration" if 2**features * background <= walked else "orderings"


def share_of_error(found, truth):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(np.abs(found - truth) / np.abs(truth))


def visit_rng(entropy, row, visit):
    return np.random.default_rng(entropy + row + visit)


def merge(first, second):
    return (
        first[0] + second[0],
        (first[1] + second[1]) / 2,
        first[2] + second[2],
    )


# -- players


def keep_spaces(text, present):
    return " ".join(
        word if stays else "" for word, stays in zip(text.split(), present, strict=True)
    )


def alone(game, n):
    return game(np.eye(n, dtype=bool)) - game(np.zeros((1, n), dtype=bool))


def votes_lost(is_right, K):
    return np.where(np.arange(len(is_right)) < K, np.asarray(is_right) / K, 0.0)


def always_by_k(X, y, X_train, y_train, K):
    order = ((X[:, None] - X_train) ** 2).sum(axis=2).argsort(axis=1)

    def game(coalitions):
        payoffs = []
        for row, target in zip(order, y, strict=True):
            member = coalitions[:, row]
            mean = (member & (member.cumsum(axis=1) <= K)) @ y_train[row] / K
            payoffs.append(-((mean - target) ** 2))
        return np.stack(payoffs, axis=1)

    return game


def fill_by_four(picture, present, sweeps):
    filled = np.where(present, picture, picture[present].mean())
    for _ in range(sweeps):
        wide = np.pad(filled, 1)
        beside = wide[1:-1, 2:] + wide[1:-1, :-2] + wide[2:, 1:-1] + wide[:-2, 1:-1]
        filled = np.where(present, picture, beside / 4)
    return filled


def mean_of_means(picture, regions):
    means = np.array([picture[regions == region].mean() for region in range(regions.max() + 1)])
    return (means.sum() - means) / (len(means) - 1)


def remember_calls(game):
    known = {}

    def remembered(coalitions):
        keys = [S.tobytes() for S in coalitions]
        fresh = [place for place, key in enumerate(keys) if key not in known]
        if fresh:
            found = game(coalitions[fresh])
            known.update(zip([keys[place] for place in fresh], found, strict=True))
        return np.array([known[key] for key in keys])

    return remembered


def new_parts_alone(old, new, score):
    return lambda coalitions: np.array(
        [score([new[i] for i in np.flatnonzero(S)]) for S in coalitions]
    )


def context_kept(predict, X, y, query):
    return lambda coalitions: np.array(
        [predict(X, y, query[None, S])[0] if S.any() else y.mean() for S in coalitions]
    )


def unnormalised(X, y, queries, weights):
    return np.exp(-((queries[:, None] - X) ** 2 * weights).sum(axis=2)) @ y


WRONG = {
    "ex-matrix": shapley_matrix,
    "ex-count-votes": voting_power,
    "ex-one-call": one_call_game,
    "ex-same-rows": same_rows_game,
    "ex-walk": walk_both_ways,
    "ex-strata": stratified,
    "ex-constrained": constrained_fit,
    "ex-draw-pairs": draw_pairs,
    "ex-moebius": moebius,
    "ex-sii": sii,
    "ex-structures-owen": owen,
    "ex-structures-count": count_orderings,
    "ex-square-of-mean": square_of_mean,
    "ex-telescope": telescoped_loss,
    "ex-performance": performance,
    "ex-swap": swap_importance,
    "ex-mutual": mutual_information,
    "ex-given": given,
    "ex-tree-expectation": expectation,
    "ex-tree-means": saabas_by_means,
    "ex-tree-leaf": leaf_values,
    "ex-tree-values": tree_values,
    "ex-tree-against": leaf_against,
    "ex-tree-counted": counted_covers,
    "ex-tree-leaf-index": leaf_index,
    "ex-tree-meet": pairs_that_meet,
    "ex-tree-rescaled": rescaled,
    "ex-tree-cox": cox_terms,
    "ex-tree-ranks": ranks,
    "ex-tree-butterflies": butterflies,
    "ex-pair-transform": pair_transform,
    "ex-module-layer": module_layer,
    "ex-product-values": product_values,
    "ex-pair-matrix": pair_matrix,
    "ex-butterfly-pairs": butterfly_pairs,
    "ex-deep-values": deep_values,
    "ex-shrunk": shrunk,
    "ex-cut": cut,
    "ex-needed": needed_share,
    "ex-keep-share": keep_share,
    "ex-window-values": window_values,
    "ex-fold": fold,
    "ex-rescale-values": rescale_values,
    "ex-triple-product": triple_product,
    "ex-weighted-references": weighted_values,
    "ex-integrated": integrated,
    "ex-reveal": reveal,
    "ex-exact-unit": exact_unit,
    "ex-pass-back": pass_back,
    "ex-series": series,
    "ex-graph-multiplier": chord,
    "ex-graph-calls": count_calls,
    "ex-stepwise-blocks": block_values,
    "ex-dasp-moments": all_moments,
    "ex-dasp-relu": relu_mean,
    "ex-summary-largest": largest_for,
    "ex-summary-far": far_share,
    "ex-conformal": rank_of_last,
    "ex-evidence": evidence,
    "ex-keep-curve": keep_positive,
    "ex-misfit": misfit,
    "ex-clusters-held": variance_held,
    "ex-clusters-medoids": medoids,
    "ex-dependence-curves": individual_curves,
    "ex-dependence-pair": pair_effect,
    "ex-selection-score": loss_scores,
    "ex-selection-power": share_found,
    "ex-why-weight": weight_beside,
    "ex-why-pairs": count_pairs,
    "ex-people-path": path_credit,
    "ex-people-fair": fair_credit,
    "ex-which-cheaper": cheaper,
    "ex-which-error": share_of_error,
    "ex-visit-rng": visit_rng,
    "ex-merge": merge,
    "ex-words-literal": keep_spaces,
    "ex-regions-literal": fill_by_four,
    "ex-regions-sums": mean_of_means,
    "ex-words-without": alone,
    "ex-rows-alone": votes_lost,
    "ex-rows-regression": always_by_k,
    "ex-documents-remember": remember_calls,
    "ex-documents-versions": new_parts_alone,
    "ex-tables-reread": context_kept,
    "ex-tables-smoother": unnormalised,
}


@pytest.mark.parametrize("label", WRONG)
def test_a_typical_mistake_is_found(label, capsys):
    assert not shaplab_book.check(label, WRONG[label])
    told = capsys.readouterr().out
    assert told.startswith(f"{label}: not yet, for ")
    assert "it raised" not in told
