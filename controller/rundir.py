"""Where runs leave their journals and telemetry: `<data-dir>/runs/<n>/`, one directory a run, never reused.

A finished journal is never continued. A run that did not finish may have left actions in flight or probes at the plant;
`unfinished` finds it, so that the next run can clear up before it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metrics.errors import BadDataError
from state.durable import DurableState, replay
from state.event import EventKind
from state.journal import Journal, permission_or_store
from state.machine import PhaseMachine

JOURNAL = "journal.db"
TELEMETRY = "telemetry.db"
CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that did not end, and the durable state that it left."""

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


def journal_path(data_dir: Path, number: int | None) -> Path:
    """The journal of run `number`, or of the latest run.

    Raises:
        BadDataError: there is no such run.
    """
    known = numbers(data_dir)
    if number is None and known:
        number = known[-1]
    if number is None or number not in known:
        there = f"runs there: {known[0]} to {known[-1]}" if known else "there is none yet: start one with iace run"
        raise BadDataError(f"no run {'' if number is None else number} under {data_dir / 'runs'} ({there})")
    return directory(data_dir, number) / JOURNAL


def make(data_dir: Path) -> tuple[int, Path]:
    """A new run's number and directory."""
    number = max(numbers(data_dir), default=0) + 1
    path = directory(data_dir, number)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise permission_or_store(error, path) from error
    return number, path


def unfinished(data_dir: Path) -> Unfinished | None:
    """The latest run, if it did not end and nobody has cleared up after it.

    Raises:
        BadDataError: its journal is damaged; the message names the event.
    """
    known = numbers(data_dir)
    if not known or not (directory(data_dir, known[-1]) / JOURNAL).exists():
        return None
    journal = Journal(directory(data_dir, known[-1]) / JOURNAL)
    try:
        events = [entry.event for entry in journal.entries()]
        if not events or events[-1].kind is EventKind.RUN_ENDED or journal.noted(CLEARED):
            return None
        state = replay(DurableState(PhaseMachine(daemon=False)), events)
        return Unfinished(known[-1], state, journal.noted("run_name") or "", str(events[0].data.get("plant", "")))
    finally:
        journal.close()


def mark_cleared(data_dir: Path, number: int) -> None:
    """Note that nothing of run `number` is left at the plant."""
    journal = Journal(directory(data_dir, number) / JOURNAL)
    try:
        journal.note(CLEARED, "yes")
    finally:
        journal.close()


def require_journal(path: Path) -> Journal:
    """A journal opened for reading.

    Raises:
        BadDataError: there is none, or it is damaged.
    """
    if not path.exists():
        raise BadDataError(f"no journal at {path}")
    return Journal(path, read_only=True)
