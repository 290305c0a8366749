"""What would this configuration have done on recorded telemetry, and is another one worse?

The real governor with the real isolation and healing policies is taken through a recording, tick by tick. It is in
GOVERNING from the first row on: there is nothing that phases could check. Without recorded phases there is no cluster
field and no sensor cross-check either; both are left out, and said.

Source: docs/backtest.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from controller import config as configuration
from controller.anomalies import grouped
from controller.evidence import Evidence, Floats
from controller.plants.replay import Replay
from controller.recording import Recording
from controller.settings import Config
from metrics.assessment import Anomaly, Assessment, Assessor
from metrics.errors import BadDataError
from metrics.gravity import FieldReading
from metrics.observation import Topology
from state.action import Action
from state.event import Event, EventKind
from state.governor import Governor, GovernorSettings
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy
from state.phase import Phase
from state.stimulus import Assessed, PhaseEnded, Started, Stimulus
from state.verdict import CheckResult, CheckStatus, PhaseResult

SUSPECT_ROWS = 4  # an incident's suspects are ranked by what they showed in its first rows
INCIDENT_GAP_ROWS = 1
SUSPECTS_TOLD = 5
ROUNDING = 1e-9  # sums of seconds differ in their last bits
GAP_STEPS_MAX = 10  # a longer gap in a recording counts as so many of its usual steps
NOT_APPLIED = (
    "sensor cross-check (needs recorded phases)",
    "gravity of clusters (recordings name none; all nodes count as one cluster)",
    "outcomes of trials (a recording cannot react; only what would have been tried is told)",
)
Outcome = dict[str, object]

_TOLD: Final = frozenset(
    {
        EventKind.GRAVITY_WELL_CONFIRMED,
        EventKind.ISOLATION_BLOCKED,
        EventKind.ISOLATION_INTENDED,
        EventKind.ISOLATION_EXPIRED,
        EventKind.RESTORATION_INTENDED,
        EventKind.NODE_READMITTED,
        EventKind.STORM_DETECTED,
        EventKind.SAFE_MODE_LEFT,
        EventKind.TRIAL_STARTED,
    }
)


def judge(
    recording: Recording,
    evidence: Evidence,
    config: Config,
    *,
    reference_g: float,
    progress: Callable[[int], None] = lambda _row: None,
) -> Outcome:
    """What `config` would have done, as JSON values.

    Args:
        recording: what was recorded.
        evidence: complete, of that recording.
        config: the configuration in question.
        reference_g: |g| beyond which a node counts as bad in the sums by which configurations are compared.
        progress: told the number of rows done.
    """
    run = _Run(recording, evidence, config)
    steps = _steps_s(recording.times_s)
    exposure_s = collateral_s = 0.0
    for row in range(len(recording.times_s)):
        active = run.tick(row)
        bad = run.trusted[row] & (run.gravity[row] > reference_g)
        exposure_s += float(steps[row] * np.count_nonzero(bad & active))
        collateral_s += float(steps[row] * np.count_nonzero(~bad & ~active))
        progress(row + 1)
    decisions = run.decisions
    return {
        "fingerprint": configuration.fingerprint(config),
        "incidents": incidents(recording, evidence, config.gravity.critical),
        "decisions": decisions,
        "withheld": list(run.withheld.values()),
        "anomalies": grouped(run.anomalies),
        "totals": {
            "wells": _count(decisions, EventKind.GRAVITY_WELL_CONFIRMED),
            "isolations": _count(decisions, EventKind.ISOLATION_INTENDED),
            "blocked": _count(decisions, EventKind.ISOLATION_BLOCKED),
            "storms": _count(decisions, EventKind.STORM_DETECTED),
            "trials": _count(decisions, EventKind.TRIAL_STARTED),
            "anomalies": len(run.anomalies),
            "exposure_node_s": exposure_s,
            "collateral_node_s": collateral_s,
        },
    }


def cost_node_s(outcome: Mapping[str, object]) -> float:
    """Node-seconds that bad nodes served plus node-seconds that others were out: less is better."""
    totals = cast("Mapping[str, float]", outcome["totals"])
    return float(totals["exposure_node_s"]) + float(totals["collateral_node_s"])


def is_worse(judged: Sequence[Mapping[str, object]]) -> bool:
    """Whether the second configuration costs more than the first."""
    return cost_node_s(judged[1]) > cost_node_s(judged[0]) * (1 + ROUNDING)


def compared(judged: Sequence[Mapping[str, object]]) -> Outcome:
    """Two outcomes side by side."""
    costs = [cost_node_s(outcome) for outcome in judged]
    verdict = "worse" if is_worse(judged) else "better" if is_worse(judged[::-1]) else "as good"
    return {
        "sides": [
            {"name": outcome["name"], "totals": outcome["totals"], "cost_node_s": cost}
            for outcome, cost in zip(judged, costs, strict=True)
        ],
        "verdict": verdict,
    }


def described(recording: Recording) -> Outcome:
    """What was recorded, and what of the policy cannot be applied to it."""
    return {
        "recording": {
            "source": recording.source,
            "ticks": len(recording.times_s),
            "first_s": float(recording.times_s[0]),
            "last_s": float(recording.times_s[-1]),
            "nodes": len(recording.nodes),
            "metrics": list(recording.metrics),
            "kpis": sorted(recording.kpis),
            "evidence": "node metrics" if recording.gravity is None else "recorded gravity",
            "rows": recording.rows,
            "bad_rows": len(recording.bad),
            "bad": [{"line": bad.line, "reason": bad.reason} for bad in recording.bad],
            "ignored": list(recording.ignored),
        },
        "not_applied": list(NOT_APPLIED),
    }


def moment(recording: Recording, evidence: Evidence, at_s: float) -> Outcome:
    """The suspects at a time of somebody's choice, whether it alarmed or not.

    Raises:
        BadDataError: it lies outside the recording.
    """
    row = int(np.searchsorted(recording.times_s, at_s))
    if not recording.times_s[0] <= at_s <= recording.times_s[-1]:
        first_s, last_s = recording.times_s[[0, -1]].tolist()
        raise BadDataError(f"{at_s:g} s is outside the recording, which goes from {first_s:g} s to {last_s:g} s")
    return {"at_s": at_s, "suspects": suspects(recording, evidence, row)}


def incidents(recording: Recording, evidence: Evidence, critical_g: float) -> list[Outcome]:
    """The times in which any trusted node was beyond `critical_g`, each with its suspects, worst first."""
    beyond = (evidence.trusted & (evidence.gravity > critical_g)).any(axis=1)
    rows = np.flatnonzero(beyond)
    if not rows.size:
        return []
    pieces = np.split(rows, np.flatnonzero(np.diff(rows) > INCIDENT_GAP_ROWS) + 1)
    return [
        {
            "from_s": float(recording.times_s[piece[0]]),
            "to_s": float(recording.times_s[piece[-1]]),
            "suspects": suspects(recording, evidence, int(piece[0])),
        }
        for piece in pieces
    ]


def suspects(recording: Recording, evidence: Evidence, row: int) -> list[Outcome]:
    """The nodes that rose most in `row` and the three after it, worst first, each with its reasons."""
    rise = evidence.rise[row : row + SUSPECT_ROWS]
    rise = np.where(np.isfinite(rise), rise, -np.inf)
    worst = rise.max(axis=0)
    when = row + rise.argmax(axis=0)
    order = [node for node in np.argsort(-worst, kind="stable").tolist() if np.isfinite(worst[node])]
    return [
        {
            "node": recording.nodes[node],
            "g": float(worst[node]),
            "at_s": float(recording.times_s[when[node]]),
            "why": evidence.why(int(when[node]), node),
        }
        for node in order[:SUSPECTS_TOLD]
    ]


@dataclass
class _Run:
    """One configuration on its way through a recording."""

    recording: Recording
    evidence: Evidence
    config: Config
    decisions: list[Outcome] = field(default_factory=list)
    withheld: dict[tuple[str, str, str], Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        policy = IsolationPolicy(gravity_critical=config.gravity.critical, **config.isolation.model_dump())
        healing = HealingPolicy(**config.healing.model_dump(exclude={"auto_apply"}))
        self._governor = Governor(GovernorSettings(policy, healing, daemon=True))
        self._replay = Replay(self.recording)
        self._assessor = Assessor(
            config.catalogue(),
            gravity_critical=config.gravity.critical,
            persistence_ticks=config.schedule.persistence_ticks,
        )
        self._row = 0
        self.gravity, self.trusted = self.evidence.gravity, self.evidence.trusted
        self._samples = np.cumsum(np.isfinite(self.evidence.rise), axis=0, dtype=np.int32)
        self.anomalies: list[Anomaly] = []
        self._tell(Started(1, self._replay.capabilities, {}))
        passed = (CheckResult("replay", CheckStatus.PASSED, "a recording has nothing to be checked"),)
        for phase in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III):
            self._tell(PhaseEnded(PhaseResult(phase, passed)))

    def tick(self, row: int) -> NDArray[np.bool_]:
        """Take one row in; which nodes served in it."""
        self._row = row
        observation = self._replay.observe(row)
        active = self._replay.active()
        assessment = self._assessor.assess(observation)
        self.anomalies.extend(assessment.anomalies)
        seen = self._with_nodes(assessment, active, self._replay.topology)
        self._tell(Assessed(seen, observation.parameters))
        return active

    def _with_nodes(self, assessment: Assessment, active: NDArray[np.bool_], topology: Topology | None) -> Assessment:
        """The assessment of the plant's KPIs, with the recorded nodes."""
        if topology is None:
            return replace(assessment, sensors_doubted=False)
        gravity = self.gravity[self._row]
        nothing = np.zeros(len(gravity))
        reading = FieldReading(
            tick=self._row,
            gravity=gravity,
            components=np.stack([nothing, np.nan_to_num(gravity), nothing], axis=1),
            samples=self._samples[self._row],
            trusted=self.trusted[self._row],
            cluster_gravity=np.zeros(1),
            cluster_order=np.full(1, np.nan),
            mean_field=complex(np.nan, np.nan),
            unit=self.config.gravity.unit,
            spread=1.0,
        )
        return replace(assessment, topology=topology, reading=reading, active=active, sensors_doubted=False)

    def _tell(self, stimulus: Stimulus) -> None:
        decision = self._governor.step(stimulus, self._replay.now_s)
        for event in decision.events:
            self._record(event)
        for refusal in decision.refusals:
            key = (refusal.rule, str(refusal.guard), refusal.subject)
            told = self.withheld.setdefault(
                key,
                {
                    "rule": refusal.rule,
                    "guard": str(refusal.guard),
                    "subject": refusal.subject,
                    "observed": refusal.observed,
                    "limit": refusal.limit,
                    "first_s": refusal.at_s,
                    "ticks": 0,
                },
            )
            told["ticks"] = cast("int", told["ticks"]) + 1
        for action in decision.actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        self._tell(self._replay.carry_out(action))

    def _record(self, event: Event) -> None:
        if event.kind not in _TOLD:
            return
        subject = str(event.data.get("node") or event.data.get("subject") or "")
        told: Outcome = {"at_s": event.at_s, "kind": event.kind.value, "subject": subject, "data": dict(event.data)}
        if subject in self.recording.nodes and event.kind in (
            EventKind.GRAVITY_WELL_CONFIRMED,
            EventKind.ISOLATION_INTENDED,
        ):
            told["why"] = self.evidence.why(self._row, self.recording.nodes.index(subject))
        self.decisions.append(told)


def _count(decisions: list[Outcome], kind: EventKind) -> int:
    return sum(decision["kind"] == kind for decision in decisions)


def _steps_s(times_s: Floats) -> Floats:
    """How long each row stands for: until the next one, but for gaps."""
    if times_s.size < 2:  # noqa: PLR2004 - one moment lasts no time
        return np.zeros(times_s.size)
    steps = np.diff(times_s)
    usual = float(np.median(steps))
    lasting: Floats = np.minimum(np.append(steps, usual), GAP_STEPS_MAX * usual)
    return lasting
