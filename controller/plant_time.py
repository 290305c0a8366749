"""The time that decisions count: the plant's own, carried on over restarts of the plant and of the controller.

A daemon goes on where its journal ended, so that no time passes while it is down: down time refills no rate limit and
ends no back-off. A plant that starts again from zero, or steps back, costs no time either. No wall clock is involved.
"""

from __future__ import annotations


class PlantTime:
    """Turns the plant's time into the governor's.

    Args:
        resumed_s: the governor's time at which the first observation is taken in; None keeps the plant's own time, as
            in a run, which begins with its plant.
    """

    def __init__(self, resumed_s: float | None = None) -> None:
        self._resumed_s = resumed_s
        self._offset_s = 0.0
        self._last_s: float | None = None

    @property
    def now_s(self) -> float:
        """The latest time that was given, or the one at which it goes on."""
        return self._resumed_s or 0.0 if self._last_s is None else self._last_s + self._offset_s

    def at(self, plant_time_s: float) -> float:
        """The governor's time at the plant's time `plant_time_s`; never goes back."""
        if self._last_s is None:
            self._offset_s = 0.0 if self._resumed_s is None else self._resumed_s - plant_time_s
        elif plant_time_s < self._last_s:
            self._offset_s += self._last_s - plant_time_s
        self._last_s = plant_time_s
        return plant_time_s + self._offset_s

    def rebase(self) -> None:
        """Expect another plant, or the same one started anew: the next observation follows the latest at once."""
        if self._last_s is not None:
            self._resumed_s = self._last_s + self._offset_s
            self._last_s = None
