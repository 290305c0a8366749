"""Not one token appears or vanishes, whatever goes wrong."""

import math

import numpy as np
import pytest

from qecs.audit import audit
from qecs.cluster import Cluster
from qecs.emission import Emission, mint, wanted_emission
from qecs.fault_kinds import FaultKind
from qecs.faults import Fault
from qecs.flows import EmissionInputs
from qecs.parameters import Parameters
from qecs.transactions import floor_shares

DRIFT = {"omega": 0.2, "omega_cluster": 0.06, "w0": 0.1, "sigma_m": 0.5, "demand": 1.5, "kappa": 3.0}
MOVING = [kind for kind in FaultKind if kind not in {FaultKind.TAMPERING, FaultKind.FORK, FaultKind.INFLATION}]


def step_and_check(cluster):
    """One tick, in which every token is accounted for."""
    before, supply = cluster.balances.copy(), cluster.ledger.supply
    snapshot = cluster.step()
    header = cluster.ledger.header(cluster.ledger.height)
    assert cluster.ledger.supply == supply + header.emission - header.burn
    assert int(cluster.balances.sum()) == cluster.ledger.supply
    assert (cluster.balances >= 0).all()
    frozen = ~snapshot.signals["active"]
    assert (cluster.balances[frozen] == before[frozen]).all()
    assert (snapshot.signals["commits"][frozen] == 0).all()
    assert snapshot.kpis["supply"] == supply + snapshot.kpis["emission"] - snapshot.kpis["burned"]
    return snapshot


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize("nodes", [5, 50])
def test_conservation_under_every_fault(kind, nodes):
    """Supply is conserved to the token at every tick under each fault, with nodes isolated and restored at random."""
    cluster = Cluster(nodes, seed=5)
    random = np.random.default_rng(1)
    for _ in range(20):
        step_and_check(cluster)
    cluster.inject(Fault(id="f", kind=kind, channels=DRIFT if kind == FaultKind.DRIFT else {}, duration_ticks=60))
    for _ in range(100):
        node = cluster.node_ids[random.integers(nodes)]
        (cluster.isolate if random.random() < 0.5 else cluster.restore)(node)
        step_and_check(cluster)
    assert cluster.faults == ()
    assert (cluster.ledger.balances() == cluster.balances).all()
    assert audit(cluster.ledger.blocks(0, 1000)) == []


def test_conservation_with_nobody_left():
    """With every node isolated nothing commits, nothing is minted, and the cluster comes back to life."""
    cluster = Cluster(5, seed=1)
    for _ in range(30):
        step_and_check(cluster)
    for node in cluster.node_ids:
        assert cluster.isolate(node)
    for _ in range(20):
        snapshot = step_and_check(cluster)
    assert snapshot.kpis["committed"] == snapshot.kpis["emission"] == 0
    for node in cluster.node_ids:
        assert cluster.restore(node)
    for _ in range(60):
        snapshot = step_and_check(cluster)
    assert snapshot.kpis["coherence"] > 0.9
    assert snapshot.kpis["committed"] > 50


def test_single_node():
    """A cluster of one node lives and conserves."""
    cluster = Cluster(1, seed=4)
    for _ in range(80):
        snapshot = step_and_check(cluster)
    assert snapshot.kpis["entropy"] == pytest.approx(math.log(cluster.ledger.supply / 500_000))


def test_changes_between_ticks_are_kept():
    """A balance changed in place between ticks, as single transactions do, is neither lost nor doubled."""
    cluster, other = Cluster(50, seed=3), Cluster(50, seed=3)
    for _ in range(10):
        cluster.step()
        other.step()
    cluster.balances[0] -= 700
    cluster.balances[1] += 700
    cluster.step()
    other.step()
    assert int(cluster.balances.sum()) == cluster.ledger.supply == other.ledger.supply


def test_inflation_is_off_by_exactly_what_was_injected():
    """Counterfeit tokens are in balances and supply, and the audit says how many."""
    cluster = Cluster(50, seed=3)
    for _ in range(10):
        cluster.step()
    cluster.inject(Fault(id="i", kind="inflation", magnitude=1000))
    cluster.step()
    cluster.step()
    assert int(cluster.balances.sum()) == cluster.ledger.supply
    assert int((cluster.balances - cluster.ledger.balances()).sum()) == 1000
    assert [finding.height for finding in audit(cluster.ledger.blocks(0, 1000))] == [11]
    assert "off by 1000" in audit(cluster.ledger.blocks(0, 1000))[0].reason


def test_tampering_and_fork_show():
    """A tampered body no longer fits its root, and a forked node holds another tip."""
    cluster = Cluster(50, seed=3)
    for _ in range(10):
        cluster.step()
    cluster.inject(Fault(id="f", kind="fork", nodes=("node-0007",)))
    cluster.inject(Fault(id="t", kind="tampering"))
    cluster.step()
    tips = cluster.ledger.tips()
    assert len(tips.distinct) == 2
    assert np.flatnonzero(tips.of_node).tolist() == [7]
    assert {finding.height for finding in audit(cluster.ledger.blocks(0, 1000))} == {10}


@pytest.mark.parametrize("nodes", [5, 50, 1000])
def test_wash_trading_shows_in_entropy_alone(nodes):
    """Wash trading moves |ΔH| far beyond its limit within 15 ticks while money stays exact."""
    cluster = Cluster(nodes, seed=2)
    for _ in range(150):
        cluster.step()
    cluster.inject(Fault(id="w", kind="entropy-spike", duration_ticks=60))
    spikes = [step_and_check(cluster).kpis["delta_entropy"] for _ in range(15)]
    assert max(spikes) > 0.012
    assert spikes[4] > 0.002
    for _ in range(90):
        step_and_check(cluster)
    assert audit(cluster.ledger.blocks(0, 1000)) == []


def test_washers_earn_nothing_by_it():
    """Self-paid transactions attract no payments: the washer only pays its fees."""
    cluster = Cluster(50, seed=2)
    for _ in range(50):
        cluster.step()
    cluster.inject(Fault(id="w", kind="entropy-spike", nodes=("node-0003",)))
    before = int(cluster.balances[3])
    for _ in range(30):
        snapshot = cluster.step()
    assert snapshot.signals["commits"][3] > 250
    assert int(cluster.balances[3]) < before - 30 * 250 * 5 + 50_000


def test_floor_shares_never_exceed_the_whole():
    """Floor shares sum to the whole or less, by less than one token a node, whatever the weights."""
    random = np.random.default_rng(3)
    for _ in range(300):
        weights = random.random(int(random.integers(1, 40))) * random.choice([1.0, 1e-9, 1e9])
        tokens = int(random.integers(0, 10**9))
        shares = floor_shares(tokens, weights)
        assert tokens - weights.size - 1 <= shares.sum() <= tokens
        assert (shares >= 0).all()
    assert floor_shares(100, np.zeros(3)).tolist() == [0, 0, 0]


def test_emission_by_hand():
    """The CAF mints 0.0103·α·ln(C/GT)/φ of the initial supply, and nothing below the target."""
    inputs = EmissionInputs(coherence_30=0.96, gas_target=0.93, supply_genesis=25_000_000, alpha=1.0, carry=0.5)
    assert wanted_emission(inputs) == pytest.approx(5053.107, abs=0.001)
    below = EmissionInputs(coherence_30=0.92, gas_target=0.93, supply_genesis=25_000_000, alpha=1.0, carry=0.5)
    assert wanted_emission(below) == 0.5
    assert mint(inputs, np.array([1.0, 0.0, 3.0])).tolist() == [1263, 0, 3789]


def test_what_is_not_minted_is_carried():
    """The carry is what was wanted and not minted, and the target moves a 300th of its way."""
    emission = Emission(25_000_000)
    first = emission.inputs(0.96, 1.0)
    assert (first.coherence_30, first.gas_target, first.carry) == (0.96, 0.935, 0.0)
    emission.record(first, 4000)
    second = emission.inputs(0.99, 1.0)
    assert second.carry == pytest.approx(wanted_emission(first) - 4000)
    assert second.coherence_30 == pytest.approx(0.961)
    assert second.gas_target == pytest.approx(0.935 + (0.93 - 0.935) / 300)


def test_no_gain_no_emission():
    """With α = 0 nothing is minted and the supply only burns."""
    cluster = Cluster(50, seed=1, parameters=Parameters(alpha=0.0))
    for _ in range(50):
        snapshot = step_and_check(cluster)
    assert snapshot.kpis["emission_total"] == 0
    assert cluster.ledger.supply == 25_000_000 - snapshot.kpis["burned_total"]
