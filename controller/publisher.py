"""What every tick tells the world: figures and events go to the sinks, the counters, the record and whoever watches."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from controller.meter import Meter
from controller.record import KpiHistory, Recorded, RunRecord
from controller.sinks import Sinks
from metrics.assessment import Assessment
from metrics.observation import NodeId, Observation
from state.event import Event
from state.phase import Phase


class Watcher(Protocol):
    """Somebody who follows the run, for example the console."""

    def tick(self, history: KpiHistory, isolated: Collection[str] = ()) -> None:
        """One tick has been taken in; `isolated` are the nodes that the plant holds out."""
        ...

    def event(self, event: Event) -> None:
        """An event is durable."""
        ...


class Publisher:
    """Feeds the sinks, the counters, the record and the watcher."""

    def __init__(self, sinks: Sinks, watcher: Watcher, record: RunRecord, meter: Meter) -> None:
        self._sinks = sinks
        self._watcher = watcher
        self._record = record
        self._meter = meter

    def tick(self, observation: Observation, assessment: Assessment, phase: Phase) -> None:
        """Publish one tick."""
        self._sinks.tick(observation, assessment, phase)
        self._meter.tick(observation, assessment)
        self._record.history.append(assessment, phase)
        self._record.anomalies.extend(assessment.anomalies)
        self._watcher.tick(self._record.history, _isolated(assessment))

    def event(self, recorded: Recorded) -> None:
        """Tell of an event that has just become durable."""
        self._sinks.event(recorded)
        self._record.events.append(recorded)
        self._meter.event(recorded.event)
        self._watcher.event(recorded.event)


def _isolated(assessment: Assessment) -> list[NodeId]:
    if assessment.topology is None or assessment.active is None:
        return []
    return [assessment.topology.nodes[index] for index in np.flatnonzero(~assessment.active)]
