"""Where was the controller when it stopped? Replays from snapshots, and journals that are not whole."""

import runpy
import sqlite3
from pathlib import Path

import pytest

from metrics.errors import BadDataError
from state import command as asked
from state.command import ExemptionKind
from state.event import Event
from state.event import EventKind as E
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy
from state.journal import Journal
from state.phase import Phase
from state.recovery import recover
from state.restore import restored
from state.stimulus import InvariantBroken, ProbeIntended, ProposalWritten, SnapshotDue

_stage = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))
Stage, reread = _stage["Stage"], _stage["reread"]
WALL = "2026-01-01T00:00:00Z"
POLICY = IsolationPolicy(probation_ticks=5, backoff_base_s=10.0, ttl_s=60.0)


def eventful():
    """Nodes, intents, wells, a trial, a hold, exemptions, commands, proposals: all that durable state can hold."""
    stage = Stage(50, 7, policy=POLICY, healing=HealingPolicy(holdoff_s=0.0), daemon=True).reach(Phase.GOVERNING)
    stage.make_bad("n8", gravity=2.0)
    stage.make_bad("n20", gravity=2.2)
    stage.tick(8)
    stage.tell(SnapshotDue())
    stage.make_good("n20")
    stage.command(asked.Exempt("n3", ExemptionKind.VETO, 5000.0), key="k2")
    stage.command(asked.Isolate("n30", 500.0), key="k1")
    stage.command(asked.Resume(), key="a0")
    stage.tell(ProposalWritten("p-1", "00" * 32))
    stage.tick(60)
    stage.tell(SnapshotDue())
    stage.unhealthy, stage.kpis["action_cost"] = ("action_cost",), 0.08
    stage.until(E.TRIAL_APPLIED)
    stage.tell(SnapshotDue())
    stage.command(asked.Pause(600.0), by="bob")
    stage.tell(SnapshotDue())
    stage.answering = False
    stage.tell(InvariantBroken("budgets_hold", "3 of 5 out"))
    stage.tick(2)
    stage.tell(ProbeIntended("overdraft", {"clear": "x"}))
    stage.tell(SnapshotDue())
    stage.tick(2)
    return stage


def written(path, events):
    """A journal with these events."""
    journal = Journal(path)
    journal.append(events, epoch=1, wall_time=WALL)
    return journal


def snapshots_of(stage):
    """Sequences of the stage's snapshots."""
    return [seq for seq, event in enumerate(stage.events, start=1) if event.kind is E.SNAPSHOT]


def test_an_empty_journal_is_where_everything_begins(tmp_path):
    """Nothing has happened yet."""
    journal = Journal(tmp_path / "journal.db")
    found = recover(journal, daemon=True)
    assert (found.state.phase, found.at_s, found.snapshots) == (Phase.IDLE, None, ())
    assert found.state.machine.daemon
    journal.close()


def test_a_replay_gives_the_live_state_its_time_and_its_snapshots(tmp_path):
    """The whole journal is replayed, each snapshot checked on the way."""
    stage = eventful()
    journal = written(tmp_path / "journal.db", stage.events)
    found = recover(journal, daemon=True)
    assert found.state.snapshot() == stage.governor.snapshot()
    assert found.at_s == stage.events[-1].at_s
    assert list(found.snapshots) == snapshots_of(stage)
    assert len(found.snapshots) == 5
    journal.close()


def test_a_replay_from_any_snapshot_ends_in_the_same_bytes(tmp_path):
    """What is forgotten before a snapshot is not missed."""
    stage = eventful()
    for seq in snapshots_of(stage):
        journal = written(tmp_path / f"journal-{seq}.db", stage.events)
        tip = journal.tip
        assert journal.forget_before(seq) == seq - 1
        found = recover(journal, daemon=True)
        assert found.state.snapshot() == stage.governor.snapshot()
        assert journal.tip == tip
        journal.close()
        again = Journal(tmp_path / f"journal-{seq}.db")
        assert again.tip == tip
        assert recover(again, daemon=True).state.snapshot() == stage.governor.snapshot()
        again.append([reread(Event(E.PLANT_LOST, 999.0, {"reason": "silence"}))], epoch=2, wall_time=WALL)
        assert again.tip.seq == tip.seq + 1
        assert next(again.entries()).seq == seq
        again.close()


def test_forgetting_twice_goes_on_from_the_later_snapshot(tmp_path):
    """The base moves forward only."""
    stage = eventful()
    first, second = snapshots_of(stage)[:2]
    journal = written(tmp_path / "journal.db", stage.events)
    assert journal.forget_before(second) == second - 1
    assert journal.forget_before(first) == 0
    assert journal.forget_before(second) == 0
    assert recover(journal, daemon=True).state.snapshot() == stage.governor.snapshot()
    journal.close()


@pytest.mark.parametrize("offset", [-1, 1, 10_000])
def test_only_a_snapshot_allows_to_forget(tmp_path, offset):
    """What could not be replayed afterwards is not dropped."""
    stage = eventful()
    journal = written(tmp_path / "journal.db", stage.events)
    with pytest.raises(BadDataError, match="is no snapshot, the events before it are needed"):
        journal.forget_before(snapshots_of(stage)[0] + offset)
    assert recover(journal, daemon=True).state.snapshot() == stage.governor.snapshot()
    journal.close()


@pytest.mark.parametrize("gone", [1, 2, 7])
def test_events_missing_at_the_beginning_are_named(tmp_path, gone):
    """Without a snapshot nothing may be missing."""
    stage = eventful()
    written(tmp_path / "journal.db", stage.events).close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("DELETE FROM journal WHERE seq <= ?", (gone,))
    database.close()
    journal = Journal(tmp_path / "journal.db")
    with pytest.raises(BadDataError, match=f"event 1: is missing; the next one there is {gone + 1}"):
        recover(journal, daemon=True)
    journal.close()


def test_a_journal_that_begins_in_the_middle_needs_a_snapshot(tmp_path):
    """Even if somebody has moved the base by hand."""
    stage = eventful()
    journal = written(tmp_path / "journal.db", stage.events)
    entry = next(journal.entries(4))
    journal.note("base", f"3:{[e.hash for e in journal.entries()][2]}")
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("DELETE FROM journal WHERE seq < 4")
    database.close()
    journal = Journal(tmp_path / "journal.db")
    assert next(journal.entries()) == entry
    with pytest.raises(BadDataError, match="event 4: the events before it are gone, and it is no snapshot"):
        recover(journal, daemon=True)
    journal.close()


def test_an_altered_snapshot_breaks_the_chain(tmp_path):
    """A byte in a snapshot is noticed like a byte anywhere."""
    stage = eventful()
    seq = snapshots_of(stage)[1]
    written(tmp_path / "journal.db", stage.events).close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        (body,) = database.execute("SELECT body FROM journal WHERE seq = ?", (seq,)).fetchone()
        changed = body.replace(b'"offences":1', b'"offences":0')
        assert changed != body
        database.execute("UPDATE journal SET body = ? WHERE seq = ?", (changed, seq))
    database.close()
    journal = Journal(tmp_path / "journal.db")
    with pytest.raises(BadDataError, match=f"event {seq}: has been altered"):
        recover(journal, daemon=True)
    journal.close()


def test_a_snapshot_that_its_events_do_not_give_is_refused(tmp_path):
    """A forger who makes the chain anew is noticed by the events."""
    stage = eventful()
    seq = snapshots_of(stage)[1]
    events = [reread(event) for event in stage.events]
    events[seq - 1].data["state"]["nodes"]["n8"]["offences"] = 0
    journal = written(tmp_path / "journal.db", events)
    with pytest.raises(BadDataError, match=f"event {seq}: the snapshot is not what its events give"):
        recover(journal, daemon=True)
    journal.close()


def test_a_snapshot_of_an_older_version_is_believed(tmp_path):
    """What its events give today need not be what they gave then, and the chain says that nobody has changed it."""
    stage = eventful()
    seq = snapshots_of(stage)[-1]
    events = [reread(event) for event in stage.events[:seq]]
    del events[seq - 1].data["version"]
    events[seq - 1].data["state"]["nodes"]["n8"]["offences"] = 0
    journal = written(tmp_path / "journal.db", events)
    assert recover(journal, daemon=True).state.nodes["n8"].offences == 0
    journal.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("phase", "NOWHERE"), ("nodes", {"n8": {"status": "odd"}}), ("trial", {"number": 1}), ("extra", 1), ("wells", 5)],
)
def test_a_snapshot_of_another_version_is_refused(name, value):
    """What this version does not know is not guessed at."""
    plain = eventful().state.as_plain()
    with pytest.raises(BadDataError, match="a snapshot in the journal cannot be read"):
        restored(plain | {name: value}, daemon=True)
    with pytest.raises(BadDataError, match="a snapshot in the journal cannot be read"):
        restored({}, daemon=True)


def test_what_is_restored_goes_on_like_what_was_replayed(tmp_path):
    """A governor over a snapshot decides like the one over the whole journal: types come back, not only bytes."""
    endings = []
    for forget in (False, True):
        stage = eventful()
        journal = written(tmp_path / f"journal-{forget}.db", stage.events)
        if forget:
            journal.forget_before(snapshots_of(stage)[-1])
        first = len(stage.events)
        stage.restart(lambda journal=journal: recover(journal, daemon=True).state)
        journal.close()
        stage.answering = True
        stage.tick(300)
        endings.append((stage.governor.snapshot(), [event.canonical() for event in stage.events[first:]]))
    assert endings[0] == endings[1]
