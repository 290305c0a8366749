"""Where is a chain that never ends kept? Its latest blocks in memory, the headers of older ones in a temporary file.

A header takes some 700 bytes in memory and 170 in the file, so that a chain of a block a second costs memory only for
the latest `KEPT_MIN` of them. Blocks with a body stay in memory for as long as they have one. The file has no name and
ends with the process: what is to outlive it is in `chain_file.py`.

Assumed: one thread appends; any may read. A temporary file that cannot be written is done without, in memory.
"""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from qecs.block import Block, BlockKind, Header
from qecs.flows import EmissionInputs

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT_MIN = 4096  # latest blocks, besides those with a body
MOVED = 1024  # headers that are moved at once
_KINDS = tuple(BlockKind)
# Kind, previous hash, root, own hash; supply, emission, burn, tick; whether there are inputs; S0, C_30, GT, α, carry.
_RECORD = struct.Struct("<B32s32s32sqqqq?qdddd")


class BlockLog:
    """The blocks of one chain by height; a sequence that grows at its end.

    Args:
        genesis: the first block.
    """

    def __init__(self, genesis: Block) -> None:
        self._held = {0: genesis}
        self._length = 1
        self._moved = 0  # heights below are in the file, those of `_held` as well
        self._file: int | None = None  # its descriptor

    def __len__(self) -> int:
        """How many blocks there are."""
        return self._length

    def __getitem__(self, height: int) -> Block:
        """The block at `height`; from the end where that is negative.

        Raises:
            IndexError: there is none.
        """
        height = height + self._length if height < 0 else height
        held = self._held.get(height)
        if held is not None:
            return held
        if not 0 <= height < self._length or self._file is None:
            raise IndexError(height)
        return _unpacked(height, os.pread(self._file, _RECORD.size, height * _RECORD.size))

    def between(self, first: int, end: int) -> list[Block]:
        """The blocks from height `first` up to, but without, `end`; fewer where the chain ends before."""
        return [self[height] for height in range(first, min(end, self._length))]

    def with_bodies(self) -> Iterator[Block]:
        """The blocks that have one, oldest first."""
        return (block for block in self._held.values() if block.body is not None)

    def append(self, block: Block) -> None:
        """Let the chain go on."""
        self._held[self._length] = block
        self._length += 1
        if self._length - self._moved >= KEPT_MIN + MOVED:
            self._move(range(self._moved, self._moved + MOVED))

    def replace(self, block: Block) -> None:
        """Keep another body, or none, for the header that is there."""
        height = block.header.height
        if block.body is None and height < self._moved:
            self._held.pop(height, None)
        else:
            self._held[height] = block

    def _move(self, heights: range) -> None:
        """Write the headers at `heights` to the file, and let go of blocks that are nothing but header."""
        try:
            records = b"".join(_packed(self._held[height]) for height in heights)
            if self._file is None:
                self._file = self._open()
            written = os.pwrite(self._file, records, heights.start * _RECORD.size)
        except (OSError, ValueError, struct.error):
            return
        if written != len(records):
            return
        self._moved = heights.stop
        for height in heights:
            if self._held[height].body is None:
                del self._held[height]

    def _open(self) -> int:
        """The descriptor of a new file without a name, closed when this is gone."""
        descriptor, path = tempfile.mkstemp(prefix="qecs-headers-")
        weakref.finalize(self, os.close, descriptor)
        Path(path).unlink()
        return descriptor


def _packed(block: Block) -> bytes:
    header, inputs = block.header, block.header.inputs
    return _RECORD.pack(
        _KINDS.index(header.kind),
        bytes.fromhex(header.previous_hash),
        bytes.fromhex(header.root),
        bytes.fromhex(block.hash),
        header.supply,
        header.emission,
        header.burn,
        header.tick,
        inputs is not None,
        *(
            (0, 0.0, 0.0, 0.0, 0.0)
            if inputs is None
            else (inputs.supply_genesis, inputs.coherence_30, inputs.gas_target, inputs.alpha, inputs.carry)
        ),
    )


def _unpacked(height: int, record: bytes) -> Block:
    kind, previous, root, own, supply, emission, burn, tick, fed, genesis, *floats = _RECORD.unpack(record)
    coherence_30, gas_target, alpha, carry = floats
    inputs = EmissionInputs(coherence_30, gas_target, genesis, alpha, carry) if fed else None
    header = Header(height, _KINDS[kind], previous.hex(), root.hex(), supply, emission, burn, tick, inputs)
    return Block(header, own.hex(), None)
