"""Which kinds of fault are there, what may each be aimed at, and within which bounds?

The table `RULES` is the one home of these limits; `qecs.faults` checks against it. Source: docs/model.md section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class FaultKind(StrEnum):
    """The faults that the cluster knows."""

    DETUNED = "detuned"
    """Its frequency is off by the magnitude (rad/s)."""
    BYZANTINE = "byzantine"
    """Holds its phase at the magnitude (rad) from its cluster's and makes half of its attempts invalid."""
    STEALTH = "stealth"
    """Byzantine, but reports a phase that is aligned."""
    SLOW = "slow"
    """Capacity and coupling scaled by the magnitude, participates and turns a little less."""
    SILENT = "silent"
    """Takes part in nothing and commits nothing."""
    FLAPPING = "flapping"
    """Silent for the first 10 of every 20 ticks."""
    CLUSTER = "cluster"
    """The frequency of a whole cluster is off by the magnitude (rad/s)."""
    SENSOR_NOISE = "sensor-noise"
    """Phase sensors read with fresh noise of this standard deviation (rad)."""
    SENSOR_STATIC = "sensor-static"
    """Phase sensors read with a fixed error each, of this standard deviation (rad)."""
    SENSOR_BIAS = "sensor-bias"
    """Phase sensors all read the magnitude (rad) too much."""
    DRIFT = "drift"
    """The environment moves to the values given in `channels`."""
    SURGE = "surge"
    """Demand rises to the magnitude (1 is normal)."""
    TAMPERING = "tampering"
    """A recorded block body is altered."""
    FORK = "fork"
    """Nodes hold another chain that parts this many blocks below the tip."""
    INFLATION = "inflation"
    """This many tokens appear that nobody minted."""
    ENTROPY_SPIKE = "entropy-spike"
    """Wash trading: nodes pay themselves this many times the normal load, in valid transactions."""


class Targets(Enum):
    """What a kind of fault can be aimed at."""

    NODES = "nodes"
    CLUSTER = "cluster"
    ALL_NODES = "all nodes"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class KindRules:
    """What a fault of some kind may say.

    Attributes:
        targets: what it is aimed at. With `NODES` it is one node unless told otherwise, with `ALL_NODES` all.
        magnitude: its default, or None where the kind has none.
        low: smallest magnitude allowed.
        high: largest magnitude allowed.
        ramps: whether its strength can rise gradually.
        lasting: whether it changes the ledger at once and for good, so that it has no duration.
        whole: whether the magnitude counts something.
        fraction: share of the nodes that it hits unless told otherwise, or None.
    """

    targets: Targets
    magnitude: float | None = None
    low: float = 0.0
    high: float = 0.0
    ramps: bool = False
    lasting: bool = False
    whole: bool = False
    fraction: float | None = None


RULES: Final[Mapping[str, KindRules]] = {
    FaultKind.DETUNED: KindRules(Targets.NODES, 0.4, -3.0, 3.0, ramps=True),
    FaultKind.BYZANTINE: KindRules(Targets.NODES, 2.0, -math.pi, math.pi),
    FaultKind.STEALTH: KindRules(Targets.NODES, 2.0, -math.pi, math.pi),
    FaultKind.SLOW: KindRules(Targets.NODES, 0.3, 0.0, 1.0),
    FaultKind.SILENT: KindRules(Targets.NODES),
    FaultKind.FLAPPING: KindRules(Targets.NODES),
    FaultKind.CLUSTER: KindRules(Targets.CLUSTER, 0.25, -3.0, 3.0, ramps=True),
    FaultKind.SENSOR_NOISE: KindRules(Targets.ALL_NODES, 0.8, 0.0, 10.0, ramps=True),
    FaultKind.SENSOR_STATIC: KindRules(Targets.ALL_NODES, 0.6, 0.0, 10.0, ramps=True),
    FaultKind.SENSOR_BIAS: KindRules(Targets.ALL_NODES, 0.8, -math.pi, math.pi, ramps=True),
    FaultKind.DRIFT: KindRules(Targets.NONE, ramps=True),
    FaultKind.SURGE: KindRules(Targets.NONE, 1.6, 0.25, 10.0, ramps=True),
    FaultKind.TAMPERING: KindRules(Targets.NONE, lasting=True),
    FaultKind.FORK: KindRules(Targets.NODES, 3.0, 1.0, 1e6, lasting=True, whole=True),
    FaultKind.INFLATION: KindRules(Targets.NODES, 1000.0, 1.0, 1e12, lasting=True, whole=True),
    FaultKind.ENTROPY_SPIKE: KindRules(Targets.NODES, 15.0, 0.1, 20.0, fraction=0.02),
}

CHANNELS: Final[Mapping[str, tuple[float, float]]] = {
    "demand": (0.25, 10.0),
    "kappa": (0.01, 100.0),
    "sigma_m": (0.0, 3.0),
    "omega": (0.0, 1.0),
    "omega_cluster": (0.0, 1.0),
    "w0": (-1.0, 1.0),
}
"""Values that a drift may move the environment to, by the names of `qecs.dynamics.Environment`."""
