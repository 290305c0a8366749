"""The HTTP API through WSGI: shapes of the answers, who may do what, what is refused and how."""

import json
import math
from types import SimpleNamespace
from typing import get_args

import jsonschema_rs
import pytest
import schemathesis.specs.openapi.definitions as openapi

from controller.api.app import STREAM, create_app
from controller.api.auth import Role, TokenFile
from controller.api.models import NodeStanding, ProposalStanding
from controller.daemon_view import OUT_ELSEWHERE
from controller.port import FailedError
from controller.settings import ApiSettings
from metrics.errors import StoreFailedError
from state.decision import Answer
from state.durable import NodeStatus
from state.isolation import Guard
from state.proposal_record import ProposalStatus

GET_ROUTES = (
    "/api/control/state",
    "/api/explain/node-0004",
    "/api/journal",
    "/api/nodes",
    "/api/proposals",
    "/api/proposals/p-0123456789ab",
    "/api/telemetry/current",
    "/api/telemetry/history/coherence",
    "/api/telemetry/metrics",
    "/api/telemetry/status",
    "/api/telemetry/stream?events=1",
    "/metrics",
)
OPEN_ROUTES = ("/docs", "/livez", "/openapi.json", "/readyz")
COMMANDS = {
    "/api/control/exempt": {"node": "node-0001", "kind": "veto", "for_s": 60},
    "/api/control/exempt/end": {"node": "node-0001"},
    "/api/control/isolate": {"node": "node-0001"},
    "/api/control/pause": {"for_s": 60},
    "/api/control/reload": {},
    "/api/control/restore": {"node": "node-0001"},
    "/api/control/resume": {},
    "/api/control/safe-mode/clear": {},
    "/api/proposals/p-0123456789ab/approve": {},
    "/api/proposals/p-0123456789ab/reject": {},
}
QECS_WRITES = (
    ("POST", "/ledger/commit"),
    ("POST", "/nodes/n/isolate"),
    ("POST", "/nodes/n/restore"),
    ("PUT", "/parameters"),
    ("POST", "/faults"),
)


@pytest.fixture
def api(fake_daemon, tmp_path):
    """The API of a fake daemon with 100 ticks of history: `client`, `port`, `tokens`, `app`; `remake` changes it."""

    def remake(blueprint=None, **settings):
        unhurried = {"rate_per_s": 1e6, "burst": 1e6}
        app = create_app(port, ApiSettings(**{**unhurried, **settings}), tokens, blueprint)
        app.extensions[STREAM].start()
        port.telemetry.publish(fake_daemon.frame(100))
        made.append(app.extensions[STREAM])
        return SimpleNamespace(app=app, client=app.test_client(), port=port, tokens=tokens, remake=remake)

    port, tokens, made = fake_daemon.FakePort(tmp_path), TokenFile(tmp_path / "tokens.json"), []
    port.fill(100)
    yield remake()
    for hub in made:
        hub.stop()


@pytest.fixture
def operator(api):
    return {"Authorization": f"Bearer {api.tokens.create('ops', Role.OPERATOR)}"}


def test_current_has_the_shape_that_dashboards_read(api):
    """Names, values and health of the latest tick; what is not known is null."""
    answer = api.client.get("/api/telemetry/current").get_json()
    data = answer["data"]
    assert answer["status"] == "success"
    known = {
        "timestamp": "2026-01-01T00:01:40.000+00:00",
        "phase": "GOVERNING",
        "coherence": 0.96,
        "gas": 0.97,
        "rsi": 0.9,
        "lambda_opt": 0.5,
        "delta_lambda": 0.001,
        "caf_emission": 12.5,
        "gravity_well_count": 1.0,
        "stable_clusters": 7.0,
        "transaction_rate": 310.0,
        "system_health": "STABLE",
    }
    assert {name: data[name] for name in known} == known
    assert data["supply"] is None
    assert data["parameters"] == {"lambda1": 0.3}
    assert (data["tick"], data["plant_time_s"]) == (100, 100.0)


@pytest.mark.parametrize(
    ("kpis", "health"),
    [({}, "STABLE"), ({"gas": 0.94}, "WARNING"), ({"rsi": math.nan}, "WARNING"), ({"coherence": 0.8}, "CRITICAL")],
)
def test_health_follows_the_limits(api, fake_daemon, kpis, health):
    """A KPI beyond its healthy bound or unknown is a warning, beyond its critical one critical."""
    api.port.telemetry.publish(fake_daemon.frame(101, **kpis))
    assert api.client.get("/api/telemetry/current").get_json()["data"]["system_health"] == health


def test_before_the_first_tick_there_is_nothing_to_tell(fake_daemon, tmp_path):
    """No tick yet is 503 with a hint when to ask again, and NO_DATA as a status."""
    port = fake_daemon.FakePort(tmp_path)
    client = create_app(port, ApiSettings(), TokenFile(tmp_path / "tokens.json")).test_client()
    answer = client.get("/api/telemetry/current")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    status = client.get("/api/telemetry/status").get_json()
    assert (status["system_status"], status["latest_update"], status["history_records"]) == ("NO_DATA", None, 0)


def test_history_gives_samples_with_their_times(api):
    """Samples oldest first, the newest being the last tick."""
    answer = api.client.get("/api/telemetry/history/coherence").get_json()
    assert (answer["status"], answer["metric"], len(answer["data"])) == ("success", "coherence", 100)
    assert answer["data"][0] == {"timestamp": "2026-01-01T00:00:00.000+00:00", "value": 0.0}
    assert answer["data"][-1] == {"timestamp": "2026-01-01T00:01:39.000+00:00", "value": 0.99}


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("start=1767225602&end=1767225605", [0.02, 0.03, 0.04]),
        ("start=2026-01-01T00:00:02Z&end=2026-01-01T00:00:05Z", [0.02, 0.03, 0.04]),
        ("start=1767225600&end=1767225620&step=10", [0.045, 0.145]),
        ("start=1767225600&end=1767225620&step=10&aggregate=max", [0.09, 0.19]),
        ("start=1767225600&end=1767225620&step=10&aggregate=min", [0.0, 0.1]),
        ("start=1767225600&end=1767225620&step=10&aggregate=last", [0.09, 0.19]),
        ("hours=0.001&end=1767225610", [0.07, 0.08, 0.09]),
        ("start=1767225605&end=1767225602", []),
        ("start=0001-01-01T00:00:00Z&end=1767225601", [0.0]),
        ("start=9999-01-01T00:00:00Z", []),
    ],
)
def test_history_is_cut_and_aggregated(api, query, values):
    """Window, step and aggregate are those that were asked for."""
    answer = api.client.get(f"/api/telemetry/history/coherence?{query}").get_json()
    assert [sample["value"] for sample in answer["data"]] == pytest.approx(values)


def test_a_long_history_is_thinned(api, monkeypatch):
    """More samples than are sent at once come as means of longer steps, and the answer says so."""
    monkeypatch.setattr("controller.api.telemetry.SAMPLES_MAX", 10)
    answer = api.client.get("/api/telemetry/history/coherence?start=1767225600").get_json()
    assert (len(answer["data"]), answer["step_s"], answer["aggregate"]) == (10, 10.0, "mean")
    finer = api.client.get("/api/telemetry/history/coherence?start=1767225600&step=1").get_json()
    assert (len(finer["data"]), finer["step_s"]) == (10, 10.0)


@pytest.mark.parametrize(
    "name", ["cs", "caf_emission", "gravity_well_count", "parameter.lambda1", "node.node-0001.gravity"]
)
def test_history_knows_the_names_of_others(api, name):
    """Older clients' names, parameters and nodes have histories as well."""
    assert len(api.client.get(f"/api/telemetry/history/{name}").get_json()["data"]) == 100


def test_a_known_kpi_without_samples_has_an_empty_history(api):
    """Nothing recorded is no error."""
    assert api.client.get("/api/telemetry/history/supply").get_json()["data"] == []


def test_metrics_are_listed_and_described(api):
    """Names alone, or unit, help and the limits in force."""
    names = api.client.get("/api/telemetry/metrics").get_json()["metrics"]
    assert {"coherence", "caf_emission", "parameter.lambda1"} <= set(names)
    detailed = api.client.get("/api/telemetry/metrics?detail=1").get_json()["metrics"]
    assert detailed[0]["limits"] == {"side": "at_least", "healthy": 0.9, "critical": 0.85}
    assert (detailed[0]["name"], detailed[0]["unit"], detailed[0]["window_ticks"]) == ("coherence", "1", 15)


def test_status_tells_how_telemetry_is_doing(api):
    """Health, the latest update, how much is stored and who listens."""
    assert api.client.get("/api/telemetry/status").get_json() == {
        "status": "success",
        "system_status": "STABLE",
        "latest_update": "2026-01-01T00:01:40.000+00:00",
        "history_records": 100,
        "subscribers": 0,
        "subscribers_dropped": 0,
    }


def test_nodes_come_worst_first_and_can_be_chosen(api):
    """Sorted by |g| with the unknown last, with wall times, by status, cluster and number."""
    answer = api.client.get("/api/nodes").get_json()
    assert answer["total"] == 5
    assert [node["node"][-1] for node in answer["nodes"]] == ["4", "2", "1", "0", "3"]
    assert answer["nodes"][0]["until"] == "2026-01-01T00:15:00.000+00:00"
    assert api.client.get("/api/nodes?status=isolated").get_json()["total"] == 1
    assert len(api.client.get("/api/nodes?limit=2&cluster=c0").get_json()["nodes"]) == 2


def test_explanations_proposals_and_journal_are_passed_on(api):
    """What the daemon knows, page by page, and 404 for what it does not."""
    assert api.client.get("/api/explain/node-0004").get_json()["data"]["subject"] == "node-0004"
    assert api.client.get("/api/explain/3").get_json()["data"]["event"]["seq"] == 3
    assert api.client.get("/api/proposals").get_json()["proposals"][0]["id"] == "p-0123456789ab"
    assert api.client.get("/api/proposals/p-0123456789ab").get_json()["proposal"]["status"] == "proposed"
    page = api.client.get("/api/journal?after=2&limit=3").get_json()
    assert ([event["seq"] for event in page["events"]], page["next"]) == ([3, 4, 5], 5)
    assert api.client.get("/api/journal?after=8").get_json()["next"] is None
    for path in ("/api/explain/nobody", "/api/explain/" + "x" * 300, "/api/proposals/p-nope", "/api/nowhere", "/api"):
        answer = api.client.get(path)
        assert (answer.status_code, answer.get_json()["status"]) == (404, "error")


@pytest.mark.usefixtures("operator")
def test_health_is_told_to_everybody(api):
    """Alive and ready need no token, and say 503 with what is missing."""
    assert [api.client.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]
    api.port.alive, api.port.missing = False, ["the plant is not connected"]
    assert api.client.get("/livez").status_code == 503
    answer = api.client.get("/readyz")
    assert (answer.status_code, answer.get_json()["problems"]) == (503, ["the plant is not connected"])


def test_metrics_are_prometheus_text(api):
    """Prometheus' own format, or OpenMetrics where that is asked for."""
    plain = api.client.get("/metrics")
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert 'iace_state{state="GOVERNING"} 1.0' in plain.text
    modern = api.client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert modern.text.endswith("# EOF\n")


def test_a_command_is_handed_on_and_answered(api, operator):
    """Principal, reason and key reach the daemon; the answer says what will happen and the journal's tip."""
    headers = {**operator, "Idempotency-Key": "k1"}
    body = {"node": "node-0001", "kind": "maintenance", "for_s": 7200, "in_s": 60, "reason": "new disk"}
    answer = api.client.post("/api/control/exempt", json=body, headers=headers)
    assert answer.get_json() == {
        "status": "success",
        "text": "it will be done",
        "repeated": False,
        "seq": 11,
        "hash": "cd" * 32,
    }
    (done,) = api.port.commands
    assert (done.by, done.reason, done.key) == ("ops", "new disk", "ops:k1")
    assert done.command == {
        "command": "exempt",
        "node": "node-0001",
        "kind": "maintenance",
        "for_s": 7200.0,
        "in_s": 60.0,
    }


def test_every_command_reaches_the_daemon(api, operator):
    """Each control route gives its own command, once."""
    for path, body in COMMANDS.items():
        assert api.client.post(path, json={**body, "reason": "a test"}, headers=operator).status_code == 200, path
    assert [done.command["command"] for done in api.port.commands] == [
        "exempt",
        "exempt end",
        "isolate",
        "pause",
        "restore",
        "resume",
        "safe-mode clear",
        "proposal decide",
        "proposal decide",
    ]
    assert api.port.reloads == ["ops (a test)"]
    assert [done.command.get("approve") for done in api.port.commands[-2:]] == [True, False]


def test_a_refused_command_is_409_with_its_guard(api, operator):
    """The daemon's no comes with the guard that forbade it."""
    api.port.answer = Answer(accepted=False, text="guard quorum forbids it", guard=Guard.QUORUM)
    answer = api.client.post("/api/control/isolate", json={"node": "n", "reason": "r"}, headers=operator)
    assert answer.status_code == 409
    assert answer.get_json() == {
        "status": "error",
        "message": "guard quorum forbids it",
        "guard": "quorum",
        "seq": 11,
        "hash": "cd" * 32,
        "repeated": False,
    }
    api.port.answer = Answer(accepted=False, text="guard quorum forbids it", repeated=True)
    answer = api.client.post("/api/control/isolate", json={"node": "n", "reason": "r"}, headers=operator)
    assert answer.get_json() == {"status": "error", "message": "guard quorum forbids it", "repeated": True}


def test_whatever_nodes_and_proposals_can_stand_at_can_be_asked_for():
    """The choices are those of the daemon itself, and all."""
    assert get_args(NodeStanding) == ("", *NodeStatus, OUT_ELSEWHERE)
    assert get_args(ProposalStanding) == ("", *ProposalStatus)


def test_a_command_that_fails_on_the_way_is_500_and_says_where_to_look(api, operator, monkeypatch):
    """What was done is known to the journal only, so the answer neither claims nor denies it."""

    def fails(*_args, **_kwargs):
        raise FailedError("the disk is full")

    monkeypatch.setattr(api.port, "command", fails)
    answer = api.client.post("/api/control/resume", json={"reason": "r"}, headers=operator)
    assert answer.status_code == 500
    assert answer.get_json()["message"] == (
        "it went wrong on the way (the disk is full); the journal tells what was done: iace journal"
    )


def test_a_busy_daemon_is_503(api, operator):
    """A command whose turn did not come can be tried again."""
    api.port.busy = True
    answer = api.client.post("/api/control/resume", json={"reason": "r"}, headers=operator)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


@pytest.mark.parametrize("reason", [None, "", "   ", "x" * 501, 7, "\ud800"])
def test_a_command_needs_a_reason(api, operator, reason):
    """No reason, an empty, a blank, an endless or an unprintable one is refused, and counted."""
    body = {} if reason is None else {"reason": reason}
    answer = api.client.post("/api/control/resume", json=body, headers=operator)
    assert answer.status_code == (400 if reason == "\ud800" else 422)
    assert api.port.commands == []
    assert api.port.refused == {"bad request": 1}


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"{reason: 'x'}",
    "NaN": b'{"reason": "x", "for_s": NaN}',
    "Infinity": b'{"reason": "x", "for_s": Infinity}',
    "minus Infinity": b'{"reason": "x", "for_s": -Infinity}',
    "1e999": b'{"reason": "x", "for_s": 1e999}',
    "5,000 digits": b'{"reason": "x", "for_s": ' + b"9" * 5000 + b"}",
    "30 digits": b'{"reason": "x", "for_s": ' + b"9" * 30 + b"}",
    "duplicate keys": b'{"reason": "x", "for_s": 1, "for_s": 2}',
    "nested duplicate keys": b'{"reason": {"a": 1, "a": 2}, "for_s": 1}',
    "deep lists": b'{"reason": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "just too deep": b'{"reason": ' + b"[" * 40 + b"]" * 40 + b"}",
    "lone surrogate": b'{"reason": "\\ud800", "for_s": 1}',
    "lone surrogate key": b'{"\\udfff": 1}',
    "not UTF-8": b'{"reason": "\xff", "for_s": 1}',
    "UTF-16": '{"reason": "x", "for_s": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"reason": "x", "for_s": 1}',
    "two documents": b'{"reason": "x", "for_s": 1}{}',
    "list": b'["reason"]',
    "text": b'"reason"',
    "null": b"null",
    "number": b"1",
    "text for a number": b'{"reason": "x", "for_s": "60"}',
    "truth for a number": b'{"reason": "x", "for_s": true}',
    "null for a number": b'{"reason": "x", "for_s": null}',
    "negative": b'{"reason": "x", "for_s": -1}',
    "zero": b'{"reason": "x", "for_s": 0}',
    "too long": b'{"reason": "x", "for_s": 1e300}',
    "unknown key": b'{"reason": "x", "for_s": 1, "force": true}',
    "number for a text": b'{"reason": 1, "for_s": 1}',
    "list for a text": b'{"reason": ["x"], "for_s": 1}',
    "nul": b'{"reason": "x", "for_s": 1}\x00',
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_json_is_refused_and_never_an_internal_error(api, operator, name):
    """Whatever is no plain JSON object of the right form is 400 or 422, in JSON, and nothing is commanded."""
    answer = api.client.post(
        "/api/control/pause", data=BAD_BODIES[name], content_type="application/json", headers=operator
    )
    assert answer.status_code in (400, 422)
    assert answer.get_json()["status"] == "error"
    assert api.port.commands == []


def test_other_bodies_are_refused(api, operator):
    """A form is 415, a body that is too long 413, an unreadable key 422."""
    form = api.client.post("/api/control/resume", data={"reason": "x"}, headers=operator)
    long = api.client.post("/api/control/resume", json={"reason": "x" * 70_000}, headers=operator)
    key = api.client.post("/api/control/resume", json={"reason": "x"}, headers={**operator, "Idempotency-Key": "a b"})
    assert [answer.status_code for answer in (form, long, key)] == [415, 413, 422]
    assert api.port.commands == []


@pytest.mark.parametrize(
    "query",
    [
        "/api/telemetry/history/coherence?hours=abc",
        "/api/telemetry/history/coherence?hours=nan",
        "/api/telemetry/history/coherence?hours=1_0",
        "/api/telemetry/history/coherence?hours=0",
        "/api/telemetry/history/coherence?step=-1",
        "/api/telemetry/history/coherence?start=yesterday",
        "/api/telemetry/history/coherence?aggregate=count",
        "/api/telemetry/history/coherence?hours=1&hours=2",
        "/api/telemetry/history/coherence?minutes=1",
        "/api/telemetry/metrics?detail=yes",
        "/api/journal?limit=0",
        "/api/journal?limit=1001",
        "/api/journal?after=-1",
        "/api/journal?after=" + "9" * 40,
        "/api/nodes?limit=1.5",
        "/api/nodes?status=bogus",
        "/api/telemetry/stream?events=0",
    ],
)
def test_a_bad_query_is_422(api, query):
    """What a query may not say is refused with a message."""
    answer = api.client.get(query)
    assert answer.status_code == 422
    assert answer.get_json()["message"]


def bearers(api):
    """A header for each kind of caller."""
    now_s = [1_000.0]
    aged = TokenFile(api.tokens.path, clock=lambda: now_s[0])
    secrets = {
        "viewer": api.tokens.create("viewer", Role.VIEWER),
        "operator": api.tokens.create("operator", Role.OPERATOR),
        "revoked": api.tokens.create("gone", Role.OPERATOR),
        "expired": aged.create("old", Role.OPERATOR, lifetime_s=60.0),
        "wrong": "iace_" + "A" * 43,
        "endless": "x" * 5000,
    }
    api.tokens.revoke("gone")
    headers = {name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}
    return {
        "none": {},
        "empty": {"Authorization": ""},
        "basic": {"Authorization": "Basic b3BzOm9wcw=="},
        "no blank": {"Authorization": f"Bearer{secrets['operator']}"},
        "cut": {"Authorization": f"Bearer {secrets['operator'][:-1]}"},
        **headers,
    }


def test_every_route_with_every_token(api):
    """Reading takes a valid token, control an operator's; all else is 401 or 403, changes nothing and is counted."""
    callers, wrong = bearers(api), []
    for caller, headers in callers.items():
        reads = 200 if caller in ("viewer", "operator") else 401
        controls = {"operator": 200, "viewer": 403}.get(caller, 401)
        for path in OPEN_ROUTES:
            wrong += _unless(api.client.get(path, headers=headers), 200, caller)
        for path in GET_ROUTES:
            wrong += _unless(api.client.get(path, headers=headers), reads, caller)
            wrong += _unless(api.client.head(path, headers=headers), reads, caller)
        if caller != "operator":
            for path, body in COMMANDS.items():
                answer = api.client.post(path, json={**body, "reason": "r"}, headers=headers)
                wrong += _unless(answer, controls, caller)
    assert wrong == []
    assert (api.port.commands, api.port.reloads) == ([], [])
    assert set(api.port.refused) == {
        "no token",
        "no bearer token",
        "unknown token",
        "expired token",
        "revoked token",
        "role not permitted",
    }


def _unless(answer, expected, caller):
    return [] if answer.status_code == expected else [(caller, answer.request.path, answer.status_code)]


def test_the_matrix_above_leaves_no_route_out(api):
    """Every route that the application has is named in this file."""
    named = {path.partition("?")[0] for path in (*OPEN_ROUTES, *GET_ROUTES, *COMMANDS)}
    adapter = api.app.url_map.bind("localhost")
    matched = {
        adapter.match(path, method)[0] for path in named for method in ("GET", "POST") if adapter.test(path, method)
    }
    assert matched == set(api.app.view_functions)
    assert all(rule.methods <= {"GET", "HEAD"} or rule.methods == {"POST"} for rule in api.app.url_map.iter_rules())


def test_no_other_method_opens_a_control_route(api, operator):
    """GET, PUT, DELETE, OPTIONS and the like are 405 with what is allowed."""
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = api.client.open("/api/control/pause", method=method, headers=operator)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_without_tokens_reading_is_for_this_machine_alone(api):
    """Loopback reads; another machine, a proxy's client and a foreign Host do not, and nobody controls."""
    get = api.client.get
    assert get("/api/nodes").status_code == 200
    assert get("/api/nodes", environ_overrides={"REMOTE_ADDR": "192.0.2.7"}).status_code == 401
    assert get("/api/nodes", headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 401
    assert get("/api/nodes", headers={"Host": "evil.example"}).status_code == 401
    assert get("/api/nodes", headers={"Host": "[::1]:8470"}).status_code == 200
    assert api.client.post("/api/control/resume", json={"reason": "r"}).status_code == 401


def test_anonymous_reading_can_be_set(api):
    """`anonymous_read` opens reading to all, or to nobody without a token; control stays shut."""
    opened, shut = api.remake(anonymous_read=True).client, api.remake(anonymous_read=False).client
    assert opened.get("/api/nodes", environ_overrides={"REMOTE_ADDR": "192.0.2.7"}).status_code == 200
    assert opened.post("/api/control/resume", json={"reason": "r"}).status_code == 401
    assert shut.get("/api/nodes").status_code == 401


def test_a_damaged_token_file_lets_nobody_in(api, operator):
    """Neither the anonymous nor former tokens get past a file that cannot be read."""
    api.tokens.path.write_text("{}")
    assert api.client.get("/api/nodes").status_code == 401
    assert api.client.get("/api/nodes", headers=operator).status_code == 401


def test_answers_carry_secure_headers_and_no_cors(api):
    """Every answer forbids framing, sniffing and caching; other origins get nothing."""
    for path in ("/api/nodes", "/nowhere"):
        headers = api.client.get(path, headers={"Origin": "https://evil.example"}).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Strict-Transport-Security" not in headers


def test_cors_is_for_configured_origins_alone(api):
    """A configured origin may read and ask beforehand; others may not."""
    client = api.remake(cors_origins=("https://grafana.example",)).client
    origin = {"Origin": "https://grafana.example"}
    assert client.get("/api/nodes", headers=origin).headers["Access-Control-Allow-Origin"] == "https://grafana.example"
    asked = client.options("/api/nodes", headers=origin)
    assert (asked.status_code, asked.headers["Access-Control-Allow-Methods"]) == (204, "GET, POST")
    assert client.options("/api/nodes", headers={"Origin": "https://evil.example"}).status_code == 405
    assert "Access-Control-Allow-Origin" not in client.get("/api/nodes", headers={"Origin": "null"}).headers


def test_a_client_that_asks_too_much_is_slowed_down(api):
    """Beyond its burst a client gets 429 until time has passed; health and other clients are not concerned."""
    client = api.remake(rate_per_s=0.001, burst=3).client
    assert [client.get("/api/nodes").status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = client.get("/nowhere")
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (429, True)
    assert client.get("/livez").status_code == 200
    assert client.get("/openapi.json", environ_overrides={"REMOTE_ADDR": "192.0.2.7"}).status_code == 200
    assert api.port.refused == {"rate limit": 2}


def test_an_internal_error_tells_nothing(api, monkeypatch, caplog):
    """A bug is 500 in JSON without a traceback; the log has it, without the token."""
    secret = api.tokens.create("ops", Role.OPERATOR)

    def nodes():
        raise RuntimeError("very secret")

    monkeypatch.setattr(api.port, "nodes", nodes)
    answer = api.client.get("/api/nodes", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "very secret" in caplog.text
    assert secret not in caplog.text


def test_a_store_that_fails_is_503(api, monkeypatch):
    """A store that cannot be read is for later, and its path is for the log."""

    def history():
        raise StoreFailedError("/var/lib/telemetry.db is damaged")

    monkeypatch.setattr(api.port, "history", history)
    answer = api.client.get("/api/telemetry/history/coherence")
    assert (answer.status_code, "telemetry.db" in answer.text) == (503, False)


def test_the_description_is_valid_and_complete(api):
    """/openapi.json is valid OpenAPI 3.1 and names every route; /docs needs nothing from elsewhere."""
    document = api.client.get("/openapi.json").get_json()
    assert document["openapi"].startswith("3.1.")
    assert list(jsonschema_rs.Draft202012Validator(openapi.OPENAPI_31).iter_errors(document)) == []
    rules = {str(rule).replace("<path:", "<") for rule in api.app.url_map.iter_rules()}
    assert set(document["paths"]) == {rule.replace("<", "{").replace(">", "}") for rule in rules}
    pause = document["paths"]["/api/control/pause"]["post"]
    assert pause["security"] == [{"bearer": []}]
    assert {"200", "400", "401", "403", "409", "413", "415", "422", "429", "503"} == set(pause["responses"])
    page = api.client.get("/docs")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert all(path in page.text for path in document["paths"])
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "<script" not in page.text


def test_answers_fit_their_description(api, operator):
    """Every answer to a question is what the document says, field by field."""
    document = api.client.get("/openapi.json").get_json()
    adapter = api.app.url_map.bind("localhost")
    for path in GET_ROUTES:
        rule = str(adapter.match(path.partition("?")[0], "GET", return_rule=True)[0])
        key = rule.replace("<path:", "<").replace("<", "{").replace(">", "}")
        content = document["paths"][key]["get"]["responses"]["200"].get("content", {})
        if "application/json" in content:
            schema = {**content["application/json"]["schema"], "components": document["components"]}
            jsonschema_rs.validate(schema, api.client.get(path, headers=operator).get_json())


@pytest.fixture
def with_plant(api, start_qecs):
    """The API with the routes of an embedded plant."""
    from qecs.server import qecs_blueprint  # noqa: PLC0415 - with the plant, which takes a while to import

    host = start_qecs(nodes=10).host
    return SimpleNamespace(client=api.remake(qecs_blueprint(host)).client, api=api, host=host)


def test_an_embedded_plant_answers_beside(with_plant):
    """QECS clients find their routes; /livez stays the daemon's."""
    get = with_plant.client.get
    assert get("/field/curvature_metrics").get_json()["tick"] == 1
    assert set(get("/system/status").get_json()) >= {"status", "coherence", "gas", "rsi", "thresholds"}
    assert len(get("/nodes").get_json()["nodes"]) == 10
    with_plant.api.port.alive = False
    assert get("/livez").status_code == 503


@pytest.mark.parametrize(("method", "path"), QECS_WRITES)
def test_the_plants_own_writes_take_an_operator(with_plant, method, path):
    """Nothing at the plant is changed through the API without an operator's token."""
    client, tokens = with_plant.client, with_plant.api.tokens
    viewer = {"Authorization": f"Bearer {tokens.create('v', Role.VIEWER)}"}
    operator = {"Authorization": f"Bearer {tokens.create('o', Role.OPERATOR)}"}
    answers = [
        client.open(path, method=method, json={}, headers=headers).status_code for headers in ({}, viewer, operator)
    ]
    assert answers[:2] == [401, 403]
    assert answers[2] in (400, 404)


def test_a_route_without_a_rule_is_shut(api):
    """A route that was given no rule is for control unless it only reads."""
    api.app.add_url_rule("/later", view_func=lambda: "done", methods=["DELETE"], endpoint="later")
    assert api.client.delete("/later").status_code == 401


def test_json_is_all_that_comes_back(api):
    """Whatever goes wrong is answered in JSON with a status and a message."""
    for path, method in (("/nowhere", "GET"), ("/api/control/pause", "GET"), ("/api/control/pause", "POST")):
        answer = api.client.open(path, method=method)
        assert json.loads(answer.data)["status"] == "error"
        assert answer.mimetype == "application/json"
