"""The nodes of one tick, where there are any: the part of an assessment that node governance looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.assessment import Assessment
from metrics.gravity import FieldReading
from metrics.observation import Topology


@dataclass(frozen=True, slots=True, eq=False)
class NodeView:
    """What one tick shows of the nodes.

    Attributes:
        topology: which nodes there are.
        reading: the gravity field.
        active: bool[N], nodes that the plant does not hold isolated.
        received_s: the controller's monotonic time of receipt.
    """

    topology: Topology
    reading: FieldReading
    active: NDArray[np.bool_]
    received_s: float

    def assessed(self) -> NDArray[np.bool_]:
        """bool[N], active nodes with trusted evidence in this tick."""
        assessed: NDArray[np.bool_] = self.active & self.reading.trusted
        return assessed

    def shown_active(self, node: str) -> bool | None:
        """Whether the plant shows `node` taking part; None for a node that is not there any more."""
        index = self.topology.index.get(node)
        return None if index is None else bool(self.active[index])


def view(assessment: Assessment) -> NodeView | None:
    """The nodes of a tick, or None for a plant that shows none."""
    if assessment.reading is None or assessment.topology is None or assessment.active is None:
        return None
    return NodeView(assessment.topology, assessment.reading, assessment.active, assessment.received_s)
