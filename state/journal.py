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

import sqlalchemy as sa

from metrics.errors import BadDataError, InvariantBreachError, NotPermittedError, StoreFailedError
from state.event import Event, EventKind

SCHEMA_VERSION = 1
GENESIS = "0" * 64
BUSY_TIMEOUT_S = 5.0

_tables = sa.MetaData()
_journal = sa.Table(
    "journal",
    _tables,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("wall_time", sa.String, nullable=False),
)
_meta = sa.Table(
    "meta", _tables, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
)
_LOOK = "SELECT 1 FROM sqlite_master"
# Without the columns' types: what somebody has edited need not be of the type that we wrote.
_AS_STORED = sa.text("SELECT seq, epoch, body, previous, hash FROM journal ORDER BY seq")


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

    Raises:
        StoreFailedError: the file cannot be read or written (full disk, damaged database).
        NotPermittedError: the operating system refuses.
        BadDataError: it is a journal of a newer schema, or no journal.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._tip, self._epoch = Tip(0, GENESIS), 0
        if read_only and not path.exists():
            raise BadDataError(f"no journal at {path}: name the run with --run, or the data directory with --data-dir")
        if not read_only:
            _make_directory(path.parent)
        self._engine = sa.create_engine(
            "sqlite+pysqlite://", creator=lambda: _connected(path, read_only=read_only), poolclass=sa.NullPool
        )
        with _translated(self.path):
            self._connection = self._engine.connect()
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
            rows.append(
                {
                    "seq": seq,
                    "epoch": epoch,
                    "body": body,
                    "previous": tip.hash,
                    "hash": digest,
                    "wall_time": wall_time,
                }
            )
            entries.append(Entry(seq, epoch, digest, event))
            tip = Tip(seq, digest)
        if rows:
            with _translated(self.path), self._connection.begin():
                self._connection.execute(_journal.insert(), rows)
            self._tip, self._epoch = tip, epoch
        return entries

    def entries(self) -> Iterator[Entry]:
        """Every entry in order, each checked against the chain.

        Raises:
            BadDataError: an entry is missing, altered or unreadable; the message names it.
        """
        previous, expected, epoch = GENESIS, 1, 0
        with _translated(self.path):
            rows = self._connection.execute(_AS_STORED).mappings().all()
            self._connection.rollback()  # a reader must not keep a snapshot open
        for row in rows:
            problem = _problem(row, previous, expected, epoch)
            if problem:
                raise BadDataError(f"{self.path}: event {expected}: {problem}")
            yield Entry(row["seq"], row["epoch"], row["hash"], _event(self.path, row["seq"], row["body"]))
            previous, expected, epoch = row["hash"], expected + 1, row["epoch"]

    def note(self, name: str, value: str) -> None:
        """Keep a fact about the file beside the chain (for example that its run has ended)."""
        statement = sa.text("INSERT OR REPLACE INTO meta (name, value) VALUES (:name, :value)")
        with _translated(self.path), self._connection.begin():
            self._connection.execute(statement, {"name": name, "value": value})

    def noted(self, name: str) -> str | None:
        """A fact kept by `note`."""
        with _translated(self.path):
            value = self._connection.execute(sa.select(_meta.c.value).where(_meta.c.name == name)).scalar()
            self._connection.rollback()
        return None if value is None else str(value)

    def close(self) -> None:
        """Let go of the file; what was acknowledged is in it."""
        self._connection.close()
        self._engine.dispose()

    def _prepare(self, *, read_only: bool) -> None:
        with _translated(self.path):
            if not read_only:
                with self._connection.begin():
                    _tables.create_all(self._connection)
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
        last = sa.select(_journal.c.seq, _journal.c.hash, _journal.c.epoch).order_by(_journal.c.seq.desc()).limit(1)
        row = self._connection.execute(last).first()
        self._connection.rollback()
        if row is None:
            return Tip(0, GENESIS), 0
        # An epoch that somebody has edited is named when the entries are read.
        return Tip(row.seq, row.hash), row.epoch if isinstance(row.epoch, int) else 0


def chained(previous: str, seq: int, epoch: int, body: bytes) -> str:
    """The hash that binds an event to everything before it."""
    head = f"{previous}:{seq}:{epoch}:".encode()
    return hashlib.sha256(head + body).hexdigest()


def _problem(row: Any, previous: str, expected: int, epoch: int) -> str | None:  # noqa: ANN401 - a row mapping
    if row["seq"] != expected:
        return f"is missing; the next one there is {row['seq']}"
    if row["previous"] != previous:
        return "does not follow the one before it"
    body = row["body"]
    if not isinstance(body, bytes) or row["hash"] != chained(previous, expected, row["epoch"], body):
        return "has been altered: its content does not give its hash"
    if row["epoch"] < epoch:
        return f"carries epoch {row['epoch']} after epoch {epoch}"
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
        if not isinstance(error, sa.exc.DBAPIError):
            return
        words = str(error.orig)
        if "readonly" in words or "unable to open" in words or "permission" in words.lower():
            raise NotPermittedError(f"journal {self._path}: {words}: check its permissions") from error
        if "not a database" in words or "malformed" in words or "no such table" in words:
            raise BadDataError(f"journal {self._path}: {words}: restore it from a backup or move it away") from error
        raise StoreFailedError(f"journal {self._path}: {words}: free some space or repair it") from error
