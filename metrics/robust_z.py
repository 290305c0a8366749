"""Is this value strange, given the last two minutes? A robust z-score over a ring of recent values.

score = |x − median| / spread, with median and spread (1.4826 · MAD) of the last `window` values, of which nearly half
may be outliers without moving either. A score of `begin` starts an anomaly, which lasts until the score falls below
`end` (hysteresis): one onset for each event. Values within an anomaly are learnt as well, so that a level that stays
becomes the new normal after about half a window.

Assumptions: a series hovers around a level; a steady trend scores about 1.4 at most. Left out: limits, seasons, and
what several series say together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NORMAL_MAD = 1.4826  # from median absolute deviation to standard deviation, for a normal distribution
RELATIVE_SPREAD_MIN = 0.002  # a smaller spread than this share of the level is taken for this share
ABSOLUTE_SPREAD_MIN = 1e-6  # the same around 0
SCORE_MAX = 100.0  # beyond this "how far" says no more than "far"


@dataclass(frozen=True, slots=True, eq=False)
class ZScores:
    """What one tick scored.

    Attributes:
        score: float64[K], robust standard deviations; NaN where the value or the history is missing.
        onset: bool[K], an anomaly begins.
    """

    score: NDArray[np.float64]
    onset: NDArray[np.bool_]


class RobustZ:
    """A `Detector` for `size` series.

    Args:
        size: K.
        window: values that are remembered.
        warm_up: finite values of a series before it is scored.
        begin: score at which an anomaly begins.
        end: score below which it ends.

    >>> detector = RobustZ(1, warm_up=4)
    >>> for t, value in enumerate((1.0, 1.1, 0.9, 1.0, 1.1, 5.0, 5.0)):
    ...     scores = detector.update(t, np.array([value]))
    ...     print(t, scores.score[0].round(1), scores.onset[0])
    0 nan False
    1 nan False
    2 nan False
    3 nan False
    4 1.3 False
    5 27.0 True
    6 53.3 False
    """

    def __init__(
        self, size: int, *, window: int = 120, warm_up: int = 60, begin: float = 8.0, end: float = 4.0
    ) -> None:
        self._ring = np.full((window, size), np.nan)
        self._warm_up = warm_up
        self._begin = begin
        self._end = end
        self._next = np.zeros(size, dtype=np.intp)
        self._anomalous = np.zeros(size, dtype=np.bool_)
        self._score = np.full(size, np.nan)
        self._t = -math.inf

    def update(self, t: float, values: NDArray[np.float64]) -> ZScores:
        """Score `values`, then learn them; a `t` that was seen before brings nothing new, and no onset."""
        if t <= self._t:
            return ZScores(self._score, np.zeros_like(self._anomalous))
        self._t = t
        score = self._deviation(values)
        # NaN compares False: an anomaly neither begins nor ends unseen.
        anomalous = (score >= self._begin) | (self._anomalous & ~(score < self._end))
        onset = anomalous & ~self._anomalous
        self._score, self._anomalous = score, anomalous
        self._learn(values)
        return ZScores(score, onset)

    def _deviation(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        known = np.isfinite(self._ring).sum(axis=0)
        median = _column_medians(self._ring, known)
        spread = NORMAL_MAD * _column_medians(np.abs(self._ring - median), known)
        floor = np.maximum(RELATIVE_SPREAD_MIN * np.abs(median), ABSOLUTE_SPREAD_MIN)
        score = np.minimum(np.abs(values - median) / np.fmax(spread, floor), SCORE_MAX)
        return np.where((known >= self._warm_up) & np.isfinite(values), score, np.nan)

    def _learn(self, values: NDArray[np.float64]) -> None:
        """Each series keeps its own place in the ring, so that missing values push none out."""
        columns = np.flatnonzero(np.isfinite(values))
        self._ring[self._next[columns], columns] = values[columns]
        self._next[columns] = (self._next[columns] + 1) % len(self._ring)


def _column_medians(table: NDArray[np.float64], known: NDArray[np.intp]) -> NDArray[np.float64]:
    """float64[K]: median of the `known` finite values of each column; NaN sorts to the end and is not reached."""
    ordered = np.sort(table, axis=0)
    columns = np.arange(table.shape[1])
    upper = np.minimum(known // 2, len(table) - 1)
    return np.asarray((ordered[np.maximum(known - 1, 0) // 2, columns] + ordered[upper, columns]) / 2.0)
