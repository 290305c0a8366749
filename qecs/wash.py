"""What does wash trading do? Nodes pay themselves in valid transactions, beyond any demand.

Supply, burn and emission stay exact, since each of these transactions pays its fee. What gives it away is the entropy
of the commits' shares. Their activity is kept apart, because it earns no payments: those go to who serves others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qecs.transactions import ACTIVITY_TICKS, AMOUNT

if TYPE_CHECKING:
    from qecs.effects import Effects
    from qecs.standing import Standing

_FORGOTTEN: Final = 1e-6


class WashTrading:
    """The self-paid transactions of all nodes.

    Attributes:
        activity: float64, shape (N,): EWMA_30 of the self-paid commits, or None while there is nothing to remember.
    """

    def __init__(self) -> None:
        self.activity: NDArray[np.float64] | None = None

    def step(
        self, balances: NDArray[np.int64], commits: NDArray[np.int64], standing: Standing, effects: Effects
    ) -> NDArray[np.int64] | None:
        """Self-paid transactions of this tick, within what each node can pay: int64, shape (N,), or None without any.

        Args:
            balances: int64, shape (N,), tokens at the start of the tick.
            commits: int64, shape (N,): what has already been committed in this tick.
            standing: isolated nodes trade with nobody, not even themselves.
            effects: how many each node attempts.
        """
        if effects.wash is None:
            self._remember(0.0)
            return None
        affordable = balances // AMOUNT - commits
        trades: NDArray[np.int64] = np.minimum(
            (effects.wash * standing.active).astype(np.int64), np.maximum(affordable, 0)
        )
        self._remember(trades)
        return trades

    def _remember(self, trades: NDArray[np.int64] | float) -> None:
        if self.activity is None:
            if isinstance(trades, float):
                return
            self.activity = np.zeros(trades.shape)
        self.activity += (trades - self.activity) / ACTIVITY_TICKS
        if isinstance(trades, float) and float(self.activity.max()) < _FORGOTTEN:
            self.activity = None
