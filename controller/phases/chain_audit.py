"""Can what the plant's ledger says be true? Recomputed from outside, block by block, by the published byte layout.

This is deliberately a second implementation: an auditor who runs the audited party's code has audited nothing. It
knows the layout that QECS publishes with `GET /ledger/blocks` and nothing of how the ledger is kept.

- header hash = SHA-256(0x02 ‖ JSON of the header with sorted keys and no white space);
- leaf hash = SHA-256(0x00 ‖ leaf), inner node = SHA-256(0x01 ‖ left ‖ right), an odd last node is lifted (RFC 6962);
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

    def feed(self, block: Mapping[str, Any]) -> None:
        """Audit one block; a block that cannot even be read is a finding against the chain."""
        height = self.tip[0] + 1
        try:
            self._audit(height, block["header"], str(block["hash"]), block.get("body"))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
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
        self.supply = int(header["supply"])

    def _chain(self, height: int, header: Mapping[str, Any], digest: str) -> None:
        if header["height"] != height:
            self._find(Claim.CHAIN, height, f"states height {header['height']}")
        if header["previous_hash"] != self.tip[1]:
            self._find(Claim.CHAIN, height, "does not follow the block below it")
        if _header_hash(header) != digest:
            self._find(Claim.CHAIN, height, "its header does not give its hash")
        if (header["kind"] == "genesis") != (height == 0):
            self._find(Claim.CHAIN, height, f"a {header['kind']} block cannot stand here")

    def _body(self, height: int, header: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        kind = header["kind"]
        if kind == "genesis":
            self._bounds = [int(bound) for bound in body["cluster_bounds"]]
            balances = np.array(body["balances"], dtype="<i8")
            leaves = [balances[a:b].tobytes() for a, b in self._spans()]
            self._expect(Claim.SUPPLY, height, "supply", header["supply"], int(balances.sum()))
        elif kind == "tick":
            flows = {name: np.array(body[name], dtype="<i8") for name in COLUMNS}
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
        burned = int(entry["amount"]) // 100 // 2
        self._expect(Claim.BURN, height, "burn", header["burn"], burned)
        self._expect(Claim.SUPPLY, height, "credited", entry["credited"], entry["amount"] - burned)

    def _supply(self, height: int, header: Mapping[str, Any]) -> None:
        if height == 0:
            self.supply_genesis = int(header["supply"])
            return
        self._expect(
            Claim.SUPPLY, height, "supply", header["supply"], self.supply + header["emission"] - header["burn"]
        )

    def _emission(self, height: int, header: Mapping[str, Any], body: Mapping[str, Any] | None) -> None:
        names = ("coherence_30", "gas_target", "supply_genesis", "alpha", "carry")
        coherence, target, genesis, alpha, carry = (float.fromhex(header[name]) for name in names)
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


def _header_hash(header: Mapping[str, Any]) -> str:
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(b"\x02" + canonical.encode("ascii")).hexdigest()


def _merkle_root(leaves: list[bytes]) -> str:
    level = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return level[0].hex()
