"""What is inside a frame? A record: a line of JSON that says what it is, and the bytes it is about.

    payload = length of the JSON (uint32, little-endian) || JSON, ASCII || bytes

Two records exist. A *segment* record opens each segment: version, first height, cluster bounds, limit on bodies, and
as bytes the checkpoint, int64 little-endian balances. A *block* record holds header and hash, and as bytes the body
(`held` false: the body is gone): genesis balances, the five columns of a tick, or the UTF-8 entry of a commit.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qecs.block import FLOW_COLUMNS, Block, BlockKind, CommitBody, GenesisBody, Header, TickBody, canonical_json
from qecs.errors import LedgerCorruptError
from qecs.frames import DamagedFrameError, frame_head, read_frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from qecs.block import Body

VERSION = 1

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded record.

    Attributes:
        meta: what it is.
        body: the bytes it is about.
        end: offset in its file at which it ends.
    """

    meta: dict[str, Any]
    body: bytes
    end: int

    @property
    def is_block(self) -> bool:
        """Whether it is a block record; else it opens a segment."""
        return bool(self.meta["record"] == "block")


@dataclass(frozen=True, slots=True, eq=False)
class SegmentStart:
    """How a segment opens.

    Attributes:
        first_height: height of its first block.
        bodies_max: the ledger's limit on tick bodies.
        bounds: int64 cluster bounds.
        checkpoint: int64 genesis balances plus all ticks below `first_height`.
    """

    first_height: int
    bodies_max: int | None
    bounds: NDArray[np.int64]
    checkpoint: NDArray[np.int64]

    def encode(self) -> tuple[bytes, ...]:
        """Return the parts of the frame to write."""
        meta = {
            "record": "segment",
            "version": VERSION,
            "first_height": self.first_height,
            "bodies_max": self.bodies_max,
            "bounds": self.bounds.tolist(),
        }
        return _encode(meta, self.checkpoint.astype("<i8").tobytes())

    @classmethod
    def decode(cls, record: Record) -> SegmentStart:
        """Return what `encode` wrote.

        Raises:
            LedgerCorruptError: it is no such record, or one of another version.
        """
        meta = record.meta
        if record.is_block or meta.get("version") != VERSION:
            raise LedgerCorruptError(f"the segment does not open with a record of version {VERSION}")
        return cls(
            first_height=meta["first_height"],
            bodies_max=meta["bodies_max"],
            bounds=np.array(meta["bounds"], dtype="<i8"),
            checkpoint=np.frombuffer(record.body, dtype="<i8"),
        )


def encode_block(block: Block) -> tuple[bytes, ...]:
    """Return the parts of the frame that holds `block`."""
    body = block.body
    meta = {
        "record": "block",
        "header": block.header.to_dict(),
        "hash": block.hash,
        "held": body is not None,
    }
    return _encode(meta, b"" if body is None else body.to_bytes())


def decode_block(record: Record, bounds: NDArray[np.int64], height: int) -> Block:
    """Return the block of a block record, not yet verified.

    Raises:
        LedgerCorruptError: it is no block; names `height`.
    """
    try:
        header = Header.from_dict(record.meta["header"])
        body = _decode_body(header.kind, record.body, bounds) if record.meta["held"] else None
        return Block(header, record.meta["hash"], body)
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerCorruptError(f"height {height}: {error}") from error


def read_records(path: Path, height: int) -> Iterator[Record]:
    """Yield the complete records of a file; a torn last one ends the iteration.

    Args:
        path: a segment or the archive.
        height: height of the file's first block, for the message.

    Raises:
        LedgerCorruptError: a complete record is damaged; names the height.
    """
    with path.open("rb") as file:
        try:
            for frame in read_frames(file):
                record = _decode(frame.payload, frame.end)
                yield record
                height += record.is_block
        except (DamagedFrameError, ValueError, TypeError, KeyError, struct.error) as error:
            raise LedgerCorruptError(f"height {height}: {path.name}: {error}") from error


def _encode(meta: dict[str, Any], body: bytes) -> tuple[bytes, ...]:
    text = canonical_json(meta).encode("ascii")
    length = _LENGTH.pack(len(text))
    return frame_head(length, text, body) + length + text, body


def _decode(payload: bytes, end: int) -> Record:
    (length,) = _LENGTH.unpack_from(payload)
    start = _LENGTH.size
    meta = json.loads(payload[start : start + length])
    if meta["record"] not in ("segment", "block"):
        raise ValueError(f"unknown record {meta['record']!r}")
    return Record(meta, payload[start + length :], end)


def _decode_body(kind: BlockKind, body: bytes, bounds: NDArray[np.int64]) -> Body:
    if kind is BlockKind.COMMIT:
        return CommitBody(body.decode())
    if kind is BlockKind.TICK:
        columns = np.frombuffer(body, dtype="<i8").reshape(len(FLOW_COLUMNS), int(bounds[-1]))
        return TickBody(columns, bounds)
    balances = np.frombuffer(body, dtype="<i8").reshape(int(bounds[-1]))
    return GenesisBody(balances, bounds)
