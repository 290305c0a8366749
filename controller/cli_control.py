"""The commands that ask a running daemon, or tell it to do something, through its HTTP API."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from controller.cli_run import add_data_dir, run_name

if TYPE_CHECKING:
    from rich.console import RenderableType

    from controller.api_client import ApiClient

API_VARIABLE, TOKEN_VARIABLE = "IACE_API", "IACE_TOKEN"
_NODES_SHOWN = 30

_Rest = ParamSpec("_Rest")

Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    _add_questions(commands)
    _add_nodes(commands)
    _add_controller(commands)
    _add_proposals(commands)


def add_api_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which daemon is asked, by whom, and how its answer is shown."""
    add_api_address(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what goes to standard output")


def add_api_address(parser: argparse.ArgumentParser) -> None:
    """The options that say which daemon is asked, and by whom."""
    parser.add_argument(
        "--api", metavar="URL", help=f"address of the daemon's API (default {API_VARIABLE}, else http://127.0.0.1:8470)"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=f"holds the token (default {TOKEN_VARIABLE})")


def client_of(options: argparse.Namespace) -> ApiClient:
    """The client that the options ask for.

    Raises:
        ConfigInvalidError: the address or the token's file cannot be used.
    """
    from controller.api_client import DEFAULT_URL, ApiClient  # noqa: PLC0415 - only what the command needs is imported

    return ApiClient(options.api or os.environ.get(API_VARIABLE) or DEFAULT_URL, token_of(options))


def token_of(options: argparse.Namespace) -> str | None:
    """The token that the options ask for, None where there is none.

    Raises:
        ConfigInvalidError: its file cannot be used.
    """
    from controller.config import secret  # noqa: PLC0415 - only what the command needs is imported

    return secret("--token-file", options.token_file) or os.environ.get(TOKEN_VARIABLE) or None


def show(options: argparse.Namespace, document: object, view: Callable[[], RenderableType]) -> None:
    """An answer on standard output: as JSON, or as people like it."""
    if options.format == "json":
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    from controller import display  # noqa: PLC0415 - rich is imported only where something is shown

    display.rich_console(sys.stdout).print(view())


def _add_questions(commands: Commands[argparse.ArgumentParser]) -> None:
    status = commands.add_parser("status", help="where a running daemon stands, why it holds, and the way out")
    add_api_options(status)
    status.set_defaults(command=_status)

    nodes = commands.add_parser("nodes", help="each node's |g|, status and why, the worst first")
    nodes.add_argument("--status", metavar="STATUS", help="only those that stand there, e.g. isolated")
    nodes.add_argument("--cluster", metavar="CLUSTER", help="only those of one cluster")
    nodes.add_argument(
        "--limit", type=_count, default=_NODES_SHOWN, metavar="N", help=f"so many (default {_NODES_SHOWN})"
    )
    add_api_options(nodes)
    nodes.set_defaults(command=_nodes)

    watch = commands.add_parser("watch", help="a live view of a running daemon; one line a tick without a terminal")
    watch.add_argument("--ticks", type=_count, metavar="N", help="end after so many (default never)")
    add_api_options(watch)
    watch.set_defaults(command=_watch)

    explain = commands.add_parser("explain", help="why a node is, or is not, isolated; why an event happened")
    explain.add_argument("subject", metavar="NODE|SEQ", help="a node, a cluster, or the sequence of an event")
    add_api_options(explain)
    explain.set_defaults(command=_explain)


def _add_nodes(commands: Commands[argparse.ArgumentParser]) -> None:
    isolate = _control(commands, "isolate", "take a node out; the same guards hold as for the policy", _isolate)
    isolate.add_argument("node", metavar="NODE")
    isolate.add_argument("--for", dest="for_s", type=_duration, metavar="DURATION", help="default: as the policy would")
    restore = _control(commands, "restore", "let an isolated node back in, on probation", _restore)
    restore.add_argument("node", metavar="NODE")
    exempt = _control(commands, "exempt", "leave a node alone for a while, whatever it looks like", _exempt)
    exempt.add_argument("node", metavar="NODE")
    exempt.add_argument("--kind", choices=("veto", "maintenance"), default="veto", help="why it is left alone (veto)")
    what = exempt.add_mutually_exclusive_group(required=True)
    what.add_argument("--for", dest="for_s", type=_duration, metavar="DURATION", help="for how long, e.g. 2h")
    what.add_argument("--end", action="store_true", help="govern it like all others again")
    exempt.add_argument("--in", dest="in_s", type=_duration, metavar="DURATION", help="from when on (default now)")


def _add_controller(commands: Commands[argparse.ArgumentParser]) -> None:
    pause = _control(commands, "pause", "start nothing new for a while; it goes on by itself then", _pause)
    pause.add_argument("--for", dest="for_s", type=_duration, required=True, metavar="DURATION", help="e.g. 30m")
    _control(commands, "resume", "go on before the pause is over", _simple("resume"))
    _control(commands, "reload", "read the configuration again; an invalid one changes nothing", _simple("reload"))
    safe_mode = commands.add_parser("safe-mode", help="leave SAFE_MODE by hand")
    actions = safe_mode.add_subparsers(metavar="ACTION", required=True)
    _control(actions, "clear", "its cause has been seen to by a person", _simple("safe-mode", "clear"))


def _add_proposals(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("proposals", help="list, show, approve or reject improvement proposals")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="all of them, the newest first")
    add_api_options(listed)
    listed.set_defaults(command=_proposals)
    shown = actions.add_parser("show", help="one of them")
    shown.add_argument("proposal", metavar="ID")
    add_api_options(shown)
    shown.set_defaults(command=_proposal)
    proof = actions.add_parser(
        "verify",
        help="prove from the journal, offline, where one comes from",
        description="The document's id and SHA-256 against the journal's events and its chain; exit code 65 if it is "
        "not what was written. Asks no daemon.",
    )
    proof.add_argument("file", type=Path, metavar="FILE", help="as it was written, or as the API gave it")
    proof.add_argument("--run", type=run_name, metavar="N|govern", help="whose journal (default the latest run's)")
    add_data_dir(proof)
    proof.set_defaults(command=_prove)
    for name in ("approve", "reject"):
        decision = _control(actions, name, f"{name} one of them", _decide(name))
        decision.add_argument("proposal", metavar="ID")


def _control(
    commands: Commands[argparse.ArgumentParser], name: str, about: str, function: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}. Needs an operator's token."
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; stands in the journal beside your name")
    add_api_options(parser)
    parser.set_defaults(command=function)
    return parser


def _duration(text: str) -> float:
    from controller.history import duration_s  # noqa: PLC0415 - only what the command needs is imported

    try:
        return duration_s(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")


def _answered(command: Callable[Concatenate[argparse.Namespace, _Rest], int]) -> Callable[..., int]:
    """`command`; where the API refuses what it asks, that is told in the API's words, and is the exit code."""

    @functools.wraps(command)
    def answered(options: argparse.Namespace, *rest: _Rest.args, **named: _Rest.kwargs) -> int:
        from controller.api_client import ApiRefusedError  # noqa: PLC0415 - only what the command needs is imported

        try:
            return command(options, *rest, **named)
        except ApiRefusedError as refusal:
            return _refused(options, refusal)

    return answered


@_answered
def _status(options: argparse.Namespace) -> int:
    answer = client_of(options).get("api", "control", "state")["data"]
    show(options, answer, lambda: _view().status(answer))
    return 0


@_answered
def _nodes(options: argparse.Namespace) -> int:
    client = client_of(options)
    answer = client.get("api", "nodes", status=options.status, cluster=options.cluster, limit=options.limit)
    show(options, answer, lambda: _view().nodes(answer["nodes"], answer["total"]))
    return 0


@_answered
def _watch(options: argparse.Namespace) -> int:
    from controller.watch import watch  # noqa: PLC0415 - only what the command needs is imported

    return watch(client_of(options), ticks=options.ticks, as_json=options.format == "json")


@_answered
def _explain(options: argparse.Namespace) -> int:
    answer = client_of(options).get("api", "explain", options.subject)["data"]
    show(options, answer, lambda: _view().explanation(answer))
    return 0


@_answered
def _proposals(options: argparse.Namespace) -> int:
    answer = client_of(options).get("api", "proposals")["proposals"]
    show(options, answer, lambda: _view().proposals(answer))
    return 0


@_answered
def _proposal(options: argparse.Namespace) -> int:
    answer = client_of(options).get("api", "proposals", options.proposal)["proposal"]
    show(options, answer, lambda: _view().proposal(answer))
    return 0


def _prove(options: argparse.Namespace) -> int:
    from controller.provenance import load, prove  # noqa: PLC0415 - only what the command needs is imported
    from controller.rundir import journal_path  # noqa: PLC0415 - as above
    from state.journal import Journal  # noqa: PLC0415 - as above

    document = load(options.file)
    journal = Journal(journal_path(options.data_dir, options.run), read_only=True)
    try:
        proven = prove(document, journal)
    finally:
        journal.close()
    sys.stdout.write(
        f"{proven.id}: written at event {proven.seq} ({proven.hash}), {proven.at_s:g} s, SHA-256 {proven.sha256}; "
        f"anchored at event {proven.anchor}; {proven.events} events, chain whole\n"
    )
    return 0


def _isolate(options: argparse.Namespace) -> int:
    return _ordered(options, ("control", "isolate"), {"node": options.node, "for_s": options.for_s})


def _restore(options: argparse.Namespace) -> int:
    return _ordered(options, ("control", "restore"), {"node": options.node})


def _exempt(options: argparse.Namespace) -> int:
    if options.end:
        return _ordered(options, ("control", "exempt", "end"), {"node": options.node})
    body = {"node": options.node, "kind": options.kind, "for_s": options.for_s, "in_s": options.in_s}
    return _ordered(options, ("control", "exempt"), body)


def _pause(options: argparse.Namespace) -> int:
    return _ordered(options, ("control", "pause"), {"for_s": options.for_s})


def _simple(*path: str) -> Callable[[argparse.Namespace], int]:
    return lambda options: _ordered(options, ("control", *path), {})


def _decide(decision: str) -> Callable[[argparse.Namespace], int]:
    return lambda options: _ordered(options, ("proposals", options.proposal, decision), {})


_FINDING, _USAGE = 1, 2
_UNPROCESSABLE = 422  # HTTP status of a request whose values cannot be


@_answered
def _ordered(options: argparse.Namespace, path: tuple[str, ...], body: Mapping[str, Any]) -> int:
    """Give a command; tell what will happen, or why not."""
    import uuid  # noqa: PLC0415 - only what the command needs is imported

    answer = client_of(options).post("api", *path, body={**body, "reason": options.reason}, key=str(uuid.uuid4()))
    event = "" if answer["seq"] is None else f" (journal event {answer['seq']})"
    show(options, answer, lambda: _as_text(f"{answer['text']}{event}"))
    return 0


def _refused(options: argparse.Namespace, refusal: Any) -> int:  # noqa: ANN401 - its module is imported only when needed
    if options.format == "json":
        sys.stdout.write(json.dumps(refusal.answer, ensure_ascii=False) + "\n")
    guard = refusal.answer.get("guard")
    sys.stderr.write(f"iace: refused: {refusal}" + (f" (guard {guard})" if guard else "") + "\n")
    return _USAGE if refusal.status == _UNPROCESSABLE else _FINDING


def _as_text(text: str) -> RenderableType:
    from controller.wording import printable  # noqa: PLC0415 - as above

    return printable(text)


def _view() -> Any:  # noqa: ANN401 - a module
    from controller import control_display  # noqa: PLC0415 - rich is imported only where something is shown

    return control_display
