"""The interface for agents, asked through the SDK's own client: what it offers, answers, does and refuses."""

import json
import re
import sqlite3
import sys
import time
from contextlib import closing

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from controller.agents import backtest_tool
from controller.agents.backtest_tool import Bench
from controller.agents.server import create_server
from controller.api.auth import FILE, Role, TokenFile
from controller.api.server import ApiServer
from controller.api_client import ApiClient
from controller.cli import main
from controller.config import fingerprint
from controller.proposals import digest, id_of
from controller.settings import ApiSettings, Config
from metrics.store.protocol import Point
from metrics.store.sqlite import SqliteStore
from state.decision import Answer
from state.event import Event, EventKind
from state.isolation import Guard
from state.journal import Journal

READ = {
    "state",
    "kpis",
    "history",
    "nodes",
    "explain",
    "proposals",
    "proposal",
    "verify_proposal",
    "journal",
    "backtest_change",
}
ACT = {"approve_proposal", "reject_proposal", "pause", "resume", "isolate", "restore"}
PROPOSAL = "p-0123456789ab"
NS = 1_000_000_000


@pytest.fixture
def daemon(fake_daemon, tmp_path):
    """A fake daemon behind its real API: `.url` and `.port`."""
    port = fake_daemon.FakePort(tmp_path)
    port.fill(3)
    server = ApiServer(port, ApiSettings(rate_per_s=1e6, burst=1e6), tmp_path)
    port.url = f"http://127.0.0.1:{server.start(0)}"
    yield port
    server.stop()


@pytest.fixture
def token(tmp_path):
    """Call it with a role for a new token."""
    return lambda role: TokenFile(tmp_path / FILE).create(f"agent-{role}", role)


@pytest.fixture
def agent(daemon, tmp_path):
    """Call it (with `token=`, `act=`, ...) for a function that calls one tool and returns the SDK's result."""

    def connect(*, url=daemon.url, token=None, act=False, source=None, mode="auto"):
        server = create_server(ApiClient(url, token, deadline_s=5.0), Bench(None, tmp_path, source), act=act)

        def call(name, /, **arguments):
            async def talk():
                async with Client(server, mode=mode) as client:
                    return await client.call_tool(name, arguments)

            return anyio.run(talk)

        call.server = server
        return call

    return connect


def answer(result):
    """What a tool answered, which the SDK's client has held against the tool's output schema."""
    assert not result.is_error, result.content[0].text
    return result.structured_content


def error(result):
    """What a tool said when it failed: one text, nothing structured, no traceback."""
    assert result.is_error
    assert result.structured_content is None
    (block,) = result.content
    assert "Traceback" not in block.text
    return block.text


def listed(server):
    async def talk():
        async with Client(server) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return anyio.run(talk)


def test_without_the_flag_there_are_only_tools_that_read(agent, token):
    """Ten reading tools, each described, strict in what it takes and structured in what it gives; none that acts."""
    tools = listed(agent(token=token(Role.OPERATOR)).server)
    assert tools.keys() == READ
    for tool in tools.values():
        assert tool.annotations.read_only_hint is True
        assert tool.annotations.destructive_hint is False
        assert len(tool.description) > 100
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema["type"] == "object"
        assert "\n    " not in tool.description


def test_with_the_flag_there_are_tools_that_act(agent, token):
    """Six more, none read-only, each with a reason it cannot do without and a key it can."""
    tools = listed(agent(token=token(Role.OPERATOR), act=True).server)
    assert tools.keys() == READ | ACT
    for name in ACT:
        assert tools[name].annotations.read_only_hint is False
        assert "reason" in tools[name].input_schema["required"]
        assert "idempotency_key" in tools[name].input_schema["properties"]
        assert "idempotency_key" not in tools[name].input_schema["required"]
    assert {name for name in ACT if tools[name].annotations.destructive_hint} == {
        "approve_proposal",
        "isolate",
        "pause",
        "restore",
    }
    assert {name for name in ACT if not tools[name].annotations.idempotent_hint} == {"pause"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_state_says_where_it_stands(agent, mode):
    """Phase, plant, wells and journal, over the protocol's older handshake as well."""
    told = answer(agent(mode=mode)("state"))
    assert (told["phase"], told["plant"], told["wells"]) == ("GOVERNING", "embedded", ["node-0004"])
    assert (told["safe_mode"], told["journal"]["seq"], told["omitted"]) == (None, 9, {})


def test_long_answers_are_cut_and_say_so(agent, daemon):
    """Of a thousand wells fifty are told, of a long text its beginning, and `omitted` says where and how much."""
    plain = daemon.state()
    daemon.state = lambda: {**plain, "wells": [f"n{i}" for i in range(1000)], "meaning": "x" * 3000}
    told = answer(agent()("state"))
    assert told["wells"][:2] == ["n0", "n1"]
    assert len(told["wells"]) == 50
    assert len(told["meaning"]) == 2000
    assert told["omitted"] == {"wells": 950, "meaning": 1000}


def test_what_every_state_has_is_there_however_long_the_rest_is(agent, daemon):
    """Exemptions with long reasons, or wells with long names, push out neither the journal's tip nor the blocked."""
    plain = daemon.state()
    exempt = [{"node": f"rack-{i:04d}", "owner": "ops", "reason": "x" * 1900} for i in range(60)]
    daemon.state = lambda: {**plain, "exemptions": exempt}
    told = answer(agent()("state"))
    assert (told["phase"], told["journal"]["seq"], told["wells"]) == ("GOVERNING", 9, ["node-0004"])
    assert 20 < len(told["exemptions"]) < 40
    assert told["omitted"]["exemptions"] == 60 - len(told["exemptions"])
    assert len(json.dumps(told)) < 70_000
    daemon.state = lambda: {**plain, "wells": ["w" * 1999] * 50, "blocked": [{"subject": "b", "guard": "quorum"}]}
    told = answer(agent()("state"))
    assert (told["journal"]["seq"], told["blocked"], told["omitted"]["blocked"]) == (9, [], 1)
    assert len(json.dumps(told)) < 70_000


def test_nodes_and_events_beyond_the_room_wait_for_the_next_question(agent, daemon):
    """Long items are told as long as they fit, whole, with the number of the others and where to go on."""
    node = daemon.told_nodes[0]
    daemon.told_nodes = [{**node, "why": "w" * 1900} for _ in range(90)]
    told = answer(agent()("nodes", limit=90))
    shown = len(told["nodes"])
    assert 20 < shown < 40
    assert (told["total"], told["omitted"]) == (90, {"nodes": 90 - shown})
    assert all(len(node["why"]) == 1900 for node in told["nodes"])
    short = daemon.journal
    daemon.journal = lambda after, limit: [{**event, "data": {"x": "y" * 1900}} for event in short(after, limit)] * 10
    told = answer(agent()("journal"))
    assert told["next_after"] == told["events"][-1]["seq"]
    assert told["omitted"].keys() == {"events"}


def test_kpis_come_with_limits_and_status(agent, daemon, fake_daemon):
    """The KPI beyond its critical limit comes first, unknown is null, and the plant's parameters are there."""
    daemon.telemetry.publish(fake_daemon.frame(8, action_cost=0.2))
    told = answer(agent()("kpis"))
    assert (told["tick"], told["system_health"], told["parameters"]) == (8, "CRITICAL", {"lambda1": 0.3})
    first = told["kpis"][0]
    assert (first["name"], first["value"], first["status"]) == ("action_cost", 0.2, "critical")
    assert (first["side"], first["healthy"], first["critical"], first["unit"]) == ("at_most", 0.05, 0.1, "1")
    by_name = {kpi["name"]: kpi for kpi in told["kpis"]}
    assert by_name["coherence"]["status"] == "healthy"
    assert (by_name["entropy"]["value"], by_name["entropy"]["status"]) == (None, "unknown")
    assert by_name["transaction_rate"]["status"] == "no limit"


def test_a_history_is_bounded_and_summed_up(agent, daemon):
    """A short one comes as measured; a long one in at most 200 steps, whose length is told."""
    told = answer(agent()("history", metric="coherence", last="2s"))
    assert [sample["value"] for sample in told["samples"]] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert (told["step_s"], told["least"], told["last"]) == (None, pytest.approx(1 / 3), pytest.approx(2 / 3))
    daemon.fill(1000)
    told = answer(agent()("history", metric="coherence", last="15m", aggregate="max"))
    assert len(told["samples"]) == 200
    assert (told["step_s"], told["aggregate"], told["greatest"]) == (4.5, "max", 0.999)
    assert "not found: there is no metric 'nope'" in error(agent()("history", metric="nope"))
    assert "'soon' is no duration" in error(agent()("history", metric="coherence", last="soon"))


def test_nodes_are_the_worst_first_and_filtered(agent):
    """As many as asked for, by status or cluster, with the number of all that fit."""
    told = answer(agent()("nodes", limit=2))
    assert [node["node"] for node in told["nodes"]] == ["node-0004", "node-0002"]
    assert (told["total"], told["nodes"][0]["until"]) == (5, "2026-01-01T00:15:00.000+00:00")
    told = answer(agent()("nodes", status="isolated"))
    assert [(node["node"], node["why"]) for node in told["nodes"]] == [("node-0004", "isolated by policy, offence 1")]
    assert answer(agent()("nodes", cluster="c1"))["total"] == 2


def test_explain_tells_why(agent):
    """A node by its name, an event by its sequence; what nobody knows is an error."""
    assert answer(agent()("explain", subject="node-0004"))["explanation"]["node"]["status"] == "isolated"
    assert answer(agent()("explain", subject="3"))["explanation"]["event"]["text"] == "event 3"
    assert "not found: nothing is known of that" in error(agent()("explain", subject="a/b?c"))


def test_proposals_in_short_and_in_full(agent):
    """All or those of one status, and one with everything it says."""
    (line,) = answer(agent()("proposals"))["proposals"]
    assert line == {
        "id": PROPOSAL,
        "status": "proposed",
        "kind": "budget",
        "title": "Raise the budget",
        "summary": "s",
    }
    assert answer(agent()("proposals", status="applied")) == {"total": 0, "proposals": [], "omitted": {}}
    assert answer(agent()("proposal", proposal_id=PROPOSAL))["proposal"]["title"] == "Raise the budget"
    assert "not found: there is no such proposal" in error(agent()("proposal", proposal_id="p-nope"))


@pytest.fixture
def written(daemon, tmp_path):
    """A proposal that the daemon's journal knows, as the API hands it out, and the journal's file."""
    file = tmp_path / "govern" / "journal.db"
    journal = Journal(file)
    (first,) = journal.append([Event(EventKind.RUN_STARTED, 0.0, {"epoch": 1})], epoch=1, wall_time="w")
    document = {"title": "Raise the budget", "kind": "budget", "summary": "s", "written_s": 604.0}
    document["anchor"] = {"seq": 1, "hash": first.hash}
    document = {"id": id_of(document), **document}
    data = {"id": document["id"], "sha256": digest(document)}
    journal.append([Event(EventKind.PROPOSAL_WRITTEN, 604.0, data)], epoch=1, wall_time="w")
    journal.close()
    standing = {"status": "proposed", "by": "", "reason": "", "trial": None, "approved_by": "", "intact": True}
    daemon.told_proposals = [{**document, **standing}]
    return document, file


def test_a_proposal_is_verified_against_the_journal(agent, written):
    """Its hash, the event that says it was written, its anchor, and how long the whole chain is."""
    document, _ = written
    assert answer(agent()("verify_proposal", proposal_id=document["id"])) == {
        "proven": True,
        "chain_whole": True,
        "problem": None,
        "sha256": digest(document),
        "written_seq": 2,
        "anchor_seq": 1,
        "events": 2,
    }
    assert "not found: there is no such proposal" in error(agent()("verify_proposal", proposal_id="p-nope"))


def test_a_proposal_that_is_not_what_was_written_is_not_verified(agent, daemon, written):
    """A changed title, a file that is gone, a broken chain and a missing journal, each told for what it is."""
    document, file = written
    (told,) = daemon.told_proposals
    daemon.told_proposals = [{**told, "title": "Trust me"}]
    found = answer(agent()("verify_proposal", proposal_id=document["id"]))
    assert (found["proven"], found["chain_whole"], found["sha256"]) == (False, True, None)
    assert "was changed: its content has the id p-" in found["problem"]
    daemon.told_proposals = [{"id": document["id"], "title": "Its file is gone", "intact": False}]
    found = answer(agent()("verify_proposal", proposal_id=document["id"]))
    assert (found["proven"], found["chain_whole"], found["problem"]) == (False, True, "Its file is gone")
    daemon.told_proposals = [told]
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE journal SET body = replace(body, '604.0', '604.5') WHERE seq = 2")
    found = answer(agent()("verify_proposal", proposal_id=document["id"]))
    assert (found["proven"], found["chain_whole"]) == (False, False)
    assert "event 2: has been altered" in found["problem"]
    file.unlink()
    assert "no journal at" in error(agent()("verify_proposal", proposal_id=document["id"]))


def test_the_journal_begins_at_its_newest_events_or_where_asked(agent):
    """Without `after` the newest, with it the following ones and where the next page begins."""
    told = answer(agent()("journal", limit=2))
    assert ([event["seq"] for event in told["events"]], told["tip_seq"]) == ([8, 9], 9)
    told = answer(agent()("journal", after=3, limit=2))
    assert ([event["seq"] for event in told["events"]], told["next_after"]) == ([4, 5], 5)
    assert answer(agent()("journal", after=9))["next_after"] is None


def test_acts_become_commands_with_reason_and_key(agent, daemon, token):
    """Each tool is one command of the daemon, by the token's owner, and the answer says what will happen."""
    call = agent(token=token(Role.OPERATOR), act=True)
    done = answer(call("isolate", node="node-0001", reason="disk fails", duration="10m", idempotency_key="disk-1"))
    assert done == {
        "text": "it will be done",
        "repeated": False,
        "seq": 11,
        "hash": "cd" * 32,
        "idempotency_key": "disk-1",
    }
    answer(call("isolate", node="node-0002", reason="r"))
    answer(call("restore", node="node-0001", reason="r"))
    answer(call("pause", duration="30m", reason="r"))
    answer(call("resume", reason="r"))
    answer(call("approve_proposal", proposal_id=PROPOSAL, reason="r"))
    answer(call("reject_proposal", proposal_id=PROPOSAL, reason="r"))
    assert [sent.command for sent in daemon.commands] == [
        {"command": "isolate", "node": "node-0001", "for_s": 600.0},
        {"command": "isolate", "node": "node-0002", "for_s": None},
        {"command": "restore", "node": "node-0001"},
        {"command": "pause", "for_s": 1800.0},
        {"command": "resume"},
        {"command": "proposal decide", "proposal": PROPOSAL, "approve": True},
        {"command": "proposal decide", "proposal": PROPOSAL, "approve": False},
    ]
    assert (daemon.commands[0].by, daemon.commands[0].reason) == ("agent-operator", "disk fails")
    assert daemon.commands[0].key == "agent-operator:disk-1"
    assert len({sent.key for sent in daemon.commands}) == 7


@pytest.mark.parametrize(
    ("role", "told"), [(Role.VIEWER, "agent-viewer is a viewer; this takes the role operator"), (None, "bearer token")]
)
def test_acts_need_an_operators_token(agent, daemon, token, role, told):
    """A viewer's token, or none, is refused by the API; nothing is done, and no token is shown."""
    secret = None if role is None else token(role)
    text = error(agent(token=secret, act=True)("pause", duration="1m", reason="r"))
    assert told in text
    assert secret is None or secret not in text
    assert daemon.commands == []


def test_a_refusal_names_its_guard(agent, daemon, token):
    """What a guard forbade is an error with the guard and its words, and with its event where it has one."""
    call = agent(token=token(Role.OPERATOR), act=True)
    daemon.answer = Answer(accepted=False, text="3 of 7 would be out", guard=Guard.BUDGET_CLUSTER)
    text = error(call("isolate", node="node-0001", reason="r"))
    assert "refused by guard budget_cluster: 3 of 7 would be out. Nothing was done. It is journal event 11." in text
    daemon.answer = Answer(accepted=False, text="it is not paused")
    text = error(call("resume", reason="r"))
    assert "refused: it is not paused. Nothing was done." in text
    daemon.answer = Answer(accepted=False, text="key k was used for another command", repeated=True)
    text = error(call("resume", reason="r", idempotency_key="k"))
    assert text.endswith("refused: key k was used for another command. Nothing was done.")


def test_a_busy_daemon_asks_for_patience(agent, daemon, token):
    """Its turn did not come: nothing was done, and that is said."""
    daemon.busy = True
    text = error(agent(token=token(Role.OPERATOR), act=True)("resume", reason="r"))
    assert "not now: the daemon is in the middle of something, and nothing was done; try again" in text


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("isolate", {"node": "n"}, "reason\n  Field required"),
        ("isolate", {"node": "n", "reason": "  "}, "reason\n  String should match"),
        ("isolate", {"node": "", "reason": "r"}, "node\n  String should have at least 1"),
        ("isolate", {"node": "n", "reason": "r", "force": True}, "force\n  Extra inputs are not permitted"),
        ("pause", {"duration": "forever", "reason": "r"}, "'forever' is no duration"),
        ("pause", {"duration": "99999h", "reason": "r"}, "bad arguments"),
        ("resume", {"reason": "r", "idempotency_key": "a b"}, "idempotency_key\n  String should match"),
        ("nodes", {"status": "bogus"}, "status\n  Input should be '', 'healthy', 'suspect', 'isolating', 'isolated'"),
        ("proposals", {"status": "bogus"}, "status\n  Input should be '', 'proposed', 'approved', 'rejected'"),
        ("nodes", {"limit": 101}, "limit\n  Input should be less than or equal to 100"),
        ("journal", {"after": -1}, "after\n  Input should be greater than or equal to 0"),
        ("nobody", {}, "Unknown tool: nobody"),
    ],
)
def test_bad_arguments_are_told_and_do_nothing(agent, daemon, token, name, arguments, told):
    """What does not fit is named; what was given is not repeated, and no command is sent."""
    assert told in error(agent(token=token(Role.OPERATOR), act=True)(name, **arguments))
    assert daemon.commands == []


def test_without_a_daemon_every_tool_says_so(agent, token):
    """Questions say what to do; commands say besides that their outcome is unknown, and the key to ask again with."""
    call = agent(url="http://127.0.0.1:1", token=token(Role.OPERATOR), act=True)
    questions = {"history": {"metric": "gas"}, "explain": {"subject": "n"}, "proposal": {"proposal_id": "p"}}
    questions["verify_proposal"] = {"proposal_id": "p"}
    for name in READ - {"backtest_change"}:
        text = error(call(name, **questions.get(name, {})))
        assert "the API at http://127.0.0.1:1 cannot be reached: nothing listens there; start iace govern" in text
    text = error(call("restore", node="n", reason="r"))
    assert re.search(r"is not known: .* idempotency_key '[0-9a-f-]{36}', which does nothing twice", text)
    assert "idempotency_key 'mine'" in error(call("resume", reason="r", idempotency_key="mine"))


@pytest.fixture
def recorded(tmp_path):
    """The daemon's telemetry: six nodes for 120 s, of which node-3 is at |g| 1.7 from 40 s to 100 s."""
    (tmp_path / "govern").mkdir()
    store = SqliteStore(tmp_path / "govern" / "telemetry.db")
    points = []
    for tick in range(120):
        points.append(Point("kpi.coherence", tick * NS, 0.95))
        for node in range(6):
            bad = node == 3 and 40 <= tick < 100
            points.append(Point(f"node.node-{node}.gravity", tick * NS, 1.7 if bad else 0.2))
    store.write(points)
    store.close()
    return tmp_path


@pytest.mark.usefixtures("recorded")
def test_a_backtest_tells_what_would_have_been_different(agent):
    """With a higher critical |g| the isolation is dropped, and the totals say what that would have cost."""
    told = answer(agent()("backtest_change", settings={"gravity.critical": 1.9}))
    assert told["recording"] == {
        "source": told["recording"]["source"],
        "ticks": 120,
        "first_s": 0.0,
        "last_s": 119.0,
        "nodes": 6,
        "bad_rows": 0,
        "evidence": "recorded gravity",
    }
    assert told["changed"] == {"gravity.critical": {"before": 1.5, "after": 1.9}}
    assert (told["totals_before"]["isolations"], told["totals_after"]["isolations"]) == (1, 0)
    assert told["verdict"] == "worse"
    assert told["cost_node_s_after"] == 60.0
    isolation = told["only_before"][1]
    assert (isolation["at_s"], isolation["kind"], isolation["subject"]) == (42.0, "ISOLATION_INTENDED", "node-3")
    assert isolation["reason"] == "|g| 1.70 above 1.5 for 3 ticks"
    assert (told["only_after"], told["only_after_total"]) == ([], 0)
    assert told["same_configuration_as_daemon"] is None
    assert told["not_applied"]
    shorter = answer(agent()("backtest_change", settings={"gravity.critical": 1.9}, last="15s"))
    assert (shorter["recording"]["ticks"], shorter["verdict"]) == (15, "as good")
    longest = answer(agent()("backtest_change", settings={"gravity.critical": 1.9}, last="9" * 30 + "h"))
    assert longest["recording"]["ticks"] == 120


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"plant.url": "http://elsewhere"}, "'plant.url' is no setting that a backtest can try"),
        ({"influxdb.token_file": "/etc/passwd"}, "is no setting that a backtest can try"),
        ({"gravity": 1.9}, "'gravity' is no setting that a backtest can try"),
        ({"gravity.critcal": 1.9}, "did you mean critical? (from `settings`)"),
        ({"gravity.critical": -1}, "gravity.critical: should be greater than"),
        ({"kpi.coherenc.healthy": 0.9}, "kpi.coherenc"),
        ({"gravity.critical": 1.5}, "these settings are in force already"),
        ({}, "settings\n  Dictionary should have at least 1 item"),
    ],
)
def test_a_backtest_takes_only_settings_of_the_policy(agent, settings, told):
    """Neither files nor addresses, nothing unknown, nothing out of range, and nothing that changes nothing."""
    assert told in error(agent()("backtest_change", settings=settings))


def test_a_backtest_runs_on_the_recording_it_was_given(agent, tmp_path):
    """A recording named on the command line takes the place of the daemon's telemetry."""
    rows = [f"{tick},,coherence,0.95" for tick in range(30)]
    rows += [f"{tick},n{node},gravity,0.2" for tick in range(30) for node in range(5)]
    path = tmp_path / "recorded.csv"
    path.write_text("time,node,metric,value\n" + "\n".join(rows) + "\n")
    told = answer(agent(source=str(path))("backtest_change", settings={"kpi.coherence.healthy": 0.97}))
    assert told["changed"] == {"kpi.coherence.healthy": {"before": 0.9, "after": 0.97}}
    assert (told["recording"]["source"], told["recording"]["nodes"]) == (str(path), 5)
    assert "no.csv cannot be read" in error(
        agent(source="no.csv")("backtest_change", settings={"gravity.critical": 1.9})
    )


def test_a_backtest_is_bounded(agent, recorded, monkeypatch):
    """Too much of the past is refused before it is read, and so is a second backtest at the same time."""
    change = {"gravity.critical": 1.9}
    monkeypatch.setattr(backtest_tool, "SAMPLES_MAX", 839)
    assert "about 840 samples are more than 839: ask with a shorter `last`" in error(
        agent()("backtest_change", settings=change)
    )
    monkeypatch.setattr(backtest_tool, "SAMPLES_MAX", 10_000)
    monkeypatch.setattr(backtest_tool, "TICKS_MAX", 100)
    assert "120 ticks are more than 100" in error(agent()("backtest_change", settings=change))
    tool = backtest_tool.BacktestTool(Bench(None, recorded, None))
    with tool._turn, pytest.raises(backtest_tool.ToolError, match="another backtest is running"):
        tool.backtest_change(change, None)
    (recorded / "govern" / "telemetry.db").unlink()
    assert "start iace mcp with the --data-dir of the daemon" in error(agent()("backtest_change", settings=change))


def test_a_backtest_tells_how_far_it_is(agent, recorded):
    """A client that asks for progress hears of it while it waits."""
    heard = []

    async def talk():
        async def hear(done, total, _message):
            heard.append((done, total))

        async with Client(agent().server) as client:
            change = {"settings": {"gravity.critical": 1.9}}
            return await client.call_tool("backtest_change", change, progress_callback=hear)

    assert recorded
    answer(anyio.run(talk))
    assert heard == [(100, 360), (200, 360), (300, 360)]


def test_a_backtest_knows_the_daemons_configuration(agent, recorded):
    """Whether the daemon runs with the configuration that a backtest starts from is read from its journal."""
    journal = Journal(recorded / "govern" / "journal.db")
    for kind, data, same in (
        (EventKind.RUN_STARTED, {"epoch": 1, "config_sha256": fingerprint(Config())}, True),
        (EventKind.CONFIG_RELOADED, {"sha256": "ab" * 32, "changed": [], "by": "SIGHUP"}, False),
    ):
        journal.append([Event(kind, 0.0, data)], epoch=1, wall_time="2026-01-01T00:00:00Z")
        told = answer(agent()("backtest_change", settings={"gravity.critical": 1.9}))
        assert told["same_configuration_as_daemon"] is same
    journal.close()


def test_pages_can_be_read(agent):
    """The glossary from the code, the project's pages with every runbook, and a prompt that changes nothing."""
    server = agent().server

    async def talk():
        async with Client(server) as client:
            there = {resource.uri: resource for resource in (await client.list_resources()).resources}
            texts = {}
            for uri in ("iace://glossary", "iace://docs/runbooks/IaceStorm.md", "iace://docs/proposal.schema.json"):
                (content,) = (await client.read_resource(uri)).contents
                texts[uri] = content.text
            prompt = await client.get_prompt("investigate", {"symptom": "coherence falls"})
            return there, texts, prompt.messages[0].content.text, client.instructions

    there, texts, prompt, instructions = anyio.run(talk)
    assert {"iace://docs/model.md", "iace://docs/agents.md", "iace://docs/report.schema.json"} <= there.keys()
    assert there["iace://docs/runbooks/IaceStorm.md"].mime_type == "text/markdown"
    assert "- SAFE_MODE: fail-static: observe and alarm, change nothing" in texts["iace://glossary"]
    assert "- `action_cost` (1): I_eff" in texts["iace://glossary"]
    assert texts["iace://docs/runbooks/IaceStorm.md"].startswith("# IaceStorm")
    assert json.loads(texts["iace://docs/proposal.schema.json"])["title"] == "IACE improvement proposal"
    assert "Investigate this symptom of the cluster that IACE governs: coherence falls" in prompt
    assert "Never guess" in instructions


def test_acting_needs_a_token_from_the_start(monkeypatch, tmp_path, capsys):
    """`--allow-act` without a token ends in 77 and says how to get one; an empty token file in 78."""
    monkeypatch.delenv("IACE_TOKEN", raising=False)
    assert main(["mcp", "--allow-act"]) == 77
    told = capsys.readouterr()
    assert "--allow-act needs an operator's token: name its file with --token-file" in told.err
    assert told.out == ""
    (tmp_path / "empty").touch()
    assert main(["mcp", "--allow-act", "--token-file", str(tmp_path / "empty")]) == 78
    assert "must hold one token" in capsys.readouterr().err


def test_without_the_library_the_command_says_what_to_install(monkeypatch, capsys):
    """Where the extra was not installed there is a sentence and 78, no traceback."""
    for name in [name for name in sys.modules if name.startswith("controller.agents")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mcp"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["mcp"]) == 78
    assert "the package mcp is not installed: pip install 'iace[agents]'" in capsys.readouterr().err


@pytest.fixture
def governing(start_iace, tmp_path):
    """A daemon over ten nodes at 20 ticks a second: its address."""
    process = start_iace(
        "govern", "--nodes", 10, "--interval", 0.05, "--data-dir", tmp_path, env={"IACE_API__PORT": "0"}
    )
    ends_s = time.monotonic() + 60
    while (told := re.search(r"answers at (http://\S+)", (process.cwd / "stderr").read_text())) is None:
        assert process.poll() is None, (process.cwd / "stderr").read_text()
        assert time.monotonic() < ends_s
        time.sleep(0.05)
    return told[1]


@pytest.mark.process
def test_an_agent_and_a_daemon_over_standard_input_and_output(governing, tmp_path):
    """The real command before a real daemon: asked, told, told again, refused; standard error shows no token."""
    secret = TokenFile(tmp_path / FILE).create("agent", Role.OPERATOR)
    file = tmp_path / "agent.token"
    file.write_text(secret)
    command = f"-m controller mcp --api {governing} --allow-act --data-dir {tmp_path} --token-file {file}"
    parameters = StdioServerParameters(
        command=sys.executable, args=command.split(), cwd=tmp_path, env={"PYTHONWARNINGS": "error"}
    )

    async def talk():
        with (tmp_path / "log").open("w") as log:
            async with Client(stdio_client(parameters, errlog=log)) as client:

                async def ask(name, **arguments):
                    return await client.call_tool(name, arguments)

                results = {"nodes": await ask("nodes", limit=3), "kpis": await ask("kpis")}
                node = results["nodes"].structured_content["nodes"][0]["node"]
                results["explain"] = await ask("explain", subject=node)
                for name in ("nobody", "nobody again"):
                    results[name] = await ask("isolate", node="nobody", reason="a test", idempotency_key="k1")
                results["other"] = await ask("isolate", node=node, reason="a test", idempotency_key="k1")
                results["unpaused"] = await ask("resume", reason="a test")
                results["bad"] = await ask("history", metric="nope")
                results["journal"] = await ask("journal", limit=100)
                results["backtest"] = await ask("backtest_change", settings={"isolation.confirm_ticks": 5}, last="20s")
                return results

    results = anyio.run(talk)
    assert len(answer(results["nodes"])["nodes"]) == 3
    assert {"coherence", "gas", "rsi"} <= {kpi["name"] for kpi in answer(results["kpis"])["kpis"]}
    assert answer(results["explain"])["explanation"]["node"]
    assert "refused: the plant shows no node nobody" in error(results["nobody"])
    assert error(results["nobody again"]).split(".")[0] == error(results["nobody"]).split(".")[0]
    assert "was used for another command" in error(results["other"])
    assert "refused" in error(results["unpaused"])
    assert "not found" in error(results["bad"])
    refused = [e["data"] for e in answer(results["journal"])["events"] if e["kind"] == "COMMAND_REFUSED"]
    assert [(data["asked"]["command"], data["by"]) for data in refused] == [("isolate", "agent"), ("resume", "agent")]
    backtest = answer(results["backtest"])
    assert backtest["recording"]["nodes"] == 10
    assert backtest["same_configuration_as_daemon"] is False  # it was started with --nodes and --interval
    assert secret not in (tmp_path / "log").read_text()
    assert not [text for text in map(str, results.values()) if secret in text]
