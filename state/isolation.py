"""Who may be isolated, when, and why not.

Every guard is asked about the state *after* the action in question, and the first that says no explains itself with the
value it saw and the limit it holds: a non-action is as much a decision as an action. What is out, in flight or unknown
counts alike, whoever took it out. Unknown, stale or missing evidence never gets here: see `confirmation.py`.

Source: docs/architecture.md "Isolation policy"; budgets after the action avoid the over-ejection that budgets before it
allow, and the storm rule follows Kubernetes' node-lifecycle controller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from metrics.observation import Topology

ROUNDING = 1e-9  # a third of six nodes is two, whatever the last bit of 1/3 says


class Guard(StrEnum):
    """What may forbid an action."""

    STATE = "state"
    PAUSED = "paused"
    VETO = "operator_veto"
    MAINTENANCE = "maintenance"
    FLAPPING = "flapping"
    BACKOFF = "backoff"
    NOT_CLEAN = "not_clean"
    STALE = "stale_evidence"
    DRY_RUN = "dry_run"
    CAPABILITY = "capability"
    STORM = "storm"
    SENSORS = "sensors_doubted"
    EVIDENCE_NODES = "evidence_nodes"
    TRIAL_OPEN = "trial_open"
    CLOSING = "window_closing"
    BUDGET_CLUSTER = "budget_cluster"
    BUDGET_FRACTION = "budget_fraction"
    BUDGET_ABSOLUTE = "budget_absolute"
    QUORUM = "quorum"
    LOOK_AGAIN = "look_again"
    CLUSTER_WELL = "cluster_well"
    RATE = "rate_limit"
    IN_FLIGHT = "action_in_flight"


# These forbid for good, not for the moment: a well that one of them leaves in place is reported as blocked.
SAFETY_GUARDS = frozenset(
    {Guard.EVIDENCE_NODES, Guard.BUDGET_CLUSTER, Guard.BUDGET_FRACTION, Guard.BUDGET_ABSOLUTE, Guard.QUORUM}
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A decision not to act. Two refusals are equal when they explain the same thing, whatever the values were.

    Attributes:
        rule: what would have been done: "isolate", "renew", "restore", "heal" or "transition".
        guard: what forbade it.
        subject: the node, cluster or parameter.
        observed: the value that the guard saw.
        limit: the value that it holds.
        at_s: plant time.
    """

    rule: str
    guard: str
    subject: str
    observed: float = field(compare=False)
    limit: float = field(compare=False)
    at_s: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class IsolationPolicy:
    """Every number of the policy; units are in the names, ticks are ticks with trusted evidence.

    Attributes:
        gravity_critical: |g| beyond which a node or cluster is a gravity well.
        confirm_ticks: ticks in a row before a well is confirmed.
        cluster_fraction_max, fraction_max: what may be out after the action, of a cluster and of all nodes.
        absolute_max: the same as a number of nodes; None for no such limit.
        quorum: active nodes that every cluster keeps.
        evidence_nodes_min: trusted nodes without which nobody is judged.
        rate_per_minute, burst: the token bucket of isolations.
        rate_share: share of the nodes that rate and burst are at least.
        verify_s: how long an action may stay unverified.
        backoff_base_s, backoff_max_s: least time out, times the number of offences, and its cap.
        backoff_jitter: share by which a back-off is drawn longer, so that nodes do not come back together.
        forgive_s: healthy evidence, in seconds of it, that takes one offence back.
        flap_offences: isolations from which a node stays out until a person lets it in.
        ttl_s: time limit of an isolation.
        readmit_gravity: |g| below which an isolated node counts as clean.
        probation_ticks: clean ticks before re-admission, and again before full trust.
        storm_fraction: share of the assessed nodes that look bad at once from which the sensors are suspected.
        storm_cooldown_s: quiet time before SAFE_MODE is left by itself.
        doubt_ticks: ticks of contradicted sensors before SAFE_MODE.
        safe_mode_auto_clear: whether it is left by itself at all.
    """

    gravity_critical: float = 1.5
    confirm_ticks: int = 3
    cluster_fraction_max: float = 1 / 3
    fraction_max: float = 0.30
    absolute_max: int | None = None
    quorum: int = 3
    evidence_nodes_min: int = 5
    rate_per_minute: float = 5.0
    burst: float = 5.0
    rate_share: float = 0.25
    verify_s: float = 10.0
    backoff_base_s: float = 60.0
    backoff_max_s: float = 3600.0
    backoff_jitter: float = 0.1
    forgive_s: float = 600.0
    flap_offences: int = 6
    ttl_s: float = 900.0
    readmit_gravity: float = 0.75
    probation_ticks: int = 60
    storm_fraction: float = 0.55
    storm_cooldown_s: float = 60.0
    doubt_ticks: int = 30
    safe_mode_auto_clear: bool = True

    def rate(self, nodes: int) -> tuple[float, float]:
        """Tokens a second, and the size of the bucket, for a plant of `nodes`."""
        scaled = self.rate_share * nodes
        return max(self.rate_per_minute, scaled) / 60.0, max(self.burst, scaled)

    def backoff_s(self, node: str, offences: int) -> float:
        """Least time out after the given number of isolations: base × n and a share drawn by node and n, capped."""
        drawn = int.from_bytes(hashlib.sha256(f"{node}/{offences}".encode()).digest()[:8], "big") / 2**64
        return min(self.backoff_max_s, self.backoff_base_s * max(1, offences) * (1 + self.backoff_jitter * drawn))

    def tokens(self, left: float | None, since_s: float, nodes: int) -> float:
        """Tokens in the bucket now; `left` is None before the first isolation, when it is full."""
        per_second, burst = self.rate(nodes)
        return burst if left is None else min(burst, left + per_second * max(0.0, since_s))


@dataclass(slots=True, eq=False)
class Standing:
    """What the guards look at; it is kept up to date as intents are added within one tick.

    Attributes:
        topology: the plant's nodes and clusters.
        out: bool[N], out of service, in flight or unknown.
        cluster_out: int64[M], how many of each cluster are.
        assessed: trusted active nodes in this tick.
        tokens: isolation tokens at hand.
        at_s: plant time.
    """

    topology: Topology
    out: NDArray[np.bool_]
    assessed: int
    tokens: float
    at_s: float
    cluster_out: NDArray[np.int64] = field(init=False)
    total_out: int = field(init=False)

    def __post_init__(self) -> None:
        members = self.topology.cluster_of[self.out]
        self.cluster_out = np.bincount(members, minlength=len(self.topology.clusters)).astype(np.int64)
        self.total_out = int(np.count_nonzero(self.out))

    def take_out(self, node: int) -> None:
        """Count node `node` (its index) as out from now on, and its token as spent."""
        self.out[node] = True
        self.cluster_out[self.topology.cluster_of[node]] += 1
        self.total_out += 1
        self.tokens -= 1


def forbid_isolation(policy: IsolationPolicy, standing: Standing, node: int) -> Refusal | None:
    """The first guard that forbids isolating node `node` (its index), or None if it may be done."""
    cluster = int(standing.topology.cluster_of[node])
    subject = standing.topology.nodes[node]
    return next(_refusals(policy, standing, cluster, subject, count=1), None)


def forbid_cluster(policy: IsolationPolicy, standing: Standing, cluster: int) -> Refusal | None:
    """The first guard that forbids isolating every node of a cluster that is still in, or None if it may be done."""
    count = int(standing.topology.sizes[cluster] - standing.cluster_out[cluster])
    return next(_refusals(policy, standing, cluster, standing.topology.clusters[cluster], count=count), None)


def _refusals(
    policy: IsolationPolicy, standing: Standing, cluster: int, subject: str, *, count: int
) -> Iterator[Refusal]:
    total = len(standing.topology.nodes)
    size = int(standing.topology.sizes[cluster])
    out_after = standing.total_out + count
    cluster_out_after = int(standing.cluster_out[cluster]) + count

    def refusal(guard: Guard, observed: float, limit: float) -> Refusal:
        return Refusal("isolate", guard, subject, observed, limit, standing.at_s)

    if cluster_out_after > policy.cluster_fraction_max * size + ROUNDING:
        yield refusal(Guard.BUDGET_CLUSTER, cluster_out_after / size, policy.cluster_fraction_max)
    if out_after > policy.fraction_max * total + ROUNDING:
        yield refusal(Guard.BUDGET_FRACTION, out_after / total, policy.fraction_max)
    if policy.absolute_max is not None and out_after > policy.absolute_max:
        yield refusal(Guard.BUDGET_ABSOLUTE, out_after, policy.absolute_max)
    if size - cluster_out_after < policy.quorum:
        yield refusal(Guard.QUORUM, size - cluster_out_after, policy.quorum)
    # After the budgets, because every isolation also takes evidence away: of five nodes four are left to judge.
    if standing.assessed < policy.evidence_nodes_min:
        yield refusal(Guard.EVIDENCE_NODES, standing.assessed, policy.evidence_nodes_min)
    if standing.tokens < 1 - ROUNDING:
        yield refusal(Guard.RATE, standing.tokens, 1.0)
