"""Does a daemon that is left alone grow? Thirty days of `iace govern`, with what its process occupies day by day.

The real daemon lives them, with everything that it has but its HTTP server and its clock: the phases, the loop, its
journal upon SQLite with snapshots and retention, its telemetry's store with roll-ups and retention, its record, its
explanations and its reports. The plant is the reference cluster with ticks of a minute, since a month of seconds would
take hours; every four hours a node falls ill for an hour, so that there is something to journal. A snapshot is taken
every `SNAPSHOT_EVENTS` events instead of every 10,000, so that retention has its turn as well.

Counted is what the process occupies (RSS) less what the cluster's ledger holds, which is the plant's: it keeps every
header, at some hundred bytes a tick that are measured and printed. The first days, in which rings and caches fill, are
not counted as growth.

    python benchmarks/bench_govern.py --month [DAYS] [--month-nodes 50]
"""

from __future__ import annotations

import gc
import resource
import sys
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import qecs.cluster
import qecs.host
from controller import config as configuration
from controller import daemon as daemon_module
from controller.console import RunConsole
from controller.daemon import Daemon
from controller.settings import Config
from qecs.cluster import Cluster
from qecs.faults import Fault
from state.journal import Journal
from state.lease import DirectoryLease
from state.recovery import recover

TICK_S = 60.0
DAY_TICKS = int(86_400 / TICK_S)
SNAPSHOT_EVENTS = 300
FAULT_EVERY_TICKS, FAULT_TICKS = DAY_TICKS // 6, 60
FAULTS = ("byzantine", "silent", "slow", "detuned", "flapping", "stealth")
FLUSH_TICKS, REPORT_TICKS = 10, DAY_TICKS  # less often than the daemon's, which goes by the clock
FILLING_DAYS = 15  # until the record holds as many events as it keeps, at some 300 a day
GROWTH_KIB_A_DAY = 64.0  # below which a month adds less than 2 MiB
LEDGER_SAMPLE = 4000


@dataclass(frozen=True, slots=True)
class Day:
    """What there is at the end of a day: KiB, less the ledger's; events so far; events that the journal still holds."""

    held_kib: float
    events: int
    kept: int


def rss_kib() -> float:
    """What this process occupies now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 1024


def header_bytes(nodes: int) -> float:
    """What the reference cluster's ledger keeps of each tick for good."""
    cluster = Cluster(nodes, bodies_max=1)
    for _ in range(200):
        cluster.step()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(LEDGER_SAMPLE):
        cluster.step()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown / LEDGER_SAMPLE


def month(nodes: int, days: int, directory: Path) -> list[Day]:
    """Live so many days; what there was at the end of each."""
    each = header_bytes(nodes)
    print(f"the cluster's ledger keeps {each:.0f} bytes a tick: {each * 86_400 / 2**20:.0f} MiB a day of 1 s ticks")
    # The constants of the modules, because nobody but this benchmark has reason to change them.
    for module in (qecs.cluster, qecs.host):
        vars(module)["TICK_S"] = TICK_S
    daemon_module.SNAPSHOT_EVENTS = SNAPSHOT_EVENTS

    def load() -> Config:
        return configuration.load(None, {"plant": {"nodes": nodes, "seed": 1}})

    config = load()
    found = []
    with DirectoryLease(directory) as lease:
        journal = Journal(directory / "govern" / "journal.db")
        daemon = Daemon(
            config,
            load,
            data_dir=directory,
            lease=lease,
            directory=directory / "govern",
            journal=journal,
            recovered=recover(journal, daemon=True),
            console=RunConsole(config.catalogue()),
            dry_run=False,
        )
        for day in range(1, days + 1):
            began = time.process_time()
            for tick in range((day - 1) * DAY_TICKS + 1, day * DAY_TICKS + 1):
                _live_tick(daemon, tick, nodes)
                if tick % REPORT_TICKS == 0:
                    daemon.write_report(directory / "report")
                if daemon.error is not None:
                    raise daemon.error
            kept = sum(1 for _ in journal.entries())
            found.append(Day(rss_kib() - each * day * DAY_TICKS / 1024, journal.tip.seq, kept))
            print(
                f"day {day:3d}: {found[-1].held_kib:,.0f} KiB, {found[-1].events:,d} events, {kept:,d} of them kept, "
                f"{daemon.state()['phase']}, {(time.process_time() - began) / DAY_TICKS * 1e3:.2f} ms CPU a tick"
            )
            sys.stdout.flush()
        journal.close()
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
