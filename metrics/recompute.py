"""Does the plant publish what its nodes add up to? Its figures, computed once more from the signals.

Coherence is the length of the mean field of the reported phases, the action cost what effort, retries, shed and invalid
work amount to per commit. A lasting difference means that the plant, or some of its nodes, reports something else than
it measures: a stealthy node, for one, reports an aligned phase and lowers the coherence that the plant publishes.

Assumptions: normal demand and price of synchronisation, which no plant reports; hence a generous tolerance on the cost.

Source: docs/model.md sections 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.gravity import FieldReading
from metrics.leave_one_out import COUNT_MAX
from metrics.observation import NodeSignals, Observation, Parameters
from metrics.smoothing import Ewma

TAU_TICKS = 15.0
SETTLED_TICKS = 60  # by then 98 % of what came before the first observation is forgotten
PERSISTENCE_TICKS = 15
COHERENCE_TOLERANCE = 0.03
COST_TOLERANCE = 0.01
COST_TOLERANCE_RATIO = 0.25
OFFERED_LOAD = 20.0  # transactions a node and tick
RETRY_COST = 0.15


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A published figure that has differed from its recomputation for a while.

    Attributes:
        kpi: name of the figure.
        published: what the plant says.
        recomputed: what its nodes add up to.
        tolerance: how much difference is no finding.
    """

    kpi: str
    published: float
    recomputed: float
    tolerance: float


class Recomputation:
    """The figures of one plant, computed once more tick after tick."""

    def __init__(self) -> None:
        self._coherence = Ewma(TAU_TICKS)
        self._cost = Ewma(TAU_TICKS)
        self._commits = Ewma(TAU_TICKS)
        self._ticks = 0
        self._differing_ticks = {"coherence": 0, "action_cost": 0}

    def update(self, observation: Observation, reading: FieldReading, gap_ticks: int) -> tuple[Mismatch, ...]:
        """What turned out, in this tick, to have differed for 15 observations; each difference is told once."""
        signals = observation.signals
        if signals is None:
            return ()
        self._ticks += 1
        values = {"coherence": self._coherence.update(abs(reading.mean_field), gap_ticks)}
        if observation.parameters is not None:
            cost = _cost(signals, observation.parameters)
            commits = self._commits.update(_total(signals.commits), gap_ticks)
            values["action_cost"] = self._cost.update(cost, gap_ticks) / commits if commits > 0.0 else math.nan
        return tuple(
            found for kpi, value in values.items() if (found := self._compare(kpi, value, observation.kpis)) is not None
        )

    def _compare(self, kpi: str, recomputed: float, kpis: Mapping[str, float]) -> Mismatch | None:
        published = kpis.get(kpi, math.nan)
        tolerance = COHERENCE_TOLERANCE
        if kpi == "action_cost":
            tolerance = COST_TOLERANCE + COST_TOLERANCE_RATIO * max(published, recomputed)
        differs = self._ticks > SETTLED_TICKS and abs(published - recomputed) > tolerance  # False where NaN
        self._differing_ticks[kpi] = self._differing_ticks[kpi] + 1 if differs else 0
        if self._differing_ticks[kpi] != PERSISTENCE_TICKS:
            return None
        return Mismatch(kpi, published, recomputed, tolerance)


def _cost(signals: NodeSignals, parameters: Parameters) -> float:
    """Transaction-equivalents of the tick: effort of synchronisation, retries, shed and invalid work; may be NaN."""
    nodes, active = len(signals.active), int(signals.active.sum())
    price = 0.20 * parameters.lambda1 + 0.50 * parameters.lambda2
    budget = parameters.action_cost_limit * OFFERED_LOAD * nodes / max(active, 1)
    work = RETRY_COST * _total(signals.retries) + _total(signals.shed) + _total(signals.invalid)
    return min(price, budget) * active + work


def _total(counts: NDArray[np.float64]) -> float:
    """The sum over all nodes; NaN, which moves no average, where it cannot be a count."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(counts.sum())
    return total if 0.0 <= total <= COUNT_MAX else math.nan
