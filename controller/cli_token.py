"""`iace token`: who may ask a daemon, and who may tell it to do something."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from controller.cli_control import Commands, show
from controller.cli_run import add_data_dir

if TYPE_CHECKING:
    from controller.api.auth import TokenFile


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    token = commands.add_parser(
        "token",
        help="create, list or revoke API tokens",
        description="Tokens of the HTTP API. They are kept as hashes in DATA-DIR/tokens.json, which a running daemon "
        "reads anew when it changes.",
    )
    actions = token.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="a new token, shown once on standard output")
    create.add_argument("name", metavar="NAME", help="whose it is; stands in the journal beside every command")
    create.add_argument(
        "--role", choices=("viewer", "operator"), default="viewer", help="may read, or control (viewer)"
    )
    create.add_argument("--expires-in", metavar="DURATION", help="e.g. 90d (default never)")
    add_data_dir(create)
    create.set_defaults(command=_create)
    listed = actions.add_parser("list", help="names, roles and whether they count; never the tokens")
    listed.add_argument("--format", choices=("text", "json"), default="text", help="what goes to standard output")
    add_data_dir(listed)
    listed.set_defaults(command=_list)
    revoke = actions.add_parser("revoke", help="let the tokens of a name count no longer, from now on")
    revoke.add_argument("name", metavar="NAME")
    add_data_dir(revoke)
    revoke.set_defaults(command=_revoke)


def _file(options: argparse.Namespace) -> TokenFile:
    from controller.api.auth import FILE, TokenFile  # noqa: PLC0415 - only what the command needs is imported

    return TokenFile(options.data_dir / FILE)


def _create(options: argparse.Namespace) -> int:
    from controller.api.auth import Role  # noqa: PLC0415 - as above
    from controller.history import duration_s  # noqa: PLC0415 - as above

    try:
        lifetime_s = None if options.expires_in is None else duration_s(options.expires_in)
    except ValueError as wrong:
        sys.stderr.write(f"iace token create: {wrong}\n")
        return 2
    tokens = _file(options)
    secret = tokens.create(options.name, Role(options.role), lifetime_s)
    sys.stderr.write(f"this is the only time that it is shown; its hash is in {tokens.path}\n")
    sys.stdout.write(f"{secret}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    import time  # noqa: PLC0415 - as above

    from controller.api.telemetry import timestamp  # noqa: PLC0415 - as above

    now_s = time.time()
    found = [
        {
            "name": token.name,
            "role": token.role.value,
            "created": timestamp(token.created_s),
            "expires": None if token.expires_s is None else timestamp(token.expires_s),
            "standing": token.standing(now_s).value,
        }
        for token in _file(options).tokens()
    ]
    rows = [[str(value or "never") for value in entry.values()] for entry in found]

    def view() -> Any:  # noqa: ANN401 - what rich renders, whose type is not imported here
        from controller import control_display  # noqa: PLC0415 - rich is imported only where something is shown

        return control_display.tokens(rows)

    show(options, found, view)
    return 0


def _revoke(options: argparse.Namespace) -> int:
    count = _file(options).revoke(options.name)
    sys.stderr.write(f"{json.dumps(options.name)}: {count} revoked\n")
    return 0
