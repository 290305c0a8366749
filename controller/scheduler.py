"""Real-time plants are ticked by APScheduler; this is the only module that knows it.

A tick that is late is run once and not made up for (coalesce), never beside another one (`max_instances=1`), and
however late (no misfire limit): the loop takes in every tick that the plant made meanwhile. APScheduler 3 reckons in
wall time, and a step of the machine's clock by −2 h would stop its jobs for two hours; so it is given a time zone whose
clock is the monotonic one, and a trigger that counts in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger


class SteadyZone(tzinfo):
    """UTC as it was when the process asked first, carried on by the monotonic clock: no step ever shows in it."""

    def __init__(self) -> None:
        self._wall = datetime.now(UTC).replace(tzinfo=None)
        self._monotonic_s = time.monotonic()

    def utcoffset(self, _: datetime | None) -> timedelta:
        """No offset."""
        return timedelta(0)

    def dst(self, _: datetime | None) -> timedelta:
        """No summer time."""
        return timedelta(0)

    def tzname(self, _: datetime | None) -> str:
        """Its name."""
        return "steady UTC"

    def fromutc(self, _: datetime) -> datetime:
        """What `datetime.now(zone)` answers: the steady time, whatever the wall clock says."""
        elapsed = timedelta(seconds=time.monotonic() - self._monotonic_s)
        return (self._wall + elapsed).replace(tzinfo=self)


class _Every(BaseTrigger):  # type: ignore[misc]  # APScheduler is untyped
    """Every `interval_s` in the scheduler's own time, on a fixed grid; grid points that were missed are skipped."""

    def __init__(self, interval_s: float) -> None:
        self._interval = timedelta(seconds=interval_s)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The first grid point that is not in the past; at once for the first tick."""
        if previous is None:
            return now
        missed = max(0, (now - previous) // self._interval)
        return previous + (missed + 1) * self._interval


class TickScheduler:
    """Calls `tick` every `interval_s` seconds in a thread of its own while it is entered."""

    def __init__(self, tick: Callable[[], None], interval_s: float) -> None:
        self._scheduler = BackgroundScheduler(timezone=SteadyZone())
        self._scheduler.add_job(
            tick, _Every(interval_s), id="tick", max_instances=1, coalesce=True, misfire_grace_time=None
        )

    def __enter__(self) -> None:
        self._scheduler.start()

    def __exit__(self, *_: object) -> None:
        self._scheduler.shutdown(wait=True)
