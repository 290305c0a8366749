"""How does a record stand in a spool's file, so that a torn or damaged one is known for what it is?

A frame is a magic number, the length of the body, the points that the record stands for, a checksum of all that, and
the record, compressed. The magic number holds a byte that UTF-8 text never holds; a reader that lost its way finds the
next frame by it.

Left out: which frames have been sent, see `spool.py`.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

_log = logging.getLogger(f"iace.{__name__}")

_MAGIC = b"\xffIac"
_HEADER = struct.Struct("<4sIII")  # magic, length of the body, points, checksum of what precedes and of the body
_COMPRESSION = 1  # line protocol shrinks to a fifth at 90 MB/s; higher levels gain little and take much longer


class Frame(NamedTuple):
    """Where a whole frame stands in its file, and how many points it stands for."""

    offset: int
    size: int
    points: int


def pack(record: bytes, points: int) -> bytes:
    """The frame of a record."""
    body = zlib.compress(record, _COMPRESSION)
    return _HEADER.pack(_MAGIC, len(body), points, _checksum(len(body), points, body)) + body


def unpack(frame: bytes) -> bytes | None:
    """The record of a frame, None where it is not whole."""
    if len(frame) < _HEADER.size:
        return None
    magic, length, points, checksum = _HEADER.unpack_from(frame)
    body = memoryview(frame)[_HEADER.size :]
    whole = magic == _MAGIC and len(body) == length and checksum == _checksum(length, points, body)
    return zlib.decompress(body) if whole else None


def scan(content: bytes, offset: int, name: str) -> Iterator[Frame]:
    """The whole frames in a file's content from `offset` on; others are passed over, which is logged under `name`."""
    passed = 0
    while offset < len(content):
        frame = _frame_at(content, offset)
        if frame is not None:
            yield frame
            offset += frame.size
        else:
            found = content.find(_MAGIC, offset + 1)
            following = found if found >= 0 else len(content)
            passed += following - offset
            offset = following
    if passed:
        _log.warning("%s: %d bytes were torn or damaged and are passed over", name, passed)


def _frame_at(content: bytes, offset: int) -> Frame | None:
    if len(content) < offset + _HEADER.size:
        return None
    _, length, points, _ = _HEADER.unpack_from(content, offset)
    size = _HEADER.size + length
    return Frame(offset, size, points) if unpack(content[offset : offset + size]) is not None else None


def _checksum(length: int, points: int, body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(_HEADER.pack(_MAGIC, length, points, 0)))
