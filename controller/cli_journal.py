"""`iace journal`, `iace diagram`: what happened, and what can happen."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controller.cli_run import add_data_dir, run_name

if TYPE_CHECKING:
    from state.journal import Journal


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    journal = commands.add_parser(
        "journal",
        help="verify, show or export the hash-chained journal",
        description="The journal of a run: every event, in order, each bound by its hash to all before it.",
    )
    actions = journal.add_subparsers(metavar="ACTION", required=True)
    for name, help_, function in (
        ("verify", "recompute the chain; exit 65 and the event's number if it is broken", _verify),
        ("show", "print the events for people", _show),
        ("export", "print the events as canonical JSON lines", _export),
    ):
        action = actions.add_parser(name, help=help_)
        action.add_argument("--run", type=run_name, metavar="N|govern", help="which run (default the latest)")
        add_data_dir(action)
        action.set_defaults(command=function)
    diagram = commands.add_parser("diagram", help="the state machine as a Mermaid diagram")
    diagram.set_defaults(command=_diagram)


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Journal]:
    from controller.rundir import journal_path  # noqa: PLC0415 - only what the command needs is imported
    from state.journal import Journal  # noqa: PLC0415 - as above

    journal = Journal(journal_path(options.data_dir, options.run), read_only=True)
    try:
        yield journal
    finally:
        journal.close()


def _verify(options: argparse.Namespace) -> int:
    with _opened(options) as journal:
        count = sum(1 for _ in journal.entries())
        sys.stdout.write(f"{journal.path}: {count} events, gapless, chain whole, tip {journal.tip.hash}\n")
    return 0


def _show(options: argparse.Namespace) -> int:
    with _opened(options) as journal:
        for entry in journal.entries():
            data = json.dumps(entry.event.data, sort_keys=True, ensure_ascii=False)
            sys.stdout.write(f"{entry.seq:5d}  {entry.event.at_s:9.1f} s  {entry.event.kind:24s} {data}\n")
    return 0


def _export(options: argparse.Namespace) -> int:
    with _opened(options) as journal:
        for entry in journal.entries():
            sys.stdout.write(entry.line() + "\n")
    return 0


def _diagram(_options: argparse.Namespace) -> int:
    from state.diagram import mermaid  # noqa: PLC0415 - as above

    sys.stdout.write(mermaid())
    return 0
