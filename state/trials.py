"""One parameter trial at a time: diagnose, apply, settle, measure, keep or roll back, and verify even the rollback.

Whatever happens, the last good value was journaled before the trial began. A trial that is no better in the window
after it than in the one before is rolled back, unless the environment has moved on so far meanwhile that going back
would be worse. What does not end in health, trial after trial, ends in an alarm and a back-off; both outlive a restart.

Source: docs/model.md section 6.
"""

from __future__ import annotations

import math
from dataclasses import replace

from metrics.assessment import Assessment
from metrics.haru.tuning import regretted
from metrics.observation import Parameters
from state.action import ApplyParameters, Reply
from state.decision import Draft
from state.diagnosis import Diagnosis, diagnose
from state.durable import ASIDE, IMPROVEMENT, MODELLED, RollbackFault, Trial
from state.event import EventKind
from state.healing import Change, HealingPolicy
from state.improvement import ImprovementWatch
from state.isolation import Guard, Refusal
from state.phase import Phase
from state.readback import REPLY_EVENTS
from state.trial_gate import Need, TrialGate
from state.trial_window import (
    ABORT_TICKS,
    BLIND_FACTOR,
    Comparison,
    Effect,
    Measured,
    Window,
    abort_reason,
    compare,
    compare_objective,
    detectable,
)
from state.tuner import SupplyBalance, explained, next_change, out_of_reach

EXTENSION = 2  # an inconclusive trial is measured over so many windows before it is given up
RETURN_FACTOR = 4  # so many times as long as the settling, at most, what a trial has done is waited for to fade
REPLACED_TICKS = 2  # in a row in which the plant shows other values than those on trial: somebody has set them
IDLE_FACTOR = 2  # so many times as long as a window nothing may be worth a trial before that is told
OVERTAKEN_TICKS = 15  # the KPIs' own average, before which nothing is known of a change
REPLACED = "somebody else has set other parameters during the trial; they are left in force"
REGRET = "in the environment as it is now going back would be worse"
UNASKED = Need((), (), modelled=False)  # a change of α: no KPI asks for it
EXPLAINED = Need((), (), modelled=True)  # an improvement, likewise, but the model's word


class TrialGovernance:
    """The trials of one plant; its windows are volatile, so a restart rolls an open trial back.

    Args:
        policy: the numbers.
        gravity_critical: |g| from which a node is a gravity well.
        dry_run: leave a trial that is found open as it is.
    """

    def __init__(self, policy: HealingPolicy, gravity_critical: float, *, dry_run: bool = False) -> None:
        self._policy = policy
        self._dry_run = dry_run
        self._gate = TrialGate(policy, gravity_critical)
        self._window = Window(max(EXTENSION * policy.measure_ticks, policy.baseline_ticks))
        self._supply = SupplyBalance.start()
        self._improvements = ImprovementWatch(policy)
        self._settled_ticks = 0
        self._idle_ticks = 0
        self._fading_ticks = 0
        self._replaced_ticks = 0
        self._normal = 0.0  # violation below which the effect of the trial that was rolled back has faded
        self._replied_at: dict[str, float] = {}
        self._first_look_s: dict[str, float] = {}

    def count(self, assessment: Assessment) -> None:
        """Take the tick's KPIs in."""
        self._window.add({name: verdict.value for name, verdict in assessment.kpis.items()})
        self._fade()
        self._gate.count(assessment)
        self._supply.count(assessment)
        self._improvements.count(assessment)

    def replied(self, draft: Draft, key: str, reply: Reply, reason: str, received_s: float) -> None:
        """Take the plant's answer to a change of parameters."""
        self._replied_at[key] = received_s
        draft.record(REPLY_EVENTS[reply], key=key, **({"reason": reason} if reason else {}))
        if reply is Reply.REFUSED:
            # A refused rollback is judged like any other, by what is in force: a refused change never was.
            self.roll_back(draft, f"the plant refused the change: {reason}", RollbackFault.PLANT)

    def advance(self, draft: Draft, assessment: Assessment, parameters: Parameters | None) -> None:
        """Carry the open trial on by one tick."""
        trial = self._open(draft)
        if trial is None:
            return
        if trial.rollback_key is not None:
            self._verify_rollback(draft, trial, assessment, parameters)
        elif not trial.applied:
            self._verify_change(draft, trial, assessment, parameters)
        else:
            self._measure(draft, trial, assessment, parameters)

    def start(
        self, draft: Draft, assessment: Assessment, parameters: Parameters | None, forbidden_by: Guard | None
    ) -> None:
        """Begin a trial where the KPIs, or the supply, ask for one and nothing speaks against it."""
        state = draft.state
        if not self._policy.enabled or state.trial is not None:
            return
        need = self._gate.need(assessment, parameters)
        if need is None:
            self._idle_ticks = 0
            if not self._improve(draft, assessment, parameters, forbidden_by):
                self._balance(draft, assessment, parameters, forbidden_by)
            return
        refusal = self._gate.forbid(state, assessment, parameters, forbidden_by, need)
        if refusal is not None:
            draft.refuse(refusal)
        elif parameters is not None:
            suspect = self._gate.suspect and not need.modelled
            diagnosis = diagnose(assessment, need.breached, need.heading, suspect=suspect)
            change = next_change(self._policy, state, assessment, parameters, diagnosis)
            if change is not None:
                self._idle_ticks = 0
                self._try(draft, parameters, self._supply.beside(self._policy, change, assessment), diagnosis)
            else:
                self._idle(draft, assessment)

    def carry_out(
        self,
        draft: Draft,
        assessment: Assessment,
        parameters: Parameters,
        forbidden_by: Guard | None,
        change: Change,
        proposal: str,
    ) -> None:
        """Begin the trial of an approved proposal, like any other, once nothing speaks against it."""
        need = Need((), (), modelled=explained(assessment, parameters), asked=True)
        refusal = self._gate.forbid(draft.state, assessment, parameters, forbidden_by, need)
        if refusal is not None:
            draft.refuse(replace(refusal, subject=proposal))
        else:
            suspect = self._gate.suspect and not need.modelled
            self._try(draft, parameters, change, diagnose(assessment, (), suspect=suspect), proposal)

    def roll_back(
        self,
        draft: Draft,
        reason: str,
        fault: RollbackFault = RollbackFault.NOBODY,
        found: Comparison | None = None,
    ) -> None:
        """End the open trial, if it is not ending already, by going back to the last good value."""
        trial = self._open(draft)
        if trial is None or trial.rollback_key is not None:
            return
        measured = self._measured() if trial.applied else None
        key = f"rollback-{draft.state.actions + 1}"
        draft.record(
            EventKind.ROLLBACK_INTENDED,
            trial=trial.number,
            key=key,
            to=dict(trial.previous),
            reason=reason,
            fault=fault.value,
            **({"measured": measured.as_dict()} if measured else {}),
            **({"comparison": found.as_dict()} if found else {}),
        )
        draft.act(ApplyParameters(key, Parameters.parse(trial.previous)))

    def yield_to_wells(self, draft: Draft, assessment: Assessment) -> None:
        """End the open trial for a confirmed well, unless it is the drift's that the trial is to end."""
        trial, topology = self._open(draft), assessment.topology
        if trial is None or trial.rollback_key is not None or not self._gate.wells_matter(draft.state, assessment):
            return
        reason = "a gravity well was confirmed during the trial"
        if topology is not None and not draft.state.wells.isdisjoint(topology.clusters):
            # A cluster that stands out is at fault as a whole: couplings that suit it would hide that from people.
            self.roll_back(draft, reason)
        else:
            self._make_way(draft, trial, assessment, reason)

    def reconcile(self, draft: Draft, now_received_s: float) -> None:
        """After a restart: an open trial ends in the last good value."""
        trial = self._open(draft)
        if trial is None:
            return
        if trial.rollback_key is None:
            self.roll_back(draft, "the controller was restarted during the trial")
        else:
            draft.act(ApplyParameters(trial.rollback_key, Parameters.parse(trial.previous)))
        self._replied_at[str(draft.state.trial.rollback_key if draft.state.trial else "")] = now_received_s

    def _open(self, draft: Draft) -> Trial | None:
        """The open trial, of which a dry run, having found one, knows nothing: it is neither judged nor taken back."""
        return None if self._dry_run else draft.state.trial

    def _fade(self) -> None:
        """Keep what a trial has done out of the next one's window: the KPIs are averages, and its effect fades slowly.

        It has faded once they violate no more than before the trial. Where they violate more and, after the transient,
        do not get better by themselves either, the environment is the cause, and those ticks are what the next trial is
        compared with.
        """
        if not self._fading_ticks:
            return
        policy, latest = self._policy, self._window.measure(1)
        faded = latest is not None and latest.violation <= self._normal
        self._fading_ticks = 0 if faded else self._fading_ticks - 1
        if self._fading_ticks in (0, (RETURN_FACTOR - 1) * policy.settle_ticks):
            self._window.clear()
        elif self._window.measure(policy.settle_ticks) is not None:
            violations = self._window.violations(policy.settle_ticks)
            if violations[-1] >= max(violations) - policy.min_effect:
                self._fading_ticks = 0
                self._window.clear(but=policy.settle_ticks)

    def _improve(
        self, draft: Draft, assessment: Assessment, parameters: Parameters | None, forbidden_by: Guard | None
    ) -> bool:
        """Try what restores lost margins, or saves much where nothing is wrong; whether a trial was begun."""
        state = draft.state
        quiet = state.phase is Phase.GOVERNING and not state.wells and not self._gate.suspect
        if (
            parameters is None
            or not quiet
            or not self._improvements.due(assessment)
            or self._gate.forbid(state, assessment, parameters, forbidden_by, EXPLAINED) is not None
        ):
            return False
        baseline = self._window.measure(self._policy.measure_ticks)
        calm = baseline is not None and self._gate.calm(state, assessment)
        noise = detectable(baseline, self._policy.level) if calm and baseline is not None else math.inf
        change = self._improvements.next_change(state, assessment, parameters, noise)
        if change is not None:
            self._try(draft, parameters, change, diagnose(assessment, (), suspect=False))
        return state.trial is not None

    def _balance(
        self, draft: Draft, assessment: Assessment, parameters: Parameters | None, forbidden_by: Guard | None
    ) -> None:
        """A step of α, where all else is well and the last one is long enough ago."""
        state, policy = draft.state, self._policy
        since_s = policy.alpha_every_s if state.alpha_s is None else draft.now_s - state.alpha_s
        if parameters is None or state.phase is not Phase.GOVERNING or since_s < policy.alpha_every_s:
            return
        change = self._supply.next_alpha(policy, parameters)
        if change is None or assessment.unhealthy():
            return
        if self._gate.forbid(state, assessment, parameters, forbidden_by, UNASKED) is None:
            self._try(draft, parameters, change, diagnose(assessment, (), suspect=self._gate.suspect))

    def _idle(self, draft: Draft, assessment: Assessment) -> None:
        """Nothing is worth a trial although KPIs ask for one: for so long, and it is told."""
        self._idle_ticks = self._idle_ticks + 1 if assessment.unhealthy() else 0
        if self._idle_ticks >= IDLE_FACTOR * self._policy.measure_ticks:
            self._idle_ticks = 0
            self._give_up(draft, assessment, "nothing within reach is expected to help")

    def _try(
        self, draft: Draft, parameters: Parameters, change: Change, diagnosis: Diagnosis, proposal: str | None = None
    ) -> None:
        state, policy = draft.state, self._policy
        # What is to be told from noise, where nothing is wrong, takes a window as long as the one after.
        ticks = policy.measure_ticks if change.direction == IMPROVEMENT else policy.baseline_ticks
        baseline = None if self._fading_ticks else self._window.measure(ticks)
        if baseline is None:
            if subject := proposal or ",".join(diagnosis.breached or diagnosis.heading):
                draft.refuse(Refusal("heal", "baseline", subject, len(self._window), ticks, draft.now_s))
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
            diagnosis=diagnosis.as_dict(),
            baseline=baseline.as_dict(),
            tokens=policy.tokens(state.trial_tokens, draft.now_s - state.trial_tokens_at_s) - 1.0,
            **({"proposal": proposal} if proposal else {}),
        )
        self._replied_at.clear()
        self._first_look_s.clear()
        draft.act(ApplyParameters(key, change.parameters))

    def _verify_change(self, draft: Draft, trial: Trial, assessment: Assessment, parameters: Parameters | None) -> None:
        shown = self._shown(draft, trial.key, trial.proposed, assessment, parameters)
        if shown:
            draft.record(EventKind.TRIAL_APPLIED, trial=trial.number)
            self._settled_ticks = self._replaced_ticks = 0
            self._window.clear()
        elif shown is False:
            reason = f"the change was not seen within {self._policy.verify_s:g} s"
            self.roll_back(draft, reason, RollbackFault.PLANT)

    def _verify_rollback(
        self, draft: Draft, trial: Trial, assessment: Assessment, parameters: Parameters | None
    ) -> None:
        shown = self._shown(draft, str(trial.rollback_key), trial.previous, assessment, parameters)
        if shown:
            draft.record(EventKind.TRIAL_ROLLED_BACK, trial=trial.number)
            self._window.clear()
            if trial.applied:
                self._fading_ticks = RETURN_FACTOR * self._policy.settle_ticks
                self._normal = trial.baseline["violation"] + self._policy.min_effect
            self._give_up_if_exhausted(draft, assessment)
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

    def _measure(self, draft: Draft, trial: Trial, assessment: Assessment, parameters: Parameters | None) -> None:
        policy = self._policy
        if self._replaced(trial, parameters):
            self._keep(draft, trial, assessment, self._measured(), None, REPLACED, interrupted=True, replaced=True)
            return
        if trial.direction in ASIDE and self._gate.need(assessment, parameters) is not None:
            self._make_way(draft, trial, assessment, "the couplings come first")
            return
        self._settled_ticks += 1
        if self._settled_ticks == policy.settle_ticks:
            # The transient belongs neither to the old parameters nor to the new ones.
            self._window.clear()
        if self._settled_ticks <= policy.settle_ticks:
            return
        aborted = abort_reason(trial.baseline, self._window.last(ABORT_TICKS))
        ticks = len(self._window)
        windows = EXTENSION if ticks >= policy.measure_ticks else 1
        if self._overtaken(draft, trial, assessment, parameters):
            self._make_way(draft, trial, assessment, "the environment has overtaken it")
        elif aborted is not None:
            self._keep_or_roll_back(draft, trial, assessment, None, f"aborted: {aborted}")
        elif self._settled_ticks >= policy.settle_ticks + BLIND_FACTOR * windows * policy.measure_ticks:
            # Asked before the windows are: one that is just full stays so for as long as the KPIs are unknown.
            self.roll_back(draft, "the KPIs were unknown for too long", RollbackFault.PLANT)
        elif ticks in (policy.measure_ticks, EXTENSION * policy.measure_ticks):
            self._judge(draft, trial, assessment, last=ticks > policy.measure_ticks)

    def _replaced(self, trial: Trial, parameters: Parameters | None) -> bool:
        """Whether somebody else has set other parameters at the plant, so that nothing can be said of the trial's."""
        other = parameters is not None and parameters.as_dict() != trial.proposed
        self._replaced_ticks = self._replaced_ticks + 1 if other else 0
        return self._replaced_ticks >= REPLACED_TICKS

    def _overtaken(self, draft: Draft, trial: Trial, assessment: Assessment, parameters: Parameters | None) -> bool:
        """Whether the model would keep the trial whatever is measured, and already has the next one for the KPIs."""
        asked = trial.proposal is None and trial.direction not in ASIDE
        if len(self._window) < OVERTAKEN_TICKS or parameters is None or not asked:
            return False
        need = self._gate.need(assessment, parameters)
        if need is None or not need.modelled or not _regretted(trial, assessment):
            return False
        diagnosis = diagnose(assessment, need.breached, need.heading, suspect=False)
        return next_change(self._policy, draft.state, assessment, parameters, diagnosis) is not None

    def _make_way(self, draft: Draft, trial: Trial, assessment: Assessment, reason: str) -> None:
        """End a trial early, for a well or for the next trial; kept where the last good value would be worse now."""
        measured = self._measured() if trial.applied else None
        if measured is not None and _regretted(trial, assessment):
            self._keep(draft, trial, assessment, measured, None, f"{reason}, and {REGRET}", interrupted=True)
        else:
            self.roll_back(draft, reason)

    def _judge(self, draft: Draft, trial: Trial, assessment: Assessment, *, last: bool) -> None:
        measured = self._measured()
        if measured is None:
            return
        policy = self._policy
        judge = compare_objective if trial.direction == IMPROVEMENT else compare
        found = judge(trial.baseline, measured, level=policy.level, min_effect=policy.min_effect)
        if found.effect in (Effect.HEALED, Effect.IMPROVED):
            self._keep(draft, trial, assessment, measured, found, f"{found.effect}")
        elif last or found.effect is Effect.WORSE:
            reason = "it made things worse" if found.effect is Effect.WORSE else "no improvement beyond the noise"
            self._keep_or_roll_back(draft, trial, assessment, found, reason)

    def _keep_or_roll_back(
        self, draft: Draft, trial: Trial, assessment: Assessment, found: Comparison | None, reason: str
    ) -> None:
        """Roll back, unless the environment has moved on so that the last good value would be worse now."""
        measured = self._measured()
        if measured is not None and _regretted(trial, assessment):
            self._keep(draft, trial, assessment, measured, found, f"{reason}, but {REGRET}")
        else:
            self.roll_back(draft, reason, RollbackFault.VALUES, found)

    def _keep(
        self,
        draft: Draft,
        trial: Trial,
        assessment: Assessment,
        measured: Measured | None,
        found: Comparison | None,
        reason: str,
        *,
        interrupted: bool = False,
        replaced: bool = False,
    ) -> None:
        draft.record(
            EventKind.TRIAL_KEPT,
            trial=trial.number,
            reason=reason,
            healed=found is not None and found.effect is Effect.HEALED,
            improved=found is not None and found.effect is Effect.IMPROVED,
            well=measured is not None and measured.violation <= self._policy.min_effect,
            interrupted=interrupted,
            replaced=replaced,
            **({"measured": measured.as_dict()} if measured else {}),
            **({"comparison": found.as_dict()} if found else {}),
        )
        self._give_up_if_exhausted(draft, assessment)

    def _give_up_if_exhausted(self, draft: Draft, assessment: Assessment) -> None:
        """Stop after too many trials in a row that did not end in health."""
        failed = draft.state.failed_trials
        if failed >= self._policy.trials_max:
            self._give_up(draft, assessment, f"{failed} trials in a row did not heal")

    def _give_up(self, draft: Draft, assessment: Assessment, reason: str) -> None:
        """Leave the matter to people, and say so; it may try again after a back-off."""
        exhaustions = draft.state.exhaustions + 1
        backoff_s = self._policy.backoff_s(exhaustions)
        draft.record(
            EventKind.HEALING_EXHAUSTED,
            failed=draft.state.failed_trials,
            exhaustions=exhaustions,
            until_s=draft.now_s + backoff_s,
            reason="; ".join(filter(None, (reason, out_of_reach(assessment), f"nothing is tried for {backoff_s:g} s"))),
        )

    def _measured(self) -> Measured | None:
        """Means since the transient, or over the window before if nothing has been applied."""
        return self._window.measure(len(self._window))


def _regretted(trial: Trial, assessment: Assessment) -> bool:
    """Whether the environment has moved on so that the last good value would be worse now, by the model's word."""
    if trial.direction not in MODELLED or assessment.environment is None:
        return False
    return regretted(assessment.environment, Parameters.parse(trial.previous), Parameters.parse(trial.proposed))
