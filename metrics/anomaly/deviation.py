"""How far from its recent habit is a series, in plain standard deviations?

The tails forgive nothing that is rare; this measure forgives what is frequent. Mean and variance are not clipped, so a
series that has just had a burst is not counted as far out when it has another. That is what a comparison between KPIs
and nodes needs, where one restless KPI must not outshout the rest.

Assumptions: second moments exist over a thousand rows.
Leaves out: time of day; the views know it.
"""

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.config import DetectorConfig
from metrics.anomaly.persistent import Persistent
from metrics.anomaly.rates import Rates

Floats = NDArray[np.float64]

_RELATIVE = 1e-3  # of the level: a change of a thousandth is no deviation, however still the series was
_TINY = 1e-9


class Deviation(Persistent):
    """Exponentially weighted mean and variance of every series."""

    def __init__(self, series: int, config: DetectorConfig) -> None:
        self._rate = config.deviation_rate
        self.mean = np.zeros(series)
        self.variance = np.zeros(series)

    def update(self, y: Floats, rates: Rates) -> Floats:
        """Signed deviation of ``y`` from the mean before it, in standard deviations; 0 where missing or first.

        Args:
            y: values ``(series,)``.
            rates: of this row.
        """
        first = rates.younger(1)
        if first is not None:
            np.copyto(self.mean, y, where=first)
        error = y - self.mean
        if not rates.complete:
            error *= rates.seen
        deviation: Floats = error / self._unit()
        rate = rates.at_least(self._rate)
        self.mean += rate * error
        self.variance += rate * (error * error - self.variance)
        return deviation

    def of(self, y: Floats) -> Floats:
        """Signed deviation of ``y`` from the habit without learning it, ``(series,)``; NaN where ``y`` is."""
        deviation: Floats = (y - self.mean) / self._unit()
        return deviation

    def _unit(self) -> Floats:
        unit: Floats = np.maximum(np.sqrt(self.variance), _RELATIVE * np.abs(self.mean) + _TINY)
        return unit
