"""A recording as a plant that can only be observed: one recorded moment a tick, in virtual time.

It offers what a recording has: KPIs and parameters as they were, and the nodes where all of their signals were
recorded. Nothing in it can be acted upon, it takes no transactions and shows no ledger; the checks that need those are
skipped. Its ticks are numbered by the usual step between its times, so that a gap in the recording is a gap here.
The shadow in which a backtest acts is another thing, see `replay.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from controller.clock import VirtualClock
from controller.plants.plant import CommitAnswer, LedgerState, PlantInfo
from controller.plants.replay import CLUSTER
from controller.recording import Recording
from metrics.errors import BadDataError, RecordingEndedError, UnsupportedError
from metrics.observation import (
    PARAMETER_BOUNDS,
    SIGNAL_NAMES,
    Capability,
    NodeId,
    NodeSignals,
    Observation,
    Parameters,
    Topology,
)

ACTIVE = "active"  # the one signal that may be missing: a node without it takes part


class RecordedPlant:
    """What was recorded, observed once from its beginning to its end; implements `Plant`.

    Args:
        recording: what is observed.
        clock: is advanced to the recorded time with every tick.
    """

    def __init__(self, recording: Recording, *, clock: VirtualClock) -> None:
        self._recording = recording
        self._clock = clock
        self._ticks = _numbered(recording.times_s)
        self._row = 0
        self._column = {name: i for i, name in enumerate(recording.metrics)}
        shown = set(SIGNAL_NAMES) - {ACTIVE} <= self._column.keys()
        nodes = recording.nodes
        self._topology = Topology(nodes, (CLUSTER,), np.zeros(len(nodes), np.int32)) if nodes and shown else None
        self._info = PlantInfo(
            name="replay",
            system=f"recording {recording.source}",
            capabilities=frozenset() if self._topology is None else frozenset({Capability.NODES}),
            seed=None,
            real_time=False,
            interval_s=0.0,
        )

    @property
    def info(self) -> PlantInfo:
        """What was recorded."""
        return self._info

    def connect(self, deadline_s: float) -> PlantInfo:
        """There is nothing to be reached."""
        del deadline_s
        return self._info

    def epoch_seen(self, deadline_s: float) -> int:
        """Nobody has acted on a recording."""
        del deadline_s
        return 0

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """The next recorded moment.

        Raises:
            RecordingEndedError: there is none.
        """
        del deadline_s
        row = self._row
        if row >= len(self._ticks):
            raise RecordingEndedError(f"the recording ended after {row} ticks")
        self._row += 1
        held = self._recording
        now_s = float(held.times_s[row])
        self._clock.advance_to(now_s)
        return (
            Observation(
                tick=self._ticks[row],
                plant_time_s=now_s,
                received_s=self._clock.monotonic_s(),
                kpis={name: float(series[row]) for name, series in held.kpis.items()},
                topology=self._topology,
                signals=None if self._topology is None else self._signals(row),
                parameters=self._parameters(row),
            ),
        )

    def isolated(self) -> frozenset[NodeId]:
        """Not offered."""
        _refuse(Capability.ISOLATE)

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Not offered."""
        del node, key, epoch, ttl_s
        _refuse(Capability.ISOLATE)

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Not offered."""
        del node, key, epoch
        _refuse(Capability.ISOLATE)

    def parameters(self) -> Parameters:
        """Not offered: what was recorded stands in the observations."""
        _refuse(Capability.PARAMETERS)

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Not offered."""
        del parameters, key, epoch
        _refuse(Capability.PARAMETERS)

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Not offered."""
        del fault, key, epoch
        _refuse(Capability.FAULTS)

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """Not offered."""
        del fault_id, key, epoch
        _refuse(Capability.FAULTS)

    def ledger(self) -> LedgerState:
        """Not offered."""
        _refuse(Capability.LEDGER)

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Not offered."""
        del start, limit
        _refuse(Capability.LEDGER)

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Not offered."""
        del transaction
        _refuse(Capability.COMMIT)

    def balance(self, account: str) -> int:
        """Not offered."""
        del account
        _refuse(Capability.LEDGER)

    def close(self) -> None:
        """Nothing to let go of."""

    def _signals(self, row: int) -> NodeSignals:
        values = self._recording.values[row]
        known = {name: values[:, self._column[name]] for name in SIGNAL_NAMES if name != ACTIVE}
        active = np.ones(len(values), np.bool_)
        if ACTIVE in self._column:
            active = values[:, self._column[ACTIVE]] != 0.0  # what was not recorded is not known to be out
        return NodeSignals(**known, active=active)

    def _parameters(self, row: int) -> Parameters | None:
        recorded = {name: float(series[row]) for name, series in self._recording.parameters.items()}
        if recorded.keys() != PARAMETER_BOUNDS.keys() or not all(map(math.isfinite, recorded.values())):
            return None
        try:
            return Parameters.parse(recorded)
        except BadDataError:
            return None  # what is beyond its bounds was never in force


def _numbered(times_s: NDArray[np.float64]) -> list[int]:
    """The tick of each recorded moment: 1 and up by the usual step, and never the same twice."""
    usual_s = float(np.median(np.diff(times_s))) if times_s.size > 1 else 1.0
    ticks: list[int] = []
    for wanted in np.rint((times_s - times_s[0]) / usual_s).astype(np.int64).tolist():
        ticks.append(max(1 + wanted, ticks[-1] + 1 if ticks else 1))
    return ticks


def _refuse(capability: Capability) -> NoReturn:
    raise UnsupportedError(capability)
