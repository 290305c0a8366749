"""The contract of every time-series store, and what is particular to the SQLite one."""

from __future__ import annotations

import itertools
import math
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from controller import config_rules
from controller.settings import Config, StoreSettings
from metrics.errors import NotPermittedError, StoreFailedError
from metrics.store.protocol import Aggregate, Point, Sample, Store, WriteResult
from metrics.store.rollups import HOUR_NS, MINUTE_NS, NS_PER_S, Retention
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import StoreWriter
from metrics.telemetry import Frame, Telemetry


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


DAY_S = 86_400.0
KEEP_ALL = Retention(10 * DAY_S, 20 * DAY_S, 30 * DAY_S)
KEEP_LITTLE = Retention(raw_s=600.0, minute_s=2 * 3600.0, hour_s=5 * 3600.0)


def walk(hours, *, seed=0, every_s=7.0):
    """A random walk with uneven steps, beginning within an hour."""
    rng, at_ns, value, points = random.Random(seed), 1000 * NS_PER_S + 123, 0.0, []
    while at_ns < (1000 + 3600 * hours) * NS_PER_S:
        points.append(Point("a", at_ns, value))
        at_ns += round(rng.uniform(0.2, 2.0) * every_s * NS_PER_S)
        value += rng.gauss(0.0, 1.0)
    return points


def tidied(path, points, retention, *, at_ns=None):
    """A store that holds `points`, tidied until nothing is left to do."""
    store = SqliteStore(path, retention)
    store.write(points)
    for _ in range(200):
        store.tidy(points[-1].at_ns + 1 if at_ns is None else at_ns)
    return store


def rows(store, tier):
    return store._writer.execute(f"SELECT * FROM {tier} ORDER BY at_ns").fetchall()  # noqa: S608 - the test's own words


def test_tidy_rolls_samples_up_into_minutes_and_hours(tmp_path):
    """A minute that is over has least, greatest, sum, last and count of its samples, an hour those of its minutes."""
    values = [(0, 4.0), (30, -1.0), (59, 2.0), (60, 5.0), (3599, 7.0), (3600, 9.0), (3661, 1.0)]
    with closing(SqliteStore(tmp_path / "t.sqlite", KEEP_ALL)) as store:
        store.write([Point("a", second * NS_PER_S, value) for second, value in values])
        for _ in range(10):
            store.tidy(3661 * NS_PER_S)
        assert rows(store, "minutes") == [
            (1, 0, -1.0, 4.0, 5.0, 2.0, 3),
            (1, MINUTE_NS, 5.0, 5.0, 5.0, 5.0, 1),
            (1, 59 * MINUTE_NS, 7.0, 7.0, 7.0, 7.0, 1),
            (1, 60 * MINUTE_NS, 9.0, 9.0, 9.0, 9.0, 1),
        ]
        assert rows(store, "hours") == [(1, 0, -1.0, 7.0, 17.0, 7.0, 5)]
        store.check()


def test_times_before_zero_fall_into_their_own_minutes(tmp_path):
    """Buckets begin below their samples on either side of zero, and at the end of what 64 bits hold."""
    with closing(SqliteStore(tmp_path / "t.sqlite", KEEP_ALL)) as store:
        store.write([Point("a", at_ns, 1.0) for at_ns in (-2 * MINUTE_NS, -MINUTE_NS - 1, -1, 0, -(2**63))])
        for _ in range(5):
            store.tidy(MINUTE_NS)
        begun = [row[1] for row in rows(store, "minutes")]
        assert begun[-3:] == [-2 * MINUTE_NS, -MINUTE_NS, 0]
        assert store.aggregate("a", -2 * MINUTE_NS, 2 * MINUTE_NS, MINUTE_NS, Aggregate.COUNT) == [
            Sample(-2 * MINUTE_NS, 2.0),
            Sample(-MINUTE_NS, 1.0),
            Sample(0, 1.0),
        ]


@pytest.mark.parametrize("how", list(Aggregate))
@pytest.mark.parametrize("step_ns", [MINUTE_NS, 5 * MINUTE_NS, HOUR_NS, 3 * HOUR_NS, 90 * NS_PER_S, 7 * NS_PER_S])
@pytest.mark.parametrize("offset_ns", [0, 20 * NS_PER_S])
def test_rollups_give_what_every_sample_gives(tmp_path, how, step_ns, offset_ns):
    """While the samples are kept, every aggregate is that of the samples: aligned or not, whatever the end."""
    points = walk(hours=5)
    with (
        closing(tidied(tmp_path / "rolled.sqlite", points, KEEP_ALL)) as rolled,
        closing(SqliteStore(tmp_path / "plain.sqlite")) as plain,
    ):
        plain.write(points)
        for end_ns in (points[-1].at_ns, 4 * HOUR_NS, 4 * HOUR_NS + 61 * NS_PER_S):
            asked = ("a", offset_ns, end_ns, step_ns, how)
            expected, found = plain.aggregate(*asked), rolled.aggregate(*asked)
            if how is Aggregate.MEAN:
                assert [sample.at_ns for sample in found] == [sample.at_ns for sample in expected]
                assert [s.value for s in found] == pytest.approx([s.value for s in expected], rel=1e-12, abs=1e-12)
            else:
                assert found == expected


def test_an_aligned_aggregate_reads_the_rollups(tmp_path):
    """An hour's aggregate over hours is answered without a single sample."""
    points = walk(hours=4)
    with closing(tidied(tmp_path / "t.sqlite", points, KEEP_ALL)) as store:
        asked = ("a", 0, 4 * HOUR_NS, HOUR_NS, Aggregate.MAX)
        expected = store.aggregate(*asked)
        store._writer.execute("DELETE FROM points")
        store._writer.execute("DELETE FROM minutes")
        assert store.aggregate(*asked) == expected
        assert len(expected) == 4


def test_each_tier_forgets_by_its_own_retention(tmp_path):
    """Samples go first, minutes next, hours last; what is gone from one is still told by the next."""
    points = walk(hours=9)
    now_ns = points[-1].at_ns + 1
    with (
        closing(tidied(tmp_path / "t.sqlite", points, KEEP_LITTLE)) as store,
        closing(SqliteStore(tmp_path / "plain.sqlite")) as plain,
    ):
        plain.write(points)
        kept_samples, kept_minutes = rows(store, "points"), rows(store, "minutes")
        assert now_ns - 660 * NS_PER_S <= kept_samples[0][1] <= now_ns - 590 * NS_PER_S
        assert now_ns - 3 * HOUR_NS <= kept_minutes[0][1] <= now_ns - HOUR_NS
        first_hour_ns = rows(store, "hours")[0][1]
        assert now_ns - 6 * HOUR_NS <= first_hour_ns <= now_ns - 5 * HOUR_NS + 1
        hourly = ("a", first_hour_ns, now_ns, HOUR_NS)
        for how in (Aggregate.MIN, Aggregate.MAX, Aggregate.LAST, Aggregate.COUNT):
            assert store.aggregate(*hourly, how) == plain.aggregate(*hourly, how)
        store.check()


def test_where_samples_are_forgotten_a_bucket_stands_for_them(tmp_path):
    """A range shows a mean a minute, before that a mean an hour; a step takes the buckets that begin in it."""
    seconds = range(0, 6 * 3600, 30)
    points = [Point("a", second * NS_PER_S, float(second // 3600)) for second in seconds]
    with closing(tidied(tmp_path / "t.sqlite", points, KEEP_LITTLE, at_ns=6 * HOUR_NS)) as store:
        samples = store.range("a", 0, 6 * HOUR_NS)
        assert [sample for sample in samples if sample.at_ns < 4 * HOUR_NS] == [
            Sample(hour * HOUR_NS, float(hour)) for hour in range(1, 4)
        ]
        gaps = {b.at_ns - a.at_ns for a, b in itertools.pairwise(samples)}
        assert gaps == {HOUR_NS, MINUTE_NS, 30 * NS_PER_S}
        counts = store.aggregate("a", 4 * HOUR_NS, 4 * HOUR_NS + 270 * NS_PER_S, 90 * NS_PER_S, Aggregate.COUNT)
        assert [sample.value for sample in counts] == [4.0, 2.0, 4.0]


def test_what_comes_late_is_rolled_up_again(tmp_path):
    """A sample for a minute that is rolled up already changes its minute and its hour; one too late changes nothing."""
    points = walk(hours=5)
    late = Point("a", 3 * HOUR_NS + 5, 1e6)
    with closing(tidied(tmp_path / "t.sqlite", points, KEEP_ALL)) as store:
        store.write([late, Point("new", 3 * HOUR_NS + 7, 2.0)])
        hour = ("a", 3 * HOUR_NS, 4 * HOUR_NS, HOUR_NS)
        assert store.aggregate(*hour, Aggregate.MAX) == [Sample(3 * HOUR_NS, 1e6)]
        assert store.aggregate("new", *hour[1:], Aggregate.LAST) == [Sample(3 * HOUR_NS, 2.0)]
    with closing(tidied(tmp_path / "little.sqlite", points, KEEP_LITTLE)) as store:
        before = store.aggregate(*hour, Aggregate.MAX)
        store.write([late])
        assert store.aggregate(*hour, Aggregate.MAX) == before


def test_latest_and_series_remember_what_only_rollups_hold(tmp_path):
    """A series that fell silent long ago is still listed, with the last value of its last bucket."""
    points = [Point("silent", 0, 1.0), Point("silent", 30 * NS_PER_S, 2.0), *walk(hours=2)]
    with closing(tidied(tmp_path / "t.sqlite", points, KEEP_LITTLE)) as store:
        assert store.series() == ("a", "silent")
        assert store.latest("silent") == Sample(0, 2.0)
        assert store.latest("a") == Sample(points[-1].at_ns, points[-1].value)
        store.retain(10 * HOUR_NS)
        assert store.series() == ()


def test_a_long_backlog_is_tidied_piece_by_piece(tmp_path):
    """One call does ten minutes of a backlog, so that the loop is not held up; a gap in time is no backlog."""
    with closing(SqliteStore(tmp_path / "t.sqlite", KEEP_ALL)) as store:
        store.write(walk(hours=2))
        counts = []
        for _ in range(3):
            store.tidy(3 * HOUR_NS)
            counts.append(len(rows(store, "minutes")))
        assert counts == [10, 20, 30]
        store.write([Point("a", 10**6 * HOUR_NS, 1.0)])
        for _ in range(12):
            store.tidy(10**6 * HOUR_NS + MINUTE_NS)
        assert rows(store, "minutes")[-1][1] == 10**6 * HOUR_NS


def test_without_a_retention_nothing_is_tidied(tmp_path):
    """A store that was opened to be read keeps what it finds."""
    with closing(SqliteStore(tmp_path / "t.sqlite")) as store:
        store.write(walk(hours=1))
        assert store.tidy(10**6 * HOUR_NS) == 0
        assert rows(store, "minutes") == []


def test_what_is_coarser_is_kept_longer():
    """A retention by which something would be forgotten before its roll-up is refused, here and in the settings."""
    with pytest.raises(ValueError, match="what is coarser is kept longer"):
        Retention(2.0, 1.0, 3.0)
    config = Config(store=StoreSettings(retention_s=10.0, rollup_minute_retention_s=5.0, rollup_hour_retention_s=4.0))
    assert list(config_rules.problems(config)) == [
        ("store.rollup_minute_retention_s", "5.0 must be at least store.retention_s (10.0)"),
        ("store.rollup_hour_retention_s", "4.0 must be at least store.rollup_minute_retention_s (5.0)"),
    ]


VERSION_1 = """
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE points (
    series_id INTEGER NOT NULL REFERENCES series (id),
    at_ns INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (series_id, at_ns)
) WITHOUT ROWID;
INSERT INTO series VALUES (1, 'a');
INSERT INTO points VALUES (1, 5, 1.5), (1, 60000000005, 2.5);
PRAGMA application_id = 0x49414345;
PRAGMA user_version = 1;
"""


def test_a_file_of_version_1_is_brought_up_to_date(tmp_path):
    """What an older version wrote is kept, can be read and is rolled up from then on."""
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
    with closing(SqliteStore(path, KEEP_ALL)) as store:
        assert store.range("a", 0, HOUR_NS) == [Sample(5, 1.5), Sample(60_000_000_005, 2.5)]
        store.tidy(2 * MINUTE_NS)
        assert [row[1:] for row in rows(store, "minutes")] == [
            (0, 1.5, 1.5, 1.5, 1.5, 1),
            (MINUTE_NS, 2.5, 2.5, 2.5, 2.5, 1),
        ]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path):
    """Where the upgrade cannot be completed the file stays of its version, with all that it holds."""
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1 + "CREATE TABLE hours (in_the_way);")
    with pytest.raises(StoreFailedError, match="hours"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"series", "points", "hours"}
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_full_disk_while_tidying_does_no_damage(tmp_path):
    """When space runs out in the middle of a roll-up nothing of it stays; with space again it is made up for."""
    points = [Point(f"s{k}", second * NS_PER_S, 1.0) for k in range(500) for second in range(0, 600, 20)]
    with closing(SqliteStore(tmp_path / "t.sqlite", KEEP_ALL)) as store:
        store.write(points)
        (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
        store._writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFailedError, match="the disk is full"):
            store.tidy(600 * NS_PER_S)
        assert rows(store, "minutes") == []
        store.check()
        store._writer.execute("PRAGMA max_page_count = 100000")
        store.tidy(600 * NS_PER_S)
        assert len(rows(store, "minutes")) == 5000


def test_a_reader_in_another_process_sees_one_moment(tmp_path):
    """While samples are rolled up and forgotten, every count that another process reads is of all samples."""
    points = [Point("a", second * NS_PER_S, 1.0) for second in range(3600)]
    path = tmp_path / "t.sqlite"
    script = (
        "import sys; from pathlib import Path\n"
        "from metrics.store.sqlite import SqliteStore\n"
        "from metrics.store.protocol import Aggregate\n"
        "store = SqliteStore(Path(sys.argv[1])); print('ready', flush=True)\n"
        "ask = ('a', 0, 3600 * 10**9, 60 * 10**9, Aggregate.COUNT)\n"
        "print({sum(sample.value for sample in store.aggregate(*ask)) for _ in range(300)})"
    )
    with closing(SqliteStore(path, KEEP_LITTLE)) as store:
        store.write(points)
        with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout.readline() == "ready\n"
            while reader.poll() is None:
                store.tidy(3600 * NS_PER_S)
                time.sleep(0.005)
            assert reader.stdout.read() == "{3600.0}\n"
        assert len(store._writer.execute("SELECT 1 FROM points").fetchall()) < 3600


WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from metrics.store.protocol import Point
from metrics.store.rollups import NS_PER_S, Retention
from metrics.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]), Retention(1800.0, 7200.0, 36000.0))
newest = store.latest("s0")
for batch in itertools.count(0 if newest is None else newest.at_ns // (20 * NS_PER_S) + 1):
    times = [(batch * 20 + tick) * NS_PER_S for tick in range(20)]
    store.write([Point(f"s{k}", at_ns, at_ns / 1e12 + k) for at_ns in times for k in range(10)])
    store.tidy(times[-1])
    print(batch, flush=True)
"""


@pytest.mark.process
def test_a_kill_at_any_instant_loses_nothing_and_breaks_nothing(tmp_path):
    """After each `kill -9` the file is whole, what was acknowledged is there, and roll-ups say what samples say."""
    path, rng, acknowledged = tmp_path / "t.sqlite", random.Random(0), -1
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            writer.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.3))
            writer.kill()
            told = writer.stdout.read().split()
        acknowledged = max([acknowledged, *(int(number) for number in told if number.isdigit())])
        with closing(SqliteStore(path)) as store:
            store.check()
            newest_ns = store.latest("s0").at_ns
            assert newest_ns >= (acknowledged * 20 + 19) * NS_PER_S
            assert {store.latest(f"s{k}").at_ns for k in range(10)} == {newest_ns}
            assert all_accounted_for(store, newest_ns)


def all_accounted_for(store, newest_ns):
    """Whether every second up to the newest is counted once, and kept samples agree with their minutes."""
    counts = store.aggregate("s3", 0, newest_ns + 1, 60 * MINUTE_NS, Aggregate.COUNT)
    disagreeing = store._writer.execute(
        "SELECT count(*) FROM minutes AS m WHERE at_ns >= (SELECT kept_ns FROM tiers WHERE name = 'points') AND "
        "(low, high, count) IS NOT (SELECT min(value), max(value), count(*) FROM points AS p WHERE "
        "p.series_id = m.series_id AND p.at_ns >= m.at_ns AND p.at_ns < m.at_ns + 60000000000)"
    ).fetchone()
    return sum(sample.value for sample in counts) == newest_ns // NS_PER_S + 1 and disagreeing == (0,)


def test_the_writer_tidies_once_a_minute_of_plant_time(tmp_path):
    """The store writer rolls up and forgets as time goes on, and a failure of that loses no point."""
    telemetry = Telemetry()
    with closing(SqliteStore(tmp_path / "t.sqlite", KEEP_LITTLE)) as store:
        called = []

        def tidy(now_ns):
            called.append(now_ns // NS_PER_S)
            if len(called) == 2:
                raise StoreFailedError("no space")
            return store.tidy(now_ns)

        writer = StoreWriter(telemetry, store, batch_frames=20, tidy=tidy)
        for tick in range(1800):
            telemetry.publish(Frame(tick, float(tick), "GOVERNING", {"a": 1.0}))
            writer.flush_when_due()
        writer.close()
        assert called[:4] == [19, 79, 139, 199]
        assert writer.accounts().written == 1800
        assert 600 <= len(rows(store, "points")) <= 760
        assert store.aggregate("a", 0, HOUR_NS, HOUR_NS, Aggregate.COUNT) == [Sample(0, 1800.0)]
