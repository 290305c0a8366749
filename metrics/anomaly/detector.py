"""Which series are strange now, in what respect, how far, since when, and is it news?

    >>> import numpy as np
    >>> from metrics.anomaly.detector import StreamingDetector
    >>> rng = np.random.default_rng(1)
    >>> detector = StreamingDetector(2)
    >>> for minute in range(500):
    ...     scores = detector.update(60.0 * minute, rng.normal(10.0, 1.0, 2))
    >>> scores = detector.update(30000.0, np.array([10.0, 25.0]))
    >>> scores.onset
    array([False,  True])

Rows are taken one at a time; nothing is known of a series' range or length, and memory does not grow. A missing value
(NaN or infinite) teaches nothing and scores 0.

Assumptions and limits: docs/anomaly.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.anomaly.config import DEFAULT, DetectorConfig
from metrics.anomaly.events import Events
from metrics.anomaly.persistent import Arrays, Persistent
from metrics.anomaly.tail import Tails
from metrics.anomaly.views import VIEWS, Views

Floats = NDArray[np.float64]

_GAP_ROWS = 10.0  # an excursion is over after more than ten rows within the limits


@dataclass(frozen=True, slots=True)
class Scores:
    """What one row was worth, for each series. All arrays have shape ``(series,)``.

    Attributes:
        score: share of this series' events that are weaker than this row, 0 to 1: 1 - exp(-evidence / typical event).
        news: the score where the row exceeds everything remembered, else 0. One event rises here once.
        onset: ``news`` has reached the alarm threshold.
        evidence: nats by which the row exceeds the limits of its views, summed.
        view: the view (:class:`metrics.anomaly.views.View`) with the strongest evidence; -1 without evidence.
        distance: how far that view is from its own location, in its mean deviations, with sign.
        since: time in seconds when the present excursion began; NaN without one.
    """

    score: Floats
    news: Floats
    onset: NDArray[np.bool_]
    evidence: Floats
    view: NDArray[np.int8]
    distance: Floats
    since: Floats


class StreamingDetector(Persistent):
    """Streaming anomaly detector over many series at once."""

    def __init__(self, series: int, config: DetectorConfig = DEFAULT) -> None:
        self._config = config
        self.series = series
        self.views = Views(series, config)
        self.tails = Tails(VIEWS, series, config)
        self.events = Events(series, config)
        self._evidence = np.zeros((VIEWS, series))
        self.since = np.full(series, np.nan)
        self.last_row = np.full(series, -np.inf)

    def update(self, t: ArrayLike, x: ArrayLike) -> Scores:
        x = np.asarray(x, np.float64)
        t = np.asarray(t, np.float64)
        present = np.isfinite(x) & np.isfinite(t)
        seen = present.astype(np.float64)
        if not present.all():
            x = np.where(present, x, self.views.last)
            t = t if t.ndim == 0 else np.where(present, t, self.views.time)
        self.views.update(t, x, seen)
        rows = self.views.rows
        where, evidence = self.tails.update(self.views.values, self.views.floor, rows, seen)
        n = self.series
        total = np.bincount(where % n, np.abs(evidence), n)
        at = np.flatnonzero(total)
        score = np.zeros(n); news = np.zeros(n); view = np.full(n, -1, np.int8); distance = np.zeros(n)
        if at.size:
            dense = self._evidence; dense[...]=0; dense.ravel()[where] = evidence
            ta = np.broadcast_to(t, (n,))[at]
            is_news, ratio = self.events.update(at, total[at], rows[at], ta)
            score[at] = -np.expm1(-ratio)
            news[at] = np.where(is_news, ratio, 0.0)
            best = np.abs(dense[:, at]).argmax(0)
            view[at] = best
            distance[at] = (self.views.values[best, at] - self.tails.location[best, at]) / np.maximum(self.tails.spread[best, at], 1e-12)
            gap = rows[at] - self.last_row[at] > _GAP_ROWS
            self.since[at] = np.where(gap, ta, self.since[at])
            self.last_row[at] = rows[at]
        return Scores(score, news, news >= self._config.onset_score, total, view, distance, self.since)
