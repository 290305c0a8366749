"""What is left on disk after a crash? Everything up to the last complete record.

Cut off are an incomplete last record of the last segment and what an interrupted move to the archive has left. A
complete record that does not verify is damage, never a torn tail, and is refused with its height. A tail cut off
cleanly between two records cannot be seen from inside.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qecs.block import GenesisBody, TickBody
from qecs.chain_directory import LedgerWriteError, archive_path, holds_chain, lock_directory, segments
from qecs.chain_file import ChainFile
from qecs.chain_records import SegmentStart, decode_block, read_records
from qecs.errors import LedgerCorruptError, UnknownTargetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from qecs.block import Block


class StoredChain:
    """A chain on disk, locked for this process: read `blocks` to the end, then append to `file`.

    Args:
        directory: where it is.

    Raises:
        UnknownTargetError: there is no chain in `directory`.
        LedgerCorruptError: it does not start with a checkpoint, or its archive is damaged.
        LedgerWriteError: another process has it open, or it cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        if not holds_chain(directory):
            raise UnknownTargetError(f"{directory} holds no ledger")
        self._directory = directory
        self._genesis: GenesisBody | None = None
        lock = lock_directory(directory)
        try:
            self._start = _oldest_start(directory)
            _undo_interrupted_moves(directory, self._start.first_height)
        except BaseException:
            os.close(lock)
            raise
        self.bodies_max = self._start.bodies_max
        self.file = ChainFile(directory, lock, self.bodies_max, self._start.bounds)

    def blocks(self) -> Iterator[Block]:
        """Yield every block from genesis on, not yet verified; those in the archive lack their tick bodies.

        Raises:
            LedgerCorruptError: a record is damaged or no block; names the height.
            LedgerWriteError: the torn tail could not be cut.
        """
        archive = archive_path(self._directory)
        last = segments(self._directory)[-1]
        paths = [*([archive] if archive.exists() else []), *segments(self._directory)]
        height = 0
        for path in paths:
            end = ticks = 0
            for record in read_records(path, height):
                end = record.end
                if not record.is_block:
                    self._require_follows(SegmentStart.decode(record), height, path)
                    continue
                block = decode_block(record, self._start.bounds, height)
                if isinstance(block.body, GenesisBody):
                    self._genesis = block.body
                ticks += isinstance(block.body, TickBody)
                height += 1
                yield block
            if path == last:
                self.file.resume(path, end, ticks)
            elif end != path.stat().st_size:
                raise LedgerCorruptError(f"height {height}: {path.name} ends within a record")

    def archived_change(self) -> NDArray[np.int64] | int:
        """Return what the ticks without bodies added to each node's balance; `blocks` must have been read."""
        return 0 if self._genesis is None else self._start.checkpoint - self._genesis.balances

    def _require_follows(self, start: SegmentStart, height: int, path: Path) -> None:
        if start.first_height != height:
            raise LedgerCorruptError(f"height {height}: {path.name} starts at height {start.first_height}")


def _oldest_start(directory: Path) -> SegmentStart:
    oldest = segments(directory)[0]
    for record in read_records(oldest, 0):
        return SegmentStart.decode(record)
    raise LedgerCorruptError(f"{oldest.name} is empty: even its checkpoint is missing")


def _undo_interrupted_moves(directory: Path, first_height: int) -> None:
    """Remove half-made segments, and cut the archive back to where the oldest segment starts."""
    try:
        for leftover in directory.glob("chain-*.new"):
            leftover.unlink()
        path = archive_path(directory)
        if not path.exists():
            return
        end = 0
        for record in read_records(path, 0):
            if record.meta["header"]["height"] >= first_height:
                break
            end = record.end
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
    except OSError as error:
        raise LedgerWriteError(f"cannot write the ledger in {directory}: {error}") from error
