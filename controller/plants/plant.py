"""The protocol to which every governed system is adapted, and the values that cross it.

A plant states its capabilities. What it cannot do it refuses with `UnsupportedError`, and the checks that need it are
skipped with the reason. Every call has a total deadline and ends in an answer or in a `PlantError`:
`PlantUnavailableError` (no answer, too late, or unintelligible: the effect is unknown) or `PlantRefusedError` (an
answer, and it is no).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from metrics.observation import Capability, NodeId, Observation, Parameters

SILENT_INTERVALS = 3.0  # of a plant that ticks slowly, without a new tick, before that is silence


@dataclass(frozen=True, slots=True)
class PlantInfo:
    """What a plant says of itself.

    Attributes:
        name: which adapter and which system, e.g. "embedded" or "http://127.0.0.1:8080".
        system: the governed system and its version, e.g. "qecs 1.5".
        capabilities: what can be asked of it.
        seed: the plant's seed, where it has one, else None.
        real_time: True where ticks come by themselves; False where `observe` advances a virtual clock.
        interval_s: real seconds between the plant's ticks; 0 for a virtual one.
    """

    name: str
    system: str
    capabilities: frozenset[Capability]
    seed: int | None
    real_time: bool
    interval_s: float

    def patience_s(self, unavailable_s: float) -> float:
        """How long it may go without a new tick, where `unavailable_s` are allowed to a plant that ticks often."""
        return max(unavailable_s, SILENT_INTERVALS * self.interval_s)


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """The plant's answer to one ledger transaction.

    Attributes:
        http_status: 200, 400 or 409 (the embedded plant answers with the same numbers).
        status: "APPROVED", "REJECTED" or whatever the plant said.
        body: the whole answer, for comparing an identical replay with the first answer.
    """

    http_status: int
    status: str
    body: Mapping[str, object]

    @property
    def approved(self) -> bool:
        """True for an unambiguous yes."""
        return self.http_status == 200 and self.status == "APPROVED"  # noqa: PLR2004 - HTTP OK

    @property
    def reason(self) -> str:
        """The plant's own words for a refusal."""
        return str(self.body.get("reason") or self.body.get("message") or self.status)


@dataclass(frozen=True, slots=True)
class LedgerTip:
    """The end of a chain: the height of its last block and that block's hash (hex)."""

    height: int
    hash: str


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the plant says of its ledger: the tip, the supply it claims, the supply at genesis, and each node's tip.

    `balances_total` is the sum of all balances that the plant itself holds (nodes and other accounts).
    """

    tip: LedgerTip
    supply: int
    supply_genesis: int
    balances_total: int
    node_tips: Mapping[NodeId, LedgerTip] = field(default_factory=dict)


class Plant(Protocol):
    """A governed system."""

    @property
    def info(self) -> PlantInfo:
        """What the plant is and can; known after the first successful `connect`."""
        ...

    def connect(self, deadline_s: float) -> PlantInfo:
        """Reach the plant and learn its capabilities."""
        ...

    def epoch_seen(self, deadline_s: float) -> int:
        """The highest fencing epoch that the plant has seen so far, 0 if none; ours has to be higher."""
        ...

    def observe(self, deadline_s: float) -> Sequence[Observation]:
        """The ticks that have come since the last call, oldest first; empty where none has.

        A virtual plant advances by exactly one tick a call.
        """
        ...

    def isolated(self) -> frozenset[NodeId]:
        """The nodes that the plant itself holds isolated, read now."""
        ...

    def isolate(self, node: NodeId, *, key: str, epoch: int, ttl_s: float) -> None:
        """Take a node out; the same key again has no further effect."""
        ...

    def restore(self, node: NodeId, *, key: str, epoch: int) -> None:
        """Let a node take part again; the same key again has no further effect."""
        ...

    def parameters(self) -> Parameters:
        """The parameters in force, read now."""
        ...

    def apply(self, parameters: Parameters, *, key: str, epoch: int) -> None:
        """Put parameters into force; the same key again has no further effect."""
        ...

    def inject(self, fault: Mapping[str, object], *, key: str, epoch: int) -> None:
        """Start a fault; `fault` is the JSON form that the plant's scenario files use."""
        ...

    def clear(self, fault_id: str, *, key: str, epoch: int) -> None:
        """End a fault."""
        ...

    def ledger(self) -> LedgerState:
        """Tip, supply and each node's tip, read now."""
        ...

    def blocks(self, start: int, limit: int) -> Sequence[Mapping[str, object]]:
        """Up to `limit` blocks from height `start` on, in the JSON form of `GET /ledger/blocks`."""
        ...

    def commit(self, transaction: Mapping[str, object]) -> CommitAnswer:
        """Offer a transaction to the live ledger; a refusal is an answer, not an error."""
        ...

    def balance(self, account: str) -> int:
        """The balance of a node or another account, tokens."""
        ...

    def close(self) -> None:
        """Let go of the plant; it is left as it is."""
        ...
