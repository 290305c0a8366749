"""The MCP server: which tools, resources and prompts there are, and how it is served over standard input and output.

Tools that act are not merely refused without permission, they are not there: an agent is offered nothing that it may
not use. What a tool was not asked for is refused as well, an unknown argument first of all.
"""

from __future__ import annotations

import inspect
import logging
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resources import FileResource, TextResource
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import ConfigDict

from controller.agents.act_tools import ActTools
from controller.agents.backtest_tool import BacktestTool, Bench
from controller.agents.daemon import AskedDaemon
from controller.agents.pages import INSTRUCTIONS, glossary, investigation, pages
from controller.agents.proof_tool import ProofTool
from controller.agents.read_tools import ReadTools
from controller.api_client import ApiClient

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
_MIME_TYPES = {".md": "text/markdown", ".json": "application/schema+json"}


def create_server(client: ApiClient, bench: Bench, *, act: bool) -> MCPServer[Any]:
    """The server for one daemon.

    Args:
        client: asks the daemon, with or without a token.
        bench: what backtests run on.
        act: whether the tools that act are there.
    """
    daemon = AskedDaemon(client)
    reading = _read_tools(ReadTools(daemon), ProofTool(daemon, bench.data_dir), BacktestTool(bench))
    tools = [*reading, *(_act_tools(ActTools(daemon)) if act else ())]
    server: MCPServer[Any] = MCPServer(
        "iace",
        title="IACE governance controller",
        instructions=INSTRUCTIONS,
        version=version("iace"),
        tools=tools,
        log_level="WARNING",
    )
    _add_resources(server)
    server.prompt(title="Investigate a symptom", description="Evidence first, nothing changed.")(investigate)
    return server


def serve(server: MCPServer[Any]) -> None:
    """Answer on standard input and output until the client closes them; the log goes to standard error."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # A KeyboardInterrupt would wait for the thread that reads standard input, so for the client's next line.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server.run("stdio")


def investigate(symptom: str) -> str:
    """Begin an investigation of `symptom`."""
    return investigation(symptom)


def _read_tools(read: ReadTools, proof: ProofTool, bench: BacktestTool) -> list[Tool]:
    titles: dict[Callable[..., object], str] = {
        read.state: "Where the controller stands",
        read.kpis: "KPIs now, with limits",
        read.history: "History of a metric",
        read.nodes: "Nodes, the worst first",
        read.explain: "Why, or why not",
        read.proposals: "Improvement proposals",
        read.proposal: "One proposal in full",
        proof.verify_proposal: "Whether a proposal is what was written",
        read.journal: "What has happened",
        bench.backtest_change: "Try a change of settings on the past",
    }
    return [_tool(function, title, _READS) for function, title in titles.items()]


def _act_tools(act: ActTools) -> list[Tool]:
    # What takes a node out or in, changes the plant or ends its protection counts as destructive.
    return [
        _tool(function, title, _acts(destructive=destructive, idempotent=idempotent))
        for function, title, destructive, idempotent in (
            (act.approve_proposal, "Approve a proposal", True, True),
            (act.reject_proposal, "Reject a proposal", False, True),
            (act.pause, "Pause the controller", True, False),
            (act.resume, "End a pause", False, True),
            (act.isolate, "Isolate a node", True, True),
            (act.restore, "Let a node back in", True, True),
        )
    ]


def _acts(*, destructive: bool, idempotent: bool) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=False, destructive_hint=destructive, idempotent_hint=idempotent, open_world_hint=False
    )


def _tool(function: Callable[..., object], title: str, annotations: ToolAnnotations) -> Tool:
    """A tool that takes its own arguments and no others; the SDK by itself ignores those it does not know."""
    about = inspect.getdoc(function)
    tool = Tool.from_function(function, title=title, description=about, annotations=annotations, structured_output=True)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config.update(_STRICT)
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    return tool


def _add_resources(server: MCPServer[Any]) -> None:
    server.add_resource(
        TextResource(
            uri="iace://glossary",
            name="glossary",
            title="Glossary",
            description="The terms, states and KPIs of IACE; read it first.",
            mime_type="text/markdown",
            text=glossary(),
        )
    )
    for name, (path, about) in pages().items():
        server.add_resource(
            FileResource(
                uri=f"iace://docs/{name}",
                name=name,
                description=about[0].upper() + about[1:] + ".",
                mime_type=_MIME_TYPES[path.suffix],
                path=path,
            )
        )
