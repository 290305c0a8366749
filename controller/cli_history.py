"""`iace history`: how a KPI, a parameter or a node's |g| went."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli_run import add_data_dir, run_name

if TYPE_CHECKING:
    from controller.history import History


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    history = commands.add_parser(
        "history",
        help="a KPI's history as table, sparkline, CSV, JSON or PNG",
        description="The history of a KPI, a parameter or a node's |g| out of a run's telemetry.",
        epilog="examples:\n  iace history coherence\n  iace history action_cost --last 2m --format csv > cost.csv\n"
        "  iace history node.node-0007.gravity --format png --output node-7.png\n"
        "  iace history coherence --from influxdb:embedded --last 24h --step 10m",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    history.add_argument("metric", metavar="METRIC", help="e.g. coherence, lambda1, node.node-0007.gravity")
    history.add_argument("--from", dest="source", metavar="SOURCE", help="influxdb or influxdb:PLANT instead of a run")
    history.add_argument("--config", type=Path, metavar="FILE", help="configuration file, which names the InfluxDB")
    history.add_argument("--run", type=run_name, metavar="N|govern", help="which run (default the latest)")
    history.add_argument("--last", metavar="DURATION", help="only the last 90s, 15m, 24h, ...")
    history.add_argument("--step", metavar="DURATION", help="one aggregate for each 10s, 1m, ...")
    history.add_argument("--aggregate", choices=("mean", "min", "max", "last", "count"), default="mean")
    history.add_argument("--format", choices=("sparkline", "table", "csv", "json", "png"), default="sparkline")
    history.add_argument("--output", type=Path, metavar="FILE", help="where the PNG goes (default METRIC.png)")
    add_data_dir(history)
    history.set_defaults(command=_history)


def _history(options: argparse.Namespace) -> int:
    from controller import history  # noqa: PLC0415 - only what the command needs is imported
    from state.journal import permission_or_store  # noqa: PLC0415 - as above
    from state.outcome import ExitCode  # noqa: PLC0415 - as above

    try:
        last_s = history.duration_s(options.last) if options.last else None
        step_s = history.duration_s(options.step) if options.step else None
    except ValueError as error:
        sys.stderr.write(f"iace history: {error}\n")
        return int(ExitCode.USAGE)
    if options.source is not None and options.source.partition(":")[0] != "influxdb":
        sys.stderr.write("iace history: --from is influxdb or influxdb:PLANT; for a run there is --run\n")
        return int(ExitCode.USAGE)
    found = (_of_run if options.source is None else _of_influx)(options, last_s, step_s)
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


def _of_run(options: argparse.Namespace, last_s: float | None, step_s: float | None) -> History:
    from controller import history, rundir  # noqa: PLC0415 - as above
    from metrics.errors import BadDataError  # noqa: PLC0415 - as above
    from metrics.store.protocol import Aggregate  # noqa: PLC0415 - as above
    from metrics.store.sqlite import SqliteStore  # noqa: PLC0415 - as above

    path = rundir.journal_path(options.data_dir, options.run).with_name(rundir.TELEMETRY)
    if not path.exists():
        raise BadDataError(f"no telemetry at {path}: that run kept none")
    store = SqliteStore(path)
    try:
        return history.read(store, options.metric, last_s=last_s, step_s=step_s, how=Aggregate(options.aggregate))
    finally:
        store.close()


def _of_influx(options: argparse.Namespace, last_s: float | None, step_s: float | None) -> History:
    from controller import config as configuration  # noqa: PLC0415 - as above
    from controller import history, influx  # noqa: PLC0415 - as above
    from controller.recording_source import plant_of  # noqa: PLC0415 - as above
    from metrics.store.protocol import Aggregate  # noqa: PLC0415 - as above

    config = configuration.load(options.config)
    how = Aggregate(options.aggregate)
    with influx.history(config, plant_of(options.source, config)) as store:
        return history.read(store, options.metric, last_s=last_s, step_s=step_s, how=how, axis=history.UNIX_TIME)
