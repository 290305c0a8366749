"""How fast do points become lines, and lines reach a server, beside influxdb-client's own way?

Run: `python benchmarks/bench_influx.py`. Prints points/s of the encoder and of influxdb-client's `Point` for the same
points, interleaved in the same run, with their ratio; then points/s of the whole path: what fills the spool while
nothing is sent, what then leaves it for a real VictoriaMetrics in batches of preformatted lines, each batch
acknowledged, and how long the loop's thread was held for each tick. Without VictoriaMetrics (Debian package
victoria-metrics) the second half is left out, and said so.
"""

from __future__ import annotations

import gc
import random
import runpy
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from influxdb_client.client.write.point import Point as ClientPoint

from metrics.store.dead_letter import DeadLetter
from metrics.store.influx_client import InfluxClient, InfluxTarget
from metrics.store.influx_lines import LineWriter
from metrics.store.line_protocol import Encoder
from metrics.store.outbox import Outbox, Pace
from metrics.store.protocol import Point
from metrics.store.spool import Spool

NODES, TICKS, ROUNDS = 1000, 1000, 7
T0_NS, TICK_NS = 1_700_000_000 * 10**9, 10**9
RATIO_GOAL, RATE_GOAL = 5.0, 200_000.0
SERVERS = Path(__file__).resolve().parent.parent / "tests" / "real_servers.py"


def cluster_of(node: str) -> str:
    """Clusters of a hundred nodes."""
    return f"c{int(node[1:]) // 100}"


def tick_points(tick: int, rng: random.Random) -> list[Point]:
    """The gravity of each node in one tick."""
    return [Point(f"node.n{i:04}.gravity", T0_NS + tick * TICK_NS, rng.gauss(0.7, 0.3)) for i in range(NODES)]


def taken_apart(point: Point) -> tuple[dict[str, str], dict[str, float], int]:
    """Tags, fields and time of a point, as both the client and our encoder are given them."""
    node = point.series.split(".")[1]
    return {"plant": "bench", "cluster": cluster_of(node), "node": node}, {"gravity": point.value}, point.at_ns


def by_client(points: Sequence[tuple[dict[str, str], dict[str, float], int]]) -> list[str]:
    """Lines by influxdb-client."""
    lines = []
    for tags, fields, at_ns in points:
        point: Any = ClientPoint("iace_node")  # type: ignore[no-untyped-call] # the client has few types
        for name, text in tags.items():
            point.tag(name, text)
        for name, value in fields.items():
            point.field(name, value)
        lines.append(point.time(at_ns).to_line_protocol())
    return lines


def taken_s(run: Callable[[], object]) -> float:
    """Processor time of this process, seconds, without garbage collection: other processes do not count."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        run()
        return time.process_time() - start
    finally:
        gc.enable()


def encoding() -> float:
    """Prints the rates of all three ways; the ratio of what the store uses to the client."""
    points = [point for tick in range(20) for point in tick_points(tick, random.Random(tick))]  # noqa: S311 - data
    apart = [taken_apart(point) for point in points]
    line, writer = Encoder().line, LineWriter("bench", "r", cluster_of)
    ways: dict[str, Callable[[], list[Any]]] = {
        "influxdb-client Point": lambda: by_client(apart),
        "encoder, tags and fields given": lambda: [line("iace_node", *rest) for rest in apart],
        "encoder, series known (what the store uses)": lambda: writer.points(points).lines,
    }
    assert len({tuple(run()) for run in ways.values()}) == 1  # noqa: S101 - all three do the same work
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, run in ways.items():
            best[name] = min(best[name], taken_s(run))
    client = best["influxdb-client Point"]
    for name, seconds in best.items():
        print(f"{name:<45} {len(points) / seconds:>12,.0f} points/s {client / seconds:>6.1f} x")
    return client / best["encoder, series known (what the store uses)"]


def path(directory: Path) -> float | None:
    """Prints the rates of the stages; points/s from the spool into VictoriaMetrics, None where it is not installed."""
    servers = runpy.run_path(str(SERVERS))
    if missing := servers["missing"]("victoria-metrics"):
        print(f"left out: the way to VictoriaMetrics, for want of the Debian package {missing}")
        return None
    rng = random.Random(0)  # noqa: S311 - data
    writer = LineWriter("bench", "r", cluster_of)
    ticks = [writer.points(tick_points(tick, rng)).lines for tick in range(TICKS)]
    total = NODES * TICKS
    with servers["VictoriaMetrics"](directory / "victoria") as server:
        client = InfluxClient(InfluxTarget(server.url, "bench", timeout_s=60.0))
        away = InfluxClient(InfluxTarget("http://127.0.0.1:9", "bench"))
        spool = directory / "spool"
        letter = DeadLetter(directory / "refused.jsonl", 10**6)

        outbox = Outbox(Spool(spool, 2**30), away.send, letter, Pace(memory_points_max=total))
        held_s = 0.0
        start = time.perf_counter()
        for lines in ticks:
            before = time.perf_counter()
            outbox.put(lines)
            held_s = max(held_s, time.perf_counter() - before)
        outbox.close(60.0)
        print(f"memory to spool, synced            {total / (time.perf_counter() - start):>12,.0f} points/s")
        print(f"longest hold of the loop by a put  {held_s * 1e3:>12.2f} ms for {NODES} points")

        start = time.perf_counter()
        outbox = Outbox(Spool(spool, 2**30), client.send, letter)
        opened = time.perf_counter()
        while (accounts := outbox.accounts()).buffered:
            time.sleep(0.005)
        rate = total / (time.perf_counter() - opened)
        print(f"spool opened and checked           {total / (opened - start):>12,.0f} points/s")
        print(f"spool to VictoriaMetrics           {rate:>12,.0f} points/s   ({accounts})")
        server.flush()
        stored = server.counter("vm_rows_inserted_total")
        print(f"VictoriaMetrics counted {stored:,} rows, {server.counter('vm_rows_invalid_total')} invalid")

        start = time.perf_counter()
        for tick in range(TICKS, 2 * TICKS):
            outbox.put(writer.points(tick_points(tick, rng)).lines)
        while outbox.accounts().buffered:
            time.sleep(0.005)
        rest = outbox.accounts()
        print(f"points made, encoded, spooled, sent{total / (time.perf_counter() - start):>12,.0f} points/s   ({rest})")
        outbox.close()
        client.close()
        away.close()
    return rate


def main() -> None:
    """Measures and prints."""
    ratio = encoding()
    print(f"goal: >= {RATIO_GOAL:g} x: {'reached' if ratio >= RATIO_GOAL else 'MISSED'}\n")
    with tempfile.TemporaryDirectory() as directory:
        rate = path(Path(directory))
    if rate is not None:
        reached = "reached" if rate >= RATE_GOAL else "MISSED"
        print(f"goal: >= {RATE_GOAL:,.0f} points/s from the spool to VictoriaMetrics: {reached}")


if __name__ == "__main__":
    main()
