"""What one reading of the gravity field costs, beside the bare numpy passes that its equations need.

The bare passes read and write preallocated arrays and know no robustness: no missing signals, no gaps, no isolated
nodes, no frozen results. Their time is the floor; the goal is a ratio of at most 3.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from metrics.gravity import FieldReading, GravityField
from metrics.leave_one_out import LeaveOneOut
from metrics.observation import ClusterId, NodeId, NodeSignals, Observation, Topology

Floats = NDArray[np.float64]

ROUNDS = 9
RATIO_GOAL = 3.0


def observation_of(nodes: int) -> Observation:
    """A healthy-looking tick of so many nodes in the model's number of clusters."""
    rng = np.random.default_rng(1)
    clusters = max(1, min(nodes // 5, round(nodes**0.5)))
    topology = Topology(
        tuple(NodeId(f"node-{i}") for i in range(nodes)),
        tuple(ClusterId(f"cluster-{i}") for i in range(clusters)),
        (np.arange(nodes) * clusters // nodes).astype(np.int32),
    )
    arrivals = rng.poisson(20.0, nodes).astype(np.float64)
    idle = np.zeros(nodes)
    signals = NodeSignals(
        phase=rng.normal(0.0, 0.25, nodes),
        participation=np.ones(nodes),
        arrivals=arrivals,
        commits=0.95 * arrivals,
        retries=idle,
        shed=idle,
        invalid=idle,
        queue=idle,
        balance=idle,
        active=np.ones(nodes, dtype=np.bool_),
    )
    return Observation(0, 0.0, 0.0, {}, topology, signals)


class BarePasses:
    """The equations of docs/model.md section 3 and nothing else."""

    def __init__(self, observation: Observation) -> None:
        topology, signals = observation.topology, observation.signals
        if topology is None or signals is None:
            raise ValueError("the benchmark needs nodes")
        self._signals = signals
        self._cluster = topology.cluster_of.astype(np.intp)
        self._sizes = topology.sizes.astype(np.float64)
        self._h, self._q, self._commits, self._arrivals = self._lasting = np.zeros((4, len(topology.nodes)))
        self._shortfall, self._usual = np.zeros((2, len(topology.nodes)))
        self._temporary = np.empty((8, len(topology.nodes)))

    def __call__(self) -> None:
        """One tick."""
        self._smooth_all()
        self._count_shortfall()
        self._combine()

    def _smooth_all(self) -> None:
        y_re, y_im, zeta_re, zeta_im, length, whole, pull, share = self._temporary
        np.multiply(np.cos(self._signals.phase, out=y_re), self._signals.participation, out=y_re)
        np.multiply(np.sin(self._signals.phase, out=y_im), self._signals.participation, out=y_im)
        self._others(y_re, zeta_re)
        self._others(y_im, zeta_im)
        _magnitude(zeta_re, zeta_im, length, share)
        np.multiply(y_im, zeta_re, out=pull)
        np.multiply(y_re, zeta_im, out=share)
        np.subtract(pull, share, out=pull)
        np.divide(pull, length, out=pull)
        np.add(zeta_re, y_re, out=zeta_re)
        np.add(zeta_im, y_im, out=zeta_im)
        _magnitude(zeta_re, zeta_im, whole, share)
        np.take((self._sizes - 1.0) / self._sizes, self._cluster, out=share, mode="clip")
        np.multiply(whole, share, out=whole)
        np.multiply(pull, np.sqrt(share, out=share), out=pull)
        np.subtract(length, whole, out=length)
        values = (length, pull, self._signals.commits, self._signals.arrivals)
        for average, value in zip(self._lasting, values, strict=True):
            _smooth(average, value, share)

    def _count_shortfall(self) -> None:
        work, own, others, theirs, step, *_ = self._temporary
        signals = self._signals
        np.add(signals.commits, np.add(signals.retries, signals.invalid, out=work), out=work)
        np.maximum(work, signals.arrivals, out=work)
        self._others(signals.commits, others)
        self._others(work, theirs)
        np.divide(signals.commits, work, out=own)
        np.subtract(np.divide(others, theirs, out=others), own, out=others)
        np.subtract(np.subtract(others, self._usual, out=step), 0.3, out=step)
        np.clip(np.add(self._shortfall, step, out=step), 0.0, 3.0, out=self._shortfall)
        _smooth(self._usual, others, step)

    def _combine(self) -> None:
        _, _, deficit, own, spread, lift, norm, square = self._temporary
        self._others(self._commits, deficit)
        self._others(self._arrivals, own)
        np.minimum(np.divide(deficit, own, out=deficit), 1.0, out=deficit)
        np.minimum(np.divide(self._commits, self._arrivals, out=own), 1.0, out=own)
        np.maximum(np.subtract(deficit, own, out=deficit), 0.0, out=deficit)
        np.abs(self._q, out=spread)
        spread.partition(len(spread) // 2)
        np.maximum(self._h, 0.0, out=lift)
        _magnitude(lift, self._q, norm, square)
        np.add(norm, np.multiply(deficit, deficit, out=square), out=norm)
        np.sqrt(norm, out=norm)

    def _others(self, own: Floats, out: Floats) -> None:
        totals = np.bincount(self._cluster, weights=own, minlength=len(self._sizes))
        np.subtract(np.take(totals, self._cluster, out=out, mode="clip"), own, out=out)


def _smooth(average: Floats, value: Floats, scratch: Floats) -> None:
    np.multiply(np.subtract(value, average, out=scratch), 0.05, out=scratch)
    np.add(average, scratch, out=average)


def _magnitude(re: Floats, im: Floats, out: Floats, scratch: Floats) -> None:
    np.multiply(re, re, out=out)
    np.sqrt(np.add(out, np.multiply(im, im, out=scratch), out=out), out=out)


def best_ms(run: Callable[[], object]) -> float:
    """Least processor time of some rounds: what it costs without the neighbours' noise."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def kept_bytes(field: GravityField, reading: FieldReading) -> int:
    """Bytes of the arrays that live on between ticks, the latest reading included; the topology is the plant's."""
    averages: LeaveOneOut | None = field._averages  # noqa: SLF001 - a benchmark may look inside what it measures
    arrays = [item for item in vars(averages).values() if isinstance(item, np.ndarray)]
    arrays += [getattr(reading, name) for name in ("gravity", "components", "samples", "trusted")]
    return sum(array.nbytes for array in arrays)


def measure(nodes: int) -> float:
    """Print the row of one size and return its ratio."""
    observation = observation_of(nodes)
    field, bare, ticks = GravityField(), BarePasses(observation), count()

    def update() -> FieldReading:
        return field.update(replace(observation, tick=next(ticks)))

    bare()
    per_node = kept_bytes(field, update()) / nodes
    update_ms, bare_ms = best_ms(update), best_ms(bare)
    print(f"{nodes:>9} {update_ms:>10.2f} {bare_ms:>9.2f} {update_ms / bare_ms:>6.2f} {per_node:>11.0f}")
    return update_ms / bare_ms


def main() -> int:
    """Print a row for each size; 1 if the last one misses the goal."""
    parser = argparse.ArgumentParser(description="cost of a gravity reading")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    sizes = parser.parse_args().nodes
    print(f"{'nodes':>9} {'update ms':>10} {'bare ms':>9} {'ratio':>6} {'bytes/node':>11}")
    ratios = [measure(nodes) for nodes in sizes]
    return int(ratios[-1] > RATIO_GOAL)


if __name__ == "__main__":
    sys.exit(main())
