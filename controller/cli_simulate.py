"""`iace simulate`: the real controller against a world of faults, in virtual time; see docs/simulation.md."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.simulation.campaign import Tally
    from controller.simulation.runner import Violation
    from controller.simulation.schedule import Schedule

FINDING = 1  # exit code: something did not hold
HOURS = 240.0
FULL_HOURS = 4.0
NODES_MIN, NODES_MAX = 4, 64
FULL_NODES_MIN = 5


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    simulate = commands.add_parser(
        "simulate",
        help="the real controller against a world of faults, in virtual time",
        description="Simulates plants, networks, disks and people that fail, from a seed, with the real controller at "
        "work, and checks after every step what must hold. A violation is shrunk to the faults that matter, and the "
        "exit code is 1. See docs/simulation.md.",
        epilog="examples:\n  iace simulate\n  iace simulate --hours 10000 --seed 7\n"
        "  iace simulate --full --hours 4\n  iace simulate --schedule found/budgets_hold-7.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    simulate.add_argument(
        "--hours", type=float, metavar="H", help=f"simulated hours ({HOURS:g}; {FULL_HOURS:g} --full)"
    )
    simulate.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the first life; the next ones follow (1)"
    )
    simulate.add_argument("--nodes", type=int, metavar="N", help=f"{NODES_MIN} to {NODES_MAX} (drawn for each life)")
    simulate.add_argument("--full", action="store_true", help="against the full plant, tick by tick of 1 s")
    simulate.add_argument("--save", type=Path, metavar="DIR", help="write the schedule of a violation there")
    simulate.add_argument("--schedule", type=Path, metavar="FILE", help="live this schedule again")
    simulate.add_argument("--format", choices=("text", "json"), default="text")
    simulate.set_defaults(command=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from controller.progress import Bar  # noqa: PLC0415 - only what the command needs is imported
    from controller.simulation.campaign import LEAST_HOURS, schedules, simulate  # noqa: PLC0415 - as above
    from controller.simulation.schedule import FULL, LIGHT, load  # noqa: PLC0415 - as above
    from state.outcome import ExitCode  # noqa: PLC0415 - as above

    logging.getLogger("iace").addHandler(logging.NullHandler())  # what the simulated controller says is not for us
    world = FULL if options.full else LIGHT
    hours = options.hours if options.hours is not None else (FULL_HOURS if options.full else HOURS)
    low = FULL_NODES_MIN if options.full else NODES_MIN
    least = LEAST_HOURS[world]
    if not (math.isfinite(hours) and hours >= least):
        why = "half of it is calm, in which all has to come to rest"
        return _misused(f"--hours must be at least {least:g}, not {hours:g}: {why}", ExitCode.USAGE)
    if options.seed < 0:
        return _misused(f"--seed must be 0 or more, not {options.seed}", ExitCode.USAGE)
    if options.nodes is not None and not low <= options.nodes <= NODES_MAX:
        return _misused(f"--nodes must be {low} to {NODES_MAX}, not {options.nodes}", ExitCode.USAGE)
    if options.schedule is not None:
        wanted = [load(options.schedule)]
        hours = wanted[0].hours
    else:
        wanted = list(schedules(options.seed, hours, options.nodes, world))
    with Bar(sys.stderr, math.ceil(hours)) as bar:
        tally = simulate(wanted, told=lambda done: bar.update(int(done)))
    minimal = None if tally.violation is None else _shrunk(tally, options.save, shrunk=options.schedule is not None)
    sys.stdout.write(_json(tally, minimal) if options.format == "json" else _text(tally, minimal))
    return 0 if minimal is None else FINDING


def _misused(text: str, code: int) -> int:
    sys.stderr.write(f"iace simulate: {text}\n")
    return int(code)


def _shrunk(tally: Tally, directory: Path | None, *, shrunk: bool) -> Schedule | None:
    """The minimal schedule of the violation, saved where that was asked for."""
    from controller.simulation.shrink import shrink  # noqa: PLC0415 - as above

    if tally.violation is None:
        return None
    schedule, violation = tally.violation
    if not shrunk:
        sys.stderr.write(f"{violation}; looking for the faults that matter among {len(schedule.faults)} ...\n")
        _save(schedule, violation, directory)  # whoever has no time for the search has at least the whole of it
        schedule = shrink(schedule, violation, told=_left)
    _save(schedule, violation, directory)
    return schedule


def _left(faults: int) -> None:
    sys.stderr.write(f"  {faults} faults left\n")


def _save(schedule: Schedule, violation: Violation, directory: Path | None) -> None:
    from controller.files import write_atomically  # noqa: PLC0415 - as above
    from state.journal import permission_or_store  # noqa: PLC0415 - as above

    if directory is None:
        return
    path = directory / f"{violation.invariant}-{schedule.seed}.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(path, schedule.to_json().encode())
    except OSError as error:
        raise permission_or_store(error, directory) from error
    sys.stderr.write(f"written to {path}\n")


def _text(tally: Tally, minimal: Schedule | None) -> str:
    faults = ", ".join(f"{name} {count}" for name, count in sorted(tally.faults.items())) or "none"
    lines = [
        f"simulated: {tally.hours:.1f} h in {tally.lives} lives, {tally.events} events",
        f"effects: {tally.effects}",
        f"faults: {faults}",
    ]
    if tally.violation is None or minimal is None:
        return "\n".join([*lines, "everything held", ""])
    _, violation = tally.violation
    lines += [
        f"VIOLATED with seed {minimal.seed}, {minimal.nodes} nodes: {violation}",
        f"minimal schedule ({len(minimal.faults)} faults):",
        *(f"  {fault.at_s:10.1f} s  {fault.kind} for {fault.for_s:g} s {dict(fault.args)}" for fault in minimal.faults),
    ]
    return "\n".join([*lines, ""])


def _json(tally: Tally, minimal: Schedule | None) -> str:
    from dataclasses import asdict  # noqa: PLC0415 - as above

    from controller.files import json_bytes, jsonable  # noqa: PLC0415 - as above

    document = {
        "schema_version": 1,
        "hours": tally.hours,
        "lives": tally.lives,
        "events": tally.events,
        "effects": tally.effects,
        "faults": dict(sorted(tally.faults.items())),
        "violation": None if tally.violation is None else asdict(tally.violation[1]),
        "schedule": None if minimal is None else asdict(minimal),
    }
    return json_bytes({name: jsonable(part) for name, part in document.items()}).decode()
