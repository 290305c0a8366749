"""Writes the dashboards to `grafana/dashboards/`; `--check` only tells whether they are what would be written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from controller.dashboards import ci_runs, healing, internals, ledger, nodes, overview
from controller.dashboards.board import RUNBOOKS

DIRECTORY = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"
BOARDS = (overview.board, nodes.board, healing.board, ledger.board, internals.board, ci_runs.board)


def documents(runbooks: str = RUNBOOKS) -> Mapping[str, str]:
    """File name to content, of every dashboard; `runbooks` is the address of the runbooks' folder."""
    return {f"{board.name}.json": board.document(runbooks) for board in (make() for make in BOARDS)}


def main() -> int:
    """Write, or check; 1 where the files are not what they should be."""
    parser = argparse.ArgumentParser(prog="python -m controller.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, end in 1 where a file is not current")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where the files are (default: %(default)s)")
    parser.add_argument(
        "--runbooks", default=RUNBOOKS, metavar="ADDRESS", help="of the runbooks (default: %(default)s)"
    )
    asked = parser.parse_args()
    stale = []
    for name, content in documents(asked.runbooks.rstrip("/")).items():
        path = asked.directory / name
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(name)
        if not asked.check:
            path.write_text(content, encoding="utf-8")
    sys.stdout.write("".join(f"{'not current' if asked.check else 'written'}: {name}\n" for name in stale))
    return int(asked.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
