"""What the governor is told: everything that can make it decide something.

A stimulus is volatile; what it leads to becomes events, and only those are journaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metrics.assessment import Assessment
from metrics.observation import Capability, Parameters
from state.action import Reply
from state.outcome import Outcome
from state.verdict import PhaseResult


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins on a plant with these capabilities; `facts` goes into the journal as it is."""

    epoch: int
    capabilities: frozenset[Capability]
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Assessed:
    """One tick of the plant, assessed; `parameters` are those that the plant said were in force."""

    assessment: Assessment
    parameters: Parameters | None


@dataclass(frozen=True, slots=True)
class Replied:
    """The plant's answer to an action, received at the controller's monotonic time `received_s`."""

    key: str
    reply: Reply
    reason: str
    received_s: float


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """All checks of a phase are done."""

    result: PhaseResult


@dataclass(frozen=True, slots=True)
class ProbeIntended:
    """A probe is about to touch the plant; `undo` says how its traces are removed, should we die in between.

    `node` is the node that it makes ill, if it does: the policy is then armed although no phase is governing yet.
    """

    probe: str
    undo: Mapping[str, object]
    node: str | None = None


@dataclass(frozen=True, slots=True)
class ProbeUndone:
    """The probe's cause has been removed; its node, if isolated, is to be restored without waiting out a back-off."""

    probe: str


@dataclass(frozen=True, slots=True)
class ProbeEnded:
    """The probe is over, its node is back."""

    probe: str
    result: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WindowClosing:
    """The governing window is over: start nothing new, let what is in flight settle."""


@dataclass(frozen=True, slots=True)
class WindowEnded:
    """Nothing is in flight any more, or it has been waited for long enough; an open trial is rolled back first."""


@dataclass(frozen=True, slots=True)
class CorrectionsOpened:
    """Phase IV may try corrections, if the policy says so."""


@dataclass(frozen=True, slots=True)
class CorrectionsClosed:
    """Phase IV starts no further correction; one that is open is rolled back."""


@dataclass(frozen=True, slots=True)
class ProposalWritten:
    """An improvement proposal is on disk."""

    proposal: str
    sha256: str


@dataclass(frozen=True, slots=True)
class InvariantBroken:
    """Something that must always hold did not."""

    invariant: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over."""

    outcome: Outcome


Stimulus = (
    Started
    | Assessed
    | Replied
    | PhaseEnded
    | ProbeIntended
    | ProbeUndone
    | ProbeEnded
    | WindowClosing
    | WindowEnded
    | CorrectionsOpened
    | CorrectionsClosed
    | ProposalWritten
    | InvariantBroken
    | Ended
)
