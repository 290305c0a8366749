"""What happened, for good: an append-only, gapless, hash-chained record of every durable event.

An event is acknowledged once `append` has returned: SQLite with `synchronous=FULL` has then synced it. The chain is
SHA-256 over the previous hash, sequence, epoch and the event's canonical bytes; wall time is a column beside it and not
hashed, so that equal runs give equal chains. "Anchored" rather than "signed": cutting off a clean tail cannot be seen
from inside, which is why the tip is also written to the report.

Source: docs/architecture.md "Persistence"; power cuts, not kills, tell the durability settings apart.
"""

from __future__ import annotations

import errno
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from metrics.errors import BadDataError, IaceError, InvariantBreachError, NotPermittedError, StoreFailedError
from state.event import Event, EventKind

SCHEMA_VERSION = 1
GENESIS = "0" * 64
BUSY_TIMEOUT_S = 5.0
ROWS_AT_ONCE = 1000

_TABLES = """
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    body BLOB NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    wall_time TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_LOOK = "SELECT 1 FROM sqlite_master"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in its place in the chain."""

    seq: int
    epoch: int
    hash: str
    event: Event

    def line(self) -> str:
        """The entry as one canonical JSON line, as `iace journal export` prints it."""
        body = json.loads(self.event.canonical())
        return json.dumps(
            {"seq": self.seq, "epoch": self.epoch, "hash": self.hash, **body},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of the chain: number of events and the hash of the last."""

    seq: int
    hash: str


class Journal:
    """One journal file.

    Attributes:
        path: of the file.
        failures: appends that could not be written.

    Raises:
        StoreFailedError: the file cannot be read or written (full disk, damaged database).
        NotPermittedError: the operating system refuses.
        BadDataError: it is a journal of a newer schema, or no journal.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.failures = 0
        self._tip, self._epoch = Tip(0, GENESIS), 0
        if read_only and not path.exists():
            raise BadDataError(f"no journal at {path}: name the run with --run, or the data directory with --data-dir")
        if not read_only:
            _make_directory(path.parent)
        with _translated(self.path):
            self._connection = _connected(path, read_only=read_only)
        try:
            self._prepare(read_only=read_only)
        except BaseException:
            self.close()
            raise

    @property
    def tip(self) -> Tip:
        """The end of the chain as far as it is acknowledged."""
        return self._tip

    def append(self, events: Sequence[Event], *, epoch: int, wall_time: str) -> list[Entry]:
        """Make events durable, all or none; they are acknowledged when this returns.

        Raises:
            StoreFailedError: nothing was written.
            InvariantBreachError: an earlier event carries a higher epoch, so somebody else leads; nothing was written.
        """
        if epoch < self._epoch:
            raise InvariantBreachError("epochs_never_decrease", f"epoch {epoch} after epoch {self._epoch}")
        entries, rows, tip = [], [], self._tip
        for event in events:
            body = event.canonical()
            seq = tip.seq + 1
            digest = chained(tip.hash, seq, epoch, body)
            rows.append((seq, epoch, body, tip.hash, digest, wall_time))
            entries.append(Entry(seq, epoch, digest, event))
            tip = Tip(seq, digest)
        if rows:
            try:
                self._write(rows)
            except IaceError:
                self.failures += 1
                raise
            self._tip, self._epoch = tip, epoch
        return entries

    def entries(self, start: int = 1) -> Iterator[Entry]:
        """Every entry from sequence `start` on, in order, each checked against the chain; older ones may be forgotten.

        Raises:
            BadDataError: an entry is missing, altered or unreadable; the message names it.
        """
        base, previous = self._base()
        if start > self._tip.seq:
            return
        expected, epoch = max(start, base + 1), 0
        if expected > base + 1:
            previous = self._hash_of(expected - 1)
        while rows := self._rows(expected):
            for row in rows:
                problem = _problem(row, previous, expected, epoch)
                if problem:
                    raise BadDataError(f"{self.path}: event {expected}: {problem}")
                seq, epoch, body, _, previous = row
                yield Entry(seq, epoch, previous, _event(self.path, seq, body))
                expected += 1

    def forget_before(self, seq: int) -> int:
        """Drop the entries before `seq` for good; how many went. The chain goes on.

        Raises:
            BadDataError: `seq` is no snapshot, so that what follows could not be replayed.
        """
        base, _ = self._base()
        if seq <= base + 1:
            return 0
        kept = next(iter(self._rows(seq)), None)
        if kept is None or kept[0] != seq or _event(self.path, seq, kept[2]).kind is not EventKind.SNAPSHOT:
            raise BadDataError(f"{self.path}: event {seq}: is no snapshot, the events before it are needed")
        previous = self._hash_of(seq - 1)
        return self._drop_before(seq, f"{seq - 1}:{previous}")

    # How it is kept; whoever keeps it elsewhere than in SQLite overrides these, `note` and `noted`.

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Make rows durable, all or none."""
        with _translated(self.path), self._connection:
            self._connection.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _drop_before(self, seq: int, base: str) -> int:
        with _translated(self.path), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('base', ?)", (base,))
            return self._connection.execute("DELETE FROM journal WHERE seq < ?", (seq,)).rowcount

    def _base(self) -> tuple[int, str]:
        """Sequence and hash of the last entry that was forgotten."""
        noted = self.noted("base")
        if noted is None:
            return 0, GENESIS
        seq, _, digest = noted.partition(":")
        return int(seq), digest

    def _hash_of(self, seq: int) -> str:
        with _translated(self.path):
            row = self._connection.execute("SELECT hash FROM journal WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            raise BadDataError(f"{self.path}: event {seq}: is missing")
        return str(row[0])

    def _rows(self, start: int) -> list[tuple[Any, ...]]:
        statement = "SELECT seq, epoch, body, previous, hash FROM journal WHERE seq >= ? ORDER BY seq LIMIT ?"
        with _translated(self.path):
            return self._connection.execute(statement, (start, ROWS_AT_ONCE)).fetchall()

    def note(self, name: str, value: str) -> None:
        """Keep a fact about the file beside the chain (for example that its run has ended)."""
        with _translated(self.path), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def noted(self, name: str) -> str | None:
        """A fact kept by `note`."""
        with _translated(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Let go of the file; what was acknowledged is in it."""
        self._connection.close()

    def _prepare(self, *, read_only: bool) -> None:
        with _translated(self.path):
            if not read_only:
                self._connection.executescript(_TABLES)
            self._check_schema(read_only=read_only)
            self._tip, self._epoch = self._read_tip()

    def _check_schema(self, *, read_only: bool) -> None:
        version = self.noted("schema_version")
        if version is None and not read_only:
            self.note("schema_version", str(SCHEMA_VERSION))
        elif version is None:
            raise BadDataError(f"{self.path} is not a journal of IACE")
        elif not version.isdecimal() or int(version) > SCHEMA_VERSION:
            raise BadDataError(
                f"{self.path} has journal schema {version}, this IACE knows {SCHEMA_VERSION}: use a newer IACE"
            )

    def _read_tip(self) -> tuple[Tip, int]:
        last = "SELECT seq, hash, epoch FROM journal ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(last).fetchone()
        if row is None:
            return Tip(0, GENESIS), 0
        seq, digest, epoch = row
        # An epoch that somebody has edited is named when the entries are read.
        return Tip(seq, digest), epoch if isinstance(epoch, int) else 0


def chained(previous: str, seq: int, epoch: int, body: bytes) -> str:
    """The hash that binds an event to everything before it."""
    head = f"{previous}:{seq}:{epoch}:".encode()
    return hashlib.sha256(head + body).hexdigest()


def _problem(row: tuple[Any, ...], previous: str, expected: int, epoch: int) -> str | None:
    seq, its_epoch, body, its_previous, digest = row
    if seq != expected:
        return f"is missing; the next one there is {seq}"
    if its_previous != previous:
        return "does not follow the one before it"
    if not isinstance(body, bytes) or digest != chained(previous, expected, its_epoch, body):
        return "has been altered: its content does not give its hash"
    if its_epoch < epoch:
        return f"carries epoch {its_epoch} after epoch {epoch}"
    return None


def _event(path: Path, seq: int, body: bytes) -> Event:
    try:
        plain = json.loads(body)
        return Event(EventKind(plain["kind"]), plain["at_s"], plain["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(f"{path}: event {seq}: is not an event of this IACE ({error})") from error


def _connected(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if not read_only:
        return _opened(path, "mode=rwc", "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
    try:
        return _opened(path, "mode=ro", _LOOK)
    except sqlite3.OperationalError:
        if Path(f"{path}-wal").exists():
            raise
        # A reader keeps an index beside the file. Where it may not, nobody writes, and the file stays as it is.
        return _opened(path, "mode=ro&immutable=1", _LOOK)


def _opened(path: Path, options: str, first_words: str) -> sqlite3.Connection:
    # Quoted by hand, because "?" and "%" of a path would have a meaning. The thread that ticks need not be the one that
    # opened the journal; only one of them uses it at a time.
    address = f"file:{quote(str(path))}?{options}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        connection.executescript(first_words)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise permission_or_store(error, directory) from error


def permission_or_store(error: OSError, path: Path) -> NotPermittedError | StoreFailedError:
    """The error of the family that an `OSError` on a file of ours means."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotPermittedError(f"{path}: {error.strerror}: give write permission, or name another with --data-dir")
    return StoreFailedError(f"{path}: {error.strerror}: free some space, or name another with --data-dir")


class _translated:  # noqa: N801 - reads as a word at its use
    """Turns the database's errors into the family's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        words = str(error)
        if "readonly" in words or "unable to open" in words or "permission" in words.lower():
            raise NotPermittedError(f"journal {self._path}: {words}: check its permissions") from error
        if "not a database" in words or "malformed" in words or "no such table" in words:
            raise BadDataError(f"journal {self._path}: {words}: restore it from a backup or move it away") from error
        raise StoreFailedError(f"journal {self._path}: {words}: free some space or repair it") from error
