"""Which parameter change is worth a trial, and was it worth keeping?

A fixed-step rule: couple more strongly while coherence or alignment is too low, and try the next direction after one
that did not help. Every change is a trial: the last good value is journaled, the change is applied and read back, the
system settles, a window is measured and compared with the window before, and what does not help is rolled back, which
is verified too. The objective is J without ΔΛ, because a trial moves λ_opt by itself and must not be judged by that.

Left out: identification of the environment. The rule knows no model; it climbs by trying.

Source: docs/model.md section 6 (objective, recipe steps 4 and 5).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from metrics.observation import PARAMETER_BOUNDS, Parameters

COHERENCE_MIN = 0.90  # the constraints of J, fixed weights: docs/model.md section 2
GAS_MIN = 0.95
ACTION_COST_MAX = 0.05
SMOOTHING_TICKS = 15  # the KPIs are 15-tick averages, so a window holds fewer independent samples than ticks
ABORT_TICKS = 5
TUNABLE_KPIS = frozenset({"coherence", "gas", "action_cost"})


@dataclass(frozen=True, slots=True)
class HealingPolicy:
    """Every number of healing.

    Attributes:
        enabled: whether anything is tuned at all.
        step: factor by which the fixed-step rule changes a coupling.
        settle_ticks, measure_ticks: waiting after a change, and the window measured then.
        holdoff_s: quiet time after a node went out or came back, before KPIs are believed to speak of the couplings.
        trials_max: rolled-back trials in a row after which it stops and leaves the matter to people.
        min_effect: fall of the violation that counts as an improvement by itself.
        verify_s: how long a change may stay unverified.
    """

    enabled: bool = True
    step: float = 1.25
    settle_ticks: int = 10
    measure_ticks: int = 40
    holdoff_s: float = 60.0
    trials_max: int = 6
    min_effect: float = 0.002
    verify_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over a window of ticks.

    Attributes:
        objective: J without ΔΛ.
        objective_se: its standard error.
        violation: how far the constraints are missed, summed.
        coherence, action_cost: the two KPIs that abort a trial.
        ticks: length of the window.
    """

    objective: float
    objective_se: float
    violation: float
    coherence: float
    action_cost: float
    ticks: int

    def as_dict(self) -> dict[str, float]:
        """The values by name, for the journal."""
        return {
            "objective": self.objective,
            "objective_se": self.objective_se,
            "violation": self.violation,
            "coherence": self.coherence,
            "action_cost": self.action_cost,
            "ticks": self.ticks,
        }


class Window:
    """The last ticks of the KPIs that a trial is judged by; ticks with an unknown KPI are left out."""

    def __init__(self, ticks: int) -> None:
        self._samples: deque[tuple[float, float, float, float]] = deque(maxlen=ticks)

    def add(self, kpis: Mapping[str, float]) -> None:
        """Take one tick in."""
        values = [kpis.get(name, math.nan) for name in ("coherence", "gas", "action_cost", "delta_entropy")]
        if not all(map(math.isfinite, values)):
            return
        coherence, gas, action_cost, delta_entropy = values
        shortfall = max(0.0, COHERENCE_MIN - coherence) + max(0.0, GAS_MIN - gas)
        objective = action_cost + 5 * abs(delta_entropy) + shortfall
        violation = shortfall + max(0.0, action_cost - ACTION_COST_MAX)
        self._samples.append((objective, violation, coherence, action_cost))

    def clear(self) -> None:
        """Forget everything, because what follows is another regime."""
        self._samples.clear()

    def __len__(self) -> int:
        return len(self._samples)

    def full(self) -> bool:
        """True once the window holds as many ticks as it was made for."""
        return len(self._samples) == self._samples.maxlen

    def last(self, ticks: int) -> list[tuple[float, float]]:
        """Coherence and action cost of the last ticks."""
        return [(sample[2], sample[3]) for sample in list(self._samples)[-ticks:]]

    def measure(self) -> Measured | None:
        """Means over the window, or None while it is not full."""
        if not self.full():
            return None
        columns = np.array(self._samples).T
        independent = max(2.0, columns.shape[1] / SMOOTHING_TICKS)
        error = float(np.std(columns[0], ddof=1) / math.sqrt(independent))
        objective, violation, coherence, action_cost = (float(value) for value in columns.mean(axis=1))
        return Measured(objective, error, violation, coherence, action_cost, columns.shape[1])


@dataclass(frozen=True, slots=True)
class Change:
    """A change worth a trial, with the direction it comes from and the reason."""

    direction: str
    parameters: Parameters
    reason: str


# In the order in which they are tried; exponents of the step for λ1 and λ2.
_DIRECTIONS: Mapping[str, tuple[int, int]] = {
    "both_up": (1, 1),
    "global_up": (0, 1),
    "local_up": (1, 0),
    "both_down": (-1, -1),
}


def propose(
    policy: HealingPolicy, parameters: Parameters, unhealthy: tuple[str, ...], *, last_direction: str, last_kept: bool
) -> Change | None:
    """The next change worth a trial, or None where no coupling can help or every bound is reached.

    Args:
        policy: the numbers.
        parameters: those in force.
        unhealthy: KPIs persistently outside their limits.
        last_direction: direction of the latest closed trial, "" if there was none.
        last_kept: whether that trial was kept, and so deserves another step the same way.
    """
    named = sorted(TUNABLE_KPIS.intersection(unhealthy))
    if not named:
        return None
    names = list(_DIRECTIONS)
    first = 0 if last_direction not in names else names.index(last_direction) + (0 if last_kept else 1)
    for offset in range(len(names)):
        direction = names[(first + offset) % len(names)]
        changed = _stepped(parameters, policy.step, *_DIRECTIONS[direction])
        if changed != parameters:
            return Change(direction, changed, f"{', '.join(named)} outside limits; fixed step {direction}")
    return None


def _stepped(parameters: Parameters, step: float, local: int, system: int) -> Parameters:
    return replace(
        parameters,
        lambda1=_bounded("lambda1", parameters.lambda1 * step**local),
        lambda2=_bounded("lambda2", parameters.lambda2 * step**system),
    )


def _bounded(name: str, value: float) -> float:
    low, high = PARAMETER_BOUNDS[name]
    return min(high, max(low, value))


def abort_reason(baseline: Mapping[str, float], recent: list[tuple[float, float]]) -> str | None:
    """Why a trial must end at once, or None: the last `ABORT_TICKS` ticks were all worse than a hard limit."""
    if len(recent) < ABORT_TICKS:
        return None
    coherence_min = min(0.88, baseline["coherence"] - 0.02)
    cost_max = max(0.10, 1.6 * baseline["action_cost"])
    if all(coherence < coherence_min for coherence, _ in recent):
        return f"coherence below {coherence_min:.3f} for {ABORT_TICKS} ticks"
    if all(cost > cost_max for _, cost in recent):
        return f"action cost above {cost_max:.3f} for {ABORT_TICKS} ticks"
    return None


def improved(policy: HealingPolicy, baseline: Mapping[str, float], measured: Measured) -> bool:
    """Keep a trial for less violation, or for an objective no worse within a standard error at no more violation."""
    if baseline["violation"] - measured.violation > policy.min_effect:
        return True
    no_more_violation = measured.violation <= baseline["violation"]
    return no_more_violation and measured.objective <= baseline["objective"] + baseline["objective_se"]
