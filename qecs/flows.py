"""What one tick moved: the aggregates that the ledger records and from which it can be audited.

Conservation, per node: `balance' = balance - paid + received + emitted`; over all nodes
`sum(received) = sum(paid) - sum(burned)`. Hence `supply' = supply + emission - burn`, exactly, in integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EmissionInputs:
    """The values from which the tick's emission follows, kept so that anybody can recompute it.

    Attributes:
        coherence_30: C_30, the 30-tick moving average of coherence.
        gas_target: GT, the slow target of coherence.
        supply_genesis: S0, tokens.
        alpha: the CAF gain α.
        carry: fraction of a token wanted but not minted so far (before this tick).
    """

    coherence_30: float
    gas_target: float
    supply_genesis: int
    alpha: float
    carry: float


@dataclass(frozen=True, slots=True)
class TickFlows:
    """Flows of one tick, one int64 entry a node.

    Attributes:
        tick: the tick that produced them.
        committed: transactions committed.
        paid: tokens debited (1000 a commit).
        received: tokens credited as payments.
        emitted: tokens minted by the CAF.
        burned: tokens burned (5 a commit).
        inputs: what the emission was computed from.
    """

    tick: int
    committed: NDArray[np.int64]
    paid: NDArray[np.int64]
    received: NDArray[np.int64]
    emitted: NDArray[np.int64]
    burned: NDArray[np.int64]
    inputs: EmissionInputs
