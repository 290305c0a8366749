"""What every tick tells the world: the figures go into the telemetry stream, the events to whoever watches.

Per-node series are bounded: only the worst nodes by |g| and those that are out are published, whatever the size of the
plant. Publishing is bookkeeping in memory; stores drain the stream at their own pace.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from controller.meter import Meter
from controller.record import KpiHistory, Recorded, RunRecord
from metrics.assessment import Assessment
from metrics.observation import NodeId, Observation
from metrics.store_writer import StoreWriter
from metrics.telemetry import Frame, Telemetry
from state.event import Event
from state.phase import Phase

NODE_SERIES_MAX = 100


class Watcher(Protocol):
    """Somebody who follows the run, for example the console."""

    def tick(self, history: KpiHistory, isolated: Collection[str] = ()) -> None:
        """One tick has been taken in; `isolated` are the nodes that the plant holds out."""
        ...

    def event(self, event: Event) -> None:
        """An event is durable."""
        ...


class Publisher:
    """Feeds the stream, the store behind it, the counters and the watcher."""

    def __init__(
        self, telemetry: Telemetry, writer: StoreWriter, watcher: Watcher, record: RunRecord, meter: Meter
    ) -> None:
        self._telemetry = telemetry
        self._writer = writer
        self._watcher = watcher
        self._record = record
        self._meter = meter

    def tick(self, observation: Observation, assessment: Assessment, phase: Phase) -> None:
        """Publish one tick."""
        points = {f"kpi.{name}": verdict.value for name, verdict in assessment.kpis.items()}
        if observation.parameters is not None:
            points |= {f"parameter.{name}": value for name, value in observation.parameters.as_dict().items()}
        points |= _worst_nodes(assessment)
        self._telemetry.publish(Frame(observation.tick, observation.plant_time_s, phase.value, points))
        self._writer.flush_when_due()
        self._meter.tick(observation, assessment)
        self._record.history.append(assessment, phase)
        self._record.anomalies.extend(assessment.anomalies)
        self._watcher.tick(self._record.history, _isolated(assessment))

    def event(self, recorded: Recorded) -> None:
        """Tell of an event that has just become durable."""
        self._record.events.append(recorded)
        self._meter.event(recorded.event)
        self._watcher.event(recorded.event)


def _isolated(assessment: Assessment) -> list[NodeId]:
    if assessment.topology is None or assessment.active is None:
        return []
    return [assessment.topology.nodes[index] for index in np.flatnonzero(~assessment.active)]


def _worst_nodes(assessment: Assessment) -> dict[str, float]:
    reading, topology, active = assessment.reading, assessment.topology, assessment.active
    if reading is None or topology is None or active is None:
        return {}
    chosen = np.arange(len(topology.nodes))
    if len(chosen) > NODE_SERIES_MAX:
        worst = np.argpartition(-reading.gravity, NODE_SERIES_MAX)[:NODE_SERIES_MAX]
        chosen = np.union1d(worst, np.flatnonzero(~active)[:NODE_SERIES_MAX])
    gravity = reading.gravity[chosen].tolist()
    return {f"node.{topology.nodes[i]}.gravity": value for i, value in zip(chosen.tolist(), gravity, strict=True)}
