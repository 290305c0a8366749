"""How does everybody who looks on get every tick? Server-sent events out of one ring, encoded once for all.

One thread takes the frames off the telemetry stream, encodes each, keeps the latest in a ring and hands it to the
subscribers. Nobody is waited for: a subscriber whose queue is full is dropped, counted, and its connection broken, so
that the thread which may be stuck in writing to it is free again. Its client comes back with `Last-Event-ID` and gets
what the ring still holds.

The id of an event is the plant's tick, which outlives a restart of the daemon. A plant that begins again at a lower
tick empties the ring. An id beyond the newest is not known here and gets all that the ring holds.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from metrics.telemetry import Frame, Telemetry

RING_TICKS = 512
QUEUE_TICKS = 64  # a subscriber that is further behind than that is slow
HEARTBEAT_S = 15.0
RETRY_MS = 2000
_SOURCE_FRAMES = 64
_GREETING = f"retry: {RETRY_MS}\n\n".encode()
_HEARTBEAT = b": heartbeat\n\n"


class FullError(Exception):
    """There are as many subscribers as are allowed."""


@dataclass(frozen=True, slots=True)
class Event:
    """One tick, as it goes over the line."""

    tick: int
    data: bytes


class Subscriber:
    """One client's queue: an iterator over the bytes of its response, which `close` ends from any thread."""

    def __init__(self, hub: StreamHub, missed: list[Event], abort: Callable[[], None] | None) -> None:
        self._hub = hub
        self._abort = abort
        self._waiting: deque[bytes] = deque([_GREETING, *(event.data for event in missed)])
        self._room = QUEUE_TICKS + len(self._waiting)
        self._changed = threading.Condition()
        self._closed = False

    def offer(self, event: Event) -> bool:
        """Queue an event; False where there is no room for it, or nobody who reads."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._room:
                return False
            self._waiting.append(event.data)
            self._changed.notify()
            return True

    def drop(self) -> None:
        """Give the client up, and break its connection."""
        self._end()
        if self._abort is not None:
            self._abort()

    def finish(self) -> None:
        """End the response in good order."""
        self._end()

    def close(self) -> None:
        """The response has ended, whoever ended it; WSGI calls this."""
        self._end()
        self._hub.leave(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, HEARTBEAT_S)
            if self._closed:
                raise StopIteration
            if not self._waiting:
                return _HEARTBEAT
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._room = QUEUE_TICKS
            return data

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()


class StreamHub:
    """The ring and its subscribers.

    Args:
        telemetry: where the frames come from.
        encode: a frame as JSON on one line.
        subscribers_max: how many there may be at once.
    """

    def __init__(self, telemetry: Telemetry, encode: Callable[[Frame], str], subscribers_max: int) -> None:
        self._telemetry = telemetry
        self._encode = encode
        self._subscribers_max = subscribers_max
        self._lock = threading.Lock()
        self._ring: deque[Event] = deque(maxlen=RING_TICKS)
        self._subscribers: set[Subscriber] = set()
        self._dropped = 0
        self._source = telemetry.subscribe(_SOURCE_FRAMES)
        self._thread = threading.Thread(target=self._run, name="iace-api-stream", daemon=True)
        self._stopped = False

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self._subscribers)

    @property
    def dropped(self) -> int:
        """How many were too slow so far."""
        return self._dropped

    def start(self) -> None:
        """Begin to take frames."""
        self._thread.start()

    def stop(self) -> None:
        """End all responses, and take no more frames or subscribers."""
        self._stopped = True
        self._source.close()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)
        with self._lock:
            for subscriber in self._subscribers:
                subscriber.finish()

    def subscribe(self, last_id: int | None = None, abort: Callable[[], None] | None = None) -> Subscriber:
        """A new subscriber, which first gets what it missed.

        Args:
            last_id: the last event that the client has; None for one that is new, which begins with the latest.
            abort: breaks its connection.

        Raises:
            FullError: there is no room.
        """
        with self._lock:
            if self._stopped or len(self._subscribers) >= self._subscribers_max:
                raise FullError
            subscriber = Subscriber(self, self._missed(last_id), abort)
            self._subscribers.add(subscriber)
            return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; forgetting it twice is fine."""
        with self._lock:
            self._subscribers.discard(subscriber)

    def _missed(self, last_id: int | None) -> list[Event]:
        if last_id is None or not self._ring:
            return list(self._ring)[-1:]
        if last_id > self._ring[-1].tick:
            return list(self._ring)
        return [event for event in self._ring if event.tick > last_id]

    def _run(self) -> None:
        latest = self._telemetry.last
        if latest is not None:
            self._take(latest)
        for frame in self._source:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        event = Event(frame.tick, f"id: {frame.tick}\ndata: {self._encode(frame)}\n\n".encode())
        with self._lock:
            newest = self._ring[-1].tick if self._ring else None
            if event.tick == newest:
                return
            if newest is not None and event.tick < newest:
                self._ring.clear()
            self._ring.append(event)
            slow = [subscriber for subscriber in self._subscribers if not subscriber.offer(event)]
            self._subscribers.difference_update(slow)
            self._dropped += len(slow)
        for subscriber in slow:
            subscriber.drop()
