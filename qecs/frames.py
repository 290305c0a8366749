"""How does a record survive a crash in the middle of being written? Frames: length, checksums, payload.

    offset  size  content, little-endian
    0       8     length of the payload
    8       4     CRC-32 of the payload
    12      4     CRC-32 of the twelve bytes before
    16      …     payload

The second checksum tells a damaged length from a torn frame: a frame that ends early while its first 16 bytes (or
what there is of them) are sound can only be the last write before a crash. Anything else is damage.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = struct.Struct("<QI")
_CHECK = struct.Struct("<I")
_HEAD_BYTES = _PREFIX.size + _CHECK.size


class DamagedFrameError(Exception):
    """A complete frame whose checksum does not fit; becomes a LedgerCorruptError that names the height."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A payload and the offset at which its frame ends."""

    payload: bytes
    end: int


def frame_head(*parts: bytes) -> bytes:
    """Return the 16 bytes that precede a payload made of `parts`."""
    checksum = 0
    for part in parts:
        checksum = crc32(part, checksum)
    prefix = _PREFIX.pack(sum(len(part) for part in parts), checksum)
    return prefix + _CHECK.pack(crc32(prefix))


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """Yield the complete frames of `file` from its current position; a torn last one ends the iteration.

    Raises:
        DamagedFrameError: a frame's checksum does not fit.
    """
    size = os.fstat(file.fileno()).st_size
    while True:
        start = file.tell()
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            return
        prefix, check = head[: _PREFIX.size], head[_PREFIX.size :]
        if _CHECK.unpack(check)[0] != crc32(prefix):
            raise DamagedFrameError(f"byte {start}: the frame's head is damaged")
        length, checksum = _PREFIX.unpack(prefix)
        if file.tell() + length > size:
            return
        payload = file.read(length)
        if crc32(payload) != checksum:
            raise DamagedFrameError(f"byte {start}: the frame's payload is damaged")
        yield Frame(payload, file.tell())


def write_all(descriptor: int, *parts: bytes) -> int:
    """Write all of `parts` and return how many bytes that were.

    Raises:
        OSError: the disk is full, or worse; some of the bytes may have been written.
    """
    written = 0
    for part in parts:
        view = memoryview(part)
        while view:
            count = os.write(descriptor, view)
            view = view[count:]
            written += count
    return written
