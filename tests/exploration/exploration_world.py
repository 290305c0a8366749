"""The governor and a plant as one state of an exploration: saved, restored, moved by one choice, and named canonically.

The governor is the real one, and there is only one of it: a state is saved by taking its parts, and restored by giving
them back as copies. What cannot matter is left out of the name of a state: absolute times, the numbers of keys and
which of several equal nodes it is. Times are counted in ticks of a minute and capped where the policy stops looking.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metrics.assessment import Assessment
from metrics.gravity import FieldReading
from metrics.kpi import KpiStatus
from metrics.kpi_verdict import KpiVerdict
from metrics.observation import Capability, Parameters, Topology
from state import confirmation, governor, invariants, nodes, stimulus, wells
from state.action import Action, ApplyParameters, IsolateNode, Reply, RestoreNode
from state.command import Command
from state.decision import Decision
from state.durable import (
    POLICY,
    RETRIED,
    DurableState,
    Exemption,
    Intent,
    NodeRecord,
    NodeStatus,
    PauseRecord,
    Trial,
)
from state.event import EventKind
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy
from state.machine import Facts, PhaseMachine, TransitionRefusal
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult

TICK_S = 60.0
GRAVITY = {"good": 0.2, "bad": 2.0, "worse": 4.0, "blind": math.nan}
CONFIRM_TICKS = 2
OFFENCES_MAX = 2  # more than these count as these: from two on a person decides
REACTIONS = ("applied", "refused", "lost after", "lost before", "crash after", "crash before")
KPIS = {
    "well": {"coherence": 0.96, "gas": 0.97, "action_cost": 0.02, "delta_entropy": 0.0005},
    "ill": {"coherence": 0.96, "gas": 0.97, "action_cost": 0.08, "delta_entropy": 0.0005},
    "worse": {"coherence": 0.80, "gas": 0.97, "action_cost": 0.30, "delta_entropy": 0.0005},
    "unknown": {"coherence": math.nan, "gas": 0.97, "action_cost": 0.02, "delta_entropy": 0.0005},
}


class ViolationError(Exception):
    """Something that must always hold did not."""


def shorten_constants() -> None:
    """The test configuration of what is no setting: as few ticks as still tell before from after."""
    confirmation.PATIENCE_TICKS = 1
    wells.GONE_TICKS = 1
    nodes.RENEW_BEFORE_S = TICK_S
    governor.RETRY_BASE_S = governor.RETRY_MAX_S = TICK_S


def test_policy(size: int) -> IsolationPolicy:
    """Confirmation 2, capped back-off, everything else within a few ticks."""
    return IsolationPolicy(
        confirm_ticks=CONFIRM_TICKS,
        cluster_fraction_max=0.5,
        fraction_max=0.4,
        quorum=2,
        evidence_nodes_min=min(size - 1, 3),
        rate_per_minute=1.0,
        burst=1.0,
        verify_s=TICK_S,
        backoff_base_s=TICK_S,
        backoff_max_s=TICK_S,
        backoff_jitter=0.0,
        forgive_s=TICK_S,
        flap_offences=2,
        ttl_s=3 * TICK_S,
        probation_ticks=1,
        storm_cooldown_s=TICK_S,
        doubt_ticks=2,
    )


def test_healing(*, enabled: bool) -> HealingPolicy:
    """Windows of a tick or two, few steps, few trials."""
    return HealingPolicy(
        enabled=enabled,
        step=10.0,
        trigger_ticks=1,
        baseline_ticks=1,
        settle_ticks=0,
        measure_ticks=1,
        holdoff_s=0.0,
        holdoff_model_s=0.0,
        suspect_s=0.0,
        trials_max=2,
        backoff_base_s=TICK_S,
        backoff_max_s=TICK_S,
        burst=1000.0,
        per_hour=1e6,
        verify_s=TICK_S,
    )


def topology_of(size: int, clusters: int) -> Topology:
    """Nodes n0, n1, ... in equal clusters."""
    names = tuple(f"n{i}" for i in range(size))
    members = (np.arange(size) * clusters // size).astype(np.int32)
    return Topology(names, tuple(f"c{i}" for i in range(clusters)), members)


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
    parameters: Parameters = field(default_factory=Parameters)
    asked: tuple[Action, ...] = ()

    def carry_out(self, action: Action, now_s: float) -> None:
        """Do as told."""
        if isinstance(action, IsolateNode):
            self.out[action.node] = now_s + action.ttl_s
        elif isinstance(action, RestoreNode):
            self.out.pop(action.node, None)
        elif isinstance(action, ApplyParameters):
            self.parameters = action.parameters


class World:
    """One governor, one plant, and time.

    Args:
        size, clusters: of the plant.
        healing: whether parameters are tried.
        by_hand: whether nodes may be isolated by hand, for which it matters what was seen last.
    """

    def __init__(self, size: int, clusters: int, *, healing: bool, by_hand: bool) -> None:
        self.by_hand = by_hand
        self.topology = topology_of(size, clusters)
        self.policy = test_policy(size)
        self.healing = healing
        self._settings = governor.GovernorSettings(self.policy, test_healing(enabled=healing), daemon=True)
        self.governor = governor.Governor(self._settings, DurableState(PhaseMachine(daemon=True)))
        self.plant, self.ghost, self.now_s, self.tick = PlantState(), Ghost(), 0.0, 0
        self._readings: dict[Hashable, FieldReading] = {}
        capabilities = frozenset(Capability)
        self._tell(stimulus.Started(1, capabilities, {}))
        self._capabilities = capabilities

    # --- moving

    def end_phase(self, status: CheckStatus) -> None:
        """The present phase has been checked."""
        phase = self.governor.state.phase
        if phase not in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III):
            phase = self.governor.state.machine.came_from
        self._tell(stimulus.PhaseEnded(PhaseResult(phase, (CheckResult("a.check", status, ""),))))

    def look(self, evidence: tuple[str, ...], kpis: str, *, doubted: bool) -> None:
        """A tick passes and is assessed: what each node looks like, the KPIs, and whether sensors contradict."""
        self.tick += 1
        self.now_s += TICK_S
        self.plant.out = {node: until_s for node, until_s in self.plant.out.items() if until_s > self.now_s}
        active = np.array([node not in self.plant.out for node in self.topology.nodes])
        self._expect(evidence)
        trusted_active = [what for what, serves in zip(evidence, active, strict=True) if serves and what != "blind"]
        bad = sum(what in ("bad", "worse") for what in trusted_active)
        enough = len(trusted_active) >= self.policy.evidence_nodes_min
        storm = enough and bad >= self.policy.storm_fraction * len(trusted_active) - 1e-9
        assessment = self._assessment(evidence, active, kpis, doubted=doubted)
        decision = self._tell(stimulus.Assessed(assessment, self.plant.parameters))
        if storm and any(e.kind in STARTING for e in decision.events):
            raise ViolationError("13: something was started in a storm")
        counters = self.governor._nodes._wells.nodes
        if (counters.bad > np.array(self.ghost.bad_max)).any():
            raise ViolationError(f"8: counted {counters.bad} bad ticks, of which {self.ghost.bad_max} were seen")
        left = any(e.kind is EventKind.SAFE_MODE_LEFT for e in decision.events)
        if left and counters.bad.any():
            raise ViolationError("13: SAFE_MODE was left with counters of before")

    def react(self, reaction: str) -> None:
        """The plant's reaction to the first thing it was asked; a crash is the controller's."""
        action, *rest = self.plant.asked
        self.plant.asked = tuple(rest)
        if reaction in ("applied", "lost after", "crash after"):
            self.plant.carry_out(action, self.now_s)
        if reaction.startswith("crash"):
            self.plant.asked = ()
            self.restart(away_ticks=0)
            return
        reply = {"applied": Reply.APPLIED, "refused": Reply.REFUSED}.get(reaction, Reply.UNKNOWN)
        self._tell(stimulus.Replied(action.key, reply, "", self.now_s))

    def restart(self, *, away_ticks: int) -> None:
        """The controller was away for some ticks, before which the plant was lost to it."""
        if away_ticks:
            self._tell(stimulus.PlantLost("silence"))
        self.now_s += away_ticks * TICK_S
        self.tick += away_ticks
        self.plant.out = {node: until_s for node, until_s in self.plant.out.items() if until_s > self.now_s}
        self.governor = governor.Governor(self._settings, self.governor.state)
        self.ghost.evidence = ()
        # Epochs are not looked at here; a growing one would make every state a new one.
        self._tell(stimulus.Restarted(1, self._capabilities, self.now_s, {}))

    def command(self, command: Command) -> None:
        """An operator's command."""
        self._tell(stimulus.Commanded(command, "ada", ""))

    def tell(self, what: stimulus.Stimulus) -> None:
        """Anything else."""
        self._tell(what)

    def _tell(self, what: stimulus.Stimulus) -> Decision:
        state = self.governor.state
        held = state.pause is not None
        decision = self.governor.step(what, self.now_s)
        state = self.governor.state
        invariants.check(state, self.policy, self.topology)
        for event in decision.events:
            if event.kind is EventKind.ISOLATION_INTENDED and event.data["by"] == POLICY:
                self._was_confirmed(str(event.data["node"]))
            if event.kind is EventKind.TRIAL_STARTED and state.trial is not None:
                self.ghost.good_parameters = Parameters.parse(state.trial.previous)
            if event.kind is EventKind.TRIAL_ROLLED_BACK and self.plant.parameters != self.ghost.good_parameters:
                raise ViolationError("12: a trial was not led back to the last good value")
        if held and state.pause is not None and any(e.kind in STARTING for e in decision.events):
            raise ViolationError("10: something was started in a pause")
        self.plant.asked += decision.actions
        return decision

    def _expect(self, evidence: tuple[str, ...]) -> None:
        """How many bad ticks in a row may be counted after this tick, given how many were counted before it."""
        counters = self.governor._nodes._wells.nodes
        before = counters.bad if len(counters.bad) else np.zeros(len(evidence), dtype=int)
        step = {"good": lambda _n: 0, "blind": lambda n: n, "bad": lambda n: n + 1, "worse": lambda n: n + 1}
        self.ghost.evidence = evidence
        self.ghost.bad_max = tuple(step[what](int(n)) for what, n in zip(evidence, before, strict=True))

    def _was_confirmed(self, node: str) -> None:
        index, ghost = self.topology.index[node], self.ghost
        if ghost.evidence[index] not in ("bad", "worse") or ghost.bad_max[index] < CONFIRM_TICKS:
            raise ViolationError(
                f"8: {node} went on {ghost.bad_max[index]} bad ticks, the latest {ghost.evidence[index]}"
            )

    def _assessment(self, evidence: tuple[str, ...], active: np.ndarray, kpis: str, *, doubted: bool) -> Assessment:
        persistent = KpiStatus.HEALTHY if kpis == "well" else KpiStatus.WARNING
        verdicts = {}
        if self.healing:
            verdicts = {
                name: KpiVerdict(
                    name,
                    value,
                    KpiStatus.HEALTHY if math.isfinite(value) else KpiStatus.UNKNOWN,
                    persistent if name == "action_cost" else KpiStatus.HEALTHY,
                )
                for name, value in KPIS[kpis].items()
            }
        return Assessment(
            tick=self.tick,
            plant_time_s=self.now_s,
            received_s=self.now_s,
            kpis=verdicts,
            topology=self.topology,
            reading=self._reading(evidence),
            active=active,
            disagreement=0.1 if doubted else 0.0,
            sensors_doubted=doubted,
            anomalies=(),
            scores={},
            plant_safe_mode=False,
        )

    def _reading(self, evidence: tuple[str, ...]) -> FieldReading:
        if evidence not in self._readings:
            gravity = np.array([GRAVITY[what] for what in evidence])
            count, clusters = len(evidence), len(self.topology.clusters)
            self._readings[evidence] = FieldReading(
                tick=0,
                gravity=gravity,
                components=np.stack([np.zeros(count), gravity, np.zeros(count)], axis=1),
                samples=np.full(count, 100, dtype=np.int32),
                trusted=np.array([what != "blind" for what in evidence]),
                cluster_gravity=np.full(clusters, 0.2),
                cluster_order=np.full(clusters, 0.97),
                mean_field=0.96 + 0j,
                unit=0.4,
                spread=1.0,
            )
        return self._readings[evidence]

    # --- saving

    def save(self) -> Any:
        """Everything; it is not to be changed any more."""
        gov = self.governor
        flight, watch = gov._nodes._in_flight, gov._nodes._wells
        return (
            (self.now_s, self.tick, self.plant, self.ghost, gov.state),
            tuple(getattr(gov, name) for name in OF_GOVERNOR),
            tuple(getattr(gov._nodes, name) for name in OF_NODES),
            tuple(getattr(watch, name) for name in OF_WATCH),
            tuple(getattr(flight, name) for name in OF_FLIGHT),
            gov._trials if self.healing else None,
        )

    def restore(self, saved: Any) -> None:
        """Go back to `saved`, on copies."""
        (self.now_s, self.tick, plant, ghost, state), *parts, trials = saved
        self.plant = PlantState(dict(plant.out), plant.parameters, plant.asked)
        self.ghost = Ghost(ghost.evidence, ghost.bad_max, ghost.good_parameters)
        gov = self.governor
        gov.state = _state_copy(state)
        owners = (gov, gov._nodes, gov._nodes._wells, gov._nodes._in_flight)
        for owner, names, values in zip(owners, (OF_GOVERNOR, OF_NODES, OF_WATCH, OF_FLIGHT), parts, strict=True):
            for name, value in zip(names, values, strict=True):
                setattr(owner, name, _copied(value))
        if trials is not None:
            policy = trials._policy
            gov._trials = gov._desk._trials = copy.deepcopy(trials, {id(policy): policy})

    # --- naming

    def name(self) -> Hashable:
        """The state, but for what cannot matter; equal names mean equal futures."""
        gov, state = self.governor, self.governor.state
        locals_ = [self._node_name(index, node) for index, node in enumerate(self.topology.nodes)]
        size = len(self.topology.nodes) // len(self.topology.clusters)
        clusters = sorted(tuple(sorted(locals_[at : at + size])) for at in range(0, len(locals_), size))
        phase, pause = state.phase, state.pause
        held = phase in (Phase.SAFE_MODE, Phase.PAUSED)
        quiet = gov._quiet_since_s if held or gov._doubted_ticks else None
        return (
            phase,
            state.machine.came_from if phase in EXCURSIONS else None,
            tuple(clusters),
            round(self.policy.tokens(state.tokens, self.now_s - state.tokens_at_s, len(self.topology.nodes)), 3),
            state.safe_mode_cause,
            self._since(state.safe_mode_since_s, 1) if state.safe_mode_cause in RETRIED else None,
            min(2, state.phase_failures),
            None if pause is None else (pause.acknowledged, self._until(pause.until_s)),
            None if quiet is None else self._since(quiet, 1),
            min(2, gov._doubted_ticks),
            held and gov._nodes.storm is not None,
            self._shown(gov._assessment),
            tuple(state.probes),
            self._trial_name(),
            tuple((type(action).__name__, self._whose(action)) for action in self.plant.asked),
        )

    def _shown(self, assessment: Assessment | None) -> bool | None:
        """What commands by hand ask of the latest tick."""
        if assessment is None:
            return None if self.by_hand else False
        return assessment.sensors_doubted

    def _whose(self, action: Action) -> Hashable:
        """An action is named by the state of its node, not by its name."""
        if isinstance(action, ApplyParameters):
            return tuple(action.parameters.as_dict().values())
        return self._node_name(self.topology.index[action.node], action.node)

    def _node_name(self, index: int, node: str) -> tuple[Any, ...]:
        state = self.governor.state
        record, exemption, out_s = state.nodes.get(node), state.exemptions.get(node), self.plant.out.get(node)
        return (
            () if record is None else self._record_name(record),
            self._intent_name(node),
            self._counters_name(index, record is not None),
            # Without trials wells are told and decide nothing.
            self.healing and node in state.wells,
            -1 if out_s is None else self._until(out_s),
            () if exemption is None else (self._until(exemption.until_s), exemption.kind.value),
            any(probe.get("node") == node for probe in state.probes.values()),
        )

    def _record_name(self, record: NodeRecord) -> tuple[Any, ...]:
        out = record.status in OUT
        return (
            record.status.value,
            min(OFFENCES_MAX, record.offences),
            record.by == POLICY,
            record.flapping,
            (self._since(record.isolated_s, 1), self._until(record.until_s)) if out else (),
        )

    def _intent_name(self, node: str) -> tuple[Any, ...]:
        intent = next((i for i in self.governor.state.intents.values() if i.node == node), None)
        if intent is None:
            return ()
        seen = self.governor._nodes._in_flight
        return (
            intent.kind.value,
            str(intent.reply),
            intent.key in seen._replied_at,
            intent.key in seen._first_look_s,
            intent.key in seen._uncertain,
        )

    def _counters_name(self, index: int, known: bool) -> tuple[int, ...]:  # noqa: FBT001 - whether there is a record
        counters = self.governor._nodes._wells.nodes
        if index >= len(counters.bad):
            return (0, 0, 0, 0)
        bad = min(CONFIRM_TICKS, int(counters.bad[index]))
        calm = min(wells.GONE_TICKS, int(counters.calm[index])) if known or self.healing else 0
        clean = min(1, int(counters.clean[index])) if known else 0
        blind = min(2, int(counters._blind[index])) if bad or calm or clean else 0
        return (bad, calm, clean, blind)

    def _trial_name(self) -> Hashable:
        if not self.healing:
            return None
        state, trials = self.governor.state, self.governor._trials
        trial = state.trial
        open_trial = None
        if trial is not None:
            open_trial = (
                tuple(trial.previous.values()),
                tuple(trial.proposed.values()),
                trial.direction,
                trial.applied,
                trial.rollback_key is not None,
                trial.fault,
                tuple(sorted(trial.baseline.items())),
                tuple(
                    _ago(times.get(key), self.now_s)
                    for times in (trials._replied_at, trials._first_look_s)
                    for key in (trial.key, trial.rollback_key or "")
                ),
                min(9, trials._settled_ticks),
            )
        return (
            open_trial,
            tuple(self.plant.parameters.as_dict().values()),
            state.failed_trials,
            min(3, state.exhaustions),
            self._until(state.exhausted_until_s),
            state.last_direction,
            state.last_kept,
            tuple(trials._window._samples),
            tuple(map(tuple, map(sorted, trials._gate._broken))),
            tuple(map(tuple, map(sorted, trials._gate._close))),
            min(9, trials._idle_ticks),
        )

    def _since(self, at_s: float, most: int) -> int:
        return min(most, round((self.now_s - at_s) / TICK_S))

    def _until(self, at_s: float) -> int:
        return max(0, round((at_s - self.now_s) / TICK_S))


EXCURSIONS = (Phase.ISOLATING, Phase.HEALING, Phase.SAFE_MODE, Phase.PAUSED)
OUT = (NodeStatus.ISOLATING, NodeStatus.ISOLATED)
STARTING = (EventKind.ISOLATION_INTENDED, EventKind.RESTORATION_INTENDED, EventKind.TRIAL_STARTED)

# Whatever of the governor can change, besides the durable state and the trials.
OF_GOVERNOR = ("_assessment", "_lag_s", "_capabilities", "_closing", "_corrections", "_doubted_ticks", "_quiet_since_s")
OF_NODES = ("_forgiven_at", "_renewed_at", "_seen", "_latest", "_tick_s")
OF_WATCH = ("_topology", "nodes", "clusters", "storm", "sighted", "_drift_ticks")
OF_FLIGHT = ("_replied_at", "_first_look_s", "_uncertain")
_FIELDS = tuple(item.name for item in dataclasses.fields(DurableState) if item.name != "machine")


def _ago(at_s: float | None, now_s: float) -> int:
    return -1 if at_s is None else min(2, round((now_s - at_s) / TICK_S))


def _state_copy(state: DurableState) -> DurableState:
    clone = object.__new__(DurableState)
    for name in _FIELDS:
        setattr(clone, name, _copied(getattr(state, name)))
    clone.machine = _LightMachine(state.machine)
    return clone


class _LightMachine(PhaseMachine):
    """A phase machine that borrows the library's machine, which is dear to make, only while it moves."""

    _shared = PhaseMachine(daemon=True)

    def __init__(self, like: PhaseMachine) -> None:
        self.daemon, self.came_from, self.state = like.daemon, like.came_from, like.state

    def fire(self, event: EventKind, facts: Facts = Facts()) -> TransitionRefusal | None:  # noqa: B008 - frozen
        """Move along the table, by the real machine."""
        shared = _LightMachine._shared
        shared.daemon, shared.came_from, shared.state = self.daemon, self.came_from, self.state
        refusal = shared.fire(event, facts)
        self.came_from, self.state = shared.came_from, shared.state
        return refusal


def _copied(value: Any) -> Any:
    """A copy of what can change; the records in a dict, too."""
    kind = type(value)
    if kind is dict:
        return {key: _copied(entry) for key, entry in value.items()} if value else {}
    if kind is set:
        return set(value)
    if kind in _RECORDS:
        clone = object.__new__(kind)
        for slot in kind.__slots__:
            setattr(clone, slot, getattr(value, slot))
        return clone
    if kind is confirmation.Confirmation:
        clone = object.__new__(kind)
        clone.__dict__.update({n: v.copy() if type(v) is np.ndarray else v for n, v in value.__dict__.items()})
        return clone
    return value


_RECORDS = frozenset({NodeRecord, Intent, PauseRecord, Exemption, Trial})


def multisets(classes: list[list[int]], alphabet: tuple[str, ...]) -> Iterator[dict[int, str]]:
    """Every way to deal letters to nodes, where the nodes of a class cannot be told apart."""
    if not classes:
        yield {}
        return
    first, *rest = classes
    for dealt in _dealt(len(first), alphabet):
        for others in multisets(rest, alphabet):
            yield dict(zip(first, dealt, strict=True)) | others


def _dealt(count: int, alphabet: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if count == 0:
        yield ()
        return
    for at, letter in enumerate(alphabet):
        for rest in _dealt(count - 1, alphabet[at:]):
            yield (letter, *rest)
