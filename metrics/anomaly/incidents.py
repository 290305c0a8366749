"""When is a KPI's strangeness worth telling, and when is the incident over?

The streaming detector asks what is news; on series of a few hundred rows that is too often. Here an incident begins
when a value is far from its habit (`BEGIN_DEVIATIONS`) and beyond the limits of at least one view, and ends when it is
back (`END_DEVIATIONS`). It is told once. What an incident shows is not learnt for its first `WITHHELD_ROWS`, so that
one fault does not dull the eye for the next; after that a level that stays is learnt as the new habit.

Assumptions: rows come in time order; a habit is known after `WARM_UP_ROWS`.
Leaves out: whether a value is allowed, which is the catalogue's question.

Source: docs/anomaly.md "Live".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.detector import NO_VIEW, Scores, StreamingDetector
from metrics.anomaly.views import View

Floats = NDArray[np.float64]

BEGIN_DEVIATIONS = 6.0
END_DEVIATIONS = 3.0
EVIDENCE_MIN_NATS = 1.0  # from which a row is clearly beyond its limits
WARM_UP_ROWS = 60
WITHHELD_ROWS = 60
DEVIATIONS_MAX = 100.0  # a series that never moved is out by any number; beyond this "how far" says no more than "far"

_IN_WORDS = {
    View.LEVEL: "in its level",
    View.SHORT_MEAN: "in its short mean",
    View.JUMP: "as a jump",
    View.COMPRESSED_JUMP: "as a jump out of silence",
    View.DAY: "for the hour of the day",
    View.DAY_FINE: "for the half hour of the day",
    View.WEEK: "for the hour of the week",
}


@dataclass(frozen=True, slots=True, eq=False)
class IncidentScores:
    """What one row scored; implements `metrics.detector.DetectorScores`.

    Attributes:
        score: float64[K], standard deviations from the habit, at most 100; NaN where the value or the habit is missing.
        onset: bool[K], an incident begins.
        deviation: float64[K], the same as `score`, signed.
        rows: what the streaming detector says of the row.
    """

    score: Floats
    onset: NDArray[np.bool_]
    deviation: Floats
    rows: Scores

    def reason(self, index: int) -> str:
        """How far series `index` is out, in which view, by how much, and since when."""
        deviation = float(self.deviation[index])
        side = "above" if deviation > 0 else "below"
        far = f"{abs(deviation):.1f}" if abs(deviation) < DEVIATIONS_MAX else f"over {DEVIATIONS_MAX:g}"
        text = f"{far} standard deviations {side} its habit"
        view, since = int(self.rows.view[index]), float(self.rows.since[index])
        if view != NO_VIEW:
            text += (
                f", most {_IN_WORDS[View(view)]}: {abs(float(self.rows.distance[index])):.1f} times the usual excess"
            )
        return text if np.isnan(since) else f"{text}, since {since:g} s"


class IncidentDetector:
    """A `metrics.detector.Detector` for `size` series.

    >>> rng = np.random.default_rng(1)
    >>> detector = IncidentDetector(2)
    >>> for t in range(200):
    ...     scores = detector.update(float(t), rng.normal(10.0, 1.0, 2))
    >>> detector.update(200.0, np.array([10.0, 25.0])).onset
    array([False,  True])
    >>> detector.update(201.0, np.array([10.0, 25.0])).onset
    array([False, False])
    """

    def __init__(self, size: int) -> None:
        self._detector = StreamingDetector(size)
        self._told = np.zeros(size, dtype=np.bool_)
        self._rows_told = np.zeros(size)

    def update(self, t: float, values: Floats, /) -> IncidentScores:
        """Score `values`, then learn those that belong to no fresh incident."""
        seen = np.isfinite(values)
        withheld = self._told & (self._rows_told < WITHHELD_ROWS)
        habit = self._detector.deviation
        own = habit.of(values)
        rows = self._detector.update(t, np.where(withheld, np.nan, values))
        # The detector's own deviation is that of a short mean, which still echoes what has just ended.
        echo = withheld | (np.abs(own) < np.abs(rows.deviation))
        deviation = np.clip(np.where(echo, own, rows.deviation), -DEVIATIONS_MAX, DEVIATIONS_MAX)
        known = seen & (self._detector.rows > WARM_UP_ROWS)
        score = np.where(known, np.abs(deviation), np.nan)
        # NaN compares False: an incident neither begins nor ends unseen.
        onset = ~self._told & (score >= BEGIN_DEVIATIONS) & (rows.evidence >= EVIDENCE_MIN_NATS)
        self._rows_told += self._told & seen
        self._told = (self._told | onset) & ~(score < END_DEVIATIONS)
        self._rows_told[~self._told] = 0.0
        return IncidentScores(score, onset, deviation, rows)
