"""`iace doctor`: what is wrong with this set-up, and how to mend it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from controller.cli_control import Commands, add_api_options, client_of, show
from controller.cli_run import add_data_dir

_NAMES = ("permissions", "stores", "plant", "api", "tokens", "influxdb", "prometheus", "grafana", "clock")


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    doctor = commands.add_parser(
        "doctor",
        help="check plant, stores, servers, clock, permissions, API and tokens, and say how to mend each",
        description="Examine everything that a controller depends on, without changing anything. Ends in 1 where "
        "something is wrong.",
    )
    doctor.add_argument("--config", type=Path, metavar="FILE", help="configuration file (default iace.toml, if any)")
    doctor.add_argument("--prometheus", metavar="URL", help="examine this Prometheus")
    doctor.add_argument("--job", default="iace", help="scrape job under which it knows the daemon (iace)")
    doctor.add_argument("--grafana", metavar="URL", help="examine this Grafana")
    doctor.add_argument(
        "--skip", action="append", choices=_NAMES, default=[], help="leave a check out; may be repeated"
    )
    add_data_dir(doctor)
    add_api_options(doctor)
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict  # noqa: PLC0415 - only what the command needs is imported

    from controller import config as configuration  # noqa: PLC0415 - as above
    from controller.doctor import FINDING, Surroundings, examine  # noqa: PLC0415 - as above

    around = Surroundings(
        configuration.load(options.config),
        options.data_dir,
        client_of(options),
        options.prometheus,
        options.grafana,
        options.job,
    )
    found = list(examine(around, options.skip))

    def view() -> Any:  # noqa: ANN401 - what rich renders, whose type is not imported here
        from controller import control_display  # noqa: PLC0415 - rich is imported only where something is shown

        return control_display.findings([(item.name, item.standing, item.text, item.mend) for item in found])

    show(options, [asdict(item) for item in found], view)
    return int(any(item.standing == FINDING for item in found))
