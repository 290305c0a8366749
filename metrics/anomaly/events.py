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

_SLOTS = 4  # undominated peaks remembered; a fifth in falling order is forgotten, and may be news once more
_CLIP = 4.0  # one event raises the typical event as if it had been at most four times typical


class Events(Persistent):
    """Memory of recent peaks and of the typical event, for every series."""

    def __init__(self, series: int, config: DetectorConfig) -> None:
        self._config = config
        self.peaks = np.zeros((series, 3, _SLOTS))  # evidence, row and time of each, side by side for the cache
        self.typical = np.full(series, config.event_prior)
        self.events = np.full(series, config.event_prior_weight)

    def update(
        self, at: NDArray[np.intp], evidence: Floats, rows: Floats, t: Floats
    ) -> tuple[NDArray[np.bool_], Floats]:
        """Takes the series that show evidence in this row, and remembers them.

        Args:
            at: indices of those series, ``(m,)``.
            evidence: their evidence in nats, positive, ``(m,)``.
            rows: their rows so far, ``(m,)``.
            t: their times in seconds, ``(m,)``.

        Returns:
            Which of them bring news, and for all their score, the assumed share of weaker events: 1 - exp(-evidence /
            typical event).
        """
        c = self._config
        peaks, row, time = self.peaks[at].swapaxes(0, 1)
        age_rows, age_s = rows[:, None] - row, t[:, None] - time
        live = age_rows <= c.memory_rows_min
        live |= (age_rows <= c.memory_rows_max) & (age_s <= c.memory_s)
        peaks *= live
        news = evidence > peaks.max(1)
        # A peak that is older and not stronger than this one can decide nothing any more, so its slot is free.
        peaks *= peaks > evidence[:, None]
        self.peaks[at, 0] = peaks
        slot = peaks.argmin(1)
        free = peaks[np.arange(at.size), slot] == 0.0
        self.peaks[at[free], :, slot[free]] = np.stack([evidence, rows, t], 1)[free]
        score: Floats = -np.expm1(-evidence / self.typical[at])
        self._learn(at[news], evidence[news])
        return news, score

    def _learn(self, at: NDArray[np.intp], evidence: Floats) -> None:
        self.events[at] += 1.0
        rate = np.maximum(self._config.event_rate, 1.0 / self.events[at])
        typical = self.typical[at]
        self.typical[at] += rate * (np.minimum(evidence, _CLIP * typical) - typical)
