"""The InfluxDB store: the contract of all stores on a real server, outages, refusals, accounts, and bounded ends."""

from __future__ import annotations

import gzip
import inspect
import json
import math
import runpy
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import pytest

from metrics.errors import StoreFailedError
from metrics.store.influx import InfluxStore
from metrics.store.influx_client import InfluxClient, InfluxTarget
from metrics.store.influx_lines import LineWriter, place, series_name
from metrics.store.outbox import Pace
from metrics.store.protocol import Aggregate, Point, Sample, WriteResult
from metrics.store_writer import StoreAccounts
from metrics.telemetry import Frame

CONTRACT = runpy.run_path(str(Path(__file__).with_name("test_store_sqlite.py")))
globals().update(
    {
        name: test
        for name, test in CONTRACT.items()
        if name.startswith("test_") and "store" in inspect.signature(test).parameters
    }
)

QUICK = Pace(linger_s=0.02, backoff_min_s=0.01, backoff_max_s=0.05)
SECRET = "only-the-server-may-know"  # noqa: S105 - no such server
T0 = 1_700_000_000_000_000_000
_databases = count()


@pytest.fixture
def bucket(influx_server):
    """An empty database."""
    return influx_server.create(f"db{next(_databases)}")


@pytest.fixture
def target(influx_server, bucket):
    return InfluxTarget(influx_server.url, bucket, org="iace", timeout_s=5.0)


@pytest.fixture
def store(target, tmp_path):
    """An empty store, for the contract; it takes the place of the fixture of that name in the contract's file."""
    with closing(InfluxStore(target, tmp_path / "influx", plant="p", run="r", pace=QUICK)) as opened:
        yield opened


@pytest.fixture
def open_store(tmp_path):
    """Call it for a store in `tmp_path`/influx, closed in the end."""
    with ExitStack() as stack:

        def open_it(target, **options):
            options = {"plant": "p", "run": "r", "pace": QUICK, **options}
            return stack.enter_context(closing(InfluxStore(target, tmp_path / "influx", **options)))

        yield open_it


@pytest.fixture
def answering():
    """Call it with a function (method, path, body) -> (status, headers, body) for the URL of such a server."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, content = answer(self.command, self.path, body)
                with suppress(OSError):  # the client may have gone
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(content)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_POST  # noqa: N815 - the library's name

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def points(count_, start=0, series="kpi.coherence"):
    return [Point(series, T0 + i, i / 8) for i in range(start, start + count_)]


def wait_for(condition, within_s=20.0):
    """Wait until `condition` holds; for what another thread does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.005)


def dead_letters(tmp_path):
    return [json.loads(line) for line in (tmp_path / "influx" / "refused.jsonl").read_text().splitlines()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# What stands where.


@pytest.mark.parametrize(
    "series",
    [
        "kpi.coherence",
        "parameter.lambda1",
        "node.c1.n07.gravity",
        "node.n07.time",
        "kpi.",
        "kpi.time",
        "node..x",
        "a",
        "",
    ],
)
def test_every_series_has_one_place_and_its_name_is_found_from_there(series):
    """The place of a series gives its name back, odd names included."""
    where = place(series)
    assert series_name(where.measurement, where.tag[1] if where.tag else "", where.field) == series


def test_a_frame_and_events_become_the_documented_lines():
    """Each figure of a frame is a line in its measurement with its tags; NaN is counted as rejected."""
    writer = LineWriter("qecs", "run 1", {"n07": "c1"}.get)
    figures = {"kpi.gas": 0.5, "node.n07.gravity": 2, "parameter.alpha": 1.25, "kpi.rsi": math.nan, "other": -0.0}
    lines, rejected = writer.frame(Frame(3, 7.5, "GOVERNING", figures), T0)
    assert lines == [
        f"iace_kpi,plant=qecs,run=run\\ 1 gas=0.5 {T0}",
        f"iace_node,cluster=c1,node=n07,plant=qecs gravity=2.0 {T0}",
        f"iace_parameter,plant=qecs,run=run\\ 1 alpha=1.25 {T0}",
        f"iace_series,plant=qecs,run=run\\ 1,series=other value=-0.0 {T0}",
    ]
    assert rejected == 1
    event = writer.event(kind="ISOLATION_INTENDED", state="ISOLATING", text='{"node": "n07"}', seq=12, at_ns=T0)
    assert event.lines == [
        'iace_event,kind=ISOLATION_INTENDED,plant=qecs,state=ISOLATING text="{\\"node\\": \\"n07\\"}",seq=12i '
        + str(T0)
    ]


def test_whole_nodes_are_one_line_each():
    """A node's line holds all its signals that are known, and its status."""
    writer = LineWriter("p", "r", lambda _: "")
    signals = {"gravity": [0.5, math.nan], "h": [0.25, 0.75]}
    assert writer.nodes(signals, ["a", "b"], ["healthy", "isolated"], T0) == (
        [
            f'iace_node,node=a,plant=p gravity=0.5,h=0.25,status="healthy" {T0}',
            f'iace_node,node=b,plant=p h=0.75,status="isolated" {T0}',
        ],
        0,
    )
    with pytest.raises(ValueError, match="zip"):
        writer.nodes(signals, ["a"], ["healthy"], T0)


# The real InfluxDB.


def test_figures_nodes_and_events_are_read_back_from_the_real_server(open_store, target, influx_server, bucket):
    """KPIs of one tick share a row, nodes keep cluster, signals and status, events keep their text and number."""
    store = open_store(target, cluster_of={"n 1": "c,1"}.get)
    store.write([Point("kpi.gas", T0, 0.5), Point("kpi.rsi", T0, 0.25), Point("node.n 1.gravity", T0, 3.0)])
    store.write_nodes({"h": [0.125]}, ["n 1"], ["isolated"], T0)
    store.write_event(kind="K", state="S", text='a "b"\\\nλ', seq=2**62, at_ns=T0)
    assert store.flush(10.0)
    (kpis,) = influx_server.query("SELECT * FROM iace_kpi", bucket)
    assert dict(zip(kpis["columns"], kpis["values"][0], strict=True)) == {
        "time": T0, "gas": 0.5, "plant": "p", "rsi": 0.25, "run": "r",
    }  # fmt: skip
    (nodes,) = influx_server.query("SELECT * FROM iace_node", bucket)
    assert dict(zip(nodes["columns"], nodes["values"][0], strict=True)) == {
        "time": T0, "cluster": "c,1", "gravity": 3, "h": 0.125, "node": "n 1", "plant": "p", "status": "isolated",
    }  # fmt: skip
    (events,) = influx_server.query("SELECT text, seq FROM iace_event", bucket)
    assert events["values"] == [[T0, 'a "b"\\\nλ', 2**62]]
    assert store.series() == ("kpi.gas", "kpi.rsi", "node.n 1.gravity", "node.n 1.h")
    assert store.accounts() == StoreAccounts(produced=5, written=5, rejected=0, dropped=0, buffered=0)


def test_other_plants_are_not_read_and_not_forgotten(target, tmp_path):
    """Reading and retention see one plant only, across its runs."""
    with ExitStack() as stack:
        mine, later, other = (
            stack.enter_context(closing(InfluxStore(target, tmp_path / plant / run, plant=plant, run=run, pace=QUICK)))
            for plant, run in (("p", "1"), ("p", "2"), ("q", "1"))
        )
        for number, store in enumerate((mine, later, other)):
            store.write([Point("kpi.gas", T0 + number, float(number))])
            assert store.flush(10.0)
        assert mine.range("kpi.gas", T0, T0 + 10) == [Sample(T0, 0.0), Sample(T0 + 1, 1.0)]
        assert mine.retain(T0 + 10) == 2
        assert mine.series() == ()
        assert other.range("kpi.gas", T0, T0 + 10) == [Sample(T0 + 2, 2.0)]


def test_an_outage_loses_nothing(open_store, influx_server, target, tmp_path):
    """What is written while the database is down, and while even the proxy is, arrives once they are back."""
    store = open_store(target)
    store.write(points(100))
    assert store.flush(10.0)
    influx_server.stop_database()
    try:
        store.write(points(100, 100))
        wait_for(lambda: store.failure is not None)
        assert "answers with status 502" in str(store.failure)
    finally:
        influx_server.start_database()
    wait_for(lambda: store.accounts().written == 200)
    influx_server.stop()
    try:
        store.write(points(100, 200))
        wait_for(lambda: store.failure is not None)
        assert "does not answer" in str(store.failure)
        accounts = store.accounts()
        assert (accounts.written, accounts.buffered, accounts.balanced) == (200, 100, True)
        with pytest.raises(StoreFailedError, match="does not answer"):
            store.latest("kpi.coherence")
    finally:
        influx_server.start()
    wait_for(lambda: store.accounts().buffered == 0)
    assert store.range("kpi.coherence", T0, T0 + 300) == [Sample(point.at_ns, point.value) for point in points(300)]
    assert store.failure is None
    assert not (tmp_path / "influx" / "refused.jsonl").exists()


def test_a_restart_resumes_the_spool(open_store, target):
    """What a closed store could not send is sent by the next one in the same directory, and counts as produced."""
    away = InfluxTarget(f"http://127.0.0.1:{free_port()}", target.bucket)
    first = open_store(away)
    first.write(points(1000))
    first.close()
    assert first.accounts() == StoreAccounts(produced=1000, written=0, rejected=0, dropped=0, buffered=1000)
    second = open_store(target)
    second.write(points(1, 1000))
    assert second.flush(10.0)
    assert second.accounts() == StoreAccounts(produced=1001, written=1001, rejected=0, dropped=0, buffered=0)
    assert len(second.range("kpi.coherence", T0, T0 + 2000)) == 1001


def test_each_refused_line_is_found_and_kept_with_its_reason(open_store, influx_server, target, bucket, tmp_path):
    """Among good points those whose type conflicts are rejected and told by line; the good ones are there."""
    client = InfluxClient(target)
    assert client.send([f"iace_kpi,plant=p,run=r gas=1i {T0}".encode(), f"iace_node,plant=p x=1i {T0}".encode()]) == []
    store = open_store(target)
    batch = [*points(500), Point("kpi.gas", T0 + 1, 0.5), *points(500, 500), Point("kpi.gas", T0 + 2, 0.25)]
    assert store.write(batch) == WriteResult(1002, 0)
    assert store.flush(20.0)
    assert store.accounts() == StoreAccounts(produced=1002, written=1000, rejected=2, dropped=0, buffered=0)
    letters = dead_letters(tmp_path)
    assert sorted(letter["line"] for letter in letters) == [
        f"iace_kpi,plant=p,run=r gas=0.25 {T0 + 2}",
        f"iace_kpi,plant=p,run=r gas=0.5 {T0 + 1}",
    ]
    assert all("field type conflict" in letter["reason"] for letter in letters)
    assert influx_server.query("SELECT count(coherence) FROM iace_kpi", bucket)[0]["values"] == [[0, 1000]]


def test_a_missing_database_is_no_refusal(open_store, influx_server):
    """Without the database everything stays in the spool, with what to do; once it exists all arrives."""
    name = f"later{next(_databases)}"
    store = open_store(InfluxTarget(influx_server.url, name))
    store.write(points(10))
    wait_for(lambda: store.failure is not None)
    assert f'bucket {name} answers with status 404: database not found: "{name}": check its bucket' in str(
        store.failure
    )
    with pytest.raises(StoreFailedError, match="database not found"):
        store.check()
    influx_server.create(name)
    wait_for(lambda: store.accounts().written == 10)
    store.check()


def test_unparsable_lines_are_told_apart_by_the_real_parser(target):
    """Lines that the parser cannot read are refused one by one, and their neighbours are written."""
    client = InfluxClient(target)
    refused = client.send([b"m v=1 1", b"no fields", b"m v=2 2", b"m v=oops 3", b"m v=3 9223372036854775807"])
    assert sorted((line, reason.split(":")[0][:15]) for line, reason in refused) == [
        (b"m v=3 9223372036854775807", "unable to parse"),
        (b"m v=oops 3", "unable to parse"),
        (b"no fields", "unable to parse"),
    ]
    assert [row for part in client.query("SELECT v FROM m") for row in part["values"]] == [[1, 1], [2, 2]]
    client.close()


def test_aggregates_count_their_steps_from_any_start(store):
    """Steps begin at the start that was asked for, before 1970 too."""
    store.write([Point("kpi.a", at, float(at)) for at in (-25, -3, 4, 11, 12, 13)])
    assert store.aggregate("kpi.a", -27, 14, 10, Aggregate.COUNT) == [
        Sample(-27, 1.0), Sample(-7, 1.0), Sample(3, 3.0), Sample(13, 1.0),
    ]  # fmt: skip


# VictoriaMetrics.


def test_victoria_metrics_takes_everything(open_store, victoria_metrics):
    """Names with every awkward character arrive as they are, no row is invalid, and the values are exact."""
    invalid = victoria_metrics.counter("vm_rows_invalid_total")
    store = open_store(InfluxTarget(victoria_metrics.url, "iace"), plant="victoria")
    node = 'n "1", a=b λ \\'
    store.write([Point(f"node.{node}.gravity", T0 + i * 10**9, 0.1 + i) for i in range(5)])
    store.write_event(kind="K", state="S", text='a "quoted" text', seq=3, at_ns=T0)
    assert store.flush(10.0)
    (series,) = victoria_metrics.export('iace_node_gravity{plant="victoria"}')
    assert series["metric"]["node"] == 'n "1", a=b λ %5C'
    assert series["values"] == [0.1, 1.1, 2.1, 3.1, 4.1]
    assert series["timestamps"] == [T0 // 10**6 + i * 1000 for i in range(5)]
    assert victoria_metrics.counter("vm_rows_invalid_total") == invalid
    with pytest.raises(StoreFailedError, match="VictoriaMetrics, for one, has no InfluxQL"):
        store.check()


# Servers that misbehave.


def test_a_refused_batch_without_any_reason_per_line_is_halved(open_store, answering, tmp_path):
    """A server that refuses a batch as a whole gets it in halves until the one bad line is known."""
    taken = []

    def answer(_method, _path, body):
        lines = gzip.decompress(body).split(b"\n")
        if any(b"gas" in line for line in lines):
            return 422, {}, b'{"code":"unprocessable entity","message":"something is wrong"}'
        taken.extend(lines)
        return 204, {}, b""

    store = open_store(InfluxTarget(answering(answer), "b", org="o"))
    store.write([*points(300), Point("kpi.gas", T0, 1.0), *points(300, 300)])
    assert store.flush(10.0)
    assert store.accounts() == StoreAccounts(produced=601, written=600, rejected=1, dropped=0, buffered=0)
    assert dead_letters(tmp_path) == [{"reason": "something is wrong", "line": f"iace_kpi,plant=p,run=r gas=1.0 {T0}"}]
    assert len(set(taken)) == 600


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b'{"code":"unauthorized","message":"unauthorized access"}', "unauthorized access: check its token"),
        (403, b"", "403: no reason given: check what its token may do"),
        (400, b"<html>400 Bad Request</html>", "400: no reason given"),
        (503, b'{"error":"hinted handoff queue not empty"}', "hinted handoff"),
        (302, b"", "302"),
        (500, b"\xff\xfe not UTF-8", "does not answer"),
    ],
)
def test_what_is_wrong_with_the_request_costs_no_point(open_store, answering, status, body, told):
    """No permission, overload, redirections and proxies' pages keep the points for later."""
    store = open_store(InfluxTarget(answering(lambda *_: (status, {}, body)), "b", token=SECRET))
    store.write(points(10))
    wait_for(lambda: store.failure is not None)
    assert told in str(store.failure)
    assert SECRET not in str(store.failure) + repr(store.failure) + repr(InfluxTarget("http://h", "b", token=SECRET))
    assert store.accounts() == StoreAccounts(produced=10, written=0, rejected=0, dropped=0, buffered=10)


def test_a_request_that_is_too_large_is_halved(open_store, answering):
    """413 splits the batch, whoever sent it."""

    def answer(_method, _path, body):
        return (413, {}, b"<html>") if gzip.decompress(body).count(b"\n") >= 100 else (204, {}, b"")

    store = open_store(InfluxTarget(answering(answer), "b"))
    store.write(points(1000))
    assert store.flush(10.0)
    assert store.accounts() == StoreAccounts(produced=1000, written=1000, rejected=0, dropped=0, buffered=0)


def test_the_pause_that_a_server_asks_for_is_granted_within_the_bound(answering):
    """`Retry-After` is told to the outbox."""
    client = InfluxClient(InfluxTarget(answering(lambda *_: (429, {"Retry-After": "7"}, b"")), "b"))
    with pytest.raises(StoreFailedError) as caught:
        client.send([b"m v=1 1"])
    assert caught.value.retry_after_s == 7.0
    client.close()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b"not json", "status 200 and nothing of use"),
        (200, b"[]", "nothing of use"),
        (200, b"[" * 100_000, "nothing of use"),
        (200, b'{"results":[{"error":"bad query"}]}', "cannot be read: bad query"),
        (401, b'{"error":"authorization failed"}', "authorization failed: check its token"),
        (200, b'{"results":[{"series":[{"columns":["time","a"],"values":[],"partial":true}]}]}', "max-row-limit"),
    ],
)
def test_answers_that_are_no_answer_are_told(answering, status, body, told):
    """Garbage, errors, and a part in place of the whole are errors of the store."""
    client = InfluxClient(InfluxTarget(answering(lambda *_: (status, {}, body)), "b"))
    with pytest.raises(StoreFailedError, match=told):
        client.query("SELECT 1")
    client.close()


def test_queries_name_database_retention_policy_and_token(answering):
    """1.8's "database/policy" is taken apart for InfluxQL, and another name for the database is used where given."""
    seen = []

    def answer(_method, path, _body):
        seen.append(path)
        return 200, {}, b'{"results":[{}]}'

    url = answering(answer)
    for target in (InfluxTarget(url, "db/week"), InfluxTarget(url + "/", "bucket", database="mapped")):
        client = InfluxClient(target)
        assert client.query("SHOW SERIES") == []
        client.close()
    assert seen == ["/query?db=db&q=SHOW+SERIES&epoch=ns&rp=week", "/query?db=mapped&q=SHOW+SERIES&epoch=ns"]


def test_a_dripping_answer_ends_in_time():
    """A server that sends a byte now and then cannot hold a reader beyond its time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        client = InfluxClient(InfluxTarget(f"http://127.0.0.1:{listener.getsockname()[1]}", "b", timeout_s=0.3))
        with pytest.raises(StoreFailedError, match=r"did not end its answer within 0\.3 s"):
            client.query("SELECT 1")
        client.close()
        thread.join()


def test_a_server_that_never_answers_holds_up_neither_writing_nor_closing(open_store, tmp_path):
    """Connections that are accepted and left alone: writes go to the disk meanwhile, and close returns in its time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        store = open_store(InfluxTarget(url, "b", timeout_s=2.0))
        store.write(points(10))
        wait_for(lambda: any((tmp_path / "influx" / "spool").glob("*.segment")))
        store.write(points(10, 10))
        store.close(timeout_s=0.2)
        assert store.accounts() == StoreAccounts(produced=20, written=0, rejected=0, dropped=0, buffered=20)
        wait_for(lambda: not any(thread.name.startswith("iace-outbox") for thread in threading.enumerate()))


def test_a_url_that_is_none_is_refused(open_store):
    """A URL without http is told at once, without what it may hold of secrets."""
    with pytest.raises(StoreFailedError, match=r"ftp://h:1, bucket b: the URL must begin with http"):
        open_store(InfluxTarget("ftp://user:secret@h:1", "b"))


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    """A file where the directory should be is an error of the store, with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailedError, match="file/x cannot be created"):
        InfluxStore(InfluxTarget("http://h", "b"), tmp_path / "file" / "x", plant="p", run="r")
