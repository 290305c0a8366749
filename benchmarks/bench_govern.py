"""What does governing cost: one tick (assess and decide), a day of it, and the memory that it takes over time?

A tick is what `iace govern` does between an observation and the actions: the assessor, with gravity field, cross-check,
detector and HARU, and the governor's step. It is timed as CPU seconds of one thread on healthy-looking signals, and
beside it bare numpy: eight passes over the nodes with a sine and a cosine each, for a sense of scale. The day is lived
by the embedded cluster of 1000 nodes with a byzantine node every hour, journaled to a real file; without arguments a
part of it is lived and the rest extrapolated. Memory is what metrics, state and controller hold.

    python benchmarks/bench_govern.py [--nodes 1000 10000 1000000] [--rounds 15] [--day-ticks 1500] [--day-nodes 1000]
    python benchmarks/bench_govern.py --month [30] [--month-nodes 50]    # a month of the daemon, see bench_month.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_gravity import observation_of
from bench_scoreboard import Ours, Plant
from sweep import Case

from metrics.observation import Observation
from state.journal import Journal

GOALS_S = {10_000: 0.010, 1_000_000: 1.0}
DAY_TICKS, DAY_GOAL_S = 86_400, 600.0
FAULT_EVERY_TICKS, FAULT_TICKS = 3600, 600
BARE_PASSES = 8
WARM_UP_TICKS = 25  # until every node is trusted
MEMORY_TICKS = 3000
FLAT_KIB = 64.0  # growth in the second half of the stretch that counts as none
ROOT = Path(__file__).resolve().parents[1]
GOVERNING = ("metrics", "state", "controller")


def ticks_of(nodes: int, count: int) -> list[Observation]:
    """So many healthy-looking ticks, each with phases of its own."""
    first, rng = observation_of(nodes), np.random.default_rng(2)
    if first.signals is None:
        raise ValueError("the benchmark needs nodes")
    noises = rng.normal(0.0, 0.05, (4, nodes))
    kpis = {"coherence": 0.96, "gas": 0.97, "action_cost": 0.02, "rsi": 0.95, "delta_lambda": 0.0, "delta_entropy": 0.0}
    return [
        replace(
            first,
            tick=tick,
            plant_time_s=float(tick),
            kpis=kpis,
            signals=replace(first.signals, phase=first.signals.phase + noises[tick % 4]),
        )
        for tick in range(1, count + 1)
    ]


def bare_s(observation: Observation) -> float:
    """CPU seconds of the bare passes, the best of five."""
    signals = observation.signals
    if signals is None:
        raise ValueError("the benchmark needs nodes")
    into, other = np.empty((2, len(signals.phase)))
    best = np.inf
    for _ in range(5):
        began = time.thread_time()
        for _ in range(BARE_PASSES):
            np.cos(signals.phase, out=into)
            np.sin(signals.phase, out=other)
            np.multiply(into, other, out=into)
        best = min(best, time.thread_time() - began)
    return best


def tick_s(nodes: int, rounds: int) -> tuple[float, float]:
    """CPU seconds of a tick, median and worst of `rounds`."""
    ours, plant = Ours(), Plant(Case("healthy", 5, 0, 0))
    spent = []
    for observation in ticks_of(nodes, WARM_UP_TICKS + rounds):
        began = time.thread_time()
        ours.tick(observation, plant)
        spent.append(time.thread_time() - began)
    steady = spent[WARM_UP_TICKS:]
    return float(np.median(steady)), max(steady)


def show_ticks(nodes: int, rounds: int) -> bool:
    """Print what a tick costs; whether the goal is met, where there is one."""
    median, worst = tick_s(nodes, rounds)
    ratio = median / bare_s(observation_of(nodes))
    goal = GOALS_S.get(nodes)
    verdict = "" if goal is None else f", goal {goal * 1e3:.0f} ms {'met' if median < goal else 'MISSED'}"
    cost = f"{median * 1e3:8.2f} ms CPU (worst {worst * 1e3:.2f})"
    print(f"a tick at {nodes:8,d} nodes: {cost}, {ratio:.1f} × bare{verdict}")
    sys.stdout.flush()
    return goal is None or median < goal


def show_day(nodes: int, ticks: int) -> bool:
    """Print what a day costs, in CPU seconds of one thread; whether the goal is met."""
    plant, ours = Plant(Case("healthy", nodes, 1, ticks)), Ours()
    spent = {"plant": 0.0, "assess and decide": 0.0, "journal": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.db")
        for tick in range(1, ticks + 1):
            if tick % FAULT_EVERY_TICKS == FAULT_EVERY_TICKS // 6:
                fault = {"id": f"hour-{tick}", "kind": "byzantine", "count": 1, "duration_ticks": FAULT_TICKS}
                plant.embedded.inject(fault, key=f"hour-{tick}", epoch=1)
            clock = [time.thread_time()]
            observation = plant.live()
            clock.append(time.thread_time())
            events = ours.tick(observation, plant)
            clock.append(time.thread_time())
            journal.append(events, epoch=1, wall_time="2030-01-01T00:00:00Z")
            clock.append(time.thread_time())
            for name, share in zip(spent, np.diff(clock), strict=True):
                spent[name] += float(share)
        written = journal.tip.seq
        journal.close()
    day_s = sum(spent.values()) * DAY_TICKS / ticks
    parts = ", ".join(f"{name} {share / ticks * 1e3:.2f} ms" for name, share in spent.items())
    print(
        f"a day at {nodes:,d} nodes: {day_s:.0f} s CPU, from {ticks:,d} ticks ({parts}; {written} events), "
        f"goal {DAY_GOAL_S:.0f} s {'met' if day_s < DAY_GOAL_S else 'MISSED'}"
    )
    sys.stdout.flush()
    return day_s < DAY_GOAL_S


def show_memory(nodes: int, ticks: int) -> bool:
    """Print how what the governing packages hold grows over the second half of a stretch; whether it is flat."""
    plant, ours = Plant(Case("healthy", nodes, 1, ticks)), Ours()
    governing = [tracemalloc.Filter(inclusive=True, filename_pattern=str(ROOT / name / "*")) for name in GOVERNING]
    held = []
    tracemalloc.start()
    for tick in range(1, ticks + 1):
        ours.tick(plant.live(), plant)
        if tick in (ticks // 2, ticks):
            traces = tracemalloc.take_snapshot().filter_traces(governing).traces
            held.append(sum(trace.size for trace in traces) / 1024)
    tracemalloc.stop()
    flat = held[1] - held[0] < FLAT_KIB
    print(
        f"held by the governing packages at {nodes} nodes after {ticks // 2:,d} and {ticks:,d} ticks: "
        f"{held[0]:.0f} and {held[1]:.0f} KiB, {'flat' if flat else 'GROWING'}"
    )
    return flat


def main() -> int:
    """Print ticks, a day and memory; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50, 1000, 10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--day-nodes", type=int, default=1000)
    parser.add_argument("--day-ticks", type=int, default=1500)
    parser.add_argument(
        "--month", type=int, nargs="?", const=30, metavar="DAYS", help="live so many days, nothing else"
    )
    parser.add_argument("--month-nodes", type=int, default=50)
    chosen = parser.parse_args()
    if chosen.month:
        from bench_month import show_month  # noqa: PLC0415 - the whole daemon, only where it is asked for

        return 0 if show_month(chosen.month_nodes, chosen.month) else 1
    met = [show_ticks(nodes, chosen.rounds) for nodes in chosen.nodes]
    met.append(show_day(chosen.day_nodes, chosen.day_ticks))
    met.append(show_memory(50, MEMORY_TICKS))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
