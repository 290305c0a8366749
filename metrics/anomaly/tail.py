"""How far out in its own tail is a value? Streaming peaks over threshold, both tails, constant memory.

Each view keeps an upper and a lower limit, which a share ``tail_share`` of its rows passes, and the mean excess beyond
each. An exponential tail then gives the evidence -ln P(excess or more | beyond the limit) = excess / mean excess.
What a single row can teach is clipped: outliers stay outliers, while a lasting shift pulls the limits after it.

Assumptions: tails no heavier than a clipped exponential describes; the events stage forgives heavier ones by comparing
a series' events with each other.
Leaves out: dependence between rows.

Source: Pickands-Balkema-de Haan theorem as used by Siffer et al., "Anomaly Detection in Streams with Extreme Value
Theory", KDD 2017, with a stochastic-approximation quantile (Robbins and Monro 1951) in place of stored peaks.
"""

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.config import DetectorConfig
from metrics.anomaly.persistent import Persistent
from metrics.anomaly.rates import Rates

Floats = NDArray[np.float64]

_YOUNG_ROWS = 10  # until then the limits are set from the spread instead of being walked
_YOUNG_DEVIATIONS = 3.0
_STEP_DEVIATIONS = 5.0
_PRIOR_EXCEEDANCES = 5.0
_DUST = 1e-3  # of the view's own deviation, the least mean excess
_TINY = 1e-12


class Tails(Persistent):
    """Both tails of ``views x series`` streams; ``unitless`` tells which views are in deviations of their series."""

    def __init__(self, unitless: NDArray[np.bool_], series: int, config: DetectorConfig) -> None:
        self._config = config
        self._unitless = unitless
        shape = (unitless.size, series)
        self.location = np.zeros(shape)
        self.spread = np.zeros(shape)
        self.upper = np.zeros(shape)
        self.lower = np.zeros(shape)
        self.excess = np.zeros((2, *shape))  # mean excess beyond upper, lower
        self.count = np.zeros((2, *shape))
        self._scratch = np.zeros((2, *shape))

    def update(self, v: Floats, unit: Floats, rates: Rates) -> tuple[NDArray[np.intp], Floats]:
        """Finds what lies beyond its limits, then learns the row.

        Args:
            v: values ``(views, series)``.
            unit: mean deviation of each series, ``(series,)``.
            rates: of this row.

        Returns:
            Flat indices into ``views x series`` of the values beyond a limit, and their evidence in nats, positive
            above the upper limit and negative below the lower one.
        """
        c = self._config
        young = rates.younger(_YOUNG_ROWS)
        outside = v > self.upper
        outside |= v < self.lower
        if young is not None:
            outside &= ~young
        if not rates.complete:
            outside &= rates.seen
        at = np.flatnonzero(outside)
        rate = rates.at_least(c.limit_rate) * _STEP_DEVIATIONS
        evidence = self._beyond(at, v.ravel()[at], unit, rates.rows, rate)
        step = np.multiply(self.spread, rate * c.tail_share, out=self._scratch[0])
        self.upper -= step
        self.lower += step
        self._learn_unit(v, rates, young)
        if young is not None:
            self._begin(young)
        return at, evidence

    def _beyond(self, at: NDArray[np.intp], v: Floats, unit: Floats, rows: Floats, rate: Floats | float) -> Floats:
        """The few entries outside their limits: evidence, mean excess, and the limit's long step outwards."""
        if not at.size:
            return np.zeros(0)
        c = self._config
        upper, lower = self.upper.ravel(), self.lower.ravel()
        mean, count = self.excess.ravel(), self.count.ravel()
        view, series = np.divmod(at, rows.size)
        spread = self.spread.ravel()[at]
        floor = c.scale_floor * np.where(self._unitless[view], 1.0, unit[series])
        above = v > upper[at]
        beyond = np.where(above, v - upper[at], lower[at] - v)
        slot = np.where(above, at, at + upper.size)
        typical = mean[slot] + np.maximum(floor, _DUST * spread) + _TINY
        evidence = np.minimum(beyond / typical, c.evidence_max) * (rows[series] > c.warmup_rows)
        count[slot] += 1.0
        forget = np.maximum(c.excess_rate, 1.0 / (count[slot] + _PRIOR_EXCEEDANCES))
        mean[slot] += forget * (np.minimum(beyond, c.clip_deviations * typical) - mean[slot])
        step = np.broadcast_to(rate, rows.shape)[series] * spread
        upper[at] += step * above
        lower[at] -= step * ~above
        return np.where(above, evidence, -evidence)

    def _learn_unit(self, v: Floats, rates: Rates, young: NDArray[np.bool_] | None) -> None:
        rate = rates.at_least(self._config.drift_rate)
        error, limit = self._scratch
        np.multiply(self.spread, self._config.clip_deviations, out=limit)
        limit += _TINY
        if young is not None:
            limit[:, young] = np.inf
            first = young & (rates.rows == 1.0)
            self.location[:, first] = v[:, first]
        np.subtract(v, self.location, out=error)
        np.minimum(error, limit, out=error)
        np.negative(limit, out=limit)
        np.maximum(error, limit, out=error)
        self.location += np.multiply(error, rate, out=limit)
        np.abs(error, out=error)
        error -= self.spread
        error *= rate
        self.spread += error

    def _begin(self, young: NDArray[np.bool_]) -> None:
        """Sets the limits of series in their first rows: three mean deviations around the mean."""
        reach = _YOUNG_DEVIATIONS * self.spread[:, young]
        self.upper[:, young] = self.location[:, young] + reach
        self.lower[:, young] = self.location[:, young] - reach
        self.excess[:, :, young] = self.spread[:, young]
