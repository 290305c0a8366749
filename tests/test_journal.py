"""The journal: append-only, gapless, chained, and honest about every way to damage it."""

import ctypes
import json
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from metrics.errors import BadDataError, InvariantBreachError, NotPermittedError, StoreFailedError
from state.event import Event, EventKind
from state.journal import GENESIS, Journal, Tip, chained

WALL = "2025-01-01T00:00:00Z"


def events(count, start=0):
    return [
        Event(EventKind.GRAVITY_WELL_GONE, float(number), {"subject": f"n{number}"})
        for number in range(start, start + count)
    ]


def append(journal, count=1, *, epoch=1, start=0):
    return journal.append(events(count, start), epoch=epoch, wall_time=WALL)


@pytest.fixture
def path(tmp_path):
    """A closed journal of five events."""
    journal = Journal(tmp_path / "journal.db")
    append(journal, 3)
    append(journal, 2, epoch=2, start=3)
    journal.close()
    return tmp_path / "journal.db"


def edit(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def read(path):
    journal = Journal(path, read_only=True)
    try:
        return list(journal.entries())
    finally:
        journal.close()


# --- what it keeps


def test_events_come_back_as_they_were(path):
    """Sequence, epoch, hash and content, in order."""
    entries = read(path)
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.epoch for entry in entries] == [1, 1, 1, 2, 2]
    assert [entry.event for entry in entries] == events(5)


def test_the_chain_binds_each_event_to_all_before_it(path):
    """The hash is SHA-256 over previous hash, sequence, epoch and canonical bytes."""
    previous = GENESIS
    for entry in read(path):
        assert entry.hash == chained(previous, entry.seq, entry.epoch, entry.event.canonical())
        previous = entry.hash
    assert chained(GENESIS, 1, 1, b"{}") == "a12a7753a550b195bc8da9d2b990404031eae7e00554c838cbe29c7b2c2db951"


def test_wall_time_is_no_part_of_the_chain(tmp_path):
    """Equal runs give equal chains, whenever they were made."""
    tips = []
    for name, wall in (("a", WALL), ("b", "2031-12-31T23:59:59Z")):
        journal = Journal(tmp_path / name / "journal.db")
        journal.append(events(4), epoch=1, wall_time=wall)
        tips.append(journal.tip)
        journal.close()
    assert tips[0] == tips[1]


def test_it_goes_on_where_it_was(path):
    """A journal that is opened again continues its chain without a gap."""
    journal = Journal(path)
    before = journal.tip
    assert (before.seq, before.hash) == (5, read(path)[-1].hash)
    (entry,) = append(journal, epoch=2, start=5)
    journal.close()
    assert entry.seq == 6
    assert entry.hash == chained(before.hash, 6, 2, entry.event.canonical())
    assert len(read(path)) == 6


def test_an_empty_journal_and_an_empty_append(tmp_path):
    """Nothing appended is nothing kept."""
    journal = Journal(tmp_path / "journal.db")
    assert journal.append([], epoch=1, wall_time=WALL) == []
    assert journal.tip == Tip(0, GENESIS)
    assert list(journal.entries()) == []
    journal.close()


def test_lines_are_canonical_json(path):
    """An exported line has sorted keys, no spaces, and no wall time."""
    entry = read(path)[0]
    assert entry.line() == (
        f'{{"at_s":0.0,"data":{{"subject":"n0"}},"epoch":1,"hash":"{entry.hash}","kind":"GRAVITY_WELL_GONE","seq":1}}'
    )
    assert json.loads(entry.line())["seq"] == 1


def test_every_commit_is_synced(tmp_path):
    """WAL with synchronous=FULL: power cuts tell the settings apart."""
    journal = Journal(tmp_path / "journal.db")
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    journal.close()


def test_notes_stand_beside_the_chain(path):
    """A note can be changed and leaves the chain as it is."""
    journal = Journal(path)
    tip = journal.tip
    assert journal.noted("cleared") is None
    journal.note("cleared", "no")
    journal.note("cleared", "yes")
    assert (journal.noted("cleared"), journal.tip) == ("yes", tip)
    journal.close()


@pytest.mark.parametrize("name", ["with space", "q?mode=ro", "h#ash", "p%20ercent", "ümläut", "a&b=c;d"])
def test_any_path_will_do(tmp_path, name):
    """Characters that mean something in a URI mean nothing in a path."""
    directory = tmp_path / name
    journal = Journal(directory / "journal.db")
    append(journal)
    journal.close()
    assert [entry.name for entry in directory.iterdir()] == ["journal.db"]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert len(read(directory / "journal.db")) == 1


def test_another_thread_may_append(tmp_path):
    """The scheduler's thread ticks, whoever opened the journal."""
    journal = Journal(tmp_path / "journal.db")
    thread = threading.Thread(target=append, args=(journal, 3))
    thread.start()
    thread.join()
    assert journal.tip.seq == 3
    journal.close()


# --- what it refuses


def test_an_event_that_json_cannot_carry_is_refused_whole(tmp_path):
    """Of a batch with a NaN nothing is written."""
    journal = Journal(tmp_path / "journal.db")
    batch = [*events(1), Event(EventKind.STORM_DETECTED, 1.0, {"fraction": float("nan")})]
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append(batch, epoch=1, wall_time=WALL)
    assert (journal.tip.seq, list(journal.entries())) == (0, [])
    append(journal)
    journal.close()


def test_epochs_never_decrease(path):
    """An append under an earlier epoch is a bug that is stopped before it is written, also after a restart."""
    journal = Journal(path)
    with pytest.raises(InvariantBreachError, match="epoch 1 after epoch 2"):
        append(journal, epoch=1)
    assert journal.tip.seq == 5
    append(journal, epoch=3)
    with pytest.raises(InvariantBreachError, match="epoch 2 after epoch 3"):
        append(journal, epoch=2)
    journal.close()


def test_two_writers_cannot_both_have_a_sequence_number(path):
    """The second writer of one number fails, and the chain stays whole."""
    one, other = Journal(path), Journal(path)
    append(one, epoch=2)
    with pytest.raises(StoreFailedError, match="UNIQUE constraint failed"):
        append(other, epoch=2)
    assert (one.failures, other.failures) == (0, 1)
    one.close()
    other.close()
    assert len(read(path)) == 6


SWAP = (
    "UPDATE journal SET seq = 100 WHERE seq = 2",
    "UPDATE journal SET seq = 2 WHERE seq = 3",
    "UPDATE journal SET seq = 3 WHERE seq = 100",
)


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["UPDATE journal SET body = replace(body, 'n1', 'n7') WHERE seq = 2"], "event 2: has been altered"),
        (["UPDATE journal SET body = x'00' WHERE seq = 4"], "event 4: has been altered"),
        (["UPDATE journal SET epoch = 7 WHERE seq = 3"], "event 3: has been altered"),
        (["UPDATE journal SET epoch = 'x' WHERE seq = 5"], "event 5: has been altered"),
        (["UPDATE journal SET hash = 'abc' WHERE seq = 1"], "event 1: has been altered"),
        (["DELETE FROM journal WHERE seq = 1"], "event 1: is missing; the next one there is 2"),
        (["DELETE FROM journal WHERE seq IN (2, 3)"], "event 2: is missing; the next one there is 4"),
        (SWAP, "event 2: does not follow the one before it"),
        (["UPDATE journal SET previous = hash WHERE seq = 4"], "event 4: does not follow the one before it"),
    ],
)
def test_what_was_edited_is_named(path, statements, words):
    """The first event that is not as it was written is named with what is wrong."""
    edit(path, *statements)
    with pytest.raises(BadDataError, match=words):
        read(path)


def test_entries_before_the_damage_can_still_be_read(path):
    """The damage is told where it is met."""
    edit(path, "DELETE FROM journal WHERE seq = 4")
    journal = Journal(path, read_only=True)
    entries = journal.entries()
    assert [next(entries).seq for _ in range(3)] == [1, 2, 3]
    with pytest.raises(BadDataError, match="event 4: is missing"):
        next(entries)
    journal.close()


def test_a_forged_chain_with_a_falling_epoch_is_named(path):
    """Even with right hashes, an epoch below an earlier one cannot be."""
    entries = read(path)
    body = entries[4].event.canonical()
    forged = chained(entries[3].hash, 5, 1, body)
    edit(path, f"UPDATE journal SET epoch = 1, hash = '{forged}' WHERE seq = 5")  # noqa: S608 - a test's own values
    with pytest.raises(BadDataError, match="event 5: carries epoch 1 after epoch 2"):
        read(path)


@pytest.mark.parametrize(
    "body", [b"no json", b"[]", b'{"kind":"PIZZA_ORDERED","at_s":1.0,"data":{}}', b'{"kind":"RUN_ENDED"}', b"\xff"]
)
def test_a_rightly_chained_body_that_is_no_event_is_named(path, body):
    """A kind of a newer IACE, or garbage with a right hash, is told and not guessed at."""
    entries = read(path)
    forged = chained(entries[3].hash, 5, 2, body)
    edit(path, f"UPDATE journal SET body = x'{body.hex()}', hash = '{forged}' WHERE seq = 5")  # noqa: S608 - own values
    with pytest.raises(BadDataError, match="event 5: is not an event of this IACE"):
        read(path)


@pytest.mark.parametrize("version", ["2", "99", "x", "-1", ""])
def test_a_newer_or_garbled_schema_is_refused(path, version):
    """What a newer IACE has written is not touched."""
    edit(path, f"UPDATE meta SET value = '{version}' WHERE name = 'schema_version'")  # noqa: S608 - a test's own values
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(BadDataError, match=f"has journal schema {version}, this IACE knows 1"):
            Journal(path, read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [0, 50, 100, 1000, 4096, 5000, 8192])
def test_a_truncated_file_is_refused(path, size):
    """A file that was cut off is no journal any more, wherever the cut is."""
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadDataError, match="restore it from a backup"):
        read(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    """Neither reading nor writing touches somebody else's file."""
    path.write_text("dear diary\n" * 500)
    for read_only in (False, True):
        with pytest.raises(BadDataError, match="file is not a database"):
            Journal(path, read_only=read_only)
    assert path.read_text() == "dear diary\n" * 500


def test_another_database_is_no_journal(tmp_path):
    """A database without our tables is refused for reading."""
    edit(tmp_path / "other.db", "CREATE TABLE pets (name TEXT)")
    with pytest.raises(BadDataError, match="no such table"):
        Journal(tmp_path / "other.db", read_only=True)


def test_a_missing_journal_is_told_with_what_to_do(tmp_path):
    """Reading makes no file."""
    with pytest.raises(BadDataError, match="--run"):
        Journal(tmp_path / "journal.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_or_a_file_in_the_way(tmp_path):
    """What cannot be opened is told as such, not as a traceback."""
    with pytest.raises(NotPermittedError, match="unable to open"):
        Journal(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailedError, match="Not a directory"):
        Journal(tmp_path / "file" / "runs" / "journal.db")


def test_reading_cannot_write(path):
    """A journal that was opened for reading refuses to append, and loses nothing."""
    journal = Journal(path, read_only=True)
    with pytest.raises(NotPermittedError, match="readonly"):
        append(journal, epoch=2)
    assert len(list(journal.entries())) == 5
    journal.close()


def overrule_permissions(*, allowed):
    """Give root's right to overrule file permissions up, or take it back."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, lower and upper half
    assert libc.capget(header, sets) == 0
    bits = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    sets[0] = sets[0] | (bits & sets[1]) if allowed else sets[0] & ~bits
    assert libc.capset(header, sets) == 0


@pytest.fixture
def unprivileged(path):
    """The journal of five events, read-only in a read-only directory, also where the suite runs as root."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    overrule_permissions(allowed=False)
    yield
    overrule_permissions(allowed=True)
    path.parent.chmod(0o755)


@pytest.mark.usefixtures("unprivileged")
def test_a_read_only_file_is_not_permitted(path):
    """A journal that may not be written cannot be opened for writing."""
    with pytest.raises(NotPermittedError, match="readonly database"):
        Journal(path)


@pytest.mark.usefixtures("unprivileged")
def test_a_read_only_data_directory_is_not_permitted(path):
    """A journal cannot be made where nothing may be made, and the message says what to do."""
    with pytest.raises(NotPermittedError, match="Permission denied: give write permission"):
        Journal(path.parent / "new" / "journal.db")


@pytest.mark.usefixtures("unprivileged")
def test_a_journal_on_read_only_media_can_be_read(path):
    """Verifying an archived journal needs no write permission."""
    assert len(read(path)) == 5


# --- full disks and kills, in processes of their own

FILL = """
import resource, signal, sys
from pathlib import Path
from metrics.errors import StoreFailedError
from state.event import Event, EventKind
from state.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
acknowledged = 0
try:
    while True:
        batch = [Event(EventKind.GRAVITY_WELL_GONE, 0.0, {"subject": "n" * 3000})] * 2
        acknowledged = journal.append(batch, epoch=1, wall_time="x")[-1].seq
except StoreFailedError as error:
    print(acknowledged, journal.tip.seq, str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(journal.append(batch, epoch=1, wall_time="x")[-1].seq)
journal.close()
"""

KILLED = """
import sys
from pathlib import Path
from state.event import Event, EventKind
from state.journal import Journal
journal = Journal(Path(sys.argv[1]))
while True:
    entries = journal.append([Event(EventKind.GRAVITY_WELL_GONE, 0.0, {"subject": "n0"})], epoch=1, wall_time="x")
    print(entries[-1].seq, flush=True)
"""


@pytest.mark.process
def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path):
    """The failing append is told as a failed store and leaves no trace; with space again it goes on without a gap."""
    path = tmp_path / "journal.db"
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    acknowledged, tip, *words = first.split(maxsplit=2)
    assert int(acknowledged) == int(tip) > 10
    assert "free some space" in words[0]
    assert int(second) == int(acknowledged) + 2
    assert len(read(path)) == int(second)


@pytest.mark.process
def test_acknowledged_events_survive_kill_9(tmp_path):
    """Whatever was acknowledged before SIGKILL is there afterwards, and the chain is whole."""
    path = tmp_path / "journal.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    journal = Journal(path)
    assert journal.tip.seq >= acknowledged[-1] >= 50
    assert len(list(journal.entries())) == journal.tip.seq
    append(journal)
    journal.close()
