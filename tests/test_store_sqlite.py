"""The contract of every time-series store, and what is particular to the SQLite one."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from metrics.errors import NotPermittedError, StoreFailedError
from metrics.store.protocol import Aggregate, Point, Sample, Store, WriteResult
from metrics.store.sqlite import SqliteStore


def sqlite_store(directory) -> Store:
    return SqliteStore(directory / "telemetry.sqlite")


STORES = [sqlite_store]


@pytest.fixture(params=STORES, ids=lambda make: make.__name__)
def store(request, tmp_path):
    """An empty store of each kind."""
    with closing(request.param(tmp_path)) as opened:
        yield opened


def test_what_is_written_is_read_back_in_time_order(store):
    """Samples come back ordered by time, from the half-open interval that was asked for."""
    assert store.write([Point("a", 30, 3.0), Point("a", 10, 1.0), Point("b", 10, 9.0), Point("a", 20, 2.0)]) == (
        WriteResult(4, 0)
    )
    assert store.range("a", 10, 30) == [Sample(10, 1.0), Sample(20, 2.0)]
    assert store.range("a", 0, 10) == []
    assert store.range("unknown", 0, 100) == []


def test_the_same_instant_is_replaced(store):
    """Writing a series at a time that it has already replaces the value."""
    store.write([Point("a", 1, 1.0), Point("a", 1, 2.0)])
    store.write([Point("a", 1, 3.0)])
    assert store.range("a", 0, 10) == [Sample(1, 3.0)]


def test_values_that_are_not_finite_are_omitted_and_counted(store):
    """NaN, infinities and impossible times are rejected, the rest of the batch is written."""
    batch = [Point("a", 1, math.nan), Point("a", 2, math.inf), Point("a", 3, 1.0), Point("a", 2**63, 1.0)]
    assert store.write(batch) == WriteResult(1, 3)
    assert store.range("a", 0, 10) == [Sample(3, 1.0)]


def test_an_empty_batch_is_fine(store):
    """Nothing to write is no error."""
    assert store.write([]) == WriteResult(0, 0)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Aggregate.MEAN, [1.5, 5.0]),
        (Aggregate.MIN, [1.0, 5.0]),
        (Aggregate.MAX, [2.0, 5.0]),
        (Aggregate.LAST, [1.0, 5.0]),
        (Aggregate.COUNT, [2.0, 1.0]),
    ],
)
def test_aggregates(store, how, expected):
    """Each step that has samples gives one value at its start; empty steps give none."""
    store.write([Point("a", 105, 2.0), Point("a", 109, 1.0), Point("a", 125, 5.0), Point("a", 130, 7.0)])
    samples = store.aggregate("a", 100, 130, 10, how)
    assert [sample.at_ns for sample in samples] == [100, 120]
    assert [sample.value for sample in samples] == expected


@pytest.mark.parametrize("step_ns", [0, -1])
def test_a_step_must_be_positive(store, step_ns):
    """An aggregate over steps of no length is refused."""
    with pytest.raises(ValueError, match=f"step_ns must be positive, not {step_ns}"):
        store.aggregate("a", 0, 10, step_ns, Aggregate.MEAN)


def test_latest_and_series(store):
    """The newest sample is found whatever the order of writing, and the names are sorted."""
    store.write([Point("kpi.b", 5, 1.0), Point("kpi.b", 2, 2.0), Point("kpi.a", 1, 3.0)])
    assert store.latest("kpi.b") == Sample(5, 1.0)
    assert store.latest("nothing") is None
    assert store.series() == ("kpi.a", "kpi.b")


def test_retention_forgets_what_is_older(store):
    """Samples before the given time go and are counted; a series without samples is no longer listed."""
    store.write([Point("a", 1, 1.0), Point("a", 5, 2.0), Point("b", 2, 3.0)])
    assert store.retain(5) == 2
    assert store.range("a", 0, 10) == [Sample(5, 2.0)]
    assert store.series() == ("a",)
    store.write([Point("b", 7, 4.0)])
    assert store.latest("b") == Sample(7, 4.0)


def test_names_are_only_names(store):
    """A series may bear any name, quotes and all."""
    name = "node.x'; DROP TABLE points; --.gravity \N{GREEK SMALL LETTER LAMDA}"
    store.write([Point(name, 1, 1.0)])
    assert store.series() == (name,)
    assert store.latest(name) == Sample(1, 1.0)


def test_a_sound_store_passes_its_check(store):
    """Check raises nothing on a store that can be written."""
    store.write([Point("a", 1, 1.0)])
    store.check()


def test_a_closed_store_says_so(store):
    """After close, which may come twice, reading and writing fail with a clear word."""
    store.close()
    store.close()
    for use in (lambda: store.write([Point("a", 1, 1.0)]), lambda: store.latest("a"), store.check):
        with pytest.raises(StoreFailedError, match="is closed"):
            use()


def test_other_threads_read_while_one_writes(store):
    """Readers in other threads see whole batches and fail never."""
    failures, seen = [], []

    def read():
        try:
            seen.extend(len(store.range("a", 0, 10**9)) for _ in range(50))
        except StoreFailedError as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for batch in range(20):
        store.write([Point("a", batch * 10 + i, 1.0) for i in range(10)])
    for reader in readers:
        reader.join()
    assert not failures
    assert all(count % 10 == 0 for count in seen)


def test_sqlite_keeps_its_data(tmp_path):
    """What was written is there when the file is opened again."""
    with closing(sqlite_store(tmp_path)) as store:
        store.write([Point("a", 1, 1.5)])
    with closing(sqlite_store(tmp_path)) as store:
        assert store.latest("a") == Sample(1, 1.5)


def test_sqlite_is_readable_by_another_process(tmp_path):
    """Another process reads the file while this one has it open for writing."""
    with closing(sqlite_store(tmp_path)) as store:
        store.write([Point("a", 1, 1.5)])
        script = (
            "import sys; from pathlib import Path; from metrics.store.sqlite import SqliteStore\n"
            "store = SqliteStore(Path(sys.argv[1])); print(store.latest('a').value); store.close()"
        )
        path = tmp_path / "telemetry.sqlite"
        result = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
        assert result.stdout == "1.5\n"
        store.write([Point("a", 2, 2.5)])
        assert store.latest("a") == Sample(2, 2.5)


def test_sqlite_full_disk_writes_nothing_of_the_batch(tmp_path):
    """When space runs out the whole batch is undone, the error says what to do, and later writes work again."""
    with closing(SqliteStore(tmp_path / "t.sqlite")) as store:
        store.write([Point("a", 1, 1.0)])
        (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
        store._writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFailedError, match=r"t\.sqlite: the disk is full: free space"):
            store.write([Point(f"new.{i % 50}", i, 1.0) for i in range(5000)])
        assert store.series() == ("a",)
        store._writer.execute("PRAGMA max_page_count = 100000")
        assert store.write([Point("new.1", 1, 2.0)]) == WriteResult(1, 0)
        assert store.latest("new.1") == Sample(1, 2.0)


def test_sqlite_read_only_database_is_a_permission_problem(tmp_path):
    """A database that cannot be written for want of permission is told apart from a broken one."""
    with closing(SqliteStore(tmp_path / "t.sqlite")) as store:
        store._writer.execute("PRAGMA query_only = 1")
        with pytest.raises(NotPermittedError, match=r"t\.sqlite must be readable and writable"):
            store.write([Point("a", 1, 1.0)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_sqlite_read_only_directory_is_a_permission_problem(tmp_path):
    """A directory in which nothing can be created is named as such."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(NotPermittedError):
            SqliteStore(tmp_path / "t.sqlite")
    finally:
        tmp_path.chmod(0o700)


def test_sqlite_missing_directory_is_explained(tmp_path):
    """A path into nowhere fails with the path and what to check."""
    with pytest.raises(StoreFailedError, match=r"nowhere/t\.sqlite: it cannot be opened: check that its directory"):
        SqliteStore(tmp_path / "nowhere" / "t.sqlite")


def test_sqlite_refuses_what_is_no_database(tmp_path):
    """A file of something else is left as it is."""
    path = tmp_path / "t.sqlite"
    path.write_bytes(b"precious text " * 100)
    with pytest.raises(StoreFailedError, match="no SQLite database"):
        SqliteStore(path)
    assert path.read_bytes() == b"precious text " * 100


def test_sqlite_refuses_the_database_of_another_program(tmp_path):
    """A SQLite file that we did not make is not written to."""
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (value)")
    with pytest.raises(StoreFailedError, match="database of another program"):
        SqliteStore(path)


def test_sqlite_refuses_a_newer_schema(tmp_path):
    """A file of a newer version is refused with both versions."""
    path = tmp_path / "t.sqlite"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(StoreFailedError, match="has schema 3, written by a newer version; this one knows 2"):
        SqliteStore(path)


def test_sqlite_damage_is_found(tmp_path):
    """A file whose pages were overwritten fails its check with what to do."""
    path = tmp_path / "t.sqlite"
    with closing(SqliteStore(path)) as store:
        store.write([Point(f"s{i % 7}", i, float(i)) for i in range(5000)])
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 12 * 4096] = b"\xff" * (9 * 4096)
    path.write_bytes(content)
    with closing(SqliteStore(path)) as store, pytest.raises(StoreFailedError, match="damaged: move it aside"):
        store.check()


def test_sqlite_locked_by_another_writer_is_no_long_wait(tmp_path):
    """While another process holds the file for writing, a write fails soon and says why; then it works again."""
    path = tmp_path / "t.sqlite"
    with closing(SqliteStore(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFailedError, match="another process is writing"):
            store.write([Point("a", 1, 1.0)])
        other.execute("ROLLBACK")
        assert store.write([Point("a", 1, 1.0)]) == WriteResult(1, 0)
