"""What has not been sent yet, in files, so that an outage and a restart lose nothing: a bounded queue of records.

A record is some bytes that stand for a number of points. Records are appended to segment files, framed as `frames.py`
says; a segment that has been sent is deleted. How far the oldest one has been sent stands in the file `position`.

What survives: after a killed process everything that `append` returned from; after a power cut everything before the
last `sync`. A frame that was torn, or damaged since, is passed over when it is found. A record may be read again after
a crash that came between its sending and `commit`: the receiver must not mind, and InfluxDB does not.

When the files would outgrow their bound the oldest segment goes, a sixteenth of the bound at a time, but never the
one that is being sent from. Every method that makes points vanish says how many.

Thread-safe; one process at a time, which a lock on `position` ensures. Left out: when to sync, and sending.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from metrics.errors import NotPermittedError, StoreFailedError
from metrics.store.frames import Frame, pack, scan, unpack

_log = logging.getLogger(f"iace.{__name__}")

SEGMENTS = 16  # the bound holds so many
BYTES_MIN = SEGMENTS * 4096

_POSITION = struct.Struct("<QQ")  # number of the oldest segment, bytes of it that have been sent; a checksum follows


@dataclass(slots=True)
class _Segment:
    """A file of frames; those that have been sent are forgotten."""

    number: int
    path: Path
    size: int = 0
    frames: deque[Frame] = field(default_factory=deque)

    @property
    def points(self) -> int:
        return sum(frame.points for frame in self.frames)


@dataclass(frozen=True, slots=True)
class Batch:
    """The oldest records, on their way out.

    Attributes:
        records: the bytes, oldest first; none where all that were looked at were damaged.
        points: how many points they stand for.
        lost: points of records that were found damaged; they are gone from the spool.
    """

    records: tuple[bytes, ...]
    points: int
    lost: int


class Spool:
    """A spool in `directory`, which is created where it is missing and resumed where it is not.

    Every method raises `StoreFailedError` when the disk fails or the spool is closed, and `NotPermittedError` when the
    operating system forbids it.

    Args:
        directory: for the spool alone.
        bytes_max: bound on the bytes of all segments.

    Raises:
        ValueError: the bound is too small to be useful.
        StoreFailedError: the directory cannot be used, or another process uses it.
        NotPermittedError: the operating system forbids it.
    """

    def __init__(self, directory: Path, bytes_max: int) -> None:
        if bytes_max < BYTES_MIN:
            raise ValueError(f"a spool needs at least {BYTES_MIN} bytes, not {bytes_max}")
        self._directory = directory
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._segments: deque[_Segment] = deque()
        self._tail: int | None = None  # descriptor of the newest segment, the only one that grows
        self._created = False  # whether a segment was created since the directory was last synced
        self._sending: tuple[_Segment, int] | None = None  # where the batch on its way comes from, and its records
        self._position: int | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._position = os.open(directory / "position", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._position, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._next = self._resume(self._position)
        except OSError as error:
            self.close()
            raise self._explained(error) from error

    @property
    def points(self) -> int:
        """How many points are in it."""
        with self._lock:
            return sum(segment.points for segment in self._segments)

    @property
    def size(self) -> int:
        """Bytes that its segments take on the disk."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def append(self, record: bytes, points: int) -> int:
        """Append a record; how many of the oldest points had to go for it.

        A record that would not even fit into a segment goes itself. After an error it is not in the spool.
        """
        frame = pack(record, points)
        with self._using():
            if len(frame) > self._bytes_max // SEGMENTS:
                return points
            dropped = self._make_room(len(frame))
            self._write(frame, points)
        return dropped

    def sync(self) -> None:
        """Bring what was appended to the disk itself."""
        with self._using():
            if self._tail is not None:
                os.fdatasync(self._tail)
            if self._created:
                directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
                self._created = False

    def peek(self, points_max: int) -> Batch | None:
        """The oldest records, up to so many points but at least one record; None when nothing is left.

        They stay until `commit`, and are safe from being dropped until `commit` or `release`.
        """
        with self._using():
            self._sending = None
            lost = 0
            while self._segments:
                segment = self._segments[0]
                records, points, damaged = _read(segment, points_max)
                lost += damaged
                if records:
                    self._sending = segment, len(records)
                    return Batch(tuple(records), points, lost)
                self._forget_sent(segment)
            return Batch((), 0, lost) if lost else None

    def commit(self) -> None:
        """Forget the records of the last `peek`: they were sent. After an error they may be sent again at a restart."""
        with self._using():
            if self._sending is not None:
                (segment, records), self._sending = self._sending, None
                for _ in range(records):
                    segment.frames.popleft()
                self._forget_sent(segment)

    def release(self) -> None:
        """Keep the records of the last `peek`: they were not sent."""
        with self._lock:
            self._sending = None

    def close(self) -> None:
        """Sync and let go of the files; closing twice is fine."""
        with self._lock:
            position, self._position = self._position, None
            try:
                self._seal()
            except OSError as error:
                raise self._explained(error) from error
            finally:
                if position is not None:
                    os.close(position)

    def _resume(self, position: int) -> int:
        """Find what an earlier process left unsent; the number of the next segment."""
        sent_in, sent = _read_position(position)
        number = 0
        for path in sorted(self._directory.glob("*.segment")):
            number = int(path.stem)
            content = path.read_bytes() if number >= sent_in else b""
            offset = sent if number == sent_in else 0
            segment = _Segment(number, path, len(content), deque(scan(content, offset, str(path))))
            if segment.frames:
                self._segments.append(segment)
            else:
                path.unlink()
        return max(sent_in, number + 1)

    def _make_room(self, size: int) -> int:
        """Drop oldest segments until `size` more bytes fit; how many points went with them."""
        dropped = 0
        while sum(segment.size for segment in self._segments) + size > self._bytes_max:
            sending = self._sending[0] if self._sending else None
            victim = next((segment for segment in self._segments if segment is not sending), None)
            if victim is None:
                break  # one segment, left by a process with a larger bound, is on its way
            dropped += victim.points
            self._delete(victim)
        return dropped

    def _write(self, frame: bytes, points: int) -> None:
        if self._tail is None or self._segments[-1].size + len(frame) > self._bytes_max // SEGMENTS:
            self._seal()
            path = self._directory / f"{self._next:020}.segment"
            self._tail = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._segments.append(_Segment(self._next, path))
            self._next += 1
            self._created = True
        segment = self._segments[-1]
        try:
            rest = memoryview(frame)
            while rest:
                rest = rest[os.write(self._tail, rest) :]
        except OSError:
            os.ftruncate(self._tail, segment.size)
            os.lseek(self._tail, segment.size, os.SEEK_SET)
            raise
        segment.frames.append(Frame(segment.size, len(frame), points))
        segment.size += len(frame)

    def _seal(self) -> None:
        """The newest segment grows no more."""
        if self._tail is not None:
            tail, self._tail = self._tail, None
            try:
                os.fdatasync(tail)
            finally:
                os.close(tail)

    def _forget_sent(self, segment: _Segment) -> None:
        """Delete `segment` if nothing of it is left, and note how far has been sent."""
        if segment.frames:
            self._write_position(segment.number, segment.frames[0].offset)
        else:
            self._delete(segment)
            self._write_position(segment.number + 1, 0)

    def _delete(self, segment: _Segment) -> None:
        if segment is self._segments[-1] and self._tail is not None:
            tail, self._tail = self._tail, None
            os.close(tail)
        self._segments.remove(segment)
        segment.path.unlink(missing_ok=True)

    def _write_position(self, number: int, offset: int) -> None:
        assert self._position is not None  # noqa: S101 - the caller is within `_using`
        content = _POSITION.pack(number, offset)
        os.pwrite(self._position, content + zlib.crc32(content).to_bytes(4, "little"), 0)

    @contextmanager
    def _using(self) -> Iterator[None]:
        """The spool for this thread alone, and the operating system's errors as ours, with what to do."""
        with self._lock:
            if self._position is None:
                raise StoreFailedError(f"{self._directory} is closed")
            try:
                yield
            except OSError as error:
                raise self._explained(error) from error

    def _explained(self, error: OSError) -> StoreFailedError | NotPermittedError:
        if isinstance(error, PermissionError):
            return NotPermittedError(f"{self._directory} must be readable and writable ({error})")
        if isinstance(error, BlockingIOError):
            return StoreFailedError(f"{self._directory} is in use by another process: stop that one, or name another")
        return StoreFailedError(f"{self._directory}: {error.strerror or error}: check the disk, then start again")


def _read(segment: _Segment, points_max: int) -> tuple[list[bytes], int, int]:
    """The oldest records of a segment, their points, and the points of damaged ones, which are forgotten."""
    records: list[bytes] = []
    points = lost = 0
    try:
        descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        lost = segment.points
        segment.frames.clear()
        _log.error("%s: somebody deleted it, with %d points", segment.path, lost)
        return records, points, lost
    try:
        while len(records) < len(segment.frames):
            frame = segment.frames[len(records)]
            if records and points + frame.points > points_max:
                break
            record = unpack(os.pread(descriptor, frame.size, frame.offset))
            if record is None:
                _log.error("%s: %d points at byte %d are damaged", segment.path, frame.points, frame.offset)
                del segment.frames[len(records)]
                lost += frame.points
            else:
                records.append(record)
                points += frame.points
    finally:
        os.close(descriptor)
    return records, points, lost


def _read_position(position: int) -> tuple[int, int]:
    """Number of the oldest segment and bytes of it that have been sent; zeros where that is not known."""
    content = os.pread(position, _POSITION.size + 4, 0)
    body, checksum = content[:-4], content[-4:]
    if len(body) != _POSITION.size or checksum != zlib.crc32(body).to_bytes(4, "little"):
        return 0, 0
    number, offset = _POSITION.unpack(body)
    return number, offset
