"""`iace govern`: the daemon."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from controller.cli_run import add_data_dir, add_plant_options, overrides
from controller.places import REPORT_DIR
from controller.signals import Hangups


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    govern = commands.add_parser(
        "govern",
        help="the daemon: phases I to III, then the gravity-well daemon until stopped",
        description="Govern a plant for as long as it is let: phases I to III, then watch every node, isolate, heal "
        "and report. Serves the HTTP API and /metrics. Started again after a stop or a crash, it goes on where it was.",
        epilog="examples:\n  iace govern --nodes 50                       # an embedded cluster, one tick a second\n"
        "  iace govern --plant http --url http://127.0.0.1:8600 --interval 1\n"
        "  kill -HUP PID                                # read the configuration again\n"
        "  iace status; iace nodes; iace explain node-0007      # ask it, from another terminal",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_plant_options(govern)
    govern.add_argument("--dry-run", action="store_true", help="assess and report, act on nothing")
    govern.add_argument("--allow-probes", action="store_true", default=None, help="allow live ledger transactions")
    govern.add_argument(
        "--allow-fault-injection", action="store_true", default=None, help="allow faults to be injected into the plant"
    )
    govern.add_argument("--no-api", action="store_true", help="serve no HTTP API")
    govern.add_argument("--report", type=Path, default=REPORT_DIR, metavar="DIR", help="where reports go (reports/)")
    add_data_dir(govern)
    govern.add_argument("-v", "--verbose", action="count", default=0, help="log more (-vv for everything)")
    govern.set_defaults(command=_govern)


def _govern(options: argparse.Namespace) -> int:
    hangups = Hangups()  # before the imports, which take more than a second
    from controller.config import Source  # noqa: PLC0415 - only what the command needs is imported
    from controller.console import RunConsole  # noqa: PLC0415 - as above
    from controller.govern import GovernJob, govern  # noqa: PLC0415 - as above
    from controller.logs import set_up  # noqa: PLC0415 - as above

    source = Source(options.config, overrides(options), os.environ)
    config = source.load()
    set_up(config.log)
    with RunConsole(config.catalogue()) as console:
        job = GovernJob(
            config,
            source.load,
            hangups.take,
            options.data_dir,
            options.report,
            options.dry_run,
            api=not options.no_api,
            config_file=source.file,
        )
        return int(govern(job, console))
