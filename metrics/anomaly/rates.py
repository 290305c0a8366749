"""How fast may each series learn from this row? Means start as plain averages and end as forgetting ones.

A rate is one over the rows seen so far, but at least the rate of its purpose, and nothing where no value came. Once all
series are old enough and none is missing, one number serves them all, which is the usual case and the cheap one.

Assumptions: a row is a row, however long after the last one it came.
Leaves out: learning by the clock, which only the profiles of day and week need.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Rates:
    """Learning rates of one row.

    Attributes:
        rows: rows of each series so far, this one included where it came, ``(series,)``.
        seen: whether a value came, ``(series,)``.
        complete: whether all came.
    """

    def __init__(self, rows: Floats, seen: NDArray[np.bool_]) -> None:
        self.rows = rows
        self.seen = seen
        self.complete = bool(seen.all())
        self._average = seen / np.maximum(rows, 1.0)
        self._fastest = float(self._average.max(initial=0.0))

    def at_least(self, rate: float) -> Floats | float:
        """The larger of ``rate`` and that of a plain average; 0 where no value came."""
        if self.complete and self._fastest <= rate:
            return rate
        rates: Floats = np.maximum(self._average, rate * self.seen)
        return rates

    def younger(self, rows: int) -> NDArray[np.bool_] | None:
        """Which series that came have at most ``rows`` rows, ``(series,)``; None if there are none."""
        if self._fastest * rows < 1.0:
            return None
        return self.seen & (self.rows <= rows)
