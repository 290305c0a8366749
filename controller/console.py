"""What is told about a run while it goes on, and when it has ended? Everything for people, on standard error.

On a terminal a live view is redrawn at most eight times a second; elsewhere (a pipe, a CI log) every milestone is one
line, with a sign of life twice a minute. `NO_COLOR` is honoured, and a standard error that went away is no reason for a
run to fail: from then on nothing is told.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, cast

from controller.record import KpiHistory, RunRecord
from controller.wording import printable, sentence
from metrics.kpi import Kpi
from state.event import Event, EventKind
from state.phase import Phase
from state.verdict import CheckStatus, PhaseResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

REDRAW_S = 1 / 8
SIGN_OF_LIFE_S = 30.0
LINES = 5

MILESTONES = frozenset(
    {
        EventKind.GRAVITY_WELL_CONFIRMED,
        EventKind.ISOLATION_BLOCKED,
        EventKind.ACTION_REFUSED,
        EventKind.ACTION_UNKNOWN,
        EventKind.ISOLATION_VERIFIED,
        EventKind.ISOLATION_FAILED,
        EventKind.ISOLATION_EXPIRED,
        EventKind.RESTORATION_VERIFIED,
        EventKind.TRIAL_STARTED,
        EventKind.TRIAL_KEPT,
        EventKind.ROLLBACK_INTENDED,
        EventKind.TRIAL_ROLLED_BACK,
        EventKind.ROLLBACK_FAILED,
        EventKind.STORM_DETECTED,
        EventKind.SENSORS_DOUBTED,
        EventKind.INVARIANT_BREACHED,
        EventKind.SAFE_MODE_LEFT,
        EventKind.PROBE_INTENDED,
        EventKind.PROBE_ENDED,
        EventKind.PROPOSAL_WRITTEN,
    }
)


class RunConsole:
    """Tells about one run; a context manager, so that the terminal is whole again whatever happens.

    Args:
        catalogue: the KPIs with the limits in force.
        stream: where it is told; standard error unless told otherwise.
        clock: monotonic seconds, which decide on redrawing and nothing else.
        console: a rich console to draw on instead of `stream`, for a picture of a run.
    """

    def __init__(
        self,
        catalogue: Mapping[str, Kpi],
        *,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        from controller import display  # noqa: PLC0415 - rich is imported only where something is told

        self._display = display
        self._stream = cast("IO[str]", _Forgiving(sys.stderr if stream is None else stream))
        self._console = display.rich_console(self._stream) if console is None else console
        self._clock = clock
        self._next_s = -math.inf
        self._glance = display.Glance(catalogue)
        self._lines: deque[str] = deque(maxlen=LINES)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            from rich.live import Live  # noqa: PLC0415 - as above

            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop()

    def phase_started(self, phase: Phase, ticks: int | None = None) -> None:
        """A phase, or the governing window, begins; `ticks` is how many it takes, None where nobody knows."""
        self._glance.stage, self._glance.done, self._glance.total = phase, 0, ticks
        self._tell(f"{phase}: {phase.meaning}" + (f", {ticks} ticks" if ticks else ""))
        self._redraw()

    def tick(self, history: KpiHistory, isolated: Collection[str] = ()) -> None:
        """One more tick is in `history`."""
        self._glance.done += 1
        now_s = self._clock()
        if now_s < self._next_s:
            return
        first = self._next_s == -math.inf
        self._next_s = now_s + (SIGN_OF_LIFE_S if self._live is None else REDRAW_S)
        self._glance.history, self._glance.isolated = history, sorted(isolated)
        self._glance.state = history.phases[-1] if history.phases else Phase.IDLE
        if self._live is None and not first:
            self._tell(self._sign_of_life())
        self._redraw()

    def phase_ended(self, result: PhaseResult) -> None:
        """A phase has ended, and this is what its checks found."""
        self._glance.results[result.phase] = result
        passed = sum(check.status is CheckStatus.PASSED for check in result.checks)
        self._tell(f"{result.phase} {result.verdict}: {passed} of {len(result.checks)} checks passed")
        for check in result.checks:
            if check.status is not CheckStatus.PASSED:
                self._tell("  " + printable(f"{check.name} {check.status}: {check.message}"))
        self._redraw()

    def event(self, event: Event) -> None:
        """Something has been journaled; milestones are told."""
        if event.kind not in MILESTONES:
            return
        self.say(f"[{event.at_s:g} s] {sentence(event)}")

    def say(self, text: str) -> None:
        """Tell something in one line, on a terminal among the latest events."""
        line = printable(text)
        self._lines.append(line)
        self._glance.lines = tuple(self._lines)
        self._tell(line)

    def finish(self, record: RunRecord, paths: Sequence[Path]) -> None:
        """The run has ended: the summary, and where the report is."""
        self._stop()
        self._console.print(self._display.summary(record, paths))

    def _tell(self, line: str) -> None:
        """A line where nothing is drawn."""
        if self._live is None:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def _sign_of_life(self) -> str:
        glance = self._glance
        told = [f"{glance.stage}: tick {glance.done}" + (f" of {glance.total}" if glance.total else "")]
        values = {} if glance.history is None else glance.history.values
        for name in self._display.SHOWN:
            series = values.get(name)
            if series and math.isfinite(series[-1]):
                told.append(f"{name} {series[-1]:.3f}")
        return ", ".join(told)

    def _redraw(self) -> None:
        if self._live is not None:
            self._live.update(self._display.live_view(self._glance), refresh=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Forgiving:
    """A stream that swallows the failures of the one beneath: nobody listening is no error."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def fileno(self) -> int:
        return self._stream.fileno()
