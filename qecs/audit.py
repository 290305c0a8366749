"""Can what the ledger says be true? Every claim of a block recomputed from what it holds.

Pure functions from blocks to findings; an empty list is a clean bill. Integrity (hashes, roots, sums) needs no
knowledge of the protocol; the laws of burn and emission do:

- a committed transaction of a tick pays 1000 tokens, of which 5 are burned;
- a single transaction pays a fee of one hundredth, floored, and burns half of the fee, floored;
- a tick may mint `wanted = 0.0103·R·S0 + carry` with `R = α·max(0, ln(C_30/GT))/φ`; what its floors leave over is
  the carry of the next tick.

Floats are compared with a relative tolerance of 1e-9, because `log` differs in its last bit between processors.
A block whose body is no longer held is judged by its header alone. Forks show in the tips, not in one chain.

The laws and their constants are stated here a second time, on purpose: an auditor that took them from the code that it
audits would find nothing wrong with any of them.

Source: docs/model.md section 1 (money).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, isfinite, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from qecs.block import NO_HASH, BlockKind, CommitBody, GenesisBody, Header, TickBody, body_root
from qecs.entry import CommitEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qecs.block import Block
    from qecs.flows import EmissionInputs

AMOUNT_TOKENS = 1000
BURN_TOKENS = 5
EMISSION_RATE = 0.0103
GOLDEN_RATIO = (1.0 + sqrt(5.0)) / 2.0

_TOLERANCE_RELATIVE = 1e-9
_TOLERANCE_TOKENS = 1e-6


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be true, and where."""

    height: int
    reason: str


def audit(blocks: Iterable[Block]) -> list[Finding]:
    """Return everything that is wrong with `blocks`, a whole chain from genesis on, lowest height first."""
    findings: list[Finding] = []
    previous: Block | None = None
    previous_tick: Header | None = None
    for block in blocks:
        findings += integrity_findings(block, previous)
        findings += burn_findings(block)
        findings += emission_findings(block, previous_tick)
        previous = block
        if block.header.kind is BlockKind.TICK:
            previous_tick = block.header
    return findings


def integrity_findings(block: Block, previous: Block | None) -> list[Finding]:
    """Return what is wrong with a block's place in the chain, its root, its sums and its supply.

    Args:
        block: the block to check.
        previous: the block one below, None for genesis.
    """
    return chain_findings(block, previous) + root_findings(block) + supply_findings(block, previous)


def chain_findings(block: Block, previous: Block | None) -> list[Finding]:
    """Return what is wrong with the block's height, hash, link and tick."""
    header = block.header
    height = 0 if previous is None else previous.header.height + 1
    reasons = []
    if header.height != height:
        reasons.append(f"states height {header.height}, expected {height}")
    if header.hash() != block.hash:
        reasons.append("the header does not have the recorded hash")
    if header.previous_hash != (NO_HASH if previous is None else previous.hash):
        reasons.append("does not link to the block below")
    if (header.kind is BlockKind.GENESIS) != (previous is None):
        reasons.append(f"a {header.kind} block cannot stand here")
    if previous is not None and not _tick_fits(header, previous.header):
        reasons.append(f"tick {header.tick} cannot follow tick {previous.header.tick}")
    return [Finding(header.height, reason) for reason in reasons]


def root_findings(block: Block) -> list[Finding]:
    """Return whether the header's Merkle root is not that of the body (nothing if the body is gone)."""
    if block.body is None or body_root(block.body) == block.header.root:
        return []
    return [Finding(block.header.height, "the body does not have the Merkle root of the header")]


def supply_findings(block: Block, previous: Block | None) -> list[Finding]:
    """Return where emission, burn and supply contradict the body or the supply before."""
    header, body = block.header, block.body
    reasons = []
    if isinstance(body, GenesisBody) and int(body.balances.sum()) != header.supply:
        reasons.append(f"supply {header.supply} is not the sum of the genesis balances")
    if isinstance(body, TickBody):
        committed, paid, received, emitted, burned = (int(total) for total in body.columns.sum(axis=1))
        if received != paid - burned:
            reasons.append(f"{committed} commits pay {paid}, burn {burned}, yet {received} is received")
        if emitted != header.emission:
            reasons.append(f"emission {header.emission} is not the {emitted} that its nodes were given")
        if burned != header.burn:
            reasons.append(f"burn {header.burn} is not the {burned} that its nodes burned")
    if previous is not None:
        expected = previous.header.supply + header.emission - header.burn
        if header.supply != expected:
            reasons.append(f"supply {header.supply}, expected {expected}: off by {header.supply - expected}")
    return [Finding(header.height, reason) for reason in reasons]


def burn_findings(block: Block) -> list[Finding]:
    """Return where a body does not pay and burn as the protocol says (nothing if the body is gone)."""
    body, height = block.body, block.header.height
    reasons = []
    if isinstance(body, TickBody):
        committed = body.column("committed")
        if not np.array_equal(body.column("paid"), AMOUNT_TOKENS * committed):
            reasons.append(f"a node paid other than {AMOUNT_TOKENS} tokens a commit")
        if not np.array_equal(body.column("burned"), BURN_TOKENS * committed):
            reasons.append(f"a node burned other than {BURN_TOKENS} tokens a commit")
    if isinstance(body, CommitBody):
        reasons += _entry_reasons(body, block.header.burn)
    return [Finding(height, reason) for reason in reasons]


def emission_findings(block: Block, previous_tick: Header | None) -> list[Finding]:
    """Return where the emission does not follow from the header's inputs and the tick before.

    Args:
        block: the block to check; only ticks may mint.
        previous_tick: header of the tick block before, None if this is the first.
    """
    header = block.header
    if header.kind is not BlockKind.TICK:
        minted = header.emission != 0
        return [Finding(header.height, f"a {header.kind} block cannot mint")] if minted else []
    if header.inputs is None or not _sound(header.inputs):
        return [Finding(header.height, "the inputs of the emission are missing or out of range")]
    reasons = []
    wanted = wanted_tokens(header.inputs)
    if header.emission < 0 or header.emission > wanted + _tolerance(wanted):
        reasons.append(f"emission {header.emission} is not within the {wanted:.3f} tokens wanted")
    nodes = block.body.columns.shape[1] if isinstance(block.body, TickBody) else None
    if nodes is not None and 0 < header.emission < wanted - nodes - 1:
        reasons.append(f"emission {header.emission} withholds more of {wanted:.3f} than floors can")
    carry = carry_after(previous_tick)
    if not isclose(header.inputs.carry, carry, rel_tol=0.0, abs_tol=_tolerance(wanted)):
        reasons.append(f"carry {header.inputs.carry!r}, expected {carry!r}")
    return [Finding(header.height, reason) for reason in reasons]


def wanted_tokens(inputs: EmissionInputs) -> float:
    """Return how many tokens the CAF wants to mint, `0.0103·R·S0 + carry`."""
    if inputs.coherence_30 <= inputs.gas_target:
        return inputs.carry
    rate = inputs.alpha * log(inputs.coherence_30 / inputs.gas_target) / GOLDEN_RATIO
    return EMISSION_RATE * rate * inputs.supply_genesis + inputs.carry


def carry_after(tick: Header | None) -> float:
    """Return the carry that the tick after `tick` starts with, 0 for the first tick of a chain."""
    if tick is None or tick.inputs is None:
        return 0.0
    return wanted_tokens(tick.inputs) - tick.emission


def _tick_fits(header: Header, previous: Header) -> bool:
    if header.kind is BlockKind.TICK:
        return header.tick > previous.tick
    return header.tick == previous.tick


def _entry_reasons(body: CommitBody, burn: int) -> list[str]:
    try:
        entry = CommitEntry.from_text(body.entry)
    except ValueError as error:
        return [str(error)]
    fee = entry.amount // 100
    expected = (fee, fee // 2, entry.amount - fee // 2, fee // 2)
    if (entry.fee, entry.burned, entry.credited, burn) == expected:
        return []
    return [f"transaction {entry.id!r} of {entry.amount} tokens must pay {fee} and burn {fee // 2}"]


def _sound(inputs: EmissionInputs) -> bool:
    floats = (inputs.coherence_30, inputs.gas_target, inputs.alpha, inputs.carry)
    return all(isfinite(value) for value in floats) and inputs.coherence_30 >= 0.0 < inputs.gas_target


def _tolerance(tokens: float) -> float:
    return _TOLERANCE_TOKENS + _TOLERANCE_RELATIVE * abs(tokens)
