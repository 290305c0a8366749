"""What becomes of proposals: may one be approved, does an approved one begin its trial, is its time over?

An approved change of parameters passes the gates of any other trial, waits while one of them is shut, and is measured,
kept or rolled back like any other. It is a change of certain parameters in a certain environment: where those are not
in force any more it is over, and while the model no longer expects anything of it, it waits.

Changed settings are applied by whoever reloads them. They are verified once they have lasted for a while, which proves
that they do no obvious harm, and no more; they are rolled back where a reload or a restart brings others.

Volatile: what was seen last. Source: docs/proposals.md "Life".
"""

from __future__ import annotations

import math
from typing import cast

from metrics.assessment import Assessment
from metrics.errors import BadDataError
from metrics.haru.tuning import DEFAULT_POLICY, outlook
from metrics.observation import Parameters
from state.decision import Draft
from state.durable import ALPHA, GRAY_BOX, POLICY
from state.event import EventKind
from state.healing import DIGITS, Change, HealingPolicy
from state.isolation import Guard, Refusal
from state.phase import Phase
from state.proposal_record import ProposalRecord, ProposalStatus
from state.stimulus import SettingsBrought
from state.trials import TrialGovernance

EXPIRY = "expiry"  # who ended what nobody ended in time
LASTING_S = 600.0  # settings that are in force for so long, and nothing was held or paused meanwhile, are verified
WATCHING = frozenset({Phase.GOVERNING, Phase.ISOLATING, Phase.HEALING})
_ROUNDING = 10.0**-DIGITS  # by less than that a proposed value may be off the one that was found


class ProposalGovernance:
    """The proposals of one plant. Everything durable goes through the draft.

    Args:
        policy: the numbers of healing.
        trials: carries them out.
    """

    def __init__(self, policy: HealingPolicy, trials: TrialGovernance) -> None:
        self._policy = policy
        self._trials = trials
        self._assessment: Assessment | None = None
        self._parameters: Parameters | None = None

    def see(self, assessment: Assessment, parameters: Parameters | None) -> None:
        """Take one tick in."""
        self._assessment, self._parameters = assessment, parameters

    def objection(self, record: ProposalRecord) -> str | None:
        """Why a proposal must not be approved as things are, or None; with no plant in sight only its bounds count."""
        outdated = None if self._parameters is None else _outdated(record, self._parameters)
        if record.parameters is None:
            return outdated
        return _beyond(record, self._policy) or outdated or self._pointless(record)

    def advance(self, draft: Draft) -> None:
        """End those whose time is over or whose parameters are not in force any more; verify settings that last."""
        state = draft.state
        settled = state.phase is Phase.GOVERNING and state.trial is None and self._parameters is not None
        for record in [record for record in state.proposals.values() if record.open]:
            if record.overdue(draft.now_s):
                _decide(draft, record, ProposalStatus.EXPIRED, EXPIRY, "its time is over")
            elif settled:
                reason = _outdated(record, cast("Parameters", self._parameters))
                if reason is not None:
                    _decide(draft, record, ProposalStatus.EXPIRED, POLICY, reason)
        for record in [record for record in state.proposals.values() if _in_force(record)]:
            since_s = max(record.since_s, state.last_disturbance_s)
            if state.phase in WATCHING and draft.now_s - since_s >= LASTING_S:
                reason = f"in force for {LASTING_S:g} s without SAFE_MODE or a pause; its effect was not measured"
                _decide(draft, record, ProposalStatus.VERIFIED, POLICY, reason)

    def settle(self, draft: Draft, brought: SettingsBrought) -> None:
        """A reload or a restart applies approved settings, or takes applied ones back."""
        record = draft.state.proposals[brought.proposal]
        if record.status is ProposalStatus.APPROVED and not brought.lacking:
            _decide(draft, record, ProposalStatus.APPLIED, brought.by, "its settings are in force")
        elif _in_force(record) and brought.lacking:
            _decide(draft, record, ProposalStatus.ROLLED_BACK, brought.by, brought.lacking)

    def start(
        self, draft: Draft, assessment: Assessment, parameters: Parameters | None, forbidden: Guard | None
    ) -> None:
        """Begin the trial of the oldest approved change of parameters, if nothing speaks against it."""
        state = draft.state
        waiting = (
            r for r in state.proposals.values() if r.status is ProposalStatus.APPROVED and r.parameters is not None
        )
        record = next(waiting, None)
        if record is None or parameters is None or state.trial is not None:
            return
        if self._pointless(record) is not None:
            draft.refuse(Refusal("heal", "environment_moved", record.id, 1.0, 0.0, draft.now_s))
            return
        change = Change(record.direction, _target(record, parameters), f"proposal {record.id}, approved by {record.by}")
        self._trials.carry_out(draft, assessment, parameters, forbidden, change, record.id)

    def _pointless(self, record: ProposalRecord) -> str | None:
        """Why the model expects nothing of a proposal of its own in the environment as it is now, or None."""
        environment = None if self._assessment is None else self._assessment.environment
        if record.direction != GRAY_BOX or environment is None or self._parameters is None:
            return None
        present = outlook(environment, self._parameters).objective
        proposed = outlook(environment, _target(record, self._parameters)).objective
        if proposed < present:
            return None
        return (
            "the environment has moved: the model now expects an objective of "
            f"{proposed:.4f} of it, and {present:.4f} as it is"
        )


def _target(record: ProposalRecord, parameters: Parameters) -> Parameters:
    return Parameters.parse({**parameters.as_dict(), **(record.parameters or {})})


def _in_force(record: ProposalRecord) -> bool:
    """Whether its settings were brought, and nobody has taken them back nor has it been verified."""
    return record.status is ProposalStatus.APPLIED and record.settings is not None


def _decide(draft: Draft, record: ProposalRecord, status: ProposalStatus, by: str, reason: str) -> None:
    draft.record(EventKind.PROPOSAL_DECIDED, id=record.id, status=status.value, by=by, reason=reason)


def _outdated(record: ProposalRecord, parameters: Parameters) -> str | None:
    """Which parameters in force are not those any more that it was found under; None where all are.

    α follows the supply by itself and bears on no coupling, so it counts only where it is to be changed.
    """
    now = parameters.as_dict()
    moved = [
        f"{name} is {now[name]:g} and no longer {value:g}"
        for name, value in (record.previous or {}).items()
        if now[name] != value and (name != ALPHA or name in (record.parameters or {}))
    ]
    return f"it is about parameters that are not in force any more: {', '.join(moved)}" if moved else None


def _beyond(record: ProposalRecord, policy: HealingPolicy) -> str | None:
    """Which step is larger than healing would make it, or out of bounds; None where none is."""
    try:
        previous = Parameters.parse(record.previous or {})
        target = _target(record, previous)
    except BadDataError as wrong:
        return str(wrong)
    factor_max = max(math.exp(DEFAULT_POLICY.reach_violating), policy.step)
    for name in ("lambda1", "lambda2"):
        old, new = getattr(previous, name), getattr(target, name)
        if not old / factor_max - _ROUNDING <= new <= old * factor_max + _ROUNDING:
            return f"{name} would change by a factor of {new / old:.3g}, and {factor_max:.3g} is the most at a time"
    if abs(target.alpha - previous.alpha) > policy.alpha_step + _ROUNDING:
        return f"alpha would change by {target.alpha - previous.alpha:+.3g}, and {policy.alpha_step:g} is the most"
    return None
