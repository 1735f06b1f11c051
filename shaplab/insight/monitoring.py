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
from shaplab._validation import as_finite, check_int, check_real, fail, resolve_rng, shorten
from shaplab.explanation import Explanation

__all__ = ["Monitor", "monitor", "plot_monitor"]

# Small and large stakes; from shifts of the middle (1) to a few extreme rows among many (64).
_BETS = np.array([(stake, power) for stake in (0.3, 0.9) for power in (1.0, 4.0, 16.0, 64.0)])
_STEP = 256
LOSS = "loss"


def evidence_literal(s: np.ndarray, n0: int, u: np.ndarray) -> np.ndarray:
    """Evidence ``M_t`` of one stream after each row from ``n0`` on, from the definition.

    ``s`` ``(n,)`` holds the reference first; ``u`` ``(n - n0,)`` breaks ties. Cost O(n^2).
    """
    result, product, weight_left = [], np.zeros(len(_BETS)), 1.0
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
        self.values, self.time, self._mean = values, moments, values.mean(axis=0)
        self.largest = np.zeros(len(self.names))
        self.restart()

    def restart(self) -> None:
        """Go on from the reference alone, for when the cause of an alarm has been repaired.

        The evidence is 1 again, rows since the reference leave the ranks, every stream may raise
        another alarm. The bound on false alarms holds for each stretch between restarts.
        """
        m, b = len(self.names), len(_BETS)
        self._pool, self._past = np.sort(self.values[: self.n_reference], axis=0), len(self.alarms)
        self._product = np.full((m, b), -np.inf)  # log of sum of w_k times the bets since k
        self._cusum = np.zeros((m, b))  # log of the bets since the best start, and that start
        self._start, self.evidence = np.full((m, b), len(self.values)), np.zeros(m)

    def _check(
        self, explanation: Explanation, time: Any, argument: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Attributions with the whole loss as last column, and times."""
        e = one_output(explanation, None, argument)
        if (*e.names, LOSS) != self.names:
            fail(
                argument,
                f"the features {shorten(', '.join(self.names[:-1]))}",
                shorten(", ".join(e.names)),
                "Explain the same model on the same columns",
            )
        moments = as_finite(time, "time", (len(e),), "Pass one time for each explained row")
        if (np.diff(np.concatenate([self.time[-1:], moments])) < 0).any():
            fail(
                "time",
                "times that do not fall, later than those seen",
                "earlier ones",
                "Sort the rows by time",
            )
        return np.column_stack([e.values, e.prediction]), moments

    def _column(self, feature: int | str) -> int:
        if isinstance(feature, str):
            if feature not in self.names:
                fail(
                    "feature",
                    f"one of {shorten(', '.join(self.names))}",
                    repr(feature),
                    "Check the spelling",
                )
            return self.names.index(feature)
        return check_int(feature, "feature", minimum=0, maximum=len(self.names) - 1)

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
        self.values = np.concatenate([self.values, values])
        self.time = np.concatenate([self.time, moments])
        for start in range(0, len(values), _STEP):
            self._bet(values[start : start + _STEP], len(self.values) - len(values) + start)
        return self.alarms[known:]

    def _bet(self, s: np.ndarray, first: int) -> None:
        (k, m), ranked = s.shape, len(self._pool)
        earlier = np.tri(k, k=-1, dtype=bool)
        above, equal = np.empty((k, m)), np.empty((k, m))
        for j in range(m):
            right = np.searchsorted(self._pool[:, j], s[:, j], "right")
            above[:, j] = ranked - right + ((s[None, :, j] > s[:, None, j]) & earlier).sum(axis=1)
            equal[:, j] = (
                right
                - np.searchsorted(self._pool[:, j], s[:, j], "left")
                + 1
                + ((s[None, :, j] == s[:, None, j]) & earlier).sum(axis=1)
            )
        seen = ranked + 1 + np.arange(k)
        h = 1 - 2 * ((above + self._rng.random((k, m)) * equal) / seen[:, None])[..., None]
        self._pool = np.sort(np.concatenate([self._pool, s]), axis=0, kind="stable")
        # log M_t = L_t + log(M_0 + sum over k <= t of w_k exp(-L_{k-1})), L the running sum of log
        # bets.
        logs = np.cumsum(np.log1p(_BETS[:, 0] * np.sign(h) * np.abs(h) ** _BETS[:, 1]), axis=0)
        before = np.concatenate([np.zeros((1, *logs.shape[1:])), logs[:-1]])
        w = self.n_reference / ((seen - 1.0) * seen)
        product = np.logaddexp.accumulate(
            np.concatenate([self._product[None], np.log(w)[:, None, None] - before])
        )
        product = product[1:] + logs
        mean = np.logaddexp.reduce(product, axis=2) - np.log(len(_BETS))
        evidence = np.logaddexp(mean, np.log(self.n_reference / seen)[:, None])
        low = np.minimum.accumulate(np.concatenate([-self._cusum[None], before]))[1:]
        # Where the bets so far are at their lowest, the best start moves to this row.
        start = np.where(before <= low, np.arange(first, first + k)[:, None, None], -1)
        start = np.maximum.accumulate(np.concatenate([self._start[None], start]))[1:]
        raised = {alarm["feature"] for alarm in self.alarms[self._past :]}
        for t, j in np.argwhere(evidence >= self.threshold):
            if self.names[j] in raised:
                continue
            since = int(start[t, j, np.argmax(product[t, j])])
            rise = self.values[since : first + t + 1, j].mean() - self._mean[j]
            if rise >= self.least_rise:
                raised.add(self.names[j])
                self.alarms.append(
                    {
                        "feature": self.names[j],
                        "time": float(self.time[first + t]),
                        "since": float(self.time[since]),
                        "row": int(first + t),
                        "rise": float(rise),
                    }
                )
        self._product, self._cusum, self._start = product[-1], logs[-1] - low[-1], start[-1]
        self.evidence, self.largest = evidence[-1], np.maximum(self.largest, evidence.max(axis=0))

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

        column, parts = self.values[:, self._column(feature)], []
        for name, rows in (("first", first), ("last", last)):
            try:
                parts.append(column[np.asarray(rows)])
            except IndexError:
                parts.append(column[:0])
            if parts[-1].ndim != 1 or len(parts[-1]) < 2:
                fail(
                    name,
                    "a mask or indices of at least two rows",
                    rows,
                    f"There are {len(column)} rows",
                )
        return float(parts[1].mean() - parts[0].mean()), float(
            ttest_ind(*parts[::-1], equal_var=False).pvalue
        )

    def _window(self, window: int | None) -> int:
        """Rows that are averaged: 1,000, or a fifth of a short stream."""
        n = len(self.values)
        window = max(2, min(1000, n // 5)) if window is None else window
        return check_int(window, "window", minimum=2, maximum=n)

    def smooth(self, feature: int | str, *, window: int | None = None, level: float = 0.95) -> Any:
        """Mean over the nearest ``window`` rows, with pointwise bands from Student's t.

        ``window`` is 1,000 by default, or a fifth of a stream of fewer than 5,000 rows.

        Returns a DataFrame, one row a window: ``time`` (of the middle row), ``mean``, ``low``,
        ``high``.
        """
        import pandas as pd
        from scipy.stats import t as student

        column = self.values[:, self._column(feature)]
        window = self._window(window)
        level = check_real(level, "level", low=0.0, high=1.0)
        mean = column.mean()  # differences of running sums lose digits when the mean is large
        sums = [np.concatenate([[0.0], np.cumsum((column - mean) ** power)]) for power in (1, 2)]
        total, square = ((part[window:] - part[:-window]) / window for part in sums)
        reach = student.ppf((1 + level) / 2, window - 1) * np.sqrt(
            np.maximum(square - total**2, 0) / (window - 1)
        )
        return pd.DataFrame(
            {
                "time": self.time[window // 2 : window // 2 + len(total)],
                "mean": mean + total,
                "low": mean + total - reach,
                "high": mean + total + reach,
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
        import pandas as pd

        first = check_real(first, "first", low=0.0, high=1.0, open_low=True)
        last = check_real(last, "last", low=0.0, high=1.0, open_low=True)
        n, n0 = len(self.values), self.n_reference
        early, late = slice(n0, n0 + int(first * (n - n0))), slice(n - int(last * (n - n0)), n)
        enough = min(early.stop - early.start, late.stop - late.start) >= 2
        rows = {}
        for j, name in enumerate(self.names):
            change, p = (
                self.t_test(j, first=np.arange(n)[early], last=np.arange(n)[late])
                if enough
                else (np.nan, np.nan)
            )
            alarm: dict[str, Any] = next((a for a in self.alarms[::-1] if a["feature"] == name), {})
            rows[name] = [
                self._mean[j],
                self.values[late, j].mean() if enough else np.nan,
                change,
                p,
                self.largest[j] / np.log(10),
                *(alarm.get(key, np.nan) for key in ("time", "since", "rise")),
            ]
        table = pd.DataFrame.from_dict(
            rows,
            orient="index",
            columns=["reference", "now", "change", "p", "evidence", "alarm", "since", "rise"],
        )
        return table.sort_values("rise", ascending=False, na_position="last", kind="stable")


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
    name = watched.names[watched._column(feature)]
    window = watched._window(window)
    table = watched.smooth(feature, window=window, level=level)
    ax = axes(ax, 6.4, 3.0)
    mean = watched.values[: watched.n_reference, watched._column(feature)].mean()
    ax.axvspan(
        watched.time[0],
        watched.time[watched.n_reference - 1],
        color=GREY,
        alpha=0.12,
        lw=0,
        zorder=0,
    )
    ax.axhline(mean, color=GREY, lw=0.8, ls="--", zorder=1)
    ax.fill_between(
        table["time"], table["low"], table["high"], color=DOWN, alpha=0.25, lw=0, zorder=2
    )
    ax.plot(table["time"], table["mean"], color=DOWN, lw=1.5, zorder=3)
    alarms = [alarm["time"] for alarm in watched.alarms if alarm["feature"] == name]
    for at in alarms:
        ax.axvline(at, color=UP, lw=1.5, zorder=4)
        ax.annotate(
            "alarm ", (at, 1), xycoords=("data", "axes fraction"), ha="right", va="top", color=UP
        )
    ax.set(
        xlabel=axis_label(time_unit, "time"),
        ylabel=axis_label(
            unit, "loss of the row" if name == LOSS else f"loss due to {escape(name)}"
        ),
    )
    said = {"reference mean": mean, "alarms": ", ".join(f"{at:.4g}" for at in alarms)}
    return tell(ax, lambda: table.iloc[::window].assign(**said))  # windows that do not overlap
