"""Who ticks: the same lifecycle over the same loop, driven as fast as possible or by a schedule.

The driver is where a run can be stopped from outside: by a signal, by its wall-clock deadline, or by a plant that no
longer answers. It checks at ticks only, so whatever is under way at the plant has got its answer by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic

from controller.clock import Clock
from controller.loop import Loop
from controller.session import Result, Ticking
from metrics.errors import PlantUnavailableError, RecordingEndedError
from state.outcome import ExitCode


class Driver(Generic[Result]):
    """Feeds what the loop sees to a lifecycle until that returns, fails or is stopped.

    Args:
        loop, lifecycle: what ticks, and what waits for ticks.
        clock: the machine's clock, also in virtual runs.
        unavailable_s: how long the plant may go without a new tick.
        deadline_s: wall time after which the run is stopped.
        ticked: told how long each tick took, s.

    Attributes:
        result: what the lifecycle returned, if it did.
        error: what ended it otherwise.
        overdue: True if the deadline ended it.
    """

    def __init__(
        self,
        loop: Loop,
        lifecycle: Ticking[Result],
        clock: Clock,
        *,
        unavailable_s: float,
        deadline_s: float,
        ticked: Callable[[float], None],
    ) -> None:
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.signal: ExitCode | None = None
        self.overdue = False
        self._loop = loop
        self._lifecycle = lifecycle
        self._clock = clock
        self._unavailable_s = unavailable_s
        self._deadline_s = deadline_s
        self._ticked = ticked
        self._started = False
        self._started_s = clock.monotonic_s()
        self._last_seen_s = self._started_s
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._done.is_set()

    @property
    def stopping(self) -> bool:
        """Whether the next tick ends it, without touching the plant."""
        return self.signal is not None or self._is_overdue()

    def stop(self, signal: ExitCode) -> None:
        """Ask for an orderly stop at the next tick; safe from a signal handler."""
        self.signal = signal

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end for at most `timeout_s`; whether it has come."""
        return self._done.wait(timeout_s)

    def run_to_end(self) -> None:
        """Drive a virtual plant as fast as the processor allows."""
        while not self.done:
            self.tick()

    def tick(self) -> None:
        """One tick; never raises, and does nothing once it is over."""
        if self.done:
            return
        began_s = self._clock.monotonic_s()
        try:
            if not self.stopping:
                self._advance()
                self._ticked(self._clock.monotonic_s() - began_s)
        except StopIteration as finished:
            self.result = finished.value
            self._done.set()
        except BaseException as error:  # noqa: BLE001 - whatever ended the run decides its exit code
            self.error = error
            self._done.set()
        if self.signal is not None or self.overdue:
            self._done.set()

    def _advance(self) -> None:
        if not self._started:
            self._started = True
            next(self._lifecycle)
        silence = PlantUnavailableError(f"the plant made no new tick for {self._unavailable_s:g} s")
        seen = self._loop.tick()
        while True:
            # Patience is for observing alone: what the lifecycle could not get from the plant ends it.
            try:
                one = next(seen, None)
            except PlantUnavailableError as error:
                silence, one = error, None
            except RecordingEndedError as ended:
                self._lifecycle.throw(ended)
                return
            if one is None:
                break
            self._lifecycle.send(one)
            self._last_seen_s = self._clock.monotonic_s()  # what took long here was not the plant's silence
        self._give_up_after(silence)

    def _give_up_after(self, error: PlantUnavailableError) -> None:
        if self._clock.monotonic_s() - self._last_seen_s > self._unavailable_s:
            raise error

    def _is_overdue(self) -> bool:
        self.overdue = self._clock.monotonic_s() - self._started_s > self._deadline_s
        return self.overdue
