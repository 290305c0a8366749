"""How long does a scrape take, and how long does publishing keep a tick?

    python benchmarks/bench_exporter.py [--nodes 1000] [--repeat 50]

The plant has a third of its nodes isolated, the most that the policy allows, so that the scrape is as long as it gets.
Compared with prometheus_client's own rendering of the same samples, in the same process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from controller.meter import Meter
from controller.record import RunRecord
from controller.snapshot import Bounds, snapshot
from metrics.assessment import Assessment, Assessor
from metrics.exporter import Exporter
from metrics.kpi import CATALOGUE
from metrics.observation import NodeSignals, Observation, Topology


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=50)
    options = parser.parse_args()
    meter, record, bounds = Meter(CATALOGUE), _record(), Bounds(100, 1.5)
    observation, assessment = _tick(options.nodes)
    exporter = Exporter()

    def publish() -> None:
        exporter.publish(snapshot(meter, record, bounds, assessment=assessment, parameters=None))

    publish()
    series = exporter.scrape().body.count(b"\n") - exporter.scrape().body.count(b"# ")
    print(f"{options.nodes} nodes, {options.nodes // 3} of them isolated: {series} samples a scrape")
    timed = {
        "meter of a tick": lambda: meter.tick(observation, assessment),
        "snapshot of a tick": publish,
        "scrape, text": exporter.scrape,
        "scrape, OpenMetrics": lambda: exporter.scrape("application/openmetrics-text"),
        "prometheus_client, text": lambda: generate_latest(exporter.registry),
        "prometheus_client, OpenMetrics": lambda: generate_openmetrics(exporter.registry),
    }
    medians = {name: _median_ms(what, options.repeat) for name, what in timed.items()}
    for name, (median_ms, worst_ms) in medians.items():
        print(f"{name:32} {median_ms:8.3f} ms at the median, {worst_ms:8.3f} ms at worst")
    for kind in ("text", "OpenMetrics"):
        ratio = medians[f"prometheus_client, {kind}"][0] / medians[f"scrape, {kind}"][0]
        print(f"{kind}: {ratio:.1f} times as fast as prometheus_client alone")


def _median_ms(what: Callable[[], object], repeat: int) -> tuple[float, float]:
    taken = []
    for _ in range(repeat):
        started_s = time.perf_counter()
        what()
        taken.append(1000 * (time.perf_counter() - started_s))
    return statistics.median(taken), max(taken)


def _tick(nodes: int) -> tuple[Observation, Assessment]:
    rng = np.random.default_rng(0)
    clusters = max(1, nodes // 30)
    topology = Topology(
        tuple(f"node-{i:04}" for i in range(nodes)),
        tuple(f"cluster-{i:02}" for i in range(clusters)),
        (np.arange(nodes) % clusters).astype(np.int32),
    )
    counts = rng.poisson(20.0, (7, nodes)).astype(np.float64)
    active = np.arange(nodes) % 3 != 0
    signals = NodeSignals(rng.normal(0.0, 0.3, nodes), np.ones(nodes), *counts, active)
    observation = Observation(1, 1.0, time.monotonic(), dict.fromkeys(CATALOGUE, 0.5), topology, signals)
    return observation, Assessor().assess(observation)


def _record() -> RunRecord:
    return RunRecord("run", "embedded", "qecs", 0, 0, 0, "none", 0, dry_run=False, catalogue=CATALOGUE, wall_started="")


if __name__ == "__main__":
    main()
