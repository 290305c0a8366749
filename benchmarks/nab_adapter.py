"""How does the detector look to a scorer of single series? All series in lockstep, one score a row."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.detector import StreamingDetector

Floats = NDArray[np.float64]


def factory(n: int) -> Callable[[Floats, Floats], Floats]:
    """A fresh detector of ``n`` series as ``step(ts[n], x[n]) -> score[n]``: news only, so one event scores once."""
    detector = StreamingDetector(n)

    def step(ts: Floats, x: Floats) -> Floats:
        return detector.update(ts, x).news

    return step
