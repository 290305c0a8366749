"""Eight causal views of a series: what would a value have to look like to be strange in this respect?

One number can be strange by its level, by its jump, by its time of day or by not following from the two before it. Each
view is a linear or monotone function of the past, so that its tail can be learned separately and an alarm can name it.

Assumptions: rows arrive in time order, at any spacing; a day and a week are the natural cycles of whatever people use.
Leaves out: relations between series, which :mod:`metrics.anomaly.verdict` looks at.

Source: docs/anomaly.md, "Views".
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.config import DetectorConfig
from metrics.anomaly.persistent import Persistent

Floats = NDArray[np.float64]


class View(IntEnum):
    """The respect in which a value is strange. The numbers are stored and never change their meaning."""

    LEVEL = 0
    """The value itself."""
    SHORT_MEAN = 1
    """The mean of about the last two rows: a weaker but repeated excess."""
    JUMP = 2
    """The value against the mean of about the last ten rows."""
    COMPRESSED_JUMP = 3
    """The same on a logarithm-like scale: a jump out of silence in a series of bursts."""
    DAY = 4
    """Against what is usual in this hour of the day."""
    DAY_FINE = 5
    """Against what was usual in this half hour on the last few days."""
    WEEK = 6
    """Against what is usual in this hour of the week."""
    DYNAMICS = 7
    """Against what a second-order autoregression expects after the last two values."""


VIEWS = len(View)

_SHORT_RATE = 0.5  # mean of about two rows
_JUMP_RATE = 0.1  # mean of about ten rows
_FALLBACK_RATE = 0.02  # what stands in for a time of day never seen before
_DAY_S = 86400.0
_WEEK_S = 604800.0
_SAMPLING_S = 300.0  # profiles learn per row up to one row in five minutes, per second when rows come faster
_AR_FORGETTING = 0.999
_AR_COVARIANCE_MAX = 200.0  # trace; stops the wind-up of a regression that is no longer excited
_AR_INPUT_MAX = 1e6  # in deviations; keeps squares finite
_AR_CLIP = 3.0  # an innovation teaches at most this many mean innovations
_AR_RATE = 0.005
_YOUNG_ROWS = 20  # before this age the first rows teach location and scale unclipped
_TINY = 1e-12
_RELATIVE = 1e-6  # of the level: rounding, not movement


class Profile(Persistent):
    """Running mean of a value by phase of a cycle."""

    def __init__(self, series: int, phases: int, period_s: float, rate: float) -> None:
        self._phases, self._period_s, self._rate = phases, period_s, rate
        self.mean = np.zeros((phases, series))
        self.visits = np.zeros((phases, series), np.float32)
        self._column = np.arange(series)

    def residual(self, t: Floats, x: Floats, fallback: Floats, pace: Floats, seen: Floats) -> Floats:
        """``x`` less the mean of its phase, which then learns ``x``; ``fallback`` stands in for a new phase.

        Args:
            t: seconds, one time for all series (0-d) or one for each.
            x: values ``(series,)``.
            fallback: what is expected in a phase never seen before.
            pace: share of the full learning rate, 0 to 1.
            seen: 1.0 where a value came, else 0.0.
        """
        phase = ((t % self._period_s) * (self._phases / self._period_s)).astype(np.intp)
        at = phase if phase.ndim == 0 else (phase, self._column)
        mean, visits = self.mean[at], self.visits[at]
        mean = np.where(visits == 0.0, fallback, mean)
        residual: Floats = x - mean
        visits = visits + seen
        rate = np.maximum(self._rate * pace, 1.0 / np.maximum(visits, 1.0)) * seen
        self.mean[at] = mean + rate * residual
        self.visits[at] = visits
        return residual


class Autoregression(Persistent):
    """Second-order autoregression by recursive least squares with forgetting, robust to outliers.

    Source: Haykin, Adaptive Filter Theory, recursive least squares; the innovation is clipped as in Huber's estimator.
    """

    def __init__(self, series: int) -> None:
        self.past = np.zeros((2, series))
        self.weight = np.stack([np.ones(series), np.zeros(series)])
        self.covariance = np.stack([np.full(series, 100.0), np.zeros(series), np.full(series, 100.0)])
        self.spread = np.ones(series)

    def innovation(self, u: Floats, age_rate: Floats, seen: Floats) -> Floats:
        """What the last two values did not tell of ``u``, in the units of ``u``."""
        p1, p2 = self.past
        a, b, c = self.covariance
        error: Floats = (u - self.weight[0] * p1 - self.weight[1] * p2) * (age_rate < 1.0)
        limit = _AR_CLIP * self.spread
        lesson = np.minimum(np.maximum(error, -limit), limit)
        g1, g2 = a * p1 + b * p2, b * p1 + c * p2
        gain = seen / (_AR_FORGETTING + p1 * g1 + p2 * g2)
        self.weight[0] += g1 * gain * lesson
        self.weight[1] += g2 * gain * lesson
        rate = np.maximum(_AR_RATE, age_rate) * seen
        self.spread += rate * (np.minimum(np.abs(error), limit + _TINY) - self.spread)
        a -= g1 * g1 * gain
        b -= g1 * g2 * gain
        c -= g2 * g2 * gain
        self.covariance *= np.where(seen > 0.0, np.minimum(1.0 / _AR_FORGETTING, _AR_COVARIANCE_MAX / (a + c)), 1.0)
        self.past[1] = np.where(seen > 0.0, p1, p2)
        self.past[0] = np.where(seen > 0.0, np.minimum(np.maximum(u, -_AR_INPUT_MAX), _AR_INPUT_MAX), self.past[0])
        return error


class Views(Persistent):
    """All views of many series, updated together."""

    def __init__(self, series: int, config: DetectorConfig) -> None:
        self._config = config
        self.rows = np.zeros(series)
        self.time = np.zeros(series)
        self.last = np.zeros(series)
        self.location = np.zeros(series)
        self.scale = np.zeros(series)
        self.short = np.zeros(series)
        self.mean = np.zeros(series)
        self.compressed = np.zeros(series)
        self.fallback = np.zeros(series)
        self.day = Profile(series, 24, _DAY_S, 0.1)
        self.day_fine = Profile(series, 48, _DAY_S, 0.3)
        self.week = Profile(series, 168, _WEEK_S, 0.3)
        self.dynamics = Autoregression(series)
        self.values = np.zeros((VIEWS, series))
        self.floor = np.zeros((VIEWS, series))

    def update(self, t: Floats, x: Floats, seen: Floats) -> None:
        """Takes one row and leaves its views in ``values`` and the smallest excesses that count in ``floor``.

        Args:
            t: seconds since the epoch, ``(series,)``.
            x: values ``(series,)``, finite; where ``seen`` is 0 the last known value.
            seen: 1.0 where a value came, 0.0 where it is missing.
        """
        self.rows += seen
        first = (self.rows == 1.0) & (seen > 0.0)
        if first.any():
            self._begin(first, t, x)
        age_rate = 1.0 / np.maximum(self.rows, 1.0)
        unit = np.maximum(self.scale, _RELATIVE * np.abs(self.location))
        unit = np.where(unit > 0.0, unit, 1.0)
        u = (x - self.location) / unit
        z = np.copysign(np.log(1.0 + np.abs(u)), u)
        for mean, new, rate in (
            (self.short, x, _SHORT_RATE),
            (self.mean, x, _JUMP_RATE),
            (self.fallback, x, _FALLBACK_RATE),
            (self.compressed, z, _JUMP_RATE),
        ):
            mean += np.maximum(age_rate, rate) * seen * (new - mean)
        pace = np.minimum((t - self.time) / _SAMPLING_S, 1.0)
        v = self.values
        v[View.LEVEL] = x
        v[View.SHORT_MEAN] = self.short
        v[View.JUMP] = x - self.mean
        v[View.COMPRESSED_JUMP] = z - self.compressed
        v[View.DAY] = self.day.residual(t, x, self.fallback, pace, seen)
        v[View.DAY_FINE] = self.day_fine.residual(t, x, self.fallback, pace, seen)
        v[View.WEEK] = self.week.residual(t, x, x - v[View.DAY], pace, seen)
        v[View.DYNAMICS] = self.dynamics.innovation(u, age_rate, seen)
        floor = self._config.scale_floor
        self.floor[:] = np.maximum(floor * self.scale, _RELATIVE * np.abs(self.location))
        self.floor[[View.COMPRESSED_JUMP, View.DYNAMICS]] = floor
        self._learn_unit(x, age_rate, seen)
        np.copyto(self.time, t, where=seen > 0.0)
        self.last[:] = x

    def _begin(self, first: NDArray[np.bool_], t: Floats, x: Floats) -> None:
        for array in (self.location, self.short, self.mean, self.fallback, self.last):
            np.copyto(array, x, where=first)
        np.copyto(self.time, t, where=first)

    def _learn_unit(self, x: Floats, age_rate: Floats, seen: Floats) -> None:
        error = x - self.location
        limit = self._config.clip_deviations * self.scale
        limit = np.where((self.rows < _YOUNG_ROWS) | (self.scale == 0.0), np.inf, limit)
        rate = np.maximum(self._config.drift_rate, age_rate) * seen
        self.location += rate * np.minimum(np.maximum(error, -limit), limit)
        self.scale += rate * (np.minimum(np.abs(error), limit) - self.scale)
