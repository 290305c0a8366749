"""Where the controller gets its time from: the machine, or a virtual clock that the plant's own time drives.

Decisions count plant time; this clock only says when something was received, how long a call may take, and, for
people, what the wall shows. Nothing is decided by wall time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_ns(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time, UTC where it names no zone.

    Raises:
        ValueError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no ISO 8601 time: write it like 2026-01-31T12:00:00Z") from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000


class Clock(Protocol):
    """A source of monotonic and wall time."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""
        ...

    def wall(self) -> str:
        """Wall time, ISO 8601 in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic_s(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()

    def wall(self) -> str:
        """The machine's wall time."""
        return datetime.now(UTC).isoformat(timespec="milliseconds")


class VirtualClock:
    """A clock that stands still until it is advanced; the embedded plant advances it with every tick."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def advance_to(self, now_s: float) -> None:
        """Move forward; a time that lies behind is ignored."""
        self._now_s = max(self._now_s, now_s)

    def monotonic_s(self) -> float:
        """The virtual time, s."""
        return self._now_s

    def wall(self) -> str:
        """The machine's wall time, for people."""
        return datetime.now(UTC).isoformat(timespec="milliseconds")
