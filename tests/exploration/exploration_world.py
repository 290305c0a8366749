"""The governor and a plant, moved by one choice at a time and judged after each: the state that is explored.

The governor is the real one. The plant carries out what it is asked to, or not, and lets nodes back in when their time
limit ends. `Ghost` is what the explorer knows by itself, so that it need not believe the governor's own counters.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from exploration_evidence import BAD, Evidence, is_storm
from exploration_names import Namer
from exploration_saving import give_back, keep
from exploration_settings import (
    CONFIRM_TICKS,
    FLAP_OFFENCES,
    TICK_S,
    healing_policy,
    isolation_policy,
    topology_of,
)

from metrics.observation import Capability, Parameters
from state import governor, invariants, stimulus
from state.action import Action, ApplyParameters, IsolateNode, Reply, RestoreNode
from state.command import Command
from state.decision import Decision
from state.durable import POLICY, DurableState
from state.event import EventKind
from state.machine import PhaseMachine
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult

WEAK = Parameters(lambda1=0.01, lambda2=0.01)  # at the bounds: a step leads to the other bound, and nowhere else
STARTING = frozenset({EventKind.ISOLATION_INTENDED, EventKind.RESTORATION_INTENDED, EventKind.TRIAL_STARTED})
CHECKED = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III)


class ViolationError(Exception):
    """Something that must always hold did not."""


@dataclass(slots=True)
class Ghost:
    """What the explorer itself knows, to judge the governor by.

    Attributes:
        evidence: of the latest tick, node by node.
        bad_max: the most bad ticks in a row that the governor may have counted of each node after it.
        good_parameters: to which an open trial has to lead back.
    """

    evidence: tuple[str, ...] = ()
    bad_max: tuple[int, ...] = ()
    good_parameters: Parameters | None = None


@dataclass(slots=True)
class PlantState:
    """The plant: who is out until which time, what is in force, and what it has been asked and not answered yet."""

    out: dict[str, float] = field(default_factory=dict)
    parameters: Parameters = WEAK
    asked: tuple[Action, ...] = ()

    def carry_out(self, action: Action, now_s: float) -> None:
        """Do as told."""
        if isinstance(action, IsolateNode):
            self.out[action.node] = now_s + action.ttl_s
        elif isinstance(action, RestoreNode):
            self.out.pop(action.node, None)
        elif isinstance(action, ApplyParameters):
            self.parameters = action.parameters

    def let_in(self, now_s: float) -> None:
        """Whose time limit has come takes part again."""
        self.out = {node: until_s for node, until_s in self.out.items() if until_s > now_s}


class World:
    """One governor, one plant, and time.

    Args:
        size, clusters: of the plant.
        healing: whether parameters are tried.
        by_hand: whether nodes may be isolated by hand.
        blind: whether evidence may be missing.

    Attributes:
        heard: the kinds of events since the state was given back, in order.
    """

    def __init__(self, size: int, clusters: int, *, healing: bool, by_hand: bool, blind: bool) -> None:
        self.topology = topology_of(size, clusters)
        self.policy = isolation_policy(size)
        self.healing = healing
        self._settings = governor.GovernorSettings(self.policy, healing_policy(enabled=healing), daemon=True)
        self._namer = Namer(self.topology, self.policy, blind=blind, by_hand=by_hand, healing=healing)
        self.governor = governor.Governor(self._settings, DurableState(PhaseMachine(daemon=True)))
        self.plant, self.ghost, self.now_s, self.tick = PlantState(), Ghost(), 0.0, 0
        self.heard: list[EventKind] = []
        self._evidence = Evidence(self.topology, healing=healing)
        self._capabilities = frozenset(Capability)
        self.tell(stimulus.Started(1, self._capabilities, {}))

    # --- moving

    def end_phase(self, status: CheckStatus) -> None:
        """The present phase has been checked."""
        state = self.governor.state
        phase = state.phase if state.phase in CHECKED else state.machine.came_from
        self.tell(stimulus.PhaseEnded(PhaseResult(phase, (CheckResult("a.check", status, ""),))))

    def look(self, evidence: tuple[str, ...], kpis: str, *, doubted: bool) -> None:
        """A tick passes and is assessed: what each node looks like, the KPIs, and whether sensors contradict."""
        self._pass(1)
        active = np.array([node not in self.plant.out for node in self.topology.nodes])
        self._expect(evidence)
        storm = is_storm(evidence, active.tolist(), self.policy.evidence_nodes_min, self.policy.storm_fraction)
        assessment = self._evidence.assessment(self.tick, self.now_s, active, evidence, kpis, doubted=doubted)
        decision = self.tell(stimulus.Assessed(assessment, self.plant.parameters))
        if storm and any(e.kind in STARTING for e in decision.events):
            raise ViolationError("13: something was started in a storm")
        counted = self.governor._nodes._wells.nodes.bad.tolist()
        if any(bad > most for bad, most in zip(counted, self.ghost.bad_max, strict=True)):
            raise ViolationError(f"8: counted {counted} bad ticks, of which {self.ghost.bad_max} were seen")
        if any(counted) and any(e.kind is EventKind.SAFE_MODE_LEFT for e in decision.events):
            raise ViolationError("13: SAFE_MODE was left with counters of before")

    def react(self, index: int, reaction: str) -> None:
        """The plant's reaction to something it was asked; a crash is the controller's."""
        asked = self.plant.asked
        action, self.plant.asked = asked[index], asked[:index] + asked[index + 1 :]
        if reaction in ("applied", "lost after", "crash after"):
            self.plant.carry_out(action, self.now_s)
        if reaction.startswith("crash"):
            self.plant.asked = ()
            self.restart(away_ticks=0)
            return
        reply = {"applied": Reply.APPLIED, "refused": Reply.REFUSED}.get(reaction, Reply.UNKNOWN)
        self.tell(stimulus.Replied(action.key, reply, "", self.now_s))

    def restart(self, *, away_ticks: int) -> None:
        """The controller was away for some ticks, before which the plant was lost to it."""
        if away_ticks:
            self.tell(stimulus.PlantLost("silence"))
        self._pass(away_ticks)
        self.governor = governor.Governor(self._settings, self.governor.state)
        self.ghost.evidence = ()
        # Epochs are not looked at here; a growing one would make every state a new one.
        self.tell(stimulus.Restarted(1, self._capabilities, self.now_s, {}))

    def command(self, command: Command) -> None:
        """An operator's command."""
        self.tell(stimulus.Commanded(command, "ada", ""))

    def offend(self, node: str) -> None:
        """The node had offended more often than is counted: see `_forget`."""
        self.governor.state.nodes[node].offences = FLAP_OFFENCES

    def tell(self, what: stimulus.Stimulus) -> Decision:
        """Tell the governor, and judge what follows.

        Raises:
            ViolationError, InvariantBreachError: something does not hold.
        """
        pause = self.governor.state.pause
        decision = self.governor.step(what, self.now_s)
        state = self.governor.state
        invariants.check(state, self.policy, self.topology)
        kinds = [event.kind for event in decision.events]
        self.heard += kinds
        for event in decision.events:
            if event.kind is EventKind.ISOLATION_INTENDED and event.data["by"] == POLICY:
                self._was_confirmed(str(event.data["node"]))
            elif event.kind is EventKind.TRIAL_STARTED and event.data["from"] != self.plant.parameters.as_dict():
                raise ViolationError("12: a trial would lead back to what was not in force")
            elif event.kind is EventKind.TRIAL_STARTED:
                self.ghost.good_parameters = self.plant.parameters
            elif event.kind is EventKind.TRIAL_ROLLED_BACK and self.plant.parameters != self.ghost.good_parameters:
                raise ViolationError("12: a trial was not led back to the last good value")
        if pause is not None and state.pause is not None:
            self._was_paused(what, kinds, acknowledged=pause.acknowledged)
        self.plant.asked += decision.actions
        self._forget()
        return decision

    def _pass(self, ticks: int) -> None:
        self.tick += ticks
        self.now_s += ticks * TICK_S
        self.plant.let_in(self.now_s)

    def _forget(self) -> None:
        """From `FLAP_OFFENCES` on a node flaps, so more are counted as so many.

        A node that had more has as many left when one is forgiven or taken back. That is a choice of its own,
        `offend`, so that nothing which a longer history can do is lost.
        """
        for record in self.governor.state.nodes.values():
            record.offences = min(FLAP_OFFENCES, record.offences)

    # --- judging

    def _was_paused(self, what: stimulus.Stimulus, kinds: list[EventKind], *, acknowledged: bool) -> None:
        """Once asked for, a pause lets nothing be started but the end of a probe; in force, not even that."""
        undoing = isinstance(what, stimulus.ProbeUndone) and not acknowledged
        allowed = {EventKind.RESTORATION_INTENDED} if undoing else set()
        if any(kind in STARTING and kind not in allowed for kind in kinds):
            raise ViolationError("10: something was started in a pause")

    def _expect(self, evidence: tuple[str, ...]) -> None:
        """How many bad ticks in a row may be counted after this tick, given how many were counted before it."""
        before = self.governor._nodes._wells.nodes.bad.tolist() or [0] * len(evidence)
        self.ghost.evidence = evidence
        self.ghost.bad_max = tuple(
            n + 1 if what in BAD else n if what == "blind" else 0 for what, n in zip(evidence, before, strict=True)
        )

    def _was_confirmed(self, node: str) -> None:
        index, ghost = self.topology.index[node], self.ghost
        seen = ghost.evidence[index] if ghost.evidence else "not looked at"
        if seen not in BAD or ghost.bad_max[index] < CONFIRM_TICKS:
            raise ViolationError(f"8: {node} went on {ghost.bad_max[index]} bad ticks, the latest {seen}")

    # --- keeping and naming

    def save(self) -> tuple[Any, ...]:
        """Everything; the world must not be moved any more before `restore`."""
        return self.now_s, self.tick, self.plant, self.ghost, keep(self.governor, trials=self.healing)

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Go back to `saved`, on copies."""
        self.now_s, self.tick, plant, ghost, kept = saved
        self.plant = PlantState(dict(plant.out), plant.parameters, plant.asked)
        self.ghost = Ghost(ghost.evidence, ghost.bad_max, ghost.good_parameters)
        self.heard = []
        give_back(self.governor, kept)

    def name(self) -> Hashable:
        """The state, but for what cannot matter; equal names mean equal futures."""
        return self._namer.name(self.governor, self.plant, self.now_s)

    def node_names(self) -> list[tuple[Any, ...]]:
        """What is known of each node; nodes of one name and cluster are interchangeable."""
        return self._namer.nodes(self.governor, self.plant, self.now_s)
