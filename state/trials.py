"""One parameter trial at a time: propose, apply, settle, measure, keep or roll back, and verify even the rollback.

Nothing is tuned while nodes are the matter (a confirmed well, an action in flight), while the evidence is doubted, or
while the plant holds its own safe mode. Whatever happens, the last good value was journaled before the trial began.

Source: docs/model.md section 6.
"""

from __future__ import annotations

from metrics.assessment import Assessment
from metrics.observation import Parameters
from state.action import ApplyParameters, Reply
from state.decision import Draft
from state.durable import Trial
from state.event import EventKind
from state.healing import ABORT_TICKS, HealingPolicy, Window, abort_reason, improved, propose
from state.isolation import Guard, Refusal
from state.readback import REPLY_EVENTS

BLIND_FACTOR = 2  # so many times as long as a window is made of a trial waits for it to fill


class TrialGovernance:
    """The trials of one plant; its windows are volatile, so a restart rolls an open trial back."""

    def __init__(self, policy: HealingPolicy) -> None:
        self._policy = policy
        self._window = Window(policy.measure_ticks)
        self._settled_ticks = 0
        self._replied_at: dict[str, float] = {}
        self._first_look_s: dict[str, float] = {}

    def count(self, assessment: Assessment) -> None:
        """Take the tick's KPIs in."""
        self._window.add({name: verdict.value for name, verdict in assessment.kpis.items()})

    def replied(self, draft: Draft, key: str, reply: Reply, reason: str, received_s: float) -> None:
        """Take the plant's answer to a change of parameters."""
        self._replied_at[key] = received_s
        draft.record(REPLY_EVENTS[reply], key=key, **({"reason": reason} if reason else {}))
        if reply is Reply.REFUSED:
            # A refused rollback is judged like any other, by what is in force: a refused change never was.
            self.roll_back(draft, f"the plant refused the change: {reason}")

    def advance(self, draft: Draft, assessment: Assessment, parameters: Parameters | None) -> None:
        """Carry the open trial on by one tick."""
        trial = draft.state.trial
        if trial is None:
            return
        if trial.rollback_key is not None:
            self._verify_rollback(draft, trial, assessment, parameters)
        elif not trial.applied:
            self._verify_change(draft, trial, assessment, parameters)
        else:
            self._measure(draft, trial)

    def start(
        self, draft: Draft, assessment: Assessment, parameters: Parameters | None, forbidden_by: Guard | None
    ) -> None:
        """Begin a trial where the KPIs ask for one and nothing speaks against it."""
        state, policy = draft.state, self._policy
        unhealthy = assessment.unhealthy()
        if not unhealthy or not policy.enabled or state.trial is not None:
            return
        quiet_s = draft.now_s - state.last_disturbance_s
        guards: tuple[tuple[bool, str, float, float], ...] = (
            (parameters is None, Guard.CAPABILITY, 0.0, 1.0),
            (forbidden_by is not None, forbidden_by or "", 0.0, 1.0),
            (bool(state.wells), "gravity_well", len(state.wells), 0.0),
            (bool(state.intents), Guard.IN_FLIGHT, len(state.intents), 0.0),
            (bool(assessment.plant_safe_mode), "plant_safe_mode", 1.0, 0.0),
            (quiet_s < policy.holdoff_s, "holdoff", quiet_s, policy.holdoff_s),
            (state.failed_trials >= policy.trials_max, "exhausted", state.failed_trials, policy.trials_max),
        )
        for forbids, guard, observed, limit in guards:
            if forbids:
                draft.refuse(Refusal("heal", guard, ",".join(unhealthy), observed, limit, draft.now_s))
                return
        baseline = self._window.measure()
        if parameters is None or baseline is None:
            return
        change = propose(policy, parameters, unhealthy, last_direction=state.last_direction, last_kept=state.last_kept)
        if change is None:
            return
        key = f"apply-{state.actions + 1}"
        draft.record(
            EventKind.TRIAL_STARTED,
            trial=state.trials + 1,
            key=key,
            **{"from": parameters.as_dict()},
            to=change.parameters.as_dict(),
            direction=change.direction,
            reason=change.reason,
            baseline=baseline.as_dict(),
        )
        self._replied_at.clear()
        self._first_look_s.clear()
        draft.act(ApplyParameters(key, change.parameters))

    def roll_back(self, draft: Draft, reason: str) -> None:
        """End the open trial, if it is not ending already, by going back to the last good value."""
        trial = draft.state.trial
        if trial is None or trial.rollback_key is not None:
            return
        measured = self._window.measure() if trial.applied else None
        key = f"rollback-{draft.state.actions + 1}"
        draft.record(
            EventKind.ROLLBACK_INTENDED,
            trial=trial.number,
            key=key,
            to=dict(trial.previous),
            reason=reason,
            **({"measured": measured.as_dict()} if measured else {}),
        )
        draft.act(ApplyParameters(key, Parameters.parse(trial.previous)))

    def _verify_change(self, draft: Draft, trial: Trial, assessment: Assessment, parameters: Parameters | None) -> None:
        shown = self._shown(draft, trial.key, trial.proposed, assessment, parameters)
        if shown:
            draft.record(EventKind.TRIAL_APPLIED, trial=trial.number)
            self._settled_ticks = 0
            self._window.clear()
        elif shown is False:
            self.roll_back(draft, f"the change was not seen within {self._policy.verify_s:g} s")

    def _verify_rollback(
        self, draft: Draft, trial: Trial, assessment: Assessment, parameters: Parameters | None
    ) -> None:
        shown = self._shown(draft, str(trial.rollback_key), trial.previous, assessment, parameters)
        if shown:
            draft.record(EventKind.TRIAL_ROLLED_BACK, trial=trial.number)
            self._window.clear()
        elif shown is False:
            reason = f"the last good value was not seen within {self._policy.verify_s:g} s"
            draft.record(EventKind.ROLLBACK_FAILED, trial=trial.number, reason=reason)

    def _shown(
        self, draft: Draft, key: str, wanted: object, assessment: Assessment, parameters: Parameters | None
    ) -> bool | None:
        """True once the plant shows `wanted`, False once it should have, None while there is still time."""
        replied_at = self._replied_at.get(key)
        if replied_at is None or assessment.received_s <= replied_at:
            return None
        first_look_s = self._first_look_s.setdefault(key, draft.now_s)
        if parameters is not None and parameters.as_dict() == wanted:
            return True
        waited_s = min(draft.now_s - first_look_s, assessment.received_s - replied_at)
        return False if waited_s >= self._policy.verify_s else None

    def _measure(self, draft: Draft, trial: Trial) -> None:
        self._settled_ticks += 1
        reason = abort_reason(trial.baseline, self._window.last(ABORT_TICKS))
        if self._settled_ticks == self._policy.settle_ticks:
            # The transient belongs neither to the old parameters nor to the new ones.
            self._window.clear()
        measured = self._window.measure()
        if reason is not None:
            self.roll_back(draft, f"aborted: {reason}")
        elif measured is not None and improved(self._policy, trial.baseline, measured):
            draft.record(EventKind.TRIAL_KEPT, trial=trial.number, measured=measured.as_dict())
        elif measured is not None:
            self.roll_back(draft, "no improvement beyond the noise")
        elif self._settled_ticks >= self._policy.settle_ticks + BLIND_FACTOR * self._policy.measure_ticks:
            self.roll_back(draft, "the KPIs were unknown for too long")

    def reconcile(self, draft: Draft, now_received_s: float) -> None:
        """After a restart: an open trial ends in the last good value."""
        trial = draft.state.trial
        if trial is None:
            return
        if trial.rollback_key is None:
            self.roll_back(draft, "the controller was restarted during the trial")
        else:
            draft.act(ApplyParameters(trial.rollback_key, Parameters.parse(trial.previous)))
        self._replied_at[str(draft.state.trial.rollback_key if draft.state.trial else "")] = now_received_s
