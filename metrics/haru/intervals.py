"""How far may the truth lie from a forecast? Widths that correct themselves until they cover what they promise.

For each series and horizon one number, the width in units of the series' scale: it grows a little when the truth falls
outside and shrinks a little less when it falls inside, such that in the long run exactly the promised share is inside,
whatever the distribution of errors is and however it changes.

Source: I. Gibbs, E. Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021; the step acts on the
logarithm of the width, so that it is always positive and its step needs no unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.persistent import Persistent

Floats = NDArray[np.float64]

STEP_FIRST, STEP_LAST = 0.5, 0.1
START = 20  # truths from whose mean error the width starts
WIDTH_PER_ERROR = 2.06  # half width of a normal's central 90 %, in mean absolute errors
WIDTH_MIN, WIDTH_MAX = 1e-6, 1e6


class Intervals(Persistent):
    """Widths for forecasts over several horizons.

    Args:
        series: K.
        horizons: ticks ahead.
        coverage: share of truths that shall lie inside, 0 to 1.

    Attributes:
        width: float64[K, H], half width of the interval, in units of the scale.
        scored: float64[K, H], truths that were compared.
        inside: float64[K, H], how many of them lay inside.
        mean: float64[K, H], mean error of the first truths.
    """

    def __init__(self, series: int, horizons: tuple[int, ...], coverage: float) -> None:
        self._coverage = coverage
        self.width = np.tile(1.6 * np.sqrt(np.array(horizons, np.float64)), (series, 1))
        self.scored = np.zeros((series, len(horizons)))
        self.inside = np.zeros((series, len(horizons)))
        self.mean = np.zeros((series, len(horizons)))

    def score(self, horizon: int, error: Floats, seen: NDArray[np.bool_]) -> None:
        """Compare the truths with forecasts made `horizon` places down the list.

        Args:
            horizon: index into the horizons.
            error: float64[K], absolute error in units of the scale at the time of the forecast.
            seen: bool[K], a truth came.
        """
        covered = error <= self.width[:, horizon]
        self.scored[:, horizon] += seen
        self.inside[:, horizon] += seen & covered
        count = np.maximum(self.scored[:, horizon], 1.0)
        step = np.maximum(STEP_LAST, STEP_FIRST / np.sqrt(count))
        direction = np.where(covered, -(1.0 - self._coverage), self._coverage)
        moved = self.width[:, horizon] * np.exp(step * direction)
        early = count <= START
        self.mean[:, horizon] += np.where(seen & early, (error - self.mean[:, horizon]) / count, 0.0)
        moved = np.where(early, np.maximum(WIDTH_PER_ERROR * self.mean[:, horizon], error), moved)
        self.width[:, horizon] = np.clip(np.where(seen, moved, self.width[:, horizon]), WIDTH_MIN, WIDTH_MAX)
