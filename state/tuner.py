"""What is tried next: new couplings where KPIs ask for them, another α where the supply does, or nothing?

Where HARU has identified the environment its model chooses the couplings; where it cannot (a plant that shows no
phases), the fixed-step rule does. α follows by feed-forward, slowly and only while everything else is well: it moves
money, not phases. Whether anything may be tried at all is not asked here, nor what could be better while the limits
hold (`improvement.py`).

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
LIMITS = replace(
    tuning.DEFAULT_POLICY, coherence_min=COHERENCE_MIN, gas_min=GAS_MIN, action_cost_max=ACTION_COST_MAX
)  # without margins


def next_change(
    policy: HealingPolicy, state: DurableState, assessment: Assessment, parameters: Parameters, diagnosis: Diagnosis
) -> Change | None:
    """The couplings worth a trial, or None where nothing within reach is expected to help."""
    if not diagnosis.parameters:
        return None
    environment = assessment.environment
    if environment is not None:
        proposal = tuning.propose(environment, parameters, violating=bool(diagnosis.breached), trust=state.trust)
        if proposal is None:
            return None
        gained = proposal.present.objective - proposal.expected.objective
        if not diagnosis.breached and gained <= policy.early_gain / state.trust:
            return None
        return Change(GRAY_BOX, proposal.parameters, f"{diagnosis}; {proposal.reason}")
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


def out_of_reach(assessment: Assessment) -> str:
    """Why no couplings within their bounds would hold the limits, and what would, in words; "" where some might."""
    environment = assessment.environment
    if environment is None:
        return ""
    best = tuning.best_within_bounds(environment, LIMITS)
    if best.shortfall <= 0.0:
        return ""
    told = (
        "no couplings within their bounds are expected to hold the limits: at best "
        f"C {best.coherence:.3f}, GAS {best.gas:.3f}, I_eff {best.action_cost:.4f}"
    )
    shares = assessment.costs
    if shares is not None and shares.shed == max(shares.as_dict().values()):
        told += f"; {environment.load:.3g} transactions a second and node take more capacity, or less demand"
    return told


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
        wanted, step = self._balancing(policy, parameters)
        # A step that would lead the supply further away, because of a burst of burning, is none.
        if abs(step) < ALPHA_STEP_MIN or step * off > 0.0:
            return None
        reason = f"the supply is {off:+.1%} off its start; α {wanted:.2f} would lead it back"
        return Change(ALPHA, replace(parameters, alpha=parameters.alpha + step), reason)

    def beside(self, policy: HealingPolicy, change: Change, assessment: Assessment) -> Change:
        """The change of couplings with a step of α upwards, where transactions are shed more than anything else costs.

        A demand beyond the usual burns more than α mints, and nodes that grow poorer serve less and shed more.
        """
        shares = assessment.costs
        if shares is None or shares.shed < max(shares.as_dict().values()) or not math.isfinite(self.burn.value):
            return change
        wanted, step = self._balancing(policy, change.parameters)
        if not (self.coherence.value - self.target > REWARD_MIN and step >= ALPHA_STEP_MIN):
            return change
        parameters = replace(change.parameters, alpha=change.parameters.alpha + step)
        return replace(change, parameters=parameters, reason=f"{change.reason}; α {wanted:.2f} mints what is burned")

    def _balancing(self, policy: HealingPolicy, parameters: Parameters) -> tuple[float, float]:
        """The α that leads the supply back, and the step towards it that may be taken at once."""
        wanted = tuning.balancing_alpha(
            burn=self.burn.value,
            supply=self.supply,
            supply_genesis=self.genesis,
            coherence=self.coherence.value,
            gas_target=self.target,
        )
        return wanted, min(policy.alpha_step, max(-policy.alpha_step, wanted - parameters.alpha))
