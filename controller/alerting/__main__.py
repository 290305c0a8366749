"""`python -m controller.alerting` writes Prometheus' rule files anew; a test compares the committed ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from controller.alerting.alerts import alerts
from controller.alerting.recordings import recordings
from controller.alerting.rule import alert_file, recording_file

RUNBOOKS = "docs/runbooks"


def files(runbooks: str = RUNBOOKS) -> dict[str, str]:
    """Name to content of each rule file.

    Args:
        runbooks: what `runbook_url` begins with, the address where people read docs/runbooks.
    """
    return {
        "recording.yml": recording_file(recordings()),
        "alerts.yml": alert_file(alerts(), runbooks.rstrip("/")),
    }


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(prog="python -m controller.alerting", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("prometheus/rules"), help="where they go")
    parser.add_argument("--runbooks", default=RUNBOOKS, metavar="ADDRESS", help=f"of the runbooks (default {RUNBOOKS})")
    arguments = parser.parse_args()
    for name, content in files(arguments.runbooks).items():
        (arguments.directory / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
