"""Where runs leave their journals and telemetry: `<data-dir>/runs/<n>/`, one directory a run, never reused.

A finished journal is never continued. A run may leave actions in flight, faults or a trial at its plant: because it
died, or because it was stopped and so left the plant as it was. The file "open" stands in its directory until nothing
of it is left, so that a later run on that plant can clear up before it begins.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from controller.places import DATA_DIR
from metrics.errors import BadDataError
from state.durable import DurableState, NodeStatus, replay
from state.journal import Journal, permission_or_store
from state.machine import PhaseMachine

JOURNAL = "journal.db"
TELEMETRY = "telemetry.db"
PROPOSALS = "proposals"
OPEN = "open"
DAEMON = "govern"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A run that may have left something at its plant, and the durable state in which it stopped."""

    number: int
    state: DurableState
    run_name: str
    plant: str


def numbers(data_dir: Path) -> list[int]:
    """The numbers of all runs in the data directory, ascending."""
    try:
        names = [entry.name for entry in (data_dir / "runs").iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise permission_or_store(error, data_dir) from error
    return sorted(int(name) for name in names if name.isdecimal())


def directory(data_dir: Path, number: int) -> Path:
    """The directory of run `number`."""
    return data_dir / "runs" / str(number)


def journal_path(data_dir: Path, number: int | str | None) -> Path:
    """The journal of run `number`, of the daemon (`DAEMON`), or of the latest run, and the daemon's if there is none.

    Raises:
        BadDataError: there is no such run.
    """
    known = numbers(data_dir)
    daemon = data_dir / DAEMON / JOURNAL
    if number == DAEMON or (number is None and not known and daemon.exists()):
        return daemon
    if number is None and known:
        number = known[-1]
    if number is None or number not in known:
        there = f"runs there: {known[0]} to {known[-1]}" if known else "there is none yet: start one with iace run"
        named = "no run" if number is None else f"no run {number}"
        raise BadDataError(f"{named} under {data_dir / 'runs'} ({there})")
    return directory(data_dir, int(number)) / JOURNAL


def options(data_dir: Path, number: int | str | None) -> str:
    """What a command is to be given so that it reads this journal, ready for a shell; no data directory for `.iace`."""
    run = () if number is None else ("--run", str(number))
    where = () if data_dir == DATA_DIR else ("--data-dir", str(data_dir))
    return shlex.join((*run, *where))


def make(data_dir: Path) -> tuple[int, Path]:
    """A new run's number and directory; it counts as open until it is settled."""
    number = max(numbers(data_dir), default=0) + 1
    path = directory(data_dir, number)
    try:
        path.mkdir(parents=True)
        (path / OPEN).touch()
    except OSError as error:
        raise permission_or_store(error, path) from error
    return number, path


def leftovers(data_dir: Path) -> list[Leftover]:
    """The runs that may have left something at their plants, the latest first; those that left nothing are settled.

    Raises:
        BadDataError: the journal of one is damaged; the message names the event.
    """
    found = [
        _leftover(data_dir, number) for number in numbers(data_dir) if (directory(data_dir, number) / OPEN).exists()
    ]
    return [left for left in reversed(found) if left is not None]


def settle(data_dir: Path, number: int) -> None:
    """Nothing of run `number` is left at its plant."""
    path = directory(data_dir, number) / OPEN
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise permission_or_store(error, path) from error


def leaves_nothing(state: DurableState) -> bool:
    """Whether there is nothing to undo after `state`, and no isolation that a report has not named."""
    unnamed = not state.phase.final and any(r.status is NodeStatus.ISOLATED for r in state.nodes.values())
    return not (state.probes or state.intents or state.trial or unnamed)


def _leftover(data_dir: Path, number: int) -> Leftover | None:
    path = directory(data_dir, number) / JOURNAL
    if not path.exists():
        settle(data_dir, number)
        return None
    journal = Journal(path)
    try:
        events = [entry.event for entry in journal.entries()]
        name = journal.noted("run_name") or ""
    finally:
        journal.close()
    state = replay(DurableState(PhaseMachine(daemon=False)), events)
    started = events[0].data if events else {}
    if leaves_nothing(state) or not started.get("real_time"):
        settle(data_dir, number)  # also where a virtual plant died with its run
        return None
    return Leftover(number, state, name, str(started.get("plant", "")))
