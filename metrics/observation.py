"""What was seen of the plant at one of its ticks: the value that flows through everything else.

An observation is evidence, not truth: a signal may be NaN, a KPI may be missing because its window has not filled, and
a plant without nodes has no signals at all. Nothing here judges; `assessment.py` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metrics.errors import BadDataError

NodeId: TypeAlias = str
ClusterId: TypeAlias = str


class Capability(StrEnum):
    """What a plant lets its controller do; what is missing is skipped openly."""

    NODES = "nodes"
    ISOLATE = "isolate"
    PARAMETERS = "parameters"
    LEDGER = "ledger"
    COMMIT = "commit"
    FAULTS = "faults"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The tunable parameters of QECS and their bounds (docs/model.md section 1).

    Attributes:
        lambda1: coupling within clusters, 0.01 to 1.
        lambda2: coupling of the whole system, 0.01 to 1.
        alpha: gain of the CAF emission law, 0 to 2.
        action_cost_limit: I_lim, the budget of I_eff that the plant itself keeps, above 0 to 1.
    """

    lambda1: float = 0.30
    lambda2: float = 0.35
    alpha: float = 1.0
    action_cost_limit: float = 0.05

    def as_dict(self) -> dict[str, float]:
        """The parameters by name."""
        return {item.name: float(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Parameters:
        """Parameters from a mapping of exactly their names.

        Raises:
            BadDataError: a name is unknown or missing, or a value is not a finite number within its bounds.
        """
        problems = [f"{name} is not a parameter" for name in raw if name not in PARAMETER_BOUNDS]
        for name, (low, high) in PARAMETER_BOUNDS.items():
            value = raw.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                problems.append(f"{name} must be a finite number, not {value!r}")
            elif not low <= value <= high:
                problems.append(f"{name} = {value} is outside {low} to {high}")
        if problems:
            raise BadDataError("parameters: " + "; ".join(problems))
        return cls(**{name: float(raw[name]) for name in PARAMETER_BOUNDS})


PARAMETER_BOUNDS: Mapping[str, tuple[float, float]] = {
    "lambda1": (0.01, 1.0),
    "lambda2": (0.01, 1.0),
    "alpha": (0.0, 2.0),
    "action_cost_limit": (0.001, 1.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """Which nodes there are and to which cluster each belongs.

    Attributes:
        nodes: names, in the order of every per-node array.
        clusters: names of the clusters.
        cluster_of: int32[N], index into `clusters` for each node.
        index: node name to its position.
        sizes: int64[M], nodes of each cluster, isolated ones included.
    """

    nodes: tuple[NodeId, ...]
    clusters: tuple[ClusterId, ...]
    cluster_of: NDArray[np.int32]
    index: Mapping[NodeId, int] = field(init=False)
    sizes: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {node: i for i, node in enumerate(self.nodes)})
        sizes = np.bincount(self.cluster_of, minlength=len(self.clusters)).astype(np.int64)
        object.__setattr__(self, "sizes", sizes)


@dataclass(frozen=True, slots=True, eq=False)
class NodeSignals:
    """One array a signal, one entry a node (length N), as the plant reported them at one tick.

    Attributes:
        phase: reported phase θ, rad.
        participation: reported amplitude a, 0 to 1.
        arrivals: transactions that arrived in the tick.
        commits: transactions committed, Y.
        retries: transactions that failed and stay queued, F.
        shed: transactions dropped for want of room, X.
        invalid: invalid transactions, V.
        queue: transactions waiting, B.
        balance: tokens.
        active: bool, False where the plant itself holds the node isolated.
    """

    phase: NDArray[np.float64]
    participation: NDArray[np.float64]
    arrivals: NDArray[np.float64]
    commits: NDArray[np.float64]
    retries: NDArray[np.float64]
    shed: NDArray[np.float64]
    invalid: NDArray[np.float64]
    queue: NDArray[np.float64]
    balance: NDArray[np.float64]
    active: NDArray[np.bool_]


SIGNAL_NAMES: tuple[str, ...] = tuple(item.name for item in fields(NodeSignals))


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The plant at one tick.

    Attributes:
        tick: the plant's own tick number.
        plant_time_s: the plant's own time, s; policy, windows and trials count it.
        received_s: the controller's monotonic time of receipt, s.
        kpis: what the plant says of itself, by catalogue name; NaN or absent means "not known".
        topology: None for a plant without nodes.
        signals: None for a plant without nodes.
        parameters: the parameters in force; None where the plant does not say.
        safe_mode: the plant's own safe-mode flag; None where it does not say.
    """

    tick: int
    plant_time_s: float
    received_s: float
    kpis: Mapping[str, float]
    topology: Topology | None = None
    signals: NodeSignals | None = None
    parameters: Parameters | None = None
    safe_mode: bool | None = None
