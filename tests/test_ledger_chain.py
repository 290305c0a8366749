"""The chain in memory: what it takes, what it refuses, what an auditor finds, and its three faults."""

import json
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from qecs.audit import audit, wanted_tokens
from qecs.block import Block, BlockKind, CommitBody, Header, TickBody
from qecs.entry import CommitEntry
from qecs.errors import InvalidRequestError, UnknownTargetError
from qecs.flows import EmissionInputs, TickFlows
from qecs.ledger import Ledger
from qecs.merkle import merkle_root, verify_proof

NODES = 6
BOUNDS = np.array([0, 3, 6], dtype=np.int64)
ENTRY = CommitEntry(
    id="tx-1",
    sender="n0",
    receiver="guest/a",
    amount=1000,
    fee=10,
    burned=5,
    credited=995,
    sender_node=0,
    receiver_node=None,
    content="00" * 32,
    coherence=(0.97).hex(),
    tick_emission=3,
)


def column(*values):
    return np.array(values, dtype=np.int64)


def new_ledger(**options):
    return Ledger.genesis(np.full(NODES, 500_000, dtype=np.int64), BOUNDS, **options)


def lawful_flows(tick, *, carry=0.0, commits=(3, 1, 4, 1, 5, 9)):
    """Return flows that obey every law, together with the carry of the next tick."""
    committed = column(*commits)
    paid, burned = 1000 * committed, 5 * committed
    received = np.zeros(NODES, dtype=np.int64)
    received[0] = int(paid.sum() - burned.sum())
    inputs = EmissionInputs(0.97, 0.94, 500_000 * NODES, 1.0, carry)
    wanted = wanted_tokens(inputs)
    emitted = np.full(NODES, int(wanted) // NODES, dtype=np.int64)
    flows = TickFlows(tick, committed, paid, received, emitted, burned, inputs)
    return flows, wanted - int(emitted.sum())


def grow(ledger, ticks, *, first=1):
    carry = 0.0
    for tick in range(first, first + ticks):
        flows, carry = lawful_flows(tick, carry=carry)
        ledger.append(flows)
    return ledger


def all_blocks(ledger):
    return ledger.blocks(0, ledger.height + 1)


def findings(ledger):
    return [(finding.height, finding.reason) for finding in audit(all_blocks(ledger))]


def test_genesis_states_the_supply():
    """A new ledger is one block high and its supply is the sum of the balances."""
    ledger = new_ledger()
    assert (ledger.height, ledger.supply, ledger.last_tick, ledger.nodes) == (0, 3_000_000, 0, 6)
    assert ledger.header(0).kind is BlockKind.GENESIS


def test_a_tick_moves_supply_and_balances():
    """A tick's header states emission, burn and the new supply, and balances follow from the flows."""
    ledger = new_ledger()
    flows, _ = lawful_flows(1)
    header = ledger.append(flows)
    assert (header.height, header.tick, header.burn, header.emission) == (1, 1, 115, 594)
    assert ledger.supply == 3_000_000 + 594 - 115
    assert ledger.balances().tolist() == [
        500_000 - 3000 + 22_885 + 99,
        500_000 - 1000 + 99,
        500_000 - 4000 + 99,
        500_000 - 1000 + 99,
        500_000 - 5000 + 99,
        500_000 - 9000 + 99,
    ]
    assert int(ledger.balances().sum()) == ledger.supply


def test_a_commit_block_records_one_transaction():
    """A transaction gets its own block, burns its share, and moves the accounts of nodes and guests."""
    ledger = grow(new_ledger(), 1)
    before = ledger.balances()
    header = ledger.append_commit(ENTRY)
    assert (header.kind, header.burn, header.emission, header.tick) == (BlockKind.COMMIT, 5, 0, 1)
    assert (before - ledger.balances()).tolist() == [1000, 0, 0, 0, 0, 0]
    assert ledger.guest_balances() == {"guest/a": 995}
    assert ledger.entry(2) == ENTRY
    assert findings(ledger) == []


def test_hashes_can_be_recomputed_from_the_documented_layout():
    """Leaf hashes, root and header hash follow from the JSON of a block with nothing but SHA-256."""
    ledger = grow(new_ledger(), 2)
    told = json.loads(json.dumps(ledger.block(2).to_dict()))
    names = ("committed", "paid", "received", "emitted", "burned")
    leaves = []
    for start, end in ((0, 3), (3, 6)):
        packed = b"".join(
            value.to_bytes(8, "little", signed=True) for name in names for value in told["body"][name][start:end]
        )
        leaves.append(sha256(b"\x00" + packed).digest())
    assert sha256(b"\x01" + leaves[0] + leaves[1]).hexdigest() == told["header"]["root"]
    canonical = json.dumps(told["header"], sort_keys=True, separators=(",", ":")).encode("ascii")
    assert sha256(b"\x02" + canonical).hexdigest() == told["hash"]
    assert told["header"]["previous_hash"] == ledger.block(1).hash
    assert float.fromhex(told["header"]["coherence_30"]) == 0.97


def test_the_entry_of_a_commit_is_its_leaf():
    """The text of a commit's body is hashed as it is told."""
    ledger = new_ledger()
    ledger.append_commit(ENTRY)
    told = ledger.block(1).to_dict()
    assert sha256(b"\x00" + told["body"]["entry"].encode()).hexdigest() == told["header"]["root"]


def test_header_survives_json():
    """A header read back from its JSON is the same header with the same hash."""
    header = grow(new_ledger(), 1).header(1)
    again = Header.from_dict(json.loads(header.canonical()))
    assert again == header
    assert again.hash() == header.hash()


@pytest.mark.parametrize(
    "change",
    [{"kind": "other"}, {"supply": "5"}, {"carry": "0.5"}, {"carry": 1}, {"extra": 1}, {"alpha": None}],
)
def test_a_header_that_was_not_written_by_us_is_refused(change):
    """Wrong kinds, types, unknown keys and floats in another notation are no header."""
    fields = {**grow(new_ledger(), 1).header(1).to_dict(), **change}
    with pytest.raises(ValueError, match=r"kind|header|hexadecimal"):
        Header.from_dict(fields)


def test_every_leaf_can_be_proved():
    """Each cluster's leaf of each block has a proof to the root in the header."""
    ledger = grow(new_ledger(), 2)
    proofs = [ledger.proof(height, leaf) for height in range(3) for leaf in range(2)]
    assert all(verify_proof(proof) for proof in proofs)
    assert {proof.root for proof in proofs} == {ledger.header(height).root for height in range(3)}


@pytest.mark.parametrize(("height", "leaf"), [(5, 0), (-1, 0), (1, 2), (1, -1)])
def test_what_does_not_exist_cannot_be_proved(height, leaf):
    """A proof of an unknown block or leaf is refused."""
    with pytest.raises(UnknownTargetError, match=r"no block|no leaf"):
        grow(new_ledger(), 1).proof(height, leaf)


def test_blocks_come_in_pages():
    """A page holds at most its limit and ends at the tip."""
    ledger = grow(new_ledger(), 5)
    assert [block.header.height for block in ledger.blocks(2, 3)] == [2, 3, 4]
    assert [block.header.height for block in ledger.blocks(4, 100)] == [4, 5]
    assert ledger.blocks(6, 10) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"received": column(1, 0, 0, 0, 0, 0)}, "is not the 1 received"),
        ({"emitted": column(-1, 1, 0, 0, 0, 0)}, "must not be negative"),
        ({"burned": np.zeros(NODES)}, "burned must be int64"),
        ({"paid": column(1, 2, 3)}, "paid must be int64 of shape"),
        ({"tick": 1}, "tick 1 cannot follow tick 1"),
    ],
)
def test_flows_that_cannot_be_are_refused(change, message):
    """Flows that create or lose a token, repeat a tick or have the wrong form leave the ledger unchanged."""
    ledger = grow(new_ledger(), 1)
    tip = ledger.tip
    flows, _ = lawful_flows(2)
    with pytest.raises(InvalidRequestError, match=message):
        ledger.append(replace(flows, **change))
    assert ledger.tip == tip


def test_a_transaction_that_does_not_conserve_is_refused():
    """An entry whose parts do not add up never enters the chain."""
    with pytest.raises(InvalidRequestError, match="is not the amount 1000"):
        new_ledger().append_commit(replace(ENTRY, credited=996))


@pytest.mark.parametrize(
    ("balances", "bounds", "message"),
    [
        ([], [0], "one balance a node"),
        ([1, -1], [0, 2], "must not be negative"),
        ([1, 1], [0, 1], "rise from 0"),
        ([1, 1], [0, 0, 2], "rise from 0"),
        ([1, 1], [1, 2], "rise from 0"),
    ],
)
def test_an_impossible_genesis_is_refused(balances, bounds, message):
    """Genesis needs nodes, no debts, and clusters that cover the nodes."""
    with pytest.raises(InvalidRequestError, match=message):
        Ledger.genesis(column(*balances), column(*bounds))


def test_the_ledger_keeps_its_own_copy():
    """Arrays that the caller changes afterwards change nothing in the ledger."""
    ledger = new_ledger()
    flows, _ = lawful_flows(1)
    ledger.append(flows)
    flows.received[0] = 0
    assert findings(ledger) == []


def test_dropped_bodies_leave_balances_exact():
    """With a limit on bodies the old ones are gone, while headers, commits and balances stay."""
    limited, full = new_ledger(bodies_max=2), new_ledger()
    for ledger in (limited, full):
        grow(ledger, 3)
        ledger.append_commit(ENTRY)
        grow(ledger, 3, first=4)
    held = [block.header.height for block in all_blocks(limited) if block.body is not None]
    assert held == [0, 4, 6, 7]
    assert limited.balances().tolist() == full.balances().tolist()
    assert limited.tip == full.tip
    with pytest.raises(UnknownTargetError, match="body of block 1 is no longer held"):
        limited.proof(1)


def test_large_clusters_hold_few_bodies():
    """Above 10,000 nodes 64 tick bodies are held, fewer where they would fill the memory."""
    assert new_ledger()._bodies_max is None
    assert Ledger.genesis(np.ones(10_001, np.int64), column(0, 10_001))._bodies_max == 64
    assert Ledger.genesis(np.ones(1_000_000, np.int64), column(0, 1_000_000))._bodies_max == 6
    with pytest.raises(InvalidRequestError, match="at least 1"):
        new_ledger(bodies_max=0)


def test_a_lawful_chain_has_no_findings():
    """Ticks and transactions that obey the laws pass the audit."""
    ledger = grow(new_ledger(), 4)
    ledger.append_commit(ENTRY)
    assert findings(ledger) == []


def test_a_tick_below_target_mints_nothing_but_its_carry():
    """Coherence at or below the target wants no more than what was carried."""
    assert wanted_tokens(EmissionInputs(0.0, 0.94, 1_000_000, 1.0, 0.25)) == 0.25


def forged(ledger, height, *, header=None, body=None):
    """Return all blocks with one replaced, its hash recomputed as a forger would."""
    blocks = all_blocks(ledger)
    new_header = replace(blocks[height].header, **(header or {}))
    blocks[height] = Block(new_header, new_header.hash(), body or blocks[height].body)
    return blocks


def reasons(blocks, height):
    return [finding.reason for finding in audit(blocks) if finding.height == height]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"supply": 1}, "supply 1, expected"),
        ({"emission": 100_000}, "is not within the"),
        ({"emission": -1}, "is not within the"),
        ({"emission": 1}, "withholds more"),
        ({"burn": 0}, "burn 0 is not the 115"),
        ({"height": 9}, "states height 9, expected 2"),
        ({"tick": 1}, "tick 1 cannot follow tick 1"),
        ({"previous_hash": "0" * 64}, "does not link"),
        ({"root": "0" * 64}, "does not have the Merkle root"),
        ({"kind": BlockKind.GENESIS}, "a genesis block cannot stand here"),
        ({"inputs": None}, "inputs of the emission are missing"),
        ({"inputs": EmissionInputs(float("nan"), 0.94, 3_000_000, 1.0, 0.0)}, "missing or out of range"),
        ({"inputs": EmissionInputs(0.97, 0.94, 3_000_000, 1.0, 7.0)}, "carry 7.0, expected"),
    ],
)
def test_the_audit_names_a_forged_header(header, reason):
    """Each wrong claim of a header is found at its height, although its hash was recomputed."""
    found = reasons(forged(grow(new_ledger(), 3), 2, header=header), header.get("height", 2))
    assert any(reason in text for text in found), found


def test_a_forged_block_breaks_the_link_above():
    """Whoever recomputes a header's hash is found by the next block."""
    assert "does not link to the block below" in reasons(forged(grow(new_ledger(), 3), 2, header={"burn": 0}), 3)


def test_the_recorded_hash_is_checked():
    """A header with another hash than the recorded one is found."""
    blocks = all_blocks(grow(new_ledger(), 1))
    blocks[1] = replace(blocks[1], hash="0" * 64)
    assert reasons(blocks, 1) == ["the header does not have the recorded hash"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [(1, "paid other than 1000"), (4, "burned other than 5"), (2, "is received"), (3, "that its nodes were given")],
)
def test_the_audit_names_a_forged_body(row, reason):
    """A changed flow is found by the law that it breaks, besides the root."""
    ledger = grow(new_ledger(), 2)
    columns = ledger.block(2).body.columns.copy()
    columns[row, 1] += 1
    found = reasons(forged(ledger, 2, body=TickBody(columns, BOUNDS)), 2)
    assert any(reason in text for text in found), found
    assert "the body does not have the Merkle root of the header" in found


def test_the_audit_recomputes_a_transaction():
    """A transaction whose burn is not half of a hundredth, or whose entry is garbage, is found."""
    ledger = new_ledger()
    ledger.append_commit(replace(ENTRY, burned=4, credited=996))
    assert findings(ledger) == [(1, "transaction 'tx-1' of 1000 tokens must pay 10 and burn 5")]
    body = CommitBody("{}")
    blocks = forged(ledger, 1, header={"root": merkle_root(body.leaf_hashes()).hex()}, body=body)
    assert any("not a commit entry" in text for text in reasons(blocks, 1))


def test_a_commit_cannot_mint():
    """Emission in a commit block is found."""
    ledger = new_ledger()
    ledger.append_commit(ENTRY)
    assert "a commit block cannot mint" in reasons(forged(ledger, 1, header={"emission": 7}), 1)


def test_a_genesis_must_match_its_balances():
    """A genesis that states another supply than its balances is found."""
    assert "supply 5 is not the sum of the genesis balances" in reasons(
        forged(new_ledger(), 0, header={"supply": 5}), 0
    )


def test_tampering_shows_in_the_root():
    """A body altered on purpose no longer has its header's root, the chain of headers stays whole."""
    ledger = grow(new_ledger(), 3)
    header = ledger.header(2)
    assert ledger.tamper(2) == 2
    assert ledger.header(2) == header
    assert (2, "the body does not have the Merkle root of the header") in findings(ledger)
    assert {height for height, _ in findings(ledger)} == {2}
    assert not verify_proof(ledger.proof(2, 0))


def test_tampering_takes_the_latest_tick():
    """Without a height the latest tick is altered; genesis cannot be."""
    ledger = grow(new_ledger(), 3)
    ledger.append_commit(ENTRY)
    assert ledger.tamper() == 3
    with pytest.raises(UnknownTargetError, match="block 0 holds no tick body"):
        new_ledger().tamper()


def test_all_nodes_hold_one_tip():
    """Without a fork every node holds the ledger's own tip."""
    ledger = grow(new_ledger(), 2)
    tips = ledger.tips()
    assert tips.distinct == (ledger.tip,)
    assert tips.of_node.tolist() == [0] * NODES


def test_a_fork_shows_in_the_tips_only():
    """Forked nodes hold another tip of the same height, now and after more blocks; both chains are sound."""
    ledger = grow(new_ledger(), 5)
    ledger.fork([1, 4], depth=3)
    ledger.append(lawful_flows(6, carry=ledger_carry(ledger))[0])
    main, other = ledger.tips().distinct
    assert main == ledger.tip
    assert other.height == main.height == 6
    assert other.hash != main.hash
    assert ledger.tips().of_node.tolist() == [0, 1, 0, 0, 1, 0]
    assert findings(ledger) == []
    branch = ledger._fork.blocks
    assert [block.header.height for block in branch] == [3, 4, 5, 6]
    assert audit([*ledger.blocks(0, 3), *branch]) == []


def ledger_carry(ledger):
    header = ledger.header(ledger.height)
    return wanted_tokens(header.inputs) - header.emission


def test_a_fork_needs_a_tick_to_differ_in():
    """A fork of nobody, of unknown nodes, or without any payment is refused."""
    ledger = grow(new_ledger(), 5)
    for nodes in ([], [6], [-1]):
        with pytest.raises(InvalidRequestError, match="needs nodes"):
            ledger.fork(nodes)
    with pytest.raises(InvalidRequestError, match="no tick with payments"):
        new_ledger().fork([1])


def test_a_fork_looks_deeper_for_a_payment():
    """Where nothing was paid at the wanted depth the fork parts at the next payment below."""
    ledger = grow(new_ledger(), 1)
    flows, _ = lawful_flows(2, commits=(0,) * NODES, carry=ledger_carry(ledger))
    ledger.append(flows)
    ledger.append_commit(ENTRY)
    ledger.fork([0], depth=1)
    assert ledger._fork.blocks[0].header.height == 1


def test_inflation_shows_in_the_supply():
    """An inflated supply is found at the tick that states it, and only there."""
    ledger = grow(new_ledger(), 2)
    ledger.inflate(1000)
    ledger.append(lawful_flows(3, carry=ledger_carry(ledger))[0])
    ledger.append(lawful_flows(4, carry=ledger_carry(ledger))[0])
    found = findings(ledger)
    assert [height for height, _ in found] == [3]
    assert found[0][1].endswith("off by 1000")
