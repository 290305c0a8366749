"""How fast does the SQLite store take points, tidy up and answer?

    python benchmarks/bench_store.py [--rows 1000000] [--series 50]

Batches of 1,000 rows as the store writer makes them: 20 ticks of 50 series. Processor time is told beside the wall's,
which on a busy machine says more about the neighbours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from metrics.store.protocol import Aggregate, Point
from metrics.store.rollups import HOUR_NS, MINUTE_NS, NS_PER_S, Retention
from metrics.store.sqlite import SqliteStore

BATCH_TICKS = 20


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--series", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "telemetry.db")
        store = SqliteStore(path, Retention(3600.0, 86_400.0, 864_000.0))
        _measure(store, options.series, options.rows)
        store.check()
        print(f"{path.stat().st_size / 1e6:.0f} MB of file after {options.rows} rows, of which an hour is kept")
        store.close()


def _measure(store: SqliteStore, series: int, rows: int) -> None:
    batches = rows // (series * BATCH_TICKS)
    end_ns = batches * BATCH_TICKS * NS_PER_S
    write_s, write_cpu_s = [], []
    for batch in range(batches):
        times = [tick * NS_PER_S for tick in range(batch * BATCH_TICKS, (batch + 1) * BATCH_TICKS)]
        points = [
            Point(f"node.node-{k:04}.gravity", at_ns, 0.1 * k + at_ns * 1e-12) for at_ns in times for k in range(series)
        ]
        wall_s, cpu_s = _timed(lambda points=points: store.write(points))  # type: ignore[misc]  # bound at once
        write_s.append(wall_s)
        write_cpu_s.append(cpu_s)
    print(f"write: {rows / sum(write_s):,.0f} rows/s, {rows / sum(write_cpu_s):,.0f} rows/s of processor time")
    pieces = [min(end_ns, minute * MINUTE_NS) for minute in range(10, end_ns // MINUTE_NS + 10, 10)]
    tidy_s = [_timed(lambda now_ns=now_ns: store.tidy(now_ns))[0] for now_ns in pieces]  # type: ignore[misc]  # as above
    print(f"tidy: {rows / sum(tidy_s):,.0f} rows/s, at worst {1000 * max(tidy_s):.0f} ms for ten minutes")
    name, hours_ns = "node.node-0007.gravity", end_ns // HOUR_NS * HOUR_NS
    asked: dict[str, Callable[[], object]] = {
        "latest": lambda: store.latest(name),
        "an hour of samples": lambda: store.range(name, end_ns - HOUR_NS, end_ns),
        "all hours, mean by the hour": lambda: store.aggregate(name, 0, hours_ns, HOUR_NS, Aggregate.MEAN),
        "all hours, mean by the minute": lambda: store.aggregate(name, 0, hours_ns, MINUTE_NS, Aggregate.MEAN),
        "the same, unaligned": lambda: store.aggregate(name, 1, hours_ns + 1, MINUTE_NS, Aggregate.MEAN),
    }
    for what, ask in asked.items():
        print(f"{what}: {1000 * min(_timed(ask)[0] for _ in range(5)):.2f} ms")


def _timed(what: Callable[[], object]) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    what()
    return time.perf_counter() - wall_s, time.thread_time() - cpu_s


if __name__ == "__main__":
    main()
