"""Single transactions: what they cost, what is refused, and that none ever executes twice."""

import json

import pytest

from qecs import commits
from qecs.audit import audit
from qecs.chain_directory import LedgerWriteError
from qecs.cluster import Cluster
from qecs.commits import CommitDesk, Outcome
from qecs.errors import UnknownTargetError
from qecs.ledger import Ledger

A, B = "node-0000", "node-0001"


@pytest.fixture
def cluster():
    cluster = Cluster(6, seed=3)
    for _ in range(16):
        cluster.step()
    return cluster


@pytest.fixture
def desk(cluster):
    return CommitDesk(cluster)


def request(identifier="tx-1", sender=A, receiver=B, amount=1000, **extra):
    return {"id": identifier, "sender": sender, "receiver": receiver, "amount": amount, **extra}


def rejected(answer, code):
    return answer.outcome is Outcome.REJECTED and answer.fields["code"] == code


def holdings(cluster, desk):
    return int(cluster.balances.sum()) + desk.guest_supply()


def test_a_transaction_costs_what_the_model_says(cluster, desk):
    """1000 tokens: fee 10, of which 5 are burned and 5 reach the receiver as relay."""
    before = {name: desk.balance(name) for name in (A, B)}
    supply = cluster.ledger.supply
    answer = desk.commit(request())
    assert answer.outcome is Outcome.APPROVED
    assert answer.fields == {
        "status": "APPROVED",
        "tx_id": "tx-1",
        "C_system": cluster.snapshot.kpis["coherence"],
        "fee": 10,
        "emission": int(cluster.ledger.header(16).emission),
        "burned": 5,
        "credited": 995,
        "height": 17,
    }
    assert desk.balance(A) == before[A] - 1000
    assert desk.balance(B) == before[B] + 995
    assert cluster.ledger.supply == supply - 5
    assert (desk.executed, desk.burned) == (1, 5)


@pytest.mark.parametrize(("amount", "fee", "burned"), [(1, 0, 0), (99, 0, 0), (199, 1, 0), (200, 2, 1), (399, 3, 1)])
def test_fees_are_floored(desk, amount, fee, burned):
    """Fractions of a token never exist."""
    fields = desk.commit(request(amount=amount)).fields
    assert (fields["fee"], fields["burned"], fields["credited"]) == (fee, burned, amount - burned)


def test_the_books_balance_at_every_moment(cluster, desk):
    """Nodes, guests, ledger and audit agree while ticks and transactions alternate."""
    for number in range(40):
        cluster.step()
        desk.commit(request(f"in-{number}", A, "probe-1/a", 500))
        desk.commit(request(f"out-{number}", "probe-1/a", B, 250))
    ledger = cluster.ledger
    assert holdings(cluster, desk) == ledger.supply
    assert ledger.balances().tolist() == cluster.balances.tolist()
    assert ledger.guest_balances() == {"probe-1/a": desk.balance("probe-1/a")}
    assert desk.balance("probe-1/a") == 40 * (498 - 250)
    assert audit(ledger.blocks(0, ledger.height + 1)) == []


def test_before_the_first_tick_there_is_no_coherence():
    """A transaction before the first tick is executed and states no coherence."""
    assert CommitDesk(Cluster(6)).commit(request()).fields["C_system"] is None


def test_an_identical_replay_changes_nothing(cluster, desk):
    """The first answer comes again, later and in any order of keys, and nothing moves."""
    first = desk.commit(request(note="x"))
    cluster.step()
    height, balances = cluster.ledger.height, cluster.balances.tolist()
    again = desk.commit(dict(reversed(request(note="x").items())))
    assert again == first
    assert (cluster.ledger.height, cluster.balances.tolist()) == (height, balances)


@pytest.mark.parametrize("change", [{"amount": 1001}, {"sender": B, "receiver": A}, {"note": "y"}, {"memo": None}])
def test_a_used_id_with_other_content_conflicts(cluster, desk, change):
    """Any difference, unknown keys included, makes a replay a conflict, and nothing moves."""
    desk.commit(request(note="x"))
    height = cluster.ledger.height
    answer = desk.commit({**request(note="x"), **change})
    assert answer.outcome is Outcome.CONFLICT
    assert answer.fields["status"] == "CONFLICT"
    assert cluster.ledger.height == height


def test_an_overdraft_is_refused(cluster, desk):
    """More than the sender holds is refused, one token less is not, and nobody goes below zero."""
    balance, height = desk.balance(A), cluster.ledger.height
    answer = desk.commit(request(amount=balance + 1))
    assert rejected(answer, "insufficient_funds")
    assert answer.fields["reason"] == f"insufficient funds: '{A}' holds {balance}, not {balance + 1}"
    assert cluster.ledger.height == height
    assert desk.commit(request("tx-2", amount=balance)).outcome is Outcome.APPROVED
    assert desk.balance(A) == 0


def test_a_guest_without_money_cannot_pay(desk):
    """Guest accounts start at zero."""
    assert desk.balance("alice") == 0
    assert rejected(desk.commit(request(sender="alice")), "insufficient_funds")


def test_a_refusal_is_answered_again(desk):
    """A refused id stays refused even when funds have arrived; with other content it is a conflict."""
    refused = desk.commit(request("tx-1", "guest", B, 100))
    desk.commit(request("tx-2", A, "guest", 1000))
    assert desk.commit(request("tx-1", "guest", B, 100)) == refused
    assert desk.commit(request("tx-1", "guest", B, 99)).outcome is Outcome.CONFLICT
    assert desk.commit(request("tx-3", "guest", B, 100)).outcome is Outcome.APPROVED


def test_refusals_are_forgotten_in_the_end(desk, monkeypatch):
    """Only the latest refusals are remembered, executed ids all."""
    monkeypatch.setattr(commits, "REJECTIONS_MAX", 2)
    desk.commit(request("paid", A, "guest", 1000))
    for number in range(3):
        desk.commit(request(f"no-{number}", "poor", B, 100))
    desk.commit(request("gift", A, "poor", 1000))
    assert desk.commit(request("no-0", "poor", B, 100)).outcome is Outcome.APPROVED
    assert desk.commit(request("no-2", "poor", B, 100)).outcome is Outcome.REJECTED
    assert desk.commit(request("paid", A, "guest", 1000)).outcome is Outcome.APPROVED
    assert desk.balance("guest") == 995


@pytest.mark.parametrize("account", [A, B])
def test_an_isolated_account_is_frozen(cluster, desk, account):
    """An isolated node can neither pay nor be paid."""
    cluster.isolate(account)
    assert rejected(desk.commit(request()), "isolated")
    cluster.restore(account)
    assert desk.commit(request("tx-2")).outcome is Outcome.APPROVED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"receiver": A}, "same_account"),
        ({"receiver": "node-0006"}, "unknown_account"),
        ({"sender": "node-1"}, "unknown_account"),
        ({"amount": 0}, "malformed"),
        ({"amount": -1}, "malformed"),
        ({"amount": 1.0}, "malformed"),
        ({"amount": "5"}, "malformed"),
        ({"amount": True}, "malformed"),
        ({"amount": None}, "malformed"),
        ({"amount": float("nan")}, "malformed"),
        ({"amount": 2**63}, "malformed"),
        ({"amount": 10**4000}, "malformed"),
        ({"amount": 2**63 - 1}, "insufficient_funds"),
        ({"id": ""}, "malformed"),
        ({"id": "x" * 129}, "malformed"),
        ({"id": "a\nb"}, "malformed"),
        ({"id": "\ud800"}, "malformed"),
        ({"id": 5}, "malformed"),
        ({"sender": ""}, "malformed"),
        ({"sender": "x" * 65}, "malformed"),
        ({"sender": "a b"}, "malformed"),
        ({"receiver": ["node-0001"]}, "malformed"),
        ({"note": float("inf")}, "malformed"),
        ({"note": {1, 2}}, "malformed"),
    ],
)
def test_a_bad_transaction_is_refused(cluster, desk, change, code):
    """What is no sound transaction is refused by name and moves nothing."""
    tip, balances = cluster.ledger.tip, cluster.balances.tolist()
    answer = desk.commit({**request(), **change})
    assert rejected(answer, code), answer
    assert (cluster.ledger.tip, cluster.balances.tolist()) == (tip, balances)


@pytest.mark.parametrize("key", ["id", "sender", "receiver", "amount"])
def test_a_missing_field_is_named(desk, key):
    """Each required field is named when it is missing."""
    transaction = request()
    del transaction[key]
    assert desk.commit(transaction).fields["reason"] == f"missing: {key}"


def test_a_malformed_request_leaves_no_trace(desk):
    """An id may be used after a malformed attempt with it."""
    desk.commit(request(amount="5"))
    assert desk.commit(request(amount=5)).outcome is Outcome.APPROVED


def test_balances_exist_for_accounts_only(desk):
    """A name that is no account has no balance, not even zero."""
    for name in ("node-9999", "", "a b", "x" * 65):
        with pytest.raises(UnknownTargetError, match="no account"):
            desk.balance(name)


def test_what_is_not_recorded_has_not_happened(cluster, desk, monkeypatch):
    """If the ledger cannot take a transaction no balance moves, and the id stays free."""

    def failing(_entry):
        raise LedgerWriteError("disk full")

    balances = cluster.balances.tolist()
    with monkeypatch.context() as patch:
        patch.setattr(cluster.ledger, "append_commit", failing)
        with pytest.raises(LedgerWriteError):
            desk.commit(request())
    assert cluster.balances.tolist() == balances
    assert desk.commit(request()).outcome is Outcome.APPROVED


def test_a_recovered_desk_remembers(tmp_path):
    """After recovery replays get the first answer, conflicts are seen, and guests have their money."""
    genesis = Cluster(6).ledger
    ledger = Ledger.genesis(genesis.balances(), genesis.cluster_bounds, directory=tmp_path)
    cluster = Cluster(6, ledger=ledger)
    for _ in range(16):
        cluster.step()
    desk = CommitDesk(cluster)
    first = desk.commit(request(receiver="guest", note="x"))
    cluster.step()
    balances = cluster.balances.tolist()
    ledger.close()

    recovered = Cluster(6, ledger=Ledger.recover(tmp_path))
    desk = CommitDesk(recovered)
    assert recovered.balances.tolist() == balances
    assert desk.balance("guest") == 995
    assert json.dumps(desk.commit(request(receiver="guest", note="x")).fields) == json.dumps(first.fields)
    assert desk.commit(request()).outcome is Outcome.CONFLICT
    recovered.step()
    assert holdings(recovered, desk) == recovered.ledger.supply
    assert audit(recovered.ledger.blocks(0, recovered.ledger.height + 1)) == []
    recovered.ledger.close()
