"""How does the detector look to a scorer of nodes? One strength a node, from all its metrics."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.detector import StreamingDetector
from metrics.anomaly.verdict import strangeness, strength

Floats = NDArray[np.float64]


def factory(nodes: int, metrics: int) -> Callable[[float, Floats], Floats]:
    """A fresh detector as ``step(t, X[nodes, metrics]) -> score[nodes]``, in effective deviations."""
    detector = StreamingDetector(nodes * metrics)

    def step(t: float, x: Floats) -> Floats:
        return strength(strangeness(detector.update(t, x.ravel()), metrics))

    return step
