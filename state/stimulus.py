"""What the governor is told: everything that can make it decide something.

A stimulus is volatile; what it leads to becomes events, and only those are journaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metrics.assessment import Assessment
from metrics.observation import Capability, Parameters
from state.action import Reply
from state.command import Command
from state.outcome import Outcome
from state.verdict import PhaseResult


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins on a plant with these capabilities; `facts` goes into the journal as it is."""

    epoch: int
    capabilities: frozenset[Capability]
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Restarted:
    """A daemon goes on governing: after its own restart, or after the plant was away. `facts` goes into the journal.

    What was in flight is settled by looking; nothing seen before `received_s` (controller's monotonic time) counts.
    """

    epoch: int
    capabilities: frozenset[Capability]
    received_s: float
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PlantLost:
    """The plant has not been seen for too long."""

    reason: str


@dataclass(frozen=True, slots=True)
class Commanded:
    """An operator wants something: who, why, and under which idempotency key, if any.

    `objection` is what stands against it that only files can tell; `failed` is why what it had begun was not carried
    out: it is told again then, because its first answer was too early.
    """

    command: Command
    by: str
    reason: str
    key: str | None = None
    objection: str | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class RequestsRefused:
    """Calls to the API that were turned away, summed up: what was wrong to how often."""

    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """Another configuration is in force; `changed` names its settings, `sha256` is its fingerprint.

    Counters are fresh then; what is in flight is looked for in what is received after `received_s`.
    """

    sha256: str
    changed: tuple[str, ...]
    by: str
    received_s: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """The daemon stops, in good order; the plant is left as it is."""

    exit_code: int
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotDue:
    """The journal has grown: the whole state goes into one event, from which a replay can begin."""


@dataclass(frozen=True, slots=True)
class Assessed:
    """One tick of the plant, assessed; `parameters` are those that the plant said were in force.

    `lag_s` is the plant time by which it is older than the newest tick that has been received: a backlog is taken in
    tick by tick, but acted upon only where it is no longer one.
    """

    assessment: Assessment
    parameters: Parameters | None
    lag_s: float = 0.0


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
    """An improvement proposal is on disk; what it would change goes into the journal, so that approval is of that.

    Attributes:
        proposal, sha256: its id, and the hash of its document.
        expires_s: plant time from which it is not decided on any more; None for never.
        parameters: the values that its trial would set, of those that change; None where no trial carries it out.
        previous: all parameters under which it was found.
        direction: the rule that found them, see `state.durable.Trial`.
        settings: path to the value that it asks for; None where it is not carried out by a reload.
    """

    proposal: str
    sha256: str
    expires_s: float | None = None
    parameters: Mapping[str, float] | None = None
    previous: Mapping[str, float] | None = None
    direction: str = ""
    settings: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class SettingsBrought:
    """A configuration, brought by `by`, has every setting that a proposal asks for; `lacking` says which it has not."""

    proposal: str
    by: str
    lacking: str = ""


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
    | Restarted
    | PlantLost
    | Commanded
    | RequestsRefused
    | ConfigReloaded
    | Stopped
    | SnapshotDue
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
    | SettingsBrought
    | InvariantBroken
    | Ended
)
