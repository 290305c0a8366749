"""What load is offered, and how unevenly; what does synchronisation cost, and how much work is invalid?

The price κ is what is left of I_eff after all else is accounted for. The flows are smoothed exactly as the plant
smooths its I_eff, so that the remainder is exact and not only right in the mean. Where the plant's own limiter binds,
κ comes out too low, by as much as the limiter holds back. Source: docs/model.md sections 1 and 2.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.haru.plant_model import EFFORT_LAMBDA1, EFFORT_LAMBDA2, RETRY_COST
from metrics.observation import Observation
from metrics.smoothing import Ewma, gap_weight

SMOOTHING_TICKS = 15.0
DEMAND_TICKS = 30.0  # over which a node's own arrivals are averaged: one tick of them is mostly chance
COUNT_MAX = 1e12  # transactions of a node in a tick; more is no count
COUNTED = ("arrivals", "commits", "retries", "shed", "invalid")


@dataclass(frozen=True, slots=True)
class CostShares:
    """The components of I_eff, each per committed transaction; together they are the action cost.

    Attributes:
        effort: synchronisation.
        retries: attempts that failed.
        shed: transactions dropped for want of room.
        invalid: invalid transactions.
    """

    effort: float
    retries: float
    shed: float
    invalid: float

    def as_dict(self) -> dict[str, float]:
        """The components by name."""
        return asdict(self)


class Costs:
    """Smoothed flows of one plant.

    Attributes:
        load: transactions offered per active node and second; NaN before the first observation.
        load_spread: variance of the nodes' loads relative to their mean, without what chance adds to it.
        price: κ; 1 while it is unknown.
        invalid: invalid transactions per commit.
        shares: what the action cost is made of; None while it is unknown.
    """

    def __init__(self) -> None:
        self.shares: CostShares | None = None
        self._flows = {name: Ewma(SMOOTHING_TICKS) for name in COUNTED}
        self._nodes = Ewma(SMOOTHING_TICKS)
        self._effort = Ewma(SMOOTHING_TICKS)
        self._demand: NDArray[np.float64] | None = None
        self._demand_ticks = 0
        self.load = math.nan
        self.load_spread = 0.0
        self.price = 1.0
        self.invalid = 0.0

    def update(self, observation: Observation, gap_ticks: int) -> None:
        """Take in one observation with signals and parameters."""
        signals, parameters = observation.signals, observation.parameters
        if signals is None or parameters is None:
            return
        nodes = float(np.count_nonzero(signals.active))
        effort = EFFORT_LAMBDA1 * parameters.lambda1 + EFFORT_LAMBDA2 * parameters.lambda2
        self._nodes.update(nodes, gap_ticks)
        self._effort.update(nodes * effort, gap_ticks)
        flow = {
            name: average.update(_counted(getattr(signals, name), signals.active), gap_ticks)
            for name, average in self._flows.items()
        }
        commits = max(flow["commits"], 1e-9)
        self.load = flow["arrivals"] / max(self._nodes.value, 1.0)
        self.invalid = flow["invalid"] / commits
        self._follow_demand(signals.arrivals, signals.active, gap_ticks)
        wasted = RETRY_COST * flow["retries"] + flow["shed"] + flow["invalid"]
        spent = observation.kpis.get("action_cost", math.nan) * commits - wasted
        if 0.0 < spent < math.inf:
            self.price = spent / self._effort.value
        if math.isfinite(spent):
            self.shares = CostShares(
                effort=max(spent, 0.0) / commits,
                retries=RETRY_COST * flow["retries"] / commits,
                shed=flow["shed"] / commits,
                invalid=self.invalid,
            )

    def _follow_demand(self, arrivals: NDArray[np.float64], active: NDArray[np.bool_], gap_ticks: int) -> None:
        """Average each node's arrivals, plainly until enough are seen; the spread of these is that of the loads."""
        counted = active & (np.abs(arrivals) <= COUNT_MAX)
        self._demand_ticks += 1
        lasting = gap_weight(gap_ticks, DEMAND_TICKS)
        weight = max(lasting, 1.0 / self._demand_ticks)
        known = self._demand
        if known is None or known.shape != arrivals.shape:
            self._demand = np.where(counted, arrivals, math.nan)
            return
        moved = np.where(np.isnan(known), arrivals, known + weight * (arrivals - known))
        self._demand = np.where(counted, moved, known)
        demand = self._demand[counted & np.isfinite(self._demand)]
        mean = float(demand.mean()) if demand.size else 0.0
        if mean > 0.0:
            # Arrivals are Poisson: their variance is their mean, of which the average leaves a part.
            chance = mean * max(1.0 / self._demand_ticks, lasting / (2.0 - lasting))
            self.load_spread = max(float(demand.var()) - chance, 0.0) / mean**2


def _counted(counts: NDArray[np.float64], active: NDArray[np.bool_]) -> float:
    """Sum over the active nodes of what is a count."""
    return float(np.where(active & (np.abs(counts) <= COUNT_MAX), counts, 0.0).sum())
