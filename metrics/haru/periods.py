"""Which periods does a series have? Peaks of its spectrum that stand out of their surroundings, and stay.

Three rings of 1024 values each, of 1, 16 and 256 ticks a value, are looked at now and then. A peak counts if it holds
many times the median power of the bins around it (coloured noise has a sloping spectrum, not a peak), repeats at least
four times within the ring, and was there at the look before. Memory is constant; periods of 5 ticks to 65,536 ticks
are seen, an unconfirmed one never.

Assumptions: one value a tick; the caller fills gaps. Left out: periods that drift faster than a ring fills.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.persistent import Persistent

Floats = NDArray[np.float64]

RING = 1024
FACTOR = 16  # from one ring to the next
LEVELS = 3
LOOK_EVERY = 128  # new values of a ring between two looks
BINS_AROUND = 15  # on either side of a bin, whose median is its surroundings
PROMINENCE = 25.0  # times that median; by chance in one of some 10^5 spectra of white noise
CYCLES_MIN = 4
BIN_MAX = int(RING / 5)
SAME = 0.02  # relative difference up to which two periods are one
HARMONIC = 0.04  # and up to which one is a multiple of another


class Periods(Persistent):
    """Discovers periods of `series` series.

    Args:
        series: K.
        slots: periods that are kept for each series.

    Attributes:
        found: float64[K, slots], ticks; NaN where there is none.
    """

    def __init__(self, series: int, slots: int) -> None:
        self.found = np.full((series, slots), np.nan)
        self.suspected = np.full((LEVELS, series, slots), np.nan)
        self.rings = np.zeros((LEVELS, RING, series))
        self.counts = np.zeros(LEVELS, dtype=np.int64)
        self.sums = np.zeros((LEVELS, series))

    def update(self, values: Floats) -> NDArray[np.intp]:
        """Take in one row, float64[K], all finite; the series whose `found` has changed."""
        row = values
        changed: set[int] = set()
        for level in range(LEVELS):
            self.rings[level, self.counts[level] % RING] = row
            self.counts[level] += 1
            if self.counts[level] >= RING and self.counts[level] % LOOK_EVERY == 0:
                changed.update(self._look(level))
            if level + 1 == LEVELS:
                break
            self.sums[level] += row
            if self.counts[level] % FACTOR:
                break
            row = self.sums[level] / FACTOR
            self.sums[level] = 0.0
        return np.array(sorted(changed), dtype=np.intp)

    def _look(self, level: int) -> list[int]:
        """Confirm the peaks of one ring that were there at the last look; the series whose periods changed."""
        start = self.counts[level] % RING
        power = _spectrum(np.roll(self.rings[level], -start, axis=0))
        prominence = power / _surroundings(power)
        prominence[:CYCLES_MIN] = prominence[BIN_MAX:] = 0.0
        changed = []
        for k in np.flatnonzero((prominence > PROMINENCE).any(axis=0) | ~np.isnan(self.suspected[level]).all(axis=1)):
            periods = _peaks(power[:, k], prominence[:, k], self.found.shape[1]) * float(FACTOR**level)
            confirmed = [p for p in periods if any(abs(p / old - 1.0) < SAME for old in self.suspected[level, k])]
            self.suspected[level, k] = _padded(periods, self.found.shape[1])
            if self._keep(int(k), level, confirmed):
                changed.append(int(k))
        return changed

    def _keep(self, k: int, level: int, confirmed: list[float]) -> bool:
        """Merge what one ring confirms with what the other rings have found; True if it changes anything."""
        low, high = 5.0 * FACTOR**level, RING * float(FACTOR**level) / CYCLES_MIN
        merged: list[float] = []
        for period in [*(p for p in self.found[k] if np.isfinite(p)), *confirmed]:
            gone = low <= period < high and not any(abs(period / p - 1.0) < SAME for p in confirmed)
            known = any(_is_multiple(period, p) or _is_multiple(p, period) for p in merged)
            if not gone and not known:
                merged.append(period)
        kept = _padded(merged, self.found.shape[1])
        same = np.array_equal(kept, self.found[k], equal_nan=True)
        self.found[k] = kept
        return not same


def _spectrum(rows: Floats) -> Floats:
    """float64[RING/2 + 1, K], power of detrended and tapered rows."""
    time = np.linspace(-1.0, 1.0, len(rows))[:, np.newaxis]
    rest = rows - rows.mean(axis=0)
    rest -= time * (time * rest).sum(axis=0) / (time**2).sum()
    spread = rest.std(axis=0)
    rest /= np.where(spread > 0.0, spread, 1.0)
    # A spike has a flat spectrum that hides peaks; a third of a sine stays below this bound.
    np.clip(rest, -3.0, 3.0, out=rest)
    power: Floats = np.abs(np.fft.rfft(rest * np.hanning(len(rows))[:, np.newaxis], axis=0)) ** 2
    return power


def _surroundings(power: Floats) -> Floats:
    """Median of the bins around each bin, the same shape, positive."""
    padded = np.pad(power, ((BINS_AROUND, BINS_AROUND), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * BINS_AROUND + 1, axis=0)
    floor = 1e-12 * power.sum(axis=0) + 1e-300
    around: Floats = np.maximum(np.median(windows, axis=-1), floor)
    return around


def _peaks(power: Floats, prominence: Floats, most: int) -> Floats:
    """Periods in values of the strongest prominent peaks of one spectrum, none a harmonic of another."""
    found: list[float] = []
    for peak in np.argsort(power)[::-1]:
        if len(found) == most:
            break
        is_peak = prominence[peak] > PROMINENCE and power[peak] >= max(power[peak - 1], power[peak + 1])
        if not is_peak:
            continue
        # The top of a parabola through the logarithms of three bins (Hann's main lobe is nearly one).
        left, top, right = np.log(power[peak - 1 : peak + 2] + 1e-300)
        shift = 0.5 * (left - right) / min(left - 2.0 * top + right, -1e-12)
        period = RING / (peak + float(np.clip(shift, -0.5, 0.5)))
        # What repeats every 12 h and every 24 h repeats every 24 h: the longest of a family stands for it.
        family = [p for p in found if _is_multiple(period, p) or _is_multiple(p, period)]
        found = [p for p in found if p not in family] + [max([period, *family])]
    return np.array(found)


def _is_multiple(long: float, short: float) -> bool:
    ratio = long / short
    return ratio > 1.0 - SAME and abs(ratio / max(round(ratio), 1) - 1.0) < HARMONIC


def _padded(periods: Floats | list[float], size: int) -> Floats:
    row = np.full(size, np.nan)
    row[: len(periods[:size])] = periods[:size]
    return row
