"""Does a plant do what its proposals expect? Each gray-box proposal is approved, and its intervals are held against it.

A daemon without healing governs an embedded cluster; a drift begins; once KPIs are lastingly unhealthy and 60 ticks
later, the report's proposal is approved, and the mean after its trial has settled is compared with the mean before.

    python benchmarks/bench_proposals.py --seeds 6 --first-seed 9400
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from governed import governing

from controller.daemon import Daemon
from controller.estimates import PREDICTED
from state.command import DecideProposal

DRIFTS: tuple[Mapping[str, float], ...] = ({"omega": 0.15}, {"w0": 0.06})
TICKS_MAX = 300
BEFORE_TICKS = 30
LATER_TICKS = 60
SETTLE_TICKS = 20
AFTER_TICKS = (40, 60)
HEALING = {"enabled": False, "holdoff_s": 1.0, "suspect_s": 1.0}
Compared = dict[str, tuple[float, float, float]]


def main() -> None:
    """Print, for each seed and drift, the change of each KPI beside its interval, and how many were held."""
    parser = argparse.ArgumentParser(description="whether gray-box proposals keep their intervals")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=9400)
    parser.add_argument("--nodes", type=int, default=50)
    options = parser.parse_args()
    held: dict[str, list[bool]] = {name: [] for name in PREDICTED}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for drift in DRIFTS:
            values: dict[str, dict[str, object]] = {
                "plant": {"nodes": options.nodes, "seed": seed},
                "healing": HEALING,
                "isolation": {"confirm_ticks": 10_000},  # nodes are left alone: this is about parameters
            }
            with contextlib.redirect_stderr(io.StringIO()), governing(values, passed=True) as (daemon, _):
                found = _compare(daemon, drift)
            for name, (change, low, high) in (found or {}).items():
                held[name].append(low <= change <= high)
            told = {name: "{:+.4f} ({:+.4f} to {:+.4f})".format(*values) for name, values in (found or {}).items()}
            sys.stdout.write(f"{seed} {dict(drift)} {told or 'no proposal, or its trial was aborted'}\n")
    for name, outcomes in held.items():
        sys.stdout.write(f"{name}: {sum(outcomes)} of {len(outcomes)} within\n")


def _compare(daemon: Daemon, drift: Mapping[str, float]) -> Compared | None:
    """By KPI the change that was seen, and the interval that was expected; None where there is nothing to compare."""
    _ticks(daemon, BEFORE_TICKS)
    _inject(daemon.embedded_host, drift)
    for _ in range(TICKS_MAX):
        daemon.tick()
        if daemon.state()["unhealthy"]:
            break
    _ticks(daemon, LATER_TICKS)
    proposal = _proposed(daemon)
    if proposal is None:
        return None
    history = daemon._record.history.values  # noqa: SLF001 - the means are to be those of every tick
    before = {name: float(np.mean(history[name][-30:])) for name in PREDICTED}
    daemon.command(DecideProposal(str(proposal["id"]), approve=True), by="bench", reason="to see", key=None)
    for _ in range(TICKS_MAX):
        if _status(daemon, proposal) == "applied":
            break
        daemon.tick()
    _ticks(daemon, SETTLE_TICKS)
    after = 0
    while after < AFTER_TICKS[1] and _status(daemon, proposal) in ("applied", "verified"):
        daemon.tick()
        after += 1
    if after < AFTER_TICKS[0]:
        return None
    effects = proposal["expectation"]["effects"]
    return {
        name: (
            float(np.mean(history[name][-after:])) - before[name],
            effects[name]["low"] if effects[name] else math.nan,
            effects[name]["high"] if effects[name] else math.nan,
        )
        for name in PREDICTED
    }


def _inject(host: Any, drift: Mapping[str, float]) -> None:  # noqa: ANN401 - the embedded cluster's own host
    from qecs.faults import Fault  # noqa: PLC0415 - only here the bench is the plant's, not the controller's

    host.cluster.inject(Fault(id="drift", kind="drift", channels=dict(drift)))


def _ticks(daemon: Daemon, count: int) -> None:
    for _ in range(count):
        daemon.tick()


def _proposed(daemon: Daemon) -> Mapping[str, Any] | None:
    with tempfile.TemporaryDirectory() as reports:
        daemon.write_report(Path(reports))
    return next((item for item in daemon.proposals() if item.get("carried_out_by") == "trial"), None)


def _status(daemon: Daemon, proposal: Mapping[str, Any]) -> str:
    return next(str(item["status"]) for item in daemon.proposals() if item["id"] == proposal["id"])


if __name__ == "__main__":
    main()
