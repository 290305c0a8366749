"""The telemetry stream: nobody can delay it, and every frame is accounted for."""

from __future__ import annotations

import math
import threading

import pytest

from metrics.errors import NotPermittedError, StoreFailedError
from metrics.store.protocol import Point, WriteResult
from metrics.store_writer import StoreWriter
from metrics.telemetry import Accounts, Frame, Telemetry


def frame(tick, points=2):
    return Frame(tick, float(tick), "GOVERNING", {f"kpi.{i}": float(tick) for i in range(points)})


class MemoryStore:
    """A store that can be told to fail, and rejects what is not finite."""

    def __init__(self):
        self.points: list[Point] = []
        self.error = None
        self.writes = 0

    def write(self, points):
        self.writes += 1
        if self.error is not None:
            raise self.error
        kept = [point for point in points if math.isfinite(point.value)]
        self.points += kept
        return WriteResult(len(kept), len(points) - len(kept))


def test_every_subscriber_gets_every_frame_in_order():
    """Each subscription receives the frames published since it began."""
    telemetry = Telemetry()
    first = telemetry.subscribe(10)
    telemetry.publish(frame(1))
    second = telemetry.subscribe(10)
    telemetry.publish(frame(2))
    assert [item.tick for item in first.drain()] == [1, 2]
    assert [item.tick for item in second.drain()] == [2]
    assert telemetry.last.tick == 2


def test_a_slow_subscriber_loses_the_oldest_and_delays_nobody():
    """A full queue drops its oldest frame and counts it; the other subscriber loses nothing."""
    telemetry = Telemetry()
    slow, fast = telemetry.subscribe(3), telemetry.subscribe(100)
    for tick in range(10):
        telemetry.publish(frame(tick))
    assert slow.accounts() == Accounts(produced=10, delivered=0, dropped=7, buffered=3)
    assert slow.point_accounts() == Accounts(produced=20, delivered=0, dropped=14, buffered=6)
    assert [item.tick for item in slow.drain()] == [7, 8, 9]
    assert slow.accounts() == Accounts(produced=10, delivered=3, dropped=7, buffered=0)
    assert len(fast.drain()) == 10


def test_accounts_balance_at_every_instant_under_concurrency():
    """While one thread publishes and another takes, produced = delivered + dropped + buffered always holds."""
    telemetry = Telemetry()
    subscription = telemetry.subscribe(5)
    taken = []
    reader = threading.Thread(target=lambda: taken.extend(item.tick for item in subscription))
    reader.start()
    for tick in range(2000):
        telemetry.publish(frame(tick))
        assert subscription.accounts().balanced
        assert subscription.point_accounts().balanced
    telemetry.close()
    reader.join(timeout=10)
    assert not reader.is_alive()
    assert taken == sorted(taken)
    accounts = subscription.accounts()
    assert accounts.balanced
    assert accounts.delivered == len(taken)


def test_get_waits_only_as_long_as_told():
    """Without a frame `get` returns None after its timeout, and at once when closed."""
    subscription = Telemetry().subscribe(1)
    assert subscription.get(timeout_s=0.01) is None
    subscription.close()
    assert subscription.get() is None
    assert list(subscription) == []


def test_a_closed_subscription_takes_nothing_and_is_forgotten():
    """After close nothing is produced for it, and it no longer counts as a subscriber."""
    telemetry = Telemetry()
    subscription = telemetry.subscribe(1)
    subscription.close()
    telemetry.publish(frame(1))
    assert subscription.accounts() == Accounts(0, 0, 0, 0)
    assert telemetry.subscribers == 0
    telemetry.subscribe(1)
    assert telemetry.subscribers == 1


def test_a_queue_needs_room():
    """A subscription without room for a frame is refused."""
    with pytest.raises(ValueError, match="room for at least one frame, not 0"):
        Telemetry().subscribe(0)


@pytest.mark.parametrize("time_s", [math.nan, math.inf])
def test_a_frame_has_a_time(time_s):
    """A frame at no finite time is refused, since no store could keep it."""
    with pytest.raises(ValueError, match="tick 4: plant_time_s must be finite"):
        Frame(4, time_s, "IDLE", {})


def test_writer_writes_batches_when_due():
    """Frames go to the store in batches, at plant time plus the base, in nanoseconds."""
    telemetry, store = Telemetry(), MemoryStore()
    writer = StoreWriter(telemetry, store, batch_frames=3, base_ns=1_000)
    for tick in range(7):
        telemetry.publish(frame(tick, points=1))
        writer.flush_when_due()
    assert store.writes == 2
    assert store.points[1] == Point("kpi.0", 1_000_001_000, 1.0)
    assert writer.accounts().buffered == 1
    writer.close()
    assert writer.accounts().written == 7


def test_writer_counts_what_the_store_rejects():
    """A point that is not finite is rejected and counted, the others of its frame are written."""
    telemetry, store = Telemetry(), MemoryStore()
    writer = StoreWriter(telemetry, store)
    telemetry.publish(Frame(1, 1.0, "IDLE", {"a": math.nan, "b": 1.0}))
    writer.flush()
    accounts = writer.accounts()
    assert (accounts.produced, accounts.written, accounts.rejected) == (2, 1, 1)
    assert accounts.balanced


@pytest.mark.parametrize("error", [StoreFailedError("disk full"), NotPermittedError("read-only")])
def test_a_failing_store_loses_no_count_and_recovers(error):
    """While the store fails points wait, the oldest beyond the capacity are dropped; then the rest is written."""
    telemetry, store = Telemetry(), MemoryStore()
    writer = StoreWriter(telemetry, store, capacity=5, batch_frames=1)
    store.error = error
    for tick in range(8):
        telemetry.publish(frame(tick))
        writer.flush_when_due()
        assert writer.accounts().balanced
    assert writer.failure is error
    assert writer.accounts().dropped == 6
    with pytest.raises(type(error)):
        writer.flush(must_succeed=True)
    assert writer.accounts().buffered == 10
    store.error = None
    writer.flush()
    assert writer.failure is None
    assert [point.at_ns for point in store.points[::2]] == [tick * 1_000_000_000 for tick in range(3, 8)]
    assert writer.accounts().balanced


def test_a_failing_store_is_tried_less_and_less_often():
    """After each failure the next try waits for twice as many batches, so that it costs the loop little."""
    telemetry, store = Telemetry(), MemoryStore()
    store.error = StoreFailedError("locked")
    writer = StoreWriter(telemetry, store, batch_frames=1, capacity=1000)
    for tick in range(64):
        telemetry.publish(frame(tick))
        writer.flush_when_due()
    assert store.writes == 6


def test_closing_on_a_failing_store_says_so_and_keeps_the_count():
    """Close reports what could not be written, which stays counted as buffered."""
    telemetry, store = Telemetry(), MemoryStore()
    writer = StoreWriter(telemetry, store)
    telemetry.publish(frame(1))
    store.error = StoreFailedError("disk full")
    with pytest.raises(StoreFailedError, match="disk full"):
        writer.close()
    assert writer.accounts().buffered == 2
    assert writer.accounts().balanced


def test_a_bug_in_a_store_loses_no_count_either():
    """An error that no store may raise passes through, and the points stay buffered."""
    telemetry, store = Telemetry(), MemoryStore()
    writer = StoreWriter(telemetry, store)
    telemetry.publish(frame(1))
    store.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        writer.flush()
    assert writer.accounts().buffered == 2
