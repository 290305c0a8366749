"""A daemon without clock and servers: a benchmark calls its ticks; everything else is as in `iace govern`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from controller import config as configuration
from controller.console import RunConsole
from controller.daemon import Daemon
from controller.settings import Config
from state.event import Event, EventKind
from state.journal import Journal
from state.lease import DirectoryLease
from state.outcome import ExitCode
from state.phase import Phase
from state.recovery import recover


@contextlib.contextmanager
def governing(values: Mapping[str, Mapping[str, object]], *, passed: bool) -> Iterator[tuple[Daemon, Journal]]:
    """A daemon under this configuration in a directory of its own, and its journal.

    Args:
        values: the configuration, by section, where it is not the default.
        passed: phases I to III count as passed.
    """

    def load() -> Config:
        return configuration.load(None, values, {})

    config = load()
    with tempfile.TemporaryDirectory() as name, DirectoryLease(Path(name)) as lease:
        directory = Path(name) / "govern"
        journal = Journal(directory / "journal.db")
        if passed:
            phases = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III)
            ended = [Event(EventKind.PHASE_PASSED, 0.0, {"phase": phase, "checks": {}}) for phase in phases]
            events = [Event(EventKind.RUN_STARTED, 0.0, {"epoch": 1}), *ended]
            journal.append(events, epoch=1, wall_time="2030-01-01T00:00:00Z")
        daemon = Daemon(
            config,
            load,
            data_dir=Path(name),
            lease=lease,
            directory=directory,
            journal=journal,
            recovered=recover(journal, daemon=True),
            console=RunConsole(config.catalogue()),
            dry_run=False,
        )
        try:
            yield daemon, journal
        finally:
            daemon.stop(ExitCode.TERMINATED, "measured")
            journal.close()
