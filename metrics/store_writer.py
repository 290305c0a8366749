"""Telemetry into a store, in batches, with exact accounts: points produced = written + rejected + dropped + buffered.

The loop calls `flush_when_due` after each tick. A store that fails costs nothing but patience: its points stay buffered
(bounded, the oldest dropped and counted) and it is tried again, less and less often, as each try may take a moment of
the loop's time. Only who asks with `must_succeed` gets the error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from metrics.errors import IaceError, NotPermittedError, StoreFailedError
from metrics.store.protocol import Point, Store
from metrics.telemetry import Frame, Telemetry

_log = logging.getLogger(f"iace.{__name__}")

NS_PER_S = 1_000_000_000
PATIENCE_MAX_BATCHES = 32
TIDY_EVERY_NS = 60 * NS_PER_S


@dataclass(frozen=True, slots=True)
class StoreAccounts:
    """What became of the points; each is counted by itself, so that a loss would show."""

    produced: int
    written: int
    rejected: int
    dropped: int
    buffered: int

    @property
    def balanced(self) -> bool:
        """Whether every point is accounted for."""
        return self.produced == self.written + self.rejected + self.dropped + self.buffered


class StoreWriter:
    """Writes what `telemetry` publishes into `store`; used by the loop's thread only.

    Args:
        telemetry: the stream to subscribe to.
        store: where the points go; stays the caller's to close.
        capacity: frames that are kept while the store fails.
        batch_frames: frames that make a flush due.
        base_ns: nanoseconds UTC at plant time 0; 0 keeps plant time itself, for runs in virtual time.
        tidy: rolls up and forgets what is old, given the newest time written; called once a minute of that time.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        store: Store,
        *,
        capacity: int = 1800,
        batch_frames: int = 20,
        base_ns: int = 0,
        tidy: Callable[[int], object] | None = None,
    ) -> None:
        self._subscription = telemetry.subscribe(capacity)
        self._store = store
        self._batch_frames = batch_frames
        self._base_ns = base_ns
        self._tidy = tidy
        self._tidied_ns: int | None = None
        self._written = 0
        self._rejected = 0
        self._patience_batches = 1
        self._due_frames = batch_frames  # frames produced at which the next flush is due
        self.failure: IaceError | None = None  # why the last flush failed; None after one that succeeded

    def flush_when_due(self) -> None:
        """Flush once a batch is full; after failures only every 2nd, 4th, ... batch, up to every 32nd."""
        if self._subscription.accounts().produced >= self._due_frames:
            self.flush()

    def flush(self, *, must_succeed: bool = False) -> None:
        """Write all that is buffered, as one batch; on failure it stays buffered.

        Raises:
            StoreFailedError: the store failed, and it must succeed.
            NotPermittedError: likewise, for want of permission.
        """
        frames = self._subscription.drain()
        try:
            result = self._store.write(self._points(frames)) if frames else None
        except (StoreFailedError, NotPermittedError) as error:
            self._subscription.put_back(frames)
            self._wait_longer(error)
            if must_succeed:
                raise
            return
        except BaseException:
            self._subscription.put_back(frames)
            raise
        if result is not None:
            self._written += result.written
            self._rejected += result.rejected
        self.failure, self._patience_batches = None, 1
        self._due_frames = self._subscription.accounts().produced + self._batch_frames
        if frames:
            self._tidy_when_due(self._at_ns(frames[-1]))

    def close(self) -> None:
        """Flush what is left, then take no more; what cannot be written stays counted as buffered.

        Raises:
            StoreFailedError: the store failed.
            NotPermittedError: likewise, for want of permission.
        """
        self._subscription.close()
        self.flush(must_succeed=True)

    def accounts(self) -> StoreAccounts:
        """What became of the points so far."""
        points = self._subscription.point_accounts()
        return StoreAccounts(points.produced, self._written, self._rejected, points.dropped, points.buffered)

    def _points(self, frames: list[Frame]) -> list[Point]:
        return [
            Point(series, at_ns, value)
            for frame in frames
            for at_ns in (self._at_ns(frame),)
            for series, value in frame.points.items()
        ]

    def _at_ns(self, frame: Frame) -> int:
        return self._base_ns + round(frame.plant_time_s * NS_PER_S)

    def _tidy_when_due(self, now_ns: int) -> None:
        """Tidy, or after a failure leave it for a minute: what is old can wait, and the points are written."""
        if self._tidy is None or (self._tidied_ns is not None and abs(now_ns - self._tidied_ns) < TIDY_EVERY_NS):
            return
        self._tidied_ns = now_ns
        try:
            self._tidy(now_ns)
        except (StoreFailedError, NotPermittedError) as error:
            _log.warning("old telemetry stays where it is, the store failed: %s", error)

    def _wait_longer(self, error: IaceError) -> None:
        if self.failure is None:
            _log.warning("telemetry is buffered, the store failed: %s", error)
        self.failure = error
        self._patience_batches = min(2 * self._patience_batches, PATIENCE_MAX_BATCHES)
        produced = self._subscription.accounts().produced
        self._due_frames = produced + self._patience_batches * self._batch_frames
