"""The median of a few or many numbers, without what `numpy.median` costs on top: several times as much at N = 50."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def median(values: NDArray[np.float64]) -> float:
    """The median of at least one number, none of them NaN; `values` is a scratch array that loses its order.

    >>> median(np.array([3.0, 1.0, 2.0, 10.0]))
    2.5
    """
    low, high = (len(values) - 1) // 2, len(values) // 2
    values.partition((low, high))
    return float(values[low] + values[high]) / 2.0
