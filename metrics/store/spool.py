"""What has not been sent yet, in files, so that an outage and a restart lose nothing: a bounded queue of records.

A record is some bytes that stand for a number of points. Records are appended to segment files, each framed with its
length, its points and a checksum, and compressed; a segment that has been sent is deleted. How far the oldest segment
has been sent stands in the file `position`.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from metrics.errors import NotPermittedError, StoreFailedError

_log = logging.getLogger(f"iace.{__name__}")

SEGMENTS = 16  # the bound holds so many
BYTES_MIN = SEGMENTS * 4096

_MAGIC = b"\xffIac"
_HEADER = struct.Struct("<4sIII")  # magic, length of the body, points, checksum of what precedes and the body
_POSITION = struct.Struct("<QQI")  # number of the segment, bytes of it that have been sent, checksum
_COMPRESSION = 1  # a sixth of the size at 90 MB/s; higher levels gain little and take much longer


class _Frame(NamedTuple):
    offset: int
    size: int
    points: int


@dataclass(slots=True)
class _Segment:
    """A file of frames; those that have been sent are forgotten."""

    number: int
    path: Path
    size: int = 0
    frames: deque[_Frame] = field(default_factory=deque)

    @property
    def points(self) -> int:
        return sum(frame.points for frame in self.frames)


@dataclass(frozen=True, slots=True)
class Batch:
    """The oldest records, on their way out.

    Attributes:
        records: the bytes, oldest first.
        points: how many points they stand for.
        lost: points of records that were found damaged instead; they are gone from the spool.
    """

    records: tuple[bytes, ...]
    points: int
    lost: int


class Spool:
    """A spool in `directory`, which is created where it is missing and resumed where it is not.

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
        self._sending: tuple[_Segment, int] | None = None  # where the batch on its way comes from, and its records
        self._position = -1
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._position = os.open(directory / "position", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._position, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._resume()
        except OSError as error:
            self.close()
            raise self._explained(error) from error
        self._next = self._segments[-1].number + 1 if self._segments else self._read_position()[0] + 1

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
        """Append a record; how many of the oldest points had to go for it, itself included where it is too large.

        Raises:
            StoreFailedError: the disk failed or is full; the record is not in the spool.
            NotPermittedError: the operating system forbids it.
        """
        body = zlib.compress(record, _COMPRESSION)
        head = _HEADER.pack(_MAGIC, len(body), points, 0)
        frame = _HEADER.pack(_MAGIC, len(body), points, zlib.crc32(body, zlib.crc32(head))) + body
        with self._lock:
            if len(frame) > self._bytes_max // SEGMENTS:
                return points
            try:
                dropped = self._make_room(len(frame))
                self._write(frame, points)
            except OSError as error:
                raise self._explained(error) from error
        return dropped

    def sync(self) -> None:
        """Bring what was appended to the disk itself.

        Raises:
            StoreFailedError: the disk failed.
            NotPermittedError: the operating system forbids it.
        """
        with self._lock:
            if self._tail is None:
                return
            try:
                os.fdatasync(self._tail)
            except OSError as error:
                raise self._explained(error) from error

    def peek(self, points_max: int) -> Batch | None:
        """The oldest records, up to so many points but at least one record; None when nothing is left.

        They stay until `commit`. Without it the next `peek` gives them again.

        Raises:
            StoreFailedError: the disk failed.
            NotPermittedError: the operating system forbids it.
        """
        with self._lock:
            try:
                return self._peek(points_max)
            except OSError as error:
                raise self._explained(error) from error

    def commit(self) -> None:
        """Forget the records of the last `peek`.

        Raises:
            StoreFailedError: the disk failed; the records are forgotten until the next start only.
            NotPermittedError: likewise, for want of permission.
        """
        with self._lock:
            if self._sending is None:
                return
            (segment, records), self._sending = self._sending, None
            for _ in range(records):
                segment.frames.popleft()
            try:
                self._forget_sent(segment)
            except OSError as error:
                raise self._explained(error) from error

    def close(self) -> None:
        """Sync and let go of the files; closing twice is fine."""
        with self._lock:
            tail, self._tail = self._tail, None
            position, self._position = self._position, -1
        if tail is not None:
            os.fdatasync(tail)
            os.close(tail)
        if position >= 0:
            os.close(position)

    def _resume(self) -> None:
        """Find what an earlier process left, without the frames that it had sent."""
        sent_in, sent = self._read_position()
        for path in sorted(self._directory.glob("*.segment")):
            number = int(path.stem)
            segment = _Segment(number, path)
            if number >= sent_in:
                content = path.read_bytes()
                segment.size = len(content)
                segment.frames.extend(_frames(content, sent if number == sent_in else 0, path))
            if segment.frames:
                self._segments.append(segment)
            else:
                path.unlink()

    def _make_room(self, size: int) -> int:
        """Drop oldest segments until `size` more bytes fit; how many points went with them."""
        dropped = 0
        while sum(segment.size for segment in self._segments) + size > self._bytes_max:
            sending = self._sending and self._sending[0]
            victim = next((segment for segment in self._segments if segment is not sending), None)
            if victim is None:
                break
            if victim is self._segments[-1]:
                self._seal()
            self._segments.remove(victim)
            victim.path.unlink()
            dropped += victim.points
        return dropped

    def _write(self, frame: bytes, points: int) -> None:
        if self._tail is None or self._segments[-1].size + len(frame) > self._bytes_max // SEGMENTS:
            self._seal()
            path = self._directory / f"{self._next:020}.segment"
            self._tail = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._segments.append(_Segment(self._next, path))
            self._next += 1
        segment = self._segments[-1]
        try:
            rest = memoryview(frame)
            while rest:
                rest = rest[os.write(self._tail, rest) :]
        except OSError:
            os.ftruncate(self._tail, segment.size)
            os.lseek(self._tail, segment.size, os.SEEK_SET)
            raise
        segment.frames.append(_Frame(segment.size, len(frame), points))
        segment.size += len(frame)

    def _seal(self) -> None:
        """The newest segment grows no more."""
        if self._tail is not None:
            tail, self._tail = self._tail, None
            os.fdatasync(tail)
            os.close(tail)

    def _peek(self, points_max: int) -> Batch | None:
        self._sending = None
        lost = 0
        while self._segments:
            segment = self._segments[0]
            records, points = [], 0
            descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while len(records) < len(segment.frames):
                    frame = segment.frames[len(records)]
                    if records and points + frame.points > points_max:
                        break
                    record = _record(os.pread(descriptor, frame.size, frame.offset))
                    if record is None:
                        _log.error("%s: %d points at byte %d are damaged", segment.path, frame.points, frame.offset)
                        del segment.frames[len(records)]
                        lost += frame.points
                        continue
                    records.append(record)
                    points += frame.points
            finally:
                os.close(descriptor)
            if records:
                self._sending = segment, len(records)
                return Batch(tuple(records), points, lost)
            self._forget_sent(segment)
        return Batch((), 0, lost) if lost else None

    def _forget_sent(self, segment: _Segment) -> None:
        """Delete `segment` if nothing of it is left, otherwise note how far it has been sent."""
        if segment.frames:
            self._write_position(segment.number, segment.frames[0].offset)
            return
        if segment is self._segments[-1]:
            tail, self._tail = self._tail, None  # it need not be synced any more
            if tail is not None:
                os.close(tail)
        self._segments.remove(segment)
        segment.path.unlink()
        self._write_position(segment.number + 1, 0)

    def _read_position(self) -> tuple[int, int]:
        """Number of the oldest segment and bytes of it that have been sent; zeros where that is not known."""
        content = os.pread(self._position, _POSITION.size, 0)
        if len(content) == _POSITION.size:
            number, offset, checksum = _POSITION.unpack(content)
            if checksum == zlib.crc32(content[:-4]):
                return number, offset
        return 0, 0

    def _write_position(self, number: int, offset: int) -> None:
        content = _POSITION.pack(number, offset, 0)
        os.pwrite(self._position, content[:-4] + zlib.crc32(content[:-4]).to_bytes(4, "little"), 0)

    def _explained(self, error: OSError) -> StoreFailedError | NotPermittedError:
        if isinstance(error, PermissionError):
            return NotPermittedError(f"{self._directory} must be readable and writable ({error})")
        if isinstance(error, BlockingIOError):
            return StoreFailedError(f"{self._directory} is in use by another process: stop that one, or name another")
        return StoreFailedError(f"{self._directory}: {error.strerror or error}: check the disk, then start again")


def _frames(content: bytes, offset: int, path: Path) -> deque[_Frame]:
    """The whole frames of a segment from `offset` on; what is between them is torn or damaged and passed over."""
    frames: deque[_Frame] = deque()
    passed = 0
    while offset < len(content):
        header = content[offset : offset + _HEADER.size]
        if len(header) == _HEADER.size and header[:4] == _MAGIC:
            _, length, points, _ = _HEADER.unpack(header)
            size = _HEADER.size + length
            if _whole(content[offset : offset + size]):
                frames.append(_Frame(offset, size, points))
                offset += size
                continue
        found = content.find(_MAGIC, offset + 1)
        following = found if found >= 0 else len(content)
        passed += following - offset
        offset = following
    if passed:
        _log.warning("%s: %d bytes were torn or damaged and are passed over", path, passed)
    return frames


def _whole(frame: bytes) -> bool:
    if len(frame) < _HEADER.size:
        return False
    magic, length, points, checksum = _HEADER.unpack_from(frame)
    head = _HEADER.pack(magic, length, points, 0)
    expected = zlib.crc32(memoryview(frame)[_HEADER.size :], zlib.crc32(head))
    return magic == _MAGIC and len(frame) == _HEADER.size + length and checksum == expected


def _record(frame: bytes) -> bytes | None:
    return zlib.decompress(memoryview(frame)[_HEADER.size :]) if _whole(frame) else None
