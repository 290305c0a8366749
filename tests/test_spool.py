"""The spool and its frames: order, bounds, restarts, torn and damaged files."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from metrics.errors import NotPermittedError, StoreFailedError
from metrics.store import spool as spool_module
from metrics.store.frames import pack, scan, unpack
from metrics.store.spool import BYTES_MIN, Spool

ROOM = 64 * BYTES_MIN


@pytest.fixture
def open_spool(tmp_path):
    """Call it for the spool in `tmp_path`/spool, closed in the end."""
    with ExitStack() as stack:
        yield lambda bytes_max=ROOM: stack.enter_context(closing(Spool(tmp_path / "spool", bytes_max)))


def drained(spool, points_max=10**9):
    """All records, each batch committed."""
    records = []
    while (batch := spool.peek(points_max)) is not None:
        records.extend(batch.records)
        spool.commit()
    return records


def segments(tmp_path):
    return sorted((tmp_path / "spool").glob("*.segment"))


def noise(size, seed=0):
    """Bytes that no compression makes smaller."""
    return random.Random(seed).randbytes(size)


# Frames.


def test_a_frame_gives_its_record_back():
    """What was packed is unpacked, an empty record too."""
    for record in (b"", b"a", b"x" * 100_000):
        assert unpack(pack(record, 3)) == record


def test_no_part_and_no_damage_of_a_frame_passes_for_it():
    """A frame that is cut anywhere, or has any byte changed, is not whole."""
    frame = pack(b"iace_kpi gas=0.5 1", 1)
    assert all(unpack(frame[:length]) is None for length in range(len(frame)))
    for position in range(len(frame)):
        damaged = bytearray(frame)
        damaged[position] ^= 0x10
        assert unpack(bytes(damaged)) is None


def test_a_scan_finds_the_whole_frames_around_damage(caplog):
    """Frames before and after a damaged one are found, and the bytes that are passed over are told."""
    frames = [pack(bytes([i]) * 50, i) for i in range(1, 4)]
    content = frames[0] + b"\xff" + frames[1][1:] + frames[2] + frames[0][:-1]
    content = content[: len(frames[0])] + b"?" + content[len(frames[0]) + 1 :]
    assert [frame.points for frame in scan(content, 0, "f")] == [1, 3]
    assert f"f: {len(frames[1]) + len(frames[0]) - 1} bytes were torn or damaged" in caplog.text


# The spool.


def test_records_come_out_in_order_and_stay_until_committed(open_spool):
    """The oldest records come first, as many as the points allow but at least one, again and again until committed."""
    spool = open_spool()
    for number in range(5):
        assert spool.append(b"record %d" % number, 10) == 0
    assert spool.points == 50
    for _ in range(2):
        batch = spool.peek(25)
        assert (batch.records, batch.points, batch.lost) == ((b"record 0", b"record 1"), 20, 0)
    spool.commit()
    assert spool.points == 30
    assert spool.peek(1).records == (b"record 2",)
    spool.release()
    spool.commit()
    assert spool.points == 30
    assert drained(spool) == [b"record 2", b"record 3", b"record 4"]
    assert (spool.points, spool.size, spool.peek(1)) == (0, 0, None)


def test_a_restart_resumes_after_what_was_sent(open_spool, tmp_path):
    """A new spool in the directory has what was not committed, and what was is not sent again."""
    first = open_spool()
    for number in range(4):
        first.append(b"%d" % number, 1)
    first.peek(2)
    first.commit()
    first.peek(1)
    first.close()
    second = open_spool()
    assert second.points == 2
    second.append(b"4", 1)
    assert drained(second) == [b"2", b"3", b"4"]
    second.close()
    third = open_spool()
    third.append(b"5", 1)
    third.close()
    assert drained(open_spool()) == [b"5"]
    assert segments(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 20])
def test_a_lost_position_sends_again_and_loses_nothing(open_spool, tmp_path, content):
    """Without a readable position the oldest segment is sent from its beginning."""
    first = open_spool()
    first.append(b"a", 1)
    first.append(b"b", 1)
    first.peek(1)
    first.commit()
    first.close()
    (tmp_path / "spool" / "position").write_bytes(content)
    assert drained(open_spool()) == [b"a", b"b"]


def test_a_torn_tail_is_cut_wherever_it_was_torn(tmp_path):
    """Whatever part of the last frame reached the disk, the records before it are whole and new ones follow."""
    with closing(Spool(tmp_path / "whole", ROOM)) as spool:
        spool.append(b"first", 1)
        spool.append(b"second", 2)
    (segment,) = (tmp_path / "whole").glob("*.segment")
    content = segment.read_bytes()
    second = len(pack(b"first", 1))
    for length in range(second, len(content)):
        directory = tmp_path / str(length)
        directory.mkdir()
        (directory / segment.name).write_bytes(content[:length])
        with closing(Spool(directory, ROOM)) as spool:
            assert spool.points == 1
            spool.append(b"third", 1)
            assert drained(spool) == [b"first", b"third"]


def test_the_oldest_go_when_the_bound_is_reached_and_are_counted(open_spool):
    """The files never outgrow the bound; what is left is the newest, and appended = left + dropped."""
    spool = open_spool(BYTES_MIN)
    dropped = 0
    for number in range(200):
        dropped += spool.append(b"%03d" % number + noise(997, number), 1)
        assert spool.size <= BYTES_MIN
        assert spool.points + dropped == number + 1
    left = [int(record[:3]) for record in drained(spool)]
    assert left == list(range(dropped, 200))
    assert BYTES_MIN * 14 / 16 / 1100 < len(left) <= BYTES_MIN / 1000


def test_what_is_being_sent_is_not_dropped(open_spool):
    """The segment of the batch on its way stays until it is committed or released, the next oldest goes instead."""
    spool = open_spool(BYTES_MIN)
    spool.append(b"first", 1)
    assert spool.peek(1).records == (b"first",)
    dropped = sum(spool.append(noise(2000, number), 1) for number in range(100))
    assert dropped > 0
    assert spool.points == 101 - dropped
    spool.commit()
    assert spool.points == 100 - dropped
    spool.peek(1)
    spool.release()
    head = spool.peek(1).records
    spool.release()
    for number in range(100):
        spool.append(noise(2000, number), 1)
    assert spool.peek(1).records != head


def test_a_record_beyond_a_segment_goes_itself(open_spool):
    """What could never fit is counted as dropped at once, and nothing else with it."""
    spool = open_spool(BYTES_MIN)
    spool.append(b"small", 1)
    assert spool.append(noise(BYTES_MIN), 7) == 7
    assert drained(spool) == [b"small"]


def test_damage_on_the_disk_is_found_and_counted_when_read(open_spool, tmp_path, caplog):
    """A record that was damaged after it was written is passed over, and its points are told as lost."""
    spool = open_spool()
    for number in range(3):
        spool.append(b"record %d" % number, 10 + number)
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    batch = spool.peek(100)
    assert (batch.records, batch.points, batch.lost) == ((b"record 0", b"record 2"), 22, 11)
    assert "11 points at byte" in caplog.text
    spool.commit()
    assert spool.points == 0


def test_a_segment_that_somebody_deleted_is_lost_and_counted(open_spool, tmp_path):
    """Files that vanish do not hold up what follows."""
    spool = open_spool()
    spool.append(b"gone", 5)
    (segment,) = segments(tmp_path)
    segment.unlink()
    batch = spool.peek(100)
    assert (batch.records, batch.points, batch.lost) == ((), 0, 5)
    spool.append(b"next", 1)
    assert drained(spool) == [b"next"]


def test_one_process_at_a_time(open_spool, tmp_path):
    """A second opener is told that the directory is in use, and may have it once the first is closed."""
    first = open_spool()
    with pytest.raises(StoreFailedError, match="spool is in use by another process: stop that one"):
        Spool(tmp_path / "spool", ROOM)
    first.close()
    open_spool().append(b"a", 1)


def test_a_closed_spool_says_so(open_spool):
    """After close, which may come twice, nothing is taken and nothing given."""
    spool = open_spool()
    spool.append(b"a", 1)
    spool.close()
    spool.close()
    for use in (lambda: spool.append(b"b", 1), lambda: spool.peek(1), spool.commit, spool.sync):
        with pytest.raises(StoreFailedError, match="spool is closed"):
            use()


def test_bounds_that_are_too_small_and_directories_that_are_none_are_refused(tmp_path):
    """A useless bound is a mistake of the caller, a file in place of the directory an error of the store."""
    with pytest.raises(ValueError, match=f"at least {BYTES_MIN} bytes, not 1000"):
        Spool(tmp_path / "spool", 1000)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailedError, match="file: File exists: check the disk"):
        Spool(tmp_path / "file", ROOM)


def test_a_smaller_bound_than_before_is_kept_at_the_next_record(open_spool):
    """A spool that is opened with less room drops its oldest segments when it is written to."""
    big = open_spool(16 * BYTES_MIN)
    for number in range(300):
        big.append(noise(1000, number), 1)
    big.close()
    small = open_spool(BYTES_MIN)
    assert small.points == 300
    dropped = small.append(b"new", 1)
    assert small.size <= BYTES_MIN
    assert small.points == 301 - dropped


def test_a_full_disk_keeps_the_frames_whole(open_spool, monkeypatch):
    """A write that stops half-way is undone: the error says why, and what is appended later is readable."""
    spool = open_spool()
    spool.append(b"before", 1)
    real_write, room = os.write, [10]

    def write(descriptor, data):
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[: room.pop()])

    monkeypatch.setattr(spool_module.os, "write", write)
    with pytest.raises(StoreFailedError, match="No space left on device: check the disk"):
        spool.append(b"too much", 1)
    monkeypatch.undo()
    assert spool.append(b"after", 1) == 0
    assert drained(spool) == [b"before", b"after"]


def test_want_of_permission_is_told_apart(open_spool, monkeypatch):
    """A system that forbids writing is not taken for a broken disk."""
    spool = open_spool()

    def forbid(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(spool_module.os, "write", forbid)
    with pytest.raises(NotPermittedError, match="spool must be readable and writable"):
        spool.append(b"a", 1)


def test_sync_brings_the_records_and_their_file_to_the_disk(open_spool, monkeypatch):
    """Both the newest segment and, once after its creation, the directory are synced."""
    calls = []
    monkeypatch.setattr(spool_module.os, "fdatasync", lambda _: calls.append("segment"))
    monkeypatch.setattr(spool_module.os, "fsync", lambda _: calls.append("directory"))
    spool = open_spool()
    spool.sync()
    spool.append(b"a", 1)
    spool.sync()
    spool.append(b"b", 1)
    spool.sync()
    assert calls == ["segment", "directory", "segment"]


KILLED = """
import os, sys
from pathlib import Path
from metrics.store.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 22)
number = 0
while True:
    spool.append(b"%d" % number + b"x" * (number % 3000), 1)
    os.write(1, b"%d\\n" % number)
    if number % 7 == 6:
        batch = spool.peek(3)
        os.write(1, b"".join(b"peeked %s\\n" % record.rstrip(b"x") for record in batch.records))
        spool.commit()
    number += 1
"""


@pytest.mark.process
@pytest.mark.parametrize("after", [1, 30, 400])
def test_a_killed_process_loses_nothing_that_was_appended(tmp_path, after):
    """After kill -9 at any moment every record is there or had been peeked, and they are in order."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "spool"], stdout=subprocess.PIPE)
    lines = [process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    process.wait()
    whole = [line.split() for line in lines if line.endswith(b"\n")]
    appended = [int(words[0]) for words in whole if len(words) == 1]
    peeked = {int(words[1]) for words in whole if len(words) == 2}
    with closing(Spool(tmp_path / "spool", 1 << 22)) as spool:
        left = [int(record.rstrip(b"x")) for record in drained(spool)]
    assert left == sorted(left)
    assert set(appended) <= set(left) | peeked | set(range(max(peeked, default=-1) + 4))
    assert len(left) >= len(appended) - len(peeked) - 3


class SpoolMachine(RuleBasedStateMachine):
    """The spool beside a list of what it should hold, through appends, sends, restarts and torn tails."""

    def __init__(self):
        super().__init__()
        self.directory = TemporaryDirectory()
        self.spool = Spool(Path(self.directory.name), BYTES_MIN)
        self.expected = []  # (number, points, segment), oldest first
        self.count = 0
        self.peeked = 0

    def reopen(self):
        self.spool.close()
        self.spool = Spool(Path(self.directory.name), BYTES_MIN)
        self.peeked = 0

    @rule(size=st.integers(0, 3000), points=st.integers(1, 50))
    def append(self, size, points):
        dropped = self.spool.append(b"%d:" % self.count + noise(size, self.count), points)
        self.expected.append((self.count, points, self.spool._segments[-1].number))
        self.count += 1
        there = {segment.number for segment in self.spool._segments}
        gone = [entry for entry in self.expected if entry[2] not in there]
        assert dropped == sum(points for _, points, _ in gone)
        assert not any(entry in gone for entry in self.expected[: self.peeked])
        self.expected = [entry for entry in self.expected if entry[2] in there]

    @rule(points_max=st.integers(1, 200))
    def peek(self, points_max):
        batch = self.spool.peek(points_max)
        numbers = [int(record.split(b":", 1)[0]) for record in batch.records] if batch else []
        assert numbers == [number for number, _, _ in self.expected[: len(numbers)]]
        assert bool(numbers) == bool(self.expected)
        self.peeked = len(numbers)

    @rule()
    def commit(self):
        self.spool.commit()
        del self.expected[: self.peeked]
        self.peeked = 0

    @rule()
    def release(self):
        self.spool.release()
        self.peeked = 0

    @rule()
    def restart(self):
        self.reopen()

    @precondition(lambda self: self.expected)
    @rule(cut=st.integers(1, 15))
    def tear(self, cut):
        self.spool.close()
        newest = max(Path(self.directory.name).glob("*.segment"))
        *_, last = scan(newest.read_bytes(), 0, "newest")
        os.truncate(newest, last.offset + last.size - cut)
        self.expected.pop()
        self.reopen()

    @invariant()
    def accounts_agree(self):
        assert self.spool.points == sum(points for _, points, _ in self.expected)
        assert self.spool.size <= BYTES_MIN

    def teardown(self):
        self.spool.close()
        self.directory.cleanup()


TestSpoolAgainstAList = SpoolMachine.TestCase
TestSpoolAgainstAList.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
