"""What do signals ask for? SIGINT and SIGTERM an orderly stop, SIGHUP another look at the configuration.

A handler only notes what was asked for, without a lock: it runs between two statements of whoever looks at the note.
"""

from __future__ import annotations

import atexit
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from state.outcome import ExitCode

_STOPS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


@contextmanager
def stopping(stop: Callable[[ExitCode], None]) -> Iterator[None]:
    """SIGINT and SIGTERM ask for an orderly stop while this is entered."""

    def handle(number: int, _frame: FrameType | None) -> None:
        stop(_STOPS[signal.Signals(number)])

    previous = {number: signal.signal(number, handle) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Hangups:
    """SIGHUP from now on, and for as long as the process lives: its default action would be the end of the process."""

    def __init__(self) -> None:
        self._noted = False
        signal.signal(signal.SIGHUP, self._note)
        # The interpreter gives handlers back on its way out, but leaves alone what is ignored.
        atexit.register(signal.signal, signal.SIGHUP, signal.SIG_IGN)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._noted = True

    def take(self) -> bool:
        """Whether there was one since this was asked last; the answer to it begins after this."""
        if not self._noted:
            return False
        self._noted = False
        return True
