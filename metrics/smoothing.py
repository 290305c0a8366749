"""Exponential moving averages that survive gaps: x̄ += (x − x̄)/τ a tick, EWMA_τ in docs/model.md section 1."""

from __future__ import annotations

import math


def gap_weight(gap_ticks: int, tau_ticks: float) -> float:
    """What one value weighs after a gap of that many ticks: as much as if every tick of it had brought this value."""
    return 1.0 - (1.0 - 1.0 / tau_ticks) ** gap_ticks


class Ewma:
    """The moving average of one figure; NaN until the first finite value, which it starts from.

    >>> average = Ewma(tau_ticks=2.0)
    >>> average.update(1.0), average.update(math.nan), average.update(2.0)
    (1.0, 1.0, 1.5)
    """

    def __init__(self, tau_ticks: float) -> None:
        self._tau_ticks = tau_ticks
        self.value = math.nan

    def update(self, value: float, gap_ticks: int = 1) -> float:
        """Move towards `value`, seen `gap_ticks` after the last one; a value that is not finite moves nothing."""
        if math.isfinite(value):
            if math.isnan(self.value):
                self.value = value
            else:
                self.value += gap_weight(gap_ticks, self._tau_ticks) * (value - self.value)
        return self.value
