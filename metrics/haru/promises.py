"""Were earlier forecasts right? Every so often some are kept until their truth comes, and teach two things.

How much of the model's lead over persistence deserves belief (the share that lost least of late, 0 to 1, so that a
model that is worse than persistence is not heard), and how wide the intervals must be.

Assumptions: ticks ascend. A forecast whose tick never came is forgotten.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.persistent import Persistent
from metrics.haru.intervals import Intervals
from metrics.haru.regression import Floats

EVERY_TICKS = 15
SHARES = np.linspace(0.0, 1.0, 5)
LOSS_CHECKS = 50.0  # that the loss of a share is averaged over


class Promises(Persistent):
    """Forecasts that wait for their truth, and what the earlier ones taught.

    Args:
        series: K.
        horizons: ticks ahead, ascending.
        coverage: share of truths that the intervals shall hold.

    Attributes:
        due: int64[H, D], tick of the truth of each kept forecast; −1 for an empty place.
        waiting: float64[H, D, 3, K], last value, the model's forecast and the scale when it was made.
        loss: float64[S, H, K], mean absolute error of late of each share.
        intervals: their widths.
    """

    def __init__(self, series: int, horizons: tuple[int, ...], coverage: float) -> None:
        self._horizons = np.array(horizons)
        depth = 2 + max(horizons) // EVERY_TICKS
        self.due = np.full((len(horizons), depth), -1, dtype=np.int64)
        self.waiting = np.full((len(horizons), depth, 3, series), np.nan)
        self.loss = np.zeros((len(SHARES), len(horizons), series))
        self.intervals = Intervals(series, horizons, coverage)

    def keep(self, tick: int, last: Floats, path: Floats, scale: Floats) -> None:
        """Keep what was forecast at `tick`: float64[K] last values, float64[≥ max horizon, K] forecasts, the scale."""
        place = (tick // EVERY_TICKS) % self.due.shape[1]
        self.due[:, place] = tick + self._horizons
        self.waiting[:, place, 0] = last
        self.waiting[:, place, 1] = path[self._horizons - 1]
        self.waiting[:, place, 2] = scale

    def check(self, tick: int, values: Floats) -> None:
        """Compare the forecasts that were made for `tick` with the truth, float64[K], NaN where missing."""
        for h, place in zip(*np.nonzero(self.due == tick), strict=True):
            origin, model, scale = self.waiting[h, place]
            seen: NDArray[np.bool_] = np.isfinite(values) & np.isfinite(origin) & (scale > 0.0)
            unit = np.where(seen, scale, 1.0)
            lead = np.where(seen, model - origin, 0.0) / unit
            truth = np.where(seen, values - origin, 0.0) / unit
            self.intervals.score(int(h), np.abs(truth - self._share(int(h)) * lead), seen)
            loss = np.abs(truth - SHARES[:, np.newaxis] * lead)
            self.loss[:, h] += np.where(seen, (loss - self.loss[:, h]) / LOSS_CHECKS, 0.0)

    def share(self, horizon: int) -> Floats:
        """float64[K], how much of the model's lead over persistence is believed so many ticks ahead."""
        return self._share(int(np.searchsorted(self._horizons, horizon).clip(0, len(self._horizons) - 1)))

    def width(self, horizon: int) -> Floats:
        """float64[K], half width of the interval in units of the scale.

        Between two horizons it follows from both; beyond the last it grows with the square root.
        """
        width = self.intervals.width
        above = int(np.searchsorted(self._horizons, horizon))
        if above == len(self._horizons):
            beyond: Floats = width[:, -1] * np.sqrt(horizon / self._horizons[-1])
            return beyond
        below = max(above - 1, 0)
        span = max(int(self._horizons[above] - self._horizons[below]), 1)
        part = float(np.clip((horizon - self._horizons[below]) / span, 0.0, 1.0)) if above > below else 1.0
        between: Floats = (1.0 - part) * width[:, below] + part * width[:, above]
        return between

    def _share(self, h: int) -> Floats:
        best: Floats = SHARES[np.argmin(self.loss[:, h], axis=0)]
        return best
