"""What becomes of an operator's command: it passes the same guards as the policy's own decisions, or is refused.

Either way it is a durable fact, with whose wish it was, why, and what was answered. The same idempotency key again gets
the same answer and has no further effect; with another content it is refused.

A pause is acknowledged once nothing is under way any more: every call has its outcome, or is marked unknown, an open
trial has been rolled back, and what a probe had begun is undone. From then on only time limits are renewed, until
somebody resumes or it expires.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from state import command as asked
from state.decision import Answer, Draft
from state.durable import DurableState, NodeStatus
from state.event import EventKind
from state.isolation import SAFETY_GUARDS, Guard
from state.nodes import Licence, NodeGovernance
from state.phase import Phase
from state.proposal_record import ProposalRecord, ProposalStatus
from state.proposals import EXPIRY, ProposalGovernance
from state.stimulus import Commanded
from state.table import PAUSABLE
from state.trials import TrialGovernance

PAUSE_MAX_S = 7 * 24 * 3600.0  # longer than that nobody remembers why
ISOLATION_MAX_S = 7 * 24 * 3600.0
EXEMPTION_MAX_S = 366 * 24 * 3600.0  # whatever has to be left alone for longer belongs into the configuration

# What these saw and what they hold says why; what the others see of a node does not.
_MEASURED = SAFETY_GUARDS | {Guard.RATE}


class OperatorDesk:
    """Takes commands in. Everything durable goes through the draft."""

    def __init__(self, nodes: NodeGovernance, trials: TrialGovernance, proposals: ProposalGovernance) -> None:
        self._nodes = nodes
        self._trials = trials
        self._proposals = proposals
        self._desks: dict[type, Callable[[Draft, Any, Commanded, Licence], Answer]] = {
            asked.Pause: self._pause,
            asked.Resume: self._resume,
            asked.ClearSafeMode: self._clear_safe_mode,
            asked.Isolate: self._isolate,
            asked.Restore: self._restore,
            asked.Exempt: self._exempt,
            asked.EndExemption: self._end_exemption,
            asked.DecideProposal: self._decide_proposal,
        }

    def take(self, draft: Draft, commanded: Commanded, licence: Licence) -> None:
        """Decide on one command; the answer goes into the decision."""
        wanted, key = asked.described(commanded.command), commanded.key
        earlier = None if key is None or commanded.failed is not None else draft.state.commands.get(key)
        if earlier is not None:
            same = earlier["asked"] == wanted
            text = str(earlier["answer"]) if same else f"key {key} was used for another command"
            draft.answer = Answer(same and bool(earlier["accepted"]), text, repeated=True)
            return
        if commanded.failed is None:
            answer = self._desks[type(commanded.command)](draft, commanded.command, commanded, licence)
        else:
            answer = _no(commanded.failed)  # from now on that is what this key is answered
        draft.record(
            EventKind.COMMANDED if answer.accepted else EventKind.COMMAND_REFUSED,
            asked=wanted,
            by=commanded.by,
            reason=commanded.reason,
            key=key,
            accepted=answer.accepted,
            answer=answer.text,
        )
        draft.answer = answer

    def advance(self, draft: Draft) -> None:
        """What follows from time alone: pauses are acknowledged and end, and so do exemptions."""
        state = draft.state
        for node, exemption in sorted(state.exemptions.items()):
            if draft.now_s >= exemption.until_s:
                draft.record(EventKind.EXEMPTION_ENDED, node=node, by=EXPIRY)
        self._acknowledge_pause(draft)
        if state.phase is Phase.PAUSED and state.pause is not None and draft.now_s >= state.pause.until_s:
            self._go_on(draft, EXPIRY)

    def _acknowledge_pause(self, draft: Draft) -> None:
        state = draft.state
        waiting = state.pause is not None and not state.pause.acknowledged and state.phase in PAUSABLE
        if waiting and not state.trial and not state.probes and all(i.reply for i in state.intents.values()):
            draft.record(EventKind.PAUSED)

    def _go_on(self, draft: Draft, by: str) -> None:
        draft.record(EventKind.RESUMED, by=by)
        self._nodes.restart()

    def _pause(self, draft: Draft, wanted: asked.Pause, commanded: Commanded, _licence: Licence) -> Answer:
        state = draft.state
        correcting = state.phase is Phase.HEALING and state.machine.came_from is Phase.PHASE_IV
        if correcting or state.phase not in (*PAUSABLE, Phase.HEALING, Phase.PAUSED):
            return _no(f"nothing can be paused in {Phase.PHASE_IV if correcting else state.phase}")
        if not 0 < wanted.for_s <= PAUSE_MAX_S:
            return _no(f"a pause lasts more than 0 and at most {PAUSE_MAX_S:g} s, not {wanted.for_s:g}")
        until_s = draft.now_s + wanted.for_s
        draft.record(EventKind.PAUSE_REQUESTED, by=commanded.by, reason=commanded.reason, until_s=until_s)
        self._trials.roll_back(draft, f"paused by {commanded.by}")
        self._acknowledge_pause(draft)
        if state.phase is Phase.PAUSED:
            return _yes(f"paused for {wanted.for_s:g} s; only time limits of isolations are renewed meanwhile")
        return _yes(f"nothing new starts; paused for {wanted.for_s:g} s as soon as what is under way has ended")

    def _resume(self, draft: Draft, _wanted: asked.Resume, commanded: Commanded, _licence: Licence) -> Answer:
        state = draft.state
        if state.pause is None:
            return _no("it is not paused")
        if state.phase is not Phase.PAUSED:
            return _no("the pause is not in force yet: something is still under way; try again in a moment")
        self._go_on(draft, commanded.by)
        return _yes(f"resumed in {state.phase}; every node is confirmed afresh")

    def _clear_safe_mode(
        self, draft: Draft, _wanted: asked.ClearSafeMode, commanded: Commanded, licence: Licence
    ) -> Answer:
        state = draft.state
        if state.phase is not Phase.SAFE_MODE:
            return _no(f"it is not in SAFE_MODE but in {state.phase}")
        if state.trial is not None:
            return _no("a trial is still being rolled back; try again in a moment")
        if licence.suspected_by is not None:
            return _no(f"its cause still lasts ({licence.suspected_by})", guard=licence.suspected_by)
        if state.machine.came_from not in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III, Phase.GOVERNING):
            return _no(f"there is no way back to {state.machine.came_from}")
        draft.record(EventKind.SAFE_MODE_LEFT, reason=f"cleared by {commanded.by}: {commanded.reason}")
        self._nodes.restart()
        return _yes(f"back in {state.phase}; every node is confirmed afresh")

    def _isolate(self, draft: Draft, wanted: asked.Isolate, commanded: Commanded, licence: Licence) -> Answer:
        if not self._nodes.knows(wanted.node):
            return _no(f"the plant shows no node {wanted.node}")
        if wanted.for_s is not None and not self._nodes.shortest_s <= wanted.for_s <= ISOLATION_MAX_S:
            limits = f"{self._nodes.shortest_s:g} s and at most {ISOLATION_MAX_S:g} s"
            return _no(f"an isolation lasts at least {limits}, not {wanted.for_s:g} s")
        refusal = self._nodes.isolate_by_hand(
            draft, wanted.node, licence, by=commanded.by, reason=commanded.reason, for_s=wanted.for_s
        )
        if refusal is not None:
            draft.refuse(refusal)
            numbers = f": {refusal.observed:.3g}, limit {refusal.limit:.3g}" if refusal.guard in _MEASURED else ""
            return _no(_forbidden(draft.state, refusal.guard) + numbers, guard=refusal.guard)
        until_s = draft.state.nodes[wanted.node].until_s
        return _yes(f"{wanted.node} is to be taken out for {until_s - draft.now_s:g} s, or until it is restored")

    def _restore(self, draft: Draft, wanted: asked.Restore, commanded: Commanded, licence: Licence) -> Answer:
        record = draft.state.nodes.get(wanted.node)
        if record is None or record.status is not NodeStatus.ISOLATED:
            return _no(f"{wanted.node} is not isolated by this controller")
        if not self._nodes.knows(wanted.node):
            return _no(f"the plant shows no node {wanted.node}")
        if any(intent.node == wanted.node for intent in draft.state.intents.values()):
            return _no(f"an action on {wanted.node} is in flight", guard=Guard.IN_FLIGHT)
        if licence.forbidden_by not in (None, Guard.TRIAL_OPEN):
            return _no(_forbidden(draft.state, licence.forbidden_by), guard=licence.forbidden_by)
        if licence.forbidden_by is Guard.TRIAL_OPEN:
            return _no("a trial is under way: pause, or wait for its end", guard=Guard.TRIAL_OPEN)
        self._nodes.restore(draft, wanted.node, commanded.reason, by=commanded.by)
        return _yes(f"{wanted.node} is to be let back in, on probation")

    def _exempt(self, draft: Draft, wanted: asked.Exempt, commanded: Commanded, _licence: Licence) -> Answer:
        if not self._nodes.knows(wanted.node):
            return _no(f"the plant shows no node {wanted.node}")
        if not (0 < wanted.for_s <= EXEMPTION_MAX_S and 0 <= wanted.in_s <= EXEMPTION_MAX_S):
            return _no(f"an exemption begins, and ends, within {EXEMPTION_MAX_S:g} s, and lasts more than 0 s")
        earlier = draft.state.exemptions.get(wanted.node)
        if earlier is not None and (earlier.owner, earlier.kind) != (commanded.by, wanted.kind):
            # One at a time, and nobody's is ended silently; one's own is prolonged, or shortened, by another.
            lasts = f"the {earlier.kind} of {earlier.owner} lasts for another {earlier.until_s - draft.now_s:g} s"
            return _no(f"{wanted.node} is left alone already: {lasts}; end it first")
        from_s = draft.now_s + wanted.in_s
        draft.record(
            EventKind.NODE_EXEMPTED,
            node=wanted.node,
            kind=wanted.kind,
            owner=commanded.by,
            reason=commanded.reason,
            from_s=from_s,
            until_s=from_s + wanted.for_s,
        )
        begins = f"from {wanted.in_s:g} s on " if wanted.in_s else ""
        return _yes(f"{wanted.node} is left alone {begins}for {wanted.for_s:g} s ({wanted.kind})")

    def _end_exemption(
        self, draft: Draft, wanted: asked.EndExemption, commanded: Commanded, _licence: Licence
    ) -> Answer:
        if wanted.node not in draft.state.exemptions:
            return _no(f"{wanted.node} is not exempted")
        draft.record(EventKind.EXEMPTION_ENDED, node=wanted.node, by=commanded.by)
        return _yes(f"{wanted.node} is governed like all others")

    def _decide_proposal(
        self, draft: Draft, wanted: asked.DecideProposal, commanded: Commanded, _licence: Licence
    ) -> Answer:
        named, record = f"proposal {wanted.proposal}", draft.state.proposals.get(wanted.proposal)
        if record is None or not record.awaits_decision(draft.now_s):
            known = "there is none of that id" if record is None else f"it is {record.standing(draft.now_s)}"
            return _no(f"{named} cannot be decided: {known}")
        objection = (commanded.objection or self._proposals.objection(record)) if wanted.approve else None
        if objection is not None:
            return _no(f"{named} cannot be approved: {objection}")
        decided = ProposalStatus.APPROVED if wanted.approve else ProposalStatus.REJECTED
        draft.record(
            EventKind.PROPOSAL_DECIDED,
            id=record.id,
            status=decided.value,
            by=commanded.by,
            reason=commanded.reason,
        )
        return _yes(f"{named} is approved; {_what_follows(record)}" if wanted.approve else f"{named} is rejected")


def _forbidden(state: DurableState, guard: str) -> str:
    """The guard that says no; the one that looks at the phase with that, and the way out of it."""
    text = f"guard {guard} forbids it"
    if guard != Guard.STATE:
        return text
    if state.phase is Phase.SAFE_MODE:
        way_out = "see to the cause and clear it, or wait where it ends by itself"
        return f"{text}: SAFE_MODE holds ({state.safe_mode}); {way_out}"
    return f"{text}: no node is touched in {state.phase}; wait until it governs"


def _what_follows(record: ProposalRecord) -> str:
    if record.parameters is not None:
        return "its trial begins as soon as nothing speaks against it"
    if record.settings is not None:
        return "it is applied by the reload that brings its settings"
    return "carrying it out is up to people"


def _yes(text: str) -> Answer:
    return Answer(accepted=True, text=text)


def _no(text: str, guard: str | None = None) -> Answer:
    return Answer(accepted=False, text=text, guard=guard)
