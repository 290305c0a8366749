"""What every plant keeps to: one contract, shown for the embedded plant and for our server over HTTP."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.phases.chain_audit import ChainAudit
from controller.plants.embedded import EmbeddedPlant
from controller.plants.http import HttpPlant
from metrics.errors import PlantRefusedError
from metrics.observation import PARAMETER_BOUNDS, SIGNAL_NAMES, Capability, Parameters

A, B = "node-0000", "node-0001"
NODES = 10


@dataclass
class Bench:
    """A plant, and the hand that lets its time pass."""

    plant: Any
    host: Any

    def tick(self, ticks=1):
        """Let ticks pass; what was observed meanwhile."""
        seen = []
        for _ in range(ticks):
            if self.plant.info.real_time:
                self.host.tick()
            seen += self.plant.observe(5.0)
        return seen


@pytest.fixture(params=["embedded", "http"])
def bench(request, start_qecs):
    """Ten nodes in two clusters, connected, two ticks old."""
    if request.param == "embedded":
        plant = EmbeddedPlant(NODES, seed=3, clock=VirtualClock())
        bench = Bench(plant, plant.host)
    else:
        server = start_qecs(NODES, seed=3)
        bench = Bench(HttpPlant(server.url, deadline_s=5.0), server.host)
    bench.plant.connect(5.0)
    bench.tick(2)
    yield bench
    bench.plant.close()


@pytest.fixture
def plant(bench):
    return bench.plant


# --- what it is, and what it shows --------------------------------------------------------------------------------


def test_a_plant_says_what_it_is_and_can(plant):
    """Information is known after the connection and names system, seed and every capability."""
    info = plant.info
    assert info == plant.connect(5.0)
    assert info.system == "qecs 1.5"
    assert info.seed == 3
    assert info.capabilities == frozenset(Capability)
    assert (info.real_time, info.interval_s) in {(False, 0.0), (True, 1.0)}


def test_ticks_and_time_go_on(bench):
    """Each tick is observed once, in order, with a later plant time."""
    seen = bench.tick(5)
    first = seen[0].tick
    assert [item.tick for item in seen] == [first + i for i in range(5)]
    assert [item.plant_time_s for item in seen] == [float(first + i) for i in range(5)]
    received = [item.received_s for item in seen]
    assert received == sorted(received)


def test_an_observation_has_a_number_of_the_right_kind_for_every_node(bench):
    """Signals are arrays of one entry a node; counts are finite and the topology names clusters by index."""
    (seen,) = bench.tick()
    topology = seen.topology
    assert topology.nodes[:2] == (A, B)
    assert len(topology.nodes) == NODES
    assert topology.clusters == ("cluster-00", "cluster-01")
    assert topology.cluster_of.dtype == np.int32
    assert topology.cluster_of.tolist() == [0] * 5 + [1] * 5
    for name in SIGNAL_NAMES:
        signal = getattr(seen.signals, name)
        assert signal.shape == (NODES,)
        assert signal.dtype == (np.bool_ if name == "active" else np.float64)
        assert np.isfinite(signal).all()
    assert seen.signals.active.all()
    assert 400_000 < seen.signals.balance.mean() < 600_000


def test_the_topology_is_one_value_for_all_ticks(bench):
    """Ticks share their topology, so nobody has to compare names."""
    first, second = bench.tick(2)
    assert first.topology is second.topology


def test_a_figure_whose_window_has_not_filled_is_nan(bench):
    """Evidence that is not there yet is NaN; afterwards it is a plausible number."""
    assert math.isnan(bench.tick()[-1].kpis["coherence"])
    last = bench.tick(60)[-1]
    assert 0.8 < last.kpis["coherence"] <= 1.0
    assert 0.0 <= last.kpis["rsi"] <= 1.0
    assert last.safe_mode is False


def test_an_observation_carries_the_parameters_in_force(bench):
    """What was in force during the tick is told with it."""
    assert bench.tick()[0].parameters == Parameters()


# --- isolation ----------------------------------------------------------------------------------------------------


def test_isolation_is_read_back_at_once_and_seen_from_the_next_tick_on(bench, plant):
    """`isolated` is read now; signals show it with the next tick; restoring undoes both."""
    plant.isolate(A, key="k1", epoch=1, ttl_s=900.0)
    assert plant.isolated() == {A}
    assert bench.tick()[0].signals.active.tolist() == [False] + [True] * 9
    plant.restore(A, key="k2", epoch=1)
    assert plant.isolated() == frozenset()
    assert bench.tick()[0].signals.active.all()


def test_a_repeated_key_has_no_further_effect(plant):
    """A late duplicate of an isolation does not undo the restoration that came between."""
    plant.isolate(A, key="k1", epoch=1, ttl_s=900.0)
    plant.restore(A, key="k2", epoch=1)
    plant.isolate(A, key="k1", epoch=1, ttl_s=900.0)
    assert plant.isolated() == frozenset()


def test_a_key_used_for_something_else_is_refused(plant):
    """One key, one action."""
    plant.isolate(A, key="k1", epoch=1, ttl_s=900.0)
    with pytest.raises(PlantRefusedError, match="'k1' was used before for something else"):
        plant.restore(A, key="k1", epoch=1)
    with pytest.raises(PlantRefusedError, match="used before"):
        plant.isolate(B, key="k1", epoch=1, ttl_s=900.0)
    assert plant.isolated() == {A}


def test_an_unknown_node_is_refused_by_name(plant):
    """The refusal names the node that does not exist."""
    with pytest.raises(PlantRefusedError, match="no node 'node-9999'"):
        plant.isolate("node-9999", key="k1", epoch=1, ttl_s=900.0)
    with pytest.raises(PlantRefusedError, match=r"no node '\*'"):
        plant.isolate("*", key="k2", epoch=1, ttl_s=900.0)
    with pytest.raises(PlantRefusedError, match=r"no node '\.\./parameters'"):
        plant.restore("../parameters", key="k3", epoch=1)
    assert plant.isolated() == frozenset()


def test_a_stale_epoch_is_refused(plant):
    """Once a higher epoch was seen, a deposed leader cannot act; the plant tells the highest."""
    assert plant.epoch_seen(5.0) == 0
    plant.isolate(A, key="k1", epoch=7, ttl_s=900.0)
    assert plant.epoch_seen(5.0) == 7
    with pytest.raises(PlantRefusedError, match="epoch 6 is stale, 7 has been seen"):
        plant.restore(A, key="k2", epoch=6)
    assert plant.isolated() == {A}


def test_an_isolation_ends_by_itself(bench, plant):
    """After its time limit, in plant time, the node takes part again."""
    plant.isolate(A, key="k1", epoch=1, ttl_s=3.0)
    seen = bench.tick(5)
    assert [bool(item.signals.active[0]) for item in seen] == [False, False, False, True, True]
    assert plant.isolated() == frozenset()


def test_a_new_key_renews_the_time_limit(bench, plant):
    """Asking again for an isolated node lets its limit start afresh."""
    plant.isolate(A, key="k1", epoch=1, ttl_s=3.0)
    bench.tick(2)
    plant.isolate(A, key="k2", epoch=1, ttl_s=3.0)
    bench.tick(2)
    assert plant.isolated() == {A}
    bench.tick(1)
    assert plant.isolated() == frozenset()


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, math.nan, math.inf, 1e12])
def test_a_time_limit_that_is_none_is_refused(plant, ttl_s):
    """Zero, negative, infinite and unknown limits isolate nobody."""
    with pytest.raises(PlantRefusedError):
        plant.isolate(A, key="k1", epoch=1, ttl_s=ttl_s)
    assert plant.isolated() == frozenset()


@pytest.mark.parametrize(("key", "epoch"), [("", 1), ("k" * 200, 1), ("k", -1)])
def test_a_write_without_proper_key_and_epoch_is_refused(plant, key, epoch):
    """No write happens that could not be told from its repetition, or from a deposed leader's."""
    with pytest.raises(PlantRefusedError):
        plant.isolate(A, key=key, epoch=epoch, ttl_s=900.0)
    assert plant.isolated() == frozenset()


# --- parameters ---------------------------------------------------------------------------------------------------


def test_parameters_are_applied_and_read_back(bench, plant):
    """They are in force at once, and the next tick runs under them."""
    wanted = Parameters(lambda1=0.5, lambda2=0.25, alpha=1.5, action_cost_limit=0.1)
    assert plant.parameters() == Parameters()
    plant.apply(wanted, key="k1", epoch=1)
    assert plant.parameters() == wanted
    assert bench.tick()[0].parameters == wanted


@pytest.mark.parametrize("name", PARAMETER_BOUNDS)
def test_parameters_out_of_bounds_are_refused_whole(plant, name):
    """A value above its bound changes nothing, and the refusal names it."""
    low, high = PARAMETER_BOUNDS[name]
    for value in (low - 0.5, high + 0.5, math.nan):
        with pytest.raises(PlantRefusedError):
            plant.apply(replace(Parameters(lambda1=0.4), **{name: value}), key=f"k{value}", epoch=1)
    with pytest.raises(PlantRefusedError, match=name):
        plant.apply(replace(Parameters(), **{name: high + 0.5}), key="k", epoch=1)
    assert plant.parameters() == Parameters()


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_fault_begins_and_ends(bench, plant):
    """A silent node shows no participation until the fault is cleared; a repeated key injects nothing."""
    fault = {"id": "probe-1", "kind": "silent", "nodes": [B]}
    plant.inject(fault, key="k1", epoch=1)
    assert bench.tick()[0].signals.participation.tolist() == [1.0, 0.0] + [1.0] * 8
    plant.clear("probe-1", key="k2", epoch=1)
    assert bench.tick()[0].signals.participation.tolist() == [1.0] * 10
    plant.inject(fault, key="k1", epoch=1)
    assert bench.tick()[0].signals.participation.tolist() == [1.0] * 10


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"id": "x", "kind": "gremlins"}, "kind must be one of"),
        ({"id": "x", "kind": "silent", "nodes": ["node-9999"]}, "node-9999"),
        ({"id": "x", "kind": "silent", "count": 0}, "count must be"),
        ({"kind": "silent"}, "id must be"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_in_the_plants_words(plant, fault, words):
    """What is wrong with a fault is told."""
    with pytest.raises(PlantRefusedError, match=words):
        plant.inject(fault, key="k1", epoch=1)


def test_a_fault_twice_under_one_id_is_refused(plant):
    """A fault is known by its id while it lasts."""
    plant.inject({"id": "x", "kind": "silent", "nodes": [A]}, key="k1", epoch=1)
    with pytest.raises(PlantRefusedError, match="x"):
        plant.inject({"id": "x", "kind": "slow", "nodes": [B]}, key="k2", epoch=1)


# --- ledger -------------------------------------------------------------------------------------------------------


def test_the_ledger_is_whole_and_of_one_moment(bench, plant):
    """Tip, supply, balances and every node's tip agree, and the height grows with each tick."""
    state = plant.ledger()
    assert state.supply_genesis == NODES * 500_000
    assert state.balances_total == state.supply
    assert set(state.node_tips) == set(bench.tick()[0].topology.nodes)
    assert set(state.node_tips.values()) == {state.tip}
    assert plant.ledger().tip.height == state.tip.height + 1


def test_blocks_pass_the_audit_from_genesis_to_the_tip(bench, plant):
    """Read in pages, the chain is complete, and the auditor who recomputes it finds nothing."""
    bench.tick(5)
    plant.commit({"id": "t1", "sender": A, "receiver": "guest", "amount": 1000})
    state = plant.ledger()
    audit = ChainAudit()
    while page := plant.blocks(audit.blocks, 3):
        assert len(page) <= 3
        for block in page:
            audit.feed(block)
    assert audit.tip == (state.tip.height, state.tip.hash)
    assert audit.supply == state.supply
    assert not any(audit.findings.values())


def test_a_good_transaction_moves_exactly_what_it_says(plant):
    """1000 tokens leave the sender, 995 arrive, 5 are burned; a later read shows it."""
    before, supply = plant.balance(A), plant.ledger().supply
    answer = plant.commit({"id": "t1", "sender": A, "receiver": "guest", "amount": 1000})
    assert answer.approved
    assert (answer.http_status, answer.status) == (200, "APPROVED")
    assert (answer.body["tx_id"], answer.body["fee"]) == ("t1", 10)
    assert (plant.balance(A), plant.balance("guest")) == (before - 1000, 995)
    state = plant.ledger()
    assert state.supply == supply - 5
    assert state.balances_total == state.supply


def test_an_overdraft_is_rejected_with_the_reason(plant):
    """Nobody spends what is not there; that is an answer, not an error."""
    answer = plant.commit({"id": "t1", "sender": "guest", "receiver": A, "amount": 1})
    assert (answer.http_status, answer.status, answer.approved) == (400, "REJECTED", False)
    assert answer.reason == "insufficient funds: 'guest' holds 0, not 1"


def test_an_identical_replay_gets_the_first_answer_and_a_conflicting_one_409(plant):
    """An id executes once."""
    transaction = {"id": "t1", "sender": A, "receiver": "guest", "amount": 1000}
    first = plant.commit(transaction)
    assert plant.commit(dict(transaction)) == first
    conflict = plant.commit({**transaction, "amount": 2000})
    assert (conflict.http_status, conflict.approved) == (409, False)
    assert plant.balance("guest") == 995


@pytest.mark.parametrize("change", [{"amount": -5}, {"amount": 1.5}, {"amount": 2**70}, {"amount": "9"}, {"sender": 7}])
def test_a_malformed_transaction_is_rejected(plant, change):
    """Negative, fractional, overflowing and mistyped values are refused and move nothing."""
    before = plant.balance(A)
    answer = plant.commit({"id": "t1", "sender": A, "receiver": "guest", "amount": 10, **change})
    assert (answer.http_status, answer.status) == (400, "REJECTED")
    assert plant.balance(A) == before


def test_the_balance_of_an_impossible_account_is_refused(plant):
    """A name that reads like a node but is none has no balance; a guest never paid has 0."""
    with pytest.raises(PlantRefusedError, match="node-9999"):
        plant.balance("node-9999")
    assert plant.balance("probe/run-1/a") == 0


def test_a_fork_is_seen_in_the_nodes_tips(bench, plant):
    """Nodes that follow another chain tell another tip than the ledger."""
    plant.inject({"id": "f", "kind": "fork", "nodes": [A, B]}, key="k1", epoch=1)
    bench.tick()
    state = plant.ledger()
    assert {node for node, tip in state.node_tips.items() if tip != state.tip} == {A, B}


def test_an_inflated_supply_is_seen_by_the_auditor(bench, plant):
    """Tokens out of nowhere show in the recomputed chain."""
    plant.inject({"id": "f", "kind": "inflation"}, key="k1", epoch=1)
    bench.tick(2)
    audit = ChainAudit()
    for block in plant.blocks(0, 100):
        audit.feed(block)
    assert any(audit.findings.values())
