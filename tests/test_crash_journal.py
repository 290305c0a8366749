"""The journal through crashes: processes killed while they write, and power cuts replayed from what was written.

A kill loses nothing that the operating system has been given, so it cannot tell a synced write from one that was not:
that is what the replayed power cuts are for. They must find lost events where the journal does not sync at each append.
"""

import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import state.journal
from state.event import Event, EventKind
from state.journal import Journal

HERE = Path(__file__).parent
KILLS = 200
KILL_AFTER_S = 0.06  # at most, from the moment that it writes
EARLY_SHARE = 0.2  # of the kills come while the journal is opened and recovered
EARLY_AFTER_S = 0.3
POWER_CUTS = 1200
SEED = 20


class Writer:
    """A running `journal_writer.py`, and what it has said."""

    def __init__(self, path, number, known):
        command = [sys.executable, HERE / "journal_writer.py", path, str(number), str(known)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.opened, self.acknowledged = None, None

    def await_open(self):
        self._take(self.process.stdout.readline())

    def kill(self):
        """Kill it, then read what it said up to the end; a line that was not finished was not said."""
        self.process.kill()
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == -signal.SIGKILL, err.decode()
        assert err == b""
        for line in out.splitlines(keepends=True):
            self._take(line)

    def _take(self, line):
        if line.endswith(b"\n"):
            kind, seq, *hashes = line.decode().split()
            if kind == "open":
                self.opened = (int(seq), *hashes)
            self.acknowledged = (int(seq), hashes[0])


@pytest.mark.process
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path):
    """Through 200 kills at random instants, each acknowledged event stays, and the chain is whole after each."""
    path, rng = tmp_path / "journal.db", random.Random(SEED)
    acknowledged, early = (0, "none"), 0
    for number in range(KILLS):
        writer = Writer(path, number, acknowledged[0])
        if rng.random() < EARLY_SHARE:
            time.sleep(rng.uniform(0.0, EARLY_AFTER_S))
        else:
            writer.await_open()
            time.sleep(rng.uniform(0.0, KILL_AFTER_S))
        writer.kill()
        if writer.opened is None:
            early += 1
            continue
        seq, _, known = writer.opened
        # A batch may have become durable without the word reaching anybody; one that was acknowledged has to be there.
        assert seq >= acknowledged[0]
        assert known == acknowledged[1]
        acknowledged = writer.acknowledged
    assert early < KILLS / 2
    assert acknowledged[0] > KILLS
    journal = Journal(path)
    entries = list(journal.entries())
    assert [entry.seq for entry in entries] == list(range(1, journal.tip.seq + 1))
    assert [entry.event.data["n"] for entry in entries] == list(range(journal.tip.seq))
    assert entries[acknowledged[0] - 1].hash == acknowledged[1]
    journal.close()


@pytest.fixture(scope="module")
def recorder():
    """The names in sqlite_recorder.py, where Python's SQLite lets itself be recorded."""
    names = SimpleNamespace(**runpy.run_path(str(HERE / "sqlite_recorder.py")))
    if names.library() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs a Python whose sqlite3 is linked with a shared libsqlite3")
        pytest.skip("this Python's SQLite is linked in, its interface cannot be reached")
    return names


def workload(recorder, path):
    """Three lives of a journal, the last with so large events that a checkpoint comes; the recording, and all hashes.

    What is noted in the recording is the sequence up to which everything is acknowledged.
    """
    rng, hashes = random.Random(SEED), []
    with recorder.recording() as made:
        for appends, size_max in ((60, 500), (60, 500), (130, 24_000)):
            journal = Journal(path)
            for _ in range(appends):
                batch = [
                    Event(EventKind.REQUESTS_REFUSED, float(len(hashes) + i), {"by": "x" * rng.randrange(size_max)})
                    for i in range(rng.randint(1, 3))
                ]
                hashes += [entry.hash for entry in journal.append(batch, epoch=1, wall_time="2030-01-01T00:00:00Z")]
                made.note(len(hashes))
            journal.close()
    return made.operations, hashes


def survives(folder, hashes, acknowledged):
    """Whether a journal left in `folder` holds all that was acknowledged; what it holds has to be whole, and of use."""
    journal = Journal(folder / "journal.db")
    journal._connection.execute("PRAGMA synchronous=OFF")  # what is checked here is not written for good
    found = [entry.hash for entry in journal.entries()]
    assert found == hashes[: len(found)]
    journal.append([Event(EventKind.STOPPED, 0.0)], epoch=1, wall_time="2030-01-01T00:00:00Z")
    assert [entry.seq for entry in journal.entries(journal.tip.seq)] == [len(found) + 1]
    journal.close()
    return len(found) >= acknowledged


def losses(recorder, folder, operations, hashes, count):
    """Cuts at `count` places all over a recording: how many lost acknowledged events, and how many could lose any."""
    rng, cuts = random.Random(SEED), recorder.PowerCuts(operations)
    lost, open_to_loss = 0, 0
    for number, place in enumerate(sorted(rng.sample(range(len(operations) + 1), count))):
        cuts.advance_to(place)
        left = folder / f"cut-{number}"
        left.mkdir()
        cuts.leave(left, rng)
        open_to_loss += cuts.unsynced() > 0
        lost += not survives(left, hashes, cuts.noted or 0)
        for file in left.iterdir():
            file.unlink()
    return lost, open_to_loss


def test_nothing_acknowledged_is_lost_by_power_cuts(recorder, tmp_path):
    """Through 1,200 cuts that drop and tear unsynced writes each acknowledged event stays, and the chain is whole."""
    operations, hashes = workload(recorder, tmp_path / "journal.db")
    synced = [operation.file for operation in operations if operation.kind == "sync"]
    assert synced.count("journal.db-wal") > 250  # at each append
    assert synced.count("journal.db") >= 4  # at checkpoints: at the end of each life, and in the middle of the last
    lost, open_to_loss = losses(recorder, tmp_path, operations, hashes, POWER_CUTS)
    assert lost == 0
    assert open_to_loss > POWER_CUTS / 2


def test_the_power_cuts_find_a_journal_that_does_not_sync(recorder, tmp_path, monkeypatch):
    """With `synchronous=NORMAL`, which syncs at checkpoints only, the same cuts find acknowledged events lost."""
    opened = state.journal._opened

    def opened_to_sync_less(path, options, first_words):
        return opened(path, options, first_words.replace("synchronous=FULL", "synchronous=NORMAL"))

    monkeypatch.setattr(state.journal, "_opened", opened_to_sync_less)
    operations, hashes = workload(recorder, tmp_path / "journal.db")
    monkeypatch.undo()
    lost, _ = losses(recorder, tmp_path, operations, hashes, 60)
    assert lost > 30
