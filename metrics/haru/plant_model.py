"""Which KPIs would the plant settle at, in a given environment, under candidate couplings?

A second, deliberately independent model of the governed system, as gray as a tuner needs: three levels (node in its
cluster, cluster in the system, system against the beacon), each a noisy oscillator that is pulled back with a known
contraction. Their stationary variances give coherence, alignment and the probability of a commit, and these the cost.

Assumptions: phases are in lock, frequencies are bell-shaped, the plant's law of pull and its prices are those of
docs/model.md section 1. Left out: transients, the ledger, single bad nodes, and whatever the smoothed difference
between prediction and measurement (`Bias`) does not carry over from the present couplings to the candidates.

Pure functions of values; any shape of candidates, elementwise. Source: docs/model.md sections 1, 4 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.observation import Parameters

Floats: TypeAlias = NDArray[np.float64]

GLOBAL_COUPLING = 0.6  # K2 = 0.6 s λ2
EFFORT_LAMBDA1 = 0.20  # effort per unit of λ1 and λ2, transaction-equivalents per node and second
EFFORT_LAMBDA2 = 0.50
SUCCESS_MAX = 0.995  # probability that an attempt at phase 0 commits
ATTEMPTS_MAX = 36.0  # transactions that a node can attempt in a second
RETRY_COST = 0.15
LOAD_RANGE = (0.5, 1.5)  # of a node's load relative to the mean
REPORT_NOISE = 0.05  # rad, of a reported phase

_ROUNDS = 8  # of the fixed point between order parameters and contraction; it settles within 5
_LOCK_MAX = 0.98  # sine of the largest offset that is held for long; beyond it an oscillator slips
_TINY = 1e-9
_VARIANCE_MAX = 3.0  # rad²; a phase that varies more is as good as uniform
# Eight equally likely values of a bell-shaped frequency of variance 1: the means of a normal's octiles.
_OCTILES = np.array([-1.647, -0.895, -0.492, -0.158, 0.158, 0.492, 0.895, 1.647]) / 0.9795


@dataclass(frozen=True, slots=True)
class Bias:
    """By how much the plant differed of late from what the model said of it (actual minus predicted, smoothed)."""

    coherence: float = 0.0
    gas: float = 0.0
    action_cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Environment:
    """What the plant lives in, as identified; the defaults are a healthy plant of 50 nodes.

    Attributes:
        nodes: active nodes that were counted.
        clusters: clusters they belong to.
        phase_noise: σ², rad²/s, of a node's own phase.
        sensing_noise: σm², the part that grows with K1² + K2².
        frequency_spread: variance of the nodes' frequencies within clusters, (rad/s)².
        typical_spread: the same by the median, so that single bad nodes do not count.
        cluster_noise: variance of what moves a cluster's mean from tick to tick, beyond its nodes' noise, rad²/s.
        cluster_spread: variance of the clusters' mean frequencies, (rad/s)².
        system_noise: likewise for the system's mean, rad²/s.
        drift: W0, frequency of the system's mean, rad/s.
        load: transactions offered per active node and second.
        load_spread: variance of the nodes' loads relative to their mean; who is offered most sheds first.
        price: κ, price of synchronisation relative to the normal one.
        invalid: invalid transactions per commit.
        bias: of the model.
    """

    nodes: int = 50
    clusters: int = 7
    phase_noise: float = 0.18**2
    sensing_noise: float = 0.20**2
    frequency_spread: float = 0.0023
    typical_spread: float = 0.0023
    cluster_noise: float = 0.03**2
    cluster_spread: float = 0.0002 + 0.0023 * 7 / 50
    system_noise: float = 0.01**2
    drift: float = 0.0
    load: float = 20.0
    load_spread: float = 0.125**2
    price: float = 1.0
    invalid: float = 0.0
    bias: Bias = Bias()


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Stationary KPIs, elementwise for candidates of any shape; the bias is added.

    Attributes:
        coherence: C.
        gas: GAS.
        action_cost: I_eff; infinite where nothing would commit.
        success: p, share of attempts that commit.
    """

    coherence: Floats
    gas: Floats
    action_cost: Floats
    success: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """Coupling gains, and the effort they cost in transaction-equivalents per active node and second."""

    k1: Floats
    k2: Floats
    effort: Floats


def limited_gains(
    lambda1: ArrayLike, lambda2: ArrayLike, *, price: float, load: float, action_cost_limit: float
) -> Gains:
    """Gains after the plant's own limiter, which scales them down so that effort stays within its share of the load."""
    lambda1, lambda2 = np.asarray(lambda1, np.float64), np.asarray(lambda2, np.float64)
    effort = price * (EFFORT_LAMBDA1 * lambda1 + EFFORT_LAMBDA2 * lambda2)
    scale = np.minimum(1.0, action_cost_limit * load / np.maximum(effort, _TINY))
    return Gains(scale * lambda1, scale * GLOBAL_COUPLING * lambda2, scale * effort)


def predict(
    environment: Environment, parameters: Parameters, lambda1: ArrayLike | None = None, lambda2: ArrayLike | None = None
) -> Prediction:
    """The KPIs at which the plant would settle.

    Args:
        environment: as identified.
        parameters: for the limit of the action cost, and for what is not given otherwise.
        lambda1: candidates for λ1; None takes that of `parameters`.
        lambda2: likewise λ2, broadcast against `lambda1`.
    """
    lambda1, lambda2 = np.broadcast_arrays(
        np.asarray(parameters.lambda1 if lambda1 is None else lambda1, np.float64),
        np.asarray(parameters.lambda2 if lambda2 is None else lambda2, np.float64),
    )
    gains = limited_gains(
        lambda1,
        lambda2,
        price=environment.price,
        load=environment.load,
        action_cost_limit=parameters.action_cost_limit,
    )
    levels = _Levels.aligned(lambda1.shape)
    for _ in range(_ROUNDS):
        levels = levels.settled(environment, gains)
    success = _success(levels.offset, levels.variance)
    bias = environment.bias
    return Prediction(
        coherence=np.clip(levels.coherence + bias.coherence, 0.0, 1.0),
        gas=np.clip(levels.gas + bias.gas, 0.0, 1.0),
        action_cost=np.maximum(_cost(environment, gains, success) + bias.action_cost, 0.0),
        success=success.mean(axis=-1),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Levels:
    """How far phases hang behind and scatter; where arrays have one axis more, it is that of the octiles of frequency.

    Attributes:
        coherence, gas: order parameters.
        lag: of the system's mean behind the beacon, rad.
        offset: of a node behind the beacon, rad, one axis more.
        of_node, of_cluster, of_system: variances of the three levels, rad²; `of_node` has one axis more.
    """

    coherence: Floats
    gas: Floats
    lag: Floats
    offset: Floats
    of_node: Floats
    of_cluster: Floats
    of_system: Floats

    @classmethod
    def aligned(cls, shape: tuple[int, ...]) -> _Levels:
        """Where the fixed point is sought from: everything in phase."""
        one, none, none_of_octiles = np.ones(shape), np.zeros(shape), np.zeros((*shape, len(_OCTILES)))
        return cls(one, one, none, none_of_octiles, none_of_octiles, none, none)

    @property
    def variance(self) -> Floats:
        """Of a node's phase against the beacon, rad², one axis more."""
        return self.of_node + (self.of_cluster + self.of_system)[..., np.newaxis]

    def settled(self, environment: Environment, gains: Gains) -> _Levels:
        """The levels that follow if those of `self` exert the pull.

        A sine pulls a scattered phase back less than a still one, by the factor e^{−v/2} (statistical linearisation).
        """
        per_cluster = environment.nodes / environment.clusters
        noise = environment.phase_noise + (gains.k1**2 + gains.k2**2) * environment.sensing_noise
        noise_of_cluster = environment.cluster_noise + noise / per_cluster
        noise_of_system = environment.system_noise + noise_of_cluster / environment.clusters
        beacon = 0.5 * gains.k2
        global_pull = beacon * (self.coherence + np.cos(self.lag))
        pull = (gains.k1 * self.gas + global_pull)[..., np.newaxis] * np.exp(-0.5 * self.of_node)
        sine = _held(np.sqrt(environment.frequency_spread) * _OCTILES, pull)
        cosine = np.sqrt(1.0 - sine**2)
        of_node = _stationary(noise[..., np.newaxis], pull * cosine)
        gas = ((cosine * np.exp(-0.5 * of_node)).sum(axis=-1) / len(_OCTILES)) ** (1.0 - 1.0 / per_cluster)
        of_cluster, coherence = np.zeros_like(gas), gas
        if environment.clusters > 1:
            pull_of_cluster = global_pull * self.gas * np.exp(-0.5 * self.of_cluster)
            offset_of_cluster = environment.cluster_spread / np.maximum(pull_of_cluster, _TINY) ** 2
            of_cluster = np.minimum(_stationary(noise_of_cluster, pull_of_cluster) + offset_of_cluster, _VARIANCE_MAX)
            coherence = gas * np.exp(-0.5 * of_cluster * (1.0 - 1.0 / environment.clusters))
        pull_of_system = beacon * self.coherence * np.exp(-0.5 * self.of_system)
        lag = np.arcsin(_held(np.abs(np.float64(environment.drift)), pull_of_system))
        of_system = _stationary(noise_of_system, pull_of_system * np.cos(lag))
        return _Levels(coherence, gas, lag, np.arcsin(sine) + lag[..., np.newaxis], of_node, of_cluster, of_system)


def _held(frequency: Floats | np.float64, pull: Floats) -> Floats:
    """Sine of the offset at which a pull holds a frequency."""
    sine: Floats = np.minimum(np.maximum(frequency / np.maximum(pull, _TINY), -_LOCK_MAX), _LOCK_MAX)
    return sine


def _stationary(noise: Floats, contraction: Floats) -> Floats:
    """Variance of x ← (1 − k) x + noise."""
    k: Floats = np.minimum(np.maximum(contraction, 1e-3), 1.9)
    return np.minimum(noise / (2.0 * k - k**2), _VARIANCE_MAX)


def _success(offset: Floats, variance: Floats) -> Floats:
    """Mean of 0.995 ((1 + cos θ)/2)³ for a normal θ, by ((1 + cos θ)/2)³ ≈ e^{−3θ²/4}."""
    spread = 1.0 + 1.5 * variance
    return SUCCESS_MAX * np.exp(-0.75 * offset**2 / spread) / np.sqrt(spread)


def _cost(environment: Environment, gains: Gains, success: Floats) -> Floats:
    """I_eff of nodes that retry what failed, and shed what they cannot attempt in time.

    A node's load has nothing to do with its frequency: every octile of the one meets every octile of the other.
    """
    relative = np.clip(1.0 + np.sqrt(environment.load_spread) * _OCTILES, *LOAD_RANGE)
    load, success = environment.load * relative, success[..., np.newaxis]
    attempts = np.minimum(load / np.maximum(success, _TINY), ATTEMPTS_MAX)
    commits = attempts * success
    retried = RETRY_COST * (attempts - commits)
    shed = np.maximum(load - commits, 0.0)
    spent = gains.effort + np.mean(retried + shed, axis=(-2, -1))
    served = np.mean(commits, axis=(-2, -1))
    cost: Floats = spent / np.maximum(served, _TINY) + environment.invalid
    return cost
