"""`iace run`, `iace config`: the main job, and what it would run with."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from controller.places import DATA_DIR, REPORT_DIR


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    run = commands.add_parser(
        "run",
        help="phases I to IV once, with an exit code",
        description="Walk the plant through phases I to IV once, write a report, and leave with an exit code.",
        epilog="examples:\n  iace run --scenario cluster-fault; echo $?     # 51: a guard forbade the isolation\n"
        "  iace run --format json | jq .exit_name\n  iace run --dry-run --scenario byzantine-node\n"
        "  iace run --plant replay --from recorded.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_plant_options(run)
    run.add_argument("--ticks", type=int, metavar="N", help="length of the governing window (default 300)")
    run.add_argument("--scenario", metavar="NAME|FILE", help="inject the faults of a shipped or own scenario file")
    run.add_argument("--dry-run", action="store_true", help="assess and report, act on nothing")
    run.add_argument("--allow-probes", action="store_true", default=None, help="allow live ledger transactions")
    run.add_argument(
        "--allow-fault-injection", action="store_true", default=None, help="allow faults to be injected into the plant"
    )
    run.add_argument("--deadline", type=float, metavar="SECONDS", help="wall time after which it is inconclusive")
    run.add_argument("--report", type=Path, default=REPORT_DIR, metavar="DIR", help="where the report goes (reports/)")
    run.add_argument("--textfile", type=Path, metavar="FILE", help="write the final metrics to FILE (.prom)")
    run.add_argument("--pushgateway", metavar="URL", help="push the final metrics to a Pushgateway")
    add_data_dir(run)
    run.add_argument("--format", choices=("text", "json"), default="text", help="what goes to standard output")
    run.add_argument("-v", "--verbose", action="count", default=0, help="log more (-vv for everything)")
    run.set_defaults(command=_run)

    config = commands.add_parser("config", help="check or show the configuration")
    actions = config.add_subparsers(metavar="ACTION", required=True)
    for name, help_, function in (
        ("check", "validate it, and list every problem", _config_check),
        ("show", "print it as it is in force", _config_show),
    ):
        action = actions.add_parser(name, help=help_)
        add_plant_options(action)
        action.set_defaults(command=function)


def add_plant_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose configuration and plant."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (default iace.toml, if any)")
    parser.add_argument("--plant", choices=("embedded", "http", "replay"), help="which kind (default embedded)")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        help="what a replay plant observes: CSV, store, run's number, influxdb",
    )
    parser.add_argument("--url", help="address of an http plant")
    parser.add_argument("--nodes", type=int, metavar="N", help="nodes of the embedded plant (default 50)")
    parser.add_argument("--clusters", type=int, metavar="M", help="its clusters (default by the model's rule)")
    parser.add_argument("--seed", type=int, help="its seed (default 0)")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="between observations of a real-time plant")


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """The option that says where runs keep their journals."""
    parser.add_argument(
        "--data-dir", type=Path, default=DATA_DIR, metavar="DIR", help="journals and telemetry (default .iace/)"
    )


def run_name(text: str) -> int | str:
    """What `--run` names: the number of a run, or "govern" for the daemon.

    Raises:
        ValueError: neither.
    """
    return text if text == "govern" else int(text)


def overrides(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """The settings that the command line overrides; None where a flag was not given."""
    return {
        "plant": {
            "kind": options.plant or ("http" if options.url else "replay" if options.source else None),
            "url": options.url,
            "recording": _located(options),
            "nodes": options.nodes,
            "clusters": options.clusters,
            "seed": options.seed,
            "allow_probes": getattr(options, "allow_probes", None),
            "allow_fault_injection": getattr(options, "allow_fault_injection", None),
        },
        "schedule": {
            "interval_s": options.interval,
            "ticks": getattr(options, "ticks", None),
            "deadline_s": getattr(options, "deadline", None),
        },
        "log": {"level": (None, "info", "debug")[min(getattr(options, "verbose", 0), 2)]},
    }


def _located(options: argparse.Namespace) -> str | None:
    """What is to be replayed; a run is named by its number."""
    source: str | None = options.source
    if source is None or not source.isdecimal():
        return source
    from controller.recording_source import located  # noqa: PLC0415 - a run that replays nothing need not wait for it

    return located(source, getattr(options, "data_dir", DATA_DIR))


def _run(options: argparse.Namespace) -> int:
    from controller import config as configuration  # noqa: PLC0415 - only what the command needs is imported
    from controller.console import RunConsole  # noqa: PLC0415 - as above
    from controller.last_scrape import LastScrape  # noqa: PLC0415 - as above
    from controller.logs import set_up  # noqa: PLC0415 - as above
    from controller.run import Job, execute  # noqa: PLC0415 - as above

    config = configuration.load(options.config, overrides(options))
    set_up(config.log)
    scenario = None
    if options.scenario is not None:
        from controller.plants.embedded import load_scenario  # noqa: PLC0415 - as above

        scenario = load_scenario(options.scenario)
    with RunConsole(config.catalogue()) as console:
        last_scrape = LastScrape(options.textfile, options.pushgateway)
        command = _again(options.words, options.report)
        job = Job(config, scenario, options.data_dir, options.report, options.dry_run, last_scrape, command)
        finished = execute(job, console)
    options.code = finished.outcome.code
    if options.format == "json":
        json.dump(finished.document, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(f"{finished.outcome.status_code} exit {int(options.code)} {options.code.name}\n")
    return int(options.code)


def _again(words: Sequence[str], report: Path) -> str:
    """The command that carries a proposal of this run out: it acts, and spares the report it is to be compared with."""
    kept: list[str] = []
    for before, word in pairwise(("", *words)):
        if before != "--report" and word not in ("--report", "--dry-run") and not word.startswith("--report="):
            kept.append(word)
    return shlex.join(["iace", *kept, f"--report={report}-again"])


def _config_check(options: argparse.Namespace) -> int:
    from controller import config as configuration  # noqa: PLC0415 - as above

    configuration.load(options.config, overrides(options))
    sys.stdout.write("the configuration is valid\n")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    from controller import config as configuration  # noqa: PLC0415 - as above

    sys.stdout.write(configuration.effective(configuration.load(options.config, overrides(options))))
    return 0
