"""The simulation's time: true time, and what the machine's wall clock makes of it.

The monotonic clock shows true time. The wall clock can be stepped; nothing may depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_START = datetime(2026, 1, 1, tzinfo=UTC)


class SimClock:
    """Implements `controller.clock.Clock`.

    Attributes:
        now_s: true time.
        wall_offset_s: by how much the wall clock has been stepped.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.wall_offset_s = 0.0
        self._live: Callable[[float], None] | None = None

    def drives(self, live: Callable[[float], None]) -> None:
        """Let the world live on whenever time does; `live` is told the new time."""
        self._live = live

    def advance_to(self, now_s: float) -> None:
        """Move forward; a time that lies behind is ignored."""
        if now_s > self.now_s:
            self.now_s = now_s
            if self._live is not None:
                self._live(now_s)

    def monotonic_s(self) -> float:
        """True time, s."""
        return self.now_s

    def wall_s(self) -> float:
        """What the wall clock shows, s from the start."""
        return self.now_s + self.wall_offset_s

    def wall(self) -> str:
        """What the wall clock shows, ISO 8601."""
        return (_START + timedelta(seconds=self.wall_s())).isoformat(timespec="milliseconds")
