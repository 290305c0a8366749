"""What may each node do at the moment, given who is isolated and which faults are active?

Recomputed only when one of the two changes, since it costs several passes over all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qecs.effects import Effects
    from qecs.membership import Membership

ATTEMPTS_MAX: Final = 36
"""Transactions that a healthy node can attempt in a second."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What each node may do, shape (N,) each.

    Attributes:
        active: float64: w, 0 while isolated, else 1.
        weight: float64: w·a, the node's weight in the mean fields.
        eligible: float64: w·[a > 0], 1 for nodes that may receive payments and emission, else 0.
        eligible_nodes: int64, shape (k,): indices of those nodes.
        attempts_max: int64: attempts in a second, 0 while silent or isolated.
        active_nodes: number of active nodes, n.
    """

    active: NDArray[np.float64]
    weight: NDArray[np.float64]
    eligible: NDArray[np.float64]
    eligible_nodes: NDArray[np.int64]
    attempts_max: NDArray[np.int64]
    active_nodes: int

    @classmethod
    def of(cls, membership: Membership, effects: Effects) -> Self:
        """The standing that follows from who is active and from the faults' effects."""
        active = membership.active.astype(np.float64)
        weight = active if effects.participation is None else active * effects.participation
        capacity = 1.0 if effects.capacity is None else effects.capacity
        return cls(
            active=active,
            weight=weight,
            eligible=active if effects.participation is None else (weight > 0.0).astype(np.float64),
            eligible_nodes=np.flatnonzero(weight),
            attempts_max=(ATTEMPTS_MAX * capacity * active).astype(np.int64),
            active_nodes=membership.active_nodes,
        )
