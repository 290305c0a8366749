"""What is remembered of an improvement proposal: where it stands, and what carrying it out would mean.

    proposed -> approved | rejected | expired       somebody decides, or nobody does in time
    approved -> applied | expired                   its trial begins, or a reload brings its settings
    applied  -> verified | rolled_back              its trial proves it, or is taken back; its settings last, or do not

A proposal that is neither parameters nor settings is work for people: approved is as far as anybody here can tell. One
whose trial was kept without having proven anything stays applied.

Source: docs/proposals.md "Life".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RECORDS_KEPT = 256  # the oldest that are over are forgotten first; the journal goes on knowing them


class ProposalStatus(StrEnum):
    """Where a proposal stands."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    APPLIED = "applied"
    VERIFIED = "verified"
    ROLLED_BACK = "rolled_back"


OPEN = frozenset({ProposalStatus.PROPOSED, ProposalStatus.APPROVED})


@dataclass(slots=True)
class ProposalRecord:
    """One proposal.

    Attributes:
        id: names its document.
        status: where it stands.
        sha256: of the bytes of its document.
        since_s: plant time since which it stands there.
        written_s: plant time at which it was written.
        expires_s: plant time from which it is not decided on, nor its trial begun, any more; None for never.
        parameters: the values that its trial would set, of those that change; None where no trial carries it out.
        previous: all parameters under which it was found.
        direction: the rule that found the parameters, see `state.durable.Trial`.
        settings: path to the value that it asks for; None where it is not carried out by a reload.
        trial: its trial, once it has begun.
        by: who brought it where it stands: an operator, a reload, its trial, or the controller itself.
        reason: why, in words.
        approved_by: who approved it.
    """

    id: str
    status: ProposalStatus
    written_s: float
    expires_s: float | None = None
    parameters: Mapping[str, float] | None = None
    previous: Mapping[str, float] | None = None
    direction: str = ""
    settings: Mapping[str, Any] | None = None
    trial: int | None = None
    by: str = ""
    reason: str = ""
    approved_by: str = ""
    sha256: str = ""
    since_s: float = 0.0

    def move(self, status: ProposalStatus, at_s: float, *, by: str, reason: str) -> None:
        """Bring it to another status, or tell more of the one it has."""
        self.status, self.since_s, self.by, self.reason = status, at_s, by, reason
        if status is ProposalStatus.APPROVED:
            self.approved_by = by

    @property
    def open(self) -> bool:
        """Whether anything may still come of it."""
        return self.status in OPEN

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it, unless its trial is still open."""
        lasting = self.status is ProposalStatus.APPLIED and self.settings is not None
        return not (self.open or lasting)

    def awaits_decision(self, now_s: float) -> bool:
        """Whether it may be approved or rejected."""
        return self.standing(now_s) is ProposalStatus.PROPOSED

    def standing(self, now_s: float) -> ProposalStatus:
        """Its status, or that its time is over where no tick has come yet to say so."""
        return ProposalStatus.EXPIRED if self.overdue(now_s) else self.status

    def overdue(self, now_s: float) -> bool:
        """Whether its time is over; what is left to people and reloads does not run out once it is approved."""
        waits = self.status is ProposalStatus.PROPOSED or (self.open and self.parameters is not None)
        return waits and self.expires_s is not None and now_s >= self.expires_s


def remember(records: dict[str, ProposalRecord], record: ProposalRecord, on_trial: str | None) -> None:
    """Add a record, and forget the oldest that are over, which `on_trial` is not, where there are too many."""
    records[record.id] = record
    surplus = len(records) - RECORDS_KEPT
    over = [name for name, kept in records.items() if name != on_trial and kept.over]
    for name in over[: max(0, surplus)]:
        del records[name]
