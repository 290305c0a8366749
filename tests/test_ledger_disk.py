"""The chain on disk: what survives a crash, what is refused, and that nothing else is believed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from qecs import chain_file, frames
from qecs.audit import audit
from qecs.chain_directory import LedgerWriteError, holds_chain
from qecs.entry import CommitEntry
from qecs.errors import InvalidRequestError, LedgerCorruptError, UnknownTargetError
from qecs.flows import EmissionInputs, TickFlows
from qecs.ledger import Ledger

NODES = 4
BOUNDS = np.array([0, 2, 4], dtype=np.int64)
ZEROS = np.zeros(NODES, dtype=np.int64)


@pytest.fixture
def unsynchronised(monkeypatch):
    """Spare the disk where a test cares about contents only."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def flows(tick):
    committed = np.array([tick, 0, 1, 2], dtype=np.int64)
    received = ZEROS.copy()
    received[tick % NODES] = 995 * int(committed.sum())
    # A gain of 0 keeps the emission out of what is tested here.
    inputs = EmissionInputs(0.97, 0.94, 2_000_000, 0.0, 0.0)
    return TickFlows(tick, committed, 1000 * committed, received, ZEROS, 5 * committed, inputs)


def entry(number):
    return CommitEntry(
        id=f"tx-{number}",
        sender="node-0000",
        receiver="guest",
        amount=200,
        fee=2,
        burned=1,
        credited=199,
        sender_node=0,
        receiver_node=None,
        content="ab" * 32,
        coherence=None,
        tick_emission=0,
    )


def new_ledger(directory, **options):
    return Ledger.genesis(np.full(NODES, 500_000, dtype=np.int64), BOUNDS, directory=directory, **options)


def write_sample(directory, ticks=3, **options):
    """Write a chain of ticks with one transaction after each, and return it closed."""
    ledger = new_ledger(directory, **options)
    extend(ledger, range(1, ticks + 1))
    ledger.close()
    return ledger


def extend(ledger, ticks):
    for tick in ticks:
        ledger.append(flows(tick))
        ledger.append_commit(entry(tick))


def all_blocks(ledger):
    return ledger.blocks(0, ledger.height + 1)


def only_segment(directory):
    (path,) = directory.glob("chain-*.log")
    return path


def frame_ends(path):
    with path.open("rb") as file:
        return [frame.end for frame in frames.read_frames(file)]


def test_a_closed_chain_comes_back_whole(tmp_path):
    """Recovery gives the same tip, supply, balances, guests and blocks, and the chain goes on."""
    written = write_sample(tmp_path)
    ledger = Ledger.recover(tmp_path)
    assert ledger.tip == written.tip
    assert (ledger.supply, ledger.last_tick) == (written.supply, 3)
    assert ledger.balances().tolist() == written.balances().tolist()
    assert ledger.guest_balances() == {"guest": 597}
    assert [block.to_dict() for block in all_blocks(ledger)] == [block.to_dict() for block in all_blocks(written)]
    assert audit(all_blocks(ledger)) == []
    extend(ledger, [4])
    ledger.close()
    assert Ledger.recover(tmp_path).height == 8


def test_a_chain_that_was_never_closed_comes_back(tmp_path):
    """What was appended is on disk without a close."""
    ledger = new_ledger(tmp_path / "live")
    extend(ledger, range(1, 4))
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    assert Ledger.recover(tmp_path / "copy").tip == ledger.tip
    ledger.close()


@pytest.mark.usefixtures("unsynchronised")
@pytest.mark.parametrize("kind", ["commit", "tick"])
def test_a_tail_torn_at_any_byte_is_cut(tmp_path, kind):
    """A last record cut at each of its bytes disappears, everything before it stays, and the chain goes on."""
    ledger = new_ledger(tmp_path / "whole")
    extend(ledger, range(1, 3))
    if kind == "tick":
        ledger.append(flows(3))
    ledger.close()
    path = only_segment(tmp_path / "whole")
    content = path.read_bytes()
    before_last, last = frame_ends(path)[-2:]
    assert last == len(content)
    below = ledger.block(ledger.height - 1)
    directory = tmp_path / "torn"
    directory.mkdir()
    for size in range(before_last, last):
        (directory / path.name).write_bytes(content[:size])
        recovered = Ledger.recover(directory)
        assert recovered.tip.hash == below.hash
        recovered.append(flows(9))
        recovered.close()
        again = Ledger.recover(directory)
        assert (again.height, again.last_tick) == (below.header.height + 1, 9)
        again.close()


@pytest.mark.usefixtures("unsynchronised")
def test_damage_to_any_byte_is_refused(tmp_path):
    """A flipped byte anywhere, the last record included, is corruption, never a torn tail."""
    write_sample(tmp_path / "whole", ticks=1)
    path = only_segment(tmp_path / "whole")
    content = path.read_bytes()
    directory = tmp_path / "damaged"
    directory.mkdir()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        (directory / path.name).write_bytes(damaged)
        with pytest.raises(LedgerCorruptError):
            Ledger.recover(directory)


def test_damage_names_the_height(tmp_path):
    """The message says which block is damaged and in which file."""
    write_sample(tmp_path)
    path = only_segment(tmp_path)
    # Frames: the segment's start, genesis, tick 1 (height 1), its transaction (height 2), and so on.
    ends = frame_ends(path)
    content = bytearray(path.read_bytes())
    content[ends[3] - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LedgerCorruptError, match=r"height 2: chain-0{12}\.log: byte \d+: .*payload is damaged"):
        Ledger.recover(tmp_path)


def rewrite(path, old, new):
    """Replace bytes in a file and mend the checksums of its frames, as a skilled forger would."""
    with path.open("rb") as file:
        payloads = [frame.payload for frame in frames.read_frames(file)]
    assert any(old in payload for payload in payloads)
    changed = [payload.replace(old, new) for payload in payloads]
    path.write_bytes(b"".join(frames.frame_head(payload) + payload for payload in changed))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"amount":200,', b'"amount":300,', "does not have the Merkle root"),
        (b'"burn":25,', b'"burn":26,', "does not have the recorded hash"),
        (b'"kind":"commit"', b'"kind":"commut"', "not a block header"),
        (b'"version":1', b'"version":2', "record of version 1"),
        (b'"record":"block"', b'"record":"bloke"', "unknown record"),
        (b'"first_height":0', b'"first_height":1', "starts at height 1"),
    ],
)
def test_a_forged_record_is_refused(tmp_path, old, new, message):
    """Contents that were changed together with their checksums still do not verify."""
    write_sample(tmp_path)
    rewrite(only_segment(tmp_path), old, new)
    with pytest.raises(LedgerCorruptError, match=message):
        Ledger.recover(tmp_path)


def test_a_forged_checkpoint_is_refused(tmp_path):
    """Balances that no longer add up to the supply are refused."""
    write_sample(tmp_path, ticks=5, bodies_max=1)
    oldest = min(tmp_path.glob("chain-*.log"))
    ledger = Ledger.recover(tmp_path)
    ledger.close()
    with oldest.open("rb") as file:
        payload = next(frames.read_frames(file)).payload
    checkpoint = payload[-8 * NODES :]
    other = (np.frombuffer(checkpoint, dtype="<i8") + 1).tobytes()
    rewrite(oldest, checkpoint, other)
    with pytest.raises(LedgerCorruptError, match="balances add up to"):
        Ledger.recover(tmp_path)


def test_a_cut_record_in_the_middle_is_refused(tmp_path):
    """Bytes missing elsewhere than at the end are damage."""
    write_sample(tmp_path)
    path = only_segment(tmp_path)
    ends = frame_ends(path)
    content = path.read_bytes()
    path.write_bytes(content[: ends[2] - 3] + content[ends[2] :])
    with pytest.raises(LedgerCorruptError, match="height 1"):
        Ledger.recover(tmp_path)


def test_an_inflated_chain_is_refused(tmp_path):
    """A supply that jumped without emission is on record, hence recovery refuses it."""
    ledger = new_ledger(tmp_path)
    ledger.inflate(50)
    ledger.append(flows(1))
    ledger.close()
    with pytest.raises(LedgerCorruptError, match=r"height 1: supply .* off by 50"):
        Ledger.recover(tmp_path)


def test_a_directory_without_a_chain_is_said_to_be_one(tmp_path):
    """Recovering nothing is an unknown target, and starting over a chain is refused."""
    assert not holds_chain(tmp_path / "absent")
    with pytest.raises(UnknownTargetError, match="holds no ledger"):
        Ledger.recover(tmp_path)
    write_sample(tmp_path)
    assert holds_chain(tmp_path)
    with pytest.raises(InvalidRequestError, match="already holds a chain"):
        new_ledger(tmp_path)


def test_a_segment_without_anything_is_refused(tmp_path):
    """A segment that lost even its checkpoint is damage."""
    write_sample(tmp_path)
    only_segment(tmp_path).write_bytes(b"")
    with pytest.raises(LedgerCorruptError, match="even its checkpoint is missing"):
        Ledger.recover(tmp_path)


def test_one_process_at_a_time(tmp_path):
    """A chain that is open cannot be opened again until it is closed, twice if one likes."""
    ledger = new_ledger(tmp_path)
    with pytest.raises(LedgerWriteError, match="open in another process"):
        Ledger.recover(tmp_path)
    ledger.close()
    ledger.close()
    Ledger.recover(tmp_path).close()


def test_a_closed_ledger_takes_nothing_more(tmp_path):
    """Appending after close is refused and leaves memory as it was."""
    ledger = write_sample(tmp_path)
    tip = ledger.tip
    with pytest.raises(LedgerWriteError, match="takes no more blocks: it is closed"):
        ledger.append(flows(9))
    assert ledger.tip == tip


def test_an_unusable_directory_is_named(tmp_path):
    """A path that is no directory gives a write error, not a traceback of the operating system."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerWriteError, match="cannot use"):
        new_ledger(tmp_path / "file" / "ledger")


def test_a_full_disk_leaves_a_sound_chain(tmp_path, monkeypatch):
    """A write that fails half-way is undone: the block does not exist, and the next one is accepted."""
    ledger = new_ledger(tmp_path)
    extend(ledger, [1])
    tip = ledger.tip
    real_write = os.write
    calls = []

    def half_a_write(descriptor, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(frames.os, "write", half_a_write)
    with pytest.raises(LedgerWriteError, match="No space left"):
        ledger.append_commit(entry(2))
    monkeypatch.undo()
    assert ledger.tip == tip
    extend(ledger, [2])
    ledger.close()
    assert Ledger.recover(tmp_path).tip == ledger.tip


def test_a_failed_fsync_ends_the_ledger(tmp_path, monkeypatch):
    """After a failed fsync nothing is acknowledged any more, because a later success would prove nothing."""
    ledger = new_ledger(tmp_path)

    def failing(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(chain_file.os, "fsync", failing)
    with pytest.raises(LedgerWriteError, match="Input/output error"):
        ledger.append_commit(entry(1))
    monkeypatch.undo()
    assert ledger.height == 0
    with pytest.raises(LedgerWriteError, match="synchronising failed"):
        ledger.append_commit(entry(1))
    ledger.close()


def test_commits_are_synchronised_and_ticks_once_a_second(tmp_path, monkeypatch):
    """Every commit waits for the disk; ticks wait at most once a second and once on close."""
    ledger = new_ledger(tmp_path)
    now = [100.0]
    synced = []
    monkeypatch.setattr(chain_file.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(chain_file.os, "fsync", synced.append)
    ledger.append_commit(entry(1))
    assert len(synced) == 1
    for tick in range(1, 11):
        ledger.append(flows(tick))
    assert len(synced) == 1
    now[0] += 1.5
    ledger.append(flows(11))
    ledger.append(flows(12))
    assert len(synced) == 2
    ledger.close()
    assert len(synced) == 3


def bodies_on_disk(directory):
    ledger = Ledger.recover(directory)
    held = [block.header.height for block in all_blocks(ledger) if block.body is not None]
    ledger.close()
    return held


@pytest.mark.parametrize("ticks", range(1, 12))
def test_old_bodies_leave_the_disk_but_nothing_else(tmp_path, ticks):
    """With a limit on bodies recovery gives the same chain, balances and commits at any length."""
    limited = write_sample(tmp_path / "limited", ticks, bodies_max=3)
    full = write_sample(tmp_path / "full", ticks)
    ledger = Ledger.recover(tmp_path / "limited")
    assert ledger.tip == full.tip
    assert ledger.balances().tolist() == full.balances().tolist()
    assert [entry.id for _, entry in ledger.entries()] == [f"tx-{tick}" for tick in range(1, ticks + 1)]
    assert [block.body is None for block in all_blocks(ledger)] == [block.body is None for block in all_blocks(limited)]
    ledger.close()
    on_disk = sum(path.read_bytes().count(b'"kind":"tick"') for path in (tmp_path / "limited").glob("chain-*.log"))
    assert min(3, ticks) <= on_disk <= 6


def test_a_recovered_chain_with_a_limit_goes_on(tmp_path):
    """Recovering after every tick changes nothing about a chain with a limit on bodies."""
    write_sample(tmp_path / "stop-and-go", 1, bodies_max=2)
    for tick in range(2, 10):
        ledger = Ledger.recover(tmp_path / "stop-and-go")
        extend(ledger, [tick])
        ledger.close()
    through = write_sample(tmp_path / "through", 9, bodies_max=2)
    ledger = Ledger.recover(tmp_path / "stop-and-go")
    assert ledger.tip == through.tip
    assert ledger.balances().tolist() == through.balances().tolist()
    ledger.close()


@pytest.mark.parametrize("moment", ["replace", "archive", "unlink"])
def test_a_crash_while_segments_change_loses_nothing(tmp_path, monkeypatch, moment):
    """A crash at each step of starting a segment and archiving an old one leaves a chain that recovers."""
    directory = tmp_path / "live"
    ledger = new_ledger(directory, bodies_max=1)
    extend(ledger, range(1, 3))

    class CrashError(BaseException):
        pass

    def crash(*_args, **_kwargs):
        raise CrashError

    if moment == "archive":
        monkeypatch.setattr(chain_file, "_archive", crash)
    else:
        monkeypatch.setattr(Path, moment, crash)
    with pytest.raises(CrashError):
        ledger.append(flows(3))
    monkeypatch.undo()
    shutil.copytree(directory, tmp_path / "after")
    tip = ledger.tip
    ledger.close()
    recovered = Ledger.recover(tmp_path / "after")
    assert recovered.tip == tip
    extend(recovered, range(3, 6))
    recovered.close()
    through = write_sample(tmp_path / "through", 5, bodies_max=1)
    again = Ledger.recover(tmp_path / "after")
    assert again.tip == through.tip
    assert again.balances().tolist() == through.balances().tolist()
    again.close()


def test_a_failed_change_of_segments_ends_the_ledger(tmp_path, monkeypatch):
    """When old blocks cannot be moved nothing more is written, and what is on disk recovers."""
    ledger = new_ledger(tmp_path, bodies_max=1)
    extend(ledger, range(1, 3))
    tip = ledger.tip

    def failing(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chain_file, "_archive", failing)
    with pytest.raises(LedgerWriteError, match="No space left"):
        ledger.append(flows(3))
    monkeypatch.undo()
    with pytest.raises(LedgerWriteError, match="changing segments failed"):
        ledger.append_commit(entry(3))
    ledger.close()
    recovered = Ledger.recover(tmp_path)
    assert recovered.tip == tip
    recovered.close()


@pytest.mark.usefixtures("unsynchronised")
def test_an_archive_torn_at_any_byte_is_mended(tmp_path, monkeypatch):
    """A move to the archive that was cut anywhere is undone, since the segment is still there."""
    ledger = new_ledger(tmp_path / "live", bodies_max=1)
    extend(ledger, range(1, 3))
    monkeypatch.setattr(Path, "unlink", lambda _path: None)
    ledger.append(flows(3))
    monkeypatch.undo()
    ledger.close()
    archive = (tmp_path / "live" / "archive.log").read_bytes()
    for size in range(0, len(archive), 7):
        directory = tmp_path / f"torn-{size}"
        shutil.copytree(tmp_path / "live", directory)
        (directory / "archive.log").write_bytes(archive[:size])
        recovered = Ledger.recover(directory)
        assert recovered.tip == ledger.tip
        recovered.close()


def test_a_damaged_archive_is_refused(tmp_path):
    """A flipped byte in the archive, or an archive that ends too early, is damage."""
    write_sample(tmp_path, ticks=6, bodies_max=1)
    archive = tmp_path / "archive.log"
    content = archive.read_bytes()
    archive.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(LedgerCorruptError, match=r"archive\.log"):
        Ledger.recover(tmp_path)
    archive.write_bytes(content[:-1])
    with pytest.raises(LedgerCorruptError, match="starts at height"):
        Ledger.recover(tmp_path)


def test_an_older_segment_that_ends_early_is_refused(tmp_path):
    """Only the last segment may end within a record."""
    write_sample(tmp_path, ticks=3, bodies_max=1)
    first = sorted(tmp_path.glob("chain-*.log"))[-2]
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(LedgerCorruptError, match="ends within a record"):
        Ledger.recover(tmp_path)


KILLED = """
import importlib.util
from pathlib import Path
spec = importlib.util.spec_from_file_location("sample", {file!r})
sample = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sample)
ledger = sample.new_ledger(Path({directory!r}))
tick = 0
while True:
    tick += 1
    ledger.append(sample.flows(tick))
    ledger.append_commit(sample.entry(tick))
    print(tick, flush=True)
"""


@pytest.mark.process
def test_kill_loses_no_acknowledged_commit(tmp_path):
    """A process killed while it writes has on disk everything that it acknowledged."""
    code = KILLED.format(file=__file__, directory=str(tmp_path / "ledger"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(50)][-1]
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split("\n")[:-1])])
    ledger = Ledger.recover(tmp_path / "ledger")
    assert {entry.id for _, entry in ledger.entries()} >= {f"tx-{tick}" for tick in range(1, acknowledged + 1)}
    assert ledger.last_tick >= acknowledged
    assert int(ledger.balances().sum()) + sum(ledger.guest_balances().values()) == ledger.supply
    ledger.close()


def test_a_frame_head_is_what_the_layout_says():
    """Length, checksum of the payload, checksum of both, little-endian."""
    head = frames.frame_head(b"ab", b"c")
    assert head[:8] == (3).to_bytes(8, "little")
    assert head[8:12] == crc32(b"abc").to_bytes(4, "little")
    assert head[12:] == crc32(head[:12]).to_bytes(4, "little")
