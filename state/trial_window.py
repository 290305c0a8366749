"""What did a trial do: better, worse, or is it not to be told from noise?

A window holds the last ticks of the KPIs that a trial is judged by. Two windows, before and after, are compared by the
fall of the violation in a one-sided t-test, or by that of the objective where nothing was violated. The KPIs are
15-tick averages, so a window holds fewer independent samples than ticks, and none is taken for fewer than two. Their
variances may differ, as in Welch's test, but the degrees of freedom are those of both together: his would be fewer than
two samples give. The objective is J without ΔΛ, because a trial moves λ_opt by itself and must not be judged by that.

Assumption: the environment stands still between the windows; where it did not, see `metrics.haru.tuning.regretted`.
Source: docs/model.md section 6 (objective, recipe step 4).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np

COHERENCE_MIN = 0.90  # the constraints of J, fixed weights: docs/model.md section 2
GAS_MIN = 0.95
ACTION_COST_MAX = 0.05
SMOOTHING_TICKS = 15
SAMPLES_MIN = 2.0
ABORT_TICKS = 5
BLIND_FACTOR = 2  # a window may take so many times as long as its ticks, where KPIs are unknown in between


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over a window of ticks.

    Attributes:
        objective: J without ΔΛ.
        objective_se: its standard error.
        violation: how far the constraints are missed, summed.
        violation_se: its standard error.
        coherence, gas, action_cost: the KPIs that abort a trial.
        ticks: length of the window.
    """

    objective: float
    objective_se: float
    violation: float
    violation_se: float
    coherence: float
    gas: float
    action_cost: float
    ticks: int

    def as_dict(self) -> dict[str, float]:
        """The values by name, for the journal."""
        return asdict(self)


class Window:
    """The last ticks of the KPIs that a trial is judged by; ticks with an unknown KPI are left out."""

    def __init__(self, ticks: int) -> None:
        self._samples: deque[tuple[float, float, float, float, float]] = deque(maxlen=ticks)
        self._taken_at: deque[int] = deque(maxlen=ticks)
        self._tick = 0

    def add(self, kpis: Mapping[str, float]) -> None:
        """Take one tick in."""
        self._tick += 1
        values = [kpis.get(name, math.nan) for name in ("coherence", "gas", "action_cost", "delta_entropy")]
        if not all(map(math.isfinite, values)):
            return
        coherence, gas, action_cost, delta_entropy = values
        shortfall = max(0.0, COHERENCE_MIN - coherence) + max(0.0, GAS_MIN - gas)
        objective = action_cost + 5 * abs(delta_entropy) + shortfall
        violation = shortfall + max(0.0, action_cost - ACTION_COST_MAX)
        self._samples.append((objective, violation, coherence, gas, action_cost))
        self._taken_at.append(self._tick)

    def clear(self, *, but: int = 0) -> None:
        """Forget everything but the last ticks that are known, because what came before was another regime."""
        while len(self._samples) > but:
            self._samples.popleft()
            self._taken_at.popleft()

    def __len__(self) -> int:
        return len(self._samples)

    def last(self, ticks: int) -> list[tuple[float, float, float]]:
        """Coherence, alignment and action cost of the last ticks."""
        return [sample[2:] for sample in list(self._samples)[-ticks:]]

    def violations(self, ticks: int) -> list[float]:
        """How far the constraints were missed in each of the last ticks that are known."""
        return [violation for _, violation, *_ in list(self._samples)[-ticks:]]

    def measure(self, ticks: int) -> Measured | None:
        """Means over the last `ticks` that are known, or None while there are not so many, or they are of long ago."""
        if ticks < 1 or len(self._samples) < ticks or self._tick - self._taken_at[-ticks] >= BLIND_FACTOR * ticks:
            return None
        columns = np.array(self._samples)[-ticks:].T
        error = columns.std(axis=1, ddof=1 if ticks > 1 else 0) / math.sqrt(_samples(ticks))
        objective, violation, coherence, gas, action_cost = (float(value) for value in columns.mean(axis=1))
        return Measured(objective, float(error[0]), violation, float(error[1]), coherence, gas, action_cost, ticks)


class Effect(StrEnum):
    """What a trial was found to have done."""

    HEALED = "healed"  # the limits hold now, at an objective that is no worse beyond the noise
    IMPROVED = "improved"  # they are still missed, but by significantly less
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on two windows, and the numbers behind it.

    Attributes:
        effect: the verdict.
        fall: by how much the violation fell.
        beyond: fall, or rise, that noise exceeds with the probability of the level at most.
    """

    effect: Effect
    fall: float
    beyond: float

    def as_dict(self) -> dict[str, object]:
        """For the journal."""
        return {"effect": self.effect.value, "fall": self.fall, "beyond": self.beyond}


def compare(before: Mapping[str, float], after: Measured, *, level: float, min_effect: float) -> Comparison:
    """Judge a trial by the window before it and the one after.

    Args:
        before: a `Measured` as it was journaled.
        after: what was measured since.
        level: probability with which noise alone passes for an effect.
        min_effect: change of the violation below which nothing is an effect, and violation up to which limits hold.
    """
    quantile = t_quantile(level, _samples(before["ticks"]) + _samples(after.ticks) - 2.0)
    fall = before["violation"] - after.violation
    beyond = max(min_effect, quantile * math.hypot(before["violation_se"], after.violation_se))
    dearer = after.objective - before["objective"]
    dearer_beyond = quantile * math.hypot(before["objective_se"], after.objective_se)
    if fall < -beyond:
        effect = Effect.WORSE
    elif after.violation <= min_effect:
        effect = Effect.HEALED if fall > beyond or dearer <= max(min_effect, dearer_beyond) else Effect.WORSE
    else:
        effect = Effect.IMPROVED if fall > beyond else Effect.INCONCLUSIVE
    return Comparison(effect, fall, beyond)


def compare_objective(before: Mapping[str, float], after: Measured, *, level: float, min_effect: float) -> Comparison:
    """Judge a trial that was to save cost where nothing was wrong; `fall` and `beyond` are those of the objective.

    Args:
        before: a `Measured` as it was journaled.
        after: what was measured since.
        level: probability with which noise alone passes for an effect.
        min_effect: violation that may be gained at most.
    """
    quantile = t_quantile(level, _samples(before["ticks"]) + _samples(after.ticks) - 2.0)
    fall = before["objective"] - after.objective
    beyond = quantile * math.hypot(before["objective_se"], after.objective_se)
    if after.violation > before["violation"] + min_effect or fall < -beyond:
        effect = Effect.WORSE
    else:
        effect = Effect.HEALED if fall > beyond else Effect.INCONCLUSIVE
    return Comparison(effect, fall, beyond)


def detectable(measured: Measured, level: float) -> float:
    """Fall of the objective that a window like this one, and another after a trial, can just tell from noise."""
    quantile = t_quantile(level, 2.0 * _samples(measured.ticks) - 2.0)
    return quantile * math.sqrt(2.0) * measured.objective_se


def t_quantile(level: float, freedom: float) -> float:
    """Value that Student's t with so many degrees of freedom, 2 or more, exceeds with probability `level`.

    Within 4 % for levels from 0.02 up, and within 1 % for more than 2 degrees of freedom. Source: Abramowitz and
    Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = NormalDist().inv_cdf(1.0 - level)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / freedom + second / freedom**2 + third / freedom**3


def abort_reason(baseline: Mapping[str, float], recent: list[tuple[float, float, float]]) -> str | None:
    """Why a trial must end at once, or None: the last `ABORT_TICKS` ticks were all worse than a hard limit."""
    if len(recent) < ABORT_TICKS:
        return None
    coherence_min = min(0.88, baseline["coherence"] - 0.02)
    gas_min = min(0.93, baseline["gas"] - 0.02)
    cost_max = max(0.10, 1.6 * baseline["action_cost"])
    if all(coherence < coherence_min for coherence, _, _ in recent):
        return f"coherence below {coherence_min:.3f} for {ABORT_TICKS} ticks"
    if all(gas < gas_min for _, gas, _ in recent):
        return f"alignment below {gas_min:.3f} for {ABORT_TICKS} ticks"
    if all(cost > cost_max for _, _, cost in recent):
        return f"action cost above {cost_max:.3f} for {ABORT_TICKS} ticks"
    return None


def _samples(ticks: float) -> float:
    """Independent samples that a window of smoothed ticks is worth."""
    return max(SAMPLES_MIN, ticks / SMOOTHING_TICKS)
