"""Telemetry in one SQLite file: no server, readable by other processes while it is written.

Write-ahead logging with `synchronous=NORMAL`: a killed process loses nothing, a power cut may lose the last moments.
That suits telemetry; the journal, which must lose nothing, has a file of its own. One writer at a time; each read opens
its own connection, so that readers (API threads, `iace history`) neither wait for the writer nor hold it up.

With a retention, `tidy` rolls samples up into minutes and hours and forgets what is old, see `rollups.py`. Reads choose
by themselves. Least, greatest, last and count of whole minutes and hours are exactly what every sample would give, a
mean is so within rounding. Where the samples have been forgotten a minute, later an hour, is one sample at its
beginning, with its mean for a range, and counts as a whole for the step in which it begins.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from metrics.errors import IaceError, NotPermittedError, StoreFailedError
from metrics.store import rollups
from metrics.store.protocol import Aggregate, Point, Sample, WriteResult
from metrics.store.rollups import INT64_MAX, INT64_MIN, Retention

APPLICATION_ID = 0x49414345  # "IACE", in the header of every file of ours
SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 0.5  # the loop waits for its store, and must not wait long

_SAMPLES = (
    "CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE points (
        series_id INTEGER NOT NULL REFERENCES series (id),
        at_ns INTEGER NOT NULL,
        value REAL NOT NULL,
        PRIMARY KEY (series_id, at_ns)
    ) WITHOUT ROWID""",
)
# What a file of each older version lacks; an empty file is of version 0.
_UPGRADES = (_SAMPLES, rollups.SCHEMA)

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free space, then start again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: move it aside or restore it, then start again",
    sqlite3.SQLITE_NOTADB: "this is no SQLite database: name another file or move this one aside",
    sqlite3.SQLITE_BUSY: "another process is writing to it: stop that one",
    sqlite3.SQLITE_LOCKED: "another process is writing to it: stop that one",
    sqlite3.SQLITE_IOERR: "the disk failed: check it, then start again",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that its directory exists and that the disk is well",
}
_NOT_PERMITTED = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}


class SqliteStore:
    """A `Store` in the file `path`, which is created where it is missing; its directory must exist.

    A file of an older version is brought up to date in one transaction, and keeps all that it holds.

    Args:
        path: the file.
        retention: how long `tidy` keeps what; None keeps every sample for good.

    Raises:
        StoreFailedError: the file is not ours, of a newer version, damaged, or cannot be opened.
        NotPermittedError: the operating system forbids it.
    """

    def __init__(self, path: Path, retention: Retention | None = None) -> None:
        self._path = path
        self._retention = retention
        self._lock = threading.Lock()
        self._series_ids: dict[str, int] = {}
        self._writer: sqlite3.Connection | None = None
        with self._explained():
            self._writer = self._open()

    def write(self, points: Iterable[Point]) -> WriteResult:
        """Write a batch in one transaction; a point at the same series and time replaces the older one."""
        rows, late, rejected = [], [], 0
        with self._writing() as connection:
            rolled_ns = rollups.marks(connection)["minutes"].rolled_ns
            for series, at_ns, value in points:
                if math.isfinite(value) and INT64_MIN <= at_ns <= INT64_MAX:
                    number = self._series_id(connection, series)
                    rows.append((number, at_ns, float(value)))
                    if at_ns < rolled_ns:
                        late.append((number, at_ns))
                else:
                    rejected += 1
            connection.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", rows)
            if late:
                rollups.refresh(connection, late)
        return WriteResult(len(rows), rejected)

    def range(self, series: str, start_ns: int, end_ns: int) -> list[Sample]:
        """The samples of a series in time order; empty for an unknown series."""
        return self._read(start_ns, end_ns, 1, None, {"series": series})

    def aggregate(self, series: str, start_ns: int, end_ns: int, step_ns: int, how: Aggregate) -> list[Sample]:
        """One sample for each step that has any, at the step's start; steps are counted from `start_ns`.

        Raises:
            ValueError: `step_ns` is not positive.
        """
        if step_ns <= 0:
            raise ValueError(f"step_ns must be positive, not {step_ns}")
        return self._read(start_ns, end_ns, step_ns, how, {"series": series, "start_ns": start_ns, "step_ns": step_ns})

    def latest(self, series: str) -> Sample | None:
        """The newest sample, None for an unknown series."""
        with self._reading() as connection:
            for tier, value in (("points", "value"), ("minutes", "last"), ("hours", "last")):
                row = connection.execute(
                    f"SELECT at_ns, {value} FROM {tier} WHERE series_id = (SELECT id FROM series WHERE name = ?) "  # noqa: S608 - constants only
                    "ORDER BY at_ns DESC LIMIT 1",
                    (series,),
                ).fetchone()
                if row is not None:
                    return Sample(*row)
        return None

    def series(self) -> tuple[str, ...]:
        """The names of all series that have samples, sorted."""
        there = " OR ".join(
            f"EXISTS (SELECT 1 FROM {tier} WHERE series_id = id)"  # noqa: S608 - constants only
            for tier in ("points", "minutes", "hours")
        )
        with self._reading() as connection:
            rows = connection.execute(f"SELECT name FROM series WHERE {there} ORDER BY name")  # noqa: S608 - as above
            return tuple(name for (name,) in rows)

    def retain(self, before_ns: int) -> int:
        """Forget every sample older than `before_ns`; how many went. A minute or hour that reaches beyond it stays."""
        with self._writing() as connection:
            rollups.erase(connection, "minutes", before_ns - rollups.MINUTE_NS + 1)
            rollups.erase(connection, "hours", before_ns - rollups.HOUR_NS + 1)
            return rollups.erase(connection, "points", before_ns)

    def tidy(self, now_ns: int) -> int:
        """Roll up what is over at `now_ns` and forget what need not be kept any longer; how many rows went.

        Takes time in proportion to what was written since the last call, and of a long backlog only a piece at a time.
        Does nothing without a retention.
        """
        if self._retention is None:
            return 0
        with self._writing() as connection:
            rollups.roll_up(connection, now_ns)
            return rollups.forget(connection, now_ns, self._retention)

    def check(self) -> None:
        """Raise unless the file is whole and a transaction can be opened on it."""
        with self._reading() as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreFailedError(f"{self._path}: {_ADVICE[sqlite3.SQLITE_CORRUPT]} ({verdict})")
        with self._writing() as connection:
            connection.execute("UPDATE series SET name = name WHERE id = -1")

    def close(self) -> None:
        """Close the writing connection, which folds the write-ahead log into the file."""
        with self._lock, self._explained():
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            self._adopt(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _adopt(self, connection: sqlite3.Connection) -> None:
        """Make sure that the file is ours, and make it ours where it is empty."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise StoreFailedError(f"{self._path} is a database of another program: name another file")
        if version > SCHEMA_VERSION:
            raise StoreFailedError(
                f"{self._path} has schema {version}, written by a newer version; this one knows {SCHEMA_VERSION}: "
                "upgrade, or name another file"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            _upgrade(connection)

    def _series_id(self, connection: sqlite3.Connection, series: str) -> int:
        number = self._series_ids.get(series)
        if number is None:
            connection.execute("INSERT OR IGNORE INTO series (name) VALUES (?)", (series,))
            (number,) = connection.execute("SELECT id FROM series WHERE name = ?", (series,)).fetchone()
            self._series_ids[series] = number
        return int(number)

    def _read(
        self, start_ns: int, end_ns: int, step_ns: int, how: Aggregate | None, names: dict[str, str | int]
    ) -> list[Sample]:
        with self._reading() as connection:
            connection.execute("BEGIN")  # the marks and the rows must be of one moment
            segments = rollups.plan(rollups.marks(connection), start_ns, end_ns, step_ns)
            if not segments:
                return []
            text, spans = rollups.select(segments, how)
            return [Sample(row[0], float(row[1])) for row in connection.execute(text, names | spans)]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The writing connection within one transaction, rolled back on any error."""
        with self._lock, self._explained():
            connection = self._writer
            if connection is None:
                raise StoreFailedError(f"{self._path} is closed")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._series_ids.clear()  # some of them were given out in the transaction that is undone here
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._writer is None:
            raise StoreFailedError(f"{self._path} is closed")
        uri = f"{self._path.resolve().as_uri()}?mode=ro"
        with (
            self._explained(),
            closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection,
        ):
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, with what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explanation(error) from error

    def _explanation(self, error: sqlite3.Error) -> IaceError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the upper bytes only refine it
        forbidden = code == sqlite3.SQLITE_CANTOPEN and self._path.parent.is_dir() and not self._accessible()
        if code in _NOT_PERMITTED or forbidden:
            return NotPermittedError(f"{self._path} must be readable and writable, with its directory ({error})")
        advice = _ADVICE.get(code, "check the file and its disk, then start again")
        return StoreFailedError(f"{self._path}: {advice} ({error})")

    def _accessible(self) -> bool:
        target = self._path if self._path.exists() else self._path.parent
        return os.access(target, os.R_OK | os.W_OK)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, all or nothing, whoever else may be about to do so."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for statement in (statement for upgrade in _UPGRADES[version:] for statement in upgrade):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
