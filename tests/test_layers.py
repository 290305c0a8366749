"""Who may import whom: the layers of docs/architecture.md, and the one home of each library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("controller", "metrics", "qecs", "state")
MODULES = sorted(path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# A library shapes what touches it: each stays in its few modules.
HOMES = {
    "anyio": ("controller/agents/",),
    "apscheduler": ("controller/scheduler.py",),
    "flask": ("qecs/server.py", "controller/api/"),
    "influxdb_client": ("metrics/store/influx_client.py",),
    "grafana_foundation_sdk": ("controller/dashboards/",),
    "matplotlib": ("controller/plots.py", "controller/history.py", "controller/dashboards/"),
    "mcp": ("controller/agents/",),
    "qecs": ("qecs/", "controller/cli_qecs.py", "controller/plants/embedded.py", "controller/api/server.py"),
    "rich": (
        "controller/console.py",
        "controller/display.py",
        "controller/control_display.py",
        "controller/watch.py",
        "controller/cli_control.py",
    ),
    "spectree": ("controller/api/routing.py",),
    "sqlite3": ("metrics/store/", "state/journal.py"),
    "transitions": ("state/machine.py",),
    "urllib3": ("metrics/store/influx_client.py",),
    "waitress": ("qecs/strict_http.py", "controller/api/server.py"),
}
IMPURE = {"time", "datetime", "random", "threading", "socket", "subprocess", "os", "fcntl"}
# What may touch the outside world in the two packages that measure and decide.
TOUCHING = (
    "metrics/exporter.py",
    "metrics/store/",
    "metrics/store_writer.py",
    "metrics/telemetry.py",
    "state/journal.py",
    "state/lease.py",
)


def imported(path):
    """The top-level packages that a module imports anywhere, except for its types alone."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module.split(".")[0])
    return names


def test_the_layers_hold(tmp_path):
    """Every contract of import-linter in pyproject.toml is kept."""
    # As a process, because import-linter configures logging and thereby switches every logger of ours off.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(
        [*command, "--cache-dir", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("library", HOMES)
def test_each_library_stays_at_home(library):
    """A library is imported in its own modules and nowhere else; the governed system likewise."""
    users = [path for path in MODULES if library in imported(path)]
    assert users
    assert [path for path in users if not path.startswith(HOMES[library])] == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.startswith(("metrics/", "state/"))])
def test_what_measures_and_decides_is_pure(path):
    """No clock, no randomness of the machine, no threads and no I/O: time is an argument there."""
    assert path.startswith(TOUCHING) or not imported(path) & IMPURE
