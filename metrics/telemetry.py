"""The telemetry stream: every tick's figures, handed to whoever subscribed, none of whom can delay the loop.

A subscription has a bounded queue. `publish` appends and returns; where a queue is full its oldest frame goes, counted.
So the accounts of a subscription balance at any instant: produced = delivered + dropped + buffered, in frames and in
points. The store is fed by a subscription like any other, see `store_writer.py`.

Thread-safe: one thread publishes, any number subscribe. Left out: what the figures mean.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What one tick tells the world.

    Attributes:
        tick: the plant's tick.
        plant_time_s: the plant's time, s.
        state: the governor's state.
        points: series name to value, such as "kpi.coherence", "parameter.lambda1", "node.<id>.gravity"; may be NaN.
    """

    tick: int
    plant_time_s: float
    state: str
    points: Mapping[str, float]

    def __post_init__(self) -> None:
        if not math.isfinite(self.plant_time_s):
            raise ValueError(f"tick {self.tick}: plant_time_s must be finite, not {self.plant_time_s}")


@dataclass(frozen=True, slots=True)
class Accounts:
    """What became of what was produced; each is counted by itself, so that a loss would show."""

    produced: int
    delivered: int
    dropped: int
    buffered: int

    @property
    def balanced(self) -> bool:
        """Whether every frame is accounted for."""
        return self.produced == self.delivered + self.dropped + self.buffered


class Subscription:
    """The receiving end: a bounded queue of frames, for one consumer."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a subscription needs room for at least one frame, not {capacity}")
        self._capacity = capacity
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._produced, self._delivered, self._dropped = _Count(), _Count(), _Count()

    @property
    def closed(self) -> bool:
        """Whether no more frames will come; those that are buffered can still be taken."""
        return self._closed

    def offer(self, frame: Frame) -> None:
        """Append a frame; the oldest goes if there is no room. A closed subscription takes nothing."""
        with self._changed:
            if not self._closed:
                self._produced.add(frame)
                self._frames.append(frame)
                self._shed()
                self._changed.notify()

    def drain(self) -> list[Frame]:
        """All buffered frames, oldest first, without waiting."""
        with self._changed:
            frames = list(self._frames)
            self._frames.clear()
            for frame in frames:
                self._delivered.add(frame)
            return frames

    def get(self, timeout_s: float | None = None) -> Frame | None:
        """The oldest frame, waiting up to `timeout_s` for one (None: until closed); None if there was none."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed, timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._delivered.add(frame)
            return frame

    def put_back(self, frames: Sequence[Frame]) -> None:
        """Undo the delivery of the frames that were drained last; the oldest go where there is no room."""
        with self._changed:
            self._frames.extendleft(reversed(frames))
            for frame in frames:
                self._delivered.remove(frame)
            self._shed()

    def close(self) -> None:
        """Take no more frames, and end the iteration once the buffered ones are taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def accounts(self) -> Accounts:
        """What became of the frames."""
        with self._changed:
            return Accounts(
                self._produced.frames, self._delivered.frames, self._dropped.frames, buffered=len(self._frames)
            )

    def point_accounts(self) -> Accounts:
        """What became of the points within the frames."""
        with self._changed:
            buffered = sum(len(frame.points) for frame in self._frames)
            return Accounts(self._produced.points, self._delivered.points, self._dropped.points, buffered)

    def __iter__(self) -> Iterator[Frame]:
        """Frames as they come, until the subscription is closed and empty."""
        while (frame := self.get()) is not None:
            yield frame

    def _shed(self) -> None:
        while len(self._frames) > self._capacity:
            self._dropped.add(self._frames.popleft())


class Telemetry:
    """The publishing end of the stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._last: Frame | None = None

    @property
    def last(self) -> Frame | None:
        """The newest frame, None before the first."""
        return self._last

    @property
    def subscribers(self) -> int:
        """How many subscriptions are open."""
        return sum(not subscription.closed for subscription in self._subscriptions)

    def publish(self, frame: Frame) -> None:
        """Hand `frame` to every open subscription; waits for none of them."""
        self._last = frame
        for subscription in self._subscriptions:
            subscription.offer(frame)

    def subscribe(self, capacity: int) -> Subscription:
        """A new subscription with room for `capacity` frames, from the next frame on; closed ones are forgotten.

        Raises:
            ValueError: `capacity` is not positive.
        """
        subscription = Subscription(capacity)
        with self._lock:
            still_open = [item for item in self._subscriptions if not item.closed]
            self._subscriptions = (*still_open, subscription)
        return subscription

    def close(self) -> None:
        """Close every subscription: their iterations end once they are drained."""
        for subscription in self._subscriptions:
            subscription.close()


class _Count:
    """A number of frames and of the points in them."""

    def __init__(self) -> None:
        self.frames = 0
        self.points = 0

    def add(self, frame: Frame) -> None:
        self.frames += 1
        self.points += len(frame.points)

    def remove(self, frame: Frame) -> None:
        self.frames -= 1
        self.points -= len(frame.points)
