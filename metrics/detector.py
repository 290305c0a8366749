"""What every streaming anomaly detector offers.

A detector watches K series at once, one value each a tick, and scores how far each is from what it has learnt. It does
not know limits: whether a value is *allowed* is the catalogue's question, whether it is *strange* is the detector's.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class DetectorScores(Protocol):
    """What a detector thinks of one tick; a detector may tell more."""

    @property
    def score(self) -> NDArray[np.float64]:
        """float64[K]: how strange each value is, in the detector's own unit; NaN or 0 where it cannot tell."""
        ...

    @property
    def onset(self) -> NDArray[np.bool_]:
        """bool[K]: an anomaly begins with this value; True once for each anomaly."""
        ...

    def reason(self, index: int, /) -> str:
        """In what respect and how far the value of series `index` is strange, for people."""
        ...


class Detector(Protocol):
    """A streaming detector over K series."""

    def update(self, t: float, values: NDArray[np.float64], /) -> DetectorScores:
        """Score the values float64[K] of time `t` (s, increasing), then learn from them; NaN is no value."""
        ...
