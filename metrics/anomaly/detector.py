"""Which series are strange now, in what respect, how far, since when, and is it news?

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> detector = StreamingDetector(series=2)
    >>> for minute in range(500):
    ...     scores = detector.update(60.0 * minute, rng.normal(10.0, 1.0, size=2))
    >>> scores = detector.update(60.0 * 500, np.array([10.0, 25.0]))
    >>> scores.onset
    array([False,  True])

Rows are taken one at a time. Nothing is known of a series' range or length, and memory does not grow. A missing value
(NaN, infinite or beyond ``VALUE_MAX``) teaches nothing and scores 0.

Assumptions: rows come in time order. Values, limits and forgetting go by rows, cycles by the clock.
Leaves out: relations between series, for which see :mod:`metrics.anomaly.verdict`.

Source: docs/anomaly.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.anomaly.config import DEFAULT, DetectorConfig
from metrics.anomaly.deviation import Deviation
from metrics.anomaly.events import Events
from metrics.anomaly.excursion import Excursions
from metrics.anomaly.persistent import Persistent
from metrics.anomaly.rates import Rates
from metrics.anomaly.tail import Tails
from metrics.anomaly.views import UNITLESS, Views

Floats = NDArray[np.float64]

NO_VIEW = -1
EXCURSION_NATS = 1.0  # evidence from which a row belongs to an excursion
VALUE_MAX = 1e100  # keeps squares finite; nothing measured is larger


@dataclass(frozen=True, slots=True)
class Scores:
    """What one row was worth. All arrays have shape ``(series,)``.

    Attributes:
        score: assumed share of this series' events that are weaker than this row, 0 to 1; 0 within all limits.
        news: the score where the row exceeds all that is remembered, else 0: an event rises here once.
        onset: ``news`` has reached the alarm threshold.
        evidence: nats by which the row exceeds the limits of its views, summed over views.
        view: the :class:`metrics.anomaly.views.View` with the strongest evidence, ``NO_VIEW`` without evidence.
        distance: signed excess of that view beyond its limit, in its mean excesses; 0 without evidence.
        deviation: signed deviation of the short mean from its habit, in standard deviations.
        since: time in seconds at which the present excursion began, NaN without one.
        shift: the excursion has stayed on one side so long that it is a new level and not an incident.
        seen: a value came.
    """

    score: Floats
    news: Floats
    onset: NDArray[np.bool_]
    evidence: Floats
    view: NDArray[np.int8]
    distance: Floats
    deviation: Floats
    since: Floats
    shift: NDArray[np.bool_]
    seen: NDArray[np.bool_]


class StreamingDetector(Persistent):
    """Watches ``series`` series at once; ``state()`` and ``restore()`` carry it over a restart bit for bit."""

    def __init__(self, series: int, config: DetectorConfig = DEFAULT) -> None:
        self._config = config
        self._series = series
        self.rows = np.zeros(series)
        self.views = Views(series, config)
        self.tails = Tails(UNITLESS, series, config)
        self.events = Events(series, config)
        self.excursions = Excursions(series, config)
        self.deviation = Deviation(series, config)

    def update(self, t: ArrayLike, x: ArrayLike) -> Scores:
        """Scores one row, then learns it.

        Args:
            t: seconds since the epoch, one time for all series or ``(series,)``; NaN counts as a missing value.
            x: values ``(series,)``; NaN, infinite or beyond ``VALUE_MAX`` where missing.

        Raises:
            ValueError: ``x`` is not ``(series,)``, or ``t`` is neither that nor a single number.
        """
        t, x, seen = self._admit(t, x)
        n = self._series
        self.rows += seen
        rates = Rates(self.rows, seen)
        values, unit = self.views.update(t, x, rates)
        deviation = self.deviation.update(self.views.short, rates)
        where, evidence = self.tails.update(values, unit, rates)
        total: Floats = np.bincount(where % n, np.abs(evidence), n).astype(np.float64, copy=False)
        score, news = np.zeros(n), np.zeros(n)
        at = np.flatnonzero(total)
        if at.size:
            rows, now = self.rows[at], np.broadcast_to(t, n)[at]
            fresh, score[at] = self.events.update(at, total[at], rows, now)
            news[at] = score[at] * fresh
            clear = total[at] >= EXCURSION_NATS
            self.excursions.update(at[clear], np.sign(deviation[at[clear]]), rows[clear], now[clear])
        view, distance = self._reason(where, evidence)
        since, shift = self.excursions.present(self.rows)
        onset = news >= self._config.onset_score
        return Scores(score, news, onset, total, view, distance, deviation, since, shift, seen)

    def _admit(self, t: ArrayLike, x: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """The row with missing values replaced by the last known ones, and which values came."""
        t, x = np.asarray(t, np.float64), np.asarray(x, np.float64)
        shape = (self._series,)
        if x.shape != shape or t.shape not in {(), shape}:
            raise ValueError(f"expected values of shape {shape} and one time or as many, got {x.shape} and {t.shape}")
        known = np.isfinite(t)
        present = (np.abs(x) < VALUE_MAX) & known
        if not present.all():
            x = np.where(present, x, self.views.last)
            t = np.where(known, t, self.views.time)
        return t, x, present

    def _reason(self, where: NDArray[np.intp], evidence: Floats) -> tuple[NDArray[np.int8], Floats]:
        """The view with the strongest evidence for each series, and that evidence with its sign."""
        view, distance = np.full(self._series, NO_VIEW, np.int8), np.zeros(self._series)
        if not where.size:
            return view, distance
        strongest_last = np.argsort(np.abs(evidence), kind="stable")
        of_view, of_series = np.divmod(where[strongest_last], self._series)
        view[of_series] = of_view
        distance[of_series] = evidence[strongest_last]
        view[distance == 0.0] = NO_VIEW
        return view, distance
