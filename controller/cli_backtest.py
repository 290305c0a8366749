"""`iace backtest`: what the policy would have done on recorded telemetry, one configuration or two side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.cli_run import add_data_dir

SCHEMA_VERSION = 1
FINDING = 1  # exit code: the other configuration is worse


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    backtest = commands.add_parser(
        "backtest",
        help="what the policy would have done on recorded telemetry",
        description="Takes recorded telemetry through detector and policy. See docs/backtest.md.",
        epilog="examples:\n  iace backtest --from recorded.csv\n  iace backtest --from 3 --against careful.toml\n"
        "  iace backtest --from recorded.csv --at 1661148120 --format json\n"
        "  iace backtest --from influxdb:embedded --last 24h",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    backtest.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="SOURCE",
        help="CSV file, telemetry store, a run's number, influxdb or influxdb:PLANT",
    )
    backtest.add_argument("--last", metavar="DURATION", help="only the last 15m, 24h, ... of the recording")
    backtest.add_argument("--config", type=Path, metavar="FILE", help="the configuration to try (default iace.toml)")
    backtest.add_argument("--against", type=Path, metavar="FILE", help="another one: exit code 1 if it is worse")
    backtest.add_argument("--at", type=float, action="append", default=[], metavar="SECONDS", help="name suspects then")
    backtest.add_argument("--format", choices=("text", "json"), default="text")
    backtest.add_argument("--report", type=Path, metavar="DIR", help="also write backtest.json and backtest.txt there")
    backtest.add_argument("--resume", action="store_true", help="go on from the checkpoint in the report's directory")
    add_data_dir(backtest)
    backtest.set_defaults(command=_backtest)


def _backtest(options: argparse.Namespace) -> int:
    from controller import (  # noqa: PLC0415 - only what the command needs is imported
        backtest,
        backtest_text,
        recording_source,
    )
    from controller import config as configuration  # noqa: PLC0415 - as above
    from controller.evidence import Evidence  # noqa: PLC0415 - as above
    from controller.files import json_bytes, jsonable, write_atomically  # noqa: PLC0415 - as above
    from controller.history import duration_s  # noqa: PLC0415 - as above
    from controller.progress import Bar  # noqa: PLC0415 - as above
    from state.outcome import ExitCode  # noqa: PLC0415 - as above

    if options.resume and options.report is None:
        sys.stderr.write("iace backtest: --resume needs the --report whose checkpoint it goes on from\n")
        return int(ExitCode.USAGE)
    try:
        last_s = duration_s(options.last) if options.last else None
    except ValueError as error:
        sys.stderr.write(f"iace backtest: {error}\n")
        return int(ExitCode.USAGE)
    configs = {str(options.config or "in force"): configuration.load(options.config)}
    if options.against is not None:
        configs[f"{options.against} (against)"] = configuration.load(options.against)
    source = recording_source.located(options.source, options.data_dir)
    recording = recording_source.take(source, next(iter(configs.values())), last_s=last_s)
    for bad in recording.bad:
        sys.stderr.write(f"{recording.source}:{bad.line}: {bad.reason}\n")
    evidence = Evidence(recording)
    checkpoint = None if options.report is None else options.report / "backtest.checkpoint.npz"
    if options.resume and checkpoint is not None:
        if checkpoint.exists():
            evidence.resume(checkpoint)
        sys.stderr.write(f"going on after {evidence.done} of {len(recording.times_s)} ticks\n")
    ticks = len(recording.times_s)
    reference_g = next(iter(configs.values())).gravity.critical
    judged = []
    with _writing(options.report):
        with Bar(sys.stderr, ticks * (1 + len(configs))) as bar:
            evidence.run(checkpoint, bar.update)
            for number, (name, config) in enumerate(configs.items(), start=1):
                outcome = backtest.judge(
                    recording, evidence, config, reference_g=reference_g, progress=bar.after(number * ticks)
                )
                judged.append({"name": name, **outcome})
        document = {
            "schema_version": SCHEMA_VERSION,
            **backtest.described(recording),
            "at": [backtest.moment(recording, evidence, at_s) for at_s in options.at],
            "configurations": judged,
            "comparison": backtest.compared(judged) if len(judged) > 1 else None,
        }
        plain = {name: jsonable(part) for name, part in document.items()}
        if options.report is not None:
            write_atomically(options.report / "backtest.json", json_bytes(plain))
            write_atomically(options.report / "backtest.txt", backtest_text.text(plain).encode())
            (options.report / "backtest.checkpoint.npz").unlink(missing_ok=True)
    sys.stdout.write(json_bytes(plain).decode() if options.format == "json" else backtest_text.text(plain))
    return FINDING if document["comparison"] and backtest.is_worse(judged) else 0


@contextmanager
def _writing(report: Path | None) -> Iterator[None]:
    """Says which directory cannot be written to; without one nothing is written but to the terminal."""
    from controller.files import unwritable  # noqa: PLC0415 - as above

    try:
        yield
    except OSError as error:
        if report is None:
            raise
        raise unwritable("the backtest cannot be written to", report, error) from error
