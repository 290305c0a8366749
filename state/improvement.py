"""What could be better although the limits hold: lost margins restored, or much cost saved?

Every few ticks the model is asked, and its answer is averaged over the last few environments, so that no single
estimate is acted on. In none of the environments of the last ten minutes may the new couplings miss the margins by more
than those in force would have at worst, so that what a cycle or a storm has asked for is not given up in the lull. The
model's errors of late count against a saving in full, and so does what cannot be told from noise; and it must soon
repay what the change itself costs by ΔΛ.

Volatile: after a restart it learns afresh. Left out: whether anything may be tried now (`trial_gate.py`), and what came
of it (`trial_window.py`). Source: docs/model.md sections 2 and 6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from metrics.assessment import Assessment
from metrics.haru import tuning
from metrics.haru.plant_model import Environment, limited_gains
from metrics.observation import Parameters
from state.durable import GRAY_BOX, IMPROVEMENT, DurableState
from state.healing import Change, HealingPolicy

LOOK_TICKS = 10  # between two looks
REMEMBERED = 60  # environments, one of each look
AVERAGED = 3  # of them that what is gained is averaged over
REPAID_S = 600.0  # within which a saving must repay what ΔΛ costs while the couplings change
STABILITY_LAG_S = 10.0  # of ΔΛ: a lasting change of λ_opt costs J so many times its size, in all


class ImprovementWatch:
    """Looks for improvements on one plant.

    Args:
        policy: the numbers.
    """

    def __init__(self, policy: HealingPolicy) -> None:
        self._policy = policy
        self._environments: deque[Environment] = deque(maxlen=REMEMBERED)

    def count(self, assessment: Assessment) -> None:
        """Take one tick in."""
        if assessment.environment is not None and assessment.tick % LOOK_TICKS == 0:
            self._environments.append(assessment.environment)

    def due(self, assessment: Assessment) -> bool:
        """Whether this is a tick at which a look is taken."""
        return assessment.tick % LOOK_TICKS == 0 and len(self._environments) >= AVERAGED

    def next_change(
        self, state: DurableState, assessment: Assessment, parameters: Parameters, noise: float
    ) -> Change | None:
        """What is worth a trial in a tick at which a look is due; None where nothing is.

        Args:
            state: durable, for the trust.
            assessment: the tick's, counted already.
            parameters: those in force.
            noise: saving that a trial could not tell from noise.
        """
        environment = assessment.environment
        if environment is None:
            return None
        proposal = tuning.propose(environment, parameters, violating=False, trust=state.trust)
        if proposal is None:
            return None
        lately = list(self._environments)[-AVERAGED:]
        kept = [tuning.outlook(one, parameters) for one in lately]
        changed = [tuning.outlook(one, proposal.parameters) for one in lately]
        restored = _mean([one.shortfall for one in kept]) - _mean([one.shortfall for one in changed])
        gained = _mean([one.objective for one in kept]) - _mean([one.objective for one in changed])
        saved = _mean([one.action_cost for one in kept]) - _mean([one.action_cost for one in changed])
        if restored > self._policy.min_effect and gained > self._policy.early_gain / state.trust:
            change = Change(GRAY_BOX, proposal.parameters, f"the margins are being lost; {proposal.reason}")
        elif restored >= 0.0 and self._pays(saved, lately[-1], proposal, parameters, noise):
            change = Change(IMPROVEMENT, proposal.parameters, f"nothing is wrong; {proposal.reason}")
        else:
            return None
        return change if self._bears(change.parameters, parameters) else None

    def _pays(
        self, saved: float, now: Environment, proposal: tuning.Proposal, parameters: Parameters, noise: float
    ) -> bool:
        """Whether much is saved for sure, enough to be seen, and more within a while than the change costs."""
        sure = saved - abs(now.bias.action_cost)
        moved = _contraction(now, proposal.parameters, proposal.expected)
        moved -= _contraction(now, parameters, proposal.present)
        least = max(noise, self._policy.min_effect, self._policy.improve_gain * proposal.present.action_cost)
        return sure > least and sure * REPAID_S > abs(moved) * STABILITY_LAG_S

    def _bears(self, changed: Parameters, parameters: Parameters) -> bool:
        """Whether the worst of the environments remembered is borne no worse than with the parameters in force."""
        worst, worst_now = (
            max(tuning.outlook(one, candidate).shortfall for one in self._environments)
            for candidate in (changed, parameters)
        )
        return worst <= worst_now


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _contraction(environment: Environment, parameters: Parameters, outlook: tuning.Outlook) -> float:
    """λ_opt as the model expects it."""
    gains = limited_gains(
        parameters.lambda1,
        parameters.lambda2,
        price=environment.price,
        load=environment.load,
        action_cost_limit=parameters.action_cost_limit,
    )
    return float(gains.k1 * outlook.gas**2 + gains.k2 * outlook.coherence**2)
