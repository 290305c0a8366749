"""The schedule of real-time plants: by the monotonic clock, never two ticks at once, lost ones not made up for."""

import threading
import time
from datetime import UTC, datetime, timedelta

import apscheduler.schedulers.base
import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from controller.scheduler import Job, JobScheduler, SteadyZone, _Every

PATIENCE_S = 60


@pytest.fixture
def wall(monkeypatch):
    """The wall clock that APScheduler reads, to be stepped."""

    class Wall(datetime):
        step = timedelta(0)

        @classmethod
        def now(cls, tz=None):
            return tz.fromutc((datetime.now(UTC) + cls.step).replace(tzinfo=tz))

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Wall)
    return Wall


class Ticks:
    """Counts ticks and lets others wait for them."""

    def __init__(self):
        self.count = 0
        self._changed = threading.Condition()

    def __call__(self):
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait_for(self, more):
        with self._changed:
            wanted = self.count + more
            return self._changed.wait_for(lambda: self.count >= wanted, PATIENCE_S)


@pytest.mark.parametrize("hours", [-2, 2])
def test_ticks_go_on_while_the_wall_clock_steps(wall, hours):
    """A step of the wall clock by two hours, back or forth, neither stops the ticks nor sets off a burst of them."""
    ticks = Ticks()
    with JobScheduler([Job("tick", ticks, 0.01)]):
        assert ticks.wait_for(3)
        wall.step = timedelta(hours=hours)
        assert ticks.wait_for(3)
        wall.step = timedelta(0)
        assert ticks.wait_for(3)
    assert ticks.count < 7200 / 0.01


def test_a_plain_schedule_would_have_stopped(wall):
    """The same step moves an ordinary APScheduler job two hours away: the test above can fail."""
    ticks = Ticks()
    scheduler = BackgroundScheduler(timezone=UTC)
    job = scheduler.add_job(ticks, "interval", seconds=0.5, misfire_grace_time=None)
    scheduler.start()
    try:
        wall.step = timedelta(hours=-2)
        assert job.next_run_time - wall.now(UTC) > timedelta(hours=1)
    finally:
        scheduler.shutdown()


def test_ticks_never_overlap():
    """A tick that takes longer than the interval has the next one wait."""
    busy, ticks, overlaps = threading.Lock(), Ticks(), []

    def slow():
        if not busy.acquire(blocking=False):
            overlaps.append(ticks.count)
            return
        threading.Event().wait(0.05)
        busy.release()
        ticks()

    with JobScheduler([Job("tick", slow, 0.005)]):
        assert ticks.wait_for(4)
    assert overlaps == []


def test_leaving_waits_for_the_tick_under_way():
    """When the schedule has been left, no tick is running any more."""
    entered, finished = threading.Event(), []

    def slow():
        entered.set()
        threading.Event().wait(0.1)
        finished.append(True)

    with JobScheduler([Job("tick", slow, 0.01)]):
        assert entered.wait(PATIENCE_S)
    assert len(finished) >= 1
    count = len(finished)
    threading.Event().wait(0.05)
    assert len(finished) == count


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_scheduler_that_has_died_can_be_told():
    """A next time that no date can hold ends its thread, and nothing would ever be done again."""
    with JobScheduler([Job("tick", lambda: None, 1.0)]) as sound:
        assert sound.alive
    with JobScheduler([Job("report", lambda: None, 1e12)]) as scheduler:
        until_s = time.monotonic() + PATIENCE_S
        while scheduler.alive and time.monotonic() < until_s:
            time.sleep(0.01)
        assert not scheduler.alive


def test_missed_grid_points_are_left_out():
    """After a long tick the next one comes at the next point of the grid; what lies between is not made up for."""
    every, start = _Every(0.5), datetime(2030, 1, 1, tzinfo=UTC)
    after = {
        late_s: (every.get_next_fire_time(start, start + timedelta(seconds=late_s)) - start).total_seconds()
        for late_s in (0.0, 0.1, 0.49, 0.5, 0.7, 5.2, 3600.1)
    }
    assert after == {0.0: 0.5, 0.1: 0.5, 0.49: 0.5, 0.5: 1.0, 0.7: 1.0, 5.2: 5.5, 3600.1: 3600.5}


def test_the_first_tick_comes_at_once():
    """Nothing is waited for before the first tick."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert _Every(60.0).get_next_fire_time(None, now) == now


def test_the_steady_zone_follows_the_monotonic_clock(monkeypatch):
    """Its time moves exactly as far as the monotonic clock, whatever it is given."""
    monkeypatch.setattr("controller.scheduler.time.monotonic", lambda: 1000.0)
    zone = SteadyZone()
    first = datetime.now(zone)
    monkeypatch.setattr("controller.scheduler.time.monotonic", lambda: 1007.5)
    assert zone.fromutc(datetime(1999, 1, 1, tzinfo=zone)) - first == timedelta(seconds=7.5)
    assert first.utcoffset() == timedelta(0)
    assert zone.dst(None) == timedelta(0)
    assert first.tzname() == "steady UTC"
