"""How parameters are tried: every number of healing, and the rule for plants of which no model can be made.

Every change is a trial: the last good value is journaled, the change is applied and read back, the system settles, a
window is measured and compared with the window before, and what does not help is rolled back, which is verified too.
`tuner.py` decides what is tried, `trial_window.py` what came of it, `trials.py` carries a trial through its life.

The rule is a fixed step: couple more strongly while coherence or alignment is too low, and try the next direction
after one that did not help. It knows no model; it climbs by trying.

Source: docs/model.md section 6 (recipe steps 4 and 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from metrics.observation import PARAMETER_BOUNDS, Parameters

TUNABLE_KPIS = frozenset({"coherence", "gas", "action_cost"})
HOUR_S = 3600.0
DIGITS = 6  # of a proposed coupling: people read it


@dataclass(frozen=True, slots=True)
class HealingPolicy:
    """Every number of healing.

    Attributes:
        enabled: whether anything is tuned at all.
        step: factor by which the fixed-step rule changes a coupling.
        trigger_ticks: ticks of which more than half outside a limit ask for a trial, if the identified environment
            explains them; without a model it takes the lasting verdict on the KPI.
        baseline_ticks: window before a trial that it is compared with.
        settle_ticks, measure_ticks: waiting after a change, and the window measured then.
        level: probability with which noise alone may pass for an effect.
        min_effect: change of the violation below which nothing counts as an effect.
        holdoff_s: quiet time after 1 % of the nodes went out or came back, before KPIs speak of the couplings again.
        holdoff_model_s: the same where the identified environment explains the KPIs.
        suspect_s: how long single nodes that stand out, unconfirmed, hold tuning back.
        trials_max: trials in a row without a healthy end after which it stops and leaves the matter to people.
        backoff_base_s, backoff_max_s: for how long, doubled each time; it may try again afterwards.
        burst, per_hour: trials that may be made at once, and at length.
        verify_s: how long a change may stay unverified.
        supply_tolerance: share by which the supply may differ from its start before α follows.
        alpha_step: most that α changes at a time.
        alpha_every_s: least time between two changes of α.
        early_gain: fall of the tuner's objective, missed margins included, that must be expected of a trial before any
            limit is broken; divided by the trust.
        improve_every_s: least time from the start of a trial to one for mere improvement, divided by the trust.
        improve_gain: share of the action cost that such a trial must be expected to save, besides `min_effect`.
    """

    enabled: bool = True
    step: float = 1.5
    trigger_ticks: int = 10
    baseline_ticks: int = 10
    settle_ticks: int = 10
    measure_ticks: int = 40
    level: float = 0.05
    min_effect: float = 0.002
    holdoff_s: float = 60.0
    holdoff_model_s: float = 10.0
    suspect_s: float = 60.0
    trials_max: int = 6
    backoff_base_s: float = 600.0
    backoff_max_s: float = 7200.0
    burst: float = 10.0
    per_hour: float = 30.0
    verify_s: float = 10.0
    supply_tolerance: float = 0.03
    alpha_step: float = 0.5
    alpha_every_s: float = 300.0
    early_gain: float = 0.005
    improve_every_s: float = 120.0
    improve_gain: float = 0.05

    def backoff_s(self, exhaustions: int) -> float:
        """How long nothing is tried after the given number of exhaustions in a row."""
        doublings = min(max(exhaustions, 1) - 1, 60)
        return min(self.backoff_max_s, self.backoff_base_s * 2.0**doublings)

    def tokens(self, left: float | None, since_s: float) -> float:
        """Trials that may be made now; `left` is None before the first, when the bucket is full."""
        return self.burst if left is None else min(self.burst, left + self.per_hour / HOUR_S * max(0.0, since_s))


@dataclass(frozen=True, slots=True)
class Change:
    """A change worth a trial, with the rule or direction it comes from and the reason."""

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
    return round(min(high, max(low, value)), DIGITS)
