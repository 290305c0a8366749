"""How do the phases move? Noisy Kuramoto oscillators in two levels, pulled towards a beacon at phase 0.

A node is coupled to the mean field of its cluster (K1) and to that of the system (K2), half of the latter coming from
the beacon. Coupling costs effort, and effort is limited to a share of the *offered* load (a limit in terms of commits
could spiral down: less coupling, less coherence, fewer commits, still less coupling).

Pure: the tick and the noise are arguments, nothing is read or written elsewhere. Source: docs/model.md section 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qecs.noise import Noise, Stream

if TYPE_CHECKING:
    from qecs.membership import Membership
    from qecs.parameters import Parameters

OFFERED_LOAD: Final = 20.0
"""Transactions offered per node and second at demand 1."""

_PHASE_NOISE: Final = 0.18  # σ, rad per √s
_CLUSTER_NOISE: Final = 0.03
_SYSTEM_NOISE: Final = 0.01
_GLOBAL_COUPLING: Final = 0.6
_EFFORT_LAMBDA1: Final = 0.20
_EFFORT_LAMBDA2: Final = 0.50
_TURN: Final = 2.0 * math.pi


@dataclass(frozen=True, slots=True)
class Environment:
    """What the cluster lives in and nobody governs.

    Attributes:
        demand: offered load relative to the normal one, D.
        kappa: price of synchronisation relative to the normal one, κ.
        sigma_m: noise of what a node senses of the fields, multiplied by the coupling, σm.
        omega: spread of the nodes' frequency drift, δω (rad/s).
        omega_cluster: spread of the clusters' frequency drift, δΩ (rad/s).
        w0: frequency drift common to all, W0 (rad/s).
    """

    demand: float = 1.0
    kappa: float = 1.0
    sigma_m: float = 0.20
    omega: float = 0.0
    omega_cluster: float = 0.0
    w0: float = 0.0


@dataclass(frozen=True, slots=True)
class Gains:
    """Coupling of a tick (K1, K2) and the effort that it costs, in transactions per active node and second (Q)."""

    k1: float
    k2: float
    effort: float


def limited_gains(parameters: Parameters, environment: Environment, *, load_per_node: float) -> Gains:
    """Coupling gains, scaled down so that the effort stays within its limit.

    Args:
        parameters: λ1, λ2 and the limit.
        environment: for the price κ.
        load_per_node: transactions offered per active node and second.
    """
    price = _EFFORT_LAMBDA1 * parameters.lambda1 + _EFFORT_LAMBDA2 * parameters.lambda2
    effort = environment.kappa * price
    scale = min(1.0, parameters.action_cost_limit * load_per_node / effort)
    return Gains(k1=scale * parameters.lambda1, k2=scale * _GLOBAL_COUPLING * parameters.lambda2, effort=scale * effort)


@dataclass(frozen=True, slots=True)
class OrderParameters:
    """Mean fields of the nodes that take part.

    Attributes:
        of_cluster: complex128, shape (M,): z_c.
        system: z.
    """

    of_cluster: NDArray[np.complex128]
    system: complex

    @property
    def coherence(self) -> float:
        """C, the Kuramoto order parameter."""
        return abs(self.system)


def order_parameters(
    cosine: NDArray[np.float64],
    sine: NDArray[np.float64],
    weight: NDArray[np.float64],
    membership: Membership,
    scratch: NDArray[np.float64],
) -> OrderParameters:
    """Mean fields of phases given by cosine and sine, each node weighted by w·a (all shape (N,))."""
    total = np.empty(membership.clusters, dtype=np.complex128)
    total.real = membership.total(np.multiply(weight, cosine, out=scratch))
    total.imag = membership.total(np.multiply(weight, sine, out=scratch))
    system = complex(total.sum()) / max(membership.active_nodes, 1)
    total /= np.maximum(membership.active_of_cluster, 1.0)
    return OrderParameters(of_cluster=total, system=system)


def wrap(phase: NDArray[np.float64], scratch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brings phases into [−π, π] in place and returns them."""
    np.multiply(phase, 1.0 / _TURN, out=scratch)
    np.rint(scratch, out=scratch)
    scratch *= _TURN
    phase -= scratch
    return phase


class PhaseField:
    """The phases of all nodes.

    Attributes:
        phase: float64, shape (N,), rad, within [−π, π]: θ.
        cosine: float64, shape (N,): cos θ.
        sine: float64, shape (N,): sin θ.
    """

    def __init__(self, membership: Membership, noise: Noise) -> None:
        nodes, clusters = membership.nodes, membership.clusters
        self._membership = membership
        self._noise = noise
        self._frequency = 0.05 * noise.clipped_normal(Stream.NODE_FREQUENCY, nodes)
        self._drift = noise.clipped_normal(Stream.NODE_DRIFT, nodes)
        self._cluster_frequency = 0.015 * noise.clipped_normal(Stream.CLUSTER_FREQUENCY, clusters)
        self._cluster_drift = noise.clipped_normal(Stream.CLUSTER_DRIFT, clusters)
        self._scratch = np.empty(nodes)
        self._increment = np.empty(nodes)
        self.phase = noise.normal(Stream.INITIAL_PHASE, 0, np.empty(nodes))
        self.phase *= 0.25
        self.cosine = np.cos(self.phase)
        self.sine = np.sin(self.phase)

    def measure(self, weight: NDArray[np.float64]) -> OrderParameters:
        """The true mean fields, each node weighted by w·a."""
        return order_parameters(self.cosine, self.sine, weight, self._membership, self._scratch)

    def advance(
        self,
        tick: int,
        fields: OrderParameters,
        gains: Gains,
        environment: Environment,
        *,
        coupling: NDArray[np.float64] | None,
        shift: NDArray[np.float64] | None,
    ) -> None:
        """Moves every phase by one second; the caller then calls `refresh`.

        Args:
            tick: names the noise.
            fields: mean fields at the start of the tick. Isolated nodes listen to them as well, one way.
            gains: coupling of the tick.
            environment: drifts and sensing noise.
            coupling: share of the pull that each node follows, or None where all follow it fully.
            shift: additional frequency of each node (rad/s), or None.
        """
        increment, scratch = self._increment, self._scratch
        pull = gains.k1 * fields.of_cluster + gains.k2 * (0.5 * fields.system + 0.5)
        np.multiply(self._membership.spread(pull.imag), self.cosine, out=increment)
        np.multiply(self._membership.spread(pull.real), self.sine, out=scratch)
        increment -= scratch
        if coupling is not None:
            increment *= coupling
        increment += self._frequency
        if environment.omega != 0.0:
            increment += np.multiply(self._drift, environment.omega, out=scratch)
        if shift is not None:
            increment += shift
        increment += self._membership.spread(self._common_increment(tick, environment))
        spread = math.sqrt(_PHASE_NOISE**2 + (gains.k1**2 + gains.k2**2) * environment.sigma_m**2)
        self._noise.normal(Stream.NODE_PHASE, tick, scratch)
        scratch *= spread
        increment += scratch
        self.phase += increment
        wrap(self.phase, scratch)

    def hold(self, nodes: NDArray[np.int64], phases: NDArray[np.float64]) -> None:
        """Puts some nodes at given phases (rad, both shape (k,)); the caller then calls `refresh`."""
        self.phase[nodes] = wrap(phases, np.empty_like(phases))

    def refresh(self) -> None:
        """Recomputes cosine and sine, after the last change of a tick."""
        np.cos(self.phase, out=self.cosine)
        np.sin(self.phase, out=self.sine)

    def _common_increment(self, tick: int, environment: Environment) -> NDArray[np.float64]:
        """What all nodes of a cluster move by together, shape (M,)."""
        clusters = self._membership.clusters
        draws = self._noise.normal(Stream.COMMON_PHASE, tick, np.empty(clusters + 1))
        system = environment.w0 + _SYSTEM_NOISE * float(draws[0])
        if clusters == 1:
            return np.full(1, system)
        increment = _CLUSTER_NOISE * draws[1:] + self._cluster_frequency + system
        if environment.omega_cluster != 0.0:
            increment += environment.omega_cluster * self._cluster_drift
        return increment
