"""What is to be done to the plant: imperatives that the governor returns and the controller carries out.

Every action carries the idempotency key of its durable intent, so that carrying it out twice has one effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from metrics.observation import NodeId, Parameters


class Reply(StrEnum):
    """What became of an action; the effect itself is only believed when read back. VOID: it was never sent."""

    APPLIED = "applied"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class IsolateNode:
    """Take `node` out of the cluster for at most `ttl_s` plant seconds; also renews the limit of one that is out."""

    key: str
    node: NodeId
    ttl_s: float


@dataclass(frozen=True, slots=True)
class RestoreNode:
    """Let `node` take part again."""

    key: str
    node: NodeId


@dataclass(frozen=True, slots=True)
class ApplyParameters:
    """Put `parameters` into force."""

    key: str
    parameters: Parameters


Action = IsolateNode | RestoreNode | ApplyParameters
