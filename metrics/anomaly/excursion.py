"""Since when is a series out of its limits, and is this an incident or a new level?

An excursion begins with the first clear evidence and ends after more than ten rows without. One that stays on one side
for ``lasting_rows`` is a level shift: the limits are already walking after it, and it will end as the new normal.

Assumptions: a level shift is one-sided; an incident ends or swings back within ``lasting_rows``.
Leaves out: shifts so small that the limits absorb them sooner; they were news at their onset and nothing after it.
"""

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.config import DetectorConfig
from metrics.anomaly.persistent import Persistent

Floats = NDArray[np.float64]

_GAP_ROWS = 10.0
_ONE_SIDED = 0.75  # net share of the excursion's rows that must lie on one side


class Excursions(Persistent):
    """The present excursion of every series."""

    def __init__(self, series: int, config: DetectorConfig) -> None:
        self._lasting_rows = config.lasting_rows
        self.since = np.full(series, np.nan)
        self.first_row = np.zeros(series)
        self.last_row = np.full(series, -np.inf)
        self.side = np.zeros(series)

    def update(self, at: NDArray[np.intp], side: Floats, rows: Floats, t: Floats) -> None:
        """Takes the series ``at`` that show clear evidence in this row.

        Args:
            at: their indices, ``(m,)``.
            side: +1 above, -1 below their location, ``(m,)``.
            rows: their rows so far, ``(m,)``.
            t: their times in seconds, ``(m,)``.
        """
        begins = rows - self.last_row[at] > _GAP_ROWS
        new = at[begins]
        self.since[new], self.first_row[new], self.side[new] = t[begins], rows[begins], 0.0
        self.side[at] += side
        self.last_row[at] = rows

    def present(self, rows: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Since when, in seconds, each series' excursion lasts (NaN without one), and whether it is a level shift."""
        inside = rows - self.last_row > _GAP_ROWS
        age = self.last_row - self.first_row + 1.0
        shift = ~inside & (age >= self._lasting_rows) & (np.abs(self.side) >= _ONE_SIDED * age)
        return np.where(inside, np.nan, self.since), shift
