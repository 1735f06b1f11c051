r"""KernelSHAP: Shapley values as a weighted least squares fit of the game.

Among all additive functions :math:`v(\emptyset) + \sum_{i \in S} \varphi_i` that are right for
everybody, the Shapley values are closest to the game in

.. math:: \sum_{S \ne \emptyset, N} \mu(S) \Bigl(v(S) - v(\emptyset) - \sum_{i \in S}
   \varphi_i\Bigr)^2,
   \qquad \mu(S) = \frac{n - 1}{\binom{n}{|S|}\,|S|\,(n - |S|)}.

The efficiency constraint is kept exactly, by a Lagrange multiplier, and nothing is regularised.
Sizes that the budget covers are enumerated; of the others, coalitions are drawn together with their
complements. Source: Lundberg and Lee (2017); paired sampling, Covert and Lee (2021); leverage
scores, Musco and Witter (2025).
Cost: :math:`B` model rows a coalition; exact when all :math:`2^n - 2` are enumerated.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from shaplab._validation import check_choice, fail, resolve_rng
from shaplab.explanation import Explanation
from shaplab.foundations._walks import Tables, check_stop, spread_of, visit_generator
from shaplab.foundations.exact import shapley_coefficients
from shaplab.foundations.games import all_coalitions
from shaplab.foundations.permutation import each_row

__all__ = ["kernel_shap", "kernel_shap_literal"]

# Without a budget: enumerate everything up to this many coalitions, and draw at most this many.
ENUMERATE, DRAW = 512, 2**17
# Groups of draws behind the jackknife: between GROUPS and twice as many.
GROUPS = 16


def kernel_shap_literal(game: Callable[[np.ndarray], np.ndarray], n_players: int) -> np.ndarray:
    """Shapley values ``(n, *payoff)`` by one weighted regression over all coalitions, the last
    player eliminated."""
    n = n_players
    Z = np.array(
        [[(s >> i) & 1 for i in range(n)] for s in range(1, 2**n - 1)], dtype=bool
    ).reshape(-1, n)
    mu = np.array([(n - 1) / (comb(n, int(k)) * k * (n - k)) for k in Z.sum(axis=1)])
    none, everybody = game(np.array([[False] * n, [True] * n]))
    total = np.asarray(everybody - none)
    if n == 1:
        return total[None]
    # Efficiency gives phi_n = total - sum of the others, so each row regresses on differences to
    # player n.
    y = game(Z) - none - np.multiply.outer(Z[:, -1], total)
    D = Z[:, :-1].astype(float) - Z[:, -1:]
    others = np.linalg.solve(
        D.T @ (mu[:, None] * D), np.tensordot(D.T * mu, y, axes=1).reshape(n - 1, -1)
    )
    others = others.reshape(n - 1, *total.shape)
    return np.concatenate([others, (total - others.sum(axis=0))[None]])


def _mass(p: int, size: Any) -> Any:
    """Kernel weight of all coalitions of a size together, ``(p - 1) / (s (p - s))``."""
    return (p - 1) / (size * (p - size))


def _enumerated(p: int, budget: int | None) -> int:
    """How many of the smallest sizes, with their complements, to enumerate under a budget of
    coalitions."""
    if budget is None:
        budget = 2**p - 2 if 2**p - 2 <= ENUMERATE else 2 * p
    depth, left = 0, budget
    for k in range(1, p // 2 + 1):
        count = comb(p, k) * (1 if 2 * k == p else 2)
        sizes = np.arange(k, p - k + 1)
        share = (
            _mass(p, np.array([k, p - k][: 1 if 2 * k == p else 2])).sum() / _mass(p, sizes).sum()
        )
        # A size that would be drawn about as often as it has coalitions is cheaper to list;
        # singletons always are, since they alone make the regression solvable.
        if k > 1 and (count > left or (left * share < count and left < 2**p)):
            break
        depth, left = k, left - count
    return depth


def _all_of(p: int, depth: int) -> np.ndarray:
    """Coalitions of sizes 1 to ``depth`` and of their complements, each once."""
    Z = []
    for k in range(1, depth + 1):
        for members in combinations(range(p), k):
            row = np.zeros(p, dtype=bool)
            row[list(members)] = True
            Z += [row] if 2 * k == p else [row, ~row]
    return np.array(Z)


def _solve(A: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Weighted least squares ``(..., p, K)`` under the constraint that values sum to ``total``."""
    ones = np.ones((*A.shape[:-1], 1))
    both = np.linalg.solve(A, np.concatenate([b, ones], axis=-1))
    fit, direction = both[..., :-1], both[..., -1:]
    excess = fit.sum(axis=-2, keepdims=True) - total
    return fit - direction * excess / direction.sum(axis=-2, keepdims=True)


def _plan(p: int, each: int | None) -> tuple[int, int, int]:
    """Sizes to list for ``p`` players under a budget of coalitions, how many coalitions that is,
    and how many at least are needed with the draws."""
    depth = 0 if p <= 1 else _enumerated(p, each)
    listed = sum(comb(p, k) * (1 if 2 * k == p else 2) for k in range(1, depth + 1))
    return depth, listed, listed if 2 * depth + 1 >= p else listed + 4 * GROUPS


def _row(
    tables: Tables,
    row: int,
    each: int | None,
    leverage: bool,
    thresh: float,
    entropy: list[int],
) -> tuple[np.ndarray, np.ndarray, int, int, int, bool]:
    """Values, standard errors, coalitions used, groups, sizes listed and whether all, of one row.

    Only players that can matter for this row take part.
    """
    mine = np.flatnonzero(tables.able[row])
    p = len(mine)
    depth, listed, _ = _plan(p, each)
    values, std = np.zeros((2, tables.p, tables.K))
    total = tables.fx[row] - tables.fb.mean(axis=0)
    if p <= 1:
        values[mine] = total
        return values, std, 0, 2, 0, True

    def worth(S: np.ndarray) -> np.ndarray:
        present = np.zeros((len(S), tables.p), dtype=bool)
        present[:, mine] = S
        return tables.means(present, np.full(len(S), row))

    if 2 * depth + 1 >= p:
        values[mine], used = _listed(worth, p, tables.fb.mean(axis=0), total), listed
        return values, std, used, 2, depth, True
    draws = None if each is None else (each - listed) // 2
    fit = _Fit(tables, worth, p, depth, total)
    wanted = 1e-12 * max(tables.scale, 1e-300)
    size = max(p, 16) if draws is None else draws // GROUPS
    chance = np.ones(len(fit.sizes)) if leverage else _mass(p, fit.sizes)
    # Each turn of the loop draws; DRAW ends it.
    for group in range(DRAW):
        fit.draw(visit_generator(entropy, row, group), size, chance / chance.sum())
        if len(fit.A) < GROUPS:
            continue
        found, error = fit.solve()
        ratio = error.max() / max(thresh * float(spread_of(found[None])[0]), wanted)
        if draws is not None or ratio <= 1.0 or fit.used >= DRAW:
            break
        # What drawing still needs, as errors fall with the root; listing everything may be cheaper.
        if fit.used * (ratio**2 - 1.0) >= 2.0**p - 2:
            values[mine] = _listed(worth, p, tables.fb.mean(axis=0), total)
            return values, std, listed + fit.used + 2**p - 2, 2, p // 2, True
        fit.merge()
    values[mine], std[mine] = found, error
    return values, std, listed + fit.used, len(fit.A), depth, False


def _listed(
    worth: Callable[[np.ndarray], np.ndarray], p: int, low: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """The regression over all coalitions, which is exact: Shapley values ``(p, K)``."""
    values = np.zeros((p, len(total)))
    for start in range(0, 2**p, 2**12):
        S = all_coalitions(p, start, min(start + 2**12, 2**p))
        everybody = np.asarray(S.all(axis=1))
        inside = S.any(axis=1) & ~everybody
        game = np.where(everybody[:, None], total, 0.0)
        game[inside] = worth(S[inside]) - low
        values += shapley_coefficients(S) @ game
    return values


class _Fit:
    """The regression of one row: what is listed, and groups of draws for the jackknife."""

    def __init__(
        self,
        tables: Tables,
        worth: Callable[[np.ndarray], np.ndarray],
        p: int,
        depth: int,
        total: np.ndarray,
    ) -> None:
        self.worth, self.p, self.total = worth, p, total
        self.low = tables.fb.mean(axis=0)
        Z = _all_of(p, depth)
        k = Z.sum(axis=1)
        w = _mass(p, k) / np.array([comb(p, int(size)) for size in k])
        self.A0 = (Z.T * w) @ Z.astype(float)
        self.b0 = (Z.T * w) @ (worth(Z) - self.low)
        self.sizes = np.arange(depth + 1, p - depth)
        self.A, self.b, self.used = np.empty((0, p, p)), np.empty((0, p, tables.K)), 0
        self.width = 1

    def draw(self, rng: np.random.Generator, size: int, chance: np.ndarray) -> None:
        """Add one group of draws, each with its complement."""
        p = self.p
        pick = rng.choice(len(self.sizes), size=size * self.width, p=chance)
        rank = rng.random((len(pick), p)).argsort(axis=1).argsort(axis=1)
        half = rank < self.sizes[pick][:, None]
        pair = np.concatenate([half, ~half])
        weight = _mass(p, self.sizes) / chance
        w = np.tile(weight[pick], 2) / len(pair)
        self.A = np.concatenate([self.A, ((pair.T * w) @ pair.astype(float))[None]])
        right = (pair.T * w) @ (self.worth(pair) - self.low)
        self.b = np.concatenate([self.b, right[None]])
        self.used += len(pair)

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Values and jackknife errors ``(p, K)``."""
        A, b, rest = self.A, self.b, len(self.A) - 1
        values = _solve(self.A0 + A.mean(axis=0), self.b0 + b.mean(axis=0), self.total)
        left = _solve(
            self.A0 + (A.sum(axis=0) - A) / rest, self.b0 + (b.sum(axis=0) - b) / rest, self.total
        )
        return values, np.sqrt(rest / len(A) * ((left - left.mean(axis=0)) ** 2).sum(axis=0))

    def merge(self) -> None:
        """Halve the groups when they get many: their draws double."""
        if len(self.A) == 2 * GROUPS:
            self.A, self.b = (self.A[::2] + self.A[1::2]) / 2, (self.b[::2] + self.b[1::2]) / 2
            self.width *= 2


def kernel_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    groups: Any = None,
    sampling: str = "kernel",
    thresh: float = 0.02,
    max_evaluations: int | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 16384,
    feature_names: Any = None,
) -> Explanation:
    """Shapley values of any model by KernelSHAP, with standard errors.

    Parameters
    ----------
    model, X, background, groups, rng, n_jobs, batch_size, feature_names : as in
        :func:`shaplab.foundations.permutation.permutation_shap`.
    sampling : ``"kernel"`` draws coalition sizes in proportion to their kernel weight,
        ``"leverage"`` draws all sizes equally often (each coalition in proportion to ``1 / C(n,
        |S|)``) and reweights.
    thresh : float, without a budget, stop a row when its largest standard error is below this share
        of the spread of its values (largest minus smallest, zero included).
    max_evaluations : int, budget in model rows for the whole call, shared equally by the rows.

    Returns
    -------
    Explanation
        ``values`` ``(N, d[, K])`` in the model's unit. ``info`` holds ``evaluations``, the
        ``coalitions`` of each row, ``enumerated_sizes`` (coalitions of that many players or fewer,
        and their complements, were all used), ``exact`` (then ``std`` is None), and ``converged``,
        whether ``thresh`` was reached. After an exception finished rows are in its attribute
        ``partial``; after Ctrl-C they are returned, ``info["rows"]`` says which.

    Notes
    -----
    Estimates the marginal game; values sum exactly to the prediction. Without a budget all
    coalitions are enumerated for up to 9 players that can matter for a row, and for more of them
    where drawing would cost more, which is exact. Players whose columns are equal in the row and
    all references take no part. The standard error is a jackknife over groups of draws: the
    estimator is a ratio, so the spread of the responses alone would not do. Its bias falls as one
    over the draws, faster than its standard error. Cost: ``B`` model rows a coalition and explained
    row.

    References
    ----------
    Lundberg and Lee (2017), Theorem 2; Covert and Lee (2021); Musco and Witter (2025).

    Examples
    --------
    >>> found = kernel_shap(lambda X: X[:, 0] * X[:, 1], np.ones((1, 2)), np.zeros((1, 2)))
    >>> found.values.round(12), found.info["exact"]
    (array([[0.5, 0.5]]), True)
    """
    leverage = check_choice(sampling, "sampling", ("kernel", "leverage")) == "leverage"
    _, thresh, budget = check_stop(None, thresh, max_evaluations)
    tables = Tables(model, X, background, groups, batch_size, feature_names)
    unit = tables.n * tables.size
    each = None if budget is None else max(0, budget - tables.evaluations) // unit
    if each is not None:
        need = max(_plan(int(p), each)[2] for p in np.unique(tables.able.sum(axis=1)))
        if each < need:
            fail(
                "max_evaluations",
                f"at least {tables.evaluations + need * unit} model rows "
                f"({need} coalitions for each of {tables.n} rows over {tables.size} "
                f"background rows)",
                str(budget),
                "Raise the budget, explain fewer rows, or use a smaller background",
            )
    entropy = [int(word) for word in resolve_rng(rng).integers(0, 2**63, size=2)]

    def result(rows: np.ndarray, found: list[Any]) -> Explanation:
        values, std, used, made, depth, exact = (
            np.stack(part) for part in zip(*found, strict=True)
        )
        base = np.broadcast_to(tables.fb.mean(axis=0), (len(rows), tables.K))
        wanted = np.maximum(thresh * spread_of(values), 1e-12 * max(tables.scale, 1e-300))
        info = {
            "evaluations": int(tables.evaluations + used.sum() * tables.size),
            "coalitions": used,
            "rounds": made,
            "enumerated_sizes": int(depth.min()),
            "exact": bool(exact.all()),
            "converged": bool((std.max(axis=(1, 2)) <= wanted).all()),
        }
        name = "kernel_shap (marginal game, " + (
            "enumerated: exact)" if exact.all() else f"{sampling} draws, paired)"
        )
        return tables.explanation(values, None if exact.all() else std, base, name, info, rows)

    return each_row(tables, _row, (each, leverage, thresh, entropy), n_jobs, result)
