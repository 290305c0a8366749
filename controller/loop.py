"""One tick, as prose: observe, publish, assess, decide, record, act.

The loop is told to tick and does not know by whom: a virtual clock drives it as fast as the processor allows, the
scheduler drives it in real time. Publishing cannot delay deciding, and nothing is done to the plant before the
decision to do it is durable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from controller.clock import Clock
from controller.effector import Effector
from controller.plant_time import PlantTime
from controller.plants.plant import Plant
from controller.publisher import Publisher
from controller.record import Recorded, RunRecord
from metrics.assessment import Assessment, Assessor
from metrics.observation import Observation, Parameters, Topology
from state import invariants
from state.action import Action, Reply
from state.decision import Decision
from state.durable import IntentKind
from state.event import EventKind
from state.governor import EVIDENCE_MAX_S, Governor
from state.isolation import IsolationPolicy
from state.journal import Journal
from state.stimulus import Assessed, Replied, Stimulus


@dataclass(frozen=True, slots=True)
class Seen:
    """One tick of the plant as everybody else gets to see it."""

    observation: Observation
    assessment: Assessment


class Loop:
    """The loop over one plant.

    Args:
        plant, clock: what is observed, and when.
        assessor, governor: what measures and what decides.
        journal: where decisions become durable.
        effector: what acts.
        publisher: telemetry; it never holds the loop up.
        record: what the report is made from.
        policy: the isolation policy, for the invariants.
        deadline_s: how long an observation may take.
        time: the governor's time; a daemon's goes on over restarts.

    Attributes:
        backlog: ticks that have been received and not yet been taken in; after a late look there are several.
    """

    def __init__(
        self,
        *,
        plant: Plant,
        clock: Clock,
        assessor: Assessor,
        governor: Governor,
        journal: Journal,
        effector: Effector,
        publisher: Publisher,
        record: RunRecord,
        policy: IsolationPolicy,
        deadline_s: float,
        time: PlantTime | None = None,
    ) -> None:
        self.governor = governor
        self._time = time or PlantTime()
        self.now_s = self._time.now_s
        self.assessment: Assessment | None = None
        self.parameters: Parameters | None = None
        self._plant = plant
        self._clock = clock
        self._assessor = assessor
        self._journal = journal
        self._effector = effector
        self._publisher = publisher
        self._record = record
        self._policy = policy
        self._deadline_s = deadline_s
        self.topology: Topology | None = None
        self.backlog = 0
        self._last_tick = -1

    @property
    def journal_tip(self) -> tuple[int, str]:
        """Sequence and hash of the last durable event."""
        return self._journal.tip.seq, self._journal.tip.hash

    def unhealthy(self) -> tuple[str, ...]:
        """The KPIs that are persistently outside their limits as of the latest tick."""
        return self.assessment.unhealthy() if self.assessment is not None else ()

    def reassess(self, assessor: Assessor, policy: IsolationPolicy) -> None:
        """Measure and check by another configuration from the next tick on."""
        self._assessor, self._policy = assessor, policy

    def tick(self) -> Iterator[Seen]:
        """Take in whatever ticks the plant has made since the last call, oldest first.

        Raises:
            PlantUnavailableError: it did not answer, or not intelligibly.
            StoreFailedError: a decision could not be made durable; nothing was done.
            InvariantBreachError: a bug; nothing was done.
        """
        observations = self._plant.observe(self._deadline_s)
        for taken, observation in enumerate(observations, start=1):
            self.backlog = len(observations) - taken
            if observation.tick <= self._last_tick:
                continue  # stale evidence decides nothing
            self._last_tick = observation.tick
            lag_s = observations[-1].plant_time_s - observation.plant_time_s
            # Where the plant's clock was set back meanwhile nobody knows how old a tick from before is.
            yield self._take(observation, lag_s if lag_s >= 0.0 else math.inf)

    def tell(self, stimulus: Stimulus) -> Decision:
        """Let the governor decide on something, make the decision durable, and carry it out."""
        return self.obey(stimulus)[0]

    def obey(self, stimulus: Stimulus) -> tuple[Decision, tuple[Replied, ...]]:
        """The same, with what became of each action."""
        decision = self.governor.step(stimulus, self.now_s)
        return decision, self.carry_out(decision)

    def carry_out(self, decision: Decision) -> tuple[Replied, ...]:
        """Make a decision durable, then do what it says; what became of each of its actions."""
        if self.topology is not None:
            # Where the plant itself has shrunk, what is out may be beyond a budget without anybody having acted.
            taken = [str(e.data["node"]) for e in decision.events if e.kind is EventKind.ISOLATION_INTENDED]
            invariants.check(self.governor.state, self._policy, self.topology, taken=taken)
        entries = self._journal.append(decision.events, epoch=self.governor.state.epoch, wall_time=self._clock.wall())
        for entry in entries:
            self._publisher.event(Recorded(entry.seq, entry.hash, entry.event))
        self._record.refuse(decision.refusals)
        replies = []
        for action in decision.actions:
            replied = self._given_up(action) or self._too_late(action) or self._effector.carry_out(action)
            self.tell(replied)
            replies.append(replied)
        return tuple(replies)

    def _given_up(self, action: Action) -> Replied | None:
        """That an action on a node is not sent any more, because the plant has refused another one meanwhile.

        What a refusal means shows at the next look, and may be SAFE_MODE, in which nobody is taken out or let in.
        Renewals and parameters are exempt: they keep, or bring back, what was.
        """
        intents = self.governor.state.intents
        if action.key not in intents or intents[action.key].kind is IntentKind.RENEW:
            return None
        refused = [i for i in intents.values() if i.reply is Reply.REFUSED and i.kind is not IntentKind.RENEW]
        if not refused:
            return None
        reason = f"not sent: the plant has refused to {refused[0].kind} {refused[0].node}"
        return Replied(action.key, Reply.VOID, reason, self._clock.monotonic_s())

    def _too_late(self, action: Action) -> Replied | None:
        """That an action on a node is not sent any more, because what it was decided on has become too old meanwhile.

        Renewals and parameters are exempt: they keep, or bring back, what was.
        """
        intent = self.governor.state.intents.get(action.key)
        if self.assessment is None or intent is None or intent.kind is IntentKind.RENEW:
            return None
        received_s = self._clock.monotonic_s()
        age_s = received_s - self.assessment.received_s
        if age_s <= EVIDENCE_MAX_S:
            return None
        return Replied(action.key, Reply.VOID, f"not sent: the evidence was {age_s:.0f} s old", received_s)

    def _take(self, observation: Observation, lag_s: float) -> Seen:
        self.now_s = self._time.at(observation.tick, observation.plant_time_s)
        if self.now_s != observation.plant_time_s:
            observation = replace(observation, plant_time_s=self.now_s)
        self.topology = observation.topology
        assessment = self._assessor.assess(observation)
        self._publisher.tick(observation, assessment, self.governor.state.phase)
        self.assessment, self.parameters = assessment, observation.parameters
        self.tell(Assessed(assessment, observation.parameters, lag_s))
        return Seen(observation, assessment)
