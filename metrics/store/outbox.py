"""How do lines reach a server that may be slow or away, without the loop ever waiting for it, and none unaccounted?

    put() ── memory ── thread "spool" ── spool on disk ── thread "send" ── server
                                                                        └─ dead letter

`put` only appends to a list. One thread brings the list to disk, where it survives the process, and has it synced once
a second; another sends from the disk in batches, and after a failure waits, longer each time. Two threads, so that a
server that hangs keeps nothing from the disk. At any instant, under one lock:

    produced = written + rejected + dropped + buffered

`buffered` is what is in memory, on its way between the stages, and on disk; what an earlier process left on disk counts
as produced at the start. Memory and disk are bounded, the oldest go and are counted. A batch whose answer was lost is
sent again, so a line may arrive twice, which changes nothing in InfluxDB.

A process that is killed loses what is in memory, the last `linger_s` or less; a power cut also what was not yet synced.
Left out: what a line says, and what the server's answer means.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metrics.errors import IaceError, NotPermittedError, StoreFailedError
from metrics.store.dead_letter import DeadLetter, Refused
from metrics.store.spool import Batch, Spool
from metrics.store_writer import StoreAccounts

_log = logging.getLogger(f"iace.{__name__}")

CLOSE_TIMEOUT_S = 5.0

_SEPARATOR = b"\xff"  # between the lines of a record: a line may contain a newline, but never this byte


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the outbox works.

    Attributes:
        batch_points: lines in a request; servers are at their best between 5,000 and 10,000.
        linger_s: longest stay in memory, and so the delay of a quiet stream.
        memory_points_max: bound on the lines in memory, which only a failing disk fills.
        backoff_min_s: wait after a first failure; doubled after each further one.
        backoff_max_s: longest wait.
    """

    batch_points: int = 5_000
    linger_s: float = 1.0
    memory_points_max: int = 200_000
    backoff_min_s: float = 0.5
    backoff_max_s: float = 30.0


class Outbox:
    """Sends lines by `send`, through `spool`, which it closes in the end.

    Args:
        spool: the disk stage.
        send: sends lines and returns those that were refused for good; raises `StoreFailedError` when the same lines
            should be sent again later, with `retry_after_s` where the server asked for a pause.
        dead_letter: where refused lines go.
        pace: how fast.
    """

    def __init__(
        self,
        spool: Spool,
        send: Callable[[Sequence[bytes]], Sequence[Refused]],
        dead_letter: DeadLetter,
        pace: Pace | None = None,
    ) -> None:
        self._spool = spool
        self._send = send
        self._dead_letter = dead_letter
        self._pace = pace or Pace()
        self._changed = threading.Condition()
        self._memory: deque[Sequence[str]] = deque()
        self._in_memory = 0  # points, those on their way to the disk included
        self._on_disk = self._produced = spool.points
        self._written = self._rejected = self._dropped = 0
        self._hurried = False
        self._spooling = True  # more may come to the disk
        self._stopping = False
        self._deadline_s = float("inf")  # monotonic; nothing is sent after it
        self._disk_failure: IaceError | None = None
        self._send_failure: IaceError | None = None
        self._threads = (
            threading.Thread(target=self._spool_until_stopped, name="iace-outbox-spool", daemon=True),
            threading.Thread(target=self._send_until_stopped, name="iace-outbox-send", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @property
    def failure(self) -> IaceError | None:
        """Why nothing moves on at the moment; None when all is well."""
        return self._send_failure or self._disk_failure

    def put(self, lines: Sequence[str], rejected: int = 0) -> None:
        """Take lines over, and count points that had no form as lines; waits for nobody.

        Raises:
            StoreFailedError: the outbox is closed.
        """
        with self._changed:
            if self._stopping:
                raise StoreFailedError("the outbox is closed")
            self._produced += len(lines) + rejected
            self._rejected += rejected
            self._in_memory += len(lines)
            if lines:
                self._memory.append(lines)
                self._shed()
            if self._in_memory >= self._pace.batch_points:
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put before is accounted for; False when it is not in time, or nothing moves on."""
        with self._changed:
            goal = self._produced
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled >= goal or self.failure is not None, timeout_s)
            return self._settled >= goal

    def accounts(self) -> StoreAccounts:
        """What became of the points so far."""
        with self._changed:
            buffered = self._in_memory + self._on_disk
            return StoreAccounts(self._produced, self._written, self._rejected, self._dropped, buffered)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what can be sent within `timeout_s`, and leave the rest on disk; closing twice is fine.

        A request that is on its way then ends in its own time, in a thread that keeps no process alive.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            self._stopping = True
            self._deadline_s = min(self._deadline_s, deadline_s)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    @property
    def _settled(self) -> int:
        return self._written + self._rejected + self._dropped

    def _shed(self) -> None:
        """Drop the oldest lines in memory while there are too many."""
        while self._in_memory > self._pace.memory_points_max and self._memory:
            lost = len(self._memory.popleft())
            self._in_memory -= lost
            self._dropped += lost

    # From memory to disk.

    def _spool_until_stopped(self) -> None:
        synced_s = time.monotonic()
        stopping = False
        while not stopping:
            stopping = self._await_lines()
            try:
                while lines := self._take():
                    self._to_disk(lines)
                if stopping or time.monotonic() - synced_s >= self._pace.linger_s:
                    self._spool.sync()
                    synced_s = time.monotonic()
            except (StoreFailedError, NotPermittedError) as error:
                self._note_disk(error)
            else:
                self._note_disk(None)
        with self._changed:
            if self._in_memory:
                _log.error("%d points are lost, the spool failed: %s", self._in_memory, self._disk_failure)
            self._dropped += self._in_memory
            self._in_memory = 0
            self._memory.clear()
            self._spooling = False
            self._changed.notify_all()

    def _await_lines(self) -> bool:
        """Wait for a batch, or the end of the lingering; whether the outbox is being closed."""
        with self._changed:
            full = self._pace.batch_points
            self._changed.wait_for(
                lambda: (
                    self._stopping
                    or (
                        self._disk_failure is None
                        and (self._in_memory >= full or (self._hurried and self._in_memory > 0))
                    )
                ),
                self._pace.linger_s,
            )
            return self._stopping

    def _take(self) -> list[Sequence[str]]:
        """The oldest lines in memory, about a batch of them, still counted as in memory."""
        taken: list[Sequence[str]] = []
        points = 0
        with self._changed:
            while self._memory and points < self._pace.batch_points:
                taken.append(self._memory.popleft())
                points += len(taken[-1])
            self._hurried = self._hurried and bool(self._memory)
        return taken

    def _to_disk(self, taken: list[Sequence[str]]) -> None:
        lines = [line.encode("utf-8", "replace") for part in taken for line in part]
        for start in range(0, len(lines), self._pace.batch_points):
            part = lines[start : start + self._pace.batch_points]
            try:
                dropped = self._spool.append(_SEPARATOR.join(part), len(part))
            except (StoreFailedError, NotPermittedError):
                rest = [line.decode() for line in lines[start:]]
                with self._changed:
                    self._memory.appendleft(rest)
                    self._shed()
                raise
            with self._changed:
                self._in_memory -= len(part)
                self._on_disk += len(part) - dropped
                self._dropped += dropped
                self._changed.notify_all()

    def _note_disk(self, failure: IaceError | None) -> None:
        with self._changed:
            if failure is not None and self._disk_failure is None:
                _log.warning("telemetry stays in memory, the spool failed: %s", failure)
            self._disk_failure = failure
            self._changed.notify_all()

    # From disk to the server.

    def _send_until_stopped(self) -> None:
        failures = 0
        while self._await_records():
            try:
                batch = self._spool.peek(self._pace.batch_points)
                if batch is not None:
                    self._deliver(batch)
            except Exception as error:  # noqa: BLE001 - a bug here must neither end the thread nor go unseen
                failures += 1
                self._spool.release()
                if not self._pause(error, failures):
                    break
            else:
                failures = 0
                with self._changed:
                    self._send_failure = None
        self._threads[0].join()  # it may have more for the disk
        try:
            self._spool.close()
        except StoreFailedError as error:
            _log.warning("the spool could not be synced: %s", error)

    def _await_records(self) -> bool:
        """Wait until there is something to send; False when the outbox is closed, and its time or its work is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._on_disk > 0 or not self._spooling)
            return self._on_disk > 0 and time.monotonic() < self._deadline_s

    def _deliver(self, batch: Batch) -> None:
        with self._changed:
            self._on_disk -= batch.lost
            self._dropped += batch.lost
        lines = _SEPARATOR.join(batch.records).split(_SEPARATOR) if batch.records else []
        refused = self._send(lines) if lines else ()
        if refused:
            _log.warning("%d of %d points were refused, the first: %s", len(refused), len(lines), refused[0].reason)
            self._dead_letter.add(refused)
        try:
            self._spool.commit()
        finally:  # they were sent, whatever the disk says
            with self._changed:
                self._on_disk -= batch.points
                self._rejected += len(refused)
                self._written += batch.points - len(refused)
                self._changed.notify_all()

    def _pause(self, error: Exception, failures: int) -> bool:
        """Wait before the next attempt, longer after each failure; False when the outbox is closed meanwhile."""
        pace = self._pace
        wait_s = min(pace.backoff_max_s, pace.backoff_min_s * 2.0 ** min(failures - 1, 30))
        wait_s = min(pace.backoff_max_s, max(wait_s, getattr(error, "retry_after_s", 0.0)))
        foreseen = isinstance(error, IaceError)
        with self._changed:
            if self._send_failure is None:
                _log.warning("telemetry is buffered on disk: %s", error, exc_info=None if foreseen else error)
            self._send_failure = error if isinstance(error, IaceError) else StoreFailedError(f"a bug: {error!r}")
            self._changed.notify_all()
            return not self._changed.wait_for(lambda: self._stopping, wait_s)
