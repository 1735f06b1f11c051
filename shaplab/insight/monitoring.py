r"""Watching a deployed model: which feature starts to hurt, and when.

A stream of loss attributions :math:`s_t` (one number a row and feature; positive hurts) is watched
for a rise. With the rows :math:`1, \dots, n_0` as reference and :math:`u_t` uniform, the rank of
row :math:`t` among all rows so far,

.. math:: p_t = \frac1t\Bigl(\#\{i \le t: s_i > s_t\} + u_t\,\#\{i \le t: s_i = s_t\}\Bigr),

is uniform and independent of the past whenever all rows are exchangeable: nothing has changed. So
with
:math:`h = 1 - 2p` every bet :math:`e_t = 1 + \lambda\,\mathrm{sign}(h_t)|h_t|^\kappa` has mean 1,
the evidence

.. math:: M_t = \sum_{k \le t} w_k \prod_{i=k}^{t} e_i + \sum_{k > t} w_k, \qquad \sum_k w_k = 1,

is a martingale that starts at 1, and so is its mean over several :math:`(\lambda, \kappa)`. By
Ville's inequality it ever reaches :math:`m/\alpha` with probability at most :math:`\alpha/m`; with
m watched streams the chance of any false alarm, ever, is at most :math:`\alpha`, in finite samples
and for any distribution. Cost: O(log n) a row and feature, plus one merge of the sorted past a
batch. Sources: Lundberg et al. 2020, 2.7.4 and Methods 17 (loss attributions over time, t-test);
Vovk, Gammerman and Shafer 2005 (conformal martingales).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._figures import DOWN, GREY, UP, axes, axis_label, escape, one_output, tell
from shaplab._parallel import chunks
from shaplab._validation import (
    as_finite,
    check_int,
    check_real,
    fail,
    imported,
    resolve_rng,
    shorten,
)
from shaplab.explanation import Explanation

__all__ = ["Monitor", "monitor", "plot_monitor"]

# Pairs of stake and power: small and large stakes; from shifts of the middle (1) to a few extreme
# rows among many (64).
_BETS = np.array([(stake, power) for stake in (0.3, 0.9) for power in (1.0, 4.0, 16.0, 64.0)])
# Rows that are compared with each other at once.
_ROWS_AT_ONCE = 256
LOSS = "loss"


def evidence_literal(s: np.ndarray, n0: int, u: np.ndarray) -> np.ndarray:
    """Evidence ``M_t`` of one stream after each row from ``n0`` on, from the definition.

    ``s`` ``(n,)`` holds the reference first; ``u`` ``(n - n0,)`` breaks ties. Cost O(n^2).
    """
    result = []
    product = np.zeros(len(_BETS))
    weight_left = 1.0
    for t in range(n0, len(s)):
        past = s[: t + 1]
        p = ((past > s[t]).sum() + u[t - n0] * (past == s[t]).sum()) / (t + 1)
        h = 1 - 2 * p
        e = np.array([1 + stake * np.sign(h) * abs(h) ** power for stake, power in _BETS])
        k = t - n0 + 1
        w = n0 / ((k - 1 + n0) * (k + n0))  # sums to 1 over k = 1, 2, ...
        weight_left -= w
        product = e * (product + w)
        result.append(product.mean() + weight_left)
    return np.array(result)


class Monitor:
    """What has been seen of a stream, the evidence for a change, and the alarms.

    Parameters
    ----------
    reference : Explanation of the loss, one output, for rows that the model was *not* fitted on and
        that are known to be in order; ``values`` ``(n0, d)`` in units of the loss.
    time : increasing array ``(n0,)``, in any unit.
    false_alarm_rate : bound on the chance that an unchanged stream ever raises an alarm, over
        features and loss.
    least_rise : an alarm also needs the mean since the estimated change to lie this much above the
        reference's, in units of the loss. It can only make false alarms rarer.
    rng : breaks ties and rounds ranks.

    Attributes
    ----------
    names : the features, then "loss", the whole loss of a row, which is watched in the same way.
    values, time : everything seen: ``(n, d + 1)`` attributions of the loss, and the loss; ``(n,)``
        times.
    alarms : list of dicts ``feature``, ``time`` (of the alarm), ``since`` (estimated change),
        ``row``, ``rise``.
    """

    def __init__(
        self,
        reference: Explanation,
        time: Any,
        *,
        false_alarm_rate: float = 0.05,
        least_rise: float = 0.0,
        rng: Any = None,
    ) -> None:
        rate = check_real(false_alarm_rate, "false_alarm_rate", low=0.0, high=1.0, open_low=True)
        self.least_rise = check_real(least_rise, "least_rise", low=0.0)
        self._rng = resolve_rng(rng)
        self.alarms: list[dict[str, Any]] = []
        self.names = (*one_output(reference, None, "reference").names, LOSS)
        if len(set(self.names)) < len(self.names):
            fail(
                "reference",
                f"features of different names, none of them {LOSS!r}",
                self.names[:-1],
                "Rename some",
            )
        self.time = np.empty(0)
        values, moments = self._check(reference, time, "reference")
        self.n_reference = len(values)
        if self.n_reference < 10:
            fail(
                "reference",
                "at least 10 rows",
                f"{self.n_reference}",
                "Take a longer period that is in order",
            )
        self.threshold = np.log(len(self.names) / rate)
        self.values = values
        self.time = moments
        self._mean = values.mean(axis=0)
        self.largest = np.zeros(len(self.names))
        self.restart()

    def restart(self) -> None:
        """Go on from the reference alone, for when the cause of an alarm has been repaired.

        The evidence is 1 again, rows since the reference leave the ranks, every stream may raise
        another alarm. The bound on false alarms is proved for the first stretch only: a restart
        that answers an alarm depends on the reference, which is used again.
        """
        streams = len(self.names)
        shape = (streams, len(_BETS))
        self._pool = np.sort(self.values[: self.n_reference], axis=0)
        self._earlier_alarms = len(self.alarms)
        # Logarithm of the sum over k of w_k times the bets since k.
        self._product = np.full(shape, -np.inf)
        # Logarithm of the bets since the best start, and that start.
        self._since_start = np.zeros(shape)
        self._start = np.full(shape, len(self.values))
        self.evidence = np.zeros(streams)

    def _check(
        self, explanation: Explanation, time: Any, argument: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Attributions with the whole loss as last column, and times."""
        shown = one_output(explanation, None, argument)
        if (*shown.names, LOSS) != self.names:
            fail(
                argument,
                f"the features {shorten(', '.join(self.names[:-1]))}",
                shorten(", ".join(shown.names)),
                "Explain the same model on the same columns",
            )
        moments = as_finite(time, "time", (len(shown),), "Pass one time for each explained row")
        if (np.diff(np.concatenate([self.time[-1:], moments])) < 0).any():
            fail(
                "time",
                "times that do not fall, later than those seen",
                "earlier ones",
                "Sort the rows by time",
            )
        return np.column_stack([shown.values, shown.prediction]), moments

    def _column(self, feature: int | str) -> int:
        """The column of a stream given by name or number."""
        if not isinstance(feature, str):
            return check_int(feature, "feature", minimum=0, maximum=len(self.names) - 1)
        if feature not in self.names:
            fail(
                "feature",
                f"one of {shorten(', '.join(self.names))}",
                repr(feature),
                "Check the spelling",
            )
        return self.names.index(feature)

    def update(self, explanation: Explanation, time: Any) -> list[dict[str, Any]]:
        """Take in the next rows; returns the alarms that they raise. Any batch sizes give the same
        evidence.

        Parameters
        ----------
        explanation : Explanation of the loss of the next rows, ``values`` ``(k, d)``.
        time : array ``(k,)``, not earlier than what was seen.
        """
        values, moments = self._check(explanation, time, "explanation")
        known = len(self.alarms)
        first = len(self.values)
        self.values = np.concatenate([self.values, values])
        self.time = np.concatenate([self.time, moments])
        for part in chunks(len(values), _ROWS_AT_ONCE):
            self._bet(values[part], first + part.start)
        return self.alarms[known:]

    def _bet(self, values: np.ndarray, first: int) -> None:
        """Take in rows ``(k, streams)``, the first of which is number ``first``."""
        # Of each row: the rows that are ranked when it comes, itself included.
        ranked = len(self._pool) + 1 + np.arange(len(values))
        h = 1 - 2 * self._ranks(values) / ranked[:, None]
        h = h[..., None]
        self._pool = np.sort(np.concatenate([self._pool, values]), axis=0, kind="stable")
        # With L the running sum of log bets, log M_t is
        # L_t + log(M_0 + sum over k <= t of w_k exp(-L_{k-1})).
        bets = _BETS[:, 0] * np.sign(h) * np.abs(h) ** _BETS[:, 1]
        sums = np.cumsum(np.log1p(bets), axis=0)
        before = np.concatenate([np.zeros((1, *sums.shape[1:])), sums[:-1]])
        weight = self.n_reference / ((ranked - 1.0) * ranked)
        entered = np.log(weight)[:, None, None] - before
        product = np.logaddexp.accumulate(np.concatenate([self._product[None], entered]))
        product = product[1:] + sums
        mean = np.logaddexp.reduce(product, axis=2) - np.log(len(_BETS))
        weight_left = np.log(self.n_reference / ranked)[:, None]
        evidence = np.logaddexp(mean, weight_left)
        low = np.minimum.accumulate(np.concatenate([-self._since_start[None], before]))[1:]
        # Where the bets so far are at their lowest, the best start moves to this row.
        rows = np.arange(first, first + len(values))[:, None, None]
        start = np.where(before <= low, rows, -1)
        start = np.maximum.accumulate(np.concatenate([self._start[None], start]))[1:]
        best = np.take_along_axis(start, product.argmax(axis=2)[..., None], axis=2)[..., 0]
        self._raise_alarms(evidence, best, first)
        self._product = product[-1]
        self._since_start = sums[-1] - low[-1]
        self._start = start[-1]
        self.evidence = evidence[-1]
        self.largest = np.maximum(self.largest, evidence.max(axis=0))

    def _ranks(self, values: np.ndarray) -> np.ndarray:
        """Ranks ``t p_t`` of rows ``(k, streams)`` among all rows so far, the largest first, with
        random ranks among equals."""
        count, streams = values.shape
        earlier = np.tri(count, k=-1, dtype=bool)
        above = np.empty((count, streams))
        equal = np.empty((count, streams))
        for stream in range(streams):
            pool = self._pool[:, stream]
            own = values[:, stream]
            left = np.searchsorted(pool, own, "left")
            right = np.searchsorted(pool, own, "right")
            above_here = (own[None] > own[:, None]) & earlier
            equal_here = (own[None] == own[:, None]) & earlier
            above[:, stream] = len(pool) - right + above_here.sum(axis=1)
            # A row is equal to itself.
            equal[:, stream] = right - left + 1 + equal_here.sum(axis=1)
        return above + self._rng.random((count, streams)) * equal

    def _raise_alarms(self, evidence: np.ndarray, start: np.ndarray, first: int) -> None:
        """An alarm for each stream whose evidence ``(k, streams)`` is enough for the first time;
        ``start`` is where its change seems to begin."""
        raised = {alarm["feature"] for alarm in self.alarms[self._earlier_alarms :]}
        for place, stream in np.argwhere(evidence >= self.threshold):
            name = self.names[stream]
            if name in raised:
                continue
            row = int(first + place)
            since = int(start[place, stream])
            rise = self.values[since : row + 1, stream].mean() - self._mean[stream]
            if rise < self.least_rise:
                continue
            raised.add(name)
            self.alarms.append(
                {
                    "feature": name,
                    "time": float(self.time[row]),
                    "since": float(self.time[since]),
                    "row": row,
                    "rise": float(rise),
                }
            )

    def t_test(self, feature: int | str, *, first: Any, last: Any) -> tuple[float, float]:
        """Independent t-test (Welch) between two sets of rows: difference of means, last minus
        first, and p-value.

        Parameters
        ----------
        feature : name or index; "loss" for the whole loss.
        first, last : boolean masks or indices of rows in ``values``; at least two rows each.

        Notes
        -----
        One look at a time fixed before the data, as in Methods 17. Repeated looks need ``alarms``
        instead.
        """
        from scipy.stats import ttest_ind

        column = self.values[:, self._column(feature)]
        before = _chosen_rows(column, first, "first")
        after = _chosen_rows(column, last, "last")
        p_value = ttest_ind(after, before, equal_var=False).pvalue
        return float(after.mean() - before.mean()), float(p_value)

    def _window(self, window: int | None) -> int:
        """Rows that are averaged: 1,000, or a fifth of a short stream."""
        n = len(self.values)
        if window is None:
            window = max(2, min(1000, n // 5))
        return check_int(window, "window", minimum=2, maximum=n)

    def smooth(self, feature: int | str, *, window: int | None = None, level: float = 0.95) -> Any:
        """Mean over the nearest ``window`` rows, with pointwise bands from Student's t.

        ``window`` is 1,000 by default, or a fifth of a stream of fewer than 5,000 rows.

        Returns a DataFrame, one row a window: ``time`` (of the middle row), ``mean``, ``low``,
        ``high``.
        """
        from scipy.stats import t as student

        pd = imported("pandas", "smooth")
        column = self.values[:, self._column(feature)]
        window = self._window(window)
        level = check_real(level, "level", low=0.0, high=1.0)
        # Differences of running sums lose digits when the mean is large.
        mean = column.mean()
        away = _window_means(column - mean, window)
        square = _window_means((column - mean) ** 2, window)
        error = np.sqrt(np.maximum(square - away**2, 0) / (window - 1))
        reach = student.ppf((1 + level) / 2, window - 1) * error
        middle = window // 2
        return pd.DataFrame(
            {
                "time": self.time[middle : middle + len(away)],
                "mean": mean + away,
                "low": mean + away - reach,
                "high": mean + away + reach,
            }
        )

    def report(self, *, first: float = 0.25, last: float = 0.5) -> Any:
        """A table, one row a watched stream: alarms first, the largest rise on top.

        Parameters
        ----------
        first, last : shares of the rows after the reference that the t-test compares: first 25%,
            last 50%, as in the source's 30,000 and 60,000 of about 110,000 rows. Without enough
            such rows it is left out (NaN).

        Returns
        -------
        DataFrame: ``reference`` (mean attribution), ``now`` (mean of the last share), ``change``
        and ``p`` of the t-test, ``evidence`` (largest so far, log10), ``alarm``, ``since``,
        ``rise`` of its last alarm (NaN without).
        """
        pd = imported("pandas", "report")
        first = check_real(first, "first", low=0.0, high=1.0, open_low=True)
        last = check_real(last, "last", low=0.0, high=1.0, open_low=True)
        rows = np.arange(len(self.values))
        watched = rows[self.n_reference :]
        early = watched[: int(first * len(watched))]
        late = watched[len(watched) - int(last * len(watched)) :]
        has_enough = min(len(early), len(late)) >= 2
        lines = {}
        for stream, name in enumerate(self.names):
            now = np.nan
            change = np.nan
            p_value = np.nan
            if has_enough:
                now = self.values[late, stream].mean()
                change, p_value = self.t_test(stream, first=early, last=late)
            raised = [alarm for alarm in self.alarms if alarm["feature"] == name]
            latest = raised[-1] if raised else {}
            lines[name] = {
                "reference": self._mean[stream],
                "now": now,
                "change": change,
                "p": p_value,
                "evidence": self.largest[stream] / np.log(10),
                "alarm": latest.get("time", np.nan),
                "since": latest.get("since", np.nan),
                "rise": latest.get("rise", np.nan),
            }
        table = pd.DataFrame.from_dict(lines, orient="index")
        return table.sort_values("rise", ascending=False, na_position="last", kind="stable")


def _chosen_rows(column: np.ndarray, rows: Any, argument: str) -> np.ndarray:
    """At least two entries of a column, by mask or indices."""
    try:
        chosen = column[np.asarray(rows)]
    except IndexError:
        chosen = column[:0]
    if chosen.ndim != 1 or len(chosen) < 2:
        rule = "a mask or indices of at least two rows"
        fail(argument, rule, rows, f"There are {len(column)} rows")
    return chosen


def _window_means(column: np.ndarray, window: int) -> np.ndarray:
    """Means over all runs of so many rows."""
    sums = np.concatenate([[0.0], np.cumsum(column)])
    return (sums[window:] - sums[:-window]) / window


def monitor(
    loss_explanations: Explanation,
    time: Any,
    *,
    reference_until: float,
    false_alarm_rate: float = 0.05,
    least_rise: float = 0.0,
    rng: Any = None,
) -> Monitor:
    """Watch a stream of loss attributions; the rows before ``reference_until`` are the reference.

    Parameters
    ----------
    loss_explanations : Explanation of the loss, one output, rows in order of time, none of which
        the model was fitted on; for example from ``tree_loss_shap``.
    time : increasing array ``(n,)``.
    reference_until : rows with an earlier time are known to be in order. The rest as in
        :class:`Monitor`.

    Returns
    -------
    Monitor. Go on feeding it with ``update``; read ``alarms`` and ``report()``. The false-alarm
    bound is exact if reference and unchanged rows are exchangeable; a season breaks this too.
    Source: Lundberg et al. 2020, Section 2.7.4, Methods 17, Figure 5.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(600, 2))
    >>> draws[400:, 1] += 2.0
    >>> watched = monitor(Explanation(draws, 0.0), np.arange(600), reference_until=200, rng=0)
    >>> watched.alarms[0]["feature"], 400 < watched.alarms[0]["row"] < 430
    ('x1', True)
    """
    count = len(one_output(loss_explanations, None, "loss_explanations"))
    moments = as_finite(time, "time", (count,), "Pass one time for each explained row")
    n0 = int((moments < check_real(reference_until, "reference_until")).sum())
    if n0 == 0:
        fail(
            "reference_until",
            "a time after some rows",
            f"{reference_until:g}",
            f"The first row is at {moments[0]:g}",
        )
    watched = Monitor(
        loss_explanations[:n0],
        moments[:n0],
        false_alarm_rate=false_alarm_rate,
        least_rise=least_rise,
        rng=rng,
    )
    if n0 < len(moments):
        watched.update(loss_explanations[n0:], moments[n0:])
    return watched


def plot_monitor(
    watched: Monitor,
    feature: int | str,
    *,
    window: int | None = None,
    level: float = 0.95,
    unit: str = "",
    time_unit: str = "",
    ax: Any = None,
) -> Any:
    """The monitoring plot: smoothed attribution of the loss to a feature over time, with its band
    and its alarm.

    Parameters
    ----------
    watched : Monitor.
    feature : name or index; "loss" for the whole loss.
    window, level : as in ``Monitor.smooth``.
    unit, time_unit : units for the axes.
    """
    if not isinstance(watched, Monitor):
        fail("watched", "a Monitor", watched, "Make one with monitor", TypeError)
    column = watched._column(feature)
    name = watched.names[column]
    window = watched._window(window)
    table = watched.smooth(feature, window=window, level=level)
    alarms = [alarm["time"] for alarm in watched.alarms if alarm["feature"] == name]
    mean = watched.values[: watched.n_reference, column].mean()
    ax = axes(ax, 6.4, 3.0)
    start = watched.time[0]
    end = watched.time[watched.n_reference - 1]
    ax.axvspan(start, end, color=GREY, alpha=0.12, lw=0, zorder=0)
    ax.axhline(mean, color=GREY, lw=0.8, ls="--", zorder=1)
    band = (table["time"], table["low"], table["high"])
    ax.fill_between(*band, color=DOWN, alpha=0.25, lw=0, zorder=2)
    ax.plot(table["time"], table["mean"], color=DOWN, lw=1.5, zorder=3)
    for at in alarms:
        ax.axvline(at, color=UP, lw=1.5, zorder=4)
        place = {"xycoords": ("data", "axes fraction"), "ha": "right", "va": "top"}
        ax.annotate("alarm ", (at, 1), color=UP, **place)
    what = "loss of the row" if name == LOSS else f"loss due to {escape(name)}"
    ax.set(xlabel=axis_label(time_unit, "time"), ylabel=axis_label(unit, what))
    said = {"reference mean": mean, "alarms": ", ".join(f"{at:.4g}" for at in alarms)}
    # Windows that do not overlap.
    return tell(ax, lambda: table.iloc[::window].assign(**said))
