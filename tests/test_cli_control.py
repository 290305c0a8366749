"""The commands that speak to a running daemon: what they print, what they send, and the codes they end in."""

import json
import socket
import threading
from pathlib import Path

import pytest

from controller import watch
from controller.api.server import ApiServer
from controller.api_client import ApiClient
from controller.cli import main
from controller.settings import ApiSettings
from metrics.errors import NotPermittedError
from state.decision import Answer
from state.isolation import Guard

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.fixture
def daemon(fake_daemon, tmp_path, monkeypatch):
    """A fake daemon behind its API, which the commands find by IACE_API."""
    port = fake_daemon.FakePort(tmp_path)
    port.fill(3)
    server = ApiServer(port, ApiSettings(rate_per_s=1e6, burst=1e6), tmp_path)
    monkeypatch.setenv("IACE_API", f"http://127.0.0.1:{server.start(0)}")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("IACE_TOKEN", raising=False)
    yield port
    server.stop()


@pytest.fixture
def token(tmp_path, capsys):
    """Call it with a role for a token's file, made by the command."""

    def make(role, name="alice"):
        assert main(["token", "create", name, "--role", role, "--data-dir", str(tmp_path)]) == 0
        file = tmp_path / f"{name}.token"
        file.write_text(capsys.readouterr().out)
        return str(file)

    return make


def out(capsys, *arguments, code=0):
    assert main(list(arguments)) == code
    return capsys.readouterr().out


def test_status_tells_where_it_stands(daemon, capsys):
    """Phase, plant, nodes and wells; with a hold its reason and the way out."""
    text = out(capsys, "status")
    assert "GOVERNING: gravity-well daemon" in text
    assert "node-0004" in text
    held = {**daemon.state(), "phase": "SAFE_MODE", "safe_mode": {"reason": "storm\x1b[2J", "way_out": "wait"}}
    daemon.state = lambda: held
    text = out(capsys, "status")
    assert "storm" in text
    assert "way out" in text
    assert "\x1b" not in text
    assert json.loads(out(capsys, "status", "--format", "json"))["phase"] == "SAFE_MODE"


def test_status_tells_what_approved_proposals_wait_for(daemon, capsys):
    """A line for each, with the guard that forbids its trial."""
    waits = {"proposal": "p-1", "waits_for": "guard holdoff: 30, limit 60", "guard": "holdoff"}
    told = {**daemon.state(), "waiting": [waits]}
    daemon.state = lambda: told
    assert "p-1 waits for guard holdoff: 30, limit 60" in out(capsys, "status")


def test_status_tells_of_a_lost_plant_and_of_what_was_not_done(daemon, capsys):
    """A plant that does not answer, and refusals by rule and guard with their number."""
    refusals = [{"rule": "isolate", "guard": "budget_cluster", "count": 7}]
    lost = {**daemon.state(), "connected": False, "refusals": refusals}
    daemon.state = lambda: lost
    text = out(capsys, "status")
    assert "plant lost" in text
    assert "isolate by budget_cluster 7 times" in text


def test_nodes_are_a_table_with_gravity_status_and_why(capsys):
    """The worst first; chosen by status and number; what is not known says so."""
    lines = out(capsys, "nodes").splitlines()
    rows = [line.split() for line in lines if line.strip().startswith("node-")]
    assert [row[0] for row in rows] == ["node-0004", "node-0002", "node-0001", "node-0000", "node-0003"]
    assert rows[0][1:5] == ["c0", "2.00", "isolated", "2026-01-01T00:15:00"]
    assert rows[-1][2] == "unknown"
    assert "isolated by policy" in lines[3]
    assert "and 3 more" in out(capsys, "nodes", "--limit", "2")
    assert json.loads(out(capsys, "nodes", "--status", "isolated", "--format", "json"))["total"] == 1


def test_a_misspelt_status_is_a_wrong_command_line(capsys):
    """It is no answer of nothing, and what could be meant is told."""
    assert main(["nodes", "--status", "bogus"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "iace: refused: status: Input should be '', 'healthy', 'suspect', " in told.err


def test_explain_tells_why(capsys):
    """A node by its name, an event by its sequence; 1 for what nobody knows."""
    assert "isolated by policy" in out(capsys, "explain", "node-0004")
    assert "event 3 at 3 s: SEEN" in out(capsys, "explain", "3")
    assert main(["explain", "a/b?c"]) == 1
    assert "nothing is known of that" in capsys.readouterr().err


def test_proposals_are_listed_and_shown(capsys):
    """All in a table, one in full, 1 for one that is not there."""
    assert "p-0123456789ab" in out(capsys, "proposals", "list")
    assert "Raise the budget" in out(capsys, "proposals", "show", "p-0123456789ab")
    assert main(["proposals", "show", "p-nope"]) == 1


def test_commands_are_sent_with_reason_and_key(daemon, token, capsys):
    """Each control command becomes one command of the daemon, by its token's owner, with a key of its own."""
    common = ["--reason", "a test", "--token-file", token("operator")]
    for arguments in (
        ["isolate", "node-0001", "--for", "10m"],
        ["restore", "node-0001"],
        ["exempt", "node-0001", "--kind", "maintenance", "--for", "2h", "--in", "1h"],
        ["exempt", "node-0001", "--end"],
        ["pause", "--for", "30m"],
        ["resume"],
        ["safe-mode", "clear"],
        ["proposals", "approve", "p-0123456789ab"],
        ["proposals", "reject", "p-0123456789ab"],
        ["reload"],
    ):
        event = f" (journal event {10 + len(daemon.commands) + 1})" if arguments != ["reload"] else ""
        assert out(capsys, *arguments, *common) == f"it will be done{event}\n"
    assert [done.command for done in daemon.commands] == [
        {"command": "isolate", "node": "node-0001", "for_s": 600.0},
        {"command": "restore", "node": "node-0001"},
        {"command": "exempt", "node": "node-0001", "kind": "maintenance", "for_s": 7200.0, "in_s": 3600.0},
        {"command": "exempt end", "node": "node-0001"},
        {"command": "pause", "for_s": 1800.0},
        {"command": "resume"},
        {"command": "safe-mode clear"},
        {"command": "proposal decide", "proposal": "p-0123456789ab", "approve": True},
        {"command": "proposal decide", "proposal": "p-0123456789ab", "approve": False},
    ]
    assert {(done.by, done.reason) for done in daemon.commands} == {("alice", "a test")}
    assert len({done.key for done in daemon.commands}) == 9
    assert daemon.reloads == ["alice (a test)"]


def test_a_refused_command_ends_in_1(daemon, token, capsys):
    """The daemon's no is told with its guard; as JSON it is the answer itself."""
    daemon.answer = Answer(accepted=False, text="guard quorum forbids it", guard=Guard.QUORUM)
    command = ["isolate", "node-0001", "--reason", "r", "--token-file", token("operator")]
    assert main(command) == 1
    assert capsys.readouterr().err == "iace: refused: guard quorum forbids it (guard quorum)\n"
    assert json.loads(out(capsys, *command, "--format", "json", code=1))["guard"] == "quorum"


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["nodes"],
        ["watch", "--ticks", "1"],
        ["explain", "node-0001"],
        ["proposals", "list"],
        ["proposals", "show", "p"],
    ],
    ids=" ".join,
)
def test_a_refused_question_ends_in_1(fake_daemon, tmp_path, monkeypatch, capsys, command):
    """Whatever the API says no to, its own words are told; as JSON they are the answer itself."""
    server = ApiServer(fake_daemon.FakePort(tmp_path), ApiSettings(rate_per_s=1e-6, burst=1), tmp_path)
    monkeypatch.setenv("IACE_API", f"http://127.0.0.1:{server.start(0)}")
    try:
        assert main(["status"]) == 0
        capsys.readouterr()
        assert main(command) == 1
        told = capsys.readouterr().err
        assert told.startswith("iace: refused: too many requests")
        assert json.loads(out(capsys, *command, "--format", "json", code=1))["status"] == "error"
    finally:
        server.stop()


@pytest.mark.parametrize("command", [["nodes", "--limit"], ["watch", "--ticks"]], ids=" ".join)
@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5"])
def test_a_number_below_1_is_a_wrong_command_line(capsys, command, number):
    """Nothing is asked for by it."""
    with pytest.raises(SystemExit, match="2"):
        main([*command, number])
    assert f"{command[1]}: '{number}' is no whole number from 1 on" in capsys.readouterr().err


def test_without_permission_it_is_77(daemon, token, monkeypatch, capsys):
    """No token, a viewer's or a revoked one ends in 77 and changes nothing; the token is never printed."""
    command = ["pause", "--for", "30m", "--reason", "r"]
    assert main(command) == 77
    viewer = token("viewer", "bob")
    monkeypatch.setenv("IACE_TOKEN", Path(viewer).read_text().strip())
    assert main(command) == 77
    told = capsys.readouterr().err
    assert "bob is a viewer; this takes the role operator" in told
    assert "iace_" not in told.replace("IACE_TOKEN", "")
    assert main(["status"]) == 0
    assert daemon.commands == []


def test_where_nothing_answers_it_is_69(capsys):
    """No daemon, or something else that listens there, is 69 with what to do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert main(["status", "--api", f"http://127.0.0.1:{free.getsockname()[1]}"]) == 69
    assert "start iace govern" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_answer_nonsense, args=(other,)).start()
        assert main(["status", "--api", f"http://127.0.0.1:{other.getsockname()[1]}"]) == 69
    assert "is no IACE daemon" in capsys.readouterr().err


def _answer_nonsense(server):
    connection, _ = server.accept()
    with connection:
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def test_a_wrong_address_or_duration_is_told(capsys):
    """An address that is none is 78, a duration that is none 2."""
    assert main(["status", "--api", "ftp://somewhere"]) == 78
    with pytest.raises(SystemExit, match="2"):
        main(["pause", "--for", "soon", "--reason", "r"])
    with pytest.raises(SystemExit, match="2"):
        main(["pause", "--for", "30m"])
    assert "--reason" in capsys.readouterr().err


def test_a_token_is_not_sent_in_clear_to_another_machine():
    """Plain http is for this machine alone."""
    with pytest.raises(NotPermittedError, match="use https"):
        ApiClient("http://iace.example:8470", "iace_secret")
    assert ApiClient("https://iace.example", "iace_secret").url == "https://iace.example:443"


def test_watch_prints_a_line_for_each_tick(capsys):
    """Without a terminal one line a tick, or one object; it ends when it is asked to."""
    line = out(capsys, "watch", "--ticks", "1")
    assert "tick 3 GOVERNING STABLE coherence 0.96" in line
    assert json.loads(out(capsys, "watch", "--ticks", "1", "--format", "json"))["tick"] == 3


def test_watch_takes_a_broken_stream_up_again(monkeypatch, capsys):
    """A stream that ends is asked for anew after the last tick seen; one that keeps ending is given up."""

    class Broken:
        url = "http://127.0.0.1:1"

        def __init__(self):
            self.asked = []

        def events(self, last_id):
            self.asked.append(last_id)
            if len(self.asked) <= 2:
                yield str(len(self.asked)), {"tick": len(self.asked)}

    monkeypatch.setattr(watch, "RETRY_S", 0.0)
    broken = Broken()
    with pytest.raises(watch.ApiUnreachableError, match="keeps ending"):
        watch.watch(broken, ticks=None, as_json=True)
    assert broken.asked[:3] == [None, "1", "2"]
    assert [json.loads(line)["tick"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


def test_tokens_are_created_listed_and_revoked(token, tmp_path, capsys):
    """The token is shown once, the list shows everything else, a revoked one says so."""
    secret = Path(token("operator")).read_text().strip()
    listed = json.loads(out(capsys, "token", "list", "--format", "json", "--data-dir", str(tmp_path)))
    assert [(entry["name"], entry["role"], entry["standing"]) for entry in listed] == [("alice", "operator", "valid")]
    assert secret not in json.dumps(listed)
    assert main(["token", "revoke", "alice", "--data-dir", str(tmp_path)]) == 0
    assert "revoked" in out(capsys, "token", "list", "--data-dir", str(tmp_path))
    assert main(["token", "revoke", "alice", "--data-dir", str(tmp_path)]) == 65
    assert main(["token", "create", "a b", "--data-dir", str(tmp_path)]) == 65
    assert main(["token", "create", "c", "--expires-in", "never", "--data-dir", str(tmp_path)]) == 2


def findings(capsys, tmp_path, *arguments, code):
    text = out(capsys, "doctor", "--format", "json", "--data-dir", str(tmp_path), *arguments, code=code)
    return {item["name"]: item for item in json.loads(text)}


def test_the_doctor_finds_nothing_wrong_where_nothing_is(tmp_path, monkeypatch, capsys):
    """A sound set-up ends in 0, with what was skipped and why."""
    monkeypatch.chdir(tmp_path)
    found = findings(capsys, tmp_path, code=0)
    assert {name: item["standing"] for name, item in found.items()} == {
        "permissions": "ok",
        "stores": "skipped",
        "plant": "ok",
        "api": "ok",
        "tokens": "ok",
        "influxdb": "skipped",
        "prometheus": "skipped",
        "grafana": "skipped",
        "clock": "skipped",
    }
    assert "found" in out(capsys, "doctor", "--data-dir", str(tmp_path))


def test_the_doctor_says_how_to_mend_each(token, tmp_path, monkeypatch, capsys):
    """Whatever is wrong is a finding with a remedy, all at once, and the code is 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IACE_API", "http://127.0.0.1:1")
    monkeypatch.setenv("IACE_INFLUXDB__URL", "http://127.0.0.1:1")
    monkeypatch.setenv("IACE_PLANT__KIND", "http")
    monkeypatch.setenv("IACE_PLANT__URL", "http://127.0.0.1:1")
    token("viewer")
    servers = ["--prometheus", "http://127.0.0.1:1", "--grafana", "nonsense"]
    found = findings(capsys, tmp_path, *servers, code=1)
    wrong = {name: item["mend"] for name, item in found.items() if item["standing"] == "finding"}
    assert set(wrong) == {"plant", "api", "tokens", "influxdb", "prometheus", "grafana"}
    assert all(wrong.values())
    assert wrong["tokens"] == "iace token create NAME --role operator"
    assert findings(capsys, tmp_path, "--skip", "api", code=1)["api"]["standing"] == "skipped"


def test_the_doctor_sees_a_daemon_that_does_not_govern_and_files_of_others(
    daemon, token, tmp_path, monkeypatch, capsys
):
    """Alive and not ready is a finding; so is a token file that others may read."""
    monkeypatch.chdir(tmp_path)
    token("operator")
    (tmp_path / "tokens.json").chmod(0o644)
    daemon.missing = ["PHASE_I is not over"]
    found = findings(capsys, tmp_path, code=1)
    assert "PHASE_I is not over" in found["api"]["text"]
    assert found["tokens"]["mend"].startswith("chmod 600 ")
