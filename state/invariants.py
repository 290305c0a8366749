"""What must always hold, as functions of the state: each returns None, or what is wrong.

A breach is a bug in the controller, not a finding about the plant: a run ends with an internal error, a daemon holds.
The numbers are those of docs/invariants.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from metrics.errors import InvariantBreachError
from metrics.observation import PARAMETER_BOUNDS, Topology
from state.durable import DurableState, IntentKind, NodeStatus
from state.isolation import ROUNDING, IsolationPolicy
from state.phase import Phase


def budgets_hold(
    state: DurableState, policy: IsolationPolicy, topology: Topology, taken: Collection[str] | None = None
) -> str | None:
    """1: what we hold out, or may hold out, is within the absolute, the overall and each cluster's budget."""
    out = _ours(state, topology)
    total = len(topology.nodes)
    if len(out) > policy.fraction_max * total + ROUNDING:
        return f"{len(out)} of {total} nodes out, allowed {policy.fraction_max:.2f}"
    if policy.absolute_max is not None and len(out) > policy.absolute_max:
        return f"{len(out)} nodes out, allowed {policy.absolute_max}"
    for cluster, count in _by_cluster(out, topology, taken).items():
        if count > policy.cluster_fraction_max * topology.sizes[cluster] + ROUNDING:
            return f"{count} of {topology.sizes[cluster]} nodes of {topology.clusters[cluster]} out"
    return None


def quorum_holds(
    state: DurableState, policy: IsolationPolicy, topology: Topology, taken: Collection[str] | None = None
) -> str | None:
    """2: every cluster from which we took nodes keeps its quorum."""
    for cluster, count in _by_cluster(_ours(state, topology), topology, taken).items():
        left = int(topology.sizes[cluster]) - count
        if left < policy.quorum:
            return f"{topology.clusters[cluster]} keeps {left} nodes, quorum {policy.quorum}"
    return None


def intents_are_single(state: DurableState, _policy: IsolationPolicy, _topology: Topology) -> str | None:
    """3: at most one action in flight for a node, and each under its own key."""
    twice = [node for node, count in Counter(i.node for i in state.intents.values()).items() if count > 1]
    return f"several actions in flight for {', '.join(sorted(twice))}" if twice else None


def intents_match_nodes(state: DurableState, _policy: IsolationPolicy, _topology: Topology) -> str | None:
    """3: a node is being isolated exactly if an isolation of it is in flight."""
    isolating = {name for name, record in state.nodes.items() if record.status is NodeStatus.ISOLATING}
    intended = {intent.node for intent in state.intents.values() if intent.kind is IntentKind.ISOLATE}
    return None if isolating == intended else f"isolating {sorted(isolating)}, intended {sorted(intended)}"


def parameters_within_bounds(state: DurableState, _policy: IsolationPolicy, _topology: Topology) -> str | None:
    """12: a trial proposes, and falls back to, parameters within their bounds."""
    if state.trial is None:
        return None
    for values in (state.trial.previous, state.trial.proposed):
        for name, (low, high) in PARAMETER_BOUNDS.items():
            if not low <= values[name] <= high:
                return f"{name} = {values[name]} outside {low} to {high}"
    return None


def trial_has_its_phase(state: DurableState, _policy: IsolationPolicy, _topology: Topology) -> str | None:
    """12: a trial is open exactly while the controller is healing, or was when it was stopped or went to hold."""
    if state.phase is Phase.HEALING and state.trial is None:
        return "HEALING without a trial"
    excused = (Phase.HEALING, Phase.SAFE_MODE, Phase.COHERENT_LOCK, Phase.CRITICAL_DISSONANCE)
    return f"a trial is open in {state.phase}" if state.trial is not None and state.phase not in excused else None


def hold_has_a_reason(state: DurableState, _policy: IsolationPolicy, _topology: Topology) -> str | None:
    """22: SAFE_MODE always says why."""
    return "SAFE_MODE without a reason" if state.phase is Phase.SAFE_MODE and not state.safe_mode else None


def pause_is_kept(state: DurableState, _policy: IsolationPolicy, _topology: Topology) -> str | None:
    """10: PAUSED is somebody's acknowledged pause, with no trial open and every call answered."""
    if state.phase is not Phase.PAUSED:
        return None
    if state.pause is None or not state.pause.acknowledged:
        return "PAUSED without an acknowledged pause"
    return "PAUSED with an open trial" if state.trial is not None else None


BUDGETS: tuple[Callable[..., str | None], ...] = (budgets_hold, quorum_holds)
INVARIANTS: tuple[Callable[[DurableState, IsolationPolicy, Topology], str | None], ...] = (
    *BUDGETS,
    intents_are_single,
    intents_match_nodes,
    parameters_within_bounds,
    trial_has_its_phase,
    hold_has_a_reason,
    pause_is_kept,
)


def check(
    state: DurableState,
    policy: IsolationPolicy,
    topology: Topology,
    *,
    taken: Collection[str] | None = None,
) -> None:
    """Ask every invariant; the budgets speak of actions, and so are asked only where somebody is being taken out.

    Where `taken` names those nodes, only their clusters have to keep within their own budgets: another one may have
    shrunk, or be beyond those of a policy that has been tightened since, without anybody acting there. None: anybody
    may have been.

    Raises:
        InvariantBreachError: the first one that does not hold.
    """
    for budget in BUDGETS if taken is None or taken else ():
        _require(budget.__name__, budget(state, policy, topology, taken))
    for invariant in INVARIANTS:
        if invariant not in BUDGETS:
            _require(invariant.__name__, invariant(state, policy, topology))


def _require(name: str, detail: str | None) -> None:
    if detail is not None:
        raise InvariantBreachError(name, detail)


def _ours(state: DurableState, topology: Topology) -> list[int]:
    return [topology.index[node] for node in sorted(state.out_of_service()) if node in topology.index]


def _by_cluster(nodes: list[int], topology: Topology, taken: Collection[str] | None) -> Counter[int]:
    """How many of `nodes` are in each cluster; only in those of the nodes `taken`, where they are named."""
    clusters = Counter(int(topology.cluster_of[node]) for node in nodes)
    if taken is None:
        return clusters
    concerned = {int(topology.cluster_of[topology.index[node]]) for node in taken if node in topology.index}
    return Counter({cluster: count for cluster, count in clusters.items() if cluster in concerned})
