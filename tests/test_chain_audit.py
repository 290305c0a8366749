"""The auditor's own reading of a chain: clean on real chains, and no forgery of any field goes unseen."""

import copy
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.phases.chain_audit import ChainAudit, Claim
from qecs.audit import audit as qecs_audit
from qecs.block import NO_HASH
from qecs.cluster import Cluster
from qecs.commits import CommitDesk

HEADER_FIELDS = (
    "height",
    "kind",
    "previous_hash",
    "root",
    "supply",
    "emission",
    "burn",
    "tick",
    "coherence_30",
    "gas_target",
    "supply_genesis",
    "alpha",
    "carry",
)


def lived(ticks=60, nodes=10, seed=4):
    cluster = Cluster(nodes, seed=seed)
    desk = CommitDesk(cluster)
    for tick in range(ticks):
        cluster.step()
        if tick % 7 == 3:
            desk.commit({"id": f"t{tick}", "sender": "node-0001", "receiver": "guest", "amount": 1000 + tick})
    return cluster


LEDGER = lived().ledger
CHAIN = [block.to_dict() for block in LEDGER.blocks(0, LEDGER.height + 1)]


def audited(chain):
    audit = ChainAudit()
    for block in chain:
        audit.feed(block)
    return audit


def findings(chain):
    return {claim: texts for claim, texts in audited(chain).findings.items() if texts}


def forged(height, change):
    """The chain with one block changed, and all hashes from there on made to fit again: a competent forger's work."""
    chain = copy.deepcopy(CHAIN)
    change(chain[height])
    previous = NO_HASH if height == 0 else chain[height - 1]["hash"]
    for block in chain[height:]:
        block["header"]["previous_hash"] = previous
        canonical = json.dumps(block["header"], sort_keys=True, separators=(",", ":"))
        previous = block["hash"] = hashlib.sha256(b"\x02" + canonical.encode()).hexdigest()
    return chain


def height_of(kind, after=30):
    return next(i for i, block in enumerate(CHAIN) if i > after and block["header"]["kind"] == kind)


def another(value):
    """A value of the same type that differs."""
    if isinstance(value, int):
        return value + 1
    if value is None:
        return "0x1.0p+0"
    if value in ("tick", "commit", "genesis"):
        return {"tick": "commit", "commit": "tick", "genesis": "tick"}[value]
    if value.startswith(("0x", "-0x")):
        return (float.fromhex(value) * 1.01 + 0.5).hex()
    return hashlib.sha256(value.encode()).hexdigest()


def test_a_healthy_chain_is_clean_here_and_by_the_ledgers_own_audit():
    """Two implementations that share no code agree that a real chain holds, with every body recomputed."""
    audit = audited(CHAIN)
    assert not any(audit.findings.values())
    assert qecs_audit(LEDGER.blocks(0, LEDGER.height + 1)) == []
    assert audit.blocks == audit.bodies == len(CHAIN)
    assert audit.tip == (LEDGER.tip.height, LEDGER.tip.hash)
    assert audit.supply == LEDGER.supply


@given(height=st.integers(0, len(CHAIN) - 1), field=st.sampled_from(HEADER_FIELDS))
@settings(max_examples=150, deadline=None)
def test_a_changed_header_field_does_not_give_the_recorded_hash(height, field):
    """Whichever field of whichever header is changed, the chain is found broken at that block."""
    chain = copy.deepcopy(CHAIN)
    chain[height]["header"][field] = another(chain[height]["header"][field])
    assert any(text.startswith(f"block {height}:") for text in findings(chain)[Claim.CHAIN])


@given(
    height=st.integers(0, len(CHAIN) - 1),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_a_changed_body_does_not_give_its_root(height, data):
    """Whichever number or text of whichever body is changed, its Merkle root does not fit, or it cannot be read."""
    chain = copy.deepcopy(CHAIN)
    body = chain[height]["body"]
    column = data.draw(st.sampled_from(sorted(body)))
    if isinstance(body[column], str):
        body[column] = body[column].replace("guest", "guezt")
    else:
        position = data.draw(st.integers(0, len(body[column]) - 1))
        body[column][position] += data.draw(st.sampled_from([1, 1000, -1]))
    found = findings(chain)
    assert found.keys() & {Claim.ROOTS, Claim.CHAIN}
    assert found.get(Claim.ROOTS, found.get(Claim.CHAIN))[0].startswith(f"block {height}:")


@pytest.mark.parametrize(
    ("kind", "field", "claim"),
    [
        ("tick", "supply", Claim.SUPPLY),
        ("tick", "emission", Claim.EMISSION),
        ("tick", "burn", Claim.BURN),
        ("tick", "root", Claim.ROOTS),
        ("tick", "coherence_30", Claim.EMISSION),
        ("tick", "supply_genesis", Claim.EMISSION),
        ("tick", "carry", Claim.EMISSION),
        ("commit", "supply", Claim.SUPPLY),
        ("commit", "emission", Claim.EMISSION),
        ("commit", "burn", Claim.BURN),
        ("commit", "root", Claim.ROOTS),
        ("commit", "tick", Claim.CHAIN),
    ],
)
def test_a_forger_who_makes_all_hashes_fit_is_found_out_by_the_laws(kind, field, claim):
    """With every hash recomputed, what a header claims still contradicts its body, its neighbours or the law."""
    height = height_of(kind)

    def change(block):
        block["header"][field] = another(block["header"][field])

    assert claim in findings(forged(height, change))


@pytest.mark.parametrize("value", ["inf", "nan", "-inf", "0x1p+60", "-0x1p+0"])
@pytest.mark.parametrize("field", ["coherence_30", "gas_target", "alpha", "carry"])
def test_impossible_inputs_license_no_emission(field, value):
    """Values that no cluster can have do not make a large emission lawful."""

    def change(block):
        block["header"][field] = value
        block["header"]["emission"] += 10**9

    assert Claim.EMISSION in findings(forged(height_of("tick"), change))


@pytest.mark.parametrize(
    ("field", "value", "claim"),
    [
        ("burn", -5, Claim.BURN),
        ("emission", -5, Claim.EMISSION),
        ("supply", 1.5, Claim.CHAIN),
        ("supply", True, Claim.CHAIN),
        ("supply", None, Claim.CHAIN),
        ("kind", "gift", Claim.CHAIN),
        ("kind", ["tick"], Claim.CHAIN),
        ("tick", 1, Claim.CHAIN),
    ],
)
def test_a_header_with_values_that_no_ledger_writes_is_found(field, value, claim):
    """Negative burns, fractions, truth values, unknown kinds and ticks that go back are findings, never a crash."""

    def change(block):
        block["header"][field] = value
        block["body"] = None

    assert claim in findings(forged(height_of("tick"), change))


def a_forged_commit(**changes):
    def change(block):
        entry = json.loads(block["body"]["entry"]) | changes
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        block["body"]["entry"] = text
        block["header"]["root"] = hashlib.sha256(b"\x00" + text.encode()).hexdigest()

    return forged(height_of("commit"), change)


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"burned": 0}, Claim.BURN),
        ({"fee": 0}, Claim.SUPPLY),
        ({"credited": 10**6}, Claim.SUPPLY),
        ({"amount": 10**6}, Claim.BURN),
        ({"amount": 0.5}, Claim.CHAIN),
    ],
)
def test_a_forged_entry_breaks_the_laws_of_fee_and_burn(changes, claim):
    """A single transaction whose root was made to fit must still pay its fee and burn half of it."""
    assert claim in findings(a_forged_commit(**changes))


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "body",
        7,
        {"committed": []},
        {name: [1.5] * 10 for name in ("committed", "paid", "received", "emitted", "burned")},
        {name: [2**70] * 10 for name in ("committed", "paid", "received", "emitted", "burned")},
        {name: [0] * 11 for name in ("committed", "paid", "received", "emitted", "burned")},
        {name: [[0]] * 10 for name in ("committed", "paid", "received", "emitted", "burned")},
        dict.fromkeys(("committed", "paid", "received", "emitted", "burned")),
    ],
)
def test_a_body_of_the_wrong_shape_is_a_finding(body):
    """Whatever stands in the place of a body is a finding against the chain, never a crash."""
    chain = copy.deepcopy(CHAIN)
    chain[height_of("tick")]["body"] = body
    assert Claim.CHAIN in findings(chain)


@pytest.mark.parametrize("block", [{}, {"header": 3}, {"header": {}, "hash": "x"}, {"header": [], "hash": None}])
def test_a_block_that_cannot_be_read_is_a_finding(block):
    """Something that is no block at all is a finding against the chain, at its height."""
    audit = audited([*CHAIN[:5], block])
    assert audit.findings[Claim.CHAIN][0].startswith("block 5: cannot be read")


def test_an_entry_nested_beyond_reason_is_a_finding():
    """A commit's entry that no parser can take is a finding."""
    chain = copy.deepcopy(CHAIN)
    chain[height_of("commit")]["body"]["entry"] = "[" * 100_000
    assert Claim.CHAIN in findings(chain)


def test_a_chain_without_its_genesis_body_is_judged_all_the_same():
    """A server that withholds the genesis body cannot crash the audit."""
    chain = copy.deepcopy(CHAIN)
    chain[0]["body"] = None
    assert Claim.CHAIN in findings(chain)


def test_missing_and_swapped_blocks_are_found():
    """A block left out, doubled or moved breaks the chain."""
    assert Claim.CHAIN in findings(CHAIN[:10] + CHAIN[11:])
    assert Claim.CHAIN in findings([*CHAIN[:10], CHAIN[9], *CHAIN[10:]])
    assert Claim.CHAIN in findings([*CHAIN[:10], CHAIN[11], CHAIN[10], *CHAIN[12:]])
    assert Claim.CHAIN in findings(CHAIN[1:])


def test_headers_alone_are_judged_by_what_they_say():
    """Without bodies the chain, the supply and the law of emission are still held."""
    chain = [{**block, "body": block["body"] if height == 0 else None} for height, block in enumerate(CHAIN)]
    audit = audited(chain)
    assert not any(audit.findings.values())
    assert audit.bodies == 1


def test_findings_are_bounded():
    """A chain that is broken everywhere gives a readable number of findings."""
    chain = [{**block, "hash": "0" * 64} for block in CHAIN]
    assert len(findings(chain)[Claim.CHAIN]) == 20


@pytest.mark.parametrize(
    ("damage", "claim"),
    [(lambda ledger: ledger.tamper(), Claim.ROOTS), (lambda ledger: ledger.inflate(1000), Claim.SUPPLY)],
)
def test_the_ledgers_own_kinds_of_damage_are_found_by_both_audits(damage, claim):
    """What the scenarios do to a ledger is found by this audit and by the ledger's own."""
    cluster = lived(ticks=40)
    damage(cluster.ledger)
    cluster.step()
    blocks = cluster.ledger.blocks(0, cluster.ledger.height + 1)
    assert audited([block.to_dict() for block in blocks]).findings[claim]
    assert qecs_audit(blocks)
