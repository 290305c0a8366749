"""The command line: arguments in, exit code out.

Results go to standard output, everything for people to standard error. What a command needs is imported when it runs,
so that `iace --help` answers at once. Each command's function returns its exit code or raises an error of the family,
which `main` turns into its code and a sentence.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller import (
    cli_backtest,
    cli_control,
    cli_doctor,
    cli_govern,
    cli_history,
    cli_journal,
    cli_mcp,
    cli_qecs,
    cli_run,
    cli_simulate,
    cli_token,
)
from metrics.errors import IaceError
from state.outcome import ExitCode, code_of

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

DESCRIPTION = """IACE walks a running cluster through explicit phases, watches every node, isolates the ones that
drag it down, heals its control parameters, writes improvement proposals, and leaves with an exit code."""

EPILOG = """start here:
  iace run                                      govern an embedded cluster of 50 nodes, once
  iace run --scenario byzantine-node            the same, with a node that lies
  iace qecs serve --port 8600 &                 a reference cluster of its own ...
  iace run --plant http --url http://127.0.0.1:8600     ... and a run that governs it

exit codes of `iace run`: 0 coherent lock; 10, 20, 30, 40 the phase that failed; 50 KPIs outside limits;
51 isolation blocked; 60 safe mode; 61 inconclusive; 65 bad data; 69 plant unavailable; 70 internal error;
74 store failed; 75 not leader; 77 not permitted; 78 configuration invalid; 130/143 stopped by signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, and never ends in a bare traceback."""
    _give_closed_streams_a_sink()
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(words, argparse.Namespace(words=words))
    try:
        code = int(options.command(options))
        sys.stdout.flush()
    except IaceError as error:
        _say(f"iace: {error}")
        return int(code_of(error))
    except BrokenPipeError:
        # Whoever read our output has heard enough; the interpreter must not complain about it on its way out.
        _discard_output()
        return int(getattr(options, "code", ExitCode.COHERENT_LOCK))
    except KeyboardInterrupt:
        _say("iace: interrupted")
        return int(ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - whatever it is, people get a sentence or a file instead of a traceback
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            _say(f"iace: the output cannot be written: {error.strerror}: free some space")
            _discard_output()
            return int(ExitCode.STORE_FAILED)
        _say(f"iace: internal error, which is a bug: please report it with {_crash_file(error)}")
        return int(ExitCode.INTERNAL_ERROR)
    return code


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviation of an option: which one is meant would change with every new one.

    argparse makes the parsers of commands by the class of the parser that they are added to.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they are
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="iace", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"iace {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    cli_run.add_commands(commands)
    cli_govern.add_commands(commands)
    cli_journal.add_commands(commands)
    cli_history.add_commands(commands)
    cli_backtest.add_commands(commands)
    cli_simulate.add_commands(commands)
    cli_qecs.add_commands(commands)
    cli_control.add_commands(commands)
    cli_token.add_commands(commands)
    cli_mcp.add_commands(commands)
    cli_doctor.add_commands(commands)
    return parser


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - a file look-up that only --version is worth

    return version("iace")


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - this is the command line


def _crash_file(error: Exception) -> str:
    from controller import crash  # noqa: PLC0415 - nobody should wait for what is hardly ever needed

    return crash.write(Path(), [error])


def _give_closed_streams_a_sink() -> None:
    """Started without standard output or error (`>&-`), Python has None in their place."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - stays open as long as we do
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as above


def _discard_output() -> None:
    """What is still buffered for standard output goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
