"""How fast and how good is the anomaly detector?

Speed: points a second at 10,000 series on one core, and the ratio to the fastest detector of river in the same run.
Rounds of both alternate and the best of each counts, so that a busy machine disturbs both alike. River scores and
learns one stream with one detector, which is its fastest way of working.

Accuracy, where the yardsticks are found: their scorers are run on their development parts with our adapters.

    python benchmarks/bench_anomaly.py [--yardsticks ../shared/bench] [--rounds 5]
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from river import anomaly

from metrics.anomaly.detector import StreamingDetector

SERIES = 10_000
ROWS = 60
RIVER_POINTS = 20_000
HERE = Path(__file__).resolve().parent


def detector_rate() -> Callable[[], float]:
    """A round of ours: points a second over ``ROWS`` rows of a detector already warm."""
    rng = np.random.default_rng(7)
    data = rng.normal(100.0, 5.0, (ROWS, SERIES))
    detector = StreamingDetector(SERIES)
    clock = 0.0

    def run() -> float:
        nonlocal clock
        start = time.perf_counter()
        for row in data:
            clock += 60.0
            detector.update(clock, row)
        return data.size / (time.perf_counter() - start)

    run()
    return run


def river_rate(name: str) -> Callable[[], float]:
    """A round of one of river's detectors: points a second, each scored and learned."""
    values = np.random.default_rng(7).normal(100.0, 5.0, RIVER_POINTS).tolist()
    make = getattr(anomaly, name)

    def supervised() -> float:
        detector = make()
        start = time.perf_counter()
        for value in values:
            detector.score_one(None, value)
            detector.learn_one(None, value)
        return RIVER_POINTS / (time.perf_counter() - start)

    def unsupervised() -> float:
        detector = make()
        start = time.perf_counter()
        for value in values:
            row = {"x": value}
            detector.score_one(row)
            detector.learn_one(row)
        return RIVER_POINTS / (time.perf_counter() - start)

    return supervised if name in {"GaussianScorer", "StandardAbsoluteDeviation"} else unsupervised


def speed(rounds: int) -> None:
    """Prints points a second for ours and river's, and the ratio to river's fastest."""
    names = ("GaussianScorer", "StandardAbsoluteDeviation", "OneClassSVM", "HalfSpaceTrees")
    runs = {"ours": detector_rate()} | {f"river {name}": river_rate(name) for name in names}
    best = dict.fromkeys(runs, 0.0)
    for _ in range(rounds):
        for name, run in runs.items():
            best[name] = max(best[name], run())
    for name, rate in best.items():
        print(f"{name:36s} {rate:12,.0f} points/s")
    fastest = max(rate for name, rate in best.items() if name != "ours")
    print(f"{'ours / fastest of river':36s} {best['ours'] / fastest:12.2f}")


def accuracy(yardsticks: Path) -> None:
    """Runs the scorers on their development parts."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    nab = ["nab_score.py", "--detector", "nab_adapter:factory", "--vector", "--files", "nab_dev.txt"]
    node = ["node_score.py", "", "--detector", "node_adapter:factory", "--only", "node_dev.txt"]
    for command in (nab, [node[0], "smd", *node[2:]], [node[0], "nezha", *node[2:]]):
        arguments = [str(yardsticks / part) if part.endswith((".py", ".txt")) else part for part in command]
        print("$", *command)
        subprocess.run([sys.executable, *arguments], check=True, cwd=HERE, env=environment)


def main() -> None:
    """Prints everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yardsticks", type=Path, default=HERE.parent.parent / "shared" / "bench")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    speed(arguments.rounds)
    if (arguments.yardsticks / "nab_score.py").exists():
        accuracy(arguments.yardsticks.resolve())
    else:
        print(f"no yardsticks at {arguments.yardsticks}: accuracy left out")


if __name__ == "__main__":
    main()
