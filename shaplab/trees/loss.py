"""Explaining a loss: three games with three names, and output transforms as a loss without a
target.

- ``"loss_of_mean"``: v(S) is the loss of the mean output over background rows; SAGE's game.
- ``"mean_of_loss"``: v(S) is the mean over background rows of the loss of the output.
- ``"rescaled_margin"``: no game but the source's approximation (Methods 10.2): the Shapley values
  of the raw output against each single reference, times (change of the loss) / (change of the
  output), averaged.

The loss of a sum of trees is not a sum over trees, so no tree algorithm computes the first two:
they are exact here by all 2^M coalitions of the M features that the model splits on.
``mean_of_loss`` averages one game for each reference, in which features that reach the same codes
in both rows are idle.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from shaplab._losses import Loss, check_target, get_loss, secant
from shaplab._parallel import chunks, progress_bar
from shaplab._remedies import sampled_call
from shaplab._tables import as_rows
from shaplab._validation import check_choice, check_frames, check_int, fail, row_labels
from shaplab.explanation import Explanation
from shaplab.foundations._structure import Unions, steps_of, sum_of_steps
from shaplab.trees._families import interventional_plan
from shaplab.trees._links import (
    SAME,
    SOFTMAX,
    Change,
    prediction,
    probability,
    scaled_logistic,
)
from shaplab.trees._paths import Paths
from shaplab.trees._plans import Jobs, threads
from shaplab.trees._players import Players, players_of, restricted_unions
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interventional import interventional_tree_shap
from shaplab.trees.kernels.patterns import coalition_outputs

__all__ = ["cox_loss", "tree_loss_shap", "tree_output_shap"]

GAMES = ("loss_of_mean", "mean_of_loss", "rescaled_margin")
_CELLS = 2**22
_NUMBERS = ("identity", "exp", "isolation")  # links of models without probabilities
_PLAYERS = 20  # a million coalitions for each pair of a row and a reference


def cox_loss(margin: Any, y: Any) -> Loss:
    """Cox's partial likelihood as a loss of each row's own log-hazard, the other rows staying as
    they are.

    For a row that dies at its time, ``-log(exp(f) / (exp(f) + sum of exp(margin) of the others
    still at risk))``; 0 for censored rows, whose own term is not in the likelihood. Ties as
    Breslow: equal times are at risk. The loss takes the row number in place of the target.

    Parameters
    ----------
    margin : ``(N,)`` log-hazards that the model gives the rows.
    y : ``(N,)`` times, negative when censored (XGBoost's convention).
    """
    margin, y = np.asarray(margin, np.float64), np.asarray(y, np.float64)
    time = np.abs(y)
    died = (y > 0).astype(float)
    order = np.argsort(-time, kind="stable")
    top = margin.max()
    weight = np.exp(margin - top)
    at_risk = np.cumsum(weight[order])
    last = np.searchsorted(-time[order], -time, side="right") - 1
    with np.errstate(divide="ignore"):
        others = np.log(np.maximum(at_risk[last] - weight, 0.0)) + top

    def value(output: np.ndarray, row: np.ndarray) -> np.ndarray:
        return died[row] * (np.logaddexp(output, others[row]) - output)

    def slope(output: np.ndarray, row: np.ndarray) -> np.ndarray:
        return died[row] * (np.exp(output - np.logaddexp(output, others[row])) - 1.0)

    return Loss("cox", value, slope)


def tree_loss_shap(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any,
    game: str = "mean_of_loss",
    n_jobs: int | None = 1,
    max_players: int = 14,
    progress: bool = False,
    groups: Any = None,
    unions: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """Attribute each row's loss to features.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM, CatBoost or scikit-learn tree model, or a ``TreeEnsemble``;
        its raw output enters the loss.
    X : rows ``(N, d)``.
    y : targets ``(N,)``; class indices for class losses; for "cox" times, negative when censored.
    background : rows ``(R, d)``, all of them used.
    loss : "squared_error" (of the library's own prediction), "logistic" (of log-odds),
        "softmax_cross_entropy" (of K logits), "cross_entropy" (of probabilities, those behind
        log-odds and logits included), "cox" (of log-hazards), or a callable ``(output, y)`` of the
        raw output. A name that does not suit what the model gives is refused.
    game : "loss_of_mean", "mean_of_loss" or "rescaled_margin".
    n_jobs : threads, for "rescaled_margin".
    max_players : most features or groups that may be enumerated, at most 20; cost is
        N R (leaves + M 2^M).
    progress : show a bar.
    groups, unions : as in ``tree_shap``.
    feature_names : ``(d,)`` names of the features; by default the model's, else those of ``X``.

    Returns
    -------
    Explanation, values ``(N, d)``, or ``(N, n_groups)``, in units of the loss; base value: the loss
    without any feature.

    Notes
    -----
    "loss_of_mean" and "mean_of_loss" are exact for their games. "rescaled_margin" adds up exactly
    to the mean change of the loss but is an approximation of "mean_of_loss"; it needs one output.
    Where output and reference agree the loss's slope is the factor.

    References
    ----------
    Lundberg et al. 2020, Methods 10.2; Covert et al. 2020 for the loss of the mean.

    Examples
    --------
    >>> tree_loss_shap(model, X, y, X_train[:100], loss="logistic").values.shape  # doctest: +SKIP
    (200, 8)
    """
    e, X = as_ensemble(model), as_rows(X, "X")
    codes = e.encode(X)
    check_frames(X, background)
    call = (
        f"loss_shap({sampled_call(model, e.link not in _NUMBERS)}, X, y, background, loss={loss!r})"
    )
    if isinstance(loss, str) and loss == "cox":
        target = check_target(y, len(codes), get_loss("squared_error"))
        if e.has_outputs or (target == 0).any():
            fail(
                "y",
                "times that are not 0 and one output",
                "a time of 0 or several outputs",
                "Drop rows at time 0",
            )
        if e.link and e.objective not in ("survival:cox", "Cox"):
            _misfit(e, "cox")
        priced = Priced(SAME, cox_loss(e.predict_codes(codes)[:, 0], target))
        target = np.arange(len(codes))
    else:
        several = e.n_outputs if e.has_outputs else None
        resolved = get_loss(loss).for_outputs(several)
        target = check_target(y, len(codes), resolved, several)
        priced = Priced(SAME, resolved)
        if isinstance(loss, str):
            priced = _on_raw(e, resolved)
    question = Question(
        game, max_players, n_jobs, progress, f"tree_loss_shap ({priced.loss.name}, {game})", call
    )
    players = players_of(e, groups, e.names_for(X, feature_names), unions)
    explained = _explain(e, players, codes, target, background, priced, question)
    return replace(
        explained, data=players.shown(X), feature_names=players.names, index=row_labels(X)
    )


class Question(NamedTuple):
    """Which game is asked for, how it may be computed, and ``instead``, the call that works where
    no game here can be computed."""

    game: str
    max_players: int
    n_jobs: int | None
    progress: bool
    method: str
    instead: str


class Priced(NamedTuple):
    """A loss of raw outputs; "loss_of_mean" averages ``change`` of them and takes ``mean_loss``."""

    change: Change
    loss: Loss
    mean_loss: Loss | None = None


# What the raw output is, and which losses suit it.
_OUTPUTS = {
    "identity": ("numbers", "'squared_error'"),
    "probability": ("probabilities", "'cross_entropy'"),
    "probabilities": ("probabilities of several targets", "a function (output, y)"),
    "log-odds": ("log-odds", "'logistic' or 'cross_entropy'"),
    "logistic": ("log-odds", "'logistic' or 'cross_entropy'"),
    "softmax": ("logits", "'softmax_cross_entropy' or 'cross_entropy'"),
    "exp": ("logarithms of predictions", "'squared_error', which takes the prediction"),
}


def _misfit(e: TreeEnsemble, loss: str, more: str = "") -> NoReturn:
    what, remedy = _OUTPUTS.get(e.link, ("of another kind", "'squared_error'"))
    if e.link == "logistic" and e.has_outputs:
        what = "log-odds of several yes-or-no questions"
        remedy = "a function (outputs, y)"
    fail(
        "loss",
        f"a loss of this model's outputs, which are {what} (objective {e.objective!r})",
        f"{loss!r}{more}",
        f"Use {remedy}; a function gets the raw output. If the objective is your own, say what the "
        "output is: TreeEnsemble.from_model(model, link='logistic')",
    )


def _on_raw(e: TreeEnsemble, loss: Loss) -> Priced:
    """A loss by name as a loss of the raw output, or an error where the two do not fit."""
    link = e.link
    factor = e.link_factor
    margins = link in ("logistic", "log-odds") and not e.has_outputs
    scaled = Change(lambda raw: factor * raw, lambda raw: np.full_like(raw, factor))
    if link == "" or (loss.name == "softmax_cross_entropy" and link == "softmax"):
        return Priced(SAME, loss)
    if loss.name == "logistic" and margins:
        return Priced(scaled, _composed(loss, scaled), loss)
    if loss.name == "cross_entropy":
        if link == "probability":
            return Priced(SAME, loss)
        if link == "identity" and not e.has_outputs:  # such as a forest that regresses 0 and 1
            low, high = _reach(e)
            if low >= -1e-9 and high <= 1 + 1e-9:
                return Priced(SAME, loss)
            _misfit(e, loss.name, f" with outputs from {low:.3g} to {high:.3g}")
        # The cross entropy of a margin's probability, in a form that keeps its digits.
        if margins:
            stable = replace(_composed(get_loss("logistic"), scaled), name=loss.name)
            return Priced(scaled_logistic(factor), stable, loss)
        if link == "softmax":
            stable = replace(get_loss("softmax_cross_entropy"), name=loss.name)
            return Priced(SOFTMAX, stable, loss)
    change = prediction(link, factor)
    if loss.name == "squared_error" and change is not None:
        return Priced(change, loss if change is SAME else _composed(loss, change), loss)
    _misfit(e, loss.name)


def _reach(e: TreeEnsemble) -> tuple[float, float]:
    """Bounds of a single output: each tree at its smallest and at its largest leaf."""
    bounds = []
    for extreme, none in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        leaves = np.where(e.feature < 0, e.value[:, 0], none)
        bounds.append(
            e.base[0] + extreme.reduceat(leaves, e.roots).sum() if e.n_trees else e.base[0]
        )
    return float(bounds[0]), float(bounds[1])


def _composed(loss: Loss, change: Change) -> Loss:
    """The loss of a changed output as a loss of the output."""
    outer = loss.slope
    inner = change.slope

    def value(raw: np.ndarray, y: np.ndarray) -> np.ndarray:
        return loss.value(change.value(raw), y)

    if outer is None or inner is None:
        return Loss(loss.name, value, None)
    return Loss(loss.name, value, lambda raw, y: outer(change.value(raw), y) * inner(raw))


def tree_output_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    transform: Any = "probability",
    game: str = "mean_of_loss",
    n_jobs: int | None = 1,
    max_players: int = 14,
    progress: bool = False,
    groups: Any = None,
    unions: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """Attribute a transformed output, such as the probability behind a margin.

    Parameters
    ----------
    model, X, background, n_jobs, max_players, progress, groups, unions, feature_names
        As in ``tree_loss_shap``.
    transform : "probability" (that which the library's ``predict_proba`` gives; of an ensemble made
        by hand without a link, the logistic function of one output or the softmax of several),
        "prediction" (the library's own ``predict`` where that is no probability, such as the rate
        of a Poisson model), "exp", or a callable of the raw output ``(..., N)`` or ``(..., N, K)``
        that keeps its shape.
    game : "mean_of_loss" averages the transformed output over the background, "loss_of_mean"
        transforms the average, "rescaled_margin" is the source's approximation of the former (one
        output only).

    Returns
    -------
    Explanation, values ``(N, d[, K])`` in units of the transformed output.

    References
    ----------
    Lundberg et al. 2020, Methods 10.2.

    Examples
    --------
    >>> tree_output_shap(model, X, X_train[:100]).prediction.max() <= 1  # doctest: +SKIP
    True
    """
    e, X = as_ensemble(model), as_rows(X, "X")
    change = _transform(e, transform)
    name = str(getattr(transform, "__name__", transform))
    method = f"tree_output_shap ({name}, {game})"
    check_choice(game, "game", GAMES)
    if change is SAME:  # the raw output itself, which is a sum over trees: all three games agree
        found = interventional_tree_shap(
            e,
            X,
            background,
            n_jobs=n_jobs,
            progress=progress,
            groups=groups,
            unions=unions,
            feature_names=feature_names,
        )
        return replace(found, method=method, info={"game": game})
    slope = change.slope
    loss = Loss(
        name,
        lambda f, y: change.value(f),
        None if slope is None else lambda f, y: slope(f),
    )
    call = f"permutation_shap({sampled_call(model, e.link not in _NUMBERS)}, X, background)"
    if callable(transform) or isinstance(model, TreeEnsemble):
        call = "permutation_shap(lambda rows: transform(raw output of the rows), X, background)"
    codes = e.encode(X)
    check_frames(X, background)
    question = Question(game, max_players, n_jobs, progress, method, call)
    no_target = np.zeros(len(codes))
    players = players_of(e, groups, e.names_for(X, feature_names), unions)
    explained = _explain(e, players, codes, no_target, background, Priced(SAME, loss), question)
    return replace(
        explained, data=players.shown(X), feature_names=players.names, index=row_labels(X)
    )


def _transform(e: TreeEnsemble, transform: Any) -> Change:
    """What a transform's name means for this model."""
    if callable(transform):
        return Change(transform, None)
    check_choice(transform, "transform", ("probability", "prediction", "exp"))
    if transform == "exp":
        return Change(np.exp, np.exp)
    if transform == "prediction":
        change = prediction(e.link, e.link_factor)
        rule = "a model whose prediction has a known formula"
        remedy = "Pass a function"
    else:
        change = probability(e.link, e.link_factor, e.has_outputs)
        rule = "a model that gives probabilities"
        remedy = "Use transform='prediction' for the library's own prediction, or pass a function"
        if e.link == "other":
            remedy = "Pass a function of the raw output"
    if change is None:
        fail(
            "transform",
            f"{rule} for {transform!r}",
            f"objective {e.objective!r}",
            f"{remedy}; if the objective is your own, say what the output is: "
            "TreeEnsemble.from_model(model, link='logistic')",
        )
    return change


def _explain(
    e: TreeEnsemble,
    players: Players,
    codes: np.ndarray,
    y: np.ndarray,
    background: Any,
    priced: Priced,
    question: Question,
) -> Explanation:
    """Values of the game asked for, without the rows and their names."""
    game = question.game
    max_players = question.max_players
    check_choice(game, "game", GAMES)
    check_int(max_players, "max_players", minimum=0, maximum=_PLAYERS)
    references = e.encode(background, "background")
    able = np.unique(players.label[e.feature[e.feature >= 0]])
    few = len(able) <= max_players
    rescales = not e.has_outputs and priced.loss.slope is not None
    if game == "rescaled_margin" and not rescales:
        fail(
            "game",
            "'loss_of_mean' or 'mean_of_loss' for several outputs or a function without a "
            "derivative",
            "'rescaled_margin'",
            "Choose one of the exact games" if few else f"Sample instead: {question.instead}",
        )
    if game == "rescaled_margin":
        values, base = _rescaled(e, players, codes, y, references, priced.loss, question)
    elif few:
        values, base = _enumerated(e, players, codes, y, references, priced, question)
    else:
        remedies = ["use game='rescaled_margin'"] if rescales else []
        if len(able) <= _PLAYERS:
            remedies.insert(
                0, f"raise max_players (each player above {max_players} doubles the cost)"
            )
        remedies.append(f"sample: {question.instead}")
        text = ", or ".join(remedies)
        fail(
            "model",
            f"splits on at most max_players = {max_players} features or groups",
            f"{len(able)}",
            text[0].upper() + text[1:],
        )
    if not (np.isfinite(values).all() and np.isfinite(base).all()):
        _not_finite(e, codes, references, values, base, question.method)
    names = e.output_names if base.ndim == 2 else None
    return Explanation(
        values, base, output_names=names, method=question.method, info={"game": game}
    )


def _not_finite(
    e: TreeEnsemble,
    codes: np.ndarray,
    references: np.ndarray,
    values: np.ndarray,
    base: np.ndarray,
    method: str,
) -> NoReturn:
    """Say which row has no finite values, and whether the model's own output is to blame."""
    whole = np.isfinite(base) & np.isfinite(values).all(axis=1)
    row = int(np.argwhere(~whole)[0][0])
    outputs = np.concatenate([e.predict_codes(codes[row : row + 1]), e.predict_codes(references)])
    if not np.isfinite(outputs).all():
        fail(
            "model",
            "finite outputs",
            f"{outputs[~np.isfinite(outputs)][0]} from the model itself for row {row} or the "
            "background",
            "Scale the target of the model",
        )
    what = "transform" if method.startswith("tree_output") else "loss"
    fail(
        what,
        f"finite values for outputs from {outputs.min():g} to {outputs.max():g}",
        f"NaN or infinity for row {row}",
        f"Let the {what} clip outputs to where it is defined, and check y",
    )


def _owen(v: np.ndarray, unions: list[Any]) -> np.ndarray:
    """Values of players who keep to nested lists, of the same table as ``_coalitions``."""
    n_players = int(v.shape[0]).bit_length() - 1
    worth = 1 << np.arange(n_players)
    steps = steps_of(Unions(unions))
    return sum_of_steps(lambda coalitions: v[coalitions @ worth], steps, v.shape[0])


def _coalitions(v: np.ndarray) -> np.ndarray:
    """Shapley values ``(M, ...)`` of a table ``(2^M, ...)`` whose index has one bit for each
    player."""
    m = int(v.shape[0]).bit_length() - 1
    index = np.arange(v.shape[0])
    size = np.array([int(i).bit_count() for i in index])
    phi = np.zeros((m, *v.shape[1:]))
    for i in range(m):
        without = index[(index >> i) & 1 == 0]
        weight = np.array([1.0 / (m * math.comb(m - 1, s)) for s in size[without]])
        phi[i] = np.tensordot(weight, v[without | (1 << i)] - v[without], axes=1)
    return phi


def _enumerated(
    e: TreeEnsemble,
    players: Players,
    codes: np.ndarray,
    y: np.ndarray,
    references: np.ndarray,
    priced: Priced,
    question: Question,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact values of "loss_of_mean" and "mean_of_loss": every coalition, every reference."""
    able = np.unique(players.label[e.feature[e.feature >= 0]])  # who splits at all
    m = len(able)
    k = e.n_outputs
    bit = np.zeros(players.count, np.int64)
    bit[able] = np.arange(m)
    bit_of_feature = bit[players.label]
    # Players who split nowhere add nothing to any coalition, so others' values do not need them.
    unions = restricted_unions(players.unions or [], {int(p): i for i, p in enumerate(able)})
    some = max(1, min(len(references), _CELLS // (k << m)))
    parts = []
    bases = []
    with progress_bar(len(codes), question.progress, "rows") as bar:
        for rows in chunks(len(codes), max(1, _CELLS // (some * k << m))):
            here = codes[rows]
            target = y[rows]
            v: Any = 0.0
            for refs in chunks(len(references), some):
                outputs = np.empty((len(references[refs]), len(here), k, 1 << m))
                coalition_outputs(e.nodes, e.base, bit_of_feature, here, references[refs], outputs)
                found = (
                    np.moveaxis(outputs, -1, 0)
                    if e.has_outputs
                    else np.moveaxis(outputs[:, :, 0], -1, 0)
                )
                worth = (
                    priced.change.value(found)
                    if question.game == "loss_of_mean"
                    else np.asarray(priced.loss.value(found, target))
                )
                v = v + worth.sum(axis=1) / len(references)
            if question.game == "loss_of_mean":
                v = np.asarray((priced.mean_loss or priced.loss).value(v, target))
            phi = np.zeros((players.count, *v.shape[1:]))
            phi[able] = _owen(v, unions) if unions else _coalitions(v)
            parts.append(np.moveaxis(phi, 0, 1))
            bases.append(v[0])
            bar.update(len(here))
    return np.concatenate(parts), np.concatenate(bases)


def _rescaled(
    e: TreeEnsemble,
    players: Players,
    codes: np.ndarray,
    y: np.ndarray,
    references: np.ndarray,
    loss: Loss,
    question: Question,
) -> tuple[np.ndarray, np.ndarray]:
    """The compositional approximation: values against each reference, times the secant of the
    loss."""
    jobs = threads(question.n_jobs)
    columns = np.ascontiguousarray(codes.T)
    row_outputs = e.predict_codes(codes)[:, 0]
    reference_outputs = e.predict_codes(references)[:, 0]
    if loss is get_loss("squared_error"):
        outputs = row_outputs, reference_outputs
        return _rescaled_square(e, players, codes, y, references, outputs, jobs)
    values = np.zeros((len(codes), players.count))
    base = np.zeros(len(codes))
    plan = interventional_plan(
        Paths(e, players, walked=False), players, False, (len(codes), 1), "auto"
    )
    with progress_bar(len(references), question.progress, "references") as bar:
        for reference, output in zip(references, reference_outputs, strict=True):
            single = plan.prepare(np.ascontiguousarray(reference[:, None]), np.ones(1), jobs)
            slope = secant(loss, row_outputs, output, y)
            values += single.sums(columns, jobs).T * slope[:, None] / len(references)
            base += loss.value(np.full(len(codes), output), y) / len(references)
            bar.update()
    return values, base


def _rescaled_square(
    e: TreeEnsemble,
    players: Players,
    codes: np.ndarray,
    y: np.ndarray,
    references: np.ndarray,
    outputs: tuple[np.ndarray, np.ndarray],
    jobs: Jobs,
) -> tuple[np.ndarray, np.ndarray]:
    """The same for the squared error, whose secant f_x + f_r - 2 y splits: two weightings of the
    whole background."""
    row_outputs, reference_outputs = outputs
    n_references = len(references)
    background = np.ascontiguousarray(references.T)
    columns = np.ascontiguousarray(codes.T)
    middle = reference_outputs.mean()
    sizes = (len(codes), n_references)
    plan = interventional_plan(Paths(e, players, walked=False), players, False, sizes, "auto")
    equal = plan.prepare(background, np.ones(n_references) / n_references, jobs)
    values = np.zeros((len(codes), players.count))
    values += equal.sums(columns, jobs).T * (row_outputs + middle - 2.0 * y)[:, None]
    tilted = plan.prepare(background, (reference_outputs - middle) / n_references, jobs)
    values += tilted.sums(columns, jobs).T
    return values, (y - middle) ** 2 + reference_outputs.var()
