"""`iace history`: how a KPI, a parameter or a node's |g| went."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from controller.cli_run import add_data_dir


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    history = commands.add_parser(
        "history",
        help="a KPI's history as table, sparkline, CSV, JSON or PNG",
        description="The history of a KPI, a parameter or a node's |g| out of a run's telemetry.",
        epilog="examples:\n  iace history coherence\n  iace history action_cost --last 2m --format csv > cost.csv\n"
        "  iace history node.node-0007.gravity --format png --output node-7.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    history.add_argument("metric", metavar="METRIC", help="e.g. coherence, lambda1, node.node-0007.gravity")
    history.add_argument("--run", type=int, metavar="N", help="which run (default the latest)")
    history.add_argument("--last", metavar="DURATION", help="only the last 90s, 15m, 24h, ...")
    history.add_argument("--step", metavar="DURATION", help="one aggregate for each 10s, 1m, ...")
    history.add_argument("--aggregate", choices=("mean", "min", "max", "last", "count"), default="mean")
    history.add_argument("--format", choices=("sparkline", "table", "csv", "json", "png"), default="sparkline")
    history.add_argument("--output", type=Path, metavar="FILE", help="where the PNG goes (default METRIC.png)")
    add_data_dir(history)
    history.set_defaults(command=_history)


def _history(options: argparse.Namespace) -> int:
    from controller import history, rundir  # noqa: PLC0415 - only what the command needs is imported
    from metrics.errors import BadDataError  # noqa: PLC0415 - as above
    from metrics.store.protocol import Aggregate  # noqa: PLC0415 - as above
    from metrics.store.sqlite import SqliteStore  # noqa: PLC0415 - as above
    from state.journal import permission_or_store  # noqa: PLC0415 - as above
    from state.outcome import ExitCode  # noqa: PLC0415 - as above

    try:
        last_s = history.duration_s(options.last) if options.last else None
        step_s = history.duration_s(options.step) if options.step else None
    except ValueError as error:
        sys.stderr.write(f"iace history: {error}\n")
        return int(ExitCode.USAGE)
    path = rundir.journal_path(options.data_dir, options.run).with_name(rundir.TELEMETRY)
    if not path.exists():
        raise BadDataError(f"no telemetry at {path}: that run kept none")
    store = SqliteStore(path)
    try:
        found = history.read(store, options.metric, last_s=last_s, step_s=step_s, how=Aggregate(options.aggregate))
    finally:
        store.close()
    if options.format == "png":
        target = options.output or Path(f"{found.series}.png")
        try:
            history.as_png(found, target)
        except OSError as error:
            raise permission_or_store(error, target) from error
        sys.stdout.write(f"{target}\n")
        return 0
    forms = {
        "sparkline": history.as_sparkline,
        "table": history.as_table,
        "csv": history.as_csv,
        "json": history.as_json,
    }
    sys.stdout.write(forms[options.format](found))
    return 0
