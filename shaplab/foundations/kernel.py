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
from typing import Any, NamedTuple

import numpy as np

from shaplab._units import unit_near
from shaplab._validation import check_choice, fail
from shaplab.explanation import Explanation
from shaplab.foundations._evaluate import COALITIONS, Evaluator
from shaplab.foundations._sampling import (
    Budget,
    draw_entropy,
    explain_each_row,
    visit_generator,
)
from shaplab.foundations.exact import shapley_coefficients
from shaplab.foundations.games import all_coalitions

__all__ = ["kernel_shap", "kernel_shap_literal"]

# Without a budget: enumerate everything up to this many coalitions, and draw at most this many.
ENUMERATE = 512
# Coalitions for each player but one that permutation_shap asks for at least, with 16 background
# rows and more: four rounds of two orderings there and back.
WALKED = 16
DRAW = 2**17
# Groups of draws behind the jackknife: between GROUPS and twice as many; fewer say nothing.
GROUPS = 16


def kernel_shap_literal(game: Callable[[np.ndarray], np.ndarray], n_players: int) -> np.ndarray:
    """Shapley values ``(n, *payoff)`` by one weighted regression over all coalitions, the last
    player eliminated."""
    n = n_players
    members = [[(s >> i) & 1 for i in range(n)] for s in range(1, 2**n - 1)]
    Z = np.array(members, dtype=bool).reshape(-1, n)
    mu = np.array([(n - 1) / (comb(n, int(size)) * size * (n - size)) for size in Z.sum(axis=1)])
    none, everybody = game(np.array([[False] * n, [True] * n]))
    total = np.asarray(everybody - none)
    if n == 1:
        return total[None]
    # Efficiency gives phi_n = total - sum of the others, so each row regresses on differences to
    # player n.
    y = game(Z) - none - np.multiply.outer(Z[:, -1], total)
    D = Z[:, :-1].astype(float) - Z[:, -1:]
    right = np.tensordot(D.T * mu, y, axes=1)
    others = np.linalg.solve(D.T @ (mu[:, None] * D), right.reshape(n - 1, -1))
    others = others.reshape(n - 1, *total.shape)
    return np.concatenate([others, (total - others.sum(axis=0))[None]])


class KernelPlan(NamedTuple):
    """How the coalitions of ``p`` players are used: those of sizes up to ``depth`` are listed with
    their complements, ``listed`` of them: the fewest that a budget may have."""

    depth: int
    listed: int
    is_complete: bool


def _plan(p: int, budget: int | None) -> KernelPlan:
    """The plan for ``p`` players under a budget of coalitions."""
    depth = 0 if p <= 1 else _listed_sizes(p, budget)
    listed = sum(_count_of_size(p, size) for size in range(1, depth + 1))
    is_complete = 2 * depth + 1 >= p
    return KernelPlan(depth, listed, is_complete)


def _listed_sizes(p: int, budget: int | None) -> int:
    """How many of the smallest sizes, with their complements, to list under a budget of
    coalitions."""
    if budget is None:
        everything = 2**p - 2
        budget = everything if everything <= ENUMERATE else 2 * p
    depth = 0
    left = budget
    for size in range(1, p // 2 + 1):
        count = _count_of_size(p, size)
        these = np.unique([size, p - size])
        all_left = np.arange(size, p - size + 1)
        share = _mass(p, these).sum() / _mass(p, all_left).sum()
        # A size that would be drawn about as often as it has coalitions is cheaper to list;
        # singletons always are, since they alone make the regression solvable. Groups of draws that
        # tell the error come first, unless everything can be listed.
        drawn_less_often = left * share < count and left < 2**p
        leaves_no_draws = left < 2**p and left - count < 2 * GROUPS and budget < 2**p - 2
        if size > 1 and (count > left or drawn_less_often or leaves_no_draws):
            break
        depth = size
        left -= count
    return depth


def _count_of_size(p: int, size: int) -> int:
    """Coalitions of this size and their complements; at half of the players these are the same."""
    return comb(p, size) if 2 * size == p else 2 * comb(p, size)


def _mass(p: int, size: Any) -> Any:
    """Kernel weight of all coalitions of a size together, ``(p - 1) / (s (p - s))``."""
    return (p - 1) / (size * (p - size))


def _list_coalitions(p: int, depth: int) -> np.ndarray:
    """Coalitions of sizes 1 to ``depth`` and of their complements, each once."""
    listed = []
    for size in range(1, depth + 1):
        for members in combinations(range(p), size):
            coalition = np.zeros(p, dtype=bool)
            coalition[list(members)] = True
            listed.append(coalition)
            if 2 * size != p:
                listed.append(~coalition)
    return np.array(listed)


class RowGame:
    """The marginal game of one row, for the players that can matter for it."""

    def __init__(self, evaluator: Evaluator, row: int) -> None:
        self.evaluator = evaluator
        self.row = row
        self.members = np.flatnonzero(evaluator.matters[row])
        self.n_players = len(self.members)
        self.nobody = evaluator.nobody
        self.total = evaluator.row_outputs[row] - self.nobody

    def gains(self, coalitions: np.ndarray) -> np.ndarray:
        """What coalitions ``(m, p)`` are worth beyond the empty one, ``(m, K)``."""
        present = np.zeros((len(coalitions), self.evaluator.n_active), dtype=bool)
        present[:, self.members] = coalitions
        rows = np.full(len(coalitions), self.row)
        return self.evaluator.means(present, rows) - self.nobody

    def exact_values(self) -> np.ndarray:
        """The regression over all coalitions, which is exact: Shapley values ``(p, K)``."""
        p = self.n_players
        values = np.zeros((p, len(self.total)))
        for start in range(0, 2**p, COALITIONS):
            coalitions = all_coalitions(p, start, min(start + COALITIONS, 2**p))
            everybody = np.asarray(coalitions.all(axis=1))
            inside = coalitions.any(axis=1) & ~everybody
            gains = np.where(everybody[:, None], self.total, 0.0)
            gains[inside] = self.gains(coalitions[inside])
            values += shapley_coefficients(coalitions) @ gains
        return values


class Regression:
    """The regression of one row: what is listed, and groups of draws for the jackknife.

    Each part is kept as its share of the normal equations, ``matrix @ values = right``.
    """

    def __init__(self, game: RowGame, depth: int, leverage: bool) -> None:
        self.game = game
        p = game.n_players
        listed = _list_coalitions(p, depth)
        size = listed.sum(axis=1)
        each = _mass(p, size) / np.array([comb(p, int(members)) for members in size])
        self.listed_matrix = (listed.T * each) @ listed.astype(float)
        self.listed_right = (listed.T * each) @ game.gains(listed)
        self.sizes = np.arange(depth + 1, p - depth)
        chance = np.ones(len(self.sizes)) if leverage else _mass(p, self.sizes)
        self.chance = chance / chance.sum()
        self.matrices = np.empty((0, p, p))
        self.rights = np.empty((0, p, len(game.total)))
        self.used = 0
        # Groups are merged two by two: how many of the first ones the next draws are worth.
        self.width = 1

    @property
    def n_groups(self) -> int:
        return len(self.matrices)

    def draw(self, rng: np.random.Generator, pairs: int) -> None:
        """Add one group of so many draws, each with its complement."""
        p = self.game.n_players
        picked = rng.choice(len(self.sizes), size=pairs * self.width, p=self.chance)
        rank = rng.random((len(picked), p)).argsort(axis=1).argsort(axis=1)
        half = rank < self.sizes[picked][:, None]
        drawn = np.concatenate([half, ~half])
        weight = _mass(p, self.sizes) / self.chance
        each = np.tile(weight[picked], 2) / len(drawn)
        matrix = (drawn.T * each) @ drawn.astype(float)
        right = (drawn.T * each) @ self.game.gains(drawn)
        self.matrices = np.concatenate([self.matrices, matrix[None]])
        self.rights = np.concatenate([self.rights, right[None]])
        self.used += len(drawn)

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Values and jackknife errors ``(p, K)``; NaN where there are no draws to tell them."""
        if self.n_groups == 0:
            values = self._values(np.zeros((1, 1)), np.zeros((1, 1)))
            return values, np.full(values.shape, np.nan)
        values = self._values(self.matrices.mean(axis=0), self.rights.mean(axis=0))
        rest = self.n_groups - 1
        without_one = self._values(
            (self.matrices.sum(axis=0) - self.matrices) / rest,
            (self.rights.sum(axis=0) - self.rights) / rest,
        )
        away = without_one - without_one.mean(axis=0)
        unit = unit_near(away)
        squares = ((away / unit) ** 2).sum(axis=0)
        return values, unit * np.sqrt(rest / self.n_groups * squares)

    def _values(self, drawn_matrix: np.ndarray, drawn_right: np.ndarray) -> np.ndarray:
        """Weighted least squares ``(..., p, K)`` under the constraint that values sum to the
        total."""
        matrix = self.listed_matrix + drawn_matrix
        right = self.listed_right + drawn_right
        ones = np.ones((*matrix.shape[:-1], 1))
        solved = np.linalg.solve(matrix, np.concatenate([right, ones], axis=-1))
        free = solved[..., :-1]
        # The Lagrange multiplier's direction: what a change of the sum does to the values.
        direction = solved[..., -1:]
        excess = free.sum(axis=-2, keepdims=True) - self.game.total
        return free - direction * excess / direction.sum(axis=-2, keepdims=True)

    def merge(self) -> None:
        """Halve the groups when they get many: their draws double."""
        if self.n_groups == 2 * GROUPS:
            self.matrices = (self.matrices[::2] + self.matrices[1::2]) / 2
            self.rights = (self.rights[::2] + self.rights[1::2]) / 2
            self.width *= 2


class KernelRow(NamedTuple):
    """What KernelSHAP finds for a row: values and standard errors ``(p, K)``, coalitions used,
    groups of draws, and the sizes that were listed."""

    values: np.ndarray
    std: np.ndarray
    coalitions: int
    groups: int
    depth: int
    is_exact: bool


def _kernel_row(
    evaluator: Evaluator,
    row: int,
    each: int | None,
    leverage: bool,
    to_precision: bool,
    budget: Budget,
    entropy: list[int],
) -> KernelRow:
    """One row under a budget of coalitions ``each``, or until it is precise enough.

    Only players that can matter for this row take part.
    """
    game = RowGame(evaluator, row)
    if each is None and not to_precision and 2**game.n_players - 2 > ENUMERATE:
        repeats = -(-16 // evaluator.n_references)
        each = WALKED * repeats * (game.n_players - 1)
    plan = _plan(game.n_players, each)
    values, std = np.zeros((2, evaluator.n_active, evaluator.n_outputs))
    if game.n_players <= 1:
        values[game.members] = game.total
        return KernelRow(values, std, 0, 2, 0, True)
    if plan.is_complete:
        values[game.members] = game.exact_values()
        return KernelRow(values, std, plan.listed, 2, plan.depth, True)
    regression = Regression(game, plan.depth, leverage)
    if each is None:
        pairs = max(game.n_players, 16)
    else:
        pairs = (each - plan.listed) // 2 // GROUPS
    if pairs == 0:
        values[game.members], std[game.members] = regression.solve()
        return KernelRow(values, std, plan.listed, 1, plan.depth, False)
    # Each turn of the loop draws; DRAW ends it.
    for group in range(DRAW):
        regression.draw(visit_generator(entropy, row, group), pairs)
        if regression.n_groups < GROUPS:
            continue
        estimate, error = regression.solve()
        allowed = budget.allowed_error(estimate[None], evaluator.scale)
        ratio = error.max() / float(allowed[0])
        if each is not None or ratio <= 1.0 or regression.used >= DRAW:
            break
        # What drawing still needs, as errors fall with the root; listing everything may be cheaper.
        everything = 2.0**game.n_players - 2
        if regression.used * (ratio**2 - 1.0) >= everything:
            values[game.members] = game.exact_values()
            used = plan.listed + regression.used + 2**game.n_players - 2
            return KernelRow(values, std, used, 2, game.n_players // 2, True)
        regression.merge()
    values[game.members] = estimate
    std[game.members] = error
    used = plan.listed + regression.used
    return KernelRow(values, std, used, regression.n_groups, plan.depth, False)


def kernel_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    groups: Any = None,
    unions: Any = None,
    order: Any = None,
    weights: Any = None,
    sampling: str = "kernel",
    thresh: float | None = None,
    max_evaluations: int | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 16384,
    progress: bool = False,
    feature_names: Any = None,
) -> Explanation:
    """Shapley values of any model by KernelSHAP, with standard errors.

    Parameters
    ----------
    model, X, background, groups, weights, rng, n_jobs, batch_size, feature_names : as in
        :func:`shaplab.foundations.permutation.permutation_shap`.
    unions, order : None. The regression knows no structure; ``permutation_shap`` does.
    sampling : ``"kernel"`` draws coalition sizes in proportion to their kernel weight,
        ``"leverage"`` draws all sizes equally often (each coalition in proportion to ``1 / C(n,
        |S|)``) and reweights.
    thresh : float, without a budget, draw until a row's largest standard error is below this share
        of the spread of its values (largest minus smallest, zero included), such as 0.02. None: no
        more model rows than ``permutation_shap`` takes at least, ``16 (d - 1)`` coalitions (more
        for fewer than 16 background rows); the standard errors say how precise that is.
    max_evaluations : int, budget in model rows for the whole call, shared equally by the rows; at
        least ``2 d B`` for each. Coalitions of one player and of all but one come first; while
        fewer than 32 can be drawn besides, none are, and standard errors are NaN.
    progress : bool, show a bar of explained rows.

    Returns
    -------
    Explanation
        ``values`` ``(N, d[, K])`` in the model's unit. ``info`` holds ``evaluations``, the
        ``coalitions`` of each row, ``enumerated_sizes`` (coalitions of that many players or fewer,
        and their complements, were all used), ``exact`` (then ``std`` is None), and ``converged``,
        whether ``thresh`` was reached (0.02 if it is None). After an exception finished rows are in
        its attribute ``partial``; after Ctrl-C they are returned, ``info["rows"]`` says which.

    Notes
    -----
    Estimates the marginal game; values sum exactly to the prediction. Without a budget all
    coalitions are enumerated for up to 9 players that can matter for a row, and with ``thresh`` for
    more of them where drawing would cost more, which is exact. Players whose columns are equal in
    the row and all references take no part. The standard error is a jackknife over groups of
    draws: the estimator is a ratio, so the spread of the responses alone would not do. Its bias
    falls as one over the draws, faster than its standard error. Cost: ``B`` model rows a coalition
    and explained row.

    References
    ----------
    Lundberg and Lee (2017), Theorem 2; Covert and Lee (2021); Musco and Witter (2025).

    Examples
    --------
    >>> found = kernel_shap(lambda X: X[:, 0] * X[:, 1], np.ones((1, 2)), np.zeros((1, 2)))
    >>> found.values.round(12), found.info["exact"]
    (array([[0.5, 0.5]]), True)
    """
    for argument, structure in (("unions", unions), ("order", order)):
        if structure is not None:
            remedy = "Use permutation_shap, or exact_shap for few players"
            fail(argument, "None, as a regression fits all orderings", structure, remedy)
    leverage = check_choice(sampling, "sampling", ("kernel", "leverage")) == "leverage"
    to_precision = thresh is not None
    budget = Budget(thresh=0.02 if thresh is None else thresh, max_evaluations=max_evaluations)
    evaluator = Evaluator(model, X, background, groups, batch_size, feature_names, weights)
    each = _coalitions_for_each_row(evaluator, budget)

    def result(rows: np.ndarray, done: list[KernelRow]) -> Explanation:
        values = np.stack([part.values for part in done])
        std = np.stack([part.std for part in done])
        coalitions = np.array([part.coalitions for part in done])
        is_exact = all(part.is_exact for part in done)
        allowed = budget.allowed_error(values, evaluator.scale)
        info = {
            "evaluations": int(evaluator.evaluations + coalitions.sum() * evaluator.n_references),
            "coalitions": coalitions,
            "rounds": np.array([part.groups for part in done]),
            "enumerated_sizes": min(part.depth for part in done),
            "exact": is_exact,
            "converged": bool((std.max(axis=(1, 2)) <= allowed).all()),
        }
        how = "enumerated: exact" if is_exact else f"{sampling} draws, paired"
        return evaluator.explanation(
            values, None if is_exact else std, f"kernel_shap (marginal game, {how})", info, rows
        )

    settings = (each, leverage, to_precision, budget, draw_entropy(rng))
    return explain_each_row(evaluator, _kernel_row, settings, n_jobs, result, progress)


def _coalitions_for_each_row(evaluator: Evaluator, budget: Budget) -> int | None:
    """What a budget of model rows leaves to each row; None without one."""
    if budget.max_evaluations is None:
        return None
    one_for_all = evaluator.n_rows * evaluator.n_references
    each = max(0, budget.max_evaluations - evaluator.evaluations) // one_for_all
    counts = np.unique(evaluator.matters.sum(axis=1))
    least = max(_plan(int(count), each).listed for count in counts)
    if each < least:
        fail(
            "max_evaluations",
            f"at least {evaluator.evaluations + least * one_for_all} model rows "
            f"({least} coalitions for each of {evaluator.n_rows} rows over "
            f"{evaluator.n_references} background rows)",
            str(budget.max_evaluations),
            "Raise the budget, explain fewer rows, or use a smaller background",
        )
    return each
