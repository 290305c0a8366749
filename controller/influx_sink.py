"""What a run tells InfluxDB: every KPI, parameter and node of each tick, and every journaled event.

Handing over is all that happens here; spooling, sending and trying again are the store's, in threads of its own. So a
server that is slow or away neither delays a tick nor fails a run.

Plant time becomes time of day by an anchor. Events of one tick share its time: each is placed its number in the journal
later, in nanoseconds, so that they stay apart, in order, and are not taken for one another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from controller.clock import utc_ns
from controller.influx import target
from controller.node_series import STATUSES, statuses
from controller.record import Recorded
from controller.settings import Config
from controller.wording import sentence
from metrics.assessment import Assessment
from metrics.observation import SIGNAL_NAMES, Observation, Topology
from metrics.store.influx import InfluxStore
from metrics.store.outbox import Pace
from metrics.store.protocol import Point
from metrics.store_writer import NS_PER_S, StoreAccounts
from state.durable import DurableState
from state.view import view

DIRECTORY = "influxdb"  # in the data directory: what could not be sent waits there for the next run
CLOSE_S = 5.0
LATE_MAX_NS = 60 * NS_PER_S
_SEQ_NS_MAX = 1_000_000
_BYTES_A_MIB = 2**20

_log = logging.getLogger(f"iace.{__name__}")


class Anchor:
    """Turns plant time into nanoseconds UTC.

    Where no base is given, plant time 0 is put where it makes the first tick happen now. It is put there anew where the
    plant began afresh, or has come to lie more than a minute behind the wall: never back, which would overwrite.

    Args:
        base_ns: nanoseconds UTC at plant time 0, or None.
        wall_ns: the wall clock.
    """

    def __init__(self, base_ns: int | None, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._base_ns = base_ns
        self._fixed = base_ns is not None
        self._wall_ns = wall_ns
        self._last_s = 0.0

    def tick(self, plant_time_s: float) -> int:
        """The time of a tick that has just been received."""
        if not self._fixed:
            wanted_ns = self._wall_ns() - round(plant_time_s * NS_PER_S)
            afresh = self._base_ns is None or plant_time_s < self._last_s
            if self._base_ns is None or afresh or wanted_ns - self._base_ns > LATE_MAX_NS:
                self._base_ns = wanted_ns
            self._last_s = plant_time_s
        return self.at_ns(plant_time_s)

    def at_ns(self, plant_time_s: float) -> int:
        """The time of something else; before the first tick plant time says nothing, and it is now."""
        return self._wall_ns() if self._base_ns is None else self._base_ns + round(plant_time_s * NS_PER_S)


class InfluxSink:
    """Hands ticks and events over to `store`, which it closes in the end; for the loop's thread alone.

    Args:
        store: where they go.
        anchor: gives them their times.
        clusters: filled with the cluster of each node, for the store to look up.
        state: the governor's, for where the nodes stand and in which state events happen.
        gravity_critical: |g| beyond which a node is suspect.
    """

    def __init__(
        self,
        store: InfluxStore,
        anchor: Anchor,
        clusters: dict[str, str],
        state: DurableState,
        gravity_critical: float,
    ) -> None:
        self._store = store
        self._anchor = anchor
        self._clusters = clusters
        self._state = state
        self._gravity_critical = gravity_critical
        self._topology: Topology | None = None

    def tick(self, observation: Observation, assessment: Assessment, points: Mapping[str, float]) -> None:
        """Hand one tick over: `points` as they are, and every node with |g|, all signals and its status."""
        at_ns = self._anchor.tick(observation.plant_time_s)
        self._store.write(Point(series, at_ns, value) for series, value in points.items())
        seen = view(assessment)
        if seen is None or observation.signals is None:
            return
        topology = seen.topology
        if topology is not self._topology:
            named = zip(topology.nodes, topology.cluster_of.tolist(), strict=True)
            self._clusters.update((node, topology.clusters[cluster]) for node, cluster in named)
            self._topology = topology
        signals = {"gravity": seen.reading.gravity.tolist()}
        signals |= {name: getattr(observation.signals, name).tolist() for name in SIGNAL_NAMES}
        standing = statuses(seen, self._state, self._gravity_critical).tolist()
        self._store.write_nodes(signals, topology.nodes, (STATUSES[code].value for code in standing), at_ns)

    def event(self, recorded: Recorded) -> None:
        """Hand over an event that is durable."""
        event = recorded.event
        self._store.write_event(
            kind=event.kind.value,
            state=self._state.phase.value,
            text=sentence(event),
            seq=recorded.seq,
            at_ns=self._anchor.at_ns(event.at_s) + recorded.seq % _SEQ_NS_MAX,
        )

    def accounts(self) -> StoreAccounts:
        """What became of the points so far."""
        return self._store.accounts()

    def close(self) -> None:
        """Send what can be sent within a few seconds; what is left waits on disk."""
        self._store.close(CLOSE_S)
        waiting = self._store.accounts().buffered
        if waiting:
            _log.warning(
                "%d points wait on disk for InfluxDB, the next run with this data directory sends them", waiting
            )


def open_sink(
    config: Config, data_dir: Path, *, plant: str, run: str, real_time: bool, state: DurableState
) -> InfluxSink | None:
    """The sink that the configuration asks for; None for a virtual run without a base time.

    Raises:
        ConfigInvalidError: a file that `[influxdb]` names cannot be used.
        StoreFailedError: the spool cannot be used.
        NotPermittedError: the operating system forbids it.
    """
    settings = config.influxdb
    if settings.base_time is None and not real_time:
        _log.info(
            "nothing goes to InfluxDB: a run in virtual time has no time of day unless influxdb.base_time gives it"
        )
        return None
    clusters: dict[str, str] = {}
    store = InfluxStore(
        target(config),
        data_dir / DIRECTORY,
        plant=plant,
        run=run,
        cluster_of=lambda node: clusters.get(node, ""),
        spool_bytes_max=settings.spool_mib * _BYTES_A_MIB,
        pace=Pace(batch_points=settings.batch_points, linger_s=settings.linger_s),
    )
    anchor = Anchor(None if settings.base_time is None else utc_ns(settings.base_time))
    return InfluxSink(store, anchor, clusters, state, config.gravity.critical)
