"""Are the phase sensors to be believed? What nodes report is compared with what they achieve.

A node's attempts succeed with a probability p that follows from its true phase. Hence the share that did succeed, minus
p of the *reported* phase, hovers around 0 as long as the sensors are sound, whatever else is wrong: a node that is out
of phase fails as often as it says. Where nodes serve clearly better than their reported phases allow, the sensors show
a disorder that does not exist, and isolating on such evidence would do harm.

D is the mean over the active nodes of that excess (EWMA_15 each, negative ones counted as 0, so that errors of
different nodes do not cancel). It is taken from the phases as reported and again relative to their mean direction, and
the smaller counts: a bias common to all sensors changes no relative phase, hence no |g|, and is no reason to hold back.

Assumption: attempts succeed as docs/model.md section 1 says. A plant without nodes is judged by what it publishes of
itself, C_svc − C. Left out: what follows from doubt, which is the governor's to decide.

Source: docs/model.md sections 1 and 5. This D takes the place of C_svc − C, which static errors at N = 5 escape.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from metrics.gravity import FieldReading
from metrics.leave_one_out import in_both
from metrics.observation import NodeSignals, Observation, Topology
from metrics.smoothing import gap_weight

Floats = NDArray[np.float64]

DISAGREEMENT_MAX = 0.03  # sound sensors: at most .010, .026 under wash trading; corrupt ones: .1 to .3
TAU_TICKS = 15.0
KNOWN_AFTER_TICKS = 15
SUCCESS_MAX = 0.995  # share of attempts that succeed in perfect alignment


class SensorCrossCheck:
    """D of one plant, tick after tick."""

    def __init__(self) -> None:
        self._topology: Topology | None = None
        self._excess: Floats = np.zeros((2, 0))
        self._tick: int | None = None
        self._seen_ticks = 0

    def update(self, observation: Observation, reading: FieldReading | None) -> float:
        """D after one more observation, whose field is `reading`; NaN while unknown.

        Unknown means: fewer than 15 ticks with attempts so far or, without nodes, a figure the plant does not give.
        """
        topology, signals = observation.topology, observation.signals
        if topology is None or signals is None or reading is None:
            return observation.kpis.get("coherence_service", math.nan) - observation.kpis.get("coherence", math.nan)
        self._adopt(topology)
        gap_ticks = 1 if self._tick is None else max(0, observation.tick - self._tick)
        self._tick = observation.tick
        self._learn(signals, reading.mean_field, gap_weight(gap_ticks, TAU_TICKS))
        if self._seen_ticks < KNOWN_AFTER_TICKS or not signals.active.any():
            return math.nan
        surplus = np.maximum(self._excess, 0.0)
        return float(surplus.mean(axis=1, where=signals.active).min())

    def contradictions(self) -> Floats:
        """float64[N]: share of attempts by which each node serves better (worse: negative) than its report allows.

        Of the two ways to read the phases the one that contradicts less. Clearly negative is a node that lies.
        """
        absolute, relative = self._excess
        return np.asarray(np.where(np.abs(absolute) <= np.abs(relative), absolute, relative))

    def _learn(self, signals: NodeSignals, mean_field: complex, weight: float) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out in the next lines
            attempts = signals.commits + signals.retries
        known = signals.active & (attempts > 0.0) & (signals.commits >= 0.0) & (signals.retries >= 0.0)
        known &= np.isfinite(attempts) & np.isfinite(signals.phase)
        phase = np.where(known, signals.phase, 0.0)
        served = signals.commits / np.where(known, attempts, 1.0)
        cosine, sine = np.cos(phase), np.sin(phase)
        direction = mean_field / abs(mean_field) if abs(mean_field) > 0.0 else 1.0
        aligned = cosine * direction.real + sine * direction.imag
        for excess, cos in zip(self._excess, (cosine, aligned), strict=True):
            half = (1.0 + cos) / 2.0
            step = served - SUCCESS_MAX * (half * half * half) - excess  # a power costs ten products
            np.add(excess, weight * step, out=excess, where=known)
        self._seen_ticks += bool(known.any()) and weight > 0.0

    def _adopt(self, topology: Topology) -> None:
        """Keep what is known of nodes that stay."""
        if self._topology is not topology:
            kept = np.zeros((2, len(topology.nodes)))
            if self._topology is not None:
                source, target = in_both(self._topology.nodes, topology.nodes)
                kept[:, target] = self._excess[:, source]
            self._topology, self._excess = topology, kept
