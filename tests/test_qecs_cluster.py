import math

import numpy as np
import pytest

from qecs.audit import audit
from qecs.cluster import Cluster
from qecs.errors import InvalidRequestError, UnknownTargetError
from qecs.faults import Fault
from qecs.kpis import WINDOW_TICKS
from qecs.ledger import Ledger
from qecs.membership import Membership
from qecs.parameters import Parameters

SIGNALS = {
    "phase": np.float64,
    "participation": np.float64,
    "arrivals": np.int64,
    "commits": np.int64,
    "retries": np.int64,
    "shed": np.int64,
    "invalid": np.int64,
    "queue": np.int64,
    "balance": np.int64,
    "active": np.bool_,
}


def live(cluster, ticks):
    for _ in range(ticks):
        snapshot = cluster.step()
    return snapshot


def same(first, second):
    """Bit by bit; NaN equals NaN here."""
    return (
        first.tick == second.tick
        and repr(first.kpis) == repr(second.kpis)
        and all(first.signals[name].tobytes() == second.signals[name].tobytes() for name in SIGNALS)
    )


def test_names():
    """Nodes and clusters bear zero-padded numbers, and more digits where there are more of them."""
    cluster = Cluster(50)
    assert cluster.node_ids[:2] == ("node-0000", "node-0001")
    assert cluster.cluster_ids == tuple(f"cluster-0{number}" for number in range(7))
    assert cluster.cluster_of.dtype == np.int32
    large = Cluster(12_000)
    assert (large.node_ids[-1], large.cluster_ids[-1]) == ("node-11999", "cluster-109")


@pytest.mark.parametrize(
    ("nodes", "clusters", "message"),
    [
        (0, None, "at least one node, not 0"),
        (-3, None, "at least one node, not -3"),
        (5, 6, r"within 1 and 5 \(the nodes\), not 6"),
        (5, 0, "within 1 and 5"),
    ],
)
def test_impossible_sizes(nodes, clusters, message):
    """Clusters that cannot exist are refused."""
    with pytest.raises(InvalidRequestError, match=message):
        Cluster(nodes, clusters=clusters)


def test_snapshot_shape():
    """A snapshot holds every KPI and every signal, in the documented types."""
    cluster = Cluster(50, clusters=3)
    assert cluster.snapshot is None
    snapshot = cluster.step()
    assert cluster.snapshot is snapshot
    assert (cluster.tick, snapshot.tick, snapshot.time_s) == (1, 1, 1.0)
    assert set(snapshot.kpis) == set(WINDOW_TICKS)
    assert {name: signal.dtype.type for name, signal in snapshot.signals.items()} == SIGNALS
    assert {signal.shape for signal in snapshot.signals.values()} == {(50,)}
    assert np.abs(snapshot.signals["phase"]).max() <= math.pi
    assert not snapshot.safe_mode


def test_snapshots_never_change():
    """What was published stays as it was, and cannot be written to."""
    cluster = Cluster(50)
    snapshot = live(cluster, 5)
    copies = {name: signal.copy() for name, signal in snapshot.signals.items()}
    kpis = dict(snapshot.kpis)
    cluster.inject(Fault(id="f", kind="slow"))
    cluster.isolate("node-0003")
    cluster.balances[0] += 1
    live(cluster, 5)
    assert all((snapshot.signals[name] == copy).all() for name, copy in copies.items())
    assert repr(snapshot.kpis) == repr(kpis)
    for signal in snapshot.signals.values():
        with pytest.raises(ValueError, match="read-only"):
            signal[0] = 0


def scripted(seed):
    """A life with everything in it."""
    cluster = Cluster(50, seed=seed)
    live(cluster, 40)
    cluster.inject(Fault(id="a", kind="byzantine", count=3, duration_ticks=30))
    cluster.inject(Fault(id="b", kind="sensor-static", fraction=0.5))
    cluster.inject(Fault(id="c", kind="drift", channels={"omega": 0.1}, ramp_ticks=20))
    live(cluster, 10)
    cluster.isolate("node-0004")
    cluster.apply(Parameters(lambda1=0.4))
    live(cluster, 20)
    cluster.restore("node-0004")
    live(cluster, 30)
    return cluster


def test_one_seed_one_history():
    """The same seed gives the same snapshot and the same ledger, bit by bit; another seed does not."""
    first, second, other = scripted(1), scripted(1), scripted(2)
    assert same(first.snapshot, second.snapshot)
    assert first.ledger.tip == second.ledger.tip
    assert not same(first.snapshot, other.snapshot)


def test_isolation():
    """An isolated node commits nothing, hands its queue to its peers, and goes on listening and reporting."""
    cluster = Cluster(50, seed=1)
    cluster.inject(Fault(id="f", kind="silent", nodes=("node-0003",)))
    live(cluster, 30)
    cluster.clear("f")
    queue = cluster._transactions.queue
    waiting, total = int(queue[3]), int(queue.sum())
    assert waiting == 108
    assert cluster.isolate("node-0003")
    assert not cluster.isolate("node-0003")
    assert cluster.isolated() == {"node-0003"}
    assert queue[3] == 0
    assert int(queue.sum()) == total
    balance = int(cluster.balances[3])
    snapshot = live(cluster, 60)
    assert not snapshot.signals["active"][3]
    assert [int(snapshot.signals[name][3]) for name in ("arrivals", "commits", "queue")] == [0, 0, 0]
    assert int(cluster.balances[3]) == balance
    assert abs(snapshot.signals["phase"][3]) < 1.0
    assert snapshot.kpis["transaction_rate"] == pytest.approx(1000, rel=0.03)
    assert cluster.restore("node-0003")
    assert not cluster.restore("node-0003")
    assert cluster.isolated() == frozenset()
    assert live(cluster, 5).signals["commits"][3] > 0


def test_isolation_of_the_last_node_of_a_cluster():
    """Without peers a queue waits for the node's return."""
    cluster = Cluster(10, clusters=10, seed=1)
    cluster.inject(Fault(id="f", kind="silent", nodes=("node-0003",)))
    live(cluster, 20)
    cluster.isolate("node-0003")
    assert live(cluster, 10).signals["queue"][3] == 108


def test_isolating_a_bad_node_heals():
    """Without its byzantine node a cluster of 5 recovers; with it, it does not."""
    cluster = Cluster(5, seed=1)
    live(cluster, 150)
    cluster.inject(Fault(id="f", kind="byzantine", nodes=("node-0002",)))
    sick = live(cluster, 60)
    assert sick.kpis["coherence"] < 0.75
    assert sick.safe_mode
    cluster.isolate("node-0002")
    well = live(cluster, 120)
    assert well.kpis["coherence"] > 0.95
    assert well.kpis["action_cost"] < 0.06
    assert not well.safe_mode


def test_over_isolation_costs():
    """Isolating half of a healthy cluster overloads the other half."""
    cluster = Cluster(50, seed=1)
    live(cluster, 100)
    for node in cluster.node_ids[::2]:
        cluster.isolate(node)
    assert live(cluster, 100).kpis["action_cost"] > 0.2


@pytest.mark.parametrize(
    "name", ["node-0050", "node-50", "node-9999", "node--001", "node-00٣1", "cluster-00", "", "node-" + "9" * 5000]
)
def test_unknown_node(name):
    """Isolating or restoring what does not exist is refused and changes nothing."""
    cluster = Cluster(50)
    for call in (cluster.isolate, cluster.restore):
        with pytest.raises(UnknownTargetError, match="there are node-0000 to node-0049"):
            call(name)
    assert cluster.isolated() == frozenset()


def test_resumes_from_its_ledger(tmp_path):
    """A cluster made from a recovered ledger goes on with its balances, tick, totals and emission."""
    membership = Membership(50)
    balances = np.full(50, 500_000, dtype=np.int64)
    first = Cluster(50, seed=6, ledger=Ledger.genesis(balances, membership.bounds, directory=tmp_path / "ledger"))
    last = live(first, 80)
    first.ledger.close()
    second = Cluster(50, seed=6, ledger=Ledger.recover(tmp_path / "ledger"))
    assert second.tick == 80
    assert (second.balances == first.balances).all()
    found = second.step()
    assert (found.tick, second.tick) == (81, 81)
    assert found.kpis["emission_total"] == last.kpis["emission_total"] + found.kpis["emission"]
    assert found.kpis["burned_total"] == last.kpis["burned_total"] + found.kpis["burned"]
    assert found.kpis["committed_total"] == last.kpis["committed_total"] + found.kpis["committed"]
    assert found.kpis["gas_target"] == pytest.approx(last.kpis["gas_target"], abs=1e-4)
    assert audit(second.ledger.blocks(0, 1000)) == []
    second.ledger.close()


def test_a_ledger_of_other_nodes_is_refused():
    """A ledger made for other nodes or clusters cannot be taken over."""
    ledger = Ledger.genesis(np.full(50, 1, dtype=np.int64), Membership(50).bounds)
    with pytest.raises(InvalidRequestError, match="it has 50 nodes in 7 clusters, asked for are 51 in 7"):
        Cluster(51, ledger=ledger)
    with pytest.raises(InvalidRequestError, match="asked for are 50 in 6"):
        Cluster(50, clusters=6, ledger=ledger)


def test_a_tick_that_cannot_be_recorded_moves_no_money(monkeypatch):
    """When the ledger refuses, balances, emission and tick stay, and the tick can be tried again."""
    cluster = Cluster(50, seed=1)
    live(cluster, 20)
    balances, append = cluster.balances.copy(), cluster.ledger.append

    def broken(_flows):
        raise OSError("disk full")

    monkeypatch.setattr(cluster.ledger, "append", broken)
    with pytest.raises(OSError, match="disk full"):
        cluster.step()
    assert cluster.tick == 20
    assert (cluster.balances == balances).all()
    monkeypatch.setattr(cluster.ledger, "append", append)
    assert cluster.step().tick == 21
    assert int(cluster.balances.sum()) == cluster.ledger.supply
    assert audit(cluster.ledger.blocks(0, 100)) == []


def test_single_transactions_are_counted():
    """Burn and commits of single transactions enter the totals with the next tick."""
    from qecs.entry import CommitEntry  # noqa: PLC0415 # only here

    cluster = Cluster(5, seed=1)
    before = live(cluster, 10).kpis
    entry = CommitEntry("t1", "node-0000", "node-0001", 1000, 10, 5, 995, 0, 1, "0" * 64, (0.9).hex(), 0)
    cluster.ledger.append_commit(entry)
    cluster.balances[0] -= 1000
    cluster.balances[1] += 995
    after = cluster.step().kpis
    assert after["burned_total"] == before["burned_total"] + 5 + after["burned"]
    assert after["committed_total"] == before["committed_total"] + 1 + after["committed"]
    assert int(cluster.balances.sum()) == cluster.ledger.supply
