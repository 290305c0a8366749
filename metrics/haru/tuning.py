"""Which couplings would suit the identified environment better, and which α keeps the supply level?

Candidates are a logarithmic grid around the couplings in force, within a trust region that grows while the limits are
broken and shrinks after a trial that failed. Each is judged by what the plant model says of it: the cost, and how far
it misses limits that are a margin stricter than the real ones. A move must be worth its trial.

Pure functions of frozen values: nothing here remembers, applies or verifies anything; every proposal is for a trial.
Source: docs/model.md section 6, steps 3, 5 and 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from metrics.haru.plant_model import Environment, Floats, Prediction, predict
from metrics.observation import PARAMETER_BOUNDS, Parameters

GOLDEN_RATIO = (1.0 + math.sqrt(5.0)) / 2.0
EMISSION_RATE = 0.0103  # share of the initial supply that a CAF of 1 mints in a second
GENESIS_BALANCE = 500_000  # tokens that a node starts with
SUPPLY_PULL = 2.0  # by how much more (less) than the burn is minted for each part that the supply lacks (exceeds)


@dataclass(frozen=True, slots=True)
class TuningPolicy:
    """Every number of the tuner.

    Attributes:
        coherence_min, gas_min, action_cost_max: limits with their margins, which the candidates are judged by.
        weight: of a missed limit against the cost.
        reach: natural logarithm of the largest factor by which a coupling moves while the limits hold.
        reach_violating: likewise while they are broken, or would be.
        points: candidates along each axis, odd so that the couplings in force are one of them.
        gain_min: least relative improvement that a trial is worth.
        gain_floor: least absolute one; a trial could not tell less from nothing.
        trust_min: smallest share of the reach that failed trials leave.
        effort_budget: I_lim beyond which nothing is proposed: the healthy limit of I_eff, all of it spent on effort.
    """

    coherence_min: float = 0.912
    gas_min: float = 0.959
    action_cost_max: float = 0.045
    weight: float = 1.0
    reach: float = 0.35
    reach_violating: float = 0.70
    points: int = 21
    gain_min: float = 0.015
    gain_floor: float = 0.002
    trust_min: float = 0.125
    effort_budget: float = 0.05


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the model expects of one set of couplings."""

    coherence: float
    gas: float
    action_cost: float
    objective: float
    shortfall: float

    def as_dict(self) -> dict[str, float]:
        """The values by name, for the journal."""
        return {
            "coherence": self.coherence,
            "gas": self.gas,
            "action_cost": self.action_cost,
            "objective": self.objective,
            "shortfall": self.shortfall,
        }


@dataclass(frozen=True, slots=True)
class Proposal:
    """Couplings worth a trial.

    Attributes:
        parameters: with the new couplings, all else as in force.
        present: what the couplings in force are expected to lead to.
        expected: what the new ones are.
        reason: for people.
    """

    parameters: Parameters
    present: Outlook
    expected: Outlook
    reason: str


DEFAULT_POLICY = TuningPolicy()


def outlook(environment: Environment, parameters: Parameters, policy: TuningPolicy = DEFAULT_POLICY) -> Outlook:
    """What the couplings in force are expected to lead to."""
    predicted = predict(environment, parameters)
    objective, shortfall = _judged(predicted, policy)
    return _outlook(predicted, objective, shortfall, ())


def propose(
    environment: Environment,
    parameters: Parameters,
    *,
    violating: bool,
    trust: float = 1.0,
    policy: TuningPolicy = DEFAULT_POLICY,
) -> Proposal | None:
    """The best couplings within reach, or None where none is worth a trial.

    I_lim stays as it is, or is opened or closed to `policy.effort_budget` where that is better.

    Args:
        environment: as identified.
        parameters: those in force.
        violating: a limit is broken now; a limit that the model expects to be broken counts likewise.
        trust: share of the reach that is used, above 0 to 1; see `trust_after`.
        policy: the numbers.
    """
    present = outlook(environment, parameters, policy)
    reach = trust * (policy.reach_violating if violating or present.shortfall > 0.0 else policy.reach)
    steps = np.linspace(-reach, reach, policy.points)
    lambda1 = _within("lambda1", parameters.lambda1 * np.exp(steps))[:, np.newaxis]
    lambda2 = _within("lambda2", parameters.lambda2 * np.exp(steps))[np.newaxis, :]
    best = _best(environment, parameters, lambda1, lambda2, policy)
    if parameters.action_cost_limit != policy.effort_budget:
        budgeted = replace(parameters, action_cost_limit=policy.effort_budget)
        other = _best(environment, budgeted, lambda1, lambda2, policy)
        best = other if other[1].objective < best[1].objective else best
    changed, expected = best
    if present.objective - expected.objective <= max(policy.gain_floor, policy.gain_min * present.objective):
        return None
    reason = (
        f"in the identified environment the model expects C {present.coherence:.3f} -> {expected.coherence:.3f}, "
        f"GAS {present.gas:.3f} -> {expected.gas:.3f}, I_eff {present.action_cost:.4f} -> {expected.action_cost:.4f}"
    )
    return Proposal(changed, present, expected, reason)


def best_within_bounds(environment: Environment, policy: TuningPolicy = DEFAULT_POLICY) -> Outlook:
    """What the best couplings of all are expected to lead to, however far they are from those in force.

    Its shortfall counts the margins; with a policy whose margins are the limits, it counts these.
    """
    lambda1, lambda2 = (np.geomspace(*PARAMETER_BOUNDS[name], policy.points) for name in ("lambda1", "lambda2"))
    budgeted = Parameters(action_cost_limit=policy.effort_budget)
    return _best(environment, budgeted, lambda1[:, np.newaxis], lambda2[np.newaxis, :], policy)[1]


def regretted(
    environment: Environment, previous: Parameters, present: Parameters, policy: TuningPolicy = DEFAULT_POLICY
) -> bool:
    """Whether going back from `present` to `previous` would make things worse, in the environment as it is *now*.

    A trial is judged against the window before it, and that window is no witness once the environment has moved on. The
    model is, but only as far as it accounts for what is measured: its errors of late count against it in full.
    """
    gain = outlook(environment, previous, policy).objective - outlook(environment, present, policy).objective
    bias = environment.bias
    return gain > abs(bias.coherence) + abs(bias.gas) + abs(bias.action_cost) + policy.gain_min * policy.action_cost_max


def trust_after(trust: float, *, kept: bool, policy: TuningPolicy = DEFAULT_POLICY) -> float:
    """Trust after a trial: doubled up to 1 where it was kept, halved where it was rolled back."""
    return min(1.0, 2.0 * trust) if kept else max(policy.trust_min, trust / 2.0)


def balancing_alpha(*, burn: float, supply: float, supply_genesis: float, coherence: float, gas_target: float) -> float:
    """The α at which emission replaces the burn and leads the supply back to its start; within α's bounds.

    Args:
        burn: tokens burned in a tick, smoothed over some 30 ticks.
        supply: tokens in existence.
        supply_genesis: S0.
        coherence: C, smoothed likewise.
        gas_target: GAS_target; at or above `coherence` no α mints anything, and the upper bound is returned.
    """
    low, high = PARAMETER_BOUNDS["alpha"]
    reward = math.log(coherence / gas_target) if coherence > gas_target > 0.0 else 0.0
    minted = EMISSION_RATE * supply_genesis * reward / GOLDEN_RATIO
    wanted = burn * (1.0 + SUPPLY_PULL * (1.0 - supply / supply_genesis))
    return high if minted <= 0.0 else min(high, max(low, wanted / minted))


def _best(
    environment: Environment, parameters: Parameters, lambda1: Floats, lambda2: Floats, policy: TuningPolicy
) -> tuple[Parameters, Outlook]:
    """The candidate with the least objective, all else as in `parameters`."""
    predicted = predict(environment, parameters, lambda1, lambda2)
    objective, shortfall = _judged(predicted, policy)
    at = np.unravel_index(int(np.argmin(objective)), objective.shape)
    chosen = replace(parameters, lambda1=float(lambda1[at[0], 0]), lambda2=float(lambda2[0, at[1]]))
    return chosen, _outlook(predicted, objective, shortfall, at)


def _judged(predicted: Prediction, policy: TuningPolicy) -> tuple[Floats, Floats]:
    shortfall = (
        np.maximum(policy.coherence_min - predicted.coherence, 0.0)
        + np.maximum(policy.gas_min - predicted.gas, 0.0)
        + np.maximum(predicted.action_cost - policy.action_cost_max, 0.0)
    )
    return predicted.action_cost + policy.weight * shortfall, shortfall


def _outlook(
    predicted: Prediction, objective: Floats, shortfall: Floats, at: tuple[np.intp, ...] | tuple[()]
) -> Outlook:
    return Outlook(
        coherence=float(predicted.coherence[at]),
        gas=float(predicted.gas[at]),
        action_cost=float(predicted.action_cost[at]),
        objective=float(objective[at]),
        shortfall=float(shortfall[at]),
    )


def _within(name: str, values: Floats) -> Floats:
    low, high = PARAMETER_BOUNDS[name]
    return np.clip(values, low, high)
