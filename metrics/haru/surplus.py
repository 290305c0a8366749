"""What moves the phases besides the known pull, taken apart into levels, frequency and noise?

The *surplus* of a node is e = Δθ − u, rad/s. It is taken apart into the system's mean, the clusters' means within it,
and the rest; each level's steady part is frequency, its fluctuation noise. Noise is measured by differences of
successive ticks, which a step of the frequencies disturbs for a single tick. No stationarity is needed.

Source: docs/model.md sections 1 and 6 (steps 1 to 3), with innovations of the full law instead of its linear form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.haru.noise_split import NoiseSplit
from metrics.haru.plant_model import REPORT_NOISE, Floats, Gains
from metrics.median import median
from metrics.observation import NodeSignals, Topology

TAU_MIN_TICKS, TAU_MAX_TICKS = 8.0, 30.0
NOISE_TICKS = 20.0  # smoothing of the noise of clusters and system
SPREAD_SHARPNESS = 67.0  # time constant of m frequencies is this over √m: few are averaged longer
MAD_OF_NORMAL = 1.4826  # standard deviation of a normal over its median magnitude
PHASE_MAX = 1e6  # rad; beyond it a phase has lost its meaning to rounding, or is none
DRIFT_ERROR = 0.005  # rad/s, standard error that W0 is averaged down to, where TAU_MAX_TICKS allows


@dataclass(frozen=True, slots=True, eq=False)
class PhaseReading:
    """Phases of one tick and their mean fields; nodes that are isolated or tell no phase weigh nothing.

    Attributes:
        phase: float64[N], rad, 0 where unknown.
        cosine: float64[N], of the phase.
        sine: float64[N], likewise.
        known: bool[N].
        counts: float64[M], known nodes of each cluster.
        of_cluster: complex128[M], z_c.
        system: z.
    """

    phase: Floats
    cosine: Floats
    sine: Floats
    known: NDArray[np.bool_]
    counts: Floats
    of_cluster: NDArray[np.complex128]
    system: complex

    @classmethod
    def of(cls, topology: Topology, signals: NodeSignals) -> PhaseReading:
        """What the signals say; O(N)."""
        a = signals.participation
        known = signals.active & (np.abs(signals.phase) <= PHASE_MAX) & (a >= 0.0) & (a <= 1.0)
        phase = np.where(known, signals.phase, 0.0)
        weight = np.where(known, signals.participation, 0.0)
        cosine, sine = np.cos(phase), np.sin(phase)
        size = len(topology.clusters)
        sums = np.empty(size, dtype=np.complex128)
        sums.real = np.bincount(topology.cluster_of, weight * cosine, size)
        sums.imag = np.bincount(topology.cluster_of, weight * sine, size)
        counts = np.bincount(topology.cluster_of, known, size).astype(np.float64)
        system = complex(sums.sum()) / max(float(counts.sum()), 1.0)
        sums /= np.maximum(counts, 1.0)
        return cls(phase, cosine, sine, known, counts, sums, system)

    @property
    def coherence(self) -> float:
        """C without the smear of the reports' own noise."""
        return abs(self.system) * _UNSMEARED

    @property
    def gas(self) -> float:
        """GAS, likewise."""
        return float((self.counts * np.abs(self.of_cluster)).sum() / max(self.counts.sum(), 1.0)) * _UNSMEARED


_UNSMEARED = math.exp(REPORT_NOISE**2 / 2.0)


class Surplus:
    """Frequencies and noise of one plant's three levels.

    Attributes:
        ticks: pairs of successive ticks that were learnt from.
        noise: σ² and σm².
        nodes, clusters: the levels below the system.
        drift: W0, rad/s; 0 until the first pair.
        system_noise: total variance of the system's mean from tick to tick, rad²/s.
        counted: nodes that the latest pair told of.
        groups: clusters that they belong to.
    """

    def __init__(self, topology: Topology) -> None:
        nodes, clusters = len(topology.nodes), len(topology.clusters)
        self._cluster_of = topology.cluster_of.astype(np.intp)
        self._share_of = np.bincount(self._cluster_of, minlength=clusters) / nodes
        self.ticks = 0
        self.noise = NoiseSplit()
        self.nodes = Level(nodes)
        self.clusters = Level(clusters)
        self.drift = self.system_noise = 0.0
        self.counted, self.groups = nodes, clusters
        usual = self.noise.total(0.134) / nodes + 0.03**2 / clusters + 0.01**2
        self._drift_tau = min(TAU_MAX_TICKS, max(TAU_MIN_TICKS, usual / DRIFT_ERROR**2 / 2.0))
        self._last_mean = math.nan

    def learn(self, before: PhaseReading, after: PhaseReading, gains: Gains) -> None:
        """Take in two successive ticks, between which `gains` were in force."""
        known = before.known & after.known
        pull = gains.k1 * before.of_cluster + gains.k2 * (0.5 * before.system + 0.5)
        # The pull on a node is the imaginary part of its cluster's, turned back by the node's own phase.
        surplus = after.phase - before.phase
        surplus -= pull.imag[self._cluster_of] * before.cosine - pull.real[self._cluster_of] * before.sine
        surplus -= 2.0 * math.pi * np.rint(surplus / (2.0 * math.pi))
        surplus[~known] = 0.0
        counts = np.bincount(self._cluster_of, known, len(before.counts))
        self.counted, self.groups = int(counts.sum()), int(np.count_nonzero(counts))
        if self.counted <= self.groups:
            return
        self.ticks += 1
        mean = float(surplus.sum()) / self.counted
        of_cluster = np.bincount(self._cluster_of, surplus, len(counts)) / np.maximum(counts, 1.0)
        self._learn_system(mean)
        self._learn_clusters(of_cluster - mean, counts > 0.0)
        self._learn_nodes(surplus - of_cluster[self._cluster_of], known, float(np.abs(pull) @ self._share_of), gains)

    def _learn_system(self, mean: float) -> None:
        self.drift += (mean - self.drift) / min(self.ticks, self._drift_tau)
        if math.isfinite(self._last_mean):
            square = 0.5 * (mean - self._last_mean) ** 2
            self.system_noise += (square - self.system_noise) / min(self.ticks, NOISE_TICKS)
        self._last_mean = mean

    def _learn_clusters(self, rest: Floats, known: NDArray[np.bool_]) -> None:
        if self.groups > 1:
            self.clusters.learn(rest, known, freedom=self.groups - 1.0)

    def _learn_nodes(self, rest: Floats, known: NDArray[np.bool_], contraction: float, gains: Gains) -> None:
        freedom = float(self.counted - self.groups)
        measured = self.nodes.learn(rest, known, freedom=freedom)
        if measured is None:
            return
        kept = 1.0 - contraction
        smear = 0.5 * REPORT_NOISE**2 * (1.0 + (1.0 + kept) ** 2 + kept**2)
        self.noise.learn(max(measured - smear, 0.0), float(gains.k1**2 + gains.k2**2), freedom)


class Level:
    """Frequencies and noise of one level's members, relative to the level above.

    Attributes:
        noise: smoothed variance of the fluctuation, rad²/s.
    """

    def __init__(self, size: int) -> None:
        self.noise = 0.0
        self._tau = min(TAU_MAX_TICKS, max(TAU_MIN_TICKS, SPREAD_SHARPNESS / math.sqrt(size)))
        self._ticks = 0
        self._mean = np.zeros(size)
        self._last = np.zeros(size)
        self._known = np.zeros(size, dtype=np.bool_)
        self._weight = 0.0
        self._freedom = 1.0

    def learn(self, rest: Floats, known: NDArray[np.bool_], *, freedom: float) -> float | None:
        """Take in the members' surplus; this tick's variance of the fluctuation, None without a tick to compare."""
        self._ticks += 1
        step = 1.0 / min(self._ticks, self._tau)
        self._mean += np.where(known, step * (rest - self._mean), 0.0)
        self._weight = (1.0 - step) ** 2 * self._weight + step**2
        self._freedom = freedom
        both = known & self._known
        squares, pairs = (rest - self._last) ** 2, np.count_nonzero(both)
        square = float((squares if pairs == len(rest) else squares[both]).sum())
        compared = pairs - (np.count_nonzero(known) - freedom)
        self._last, self._known = rest, known
        if self._ticks == 1 or compared <= 0.0:
            return None
        variance = 0.5 * square / compared
        self.noise += (variance - self.noise) / min(self._ticks - 1, NOISE_TICKS)
        return variance

    def typical_spread(self, noise: float) -> float:
        """The same by the median of the frequencies' magnitudes, which a few outliers do not move."""
        known = self._mean[self._known]
        if not known.size:
            return 0.0
        square = (MAD_OF_NORMAL * median(np.abs(known))) ** 2 * known.size / self._freedom
        return max(square - self._weight * noise, 0.0)

    def spread(self, noise: float) -> float:
        """Variance of the frequencies, (rad/s)², where `noise` is what their estimates still contain of each tick."""
        square = float((self._mean[self._known] ** 2).sum()) / self._freedom
        return max(square - self._weight * noise, 0.0)
