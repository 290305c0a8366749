"""What an operator may tell the controller to do: imperatives from outside, which pass the same guards as everyone's.

A command is a wish. What becomes of it is decided in `operator_desk.py`, and both the wish and the answer are journaled
with whose wish it was and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from metrics.observation import NodeId


class ExemptionKind(StrEnum):
    """Why a node is left alone: an operator vouches for it, or somebody is working on it."""

    VETO = "veto"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class Pause:
    """Start nothing new for `for_s` plant seconds, and go on by yourself then."""

    for_s: float


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on now."""


@dataclass(frozen=True, slots=True)
class ClearSafeMode:
    """The reason for holding has been seen to by a person."""


@dataclass(frozen=True, slots=True)
class Isolate:
    """Take `node` out for `for_s` plant seconds, or for as long as the policy would."""

    node: NodeId
    for_s: float | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Let `node` back in without waiting out its back-off; it is on probation then."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Exempt:
    """Leave `node` alone from `in_s` seconds on for `for_s` seconds: do not isolate it, whatever it looks like."""

    node: NodeId
    kind: ExemptionKind
    for_s: float
    in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EndExemption:
    """`node` is governed like all others again."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class DecideProposal:
    """Approve or reject the improvement proposal `proposal`."""

    proposal: str
    approve: bool


Command = Pause | Resume | ClearSafeMode | Isolate | Restore | Exempt | EndExemption | DecideProposal

NAMES: Mapping[type, str] = {
    Pause: "pause",
    Resume: "resume",
    ClearSafeMode: "safe-mode clear",
    Isolate: "isolate",
    Restore: "restore",
    Exempt: "exempt",
    EndExemption: "exempt end",
    DecideProposal: "proposal decide",
}


def described(command: Command) -> dict[str, object]:
    """The command as plain JSON values: its name and its arguments."""
    values = {name: _plain(value) for name, value in asdict(command).items()}
    return {"command": NAMES[type(command)], **values}


def _plain(value: object) -> object:
    """A value as the journal can carry it: NaN and infinity, which are refused, as words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
