"""A recorded plant that can be acted upon in shadow: what was done to it is remembered, the recording cannot react.

An isolated node is shown as out of service until it is restored or its time limit is over; its evidence goes on as it
was recorded. Parameters that are applied are shown as in force; the KPIs are those of the recording. So it tells what
a policy would have decided, never what the plant would have made of it.

It is no `Plant`: nothing here has phases, a ledger or signals that could be checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controller.recording import Recording
from metrics.observation import PARAMETER_BOUNDS, Capability, Observation, Parameters, Topology
from state.action import Action, ApplyParameters, IsolateNode, Reply, RestoreNode
from state.stimulus import Replied

CLUSTER = "recorded"


class Replay:
    """The rows of a recording as observations, and what has been done to its nodes.

    Attributes:
        topology: all nodes in one cluster, as recordings name none; None where no node was recorded.
        capabilities: nodes can be isolated where there are any, parameters changed where all of them were recorded.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._out: dict[str, float] = {}
        self._applied: Parameters | None = None
        self.now_s = 0.0
        nodes = recording.nodes
        self.topology = Topology(nodes, (CLUSTER,), np.zeros(len(nodes), np.int32)) if nodes else None
        offered = {Capability.NODES, Capability.ISOLATE} if nodes else set()
        if recording.parameters.keys() == PARAMETER_BOUNDS.keys():
            offered.add(Capability.PARAMETERS)
        self.capabilities = frozenset(offered)

    def observe(self, row: int) -> Observation:
        """Row `row` of the recording, the time at which time limits are looked at."""
        held = self._recording
        self.now_s = float(held.times_s[row])
        self._out = {node: until_s for node, until_s in self._out.items() if until_s > self.now_s}
        return Observation(
            tick=row,
            plant_time_s=self.now_s,
            received_s=self.now_s,
            kpis={name: float(series[row]) for name, series in held.kpis.items()},
            parameters=self._parameters(row),
        )

    def active(self) -> NDArray[np.bool_]:
        """bool[N], False where a node has been taken out."""
        return np.array([node not in self._out for node in self._recording.nodes], dtype=np.bool_)

    def carry_out(self, action: Action) -> Replied:
        """Do it in shadow; it always succeeds."""
        match action:
            case IsolateNode(node=node, ttl_s=ttl_s):
                self._out[node] = self.now_s + ttl_s
            case RestoreNode(node=node):
                self._out.pop(node, None)
            case ApplyParameters(parameters=parameters):
                self._applied = parameters
        return Replied(action.key, Reply.APPLIED, "", self.now_s)

    def _parameters(self, row: int) -> Parameters | None:
        if Capability.PARAMETERS not in self.capabilities:
            return None
        recorded = {name: float(series[row]) for name, series in self._recording.parameters.items()}
        if not all(np.isfinite(value) for value in recorded.values()):
            return None
        return self._applied or Parameters(**recorded)
