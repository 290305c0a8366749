"""How long has each node looked bad, or clean? The counters between a reading and a verdict.

A tick counts only where the node's evidence is trusted. An untrusted tick says nothing either way: the counters stand
still, and after `PATIENCE_TICKS` of them in a row they start afresh, because "consecutive" must not span a blackout.
Volatile on purpose: after a restart every node has to be confirmed anew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PATIENCE_TICKS = 10


class Confirmation:
    """Counters of consecutive bad and clean ticks, vectorised over any number of subjects.

    Attributes:
        bad: int32[n], ticks in a row beyond the critical value.
        calm: int32[n], ticks in a row not beyond it.
        clean: int32[n], ticks in a row below the re-admission value.
    """

    def __init__(self, subjects: int, *, critical: float, clean_below: float) -> None:
        self._critical = critical
        self._clean_below = clean_below
        self.bad: NDArray[np.int32] = np.zeros(subjects, dtype=np.int32)
        self.calm: NDArray[np.int32] = np.zeros(subjects, dtype=np.int32)
        self.clean: NDArray[np.int32] = np.zeros(subjects, dtype=np.int32)
        self._blind: NDArray[np.int32] = np.zeros(subjects, dtype=np.int32)
        self._bad_now: NDArray[np.bool_] = np.zeros(subjects, dtype=np.bool_)

    def update(self, value: NDArray[np.float64], trusted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Count one tick; returns where it looked bad.

        Args:
            value: float64[n], |g|; what is not finite is never trusted.
            trusted: bool[n].
        """
        seen = trusted & np.isfinite(value)
        bad = seen & (value > self._critical)
        clean = seen & (value < self._clean_below)
        calm = seen & ~bad
        self._blind += 1
        self._blind *= ~seen
        sighted = self._blind <= PATIENCE_TICKS
        for count, more, none in ((self.bad, bad, calm), (self.calm, calm, bad), (self.clean, clean, seen & ~clean)):
            np.add(count, more, out=count)
            np.multiply(count, sighted & ~none, out=count)
        self._bad_now = bad
        return bad

    def confirmed(self, ticks: int) -> NDArray[np.bool_]:
        """bool[n], bad for so many ticks in a row up to the latest: evidence that has gone stale confirms nothing."""
        confirmed: NDArray[np.bool_] = self._bad_now & (self.bad >= ticks)
        return confirmed

    def restart(self, subjects: NDArray[np.intp] | None = None) -> None:
        """Let the given subjects, or all, start afresh."""
        chosen = slice(None) if subjects is None else subjects
        self.bad[chosen] = 0
        self.calm[chosen] = 0
        self.clean[chosen] = 0
        self._blind[chosen] = 0
