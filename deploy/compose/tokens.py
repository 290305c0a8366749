"""Puts tokens where they are read: tokens.py INFLUXDB-FILE PROMETHEUS-FILE.

InfluxDB's comes from the variable INFLUXDB_TOKEN, for the controller alone. Prometheus' is one of ours, a viewer's;
only its hash is kept, so a new one is made when the file or the hash is gone. Run in the controller's directory, with
`iace` on the path.
"""
# ruff: noqa: INP001 - a script of the stack, in no package

import json
import os
import subprocess
import sys
from pathlib import Path

NAME, ROLE = "prometheus", "viewer"


def main(influx: Path, prometheus: Path) -> None:
    """Write both files."""
    os.umask(0o077)
    influx.write_text(os.environ["INFLUXDB_TOKEN"] + "\n", encoding="utf-8")
    known = json.loads(iace("list", "--format", "json"))
    if any((t["name"], t["role"], t["standing"]) == (NAME, ROLE, "valid") for t in known) and written(prometheus):
        return
    if any((token["name"], token["standing"]) == (NAME, "valid") for token in known):
        iace("revoke", NAME)
    new = prometheus.with_name(prometheus.name + ".new")
    new.write_text(iace("create", NAME, "--role", ROLE), encoding="utf-8")
    new.chmod(0o644)  # Prometheus is another user; nobody else has this volume
    new.replace(prometheus)


def written(path: Path) -> bool:
    """Whether there is anything in it."""
    return path.exists() and path.stat().st_size > 0


def iace(*arguments: str) -> str:
    """What `iace token` prints."""
    command = ["iace", "token", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own words


if __name__ == "__main__":
    if not os.environ.get("INFLUXDB_TOKEN"):
        sys.exit("INFLUXDB_TOKEN is missing, see .env.example")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
