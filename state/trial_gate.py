"""Does anything ask for a trial, and what speaks against it?

What asks is a KPI that is lastingly outside its limits; or, sooner, one that has been outside or close for a few ticks,
or is forecast to leave them, if the identified environment by itself leads beyond a limit: single bad nodes and noise
seldom do.
What speaks against it is whatever makes the KPIs no evidence about the parameters: nodes that are the matter or may
soon turn out to be, actions in flight, doubted evidence, the plant's own safe mode, and trials that were no use.

In an environment that has drifted, nodes at the tail of the frequencies look like wells. A trial is then what may end
that, so a well of that kind, not far beyond the critical gravity, neither forbids nor ends one.

Volatile: after a restart it learns afresh. Source: docs/model.md sections 5 to 7.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from metrics.assessment import Assessment
from metrics.haru.tuning import DEFAULT_POLICY
from metrics.kpi import KpiStatus
from metrics.observation import Parameters
from state.diagnosis import drifted, drifting, gravity_of, stands_out
from state.durable import DurableState, NodeStatus
from state.healing import TUNABLE_KPIS, HealingPolicy
from state.isolation import Guard, Refusal
from state.tuner import explained

SWITCHED = frozenset({NodeStatus.ISOLATED, NodeStatus.PROBATION})
DISTURBING_SHARE = 0.01  # of the nodes that went out or came back: KPIs are means, which fewer do not move beyond noise
DRIFT_S = 60.0  # for how long a drift of the environment is remembered: the spread of the nodes flickers
TAIL = 1.35  # times the critical gravity, beyond which a node is no tail of a drift


@dataclass(frozen=True, slots=True)
class Need:
    """Why something should be tried.

    Attributes:
        breached: KPIs held to be outside their limits.
        heading: KPIs close to their limits, or forecast to leave them.
        modelled: the identified environment explains it.
        asked: a person wants it, to whom healing had left the matter where it had run out of ideas.
    """

    breached: tuple[str, ...]
    heading: tuple[str, ...]
    modelled: bool
    asked: bool = False


class TrialGate:
    """Watches every tick for needs and obstacles.

    Args:
        policy: the numbers.
        gravity_critical: |g| from which a node is a gravity well.
    """

    def __init__(self, policy: HealingPolicy, gravity_critical: float) -> None:
        self._policy = policy
        self._gravity_critical = gravity_critical
        self._broken: deque[frozenset[str]] = deque(maxlen=policy.trigger_ticks)
        self._close: deque[frozenset[str]] = deque(maxlen=policy.trigger_ticks)
        self._drifted_at_s: float | None = None
        self._suspect_since_s: float | None = None
        self._now_s = 0.0

    def count(self, assessment: Assessment) -> None:
        """Take one tick in."""
        self._now_s = now_s = assessment.plant_time_s
        beyond = (KpiStatus.WARNING, KpiStatus.CRITICAL)
        kpis = assessment.kpis
        tuned = {name: kpis[name] for name in TUNABLE_KPIS if name in kpis}
        broken = frozenset(name for name, verdict in tuned.items() if verdict.status in beyond)
        self._broken.append(broken)
        self._close.append(broken | {name for name, verdict in tuned.items() if _near(name, verdict.value)})
        if drifted(assessment):
            self._drifted_at_s = now_s
        if self._drifted or not stands_out(assessment, self._gravity_critical):
            self._suspect_since_s = None
        elif self._suspect_since_s is None:
            self._suspect_since_s = now_s

    @property
    def suspect(self) -> bool:
        """Whether single nodes stand out, unconfirmed, in an environment that has not drifted."""
        return self._suspect_since_s is not None

    def need(self, assessment: Assessment, parameters: Parameters | None) -> Need | None:
        """What asks for a trial of the couplings, or None."""
        breached = {name for name in assessment.unhealthy() if name in TUNABLE_KPIS}
        lasting = bool(breached)
        breached |= _most(self._broken)
        heading = (_most(self._close) | set(drifting(assessment))) - breached
        modelled = bool(breached or heading) and parameters is not None and explained(assessment, parameters)
        if lasting or modelled:
            return Need(tuple(sorted(breached)), tuple(sorted(heading)), modelled)
        return None

    def wells_matter(self, state: DurableState, assessment: Assessment) -> bool:
        """Whether a confirmed well is more than the tail of a drift."""
        limit = TAIL * self._gravity_critical
        return any(not (self._drifted and gravity_of(assessment, well) <= limit) for well in state.wells)

    def calm(self, state: DurableState, assessment: Assessment) -> bool:
        """Whether nothing is wrong, and nothing was tried or isolated for long enough, so that cost may be saved."""
        policy = self._policy
        return (
            not assessment.unhealthy()
            and self._quiet_s(state, assessment) >= policy.holdoff_s
            and self._now_s - state.trial_tokens_at_s >= policy.improve_every_s / state.trust
        )

    def forbid(
        self,
        state: DurableState,
        assessment: Assessment,
        parameters: Parameters | None,
        forbidden_by: Guard | None,
        need: Need,
    ) -> Refusal | None:
        """The first guard that forbids a trial now, or None if it may be made."""
        policy, now_s = self._policy, self._now_s
        quiet_s, holdoff_s = self._quiet_s(state, assessment), policy.holdoff_s
        if need.modelled:
            holdoff_s = min(holdoff_s, policy.holdoff_model_s)
        suspect_s = now_s - (now_s - policy.suspect_s if self._suspect_since_s is None else self._suspect_since_s)
        tokens = policy.tokens(state.trial_tokens, now_s - state.trial_tokens_at_s)
        guards: tuple[tuple[bool, str, float, float], ...] = (
            (parameters is None, Guard.CAPABILITY, 0.0, 1.0),
            (forbidden_by is not None, forbidden_by or "", 0.0, 1.0),
            (self.wells_matter(state, assessment), "gravity_well", len(state.wells), 0.0),
            (bool(state.intents), Guard.IN_FLIGHT, len(state.intents), 0.0),
            (bool(assessment.plant_safe_mode), "plant_safe_mode", 1.0, 0.0),
            (suspect_s < policy.suspect_s and not need.modelled, "suspect_node", suspect_s, policy.suspect_s),
            (quiet_s < holdoff_s, "holdoff", quiet_s, holdoff_s),
            (now_s < state.exhausted_until_s and not need.asked, "exhausted", now_s, state.exhausted_until_s),
            (tokens < 1.0, Guard.RATE, tokens, 1.0),
        )
        subject = ",".join(need.breached or need.heading)
        for forbids, guard, observed, limit in guards:
            if forbids:
                return Refusal("heal", guard, subject, observed, limit, now_s)
        return None

    def _quiet_s(self, state: DurableState, assessment: Assessment) -> float:
        """Time since the plant was disturbed; nodes that went out or came back disturb it if they are not too few."""
        nodes = 1 if assessment.topology is None else len(assessment.topology.nodes)
        switched = [record.since_s for record in state.nodes.values() if record.status in SWITCHED]
        lately = [at_s for at_s in switched if self._now_s - at_s < self._policy.holdoff_s]
        disturbed = bool(lately) and len(lately) >= DISTURBING_SHARE * nodes
        return self._now_s - max(state.last_disturbance_s, max(lately) if disturbed else 0.0)

    @property
    def _drifted(self) -> bool:
        return self._drifted_at_s is not None and self._now_s - self._drifted_at_s <= DRIFT_S


def _most(ticks: deque[frozenset[str]]) -> set[str]:
    """What more than half of a full window's ticks hold."""
    return {name for name in TUNABLE_KPIS if 2 * sum(name in tick for tick in ticks) > (ticks.maxlen or 0)}


def _near(kpi: str, value: float) -> bool:
    """Whether a tuned KPI is closer to its limit than the tuner's model would leave it."""
    policy = DEFAULT_POLICY
    if kpi == "action_cost":
        return value > policy.action_cost_max
    return value < (policy.coherence_min if kpi == "coherence" else policy.gas_min)
