"""Is this news, and how strange is it by this series' own standards?

An event passes as news only when its evidence exceeds all that is remembered: the last rows and, as far as they reach,
the last day. News is then measured against the typical news of the same series: a series of bursts has strong events
every day and only a far stronger one deserves a look, while in a quiet one little is enough.

Assumptions: the evidence of a series' ordinary events is roughly exponential, so that the share of events at least as
strong as ``e`` is exp(-e / typical).
Leaves out: events that last; :class:`metrics.anomaly.detector.Scores` tells since when.
"""

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.config import DetectorConfig
from metrics.anomaly.persistent import Persistent

Floats = NDArray[np.float64]

_SLOTS = 8  # undominated peaks remembered; more than 8 in falling order within a day change nothing in practice
_CLIP = 4.0  # one event raises the typical event as if it had been at most four times typical


class Events(Persistent):
    """Memory of recent peaks and of the typical event, for every series."""

    def __init__(self, series: int, config: DetectorConfig) -> None:
        self._config = config
        self.peak = np.zeros((_SLOTS, series))
        self.peak_row = np.zeros((_SLOTS, series))
        self.peak_time = np.zeros((_SLOTS, series))
        self.typical = np.full(series, config.event_prior)
        self.events = np.full(series, config.event_prior_weight)

    def update(self, at: NDArray[np.intp], evidence: Floats, rows: Floats, t: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """Which of the series ``at`` bring news, and their evidence over their typical event before this one.

        Args:
            at: indices of the series with evidence, ``(m,)``.
            evidence: their evidence in nats, positive, ``(m,)``.
            rows: their rows so far, ``(m,)``.
            t: their times in seconds, ``(m,)``.
        """
        c = self._config
        age_rows, age_s = rows - self.peak_row[:, at], t - self.peak_time[:, at]
        live = (age_rows <= c.memory_rows_min) | ((age_rows <= c.memory_rows_max) & (age_s <= c.memory_s))
        peaks = np.where(live, self.peak[:, at], 0.0)
        news = evidence > peaks.max(0)
        # What is weaker and older than this can no longer decide anything: its slot is free.
        peaks[peaks <= evidence] = 0.0
        self.peak[:, at] = peaks
        slot = peaks.argmin(0)
        free = peaks[slot, np.arange(at.size)] == 0.0
        slot, into = slot[free], at[free]
        self.peak[slot, into] = evidence[free]
        self.peak_row[slot, into] = rows[free]
        self.peak_time[slot, into] = t[free]
        typical = self.typical[at]
        ratio: Floats = evidence / typical
        self._learn(at[news], evidence[news])
        return news, ratio

    def _learn(self, at: NDArray[np.intp], evidence: Floats) -> None:
        self.events[at] += 1.0
        rate = np.maximum(self._config.event_rate, 1.0 / self.events[at])
        typical = self.typical[at]
        self.typical[at] += rate * (np.minimum(evidence, _CLIP * typical) - typical)
