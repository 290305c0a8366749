"""The simulation's journal is the real one but for its disk: one contract, both of them."""

import pytest

from controller.simulation.clock import SimClock
from controller.simulation.journal import Disk, MemoryJournal
from controller.simulation.schedule import Fault, FaultKind
from controller.simulation.weather import CrashedError, Weather
from metrics.errors import BadDataError, InvariantBreachError, StoreFailedError
from state.event import Event, EventKind
from state.journal import GENESIS, Journal


@pytest.fixture(params=["sqlite", "memory"])
def opened(request, tmp_path):
    """Opens the same journal again and again."""
    disk, path = Disk(), tmp_path / "journal.sqlite"
    journals = []

    def open_it():
        journals.append(Journal(path) if request.param == "sqlite" else MemoryJournal(disk))
        return journals[-1]

    yield open_it
    for journal in journals:
        journal.close()


def told(count, first=1):
    """Some events."""
    return [
        Event(EventKind.GRAVITY_WELL_CONFIRMED, float(i), {"subject": f"n{i}"}) for i in range(first, first + count)
    ]


def append(journal, events, epoch=1):
    return journal.append(events, epoch=epoch, wall_time="2026-01-01T00:00:00Z")


def test_an_empty_journal_begins_at_the_genesis(opened):
    """Before the first event the tip is the genesis, and there is nothing to read."""
    journal = opened()
    assert (journal.tip.seq, journal.tip.hash) == (0, GENESIS)
    assert list(journal.entries()) == []


def test_both_give_the_same_chain(tmp_path):
    """The same events have the same hashes in both."""
    real, simulated = Journal(tmp_path / "journal.sqlite"), MemoryJournal(Disk())
    hashes = [[entry.hash for entry in append(journal, told(3))] for journal in (real, simulated)]
    real.close()
    assert hashes[0] == hashes[1]


def test_what_was_appended_is_there_after_reopening(opened):
    """Events, tip and notes outlive the process."""
    journal = opened()
    append(journal, told(3))
    append(journal, told(2, first=4), epoch=2)
    journal.note("run_name", "r-1")
    again = opened()
    assert again.tip == journal.tip
    assert [entry.event.data["subject"] for entry in again.entries()] == ["n1", "n2", "n3", "n4", "n5"]
    assert [entry.epoch for entry in again.entries(4)] == [2, 2]
    assert list(again.entries(6)) == []
    assert again.noted("run_name") == "r-1"
    assert again.noted("nothing") is None


def test_an_epoch_never_decreases(opened):
    """An event of a lower epoch is refused, and nothing of the batch is written."""
    journal = opened()
    append(journal, told(1), epoch=3)
    with pytest.raises(InvariantBreachError):
        append(journal, told(2), epoch=2)
    assert opened().tip.seq == 1


def test_what_cannot_be_carried_is_not_written(opened):
    """A batch with an event that JSON cannot carry leaves nothing behind."""
    journal = opened()
    with pytest.raises(ValueError, match="Out of range"):
        append(journal, [*told(1), Event(EventKind.PLANT_LOST, 1.0, {"bad": float("nan")})])
    assert opened().tip.seq == 0


def test_a_journal_can_forget_what_is_before_a_snapshot(opened):
    """It forgets up to a snapshot and not up to anything else; the chain goes on."""
    journal = opened()
    append(journal, [*told(3), Event(EventKind.SNAPSHOT, 4.0, {"state": {}})])
    with pytest.raises(BadDataError, match="is no snapshot"):
        journal.forget_before(3)
    assert journal.forget_before(4) == 3
    append(journal, told(1, first=5))
    assert [entry.seq for entry in opened().entries()] == [4, 5]
    assert opened().forget_before(2) == 0


def weathered(*faults):
    """A disk under these faults, and their clock."""
    clock = SimClock()
    weather = Weather(faults, clock)
    weather.turn_to(0.0)
    return Disk(1, weather), weather


@pytest.mark.parametrize(("where", "left"), [("append.before", 2), ("append.torn", 2), ("append.after", 4)])
def test_a_crash_leaves_all_of_a_batch_or_nothing(where, left):
    """Whether the write was lost, torn or synced when the process died, no half of a batch is there."""
    disk, weather = weathered(Fault(10.0, FaultKind.CRASH, args={"where": where, "down_s": 1.0}))
    journal = MemoryJournal(disk)
    append(journal, told(2))
    weather.turn_to(10.0)
    with pytest.raises(CrashedError):
        append(journal, told(2, first=3))
    again = MemoryJournal(disk)
    assert again.tip.seq == left
    append(again, told(1, first=9))
    assert [entry.seq for entry in MemoryJournal(disk).entries()] == list(range(1, left + 2))


def test_a_full_disk_writes_nothing_and_is_counted():
    """An append to a full disk fails, leaves nothing behind, and succeeds once there is room."""
    disk, weather = weathered(Fault(10.0, FaultKind.DISK_FULL, 5.0))
    journal = MemoryJournal(disk)
    weather.turn_to(10.0)
    with pytest.raises(StoreFailedError):
        append(journal, told(1))
    assert (journal.failures, journal.tip.seq) == (1, 0)
    weather.turn_to(15.0)
    append(journal, told(1))
    assert MemoryJournal(disk).tip.seq == 1
