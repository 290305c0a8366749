"""The API as a server: raw sockets, event streams, deadlines, TLS, load, and stopping."""

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from controller.api import stream
from controller.api.app import STREAM
from controller.api.auth import Role, TokenFile
from controller.api.server import ApiServer
from controller.api.stream import FullError, StreamHub
from controller.settings import ApiSettings
from metrics.errors import ConfigInvalidError
from metrics.telemetry import Telemetry

NODES = b"GET /api/nodes HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAIT_S = 10.0
GRACE_S = 0.25  # a tick that begins later than that has been missed; other processes of the machine cost some, too


@pytest.fixture
def serve(fake_daemon, tmp_path):
    """Call it with settings for a running API of a fake daemon: `port`, `at`, `hub`, `server`, `publish`, `listen`."""
    servers, listeners = [], []

    def start(**settings):
        port = fake_daemon.FakePort(tmp_path)
        port.fill(3, publish=False)
        unhurried = {"rate_per_s": 1e6, "burst": 1e6}
        server = ApiServer(port, ApiSettings(**{**unhurried, **settings}), tmp_path)
        servers.append(server)
        at = ("127.0.0.1", server.start(0))

        def publish(*ticks):
            for tick in ticks:
                port.telemetry.publish(fake_daemon.frame(tick))

        def listen(*arguments, **options):
            listeners.append(Events(at, *arguments, **options))
            return listeners[-1]

        hub = server._app.extensions[STREAM]
        return SimpleNamespace(port=port, at=at, hub=hub, server=server, publish=publish, listen=listen)

    yield start
    for events in listeners:
        events.close()
    for server in servers:
        server.stop()


def until(condition):
    """Wait for a condition, for long enough."""
    ends_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


def exchange(at, request):
    """What comes back for raw bytes: status and body."""
    with socket.create_connection(at, timeout=WAIT_S) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


class Events:
    """A raw event stream."""

    def __init__(self, at, headers="", path="/api/telemetry/stream"):
        self.connection = socket.create_connection(at, timeout=WAIT_S)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        self.connection.sendall(request.encode())
        self.response = http.client.HTTPResponse(self.connection)
        self.response.begin()

    def next(self):
        """The next event's id and data; None at the end."""
        fields = {}
        while line := self.response.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "id" in fields:
                return int(fields["id"]), json.loads(fields["data"])
        return None

    def close(self):
        self.response.close()
        self.connection.close()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"both Content-Length and Transfer-Encoding",
        ),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"Host header is missing"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"Host header is missing"),
        (b"nonsense\r\n\r\n", b""),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", b""),
    ],
)
def test_ambiguous_requests_are_400(serve, request_, words):
    """Both lengths, no Host, or no HTTP at all is refused in JSON before the application sees it."""
    status, body = exchange(serve().at, request_)
    assert status == 400
    assert json.loads(body)["status"] == "error"
    assert words in body


def test_a_body_that_is_too_long_is_413(serve):
    """The limit holds for announced and for chunked bodies alike."""
    at = serve(body_max_bytes=1024).at
    head = b"POST /api/control/resume HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    assert exchange(at, head + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000)[0] == 413
    assert (
        exchange(at, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n")[0]
        == 413
    )


def test_whoever_drips_is_cut_off(serve):
    """A request that has not arrived by its deadline loses its connection, however steadily it drips."""
    at = serve(request_deadline_s=0.5).at
    with socket.create_connection(at, timeout=WAIT_S) as connection:
        connection.settimeout(0.1)
        cut = False
        ends_s = time.monotonic() + WAIT_S
        while not cut and time.monotonic() < ends_s:
            try:
                connection.sendall(b"G")
                cut = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                cut = True
    assert cut


def test_whoever_never_reads_is_cut_off(serve):
    """An answer that is not taken by its deadline costs its connection and frees its thread."""
    served = serve(request_deadline_s=0.5)
    served.port.told_nodes = [{**served.port.told_nodes[0], "why": "x" * 1000}] * 20_000
    with socket.create_connection(served.at, timeout=WAIT_S) as connection:
        connection.sendall(b"GET /api/nodes?limit=100000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: served.server._server.active_channels)
        until(lambda: not served.server._server.active_channels)


def test_events_come_one_per_tick(serve):
    """A new subscriber begins with the latest tick and gets each one that follows, with the plant's tick as id."""
    served = serve()
    served.publish(10)
    until(lambda: served.hub._ring)
    events = served.listen()
    assert events.next()[0] == 10
    served.publish(11, 12)
    assert [events.next()[0] for _ in range(2)] == [11, 12]
    served.publish(13)
    tick, data = events.next()
    assert (tick, data["tick"], data["phase"], data["system_health"]) == (13, 13, "GOVERNING", "STABLE")
    assert data["timestamp"] == "2026-01-01T00:00:13.000+00:00"


@pytest.mark.parametrize(
    ("last_id", "missed"),
    [("11", [12, 13]), ("13", []), ("2", [10, 11, 12, 13]), ("999", [10, 11, 12, 13]), ("x", [10, 11, 12, 13])],
)
def test_a_stream_is_taken_up_where_it_broke_off(serve, last_id, missed):
    """`Last-Event-ID` brings what was missed, as far as it is held; an unknown id all that is."""
    served = serve()
    served.publish(10, 11, 12, 13)
    until(lambda: len(served.hub._ring) == 4)
    events = served.listen(f"Last-Event-ID: {last_id}\r\n")
    until(lambda: served.hub.subscribers == 1)
    served.publish(14)
    assert [events.next()[0] for _ in range(len(missed) + 1)] == [*missed, 14]


def test_a_stream_ends_after_as_many_events_as_were_asked_for(serve):
    """`events=2` is two events and the end."""
    served = serve()
    served.publish(10)
    until(lambda: served.hub._ring)
    events = served.listen(path="/api/telemetry/stream?events=2")
    until(lambda: served.hub.subscribers == 1)
    served.publish(11, 12, 13)
    assert [events.next()[0], events.next()[0], events.next()] == [10, 11, None]
    until(lambda: served.hub.subscribers == 0)


def test_silence_is_filled_with_heartbeats(serve, monkeypatch):
    """A stream without ticks shows that it lives."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    events = serve().listen()
    lines = [events.response.readline() for _ in range(6)]
    assert b": heartbeat\n" in lines


def test_subscribers_are_bounded(serve):
    """One stream too many is 503 with a hint; when one leaves there is room again."""
    served = serve(streams_max=2)
    first, _ = served.listen(), served.listen()
    until(lambda: served.hub.subscribers == 2)
    third = served.listen()
    assert (third.response.status, third.response.headers["Retry-After"]) == (503, "10")
    first.close()

    def again():
        served.publish(int(time.monotonic() * 1000))
        return served.hub.subscribers == 1

    until(again)
    fourth = served.listen()
    assert fourth.response.status == 200


def test_a_slow_subscriber_is_dropped_and_the_others_are_not(serve, monkeypatch):
    """Whoever does not read is dropped, counted and cut off, so that its thread is free; others miss nothing."""
    monkeypatch.setattr(stream, "QUEUE_TICKS", 4)
    served = serve()
    _, quick = served.listen(), served.listen()
    until(lambda: served.hub.subscribers == 2)
    got = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: (quick.next() or (None,))[0], None)))
    reader.start()
    tick = 10
    served.hub._encode = lambda frame: json.dumps({"tick": frame.tick, "padding": "x" * 200_000})
    while served.hub.dropped == 0 and tick < 5_000:
        served.publish(tick)
        until(lambda: served.hub._ring and served.hub._ring[-1].tick == tick)  # noqa: B023 - called at once
        until(lambda: tick in got)  # noqa: B023 - as above
        tick += 1
    assert served.hub.dropped == 1
    assert served.hub.subscribers == 1
    until(lambda: len(served.server._server.active_channels) == 1)
    assert got == list(range(10, tick))
    served.server.stop()
    reader.join(WAIT_S)


def test_a_plant_that_begins_again_empties_the_ring(fake_daemon):
    """A lower tick than the last begins a new count; nothing of the old one is sent after it."""
    telemetry = Telemetry()
    hub = StreamHub(telemetry, lambda frame: str(frame.tick), 1)
    hub.start()
    for tick in (100, 101, 1):
        telemetry.publish(fake_daemon.frame(tick))
    until(lambda: hub._ring and hub._ring[-1].tick == 1)
    assert [event.tick for event in hub._ring] == [1]
    hub.stop()
    with pytest.raises(FullError):
        hub.subscribe()


def test_a_response_that_is_never_begun_frees_its_place(serve):
    """HEAD of a stream subscribes nobody for longer than it takes to answer."""
    served = serve(streams_max=1)
    for _ in range(3):
        assert exchange(served.at, b"HEAD /api/telemetry/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200
    until(lambda: served.hub.subscribers == 0)


def test_it_stops_with_streams_open(serve):
    """Stopping ends streams in good order and leaves no thread behind."""
    served = serve()
    for _ in range(5):
        served.listen()
    until(lambda: served.hub.subscribers == 5)
    thread = served.server._thread
    served.server.stop()
    served.server.stop()
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        exchange(served.at, NODES)


def test_an_address_that_cannot_be_bound_is_a_problem_of_the_configuration(serve, fake_daemon, tmp_path):
    """A taken port says which, and what was wrong."""
    at = serve().at
    with pytest.raises(ConfigInvalidError, match=f"127.0.0.1:{at[1]} cannot be bound"):
        ApiServer(fake_daemon.FakePort(tmp_path), ApiSettings(port=at[1]), tmp_path).start()


def test_the_open_network_is_warned_of(fake_daemon, tmp_path, caplog):
    """Anything but loopback without TLS or tokens is a loud warning."""
    server = ApiServer(fake_daemon.FakePort(tmp_path), ApiSettings(host="0.0.0.0"), tmp_path)  # noqa: S104 - the point
    server.start(0)
    server.stop()
    assert "THE API IS OPEN TO THE NETWORK on 0.0.0.0 WITHOUT TLS" in caplog.text
    assert "tokens (iace token create)" in caplog.text


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("not installed: openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert)
    subprocess.run(["openssl", *made.split(), *files], check=True, capture_output=True)
    return cert, key


def test_tls_serves_requests_and_streams(serve, certificate):
    """Https answers large bodies and events, says so in its headers, and plain http gets nothing."""
    cert, key = certificate
    served = serve(tls_cert_file=cert, tls_key_file=key)
    served.port.told_nodes = [{**served.port.told_nodes[0], "why": "x" * 1000}] * 2_000
    context = ssl.create_default_context(cafile=str(cert))
    connection = http.client.HTTPSConnection(*served.at, context=context, timeout=WAIT_S)
    for _ in range(3):
        connection.request("GET", "/api/nodes?limit=2000")
        response = connection.getresponse()
        assert len(json.loads(response.read())["nodes"]) == 2000
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    served.publish(10)
    connection.request("GET", "/api/telemetry/stream?events=2")
    answer = connection.getresponse()
    served.publish(11, 12)
    assert answer.read().count(b"data: ") == 2
    connection.close()
    assert served.server.url.startswith("https://127.0.0.1:")
    with socket.create_connection(served.at, timeout=WAIT_S) as plain:
        plain.sendall(NODES)
        with suppress(ConnectionResetError):
            assert b"HTTP/1" not in plain.recv(1000)


def test_tls_files_that_cannot_be_used_are_told(fake_daemon, tmp_path, certificate):
    """A missing or mismatched file is a problem of the configuration."""
    cert, _ = certificate
    settings = ApiSettings(tls_cert_file=cert, tls_key_file=tmp_path / "none.pem")
    with pytest.raises(ConfigInvalidError, match=r"api\.tls_cert_file, api\.tls_key_file: "):
        ApiServer(fake_daemon.FakePort(tmp_path), settings, tmp_path).start(0)


@pytest.mark.process
def test_streams_and_requests_do_not_disturb_the_ticks(serve, tmp_path):
    """50 streams and 200 requests a second at once: no tick is missed, none is lost, and no request fails."""
    interval_s, ticks = 0.05, 100
    served = serve(streams_max=50)
    served.port.fill(100, publish=False)
    token = TokenFile(tmp_path / "tokens.json").create("v", Role.VIEWER)
    served.publish(0)
    load = [sys.executable, Path(__file__).with_name("api_load.py"), str(served.at[1]), token, "50", str(ticks)]
    with subprocess.Popen(load, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: served.hub.subscribers == 50)
        began_s, missed = time.monotonic(), 0
        for tick in range(1, ticks + 1):
            due_s = began_s + tick * interval_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            missed += time.monotonic() - due_s > GRACE_S
            served.publish(tick)
        told = json.loads(process.communicate(timeout=60)[0])
    assert missed == 0
    assert told["whole"] == 50
    assert served.hub.dropped == 0
    assert set(told["statuses"]) == {"200"}
    assert told["statuses"]["200"] >= 200
