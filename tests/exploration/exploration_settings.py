"""The test configuration of the exploration: every number as small as still tells before from after.

A tick is a minute, and every time that the policy counts is one or two of them: what takes one tick is seen to be
waited for, what takes two is also seen to be waited for in vain. Confirmation is 2, and the back-off is capped at its
base, so that it does not grow with the number of offences.
"""

from __future__ import annotations

import numpy as np

from metrics.observation import Topology
from state import confirmation, governor, nodes, wells
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy

TICK_S = 60.0
CONFIRM_TICKS = 2
FLAP_OFFENCES = 2
DOUBT_TICKS = 2
AWAY_TICKS = 4  # for which the controller may be away: every time limit has passed then
SHORTENED = (
    (confirmation, "PATIENCE_TICKS", 1),
    (wells, "GONE_TICKS", 1),
    (nodes, "RENEW_BEFORE_S", TICK_S),
    (governor, "RETRY_BASE_S", TICK_S),
    (governor, "RETRY_MAX_S", TICK_S),
)


def shorten_constants() -> None:
    """The test configuration of what is no setting."""
    for module, name, value in SHORTENED:
        setattr(module, name, value)


def isolation_policy(size: int) -> IsolationPolicy:
    """Confirmation 2, capped back-off, everything else within a few ticks."""
    return IsolationPolicy(
        confirm_ticks=CONFIRM_TICKS,
        cluster_fraction_max=0.5,
        fraction_max=0.4,
        quorum=2,
        evidence_nodes_min=min(size - 1, 3),
        rate_per_minute=0.5,
        burst=1.0,
        verify_s=TICK_S,
        backoff_base_s=2 * TICK_S,
        backoff_max_s=2 * TICK_S,
        backoff_jitter=0.0,
        forgive_s=TICK_S,
        flap_offences=FLAP_OFFENCES,
        ttl_s=3 * TICK_S,
        probation_ticks=1,
        storm_cooldown_s=TICK_S,
        doubt_ticks=DOUBT_TICKS,
    )


def healing_policy(*, enabled: bool) -> HealingPolicy:
    """Windows of a tick or two, two trials before it gives up, and steps that lead from bound to bound."""
    return HealingPolicy(
        enabled=enabled,
        step=1000.0,
        trigger_ticks=1,
        baseline_ticks=1,
        settle_ticks=0,
        measure_ticks=1,
        holdoff_s=0.0,
        holdoff_model_s=0.0,
        suspect_s=0.0,
        trials_max=2,
        backoff_base_s=2 * TICK_S,
        backoff_max_s=2 * TICK_S,
        burst=1000.0,
        per_hour=1e6,
        verify_s=TICK_S,
    )


def topology_of(size: int, clusters: int) -> Topology:
    """Nodes n0, n1, ... in equal clusters."""
    names = tuple(f"n{i}" for i in range(size))
    members = (np.arange(size) * clusters // size).astype(np.int32)
    return Topology(names, tuple(f"c{i}" for i in range(clusters)), members)
