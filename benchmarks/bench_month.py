"""Does a daemon that is left alone grow? Thirty days of `iace govern`, with what its process occupies day by day.

The real daemon lives them, with everything that it has but its HTTP server and its clock: the phases, the loop, its
journal upon SQLite with snapshots and retention, its telemetry's store with roll-ups and retention, its record, its
explanations and its reports. The plant is the reference cluster with ticks of a minute, since a month of seconds would
take hours; every four hours a node falls ill for an hour, so that there is something to journal.

What would take longer than a month to come round does so within days: a snapshot is taken every `SNAPSHOT_EVENTS`
events instead of every 10,000, and the reference cluster remembers the keys of 300 writes instead of 10,000, at some 70
a day. And it moves headers to their file three times a day instead of every 1,024 ticks: what is looked at once a day
would rise and fall with the beat of the two.

Counted is what the process occupies (RSS), the plant in it included. The first days, in which rings and caches fill,
are not counted as growth.

    python benchmarks/bench_govern.py --month [DAYS] [--month-nodes 50]
"""

from __future__ import annotations

import gc
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from governed import governing

import qecs.block_log
import qecs.cluster
import qecs.fencing
import qecs.host
from controller import daemon as daemon_module
from controller.daemon import Daemon
from qecs.faults import Fault

TICK_S = 60.0
DAY_TICKS = int(86_400 / TICK_S)
SNAPSHOT_EVENTS = 300
KEYS_MAX = 300
BLOCKS_MOVED = DAY_TICKS // 3
FAULT_EVERY_TICKS, FAULT_TICKS = DAY_TICKS // 6, 60
FAULTS = ("byzantine", "silent", "slow", "detuned", "flapping", "stealth")
FLUSH_TICKS, REPORT_TICKS = 10, DAY_TICKS  # less often than the daemon's, which goes by the clock
FILLING_DAYS = 15  # until the record holds as many events as it keeps, at some 300 a day
GROWTH_KIB_A_DAY = 64.0  # below which a month adds less than 2 MiB


@dataclass(frozen=True, slots=True)
class Day:
    """What there is at the end of a day: KiB of the process; events so far; events that the journal still holds."""

    held_kib: float
    events: int
    kept: int


def rss_kib() -> float:
    """What this process occupies now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 1024


def month(nodes: int, days: int, reports: Path) -> list[Day]:
    """Live so many days, with the daily report in `reports`; what there was at the end of each."""
    # The constants of the modules, because nobody but this benchmark has reason to change them.
    for module in (qecs.cluster, qecs.host):
        vars(module)["TICK_S"] = TICK_S
    daemon_module.SNAPSHOT_EVENTS = SNAPSHOT_EVENTS
    vars(qecs.fencing)["KEYS_MAX"] = KEYS_MAX
    vars(qecs.block_log)["MOVED"] = BLOCKS_MOVED

    found = []
    with governing({"plant": {"nodes": nodes, "seed": 1}}, passed=False) as (daemon, journal):
        for day in range(1, days + 1):
            began = time.process_time()
            for tick in range((day - 1) * DAY_TICKS + 1, day * DAY_TICKS + 1):
                _live_tick(daemon, tick, nodes)
                if tick % REPORT_TICKS == 0:
                    daemon.write_report(reports)
                if daemon.error is not None:
                    raise daemon.error
            kept = sum(1 for _ in journal.entries())
            found.append(Day(rss_kib(), journal.tip.seq, kept))
            print(
                f"day {day:3d}: {found[-1].held_kib:,.0f} KiB, {found[-1].events:,d} events, {kept:,d} of them kept, "
                f"{daemon.state()['phase']}, {(time.process_time() - began) / DAY_TICKS * 1e3:.2f} ms CPU a tick"
            )
            sys.stdout.flush()
    return found


def show_month(nodes: int, days: int) -> bool:
    """Print a month and what it adds a day after the first ones; whether that is next to nothing."""
    with tempfile.TemporaryDirectory() as folder:
        found = month(nodes, days, Path(folder))
    held = [day.held_kib for day in found[min(FILLING_DAYS, len(found) // 2) :]]
    growth = float(np.polyfit(np.arange(len(held)), held, 1)[0])
    flat = growth < GROWTH_KIB_A_DAY
    print(
        f"{days} days at {nodes} nodes: from {held[0]:,.0f} to {held[-1]:,.0f} KiB after the first days, "
        f"{growth:+.1f} KiB a day, {'flat' if flat else 'GROWING'}"
    )
    return flat


def _live_tick(daemon: Daemon, tick: int, nodes: int) -> None:
    """One tick, and the jobs whose turn it is."""
    host = daemon.embedded_host
    if tick % FAULT_EVERY_TICKS == 0 and isinstance(host, qecs.host.ClusterHost):
        turn = tick // FAULT_EVERY_TICKS
        fault = {
            "id": f"fault-{turn}",
            "kind": FAULTS[turn % len(FAULTS)],
            "nodes": [host.cluster.node_ids[7 * turn % nodes]],
            "duration_ticks": FAULT_TICKS,
        }
        host.cluster.inject(Fault.from_dict(fault))
    daemon.tick()
    daemon.keep_house()
    if tick % FLUSH_TICKS == 0:
        daemon.flush()
