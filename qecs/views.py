"""What do clients get to read? The JSON forms of the cluster's state.

`/field/curvature_metrics` and `/system/status` keep the names that existing QECS clients read; everything else uses the
cluster's own names. A figure whose window has not filled is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qecs.errors import UnknownTargetError
from qecs.wire import column, nullable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qecs.block import Block
    from qecs.cluster import Cluster
    from qecs.host import ClusterHost, TickRecord
    from qecs.ledger import Ledger

COHERENCE_MIN: Final = 0.90
COHERENCE_CRITICAL: Final = 0.85
GAS_MIN: Final = 0.95
RSI_MIN: Final = 0.65
SYSTEM: Final = "qecs"
VERSION: Final = "1.5"

_STABLE_KEYS: Final = {"coherence": COHERENCE_MIN, "gas": GAS_MIN, "rsi": RSI_MIN}
_CURVATURE_KEYS: Final = (
    "coherence_service",
    "entropy",
    "delta_entropy",
    "action_cost",
    "gas_target",
    "governing_law",
    "objective",
)


def stability(record: TickRecord) -> str:
    """Return STABLE, WARNING or CRITICAL; a figure whose window has not filled is no evidence of stability."""
    kpis = record.snapshot.kpis
    if record.snapshot.safe_mode or kpis["coherence"] < COHERENCE_CRITICAL:
        return "CRITICAL"
    stable = all(kpis[name] >= least for name, least in _STABLE_KEYS.items())
    return "STABLE" if stable else "WARNING"


def curvature_metrics(record: TickRecord) -> dict[str, Any]:
    """Return the body of `GET /field/curvature_metrics`."""
    snapshot = record.snapshot
    kpis = snapshot.kpis
    return {
        "timestamp": record.timestamp,
        "tick": snapshot.tick,
        "plant_time_s": snapshot.time_s,
        "rsi": nullable(kpis["rsi"]),
        "cs": nullable(kpis["coherence"]),
        "gas": nullable(kpis["gas"]),
        "lambda_opt": nullable(kpis["lambda_opt"]),
        "delta_lambda": nullable(kpis["delta_lambda"]),
        "safe_mode": bool(snapshot.safe_mode),
        "stability_state": stability(record),
        **{name: nullable(kpis[name]) for name in _CURVATURE_KEYS},
    }


def system_status(host: ClusterHost, record: TickRecord) -> dict[str, Any]:
    """Return the body of `GET /system/status`; call under the host's lock."""
    cluster, desk = host.cluster, host.desk
    kpis = record.snapshot.kpis
    return {
        "status": _status(host, record),
        "timestamp": record.timestamp,
        "coherence": nullable(kpis["coherence"]),
        "gas": nullable(kpis["gas"]),
        "rsi": nullable(kpis["rsi"]),
        "lambda_opt": nullable(kpis["lambda_opt"]),
        "delta_lambda": nullable(kpis["delta_lambda"]),
        "thresholds": {"gas_min": GAS_MIN, "cs_min": COHERENCE_MIN, "rsi_min": RSI_MIN},
        "system_metrics": {
            "tick": record.snapshot.tick,
            "plant_time_s": record.snapshot.time_s,
            "supply": cluster.ledger.supply,
            "height": cluster.ledger.height,
            "transactions": int(kpis["committed_total"]) + desk.executed,
            "transaction_rate": nullable(kpis["transaction_rate"]),
            "emission_total": int(kpis["emission_total"]),
            "burned_total": int(kpis["burned_total"]) + desk.burned,
            "nodes": len(cluster.node_ids),
            "clusters": len(cluster.cluster_ids),
            "isolated": len(cluster.isolated()),
            "faults": len(cluster.faults),
            "safe_mode": bool(record.snapshot.safe_mode),
        },
    }


def constants(cluster: Cluster) -> dict[str, Any]:
    """Return the columns that never change: nodes, clusters, and the cluster of each node as an index."""
    return {
        "nodes": cluster.node_ids,
        "clusters": cluster.cluster_ids,
        "cluster_of": cluster.cluster_of.tolist(),
    }


def observation(record: TickRecord) -> dict[str, Any]:
    """Return one tick in columns: each signal a list in the order of the nodes."""
    snapshot = record.snapshot
    return {
        "tick": snapshot.tick,
        "plant_time_s": snapshot.time_s,
        "timestamp": record.timestamp,
        "kpis": {name: nullable(value) for name, value in snapshot.kpis.items()},
        "safe_mode": bool(snapshot.safe_mode),
        "parameters": record.parameters.to_dict(),
        "signals": {name: column(values) for name, values in snapshot.signals.items()},
    }


def observations(cluster: Cluster, records: Sequence[TickRecord], latest: TickRecord) -> dict[str, Any]:
    """Return several ticks, oldest first, with the constant columns once."""
    return {
        **constants(cluster),
        "latest_tick": latest.snapshot.tick,
        "observations": [observation(record) for record in records],
    }


def node(host: ClusterHost, record: TickRecord, name: str) -> dict[str, Any]:
    """Return what is known of one node; call under the host's lock.

    Raises:
        UnknownTargetError: there is no such node.
    """
    cluster = host.cluster
    index = host.desk.node(name)
    if index is None:
        raise UnknownTargetError(f"no node {name!r}")
    signals = record.snapshot.signals
    return {
        "node": name,
        "cluster": cluster.cluster_ids[int(cluster.cluster_of[index])],
        "tick": record.snapshot.tick,
        "plant_time_s": record.snapshot.time_s,
        "isolated": name in cluster.isolated(),
        "until_s": host.limit_s(name),
        "balance": int(cluster.balances[index]),
        "signals": {signal: column(values[index : index + 1])[0] for signal, values in signals.items()},
    }


def isolations(host: ClusterHost) -> dict[str, Any]:
    """Return which nodes are isolated now, and when each isolation ends by itself; call under the host's lock."""
    isolated = sorted(host.cluster.isolated())
    return {"tick": host.cluster.tick, "isolations": {node: host.limit_s(node) for node in isolated}}


def ledger_summary(host: ClusterHost) -> dict[str, Any]:
    """Return the body of `GET /ledger`; call under the host's lock."""
    ledger = host.cluster.ledger
    return {
        "tip": {"height": ledger.tip.height, "hash": ledger.tip.hash},
        "height": ledger.height,
        "supply": ledger.supply,
        "supply_genesis": ledger.header(0).supply,
        "supply_nodes": int(host.cluster.balances.sum()),
        "supply_guests": host.desk.guest_supply(),
        "last_tick": ledger.last_tick,
        "nodes": ledger.nodes,
        "cluster_bounds": ledger.cluster_bounds.tolist(),
    }


def ledger_blocks(ledger: Ledger, start: int, blocks: Sequence[Block]) -> dict[str, Any]:
    """Return a page of blocks with what is needed to recompute their leaves; `next` is null at the tip."""
    end = start + len(blocks)
    return {
        "from": start,
        "next": end if blocks and end <= ledger.height else None,
        "height": ledger.height,
        "cluster_bounds": ledger.cluster_bounds.tolist(),
        "blocks": [block.to_dict() for block in blocks],
    }


def ledger_tips(host: ClusterHost) -> dict[str, Any]:
    """Return each node's tip as an index into the distinct ones, and the ledger at the same moment.

    Call under the host's lock.
    """
    tips = host.cluster.ledger.tips()
    return {
        "ledger": ledger_summary(host),
        "tips": [{"height": tip.height, "hash": tip.hash} for tip in tips.distinct],
        "nodes": host.cluster.node_ids,
        "tip_of": tips.of_node.tolist(),
    }


def capabilities(host: ClusterHost) -> dict[str, Any]:
    """Return what a governor may ask of this system, and the highest epoch it has seen; call under the host's lock."""
    cluster = host.cluster
    offered = ["nodes", "isolate", "parameters", "ledger", "commit", *(["faults"] if host.allow_faults else [])]
    return {
        "system": SYSTEM,
        "version": VERSION,
        "capabilities": offered,
        "interval_s": host.interval_s,
        "seed": cluster.seed,
        "nodes": len(cluster.node_ids),
        "clusters": len(cluster.cluster_ids),
        "epoch": host.gate.epoch,
    }


def faults(cluster: Cluster) -> Mapping[str, Any]:
    """Return the active faults; call under the host's lock."""
    return {"faults": [fault.to_dict() for fault in cluster.faults]}


def _status(host: ClusterHost, record: TickRecord) -> str:
    if host.failure is not None:
        return "FAILED"
    return "SAFE_MODE" if record.snapshot.safe_mode else "OPERATIONAL"
