"""How far has it got? A bar on standard error, for work that takes more than a second, on a terminal only."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Self

SILENT_S = 1.0
REDRAW_S = 0.2
WIDTH = 40


class Bar:
    """A bar over `total` steps; a context manager that leaves the line clean."""

    def __init__(self, stream: IO[str], total: int) -> None:
        self._stream = stream
        self._total = max(1, total)
        self._next_s = time.monotonic() + SILENT_S
        self._drawn = False
        self._shown = stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._stream.write("\r" + " " * (WIDTH + 8) + "\r")
            self._stream.flush()

    def update(self, done: int) -> None:
        """`done` steps are done."""
        now_s = time.monotonic() if self._shown else 0.0
        if not self._shown or now_s < self._next_s:
            return
        self._next_s, self._drawn = now_s + REDRAW_S, True
        filled = min(WIDTH, WIDTH * done // self._total)
        self._stream.write(f"\r{'#' * filled}{'.' * (WIDTH - filled)} {100 * done // self._total:3d} %")
        self._stream.flush()

    def after(self, offset: int) -> Callable[[int], None]:
        """`update` for a part of the work that begins after `offset` steps."""
        return lambda done: self.update(offset + done)
