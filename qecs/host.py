"""Who lets the cluster live, and who may touch it meanwhile? One host: the cluster, its lock, its clock.

A thread steps the cluster once an interval of real time. Everything that reads or changes the cluster does so under
`lock`; what a tick published is immutable and can be used without it. The last ticks are kept in a ring, so that a
client that polls misses none.

A tick that fails (a full disk, say) ends the cluster's life: the host reports itself as failed, goes on answering
reads, and refuses writes, because its state can no longer be trusted to be on record.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Final

from qecs.cluster import TICK_S
from qecs.commits import CommitDesk
from qecs.errors import InvalidRequestError, QecsError
from qecs.fencing import WriteGate

if TYPE_CHECKING:
    from qecs.cluster import Cluster, Snapshot
    from qecs.parameters import Parameters

RING_TICKS_MAX: Final = 512
TTL_MAX_S: Final = 1e9
_RING_BYTES_MAX: Final = 256 * 1024 * 1024

_log = logging.getLogger(f"iace.{__name__}")


class HostFailedError(QecsError):
    """The cluster has stopped living: read why, mend it, and start it again."""


class NotReadyError(QecsError):
    """The cluster has not lived its first tick yet: ask again in a moment."""


@dataclass(frozen=True, slots=True, eq=False)
class TickRecord:
    """One tick as clients see it.

    Attributes:
        snapshot: what the cluster published.
        parameters: the settings that were in force.
        timestamp: wall-clock time of publication, ISO 8601, UTC.
    """

    snapshot: Snapshot
    parameters: Parameters
    timestamp: str


class ClusterHost:
    """A cluster that lives in real time and can be shared between threads.

    Args:
        cluster: from now on touched under `lock` only.
        interval_s: real seconds between ticks.
        allow_faults: whether clients may inject faults.
        ring_ticks: past ticks that are kept for clients that poll; 1 for who takes every tick as it comes.

    Attributes:
        lock: guards `cluster`, `desk`, `gate` and the isolations.
        desk: executes single transactions.
        gate: fences writes.
        failure: why the cluster stopped living, None while it lives.

    Raises:
        InvalidRequestError: the interval is not positive.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        interval_s: float = 1.0,
        allow_faults: bool = False,
        ring_ticks: int = RING_TICKS_MAX,
    ) -> None:
        if not 0.0 < interval_s < math.inf:
            raise InvalidRequestError(f"the interval must be a positive number of seconds, not {interval_s}")
        self.cluster = cluster
        self.interval_s = interval_s
        self.allow_faults = allow_faults
        self.lock = Lock()
        self.desk = CommitDesk(cluster)
        self.gate = WriteGate()
        self.failure: str | None = None
        self._limits_s: dict[str, float] = {}
        self._ring_ticks = ring_ticks
        self._ring: deque[TickRecord] = deque(maxlen=ring_ticks)
        self._stopping = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Let the cluster live from now on, in a thread of its own."""
        self._thread = Thread(target=self._live, name="qecs-ticks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the tick in progress and bring the ledger to disk."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        with self.lock:
            self.cluster.ledger.close()

    def tick(self) -> TickRecord:
        """Let the cluster live one tick now and publish it."""
        with self.lock:
            parameters = self.cluster.parameters
            snapshot = self.cluster.step()
            record = TickRecord(snapshot, parameters, _now())
            self._bound_ring(snapshot)
            self._ring.append(record)
            self._end_isolations(snapshot.time_s)
        return record

    def latest(self) -> TickRecord:
        """Return the latest tick.

        Raises:
            NotReadyError: there was none yet.
        """
        try:
            return self._ring[-1]
        except IndexError:
            raise NotReadyError("no tick has been lived yet") from None

    def after(self, tick: int, limit: int) -> list[TickRecord]:
        """Return up to `limit` of the kept ticks after `tick`, oldest first."""
        with self.lock:
            records = list(self._ring)
        return [record for record in records if record.snapshot.tick > tick][:limit]

    def require_alive(self) -> None:
        """Refuse a write to a cluster that has stopped living.

        Raises:
            HostFailedError: it has.
        """
        if self.failure is not None:
            raise HostFailedError(f"the cluster has stopped: {self.failure}")

    def isolate(self, node: str, ttl_s: float | None) -> dict[str, Any]:
        """Isolate a node; call under the lock.

        Args:
            node: its id.
            ttl_s: plant seconds after which it ends by itself, None for never. The latest request counts, so that
                asking again for an isolated node renews its limit.

        Raises:
            UnknownTargetError: there is no such node.
        """
        changed = self.cluster.isolate(node)
        if ttl_s is None:
            self._limits_s.pop(node, None)
        else:
            self._limits_s[node] = self.cluster.tick * TICK_S + ttl_s
        return self._isolation(node, isolated=True, changed=changed)

    def restore(self, node: str) -> dict[str, Any]:
        """End the isolation of a node; call under the lock.

        Raises:
            UnknownTargetError: there is no such node.
        """
        changed = self.cluster.restore(node)
        self._limits_s.pop(node, None)
        return self._isolation(node, isolated=False, changed=changed)

    def limit_s(self, node: str) -> float | None:
        """Return the plant time at which the node's isolation ends by itself, None if it does not."""
        return self._limits_s.get(node)

    def _isolation(self, node: str, *, isolated: bool, changed: bool) -> dict[str, Any]:
        return {
            "status": "success",
            "node": node,
            "isolated": isolated,
            "changed": changed,
            "until_s": self.limit_s(node),
            "tick": self.cluster.tick,
        }

    def _live(self) -> None:
        next_s = time.monotonic()
        while not self._stopping.wait(max(0.0, next_s - time.monotonic())):
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 # the thread's last resort: whatever it is, the host must say so
                self.failure = f"{type(error).__name__}: {error}"
                _log.exception("the cluster has stopped")
                return
            # A tick that came late is not made up for, since ticks in a burst would be no seconds.
            next_s = max(next_s + self.interval_s, time.monotonic())

    def _end_isolations(self, now_s: float) -> None:
        for node in [node for node, limit_s in self._limits_s.items() if limit_s <= now_s]:
            del self._limits_s[node]
            self.cluster.restore(node)

    def _bound_ring(self, snapshot: Snapshot) -> None:
        """Keep fewer ticks of a huge cluster, decided by the size of its first one."""
        if self._ring:
            return
        size = sum(signal.nbytes for signal in snapshot.signals.values())
        self._ring = deque(maxlen=max(1, min(self._ring_ticks, _RING_BYTES_MAX // max(size, 1))))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
