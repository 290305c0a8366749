"""The one object with governance memory: told what happened, it decides what to do.

    decision = governor.step(stimulus, now_s)      # pure: no clock, no I/O, deterministic

It owns the durable state and the volatile counters. The caller journals the decision's events before it carries out
its actions, and tells the governor what the plant replied. Time is the plant's time, handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metrics.assessment import Assessment
from metrics.observation import Capability
from state import stimulus as told
from state.command import ExemptionKind
from state.decision import Decision, Draft
from state.durable import RETRIED, SELF_ENDING, STATE_VERSION, DurableState
from state.event import EventKind
from state.healing import HealingPolicy
from state.isolation import SAFETY_GUARDS, Guard, IsolationPolicy, Refusal
from state.machine import PhaseMachine
from state.nodes import Licence, NodeGovernance
from state.operator_desk import OperatorDesk
from state.phase import Phase
from state.proposals import ProposalGovernance
from state.trials import TrialGovernance
from state.verdict import PhaseVerdict

__all__ = ["Governor", "GovernorSettings", "Refusal"]

EVIDENCE_MAX_S = 10.0  # plant time by which evidence may lag behind the newest that has been received
RETRY_BASE_S = 30.0  # a daemon makes the checks of a failed phase again, later each time
RETRY_MAX_S = 600.0
FRESH_START = frozenset({EventKind.SAFE_MODE_LEFT, EventKind.RESUMED})
ACTING = frozenset({Phase.PHASE_III, Phase.GOVERNING, Phase.ISOLATING})  # here nodes may be taken out and let in
STATIC = frozenset({Phase.SAFE_MODE, Phase.PAUSED, Phase.PHASE_IV, Phase.HEALING})  # here who is out stays out


@dataclass(frozen=True, slots=True)
class GovernorSettings:
    """How the governor governs.

    Attributes:
        isolation, healing: the policies.
        auto_apply: whether Phase IV applies corrections by itself.
        dry_run: assess and explain, act on nothing.
        daemon: True under `iace govern`.
    """

    isolation: IsolationPolicy
    healing: HealingPolicy
    auto_apply: bool = True
    dry_run: bool = False
    daemon: bool = False


class Governor:
    """Events in, decisions out."""

    def __init__(self, settings: GovernorSettings, state: DurableState | None = None) -> None:
        self.state = state or DurableState(PhaseMachine(daemon=settings.daemon))
        self.configure(settings)
        self._assessment: Assessment | None = None
        self._lag_s = 0.0
        self._capabilities: frozenset[Capability] = frozenset()
        self._closing = False
        self._corrections = False
        self._doubted_ticks = 0
        self._quiet_since_s: float | None = None
        self._steps: dict[type, Callable[[Draft, Any], None]] = {
            told.Started: self._started,
            told.Restarted: self._restarted,
            told.PlantLost: self._plant_lost,
            told.Commanded: self._commanded,
            told.RequestsRefused: self._requests_refused,
            told.ConfigReloaded: self._config_reloaded,
            told.Stopped: self._stopped,
            told.SnapshotDue: self._snapshot_due,
            told.Assessed: self._assessed,
            told.Replied: self._replied,
            told.PhaseEnded: self._phase_ended,
            told.ProbeIntended: self._probe_intended,
            told.ProbeUndone: self._probe_undone,
            told.ProbeEnded: self._probe_ended,
            told.WindowClosing: self._window_closing,
            told.WindowEnded: self._window_ended,
            told.CorrectionsOpened: self._corrections_opened,
            told.CorrectionsClosed: self._corrections_closed,
            told.ProposalWritten: self._proposal_written,
            told.SettingsBrought: self._settings_brought,
            told.InvariantBroken: self._invariant_broken,
            told.Ended: self._ended,
        }

    def configure(self, settings: GovernorSettings) -> None:
        """Govern by other settings from now on; ConfigReloaded or Restarted has to follow, which settles the rest."""
        self._settings = settings
        self._nodes = NodeGovernance(settings.isolation)
        critical = settings.isolation.gravity_critical
        self._trials = TrialGovernance(settings.healing, critical, dry_run=settings.dry_run)
        self._proposals = ProposalGovernance(settings.healing, self._trials)
        self._desk = OperatorDesk(self._nodes, self._trials, self._proposals)

    def step(self, stimulus: told.Stimulus, now_s: float) -> Decision:
        """Decide what follows from `stimulus` at plant time `now_s`."""
        draft = Draft(self.state, now_s)
        self._steps[type(stimulus)](draft, stimulus)
        if any(event.kind in FRESH_START for event in draft.events):
            self._doubted_ticks, self._quiet_since_s = 0, None
        return draft.finish()

    def snapshot(self) -> bytes:
        """The durable state as canonical bytes."""
        return self.state.snapshot()

    def blocked(self) -> tuple[str, ...]:
        """The wells that a safety guard forbids to isolate, as "subject (guard)"."""
        held = {
            subject: guard
            for subject, guard in self.state.blocked.items()
            if subject in self.state.wells and guard in SAFETY_GUARDS
        }
        return tuple(f"{subject} ({guard})" for subject, guard in sorted(held.items()))

    def _started(self, draft: Draft, started: told.Started) -> None:
        self._capabilities = started.capabilities
        draft.record(EventKind.RUN_STARTED, epoch=started.epoch, **started.facts)

    def _assessed(self, draft: Draft, assessed: told.Assessed) -> None:
        if self.state.phase.final:
            return
        assessment, parameters = assessed.assessment, assessed.parameters
        self._assessment, self._lag_s = assessment, assessed.lag_s
        self._nodes.count(assessment, self._under_maintenance(draft.now_s))
        self._trials.count(assessment)
        self._proposals.see(assessment, parameters)
        self._doubt(assessment, draft.now_s)
        if self._lag_s <= EVIDENCE_MAX_S:
            # What is made up for was seen before our latest actions, although it is taken in after them.
            self._nodes.settle(draft, assessment)
        self._trials.advance(draft, assessment, parameters)
        self._leave_isolating(draft)
        self._hold_if_suspect(draft, assessment)
        self._leave_safe_mode(draft)
        self._desk.advance(draft)
        self._proposals.advance(draft)
        self._nodes.govern(draft, assessment, self._licence(assessment))
        if self.state.phase is Phase.HEALING:
            self._trials.yield_to_wells(draft, assessment)
        if self.state.phase is Phase.GOVERNING:
            self._proposals.start(draft, assessment, parameters, self._forbids_trials(assessment))
        if self.state.phase is Phase.GOVERNING or (self.state.phase is Phase.PHASE_IV and self._corrections):
            self._trials.start(draft, assessment, parameters, self._forbids_trials(assessment))

    def _doubt(self, assessment: Assessment, now_s: float) -> None:
        """Count how long the sensors contradict service, or all has been seen to be quiet."""
        if assessment.sensors_doubted or self._nodes.storm is not None or not self._nodes.sighted:
            self._quiet_since_s = None
        elif self._quiet_since_s is None:
            self._quiet_since_s = now_s
        if assessment.sensors_doubted:
            self._doubted_ticks += 1
        elif self._quiet(now_s):
            self._doubted_ticks = 0

    def _quiet(self, now_s: float) -> bool:
        """Whether nothing has been suspect for the whole cool-down."""
        since_s = self._quiet_since_s
        return since_s is not None and now_s - since_s >= self._settings.isolation.storm_cooldown_s

    def _leave_isolating(self, draft: Draft) -> None:
        if self.state.phase is Phase.ISOLATING and not self.state.intents:
            draft.record(EventKind.ACTIONS_SETTLED)

    def _hold_if_suspect(self, draft: Draft, assessment: Assessment) -> None:
        """SAFE_MODE when the whole field is suspect; a trial is rolled back first."""
        policy, state = self._settings.isolation, self.state
        storm, doubted = self._nodes.storm, self._doubted_ticks >= policy.doubt_ticks and assessment.sensors_doubted
        if state.phase is Phase.HEALING and (storm or doubted):
            self._trials.roll_back(draft, "the evidence is suspect")
        elif self._watching() and storm:
            bad, assessed = storm
            draft.record(EventKind.STORM_DETECTED, bad=bad, assessed=assessed, fraction=bad / assessed)
        elif self._watching() and doubted:
            draft.record(
                EventKind.SENSORS_DOUBTED, disagreement=float(assessment.disagreement), ticks=self._doubted_ticks
            )

    def _leave_safe_mode(self, draft: Draft) -> None:
        """Out of SAFE_MODE where its cause has gone by itself, nothing is in flight and the run goes on."""
        policy, state = self._settings.isolation, self.state
        if state.phase is not Phase.SAFE_MODE or self._closing or state.intents or state.trial is not None:
            return
        held_s, wait_s = draft.now_s - state.safe_mode_since_s, self._retry_s()
        if policy.safe_mode_auto_clear and state.safe_mode_cause in SELF_ENDING and self._quiet(draft.now_s):
            draft.record(EventKind.SAFE_MODE_LEFT, reason=f"quiet for {policy.storm_cooldown_s:g} s")
            self._nodes.restart()
        elif self._settings.daemon and state.safe_mode_cause in RETRIED and held_s >= wait_s:
            draft.record(EventKind.SAFE_MODE_LEFT, reason=f"{state.machine.came_from} is tried again")
            self._nodes.restart()

    def _retry_s(self) -> float:
        return min(RETRY_MAX_S, RETRY_BASE_S * 2.0 ** min(10, self.state.phase_failures - 1))

    def _watching(self) -> bool:
        """True while the policy is armed: the daemon's states, and Phase III while its probe is open."""
        phase = self.state.phase
        if phase in (Phase.GOVERNING, Phase.ISOLATING):
            return True
        return phase is Phase.PHASE_III and any(probe.get("node") for probe in self.state.probes.values())

    def _licence(self, assessment: Assessment) -> Licence:
        static = self.state.phase in STATIC
        return Licence(
            self._watching() or static,
            self._forbids_actions(assessment),
            static=static,
            suspected_by=self._suspects(assessment),
            renewals_forbidden_by=self._forbids_all() or (Guard.STALE if self._lag_s > EVIDENCE_MAX_S else None),
        )

    def _under_maintenance(self, now_s: float) -> frozenset[str]:
        return frozenset(
            node
            for node, exemption in self.state.exemptions.items()
            if exemption.kind is ExemptionKind.MAINTENANCE and exemption.from_s <= now_s < exemption.until_s
        )

    def _suspects(self, assessment: Assessment) -> Guard | None:
        if self._nodes.storm is not None:
            return Guard.STORM
        return Guard.SENSORS if assessment.sensors_doubted else None

    def _forbids_all(self) -> Guard | None:
        if Capability.ISOLATE not in self._capabilities:
            return Guard.CAPABILITY
        return Guard.DRY_RUN if self._settings.dry_run else None

    def _forbids_actions(self, assessment: Assessment) -> Guard | None:
        phase, suspected_by = self.state.phase, self._suspects(assessment)
        answers = (
            (Capability.ISOLATE not in self._capabilities, Guard.CAPABILITY),
            (self.state.pause is not None, Guard.PAUSED),
            (phase is Phase.SAFE_MODE or not (self._watching() or phase is Phase.HEALING), Guard.STATE),
            (suspected_by is not None, suspected_by),
            (self._lag_s > EVIDENCE_MAX_S, Guard.STALE),
            (phase is Phase.HEALING, Guard.TRIAL_OPEN),
            (self._closing, Guard.CLOSING),
            (self._settings.dry_run, Guard.DRY_RUN),
        )
        return next((guard for forbids, guard in answers if forbids), None)

    def _forbids_trials(self, assessment: Assessment) -> Guard | None:
        answers = (
            (Capability.PARAMETERS not in self._capabilities, Guard.CAPABILITY),
            (self.state.pause is not None, Guard.PAUSED),
            (self._lag_s > EVIDENCE_MAX_S, Guard.STALE),
            (self._nodes.storm is not None, Guard.STORM),
            (assessment.sensors_doubted, Guard.SENSORS),
            (self._closing and self.state.phase is not Phase.PHASE_IV, Guard.CLOSING),
            (self._settings.dry_run, Guard.DRY_RUN),
        )
        return next((guard for forbids, guard in answers if forbids), None)

    def _replied(self, draft: Draft, replied: told.Replied) -> None:
        governance = self._nodes if replied.key in self.state.intents else self._trials
        governance.replied(draft, replied.key, replied.reply, replied.reason, replied.received_s)

    def _phase_ended(self, draft: Draft, ended: told.PhaseEnded) -> None:
        result = ended.result
        kind = {
            PhaseVerdict.PASSED: EventKind.PHASE_PASSED,
            PhaseVerdict.UNDECIDED: EventKind.PHASE_UNDECIDED,
            PhaseVerdict.FAILED: EventKind.PHASE_FAILED,
        }[result.verdict]
        draft.record(kind, phase=result.phase, checks={check.name: check.status for check in result.checks})

    def _probe_intended(self, draft: Draft, probe: told.ProbeIntended) -> None:
        extra = {"node": probe.node} if probe.node is not None else {}
        draft.record(EventKind.PROBE_INTENDED, probe=probe.probe, undo=dict(probe.undo), **extra)

    def _probe_undone(self, draft: Draft, probe: told.ProbeUndone) -> None:
        state, node = self.state, self.state.probes[probe.probe].get("node")
        if node not in state.out_of_service():
            return
        # A hold changes nothing, not even this, and a node with an action in flight has to wait for its end.
        guard = Guard.IN_FLIGHT if state.phase in ACTING else Guard.STATE
        if guard is Guard.STATE or any(intent.node == node for intent in state.intents.values()):
            draft.refuse(Refusal("restore", guard, node, 1.0, 0.0, draft.now_s))
        else:
            self._nodes.restore(draft, node, f"probe {probe.probe} is over")

    def _probe_ended(self, draft: Draft, probe: told.ProbeEnded) -> None:
        draft.record(EventKind.PROBE_ENDED, probe=probe.probe, result=dict(probe.result))

    def _window_closing(self, _draft: Draft, _closing: told.WindowClosing) -> None:
        self._closing = True

    def _window_ended(self, draft: Draft, _ended: told.WindowEnded) -> None:
        if self.state.phase is Phase.HEALING:
            self._trials.roll_back(draft, "the governing window is over")
        elif self.state.phase is Phase.GOVERNING:
            draft.record(EventKind.WINDOW_ENDED)

    def _corrections_opened(self, _draft: Draft, _opened: told.CorrectionsOpened) -> None:
        self._corrections = self._settings.auto_apply

    def _corrections_closed(self, draft: Draft, _closed: told.CorrectionsClosed) -> None:
        self._corrections = False
        self._trials.roll_back(draft, "Phase IV is over")

    def _proposal_written(self, draft: Draft, written: told.ProposalWritten) -> None:
        found_under = {} if written.previous is None else {"from": written.previous}
        direction = {} if written.parameters is None else {"direction": written.direction}
        draft.record(
            EventKind.PROPOSAL_WRITTEN,
            id=written.proposal,
            sha256=written.sha256,
            expires_s=written.expires_s,
            parameters=written.parameters,
            settings=written.settings,
            **found_under,
            **direction,
        )

    def _settings_brought(self, draft: Draft, brought: told.SettingsBrought) -> None:
        self._proposals.settle(draft, brought)

    def _invariant_broken(self, draft: Draft, broken: told.InvariantBroken) -> None:
        draft.record(EventKind.INVARIANT_BREACHED, invariant=broken.invariant, detail=broken.detail)
        self._trials.roll_back(draft, "an invariant was breached during the trial")

    def _ended(self, draft: Draft, ended: told.Ended) -> None:
        outcome = ended.outcome
        draft.record(
            EventKind.RUN_ENDED, exit_code=int(outcome.code), name=outcome.code.name, causes=list(outcome.causes)
        )

    def _restarted(self, draft: Draft, restarted: told.Restarted) -> None:
        """Go on: counters are fresh, what was in flight is read back, an open trial is rolled back."""
        self._capabilities = restarted.capabilities
        self._assessment, self._doubted_ticks, self._quiet_since_s = None, 0, None
        draft.record(EventKind.RESTARTED, epoch=restarted.epoch, **restarted.facts)
        self._nodes.reconcile(draft, restarted.received_s)
        self._trials.reconcile(draft, restarted.received_s)

    def _plant_lost(self, draft: Draft, lost: told.PlantLost) -> None:
        self._assessment = None
        draft.record(EventKind.PLANT_LOST, reason=lost.reason)

    def _commanded(self, draft: Draft, commanded: told.Commanded) -> None:
        blind = Licence(watching=False, forbidden_by=Guard.STALE)
        self._desk.take(draft, commanded, blind if self._assessment is None else self._licence(self._assessment))

    def _requests_refused(self, draft: Draft, refused: told.RequestsRefused) -> None:
        draft.record(EventKind.REQUESTS_REFUSED, counts=dict(refused.counts))

    def _config_reloaded(self, draft: Draft, reloaded: told.ConfigReloaded) -> None:
        """Go on by other settings: as after a restart, because `configure` left nothing of the counters."""
        draft.record(EventKind.CONFIG_RELOADED, sha256=reloaded.sha256, changed=list(reloaded.changed), by=reloaded.by)
        self._doubted_ticks, self._quiet_since_s = 0, None
        self._nodes.reconcile(draft, reloaded.received_s)
        self._trials.reconcile(draft, reloaded.received_s)

    def _stopped(self, draft: Draft, stopped: told.Stopped) -> None:
        draft.record(EventKind.STOPPED, exit_code=stopped.exit_code, reason=stopped.reason)

    def _snapshot_due(self, draft: Draft, _due: told.SnapshotDue) -> None:
        draft.record(EventKind.SNAPSHOT, state=self.state.as_plain(), version=STATE_VERSION)
