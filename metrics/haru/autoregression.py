"""Where will each KPI be in a minute, and how sure is that? HARU, the harmonic autoregression.

The *change* of a series from tick to tick is regressed on its last changes, on how far it is from its fast and its slow
mean, on harmonics of the periods that it was found to have, and on how far the tunable parameters are from their slow
means. A regression that knows nothing says "no change": the prior of every forecast is persistence, and what does worse
than persistence at some horizon is drawn back towards it.

Everything is relative to the last value and to the usual size of a change, hence free of units and of levels. Gaps are
not learnt from: the forecast takes their place. So it does for up to `PATIENCE` outliers in a row, which then are the
new normal; after a change of a parameter nothing is an outlier. Memory is constant, O(K), and a tick costs the same
after a month as at the start.

Assumptions: one row a tick, in order; a tick number that jumps is a gap. Left out: what series have to do with each
other, and the plant's equations (`environment.py` uses those). A plant that starts afresh needs a new instance.

Source: docs/haru.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.anomaly.persistent import Persistent
from metrics.haru.periods import Periods
from metrics.haru.promises import EVERY_TICKS, Promises
from metrics.haru.regression import Floats, ForgettingRegression

CHANGES = 3  # last changes that the next one is regressed on
SLOTS, HARMONICS = 2, 3  # periods of a series, and sine waves of each
FAST_TICKS, SLOW_TICKS = 10.0, 200.0
MEMORY_MIN_TICKS, MEMORY_MAX_TICKS = 600.0, 20_000.0
CYCLES_REMEMBERED = 4.0
RIDGE_ROWS = 10.0
OUTLIER = 6.0  # usual errors from which a value is an outlier
HUBER = 2.0  # and beyond which it counts the less the farther it is off
PATIENCE = 3
EXCUSED_TICKS = 15.0  # after an input has changed, in which nothing is an outlier: it is what is to be learnt
WARM_UP_TICKS = 30
GAP_MAX_TICKS = 60  # a longer gap is not bridged
SKILL_TICKS = 500.0
STILL = 0.25  # movement below which coefficients stand still
ROWS_PER_FEATURE = 10  # rows that are needed before they can
FEATURES_OWN = 3 + CHANGES  # constant, two means, changes
OWN_MAX = 1e3  # after a long standstill a jump is any number of usual changes, and the square of that no evidence
INPUT_UNIT_MIN, INPUT_MAX = 0.01, 4.0  # inputs are relative to their mean, but 0 is no unit
VALUE_MAX = 1e100  # more than this is garbage, and its square no number
TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What is expected `horizon` ticks ahead, float64[K] each; NaN for a series without a value yet.

    Attributes:
        horizon: ticks.
        mean: expected value.
        low, high: bounds of the interval.
    """

    horizon: int
    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Convergence:
    """How far learning has come, one entry a series.

    Attributes:
        rows: float64[K], rows learnt.
        skill: float64[K], share of persistence's squared error, one tick ahead, that is saved; NaN where
            nothing ever changed.
        movement: float64[K], by how much the coefficients differ from their own mean of late, relative.
        converged: bool[K], enough rows, and the coefficients stand still.
        periods: float64[K, SLOTS], ticks; NaN where none is known.
        coverage: float64[K, H], share of truths that lay within the intervals so far, by horizon; NaN before the first.
    """

    rows: Floats
    skill: Floats
    movement: Floats
    converged: NDArray[np.bool_]
    periods: Floats
    coverage: Floats


class HarmonicAutoregression(Persistent):
    """Forecasts `series` series at once; `state()` and `restore()` carry it over a restart bit for bit.

    Args:
        series: K.
        inputs: number of tunable parameters that are known of each tick.
        horizons: ticks ahead for which intervals are calibrated, ascending.
        coverage: share of truths that the intervals shall hold.

    >>> haru = HarmonicAutoregression(series=1, horizons=(1, 5))
    >>> for tick in range(400):
    ...     haru.update(tick, [0.9 + 0.05 * (-0.8) ** tick])
    >>> bool(abs(haru.forecast(5).mean[0] - 0.9) < 0.001)
    True
    """

    def __init__(
        self, series: int, *, inputs: int = 0, horizons: tuple[int, ...] = (1, 5, 15, 60), coverage: float = 0.9
    ) -> None:
        self._series, self._inputs, self._longest = series, inputs, max(horizons)
        features = FEATURES_OWN + 2 * SLOTS * HARMONICS + inputs
        self._harmonic = slice(FEATURES_OWN, FEATURES_OWN + 2 * SLOTS * HARMONICS)
        self.clock = np.full(1, -1, dtype=np.int64)
        self.raw = np.full(series, np.nan)  # the last value that came, outlier or not: what persistence forecasts
        self.last = np.full(series, np.nan)
        self.changes = np.zeros((series, CHANGES))
        self.fast = np.zeros(series)
        self.slow = np.zeros(series)
        self.variance = np.zeros(series)
        self.scale = np.zeros(series)
        self.error = np.zeros(series)
        self.odd = np.zeros(series)
        self.rows = np.zeros(series)
        self.input = np.zeros(inputs)
        self.input_mean = np.zeros(inputs)
        self.excused = np.zeros(1)
        self.settled = np.zeros((series, features))
        self.square = np.zeros((2, series))
        self.regression = ForgettingRegression(series, features, ridge=RIDGE_ROWS)
        self.periods = Periods(series, SLOTS)
        self.promises = Promises(series, horizons, coverage)

    def update(self, tick: int, values: ArrayLike, inputs: ArrayLike = ()) -> None:
        """Take in one row; a tick that is not later than the last brings nothing new.

        Args:
            tick: number of the row.
            values: [K]; NaN, infinite or beyond `VALUE_MAX` where missing.
            inputs: the tunable parameters in force, finite.

        Raises:
            ValueError: `values` or `inputs` has another shape than it should, or an input is not finite.
        """
        values, inputs = np.asarray(values, np.float64), np.asarray(inputs, np.float64)
        if values.shape != (self._series,) or inputs.shape != (self._inputs,) or not np.isfinite(inputs).all():
            raise ValueError(
                f"expected {self._series} values and {self._inputs} finite inputs, "
                f"got shapes {values.shape} and {inputs.shape}"
            )
        if tick <= self.clock[0]:
            return
        values = np.where(np.abs(values) <= VALUE_MAX, values, np.nan)
        self._follow_inputs(inputs)
        if self.clock[0] >= 0 and tick - self.clock[0] <= GAP_MAX_TICKS:
            for _ in range(tick - int(self.clock[0]) - 1):
                self._advance(np.full(self._series, np.nan))
        self.clock[0] = tick - 1
        self.promises.check(tick, values)
        self._advance(values)
        self.raw = np.where(np.isfinite(values), values, self.raw)
        if tick % EVERY_TICKS == 0:
            path = self._path(self._longest)
            self.promises.keep(tick, self.raw, path, np.where(self.rows >= WARM_UP_TICKS, self.scale, 0.0))

    def forecast(self, horizon: int) -> Forecast:
        """What is expected `horizon` ticks after the last row, inputs unchanged.

        The interval between two calibrated horizons follows from both; beyond the last it grows with the square root.

        Raises:
            ValueError: the horizon is not positive.
        """
        if horizon < 1:
            raise ValueError(f"a forecast looks ahead by at least 1 tick, not {horizon}")
        model = self._path(horizon)[-1]
        # Right after a change of a parameter the shares of quiet times say nothing, and persistence knows of no change.
        share = 1.0 if self.excused[0] > 0.0 else self.promises.share(horizon)
        mean = self.raw + share * (model - self.raw)
        half = self.promises.width(horizon) * self.scale
        return Forecast(horizon, mean, mean - half, mean + half)

    def convergence(self) -> Convergence:
        """How far learning has come."""
        moved = np.linalg.norm(self.regression.coefficients - self.settled, axis=1)
        movement = moved / (0.1 + np.linalg.norm(self.settled, axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            skill = 1.0 - self.square[0] / self.square[1]
            coverage = self.promises.intervals.inside / self.promises.intervals.scored
        features = self.settled.shape[1]
        return Convergence(
            rows=self.rows.copy(),
            skill=skill,
            movement=movement,
            converged=(self.rows >= ROWS_PER_FEATURE * features) & (movement < STILL),
            periods=self.periods.found.copy(),
            coverage=coverage,
        )

    def _follow_inputs(self, inputs: Floats) -> None:
        if self.clock[0] < 0:
            self.input_mean[...] = self.input[...] = inputs
        self.excused[0] = EXCUSED_TICKS if (inputs != self.input).any() else max(self.excused[0] - 1.0, 0.0)
        self.input[...] = inputs
        self.input_mean += (inputs - self.input_mean) / SLOW_TICKS

    def _features(self, tick: int, last: Floats) -> Floats:
        """float64[K, d], what the change towards `tick` is regressed on."""
        unit = np.maximum(self.scale, TINY)
        features: Floats = np.empty((self._series, self.settled.shape[1]))
        own = features[:, :FEATURES_OWN]
        own[:, 0] = 1.0
        own[:, 1] = (self.fast - last) / unit
        own[:, 2] = (self.slow - last) / unit
        own[:, 3:] = self.changes / unit[:, np.newaxis]
        np.minimum(np.maximum(own, -OWN_MAX, out=own), OWN_MAX, out=own)
        features[:, self._harmonic] = self._waves(tick, 1)[0]
        features[:, self._harmonic.stop :] = self._away()
        return features

    def _away(self) -> Floats:
        """float64[inputs], how far the tunable parameters are from their slow means, relative."""
        away = (self.input - self.input_mean) / np.maximum(np.abs(self.input_mean), INPUT_UNIT_MIN)
        return np.minimum(np.maximum(away, -INPUT_MAX), INPUT_MAX)

    def _waves(self, tick: int, ticks: int) -> Floats:
        """float64[ticks, K, 2 · SLOTS · HARMONICS], cosines and sines of the harmonics; 0 where no period is known."""
        known = ~np.isnan(self.periods.found)
        if not known.any():
            return np.zeros((ticks, self._series, 2 * SLOTS * HARMONICS))
        times = np.arange(tick, tick + ticks, dtype=np.float64)[:, np.newaxis, np.newaxis]
        turns = times / np.where(known, self.periods.found, 1.0) % 1.0
        angle = 2.0 * np.pi * turns[..., np.newaxis] * np.arange(1, HARMONICS + 1)
        waves = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * known[:, :, np.newaxis, np.newaxis]
        flat: Floats = waves.reshape(ticks, self._series, -1)
        return flat

    def _advance(self, values: Floats) -> None:
        """One tick: forecast it, compare, learn, and move on with the value or, in its place, the forecast."""
        self.clock[0] += 1
        first = np.isnan(self.last) & np.isfinite(values)
        if first.any():
            self.last[first] = self.fast[first] = self.slow[first] = values[first]
        known = ~np.isnan(self.last)
        last = np.where(known, self.last, 0.0)
        features = self._features(int(self.clock[0]), last)
        features *= known[:, np.newaxis]
        expected = last + self.regression.predict(features) * self.scale
        seen = known & ~first & np.isfinite(values)
        error = np.where(seen, values - expected, 0.0)
        oddness = np.abs(error) / np.maximum(self.error, TINY)
        if self.excused[0] > 0.0:
            oddness = np.minimum(oddness, HUBER)
        outlier = seen & (oddness > OUTLIER) & (self.rows >= WARM_UP_TICKS)
        self.odd = np.where(outlier, self.odd + 1.0, np.where(seen, 0.0, self.odd))
        refused = outlier & (self.odd <= PATIENCE)
        accepted = seen & ~refused
        self._learn(features, values, last, oddness, accepted)
        self._move(np.where(accepted | first, values, expected), last, known, accepted)

    def _learn(
        self, features: Floats, values: Floats, last: Floats, oddness: Floats, accepted: NDArray[np.bool_]
    ) -> None:
        change = np.where(accepted, values - last, 0.0)
        warm = self.rows >= WARM_UP_TICKS
        target = np.minimum(np.maximum(change / np.maximum(self.scale, TINY), -4.0 * OUTLIER), 4.0 * OUTLIER)
        weight = np.where(accepted & warm, 1.0 / np.maximum(oddness / HUBER, 1.0), 0.0)
        longest = np.fmax.reduce(self.periods.found, axis=1, initial=0.0)
        memory = np.minimum(np.maximum(CYCLES_REMEMBERED * longest, MEMORY_MIN_TICKS), MEMORY_MAX_TICKS)
        own = np.where(accepted, np.abs(values - (last + self.regression.predict(features) * self.scale)), 0.0)
        if weight.any():
            self.regression.learn(features, target, weight, memory)
            self.settled += (weight > 0.0)[:, np.newaxis] * (self.regression.coefficients - self.settled) / 100.0
        self.rows += accepted
        rate = np.where(accepted, 1.0 / np.minimum(np.maximum(self.rows, 1.0), SLOW_TICKS), 0.0)
        self.error += rate * (1.25 * own - self.error)
        slow = np.where(accepted & warm, 1.0 / SKILL_TICKS, 0.0)
        self.square[0] += slow * (own**2 - self.square[0])
        self.square[1] += slow * (change**2 - self.square[1])
        usual = np.where(warm, np.minimum(np.abs(change), 2.0 * OUTLIER * np.maximum(self.scale, TINY)), np.abs(change))
        floor = 0.01 * np.sqrt(self.variance) + 1e-9 * np.abs(last)
        self.scale = np.maximum(self.scale + rate * (1.25 * usual - self.scale), np.where(accepted, floor, 0.0))
        self.error = np.maximum(self.error, np.where(accepted, floor, 0.0))

    def _move(self, value: Floats, last: Floats, known: NDArray[np.bool_], accepted: NDArray[np.bool_]) -> None:
        value = np.where(known, value, 0.0)
        self.changes[:, 1:] = self.changes[:, :-1]
        self.changes[:, 0] = value - last
        rate = 1.0 / np.minimum(np.maximum(self.rows, 1.0), SLOW_TICKS)
        self.variance += np.where(accepted, rate * ((value - self.slow) ** 2 - self.variance), 0.0)
        self.fast += (value - self.fast) / FAST_TICKS
        self.slow += rate * (value - self.slow)
        self.last = np.where(known, value, np.nan)
        changed = self.periods.update(value)
        self.regression.forget(changed, self._harmonic)

    def _path(self, horizon: int) -> Floats:
        """float64[horizon, K], the model's own forecasts, each tick following from the one before.

        What a wave, a parameter or the constant adds is known beforehand for all ticks; what is left to follow tick by
        tick is so little that plain numbers are several times as fast as arrays of a few series.
        """
        theta = self.regression.coefficients
        waves = self._waves(int(self.clock[0]) + 1, horizon)
        steady = theta[:, 0] + theta[:, self._harmonic.stop :] @ self._away()
        drive = self.scale * (steady + np.einsum("tkd,kd->tk", waves, theta[:, self._harmonic]))
        # Where a series is so still that TINY is its unit, its features are that much smaller.
        own = (self.scale / np.maximum(self.scale, TINY))[:, np.newaxis] * theta[:, 1:FEATURES_OWN]
        spread = 6.0 * np.sqrt(self.variance) + np.abs(self.last - self.slow)
        state = np.column_stack([self.last, self.fast, self.slow, self.changes])
        series = zip(
            drive.T.tolist(),
            own.tolist(),
            state.tolist(),
            (self.slow - spread).tolist(),
            (self.slow + spread).tolist(),
            strict=True,
        )
        return np.array([_followed(*one) for one in series]).T


def _followed(drive: list[float], own: list[float], state: list[float], low: float, high: float) -> list[float]:
    """The values of one series, tick after tick.

    Args:
        drive: for each tick, what changes the value whatever it was before.
        own: what a unit of distance from the fast and the slow mean and of the last changes changes it by.
        state: last value, fast and slow mean, and the last changes, the latest first.
        low: lower bound of the values, NaN with a last value that is.
        high: upper bound, likewise.
    """
    to_fast, to_slow, first, second, third = own
    last, fast, slow, change, before, long_before = state
    path = []
    for pushed in drive:
        pulled = to_fast * (fast - last) + to_slow * (slow - last)
        value = last + (pushed + pulled + first * change + second * before + third * long_before)
        value = min(max(value, low), high)
        change, before, long_before = value - last, change, before
        fast += (value - fast) / FAST_TICKS
        slow += (value - slow) / SLOW_TICKS
        last = value
        path.append(value)
    return path
