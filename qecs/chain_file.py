"""How does a block get to disk so that a crash cannot take it back? An append-only writer with segments.

A segment starts with a checkpoint (`qecs.chain_records`), then come the blocks. Without a limit on bodies there is
one segment for good. With a limit K a new segment starts after K ticks, and every segment but the last two is moved
to the archive without its tick bodies, so that between K and 2 K bodies are on disk; headers, genesis and commits
stay for good.

Durability: a commit block is on disk (fsync) before `append` returns; a tick block is handed to the operating system
at once and synchronised at most once a second and on `close`. `kill -9` therefore loses nothing, a power cut at most
the last second of ticks.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from qecs.block import GenesisBody, TickBody
from qecs.chain_directory import (
    LedgerWriteError,
    archive_path,
    holds_chain,
    lock_directory,
    segment_path,
    segments,
    sync_directory,
)
from qecs.chain_records import SegmentStart, decode_block, encode_block, read_records
from qecs.errors import InvalidRequestError
from qecs.frames import write_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from qecs.block import Block

_SYNC_INTERVAL_S = 1.0


class ChainFile:
    """The open files of one ledger; a new one is made by `create`, an existing one by `qecs.chain_recovery`.

    Args:
        directory: where they are.
        lock: descriptor of the directory's lock, owned from now on.
        bodies_max: tick bodies to hold, None for all.
        bounds: int64 cluster bounds.
    """

    def __init__(self, directory: Path, lock: int, bodies_max: int | None, bounds: NDArray[np.int64]) -> None:
        self._directory = directory
        self._lock = lock
        self._bodies_max = bodies_max
        self._bounds = bounds
        self._descriptor = -1
        self._size = 0
        self._ticks_in_segment = 0
        self._synced_s = time.monotonic()
        self._dirty = False
        self._broken: str | None = None

    @classmethod
    def create(cls, directory: Path, genesis: Block, *, bodies_max: int | None) -> ChainFile:
        """Start a chain in `directory`, which is made if needed.

        Raises:
            InvalidRequestError: it already holds a chain, or `genesis` is none.
            LedgerWriteError: it cannot be written, or another process has it open.
        """
        body = genesis.body
        if not isinstance(body, GenesisBody):
            raise InvalidRequestError("a chain starts with a genesis block")
        file = cls(directory, lock_directory(directory), bodies_max, body.bounds)
        try:
            if holds_chain(directory):
                raise InvalidRequestError(f"{directory} already holds a chain: recover it or choose another")  # noqa: TRY301 # the handler only closes
            file._start(0, body.balances, *encode_block(genesis))
        except OSError as error:
            file.close()
            raise _write_error(directory, error) from error
        except BaseException:
            file.close()
            raise
        return file

    def resume(self, path: Path, end: int, ticks: int) -> None:
        """Go on writing `path` at offset `end`, cutting what lies behind; `ticks` are in it already.

        Raises:
            LedgerWriteError: it cannot be written.
        """
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)
            os.lseek(self._descriptor, end, os.SEEK_SET)
        except OSError as error:
            raise _write_error(self._directory, error) from error
        self._size, self._ticks_in_segment = end, ticks

    def append(self, block: Block, *, durable: bool, checkpoint: Callable[[], NDArray[np.int64]]) -> None:
        """Write one block; `durable` returns only once it is safely on disk.

        Args:
            block: the next block, with its body.
            durable: whether to synchronise before returning.
            checkpoint: gives the genesis balances plus all ticks before `block`; called when a segment is full.

        Raises:
            LedgerWriteError: it was not written, or not surely; then nothing more is accepted.
        """
        if self._broken is not None:
            raise LedgerWriteError(f"the ledger in {self._directory} takes no more blocks: {self._broken}")
        is_tick = isinstance(block.body, TickBody)
        try:
            if is_tick and self._ticks_in_segment == self._bodies_max:
                self._roll(block.header.height, checkpoint())
            self._write(*encode_block(block))
            self._ticks_in_segment += is_tick
            if durable or time.monotonic() - self._synced_s >= _SYNC_INTERVAL_S:
                self._sync()
        except OSError as error:
            raise _write_error(self._directory, error) from error

    def close(self) -> None:
        """Synchronise and release files and lock; nothing can be appended then. A second call does nothing.

        Raises:
            LedgerWriteError: the last second of ticks could not be synchronised.
        """
        if self._lock < 0:
            return
        try:
            if self._dirty and self._broken is None:
                self._sync()
        except OSError as error:
            raise _write_error(self._directory, error) from error
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            os.close(self._lock)
            self._lock = self._descriptor = -1
            self._broken = "it is closed"

    def _write(self, *parts: bytes) -> None:
        try:
            self._size += write_all(self._descriptor, *parts)
        except OSError:
            # Half a record in front of later ones would be damage, not a torn tail.
            self._broken = "an earlier write failed and could not be undone"
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            self._broken = None
            raise
        self._dirty = True

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the data: a later success would prove nothing.
            self._broken = f"synchronising failed ({error})"
            raise
        self._synced_s = time.monotonic()
        self._dirty = False

    def _start(self, first_height: int, checkpoint: NDArray[np.int64], *first: bytes) -> None:
        """Start a segment, complete under another name first, so that none is ever without its checkpoint."""
        start = SegmentStart(first_height, self._bodies_max, self._bounds, checkpoint)
        path = segment_path(self._directory, first_height)
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            size = write_all(descriptor, *start.encode(), *first)
            os.fsync(descriptor)
            temporary.replace(path)
            sync_directory(self._directory)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._size, self._ticks_in_segment = descriptor, size, 0

    def _roll(self, first_height: int, checkpoint: NDArray[np.int64]) -> None:
        self._sync()
        # Half done, the files hold a sound chain, but only recovery can tell where it goes on.
        self._broken = "changing segments failed"
        previous = self._descriptor
        self._start(first_height, checkpoint)
        os.close(previous)
        for segment in segments(self._directory)[:-2]:
            _archive(self._directory, segment, self._bounds)
        self._broken = None


def _archive(directory: Path, segment: Path, bounds: NDArray[np.int64]) -> None:
    """Append a segment's blocks to the archive without tick bodies, then remove the segment."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(archive_path(directory), flags, 0o644)
    try:
        for record in read_records(segment, 0):
            if record.is_block:
                block = decode_block(record, bounds, record.meta["header"]["height"])
                is_tick = isinstance(block.body, TickBody)
                write_all(descriptor, *encode_block(replace(block, body=None) if is_tick else block))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(directory)
    segment.unlink()


def _write_error(directory: Path, error: OSError) -> LedgerWriteError:
    return LedgerWriteError(f"cannot write the ledger in {directory}: {error}")
