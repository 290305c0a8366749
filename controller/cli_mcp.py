"""`iace mcp`: the interface for agents, an MCP server over standard input and output."""

from __future__ import annotations

import argparse
from pathlib import Path

from controller.cli_control import add_api_address, client_of, token_of
from controller.cli_run import add_data_dir
from metrics.errors import ConfigInvalidError, NotPermittedError

_LIBRARY = "mcp"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    mcp = commands.add_parser(
        "mcp",
        help="the interface for agents: an MCP server on standard input and output",
        description="Serve the Model Context Protocol on standard input and output, for an agent that is to ask, and "
        "with --allow-act tell, a running daemon. See docs/agents.md.",
        epilog="examples:\n  iace mcp --data-dir .iace                       # an agent that reads and backtests\n"
        "  iace mcp --allow-act --token-file ops.token     # one that may act as well",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_api_address(mcp)
    mcp.add_argument("--allow-act", action="store_true", help="offer the tools that act; needs an operator's token")
    mcp.add_argument("--config", type=Path, metavar="FILE", help="what backtests start from (default iace.toml)")
    mcp.add_argument(
        "--from", dest="source", metavar="SOURCE", help="what backtests run on (default the daemon's telemetry)"
    )
    add_data_dir(mcp)
    mcp.set_defaults(command=_mcp)


def _mcp(options: argparse.Namespace) -> int:
    if options.allow_act and token_of(options) is None:
        raise NotPermittedError(
            "--allow-act needs an operator's token: name its file with --token-file, or set IACE_TOKEN; "
            "iace token create NAME --role operator makes one"
        )
    try:
        from controller.agents.backtest_tool import Bench  # noqa: PLC0415 - only what the command needs is imported
        from controller.agents.server import create_server, serve  # noqa: PLC0415 - as above
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != _LIBRARY:
            raise
        raise ConfigInvalidError("iace mcp", ["the package mcp is not installed: pip install 'iace[agents]'"]) from None
    bench = Bench(options.config, options.data_dir, options.source)
    serve(create_server(client_of(options), bench, act=options.allow_act))
    return 0
