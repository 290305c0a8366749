"""The outbox: exact accounts at every instant, whatever server and disk do; and the dead letter beside it."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from contextlib import ExitStack

import pytest

from metrics.errors import StoreFailedError
from metrics.store.dead_letter import DeadLetter, Refused
from metrics.store.influx_client import InfluxAwayError
from metrics.store.outbox import Outbox, Pace
from metrics.store.spool import BYTES_MIN, Spool
from metrics.store_writer import StoreAccounts

QUICK = Pace(batch_points=50, linger_s=0.01, memory_points_max=1000, backoff_min_s=0.001, backoff_max_s=0.004)


class Server:
    """Takes lines; `away` is raised instead, lines with "vile" are refused."""

    def __init__(self):
        self.away = None
        self.taken = []
        self.batches = []
        self.attempts = 0

    def send(self, lines):
        self.attempts += 1
        if self.away is not None:
            raise self.away
        self.batches.append(len(lines))
        self.taken.extend(line for line in lines if b"vile" not in line)
        return [Refused(line, "it is vile") for line in lines if b"vile" in line]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def open_outbox(tmp_path, server):
    """Call it for an outbox to `server` with its spool in `tmp_path`, closed in the end."""
    with ExitStack() as stack:

        def open_it(pace=QUICK, *, bytes_max=1 << 24, send=server.send):
            spool = Spool(tmp_path / "spool", bytes_max)
            outbox = Outbox(spool, send, DeadLetter(tmp_path / "refused.jsonl", 100_000), pace)
            stack.callback(outbox.close)
            return outbox

        yield open_it


def wait_for(condition, within_s=20.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.001)


def test_lines_arrive_in_order_and_are_counted(open_outbox, server):
    """What is put arrives, whatever the size of the parts, and points without a form are counted as rejected."""
    outbox = open_outbox()
    outbox.put(["a", "b"], rejected=3)
    outbox.put([])
    outbox.put([str(number) for number in range(200)])
    assert outbox.flush(10.0)
    assert server.taken == [b"a", b"b", *(b"%d" % number for number in range(200))]
    assert max(server.batches) <= QUICK.batch_points
    assert outbox.accounts() == StoreAccounts(produced=205, written=202, rejected=3, dropped=0, buffered=0)


def test_lines_may_contain_anything_but_their_end(open_outbox, server):
    """Newlines within a line do not tear it."""
    outbox = open_outbox()
    outbox.put(['m s="two\nlines" 1', "m λ=1 2"])
    assert outbox.flush(10.0)
    assert server.taken == [b'm s="two\nlines" 1', "m λ=1 2".encode()]


def test_refused_lines_are_counted_and_kept(open_outbox, tmp_path):
    """Lines that the server will not take are rejected, with the reason in the dead letter; the others are written."""
    outbox = open_outbox()
    outbox.put(["good", "vile 1", "vile 2"])
    assert outbox.flush(10.0)
    assert outbox.accounts() == StoreAccounts(produced=3, written=1, rejected=2, dropped=0, buffered=0)
    assert [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()] == [
        {"reason": "it is vile", "line": "vile 1"},
        {"reason": "it is vile", "line": "vile 2"},
    ]


def test_an_outage_fills_the_disk_and_empties_it_afterwards(open_outbox, server):
    """While the server is away everything is buffered and the reason told; then it arrives in full batches."""
    outbox = open_outbox()
    server.away = InfluxAwayError("out for lunch")
    for number in range(300):
        outbox.put([f"line {number}"])
    assert not outbox.flush(10.0)
    assert str(outbox.failure) == "out for lunch"
    accounts = outbox.accounts()
    assert (accounts.written, accounts.buffered, accounts.dropped) == (0, 300, 0)
    server.away = None
    wait_for(lambda: outbox.accounts().written == 300)
    assert server.taken == [b"line %d" % number for number in range(300)]
    assert outbox.failure is None


def test_a_longer_outage_drops_the_oldest_and_counts_them(open_outbox, server):
    """Beyond the bound of the spool the oldest go; what is left arrives, and nothing is unaccounted for."""
    outbox = open_outbox(bytes_max=BYTES_MIN)
    server.away = InfluxAwayError("away")
    rng = random.Random(1)
    for start in range(0, 3000, 100):
        outbox.put([f"{number} {rng.randbytes(60).hex()}" for number in range(start, start + 100)])
        wait_for(lambda: not outbox._in_memory)  # so that it is the disk that overflows
    server.away = None
    wait_for(lambda: not outbox.accounts().buffered)
    accounts = outbox.accounts()
    assert accounts.balanced
    assert accounts.buffered == 0
    assert accounts.dropped > 0
    numbers = [int(line.split()[0]) for line in server.taken]
    assert len(numbers) == accounts.written == 3000 - accounts.dropped
    assert numbers == sorted(numbers)
    assert numbers[-500:] == list(range(2500, 3000))


def test_a_restart_takes_over_what_was_left(open_outbox, server):
    """The next outbox sends what the last one left on disk, and counts it as produced."""
    server.away = InfluxAwayError("away")
    first = open_outbox()
    first.put(["a", "b"])
    first.close()
    assert first.accounts() == StoreAccounts(produced=2, written=0, rejected=0, dropped=0, buffered=2)
    server.away = None
    second = open_outbox()
    second.put(["c"])
    assert second.flush(10.0)
    assert server.taken == [b"a", b"b", b"c"]
    assert second.accounts() == StoreAccounts(produced=3, written=3, rejected=0, dropped=0, buffered=0)


def test_closing_sends_what_is_there_and_takes_no_more(open_outbox, server):
    """Close empties memory and disk towards a server that answers; afterwards putting is an error."""
    outbox = open_outbox(Pace(batch_points=50, linger_s=60.0))
    outbox.put([str(number) for number in range(30)])
    outbox.close()
    outbox.close()
    assert len(server.taken) == 30
    assert outbox.accounts() == StoreAccounts(produced=30, written=30, rejected=0, dropped=0, buffered=0)
    with pytest.raises(StoreFailedError, match="the outbox is closed"):
        outbox.put(["late"])


def test_closing_waits_no_longer_than_it_may(open_outbox, tmp_path):
    """A send that hangs does not hold up close; its lines stay on disk and in the accounts."""
    begun, answer = threading.Event(), threading.Event()

    def send(_lines):
        begun.set()
        answer.wait()
        return ()

    outbox = open_outbox(send=send)
    outbox.put(["a"])
    assert begun.wait(10.0)
    outbox.put(["b"])
    outbox.close(timeout_s=0.05)
    assert not answer.is_set()
    accounts = outbox.accounts()
    assert (accounts.buffered, accounts.balanced) == (2, True)
    answer.set()
    wait_for(lambda: not any(thread.name.startswith("iace-outbox") for thread in threading.enumerate()))
    again = Spool(tmp_path / "spool", 1 << 24)
    assert again.points == 1  # "a" was answered after all, "b" is for the next start
    again.close()


def test_a_backlog_does_not_hold_up_closing(open_outbox, server):
    """Close stops between two batches once its time is over, and leaves the rest on disk."""
    server.away = InfluxAwayError("away")
    outbox = open_outbox()
    outbox.put([str(number) for number in range(900)])
    outbox.flush(10.0)
    server.away = None
    outbox.close(timeout_s=0.0)
    wait_for(lambda: not any(thread.name.startswith("iace-outbox") for thread in threading.enumerate()))
    accounts = outbox.accounts()
    assert accounts.balanced
    assert accounts.dropped == 0
    assert accounts.buffered >= 900 - len(server.taken)


def test_the_pauses_grow_up_to_their_bound(open_outbox, server, monkeypatch):
    """After each failure the wait doubles, never beyond its bound; a server's own wish counts within the bound."""
    waits = []
    outbox = open_outbox(Pace(linger_s=0.01, backoff_min_s=0.5, backoff_max_s=30.0))

    def wait_for_at_most(predicate, timeout=None):
        if threading.current_thread().name == "iace-outbox-send" and timeout is not None:
            waits.append(timeout)
            if len(waits) == 9:
                server.away = InfluxAwayError("busy", retry_after_s=7.0)
            if len(waits) == 10:
                server.away = None
            return False
        return real_wait_for(predicate, timeout)

    real_wait_for = outbox._changed.wait_for
    monkeypatch.setattr(outbox._changed, "wait_for", wait_for_at_most)
    server.away = InfluxAwayError("away")
    outbox.put(["a"])
    wait_for(lambda: outbox.accounts().written == 1)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    server.away = InfluxAwayError("busy", retry_after_s=7.0)
    waits.clear()
    outbox.put(["b"])
    wait_for(lambda: outbox.accounts().written == 2)
    assert waits[:2] == [7.0, 7.0]


def test_a_bug_in_sending_neither_ends_the_thread_nor_goes_unseen(open_outbox, server, caplog):
    """An unforeseen error is logged with its traceback and the lines are sent again."""
    server.away = RuntimeError("unforeseen")
    outbox = open_outbox()
    outbox.put(["a"])
    wait_for(lambda: server.attempts > 2)
    assert "a bug: RuntimeError('unforeseen')" in str(outbox.failure)
    assert "Traceback" in caplog.text
    server.away = None
    wait_for(lambda: outbox.accounts().written == 1)


def test_a_failing_disk_keeps_lines_in_memory_within_the_bound(open_outbox, server, monkeypatch):
    """While the spool cannot be written the newest lines stay in memory, the oldest go and are counted."""
    outbox = open_outbox()

    def fail(*_):
        raise StoreFailedError("no disk")

    monkeypatch.setattr(outbox._spool, "append", fail)
    for number in range(100):
        outbox.put([f"{number}.{part}" for part in range(20)])
        outbox.flush(0.0005)
    assert not outbox.flush(10.0)
    assert str(outbox.failure) == "no disk"
    accounts = outbox.accounts()
    assert accounts.balanced
    assert accounts.buffered <= QUICK.memory_points_max
    assert accounts.buffered + accounts.dropped == 2000
    monkeypatch.undo()
    wait_for(lambda: outbox.accounts().buffered == 0)
    assert outbox.accounts().written == len(server.taken) == 2000 - accounts.dropped
    assert server.taken[-1] == b"99.19"
    assert outbox.failure is None


def test_closing_on_a_failing_disk_counts_what_is_lost(open_outbox, monkeypatch, caplog):
    """Lines that reach neither server nor disk before the end are dropped, and it is said."""
    outbox = open_outbox()

    def fail(*_):
        raise StoreFailedError("no disk")

    monkeypatch.setattr(outbox._spool, "append", fail)
    outbox.put(["a", "b"])
    outbox.close()
    assert outbox.accounts() == StoreAccounts(produced=2, written=0, rejected=0, dropped=2, buffered=0)
    assert "2 points are lost, the spool failed: no disk" in caplog.text


def test_damage_in_the_spool_is_counted_as_dropped(open_outbox, server, tmp_path):
    """Records that are damaged on disk while they wait are dropped; the rest arrives."""
    begun, damaged = threading.Event(), threading.Event()

    def send(lines):
        if damaged.is_set():
            return server.send(lines)
        begun.set()
        damaged.wait()
        raise InfluxAwayError("away")

    outbox = open_outbox(send=send)
    outbox.put(["a" * 100])
    assert begun.wait(10.0)
    outbox.put(["b" * 100])
    wait_for(lambda: outbox._spool.points == 2)
    (segment,) = (tmp_path / "spool").glob("*.segment")
    content = bytearray(segment.read_bytes())
    content[20] ^= 1
    segment.write_bytes(content)
    damaged.set()
    wait_for(lambda: outbox.accounts().buffered == 0)
    assert server.taken == [b"b" * 100]
    assert outbox.accounts() == StoreAccounts(produced=2, written=1, rejected=0, dropped=1, buffered=0)


def test_the_accounts_balance_at_every_instant(open_outbox, server):
    """However server, refusals and a small spool play together, each look at the accounts adds up."""
    outbox = open_outbox(bytes_max=BYTES_MIN)
    looks, done = [], threading.Event()

    def look():
        while not done.is_set():
            looks.append(outbox.accounts())

    watcher = threading.Thread(target=look)
    watcher.start()
    rng = random.Random(2)
    for number in range(400):
        outbox.put(
            [f"{'vile' if rng.random() < 0.02 else 'good'} {number} {rng.random()}" for _ in range(20)], rejected=1
        )
        if number % 40 == 0:
            server.away = InfluxAwayError("away") if rng.random() < 0.6 else None
        time.sleep(0.0005)
    server.away = None
    wait_for(lambda: outbox.accounts().buffered == 0)
    done.set()
    watcher.join()
    assert all(look.balanced and min(look.written, look.rejected, look.dropped, look.buffered) >= 0 for look in looks)
    assert all(later.written >= earlier.written for earlier, later in itertools.pairwise(looks))
    final = outbox.accounts()
    assert final.produced == 400 * 21
    assert final.written == len(server.taken)


# The dead letter.


def refusals(count):
    return [Refused(b"line %06d" % number, "reason") for number in range(count)]


def test_the_dead_letter_is_bounded_and_keeps_the_newest(tmp_path):
    """Two parts never exceed the bound, and hold the last lines without a gap."""
    letter = DeadLetter(tmp_path / "refused.jsonl", 10_000)
    for start in range(0, 1000, 100):
        letter.add(refusals(1000)[start : start + 100])
    parts = [tmp_path / "refused.jsonl.1", tmp_path / "refused.jsonl"]
    assert sum(part.stat().st_size for part in parts) <= 10_000
    lines = [json.loads(line)["line"] for part in parts for line in part.read_text().splitlines()]
    assert len(lines) > 10_000 / 2 / 50
    assert lines == [f"line {number:06}" for number in range(1000 - len(lines), 1000)]
    assert letter.unwritten == 0


def test_a_letter_beyond_the_bound_is_counted(tmp_path):
    """A line that fits into no part is not written, and the next one is."""
    letter = DeadLetter(tmp_path / "refused.jsonl", 1000)
    letter.add([Refused(b"x" * 600, "too long"), Refused(b"short", "reason")])
    assert json.loads((tmp_path / "refused.jsonl").read_text()) == {"reason": "reason", "line": "short"}
    assert letter.unwritten == 1


def test_a_dead_letter_that_cannot_be_written_costs_only_itself(tmp_path, caplog):
    """Where the file cannot be written the lines are counted and logged, and no error reaches the caller."""
    letter = DeadLetter(tmp_path / "missing" / "refused.jsonl", 1000)
    letter.add(refusals(3))
    assert letter.unwritten == 3
    assert "3 refused lines cannot be kept" in caplog.text
