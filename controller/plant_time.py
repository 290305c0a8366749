"""The time that decisions count: the plant's own, carried on over restarts of the plant and of the controller.

A daemon goes on where its journal ended, so that no time passes while it is down: down time refills no rate limit and
ends no back-off. A plant that starts again from zero, or whose clock steps back or far ahead, costs and gains no time
either. No wall clock is involved.
"""

from __future__ import annotations

import logging
from collections import deque
from statistics import median_low

REMEMBERED = 31  # tick lengths; a lasting change of the tick is followed after half as many
LEARNT_TICKS = 3  # fewer tell nothing: the first of them may lie across a time in which the plant stood still
JUMP_FACTOR = 10.0  # times the usual, beyond which the plant's clock has been set and its ticks have not slowed down
UNKNOWN_S_MAX = 3600.0  # the same as long as nothing is usual, whatever ticks were missed

_log = logging.getLogger(f"iace.{__name__}")


class PlantTime:
    """Turns the plant's time into the governor's.

    Args:
        resumed_s: the governor's time at which the first observation is taken in; None keeps the plant's own time, as
            in a run, which begins with its plant.
        live: the plant lives by a clock that may be set; False where what was recorded goes on after its gaps.
    """

    def __init__(self, resumed_s: float | None = None, *, live: bool = True) -> None:
        self._now_s = resumed_s
        self._live = live
        self._offset_s = 0.0
        self._last: tuple[int, float] | None = None
        self._tick_s: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def now_s(self) -> float:
        """The latest time that was given, or the one at which it goes on."""
        return self._now_s or 0.0

    def at(self, tick: int, plant_time_s: float) -> float:
        """The governor's time at the plant's tick `tick` and time `plant_time_s`; never goes back.

        A step far beyond what the ticks since the last one usually take is a clock that was set: they count for as much
        as they usually take.
        """
        if self._last is not None:
            self._offset_s -= self._not_passed_s(max(1, tick - self._last[0]), plant_time_s - self._last[1])
        elif self._now_s is not None:
            self._offset_s = self._now_s - plant_time_s
        self._last = tick, plant_time_s
        # Never less than before, not even by the rounding of a sum.
        now_s = plant_time_s + self._offset_s
        self._now_s = now_s if self._now_s is None else max(self._now_s, now_s)
        return self._now_s

    def _not_passed_s(self, ticks: int, stepped_s: float) -> float:
        """How much of the step of the plant's clock over so many ticks is no time that has passed."""
        if stepped_s <= 0.0 or not self._live:
            return min(stepped_s, 0.0)
        usual_s = median_low(self._tick_s) if len(self._tick_s) >= LEARNT_TICKS else None
        set_ahead = stepped_s > (UNKNOWN_S_MAX if usual_s is None else JUMP_FACTOR * usual_s * ticks)
        if usual_s is not None or not set_ahead:
            self._tick_s.append(stepped_s / ticks)
        if not set_ahead:
            return 0.0
        _log.warning("the plant's clock went ahead by %.0f s in %d ticks: not counted", stepped_s, ticks)
        return stepped_s - ticks * (usual_s or 0.0)

    def rebase(self) -> None:
        """Expect another plant, or the same one started anew: the next observation follows the latest at once."""
        self._last = None
