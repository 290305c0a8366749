"""A journal on a disk that loses, or tears, whatever was not synced when the process died.

All of `state.journal.Journal` is at work (the chain, the epochs, the checks when it is read) but for SQLite: rows are
framed with their length and a checksum in a log of bytes, one frame for each commit. Opening it keeps the frames that
are whole and drops the tail that is not, as SQLite does with its write-ahead log. That SQLite and the file system keep
their word is shown elsewhere, by crashing the real ones.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from controller.simulation.schedule import FaultKind
from controller.simulation.streams import share
from controller.simulation.weather import Weather
from metrics.errors import BadDataError, StoreFailedError
from state.journal import GENESIS, ROWS_AT_ONCE, SCHEMA_VERSION, Journal, Tip

Row = tuple[Any, ...]
_HEAD = struct.Struct("<I8s")
_INTENT = b'"key":'  # whatever intends an action, or answers one, names its key
_NAME = Path("simulated.journal")


class Disk:
    """Bytes that outlive the process.

    Args:
        seed: of where a torn write is torn.
        weather: the faults.

    Attributes:
        content: what is on the disk.
        on_synced: is told the rows of each commit once they are durable.
    """

    def __init__(self, seed: int = 0, weather: Weather | None = None) -> None:
        self.content = bytearray()
        self.on_synced: Callable[[Sequence[Row]], None] = lambda _rows: None
        self._seed = seed
        self._weather = weather

    def commit(self, record: dict[str, Any], rows: Sequence[Row] = ()) -> None:
        """Add a record and sync.

        Raises:
            StoreFailedError: the disk is full; nothing was added.
            CrashedError: the process died before, while or after it was added.
        """
        frame, weather = _framed(record), self._weather
        if weather is None:
            self.content += frame
            self.on_synced(rows)
            return
        what = ("append", "intent") if any(_INTENT in row[2] for row in rows) else ("append",)
        weather.point(*(f"{name}.before" for name in what))
        if weather.lasting(FaultKind.DISK_FULL):
            raise StoreFailedError(f"journal {_NAME}: database or disk is full: free some space or repair it")
        torn = [f"{name}.torn" for name in what]
        if weather.waits(*torn):
            written = int(len(frame) * share(self._seed, "torn", len(self.content)))
            self.content += frame[:written]
            weather.point(*torn)
            frame = frame[written:]
        self.content += frame
        self.on_synced(rows)
        weather.point(*(f"{name}.after" for name in what))

    def replace(self, records: Sequence[dict[str, Any]]) -> None:
        """Have these records, and no others, all or none."""
        self.content = bytearray(b"".join(map(_framed, records)))

    def records(self) -> Iterator[dict[str, Any]]:
        """The records that are whole; a tail that is not is cut off."""
        at = 0
        while at + _HEAD.size <= len(self.content):
            length, digest = _HEAD.unpack_from(self.content, at)
            body = bytes(self.content[at + _HEAD.size : at + _HEAD.size + length])
            if len(body) != length or _digest(body) != digest:
                break
            at += _HEAD.size + length
            yield marshal.loads(body)  # noqa: S302 - written by this very process, and its checksum holds
        del self.content[at:]


class MemoryJournal(Journal):
    """A journal on a `Disk`; opening it is what a process does when it starts."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._kept: list[Row] = []
        self._notes: dict[str, str] = {}
        for record in disk.records():
            self._kept += record.get("rows", ())
            self._notes.update(record.get("notes", {}))
        # Not the base's constructor: it opens a file.
        self.path, self.failures = _NAME, 0
        if self.noted("schema_version") is None:
            self.note("schema_version", str(SCHEMA_VERSION))
        self._tip, self._epoch = self._read_tip()

    def close(self) -> None:
        """Let go of the disk."""

    def note(self, name: str, value: str) -> None:
        """Keep a fact beside the chain."""
        self._disk.commit({"notes": {name: value}})
        self._notes[name] = value

    def noted(self, name: str) -> str | None:
        """A fact kept by `note`."""
        return self._notes.get(name)

    def _read_tip(self) -> tuple[Tip, int]:
        if not self._kept:
            return Tip(0, GENESIS), 0
        seq, epoch, _, _, digest, _ = self._kept[-1]
        return Tip(seq, digest), epoch

    def _write(self, rows: Sequence[Row]) -> None:
        self._disk.commit({"rows": list(rows)}, rows)
        self._kept += rows

    def _drop_before(self, seq: int, base: str) -> int:
        before, self._notes["base"] = len(self._kept), base
        self._kept = [row for row in self._kept if row[0] >= seq]
        self._disk.replace([{"notes": self._notes}, {"rows": self._kept}])
        return before - len(self._kept)

    def _hash_of(self, seq: int) -> str:
        found = self._rows(seq)
        if not found or found[0][0] != seq:
            raise BadDataError(f"{self.path}: event {seq}: is missing")
        return str(found[0][4])

    def _rows(self, start: int) -> list[Row]:
        first = self._kept[0][0] if self._kept else 1
        at = max(0, start - first)
        return [row[:5] for row in self._kept[at : at + ROWS_AT_ONCE]]


def _framed(record: dict[str, Any]) -> bytes:
    body = marshal.dumps(record)
    return _HEAD.pack(len(body), _digest(body)) + body


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=8).digest()
