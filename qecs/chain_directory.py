"""Which files make up a persisted ledger, and who may write them?

`chain-<first height>.log` segments, `archive.log` for what was moved out of older segments, and `lock`, which keeps a
second process out for as long as the first one lives (an flock, so that a killed process leaves none behind).
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, flock
from typing import TYPE_CHECKING

from qecs.errors import QecsError

if TYPE_CHECKING:
    from pathlib import Path


class LedgerWriteError(QecsError):
    """The ledger cannot be written: mend the disk, or stop the other process, and start again."""


def holds_chain(directory: Path) -> bool:
    """Return whether `directory` holds a persisted ledger."""
    return directory.is_dir() and bool(segments(directory))


def segments(directory: Path) -> list[Path]:
    """Return the segments, oldest first."""
    return sorted(directory.glob("chain-*.log"))


def segment_path(directory: Path, first_height: int) -> Path:
    """Return where the segment lives whose first block is at `first_height`."""
    return directory / f"chain-{first_height:012d}.log"


def archive_path(directory: Path) -> Path:
    """Return where the blocks of older segments live, without their tick bodies."""
    return directory / "archive.log"


def lock_directory(directory: Path) -> int:
    """Make `directory` if needed and return the descriptor whose closing releases it.

    Raises:
        LedgerWriteError: it cannot be used, or another process has it open.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LedgerWriteError(f"cannot use {directory} for the ledger: {error}") from error
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LedgerWriteError(f"the ledger in {directory} is open in another process") from error
    return descriptor


def sync_directory(directory: Path) -> None:
    """Make created, renamed and removed names durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
