"""What is tried next: new couplings where KPIs ask for them, another α where the supply does, or nothing?

Where HARU has identified the environment its model chooses the couplings; where it cannot (a plant that shows no
phases), the fixed-step rule does. α follows by feed-forward, slowly and only while everything else is well: it moves
money, not phases. Whether anything may be tried at all is not asked here.

Source: docs/model.md section 6 (recipe steps 3, 5 and 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from metrics.assessment import Assessment
from metrics.haru import tuning
from metrics.haru.plant_model import Bias, predict
from metrics.observation import Parameters
from metrics.smoothing import Ewma
from state.diagnosis import Diagnosis
from state.durable import ALPHA, GRAY_BOX, DurableState
from state.healing import Change, HealingPolicy, propose
from state.trial_window import ACTION_COST_MAX, COHERENCE_MIN, GAS_MIN

SUPPLY_TICKS = 30.0
REWARD_MIN = 0.005  # C above its target below which α mints nothing to speak of
ALPHA_STEP_MIN = 0.05


def next_change(
    policy: HealingPolicy, state: DurableState, assessment: Assessment, parameters: Parameters, diagnosis: Diagnosis
) -> Change | None:
    """The couplings worth a trial, or None where nothing within reach is expected to help."""
    if not diagnosis.parameters:
        return None
    environment = assessment.environment
    if environment is not None:
        proposal = tuning.propose(environment, parameters, violating=bool(diagnosis.breached), trust=state.trust)
        return None if proposal is None else Change(GRAY_BOX, proposal.parameters, f"{diagnosis}; {proposal.reason}")
    return propose(
        policy, parameters, diagnosis.breached, last_direction=state.last_direction, last_kept=state.last_kept
    )


def explained(assessment: Assessment, parameters: Parameters) -> bool:
    """Whether the identified environment by itself leads beyond a limit.

    Without the model's bias, whose cause is not known, and without single nodes whose frequencies lie far from others.
    """
    environment = assessment.environment
    if environment is None:
        return False
    spread = min(environment.frequency_spread, environment.typical_spread)
    expected = predict(replace(environment, frequency_spread=spread, bias=Bias()), parameters)
    return bool(expected.coherence < COHERENCE_MIN or expected.gas < GAS_MIN or expected.action_cost > ACTION_COST_MAX)


@dataclass(slots=True)
class SupplyBalance:
    """Smoothed figures of the money, from which α follows; volatile."""

    burn: Ewma
    coherence: Ewma
    target: float = math.nan
    supply: float = math.nan
    genesis: float = math.nan

    @classmethod
    def start(cls) -> SupplyBalance:
        """Before the first tick."""
        return cls(Ewma(SUPPLY_TICKS), Ewma(SUPPLY_TICKS))

    def count(self, assessment: Assessment) -> None:
        """Take one tick in."""
        kpis = {name: verdict.value for name, verdict in assessment.kpis.items()}
        self.burn.update(kpis.get("burned", math.nan))
        self.coherence.update(kpis.get("coherence", math.nan))
        self.target = kpis.get("gas_target", math.nan)
        self.supply = kpis.get("supply", math.nan)
        if assessment.topology is not None:
            self.genesis = float(len(assessment.topology.nodes) * tuning.GENESIS_BALANCE)

    def next_alpha(self, policy: HealingPolicy, parameters: Parameters) -> Change | None:
        """A step of α towards the one that leads the supply back, or None while it is near enough, or α has no say."""
        off = self.supply / self.genesis - 1.0
        pull = self.coherence.value - self.target
        if not (abs(off) > policy.supply_tolerance and pull > REWARD_MIN and math.isfinite(self.burn.value)):
            return None
        wanted = tuning.balancing_alpha(
            burn=self.burn.value,
            supply=self.supply,
            supply_genesis=self.genesis,
            coherence=self.coherence.value,
            gas_target=self.target,
        )
        step = min(policy.alpha_step, max(-policy.alpha_step, wanted - parameters.alpha))
        # A step that would lead the supply further away, because of a burst of burning, is none.
        if abs(step) < ALPHA_STEP_MIN or step * off > 0.0:
            return None
        reason = f"the supply is {off:+.1%} off its start; α {wanted:.2f} would lead it back"
        return Change(ALPHA, replace(parameters, alpha=parameters.alpha + step), reason)
