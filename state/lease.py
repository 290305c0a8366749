"""Who may act: one controller for a data directory, by a lock that the operating system ends with the process.

The lock guards the directory against a second controller on the same machine; it says nothing about a controller
elsewhere, which is what the fencing epoch at the plant is for.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from metrics.errors import NotLeaderError
from state.journal import permission_or_store


class DirectoryLease:
    """Holds `directory` for this process while it is entered.

    Raises:
        NotLeaderError: another process holds it; the message names its process id.
        NotPermittedError, StoreFailedError: the lock file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._handle: int | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise permission_or_store(error, self._path) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            self._handle = None
            raise NotLeaderError(
                f"{self._path.parent} is held by another controller (process {holder}): "
                "stop it, or name another directory with --data-dir"
            ) from None
        self._claim()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def held(self) -> bool:
        """Whether the lock file is still the one that was locked: somebody may have put another in its place."""
        if self._handle is None:
            return False
        try:
            there, ours = self._path.stat(), os.fstat(self._handle)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _claim(self) -> None:
        """Write who we are, for the one who is refused; on a full disk the lock holds all the same."""
        if self._handle is None:
            return
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, str(os.getpid()).encode(), 0)
        except OSError:
            return
