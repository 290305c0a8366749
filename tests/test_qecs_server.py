"""The QECS HTTP API over a real server on the loopback interface."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest

from qecs import host as host_module
from qecs.audit import audit
from qecs.chain_directory import LedgerWriteError
from qecs.cluster import Cluster
from qecs.errors import InvalidRequestError
from qecs.faults import Fault
from qecs.host import ClusterHost
from qecs.ledger import Ledger
from qecs.merkle import InclusionProof, verify_proof
from qecs.server import create_app, serve
from qecs.strict_http import BODY_BYTES_MAX, StrictServer

A, B = "node-0000", "node-0001"


class Client:
    """A server in a thread, whose cluster ticks only when the test says so."""

    def __init__(self, host):
        self.host = host
        self.server = StrictServer(create_app(host), address="127.0.0.1", port=0)
        self.port = self.server.port
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def close(self):
        self.server.stop()
        self.thread.join()

    def raw(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def call(self, method, path, body=None):
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        status, headers, content = self.raw(method, path, data)
        assert headers["Content-Type"] == "application/json"
        return status, json.loads(content, parse_constant=pytest.fail)

    def get(self, path):
        status, value = self.call("GET", path)
        assert status == 200, value
        return value

    def error(self, method, path, body=None):
        status, value = self.call(method, path, body)
        assert value["status"] == "error"
        assert "Traceback" not in value["message"]
        return status, value["message"]

    def send(self, text):
        """Send bytes that no HTTP client would send and return status and body."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(text)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, json.loads(response.read())


@pytest.fixture
def client():
    client = Client(ClusterHost(Cluster(6, seed=3), allow_faults=True))
    client.host.tick()
    yield client
    client.close()


def ticks(client, count):
    for _ in range(count):
        client.host.tick()


def transaction(identifier="tx-1", sender=A, receiver=B, amount=1000, **extra):
    return {"id": identifier, "sender": sender, "receiver": receiver, "amount": amount, **extra}


def fenced(key="k-1", epoch=1, **extra):
    return {"idempotency_key": key, "epoch": epoch, **extra}


# --- the three routes of v1.5 ---------------------------------------------------------------------------------


def test_curvature_metrics_have_their_names(client):
    """The field route tells the figures under the names that QECS clients read, null until a window has filled."""
    body = client.get("/field/curvature_metrics")
    names = "timestamp rsi cs gas lambda_opt delta_lambda safe_mode stability_state"
    assert set(names.split()) <= body.keys()
    assert {"coherence_service", "entropy", "delta_entropy", "action_cost", "gas_target"} <= body.keys()
    assert (body["rsi"], body["cs"], body["tick"], body["plant_time_s"]) == (None, None, 1, 1.0)
    assert (body["safe_mode"], body["stability_state"]) == (False, "WARNING")


def test_a_healthy_cluster_is_stable(client):
    """Once every window has filled a healthy cluster says STABLE, with numbers."""
    ticks(client, 75)
    body = client.get("/field/curvature_metrics")
    assert body["stability_state"] == "STABLE"
    assert body["cs"] >= 0.90
    assert body["gas"] >= 0.95
    assert body["rsi"] >= 0.65


def test_a_broken_cluster_is_critical(client):
    """A cluster that has lost its coherence says CRITICAL and SAFE_MODE."""
    client.host.cluster.inject(fault_of(kind="byzantine", count=2))
    ticks(client, 75)
    assert client.get("/field/curvature_metrics")["stability_state"] == "CRITICAL"
    assert client.get("/system/status")["status"] == "SAFE_MODE"


def test_system_status_has_its_names(client):
    """The status route tells KPIs, thresholds and the sums since genesis, single transactions included."""
    client.call("POST", "/ledger/commit", transaction())
    body = client.get("/system/status")
    assert body.keys() >= {"status", "coherence", "gas", "rsi", "lambda_opt", "delta_lambda"}
    assert body["thresholds"] == {"gas_min": 0.95, "cs_min": 0.90, "rsi_min": 0.65}
    sums = body["system_metrics"]
    assert sums["supply"] == 6 * 500_000 + sums["emission_total"] - sums["burned_total"]
    assert sums["transactions"] == (sums["burned_total"] - 5) // 5 + 1
    assert (sums["height"], sums["nodes"], sums["clusters"], sums["isolated"]) == (2, 6, 1, 0)
    assert body["status"] == "OPERATIONAL"


def test_a_commit_is_answered_like_v15(client):
    """Approval is 200, refusal 400 with the reason, another content 409, and a replay gets the first answer."""
    status, approved = client.call("POST", "/ledger/commit", transaction())
    assert status == 200
    assert approved.keys() >= {"status", "tx_id", "C_system", "fee", "emission"}
    assert (approved["status"], approved["tx_id"], approved["fee"]) == ("APPROVED", "tx-1", 10)
    client.host.tick()
    assert client.call("POST", "/ledger/commit", transaction()) == (200, approved)
    status, conflict = client.call("POST", "/ledger/commit", transaction(amount=5))
    assert (status, conflict["status"]) == (409, "CONFLICT")
    status, refused = client.call("POST", "/ledger/commit", transaction("tx-2", amount=10**9))
    assert (status, refused["status"]) == (400, "REJECTED")
    assert refused["reason"].startswith("insufficient funds")
    status, malformed = client.call("POST", "/ledger/commit", transaction("tx-3", amount=1.0))
    assert (status, malformed["status"]) == (400, "REJECTED")


def test_nothing_is_told_before_the_first_tick():
    """Until the first tick there is nothing to read but the ledger, and that is said."""
    client = Client(ClusterHost(Cluster(6)))
    try:
        for path in ("/field/curvature_metrics", "/system/status", "/nodes", "/observations", f"/nodes/{A}"):
            assert client.error("GET", path) == (503, "no tick has been lived yet")
        assert client.get("/ledger")["height"] == 0
    finally:
        client.close()


# --- the ledger -----------------------------------------------------------------------------------------------


def test_the_chain_can_be_verified_from_outside(client):
    """Leaves, roots, links, supply and balances follow from what the server tells, page by page."""
    ticks(client, 4)
    client.call("POST", "/ledger/commit", transaction())
    ticks(client, 2)
    blocks, start = [], 0
    while start is not None:
        page = client.get(f"/ledger/blocks?from={start}&limit=3")
        blocks += page["blocks"]
        start = page["next"]
    bounds = page["cluster_bounds"]
    previous, supply = "0" * 64, 3_000_000
    for height, block in enumerate(blocks):
        header, body = block["header"], block["body"]
        canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        assert block["hash"] == sha256(b"\x02" + canonical).hexdigest()
        assert (header["height"], header["previous_hash"]) == (height, previous)
        assert header["root"] == outside_root(header["kind"], body, bounds)
        supply += header["emission"] - header["burn"]
        assert header["supply"] == supply
        previous = block["hash"]
    summary = client.get("/ledger")
    assert summary["tip"] == {"height": 8, "hash": previous}
    assert summary["supply"] == supply == summary["supply_nodes"] + summary["supply_guests"]
    assert (summary["supply_genesis"], summary["last_tick"], summary["nodes"]) == (3_000_000, 7, 6)


def outside_root(kind, body, bounds):
    assert bounds == [0, 6]  # one cluster, hence one leaf, whose hash is the root
    names = {"genesis": ["balances"], "tick": ["committed", "paid", "received", "emitted", "burned"]}
    if kind == "commit":
        leaf = body["entry"].encode()
    else:
        leaf = b"".join(np.array(body[name], dtype="<i8").tobytes() for name in names[kind])
    return sha256(b"\x00" + leaf).hexdigest()


def test_pages_end_at_the_tip(client):
    """A page beyond the tip is empty and the last one has no next."""
    assert client.get("/ledger/blocks?from=99")["blocks"] == []
    assert client.get("/ledger/blocks?from=99")["next"] is None
    assert client.get("/ledger/blocks?from=1&limit=1")["next"] is None
    assert client.get("/ledger/blocks?limit=1")["next"] == 1
    assert client.get("/ledger/blocks?limit=0")["blocks"] == []


def test_a_proof_verifies(client):
    """A proof told over HTTP leads to the root of the block that it names."""
    fields = client.get("/ledger/proof/1?leaf=0")
    proof = InclusionProof(**{**fields, "path": tuple(fields["path"])})
    assert verify_proof(proof)
    assert proof.root == client.get("/ledger/blocks?from=1")["blocks"][0]["header"]["root"]


@pytest.mark.parametrize("path", ["/ledger/proof/99", "/ledger/proof/1?leaf=7", "/ledger/proof/-1", "/ledger/proof/x"])
def test_what_does_not_exist_has_no_proof(client, path):
    """Unknown blocks and leaves are 404."""
    assert client.error("GET", path)[0] == 404


@pytest.mark.parametrize("query", ["from=-1", "from=x", "limit=1.5", "from=" + "9" * 5000, "limit=", "from=٣"])
def test_bad_numbers_in_a_query_are_refused(client, query):
    """Page positions are plain whole numbers."""
    status, message = client.error("GET", "/ledger/blocks?" + query.replace("٣", "%D9%A3"))
    assert status == 400
    assert "must be a whole number from 0 on" in message


def test_a_fork_shows_in_the_tips(client):
    """Each node's tip is told; a forked ledger shows two."""
    ticks(client, 3)
    assert len(client.get("/ledger/tips")["tips"]) == 1
    fault = {"id": "f", "kind": "fork", "nodes": [A, B]}
    status, body = client.call("POST", "/faults", {"fault": fault})
    assert status == 200, body
    body = client.get("/ledger/tips")
    assert len({tip["hash"] for tip in body["tips"]}) == 2
    assert body["tip_of"] == [1, 1, 0, 0, 0, 0]
    assert body["nodes"][:2] == [A, B]


def test_accounts_tell_their_balance(client):
    """Nodes and guests have balances, misnamed nodes are 404, and a name may hold a slash."""
    before = client.get(f"/ledger/accounts/{A}")["balance"]
    client.call("POST", "/ledger/commit", transaction(receiver="probe-1/a"))
    assert client.get(f"/ledger/accounts/{A}") == {"account": A, "balance": before - 1000}
    assert client.get("/ledger/accounts/probe-1/a") == {"account": "probe-1/a", "balance": 995}
    assert client.error("GET", "/ledger/accounts/node-9999") == (404, "no account 'node-9999'")


# --- observing ------------------------------------------------------------------------------------------------


def test_nodes_are_told_in_columns(client):
    """One tick in columns, each as long as there are nodes."""
    body = client.get("/nodes")
    assert (body["tick"], body["plant_time_s"], body["safe_mode"]) == (1, 1.0, False)
    assert body["nodes"] == [f"node-000{index}" for index in range(6)]
    assert (body["clusters"], body["cluster_of"]) == (["cluster-00"], [0] * 6)
    assert body["parameters"] == {"lambda1": 0.3, "lambda2": 0.35, "alpha": 1.0, "action_cost_limit": 0.05}
    assert body["kpis"]["coherence"] is None
    assert body["signals"].keys() >= {"phase", "arrivals", "commits", "queue", "balance", "active"}
    assert {len(column) for column in body["signals"].values()} == {6}
    assert body["signals"]["active"] == [True] * 6


def test_every_tick_can_be_polled(client):
    """All ticks after a given one are told oldest first, up to the limit, in the form of /nodes."""
    ticks(client, 6)
    body = client.get("/observations?after=2&limit=3")
    assert [tick["tick"] for tick in body["observations"]] == [3, 4, 5]
    assert body["latest_tick"] == 7
    assert [tick["tick"] for tick in client.get("/observations?after=5")["observations"]] == [6, 7]
    assert client.get("/observations?after=7")["observations"] == []
    (last,) = client.get("/observations?after=6")["observations"]
    constant = {name: body[name] for name in ("nodes", "clusters", "cluster_of")}
    assert {**constant, **last} == client.get("/nodes")


def test_the_ring_forgets_the_oldest_ticks(client, monkeypatch):
    """The last ticks are kept, fewer of a huge cluster, and gaps show in the numbers."""
    size = sum(signal.nbytes for signal in client.host.latest().snapshot.signals.values())
    monkeypatch.setattr(host_module, "_RING_BYTES_MAX", 3 * size)
    host = ClusterHost(Cluster(6))
    for _ in range(5):
        host.tick()
    assert [record.snapshot.tick for record in host.after(0, 99)] == [3, 4, 5]
    assert client.host._ring.maxlen == 512


def test_one_node_is_told(client):
    """A node's own route tells its cluster, balance, isolation and signals; an unknown one is 404."""
    body = client.get(f"/nodes/{A}")
    assert (body["node"], body["cluster"], body["isolated"], body["until_s"]) == (A, "cluster-00", False, None)
    assert body["balance"] == client.get(f"/ledger/accounts/{A}")["balance"]
    assert body["signals"]["active"] is True
    assert client.error("GET", "/nodes/nobody") == (404, "no node 'nobody'")


def test_capabilities_are_stated(client):
    """A governor can ask what it may ask."""
    assert client.get("/capabilities") == {
        "system": "qecs",
        "version": "1.5",
        "capabilities": ["nodes", "isolate", "parameters", "ledger", "commit", "faults"],
        "interval_s": 1.0,
        "seed": 3,
        "nodes": 6,
        "clusters": 1,
        "epoch": 0,
    }


# --- governing ------------------------------------------------------------------------------------------------


def test_isolations_are_told_at_once(client):
    """An isolation and its time limit can be read before the next tick."""
    tick = client.host.latest().snapshot.tick
    assert client.get("/isolations") == {"tick": tick, "isolations": {}}
    client.call("POST", f"/nodes/{A}/isolate", {**fenced(), "ttl_s": 5})
    assert client.get("/isolations") == {"tick": tick, "isolations": {A: tick + 5.0}}


def test_isolation_happens_once(client):
    """A node is isolated, a repeated key gets the first answer, and restoring gives it back."""
    path = f"/nodes/{A}/isolate"
    first = client.call("POST", path, fenced())
    assert first == (
        200,
        {"status": "success", "node": A, "isolated": True, "changed": True, "until_s": None, "tick": 1},
    )
    client.host.tick()
    assert client.call("POST", path, fenced()) == first
    assert client.get(f"/nodes/{A}")["isolated"] is True
    assert client.get("/nodes")["signals"]["active"][0] is False
    status, body = client.call("POST", path, fenced("k-2"))
    assert (status, body["changed"]) == (200, False)
    status, body = client.call("POST", f"/nodes/{A}/restore", fenced("k-3"))
    assert (status, body["isolated"], body["changed"]) == (200, False, True)
    assert client.host.cluster.isolated() == frozenset()


def test_a_reused_key_is_refused(client):
    """A key stands for one write: other nodes, limits or actions under it are 409 and do nothing."""
    client.call("POST", f"/nodes/{A}/isolate", fenced(ttl_s=5))
    for path, body in [
        (f"/nodes/{B}/isolate", fenced(ttl_s=5)),
        (f"/nodes/{A}/isolate", fenced(ttl_s=6)),
        (f"/nodes/{A}/restore", fenced()),
    ]:
        status, message = client.error("POST", path, body)
        assert status == 409
        assert "'k-1' was used before for something else" in message
    assert client.host.cluster.isolated() == {A}


def test_a_stale_epoch_is_refused(client):
    """Once a higher epoch was seen lower ones are 409, replays included; an equal one is fine."""
    client.call("POST", f"/nodes/{A}/isolate", fenced(epoch=7))
    for key in ("k-1", "k-2"):
        status, message = client.error("POST", f"/nodes/{A}/restore", fenced(key, epoch=6))
        assert (status, message) == (409, "epoch 6 is stale, 7 has been seen")
    assert client.call("POST", f"/nodes/{A}/isolate", fenced(epoch=8))[0] == 200
    assert client.host.cluster.isolated() == {A}


def test_an_isolation_ends_by_itself(client):
    """With a time limit the node comes back in plant time, later if the limit was renewed."""
    status, body = client.call("POST", f"/nodes/{A}/isolate", fenced(ttl_s=3))
    assert (status, body["until_s"]) == (200, 4.0)
    ticks(client, 2)
    assert client.get(f"/nodes/{A}")["until_s"] == 4.0
    assert client.call("POST", f"/nodes/{A}/isolate", fenced("k-2", ttl_s=3))[1]["until_s"] == 6.0
    ticks(client, 2)
    assert client.get(f"/nodes/{A}")["isolated"] is True
    client.host.tick()
    body = client.get(f"/nodes/{A}")
    assert (body["isolated"], body["until_s"]) == (False, None)


def test_a_renewal_without_a_limit_lifts_it(client):
    """The latest request counts: without a limit the isolation stays."""
    client.call("POST", f"/nodes/{A}/isolate", fenced(ttl_s=2))
    client.call("POST", f"/nodes/{A}/isolate", fenced("k-2"))
    ticks(client, 4)
    assert client.host.cluster.isolated() == {A}


def test_a_refused_write_may_be_repeated(client):
    """A write that failed leaves its key free."""
    assert client.error("POST", "/nodes/nobody/isolate", fenced())[0] == 404
    assert client.call("POST", f"/nodes/{A}/isolate", fenced())[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"idempotency_key": "k"},
        {"epoch": 1},
        fenced(key=""),
        fenced(key=5),
        fenced(key="x" * 129),
        fenced(key="a\tb"),
        fenced(epoch=-1),
        fenced(epoch=1.0),
        fenced(epoch=True),
        fenced(epoch="1"),
        fenced(epoch=2**63),
        fenced(ttl_s=0),
        fenced(ttl_s=-1),
        fenced(ttl_s="5"),
        fenced(ttl_s=True),
        fenced(ttl_s=1e10),
        fenced(other=1),
    ],
)
def test_a_write_needs_its_fence(client, body):
    """Without a sound key, epoch and limit nothing is done."""
    assert client.error("POST", f"/nodes/{A}/isolate", body)[0] == 400
    assert client.host.cluster.isolated() == frozenset()


def test_parameters_are_replaced_as_a_whole(client):
    """Parameters are read and replaced, once for each key."""
    wanted = {"lambda1": 0.25, "lambda2": 0.4, "alpha": 1.0, "action_cost_limit": 0.05}
    first = client.call("PUT", "/parameters", fenced(parameters=wanted))
    assert first == (200, {"status": "success", "parameters": wanted, "tick": 1})
    assert client.get("/parameters") == {"parameters": wanted}
    other = {**wanted, "lambda1": 0.3}
    assert client.call("PUT", "/parameters", fenced("k-2", parameters=other))[0] == 200
    assert client.call("PUT", "/parameters", fenced(parameters=wanted)) == first
    assert client.get("/parameters") == {"parameters": other}
    assert client.error("PUT", "/parameters", fenced(parameters=other))[0] == 409


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"lambda1": 0.3},
        [],
        None,
        {"lambda1": 9, "lambda2": 0.4, "alpha": 1.0, "action_cost_limit": 0.05},
        {"lambda1": "1", "lambda2": 0.4, "alpha": 1.0, "action_cost_limit": 0.05},
        {"lambda1": 0.3, "lambda2": 0.4, "alpha": 1.0, "action_cost_limit": 0.05, "beta": 1},
    ],
)
def test_bad_parameters_change_nothing(client, parameters):
    """Missing, unknown and impossible parameters are refused as a whole."""
    before = client.get("/parameters")
    assert client.error("PUT", "/parameters", fenced(parameters=parameters))[0] == 400
    assert client.get("/parameters") == before


def fault_of(**fields):
    return Fault.from_dict({"id": "f-1", **fields})


def test_faults_come_and_go(client):
    """A fault is injected, listed and cleared; a second of the same id is refused."""
    fault = {"id": "f-1", "kind": "silent", "nodes": [A]}
    status, body = client.call("POST", "/faults", {"fault": fault})
    assert (status, body["status"], body["fault"]) == (200, "success", fault)
    assert client.get("/faults") == {"faults": [fault]}
    assert client.error("POST", "/faults", {"fault": fault})[0] == 400
    assert client.call("POST", "/faults", {"clear": "f-1"})[1]["cleared"] is True
    assert client.call("POST", "/faults", {"clear": "f-1"})[1]["cleared"] is False
    assert client.get("/faults") == {"faults": []}


def test_a_fenced_fault_is_injected_once(client):
    """With key and epoch a fault obeys the same fence as every other write."""
    body = fenced(fault={"id": "f-1", "kind": "silent", "nodes": [A]})
    first = client.call("POST", "/faults", body)
    assert first[0] == 200
    assert client.call("POST", "/faults", body) == first
    assert client.error("POST", "/faults", fenced("k-2", epoch=0, clear="f-1"))[0] == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"fault": 5},
        {"fault": {"id": "f", "kind": "nonsense"}},
        {"fault": {"id": "f", "kind": "silent", "nodes": ["node-9"]}},
        {"clear": 5},
        {"clear": "f", "fault": {}},
    ],
)
def test_bad_faults_are_refused(client, body):
    """What is no fault, or hits nobody known, is refused."""
    assert client.error("POST", "/faults", body)[0] in (400, 404)
    assert client.get("/faults") == {"faults": []}


def test_faults_must_be_allowed():
    """A server that was not started with faults allowed refuses them and does not offer them."""
    client = Client(ClusterHost(Cluster(6)))
    try:
        status, message = client.error("POST", "/faults", {"clear": "f"})
        assert (status, message) == (403, "this server does not allow faults")
        assert "faults" not in client.get("/capabilities")["capabilities"]
        assert client.get("/faults") == {"faults": []}
    finally:
        client.close()


# --- bad input ------------------------------------------------------------------------------------------------

BAD_BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "no object": b"[1]",
    "NaN": b'{"amount": NaN}',
    "Infinity": b'{"amount": -Infinity}',
    "beyond a double": b'{"amount": 1e999}',
    "duplicate keys": b'{"id": "a", "id": "b"}',
    "deep nesting": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "5000 digits": b'{"amount": ' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"id": "\\ud800"}',
    "lone surrogate as a key": b'{"\\udfff": 1}',
    "no UTF-8": b'{"id": "\xff"}',
    "byte order mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/ledger/commit"), ("POST", f"/nodes/{A}/isolate"), ("PUT", "/parameters"), ("POST", "/faults")],
)
def test_a_bad_body_is_refused(client, method, path, body):
    """Whatever is no unambiguous JSON object is 400 on every route that takes a body, and changes nothing."""
    tip = client.host.cluster.ledger.tip
    assert client.error(method, path, body)[0] == 400
    assert client.host.cluster.ledger.tip == tip


def test_unknown_routes_and_methods_are_told(client):
    """Unknown routes are 404, wrong methods 405 with the right ones named."""
    assert client.error("GET", "/nowhere")[0] == 404
    status, headers, content = client.raw("DELETE", "/ledger/commit")
    assert (status, json.loads(content)["status"]) == (405, "error")
    assert "POST" in headers["Allow"]
    assert client.error("POST", "/nodes")[0] == 405


def test_a_body_beyond_a_mebibyte_is_refused(client):
    """One byte too many is 413, told before the body is read; a mebibyte is read and judged."""
    status, body = client.send(
        f"POST /ledger/commit HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode()
    )
    assert (status, body["status"]) == (413, "error")
    assert client.error("POST", "/ledger/commit", b" " * BODY_BYTES_MAX)[0] == 400


HEAD = b"POST /ledger/commit HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (HEAD + b"Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "both Content-"),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", 400, "Host header is missing"),
        (b"GET /ledger HTTP/1.0\r\n\r\n", 400, "Host header is missing"),
        (HEAD + b"Host: a\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length is invalid"),
        (HEAD + b"Host: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"nonsense\r\n\r\n", 400, "Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", 431, "max_header"),
    ],
    ids=["both lengths", "no host", "no host in 1.0", "negative length", "unknown encoding", "no request", "huge head"],
)
def test_ambiguous_requests_are_refused(client, text, status, message):
    """Requests that could be read in two ways, or in none, are refused as JSON."""
    found, body = client.send(text)
    assert (found, body["status"]) == (status, "error")
    assert message in body["message"]


def test_a_chunked_body_is_read(client):
    """Transfer-Encoding alone is fine."""
    data = json.dumps(transaction()).encode()
    head = HEAD + b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, body = client.send(head + f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
    assert (status, body["status"]) == (200, "APPROVED")


def test_a_bug_is_no_traceback(client, monkeypatch, caplog):
    """An unexpected error is 500 without its details, which are in the log."""
    monkeypatch.setattr(client.host, "latest", lambda: 1 // 0)
    assert client.error("GET", "/nodes") == (500, "internal error; the server's log says more")
    assert "ZeroDivisionError" in caplog.text


# --- living ---------------------------------------------------------------------------------------------------


def test_a_host_lives_by_itself():
    """A started host ticks on its own, and many threads of transactions leave the books balanced."""
    host = ClusterHost(Cluster(6, seed=1), interval_s=0.005)
    ready = threading.Event()
    servers = []

    def remember(server):
        servers.append(server)
        ready.set()

    thread = threading.Thread(target=serve, args=(host, "127.0.0.1", 0, remember))
    thread.start()
    ready.wait()
    port = servers[0].port

    def pay(worker):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        statuses = []
        for number in range(25):
            # Two workers share each id, so that half of all requests are replays.
            body = transaction(f"tx-{worker // 2}-{number}", A, f"guest-{worker // 2}", 100)
            connection.request("POST", "/ledger/commit", json.dumps(body))
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()
        return statuses

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for found in pool.map(pay, range(8)) for status in found]
    servers[0].stop()
    thread.join()
    assert set(statuses) == {200}
    assert host.desk.executed == 100
    assert host.cluster.tick >= 1
    ledger = host.cluster.ledger
    assert ledger.guest_balances() == {f"guest-{index}": 2500 for index in range(4)}
    assert ledger.balances().tolist() == host.cluster.balances.tolist()
    assert audit(ledger.blocks(0, ledger.height + 1)) == []


def test_a_cluster_that_stopped_says_so(client, monkeypatch, caplog):
    """When a tick fails the host reports it, goes on answering reads, and refuses writes."""

    def failing():
        raise OSError("disk full")

    monkeypatch.setattr(client.host.cluster, "step", failing)
    client.host.start()
    client.host._thread.join()
    assert "the cluster has stopped" in caplog.text
    assert client.error("GET", "/livez") == (503, "the cluster has stopped: OSError: disk full")
    assert client.get("/system/status")["status"] == "FAILED"
    writes = [
        ("POST", "/ledger/commit", transaction()),
        ("POST", f"/nodes/{A}/isolate", fenced()),
        ("POST", f"/nodes/{A}/restore", fenced()),
        ("PUT", "/parameters", fenced(parameters=client.get("/parameters")["parameters"])),
        ("POST", "/faults", {"clear": "f"}),
    ]
    for method, path, body in writes:
        assert client.error(method, path, body)[0] == 503
    client.host.stop()


def test_a_living_cluster_says_so(client):
    """The liveness route is fine while the cluster lives."""
    assert client.get("/livez") == {"status": "ok"}


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_an_interval_is_positive(interval):
    """A host cannot tick at no interval."""
    with pytest.raises(InvalidRequestError, match="must be a positive number"):
        ClusterHost(Cluster(6), interval_s=interval)


def test_a_full_disk_is_told(client, monkeypatch):
    """A transaction that cannot be recorded is 503, and can be sent again."""

    def failing(_entry):
        raise LedgerWriteError("cannot write the ledger: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(client.host.cluster.ledger, "append_commit", failing)
        status, message = client.error("POST", "/ledger/commit", transaction())
    assert status == 503
    assert "No space left" in message
    assert client.call("POST", "/ledger/commit", transaction())[0] == 200


# --- as a process ---------------------------------------------------------------------------------------------

SERVE = """
import sys
from pathlib import Path
from qecs.chain_directory import holds_chain
from qecs.cluster import Cluster
from qecs.host import ClusterHost
from qecs.ledger import Ledger
from qecs.server import serve
directory = Path(sys.argv[1])
start = Cluster(6).ledger
ledger = (
    Ledger.recover(directory)
    if holds_chain(directory)
    else Ledger.genesis(start.balances(), start.cluster_bounds, directory=directory)
)
host = ClusterHost(Cluster(6, ledger=ledger), interval_s=0.01)
serve(host, "127.0.0.1", 0, lambda server: print(server.port, flush=True))
print("stopped", flush=True)
"""


def start_server(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, int(process.stdout.readline())


def post(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/ledger/commit", json.dumps(body))
    response = connection.getresponse()
    value = response.status, json.loads(response.read())
    connection.close()
    return value


@pytest.mark.process
def test_a_killed_server_keeps_what_it_acknowledged(tmp_path):
    """After kill -9 every acknowledged transaction is replayed with its first answer; SIGTERM then ends in order."""
    process, port = start_server(tmp_path)
    answers = [post(port, transaction(f"tx-{number}", A, "guest", 100)) for number in range(30)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert {status for status, _ in answers} == {200}

    process, port = start_server(tmp_path)
    again = [post(port, transaction(f"tx-{number}", A, "guest", 100)) for number in range(30)]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert again == answers
    assert (process.returncode, out, err) == (0, "stopped\n", "")

    ledger = Ledger.recover(tmp_path)
    assert ledger.guest_balances() == {"guest": 3000}
    assert audit(ledger.blocks(0, ledger.height + 1)) == []
    ledger.close()
