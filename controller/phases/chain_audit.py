"""Can what the plant's ledger says be true? Recomputed from outside, block by block, by the published byte layout.

This is deliberately a second implementation: an auditor who runs the audited party's code has audited nothing. It
knows the layout that QECS publishes with `GET /ledger/blocks` and nothing of how the ledger is kept.

- header hash = SHA-256(0x02 ‖ JSON of the header with sorted keys and no white space);
- leaf hash = SHA-256(0x00 ‖ leaf), inner node = SHA-256(0x01 ‖ left ‖ right), an odd last node is lifted (RFC 6962);
- a tick block's tick is a later one, a commit stands in the tick before it;
- genesis and tick blocks: a leaf for each cluster, little-endian int64; commit blocks: one leaf, the entry's text;
- a tick's commit pays 1000 and burns 5; a single transaction burns half of its hundredth;
- emission stays within 0.0103·R·S0 + carry, R = α·max(0, ln(C_30/GT))/φ, and what it leaves over is the next carry.

Source: docs/model.md section 1.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

AMOUNT = 1000
BURN = 5
EMISSION_RATE = 0.0103
ALPHA_MAX = 2.0
ENTRY_MAX = 10**12  # so that no sum over a million nodes and no price can run over 64 bits
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
COLUMNS = ("committed", "paid", "received", "emitted", "burned")
TOLERANCE_TOKENS = 1e-6
TOLERANCE_RELATIVE = 1e-9  # log differs in its last bit between processors
FINDINGS_MAX = 20


class Claim(StrEnum):
    """The claims of a chain, each audited by itself."""

    CHAIN = "chain"
    ROOTS = "roots"
    SUPPLY = "supply"
    BURN = "burn"
    EMISSION = "emission"


@dataclass(slots=True)
class ChainAudit:
    """An audit under way: blocks are fed in order from genesis on, findings collect by claim.

    Attributes:
        findings: claim to sentences, at most `FINDINGS_MAX` each.
        blocks: blocks audited.
        bodies: blocks whose body was still held, and so could be recomputed.
        tip: height and hash of the last block.
        supply: supply after the last block.
        supply_genesis: supply of the first.
    """

    findings: dict[Claim, list[str]] = field(default_factory=lambda: {claim: [] for claim in Claim})
    blocks: int = 0
    bodies: int = 0
    tip: tuple[int, str] = (-1, "0" * 64)
    supply: int = 0
    supply_genesis: int = 0
    _bounds: list[int] = field(default_factory=list)
    _carry: float = 0.0
    _tick: int = 0

    def feed(self, block: Mapping[str, Any]) -> None:
        """Audit one block; a block that cannot even be read is a finding against the chain."""
        height = self.tip[0] + 1
        try:
            self._audit(height, block["header"], str(block["hash"]), block.get("body"))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            self._find(Claim.CHAIN, height, f"cannot be read: {type(error).__name__} {error}")
            self.tip = (height, str(block.get("hash")))
        self.blocks += 1

    def _audit(self, height: int, header: Mapping[str, Any], digest: str, body: Mapping[str, Any] | None) -> None:
        self._chain(height, header, digest)
        if body is not None:
            self.bodies += 1
            self._body(height, header, body)
        self._supply(height, header)
        if header["kind"] == "tick":
            self._emission(height, header, body)
        elif header["emission"] != 0:
            self._find(Claim.EMISSION, height, f"a {header['kind']} block mints {header['emission']}")
        self.tip = (height, digest)
        self.supply = _whole(header, "supply")

    def _chain(self, height: int, header: Mapping[str, Any], digest: str) -> None:
        if header["height"] != height:
            self._find(Claim.CHAIN, height, f"states height {header['height']}")
        if header["previous_hash"] != self.tip[1]:
            self._find(Claim.CHAIN, height, "does not follow the block below it")
        if _header_hash(header) != digest:
            self._find(Claim.CHAIN, height, "its header does not give its hash")
        kind, tick = header["kind"], _whole(header, "tick")
        if kind not in (("genesis",) if height == 0 else ("tick", "commit")):
            self._find(Claim.CHAIN, height, f"a {kind} block cannot stand here")
        if (height and tick < self._tick + (kind == "tick")) or (kind == "commit" and tick != self._tick):
            self._find(Claim.CHAIN, height, f"tick {tick} cannot follow tick {self._tick}")
        self._tick = tick

    def _body(self, height: int, header: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        kind = header["kind"]
        if kind == "genesis":
            self._bounds = _whole_column(body, "cluster_bounds").tolist()
            balances = _whole_column(body, "balances", self._bounds[-1])
            leaves = [balances[a:b].tobytes() for a, b in self._spans()]
            self._expect(Claim.SUPPLY, height, "supply", header["supply"], int(balances.sum()))
        elif kind == "tick":
            flows = {name: _whole_column(body, name, self._bounds[-1]) for name in COLUMNS}
            leaves = [b"".join(flows[name][a:b].tobytes() for name in COLUMNS) for a, b in self._spans()]
            self._flows(height, header, flows)
        else:
            leaves = [str(body["entry"]).encode()]
            self._entry(height, header, json.loads(body["entry"]))
        if _merkle_root(leaves) != header["root"]:
            self._find(Claim.ROOTS, height, "its entries do not give its Merkle root")

    def _flows(self, height: int, header: Mapping[str, Any], flows: Mapping[str, NDArray[np.int64]]) -> None:
        totals = {name: int(column.sum()) for name, column in flows.items()}
        self._expect(Claim.SUPPLY, height, "received", totals["received"], totals["paid"] - totals["burned"])
        self._expect(Claim.EMISSION, height, "emission", header["emission"], totals["emitted"])
        self._expect(Claim.BURN, height, "burn", header["burn"], BURN * totals["committed"])
        if not np.array_equal(flows["burned"], BURN * flows["committed"]):
            self._find(Claim.BURN, height, f"a node burned other than {BURN} tokens a commit")
        if not np.array_equal(flows["paid"], AMOUNT * flows["committed"]):
            self._find(Claim.SUPPLY, height, f"a node paid other than {AMOUNT} tokens a commit")

    def _entry(self, height: int, header: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
        amount = _whole(entry, "amount")
        fee = amount // 100
        for name, stated in (("burn", header["burn"]), ("burned", entry["burned"])):
            self._expect(Claim.BURN, height, name, stated, fee // 2)
        self._expect(Claim.SUPPLY, height, "fee", entry["fee"], fee)
        self._expect(Claim.SUPPLY, height, "credited", entry["credited"], amount - fee // 2)

    def _supply(self, height: int, header: Mapping[str, Any]) -> None:
        supply, emission, burn = (_whole(header, name) for name in ("supply", "emission", "burn"))
        if burn < 0:
            self._find(Claim.BURN, height, f"burns {burn}, which mints")
        if height == 0:
            self.supply_genesis = supply
        else:
            self._expect(Claim.SUPPLY, height, "supply", supply, self.supply + emission - burn)

    def _emission(self, height: int, header: Mapping[str, Any], body: Mapping[str, Any] | None) -> None:
        names = ("coherence_30", "gas_target", "supply_genesis", "alpha", "carry")
        coherence, target, genesis, alpha, carry = (float.fromhex(header[name]) for name in names)
        if not (
            0.0 <= coherence <= 1.0 + TOLERANCE_RELATIVE
            and 0.0 < target <= 1.0 + TOLERANCE_RELATIVE
            and 0.0 <= alpha <= ALPHA_MAX
            and math.isfinite(carry)
        ):
            self._find(Claim.EMISSION, height, "its emission is computed from values that cannot be")
            return
        rate = alpha * max(0.0, math.log(coherence / target)) / GOLDEN_RATIO if coherence > 0 else 0.0
        wanted = EMISSION_RATE * rate * genesis + carry
        slack = TOLERANCE_TOKENS + TOLERANCE_RELATIVE * abs(wanted)
        emission = int(header["emission"])
        if genesis != self.supply_genesis:
            self._find(Claim.EMISSION, height, f"states genesis supply {genesis:g}, not {self.supply_genesis}")
        if not 0 <= emission <= wanted + slack:
            self._find(Claim.EMISSION, height, f"mints {emission} where the law wants {wanted:.3f}")
        if body is not None and 0 < emission < wanted - len(body["emitted"]) - 1:
            self._find(Claim.EMISSION, height, f"withholds more of {wanted:.3f} than floors can")
        if abs(carry - self._carry) > slack:
            self._find(Claim.EMISSION, height, f"carries {carry!r} where {self._carry!r} was left over")
        self._carry = wanted - emission

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self._bounds[:-1], self._bounds[1:], strict=True))

    def _expect(self, claim: Claim, height: int, name: str, stated: object, expected: int) -> None:
        if stated != expected:
            self._find(claim, height, f"{name} {stated}, recomputed {expected}")

    def _find(self, claim: Claim, height: int, text: str) -> None:
        if len(self.findings[claim]) < FINDINGS_MAX:
            self.findings[claim].append(f"block {height}: {text}")


def _whole(table: Mapping[str, Any], name: str) -> int:
    value = table[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, not a whole number")
    return value


def _whole_column(body: Mapping[str, Any], name: str, length: int | None = None) -> NDArray[np.int64]:
    """A column of `body` as it stands there: whole, none below zero, and as many as there are nodes."""
    column = body[name]
    if not all(type(value) is int and 0 <= value <= ENTRY_MAX for value in column):
        raise TypeError(f"{name} holds other than whole numbers from 0 to {ENTRY_MAX}")
    if length is not None and len(column) != length:
        raise ValueError(f"{name} has {len(column)} entries for {length} nodes")
    return np.array(column, dtype="<i8")


def _header_hash(header: Mapping[str, Any]) -> str:
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(b"\x02" + canonical.encode("ascii")).hexdigest()


def _merkle_root(leaves: list[bytes]) -> str:
    level = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return level[0].hex()
