"""Real-time plants are ticked by APScheduler; this is the only module that knows it.

A tick that is late is run once and not made up for (coalesce), never beside another one (`max_instances=1`), and
however late (no misfire limit): the loop takes in every tick that the plant made meanwhile. APScheduler 3 reckons in
wall time, and a step of the machine's clock by −2 h would stop its jobs for two hours; so it is given a time zone whose
clock is the monotonic one, and a trigger that counts in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.executors.pool import ThreadPoolExecutor
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


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done regularly: its name for people and metrics, and every how many seconds."""

    name: str
    call: Callable[[], None]
    interval_s: float


class JobScheduler:
    """Runs jobs while it is entered, each in a thread of its own, none beside itself.

    Args:
        jobs: what is to be done.
        missed: told the name of a job whose turn came while it was still running.

    A job must end by its own deadline: leaving waits for those that are running.
    """

    def __init__(self, jobs: Sequence[Job], missed: Callable[[str], None] = lambda _: None) -> None:
        workers = {"default": ThreadPoolExecutor(max(1, len(jobs)))}
        self._scheduler = BackgroundScheduler(timezone=SteadyZone(), executors=workers)
        # APScheduler logs each overrun as a warning, twice a second at worst; they are counted instead.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler.add_listener(lambda event: missed(event.job_id), EVENT_JOB_MAX_INSTANCES)
        for job in jobs:
            self._scheduler.add_job(
                job.call, _Every(job.interval_s), id=job.name, max_instances=1, coalesce=True, misfire_grace_time=None
            )

    @property
    def alive(self) -> bool:
        """Whether anything is still scheduled by it: its thread is the only one that nobody else would miss."""
        return self._scheduler._thread.is_alive()  # type: ignore[no-any-return]  # noqa: SLF001 - it has no other word

    def __enter__(self) -> Self:
        self._scheduler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._scheduler.shutdown(wait=True)
