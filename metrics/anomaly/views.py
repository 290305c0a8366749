"""In which respects can a value be strange? Seven causal views of a series.

A value can be strange in itself, as a jump, or for the time of day. Each view turns the series into one whose tails can
be learned by themselves, and gives an alarm its name.

Assumptions: rows arrive in time order, at any spacing; a day and a week are the natural cycles of whatever people use.
Leaves out: relations between series, which :mod:`metrics.anomaly.verdict` looks at.

Source: docs/anomaly.md, "Views".
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.config import DetectorConfig
from metrics.anomaly.persistent import Persistent
from metrics.anomaly.rates import Rates

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


VIEWS = len(View)
UNITLESS = np.isin(list(View), (View.COMPRESSED_JUMP,))
"""Which views are not in the unit of their series, ``(VIEWS,)``."""

_SHORT_RATE = 0.5  # mean of about two rows
_JUMP_RATE = 0.1  # mean of about ten rows
_FALLBACK_RATE = 0.02  # what stands in for a time of day never seen before
_DAY_S = 86400.0
_WEEK_S = 604800.0
_SAMPLING_S = 300.0  # profiles learn per row up to one row in five minutes, per second when rows come faster
_YOUNG_ROWS = 20  # before this age the first rows teach location and scale unclipped
_LEAST_UNIT = 1e-100  # a series that moves less has not moved
_RELATIVE = 1e-6  # of the level: rounding, not movement


class Profile(Persistent):
    """Running mean of a value by phase of a cycle."""

    def __init__(self, series: int, phases: int, period_s: float, rate: float) -> None:
        self._phases, self._period_s, self._rate = phases, period_s, rate
        self.mean = np.zeros((phases, series))
        self.visits = np.zeros((phases, series), np.float32)
        self._column = np.arange(series)

    def residual(self, t: Floats, x: Floats, fallback: Floats, pace: Floats, rates: Rates) -> Floats:
        """``x`` less the mean of its phase, which then learns ``x``; ``fallback`` stands in for a new phase.

        Args:
            t: seconds, one time for all series (0-d) or one for each.
            x: values ``(series,)``.
            fallback: what is expected in a phase never seen before.
            pace: share of the full learning rate, 0 to 1.
            rates: of this row.
        """
        at = self._at(t)
        mean, visits = self.mean[at], self.visits[at]
        new = visits == 0.0
        if new.any():
            mean = np.where(new, fallback, mean)
        residual: Floats = x - mean
        count = visits + rates.seen
        rate = np.maximum(self._rate * pace, 1.0 / np.maximum(count, 1.0))
        if not rates.complete:
            rate *= rates.seen
        self.mean[at] = mean + rate * residual
        self.visits[at] = count
        return residual

    def _at(self, t: Floats) -> int | tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where the phase of `t` is kept: one row for all series, or each series' own."""
        if t.ndim == 0:  # the usual case; a plain number costs a tenth of an array of one
            return min(int(float(t) % self._period_s / self._period_s * self._phases), self._phases - 1)
        cycles = (t % self._period_s) / self._period_s
        return np.minimum(cycles * self._phases, self._phases - 1).astype(np.intp), self._column


class Views(Persistent):
    """All views of many series, updated together."""

    def __init__(self, series: int, config: DetectorConfig) -> None:
        self._config = config
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
        self._values = np.zeros((VIEWS, series))

    def update(self, t: Floats, x: Floats, rates: Rates) -> tuple[Floats, Floats]:
        """Takes one row.

        Args:
            t: seconds since the epoch, 0-d for all series or ``(series,)``.
            x: values ``(series,)``, finite; the last known one where none came.
            rates: of this row.

        Returns:
            The views' values, ``(VIEWS, series)``, overwritten by the next call, and the unit of each series, its mean
            deviation before this row, ``(series,)``.
        """
        first = rates.younger(1)
        if first is not None:
            self._begin(first, t, x)
        unit = np.maximum(self.scale, _RELATIVE * np.abs(self.location))
        u = (x - self.location) / np.where(unit > _LEAST_UNIT, unit, 1.0)
        z = np.copysign(np.log(1.0 + np.abs(u)), u)
        self.short += rates.at_least(_SHORT_RATE) * (x - self.short)
        self.mean += rates.at_least(_JUMP_RATE) * (x - self.mean)
        self.fallback += rates.at_least(_FALLBACK_RATE) * (x - self.fallback)
        self.compressed += rates.at_least(_JUMP_RATE) * (z - self.compressed)
        pace = np.minimum(np.maximum((t - self.time) / _SAMPLING_S, 0.0), 1.0)
        v = self._values
        v[View.LEVEL] = x
        v[View.SHORT_MEAN] = self.short
        v[View.JUMP] = x - self.mean
        v[View.COMPRESSED_JUMP] = z - self.compressed
        v[View.DAY] = self.day.residual(t, x, self.fallback, pace, rates)
        v[View.DAY_FINE] = self.day_fine.residual(t, x, self.fallback, pace, rates)
        v[View.WEEK] = self.week.residual(t, x, x - v[View.DAY], pace, rates)
        self._learn_unit(x, rates)
        np.copyto(self.time, t, where=rates.seen)
        self.last[:] = x
        return v, unit

    def _begin(self, first: NDArray[np.bool_], t: Floats, x: Floats) -> None:
        for array in (self.location, self.short, self.mean, self.fallback):
            np.copyto(array, x, where=first)
        np.copyto(self.time, t, where=first)

    def _learn_unit(self, x: Floats, rates: Rates) -> None:
        error = x - self.location
        limit = self._config.clip_deviations * self.scale
        limit[self.scale == 0.0] = np.inf
        young = rates.younger(_YOUNG_ROWS)
        if young is not None:
            limit[young] = np.inf
        rate = rates.at_least(self._config.drift_rate)
        self.location += rate * np.minimum(np.maximum(error, -limit), limit)
        self.scale += rate * (np.minimum(np.abs(error), limit) - self.scale)
