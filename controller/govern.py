"""`iace govern`: the daemon's life, from the lease on its directory to its exit code.

Set up what outlives a stay at the plant (lease, journal, daemon, API), let the schedule call it, wait for a signal, and
stop in good order. SIGHUP reads the configuration again. Jobs that need the plant have deadlines, so leaving does not
take longer than one of them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controller import crash, rundir
from controller.config import DEFAULT_FILE
from controller.console import RunConsole
from controller.daemon import Daemon
from controller.port import TurnError
from controller.scheduler import Job, JobScheduler
from controller.settings import Config
from controller.signals import stopping
from metrics.errors import ConfigInvalidError
from state.journal import Journal
from state.lease import DirectoryLease
from state.outcome import ExitCode, code_of
from state.recovery import recover

if TYPE_CHECKING:
    from controller.api.server import ApiServer

WAKE_S = 0.2
LEASE_S = 5.0
LAST_SCRAPE_S = 4.0  # what ended the daemon can be scraped for so long, so that its alert names the cause


@dataclass(frozen=True, slots=True)
class GovernJob:
    """What was asked for on the command line.

    Attributes:
        config: the configuration in force at the start.
        load_config: reads it again.
        reload_asked: whether somebody has asked for that since the last time.
        data_dir: of all runs; the daemon's files are in its directory "govern".
        report_dir: where the report goes.
        dry_run: assess and report, act on nothing.
        api: whether the HTTP API is served.
        config_file: what `load_config` reads.
    """

    config: Config
    load_config: Callable[[], Config]
    reload_asked: Callable[[], bool]
    data_dir: Path
    report_dir: Path
    dry_run: bool
    api: bool = True
    config_file: Path = DEFAULT_FILE


def govern(job: GovernJob, console: RunConsole) -> ExitCode:
    """Govern until a signal or an error ends it; the exit code.

    Raises:
        IaceError: before there was a journal to write to.
    """
    if job.config.plant.kind == "replay":
        raise ConfigInvalidError("plant.kind", ["a recording cannot be governed: use iace run or iace backtest"])
    with ExitStack() as stack:
        lease = stack.enter_context(DirectoryLease(job.data_dir))
        directory = job.data_dir / rundir.DAEMON
        journal = Journal(directory / rundir.JOURNAL)
        stack.callback(journal.close)
        if journal.tip.seq == 0 and (directory / rundir.TELEMETRY).exists():
            console.say(f"{journal.path} is empty although {directory} was in use: begun anew, what was out is unknown")
        if journal.noted("run_name") is None:
            journal.note("run_name", str(uuid.uuid4()))
        daemon = Daemon(
            job.config,
            job.load_config,
            data_dir=job.data_dir,
            lease=lease,
            directory=directory,
            journal=journal,
            recovered=recover(journal, daemon=True),
            console=console,
            dry_run=job.dry_run,
            config_file=job.config_file,
        )
        return _live(job, daemon, console)


def _live(job: GovernJob, daemon: Daemon, console: RunConsole) -> ExitCode:
    stopped: list[ExitCode] = []
    with stopping(stopped.append):
        try:
            with ExitStack() as stack:
                if job.api:
                    server = _serve(job, daemon)
                    stack.callback(server.stop)
                    console.say(f"the API answers at {server.url}")
                scheduler = stack.enter_context(JobScheduler(_jobs(job, daemon), daemon.missed))
                while not stopped and not daemon.ended.wait(WAKE_S):
                    if not scheduler.alive:
                        raise RuntimeError("the scheduler has died: nothing would ever be done again")
                    if job.reload_asked():
                        console.say(_reloaded(daemon))
                if daemon.error is not None and job.api:
                    time.sleep(LAST_SCRAPE_S)
        finally:
            code = stopped[0] if stopped else ExitCode.INTERNAL_ERROR
            daemon.stop(code, code.name)
    if daemon.error is None:
        daemon.write_report(job.report_dir)
        return code
    code = code_of(daemon.error)
    console.say(f"{code.name}: {daemon.error}")
    if code is ExitCode.INTERNAL_ERROR:
        console.say(f"which is a bug: please report it with {crash.write(job.report_dir, [daemon.error])}")
    return code


def _reloaded(daemon: Daemon) -> str:
    try:
        return daemon.reload(by="SIGHUP").text
    except TurnError as error:
        return f"the configuration was not read again: {error}"


def _jobs(job: GovernJob, daemon: Daemon) -> list[Job]:
    schedule = job.config.schedule
    return [
        Job("tick", daemon.scheduled_tick(schedule.interval_s), schedule.interval_s),
        Job("lease", daemon.check_lease, LEASE_S),
        Job("flush", daemon.flush, schedule.flush_s),
        Job("housekeeping", daemon.keep_house, schedule.housekeeping_s),
        Job("report", lambda: daemon.write_report(job.report_dir), schedule.report_s),
    ]


def _serve(job: GovernJob, daemon: Daemon) -> ApiServer:
    from controller.api.server import ApiServer  # noqa: PLC0415 - Flask and spectree, only where they serve

    server = ApiServer(daemon, job.config.api, job.data_dir, daemon.embedded_host)
    server.start()
    return server
