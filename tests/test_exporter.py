"""What a scrape shows, in which form, and how it gets to those who do not scrape."""

import errno
import http.server
import io
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from wsgiref.validate import validator

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from metrics.errors import NotPermittedError, StoreFailedError
from metrics.export_catalogue import EXPORTED
from metrics.export_snapshot import Durations, ExportSnapshot, NodeSample
from metrics.exporter import Exporter, gateway_name, require_writable
from metrics.exposition import OPENMETRICS_TYPE, TEXT_TYPE
from metrics.store_writer import StoreAccounts

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
NASTY = 'a"b\\c\nd,e=f{g} \N{GREEK SMALL LETTER LAMDA}'

# The contract: dashboards and alerts are written against these names, labels and types.
CONTRACT = {
    "iace_state": ("gauge", {"state"}),
    "iace_phase_result": ("gauge", {"phase"}),
    "iace_phase_duration_seconds": ("gauge", {"phase"}),
    "iace_coherence_ratio": ("gauge", set()),
    "iace_gas_ratio": ("gauge", set()),
    "iace_rsi_ratio": ("gauge", set()),
    "iace_lambda_opt": ("gauge", set()),
    "iace_delta_lambda": ("gauge", set()),
    "iace_delta_entropy": ("gauge", set()),
    "iace_action_cost_ratio": ("gauge", set()),
    "iace_emission_tokens_total": ("counter", set()),
    "iace_burned_tokens_total": ("counter", set()),
    "iace_transactions_total": ("counter", {"result"}),
    "iace_transaction_rate": ("gauge", set()),
    "iace_gravity_wells": ("gauge", set()),
    "iace_stable_clusters": ("gauge", set()),
    "iace_nodes": ("gauge", {"status"}),
    "iace_node_gravity": ("gauge", {"node", "cluster"}),
    "iace_node_isolated": ("gauge", {"node", "cluster"}),
    "iace_isolations_total": ("counter", {"reason"}),
    "iace_restorations_total": ("counter", set()),
    "iace_isolations_blocked_total": ("counter", {"guard"}),
    "iace_wells_blocked": ("gauge", {"guard"}),
    "iace_anomaly_score": ("gauge", {"kpi"}),
    "iace_anomalies_total": ("counter", {"kpi", "severity"}),
    "iace_kpi_limit": ("gauge", {"kpi", "level"}),
    "iace_supply_tokens": ("gauge", set()),
    "iace_entropy_nats": ("gauge", set()),
    "iace_coherence_service_ratio": ("gauge", set()),
    "iace_storm": ("gauge", set()),
    "iace_parameter": ("gauge", {"parameter"}),
    "iace_healing_trials_total": ("counter", {"parameter", "outcome"}),
    "iace_healing_exhausted": ("gauge", set()),
    "iace_proposals": ("gauge", {"status"}),
    "iace_plant_up": ("gauge", set()),
    "iace_plant_request_seconds": ("histogram", {"le"}),
    "iace_observation_age_seconds": ("gauge", set()),
    "iace_tick_duration_seconds": ("histogram", {"le"}),
    "iace_tick_interval_seconds": ("gauge", set()),
    "iace_tick_lag_seconds": ("gauge", set()),
    "iace_ticks_missed_total": ("counter", {"job"}),
    "iace_store_points_total": ("counter", {"store", "outcome"}),
    "iace_store_buffered_points": ("gauge", {"store"}),
    "iace_journal_events_total": ("counter", set()),
    "iace_journal_failures_total": ("counter", set()),
    "iace_leader": ("gauge", set()),
    "iace_epoch": ("gauge", set()),
    "iace_safe_mode": ("gauge", set()),
    "iace_last_run_exit_code": ("gauge", set()),
    "iace_build_info": ("gauge", {"version"}),
}


def full_snapshot(**changes):
    """A snapshot in which everything is known."""
    return replace(
        ExportSnapshot(
            state="GOVERNING",
            states=("IDLE", "GOVERNING", "SAFE_MODE"),
            plant_requests=Durations((0.1, 1.0), (3, 2, 1), 4.5),
            ticks=Durations((0.1, 1.0), (0, 4, 0), 1.25),
            phase_results={"PHASE_I": 1, "PHASE_II": 0, "PHASE_III": -1},
            phase_durations_s={"PHASE_I": 89.0},
            kpis={
                "coherence": 0.96,
                "gas": 0.97,
                "rsi": 0.88,
                "action_cost": 0.03,
                "lambda_opt": 0.48,
                "delta_lambda": 0.001,
                "entropy": 0.98,
                "delta_entropy": 0.0001,
                "coherence_service": 0.93,
                "transaction_rate": 1014.5,
                "supply": 24_634_139.0,
                "gravity_wells": 1.0,
                "stable_clusters": 7.0,
            },
            kpi_limits={("coherence", "healthy"): 0.9, ("coherence", "critical"): 0.85},
            scores={"coherence": 1.5},
            parameters={"lambda1": 0.3},
            emission_tokens=12.0,
            burned_tokens=34.0,
            transactions={"committed": 100.0, "shed": 2.0},
            nodes={"healthy": 4, "isolated": 1},
            node_samples=(NodeSample("n1", "c1", 1.75, isolated=True), NodeSample(NASTY, "c2", 0.25, isolated=False)),
            isolations={"coherence": 2},
            restorations=1,
            blocked={"quorum": 3},
            wells_blocked={"quorum": 1},
            anomalies={("coherence", "warning"): 4},
            trials={("lambda1", "kept"): 5},
            proposals={"proposed": 6},
            storm=True,
            safe_mode=True,
            leader=True,
            epoch=7,
            plant_up=True,
            received_s=100.0,
            tick_interval_s=1.0,
            tick_lag_s=0.002,
            ticks_missed={"tick": 8},
            stores={"sqlite": StoreAccounts(produced=30, written=20, rejected=4, dropped=1, buffered=5)},
            journal_events=9,
            journal_failures=1,
            exit_code=51,
            build={"version": "2.0.0"},
        ),
        **changes,
    )


def shown(exporter):
    """Sample name and labels to value, as a scraper of the text format reads them."""
    families = parse_text(exporter.scrape().body.decode())
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def tool(name):
    """A program of Debian's packages."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing: install the packages of .ci/packages")
    if path is None:
        pytest.skip(f"{name} is not installed: see .ci/packages")
    return path


@pytest.fixture
def exporter():
    """One that shows a full snapshot, 2.5 s after its observation was received."""
    made = Exporter(lambda: 102.5)
    made.publish(full_snapshot())
    return made


def test_every_name_of_the_contract_is_exposed_with_its_type_and_labels(exporter):
    """A scrape holds each metric of the contract, of the type and with the labels that were promised, and no other."""
    found = {}
    for family in parse_text(exporter.scrape().body.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = (family.type, labels)
    assert found == CONTRACT


def test_values_arrive_unchanged(exporter):
    """What the snapshot says is what a scraper reads."""
    values = shown(exporter)
    assert values["iace_state", ("state", "GOVERNING")] == 1.0
    assert values["iace_state", ("state", "IDLE")] == 0.0
    assert values["iace_phase_result", ("phase", "PHASE_III")] == -1.0
    assert values[("iace_supply_tokens",)] == 24_634_139.0
    assert values["iace_transactions_total", ("result", "shed")] == 2.0
    assert values["iace_node_gravity", ("cluster", "c2"), ("node", NASTY)] == 0.25
    assert values["iace_node_isolated", ("cluster", "c1"), ("node", "n1")] == 1.0
    assert values["iace_kpi_limit", ("kpi", "coherence"), ("level", "critical")] == 0.85
    assert values["iace_healing_trials_total", ("outcome", "kept"), ("parameter", "lambda1")] == 5.0
    assert values["iace_store_points_total", ("outcome", "rejected"), ("store", "sqlite")] == 4.0
    assert values["iace_store_buffered_points", ("store", "sqlite")] == 5.0
    assert values[("iace_last_run_exit_code",)] == 51.0
    assert values["iace_build_info", ("version", "2.0.0")] == 1.0


def test_durations_are_cumulated(exporter):
    """Buckets count what is within their bound, the last one all, with the sum beside them."""
    values = shown(exporter)
    buckets = [values["iace_plant_request_seconds_bucket", ("le", bound)] for bound in ("0.1", "1.0", "+Inf")]
    assert buckets == [3.0, 5.0, 6.0]
    assert values[("iace_plant_request_seconds_count",)] == 6.0
    assert values[("iace_plant_request_seconds_sum",)] == 4.5


def test_age_is_that_of_the_scrape(exporter):
    """The observation grows older between scrapes, though nothing is published."""
    assert shown(exporter)[("iace_observation_age_seconds",)] == 2.5
    exporter._clock = lambda: 160.0
    assert shown(exporter)[("iace_observation_age_seconds",)] == 60.0


def test_what_is_not_known_is_absent():
    """A KPI without value, a node without gravity, a plant never asked: no sample, rather than an invented one."""
    exporter = Exporter()
    node = NodeSample("n1", "c1", float("nan"), isolated=False)
    exporter.publish(
        full_snapshot(
            kpis={"coherence": float("nan")},
            scores={"gas": float("nan")},
            node_samples=(node,),
            plant_up=None,
            received_s=None,
            tick_interval_s=None,
            tick_lag_s=None,
            exit_code=None,
        )
    )
    names = {name for name, *_ in shown(exporter)}
    assert names.isdisjoint(
        {
            "iace_coherence_ratio",
            "iace_gas_ratio",
            "iace_anomaly_score",
            "iace_node_gravity",
            "iace_plant_up",
            "iace_observation_age_seconds",
            "iace_tick_interval_seconds",
            "iace_tick_lag_seconds",
            "iace_last_run_exit_code",
        }
    )
    assert "iace_node_isolated" in names


def test_before_the_first_snapshot_there_is_nothing():
    """An exporter to which nothing was published shows nothing, in either format."""
    exporter = Exporter()
    assert exporter.scrape().body == b""
    assert exporter.scrape(OPENMETRICS).body == b"# EOF\n"
    assert list(exporter.collect()) == []


def test_both_renderings_give_the_same_bytes(exporter):
    """What is written by hand for speed is, byte for byte, what prometheus_client would have written."""
    odd = NodeSample("half a \ud800 pair", "c3", float("inf"), isolated=True)
    exporter.publish(full_snapshot(node_samples=(*full_snapshot().node_samples, odd)))
    assert exporter.scrape().body == generate_latest(exporter.registry)
    assert exporter.scrape(OPENMETRICS).body == generate_openmetrics(exporter.registry)


def test_openmetrics_is_well_formed(exporter):
    """The strict OpenMetrics parser takes the scrape, and finds the family of each metric."""
    families = list(parse_openmetrics(exporter.scrape(OPENMETRICS).body.decode()))
    assert len(families) == len(CONTRACT)
    assert {family.type for family in families} == {"gauge", "counter", "histogram", "info"}


def test_no_creation_times_and_no_process_metrics(exporter):
    """Counters come without `_created`, and nothing of the global registry slips in."""
    assert b"_created" not in exporter.scrape(OPENMETRICS).body
    assert {family.name.split("_")[0] for family in exporter.registry.collect()} == {"iace"}


def test_two_exporters_are_strangers():
    """Each has a registry of its own and shows its own snapshot."""
    one, other = Exporter(), Exporter()
    one.publish(full_snapshot(epoch=1))
    other.publish(full_snapshot(epoch=2))
    assert shown(one)[("iace_epoch",)] == 1.0
    assert shown(other)[("iace_epoch",)] == 2.0


def test_a_scrape_never_mixes_two_observations():
    """While one thread publishes as fast as it can, every scrape shows values of one snapshot alone."""
    exporter, over = Exporter(), threading.Event()

    def numbered(number):
        samples = tuple(NodeSample(f"n{i}", "c1", float(number), isolated=False) for i in range(50))
        return full_snapshot(
            kpis={"coherence": float(number)}, epoch=number, journal_events=number, node_samples=samples
        )

    def publish():
        number = 0
        while not over.is_set():
            number += 1
            exporter.publish(numbered(number))

    exporter.publish(numbered(0))
    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        mixed = []
        for _ in range(20):
            values = shown(exporter)
            numbers = {v for (name, *_), v in values.items() if name in ("iace_node_gravity", "iace_coherence_ratio")}
            numbers |= {values[("iace_epoch",)], values[("iace_journal_events_total",)]}
            mixed.append(len(numbers))
    finally:
        over.set()
        publisher.join()
    assert set(mixed) == {1}


def test_promtool_has_nothing_to_say(exporter):
    """Prometheus' own linter takes the scrape without a remark."""
    result = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=exporter.scrape().body, capture_output=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_names_are_told_once():
    """The catalogue names nothing twice and explains everything."""
    names = [metric.name for metric in EXPORTED]
    assert len(names) == len(set(names))
    assert all(metric.help.endswith(".") for metric in EXPORTED)


class Answer:
    """What a WSGI application answered."""

    def __init__(self, application, method="GET", accept=""):
        environ = {
            "REQUEST_METHOD": method,
            "HTTP_ACCEPT": accept,
            "SCRIPT_NAME": "",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        answer = validator(application)(environ, self._start)
        self.body = b"".join(answer)
        answer.close()

    def _start(self, status, headers, _error=None):
        self.status, self.headers = status, dict(headers)
        return io.BytesIO().write


@pytest.mark.parametrize(("accept", "content_type"), [("", TEXT_TYPE), (OPENMETRICS, OPENMETRICS_TYPE)])
def test_wsgi_answers_in_the_form_that_was_asked_for(exporter, accept, content_type):
    """A GET gives the scrape in the format that the client prefers, with its length."""
    answer = Answer(exporter.wsgi, accept=accept)
    assert answer.status == "200 OK"
    assert answer.headers == {"Content-Type": content_type, "Content-Length": str(len(answer.body))}
    assert answer.body == exporter.scrape(accept).body


def test_wsgi_answers_head_and_refuses_the_rest(exporter):
    """HEAD has no body; another method is refused with those that are allowed."""
    head = Answer(exporter.wsgi, "HEAD")
    assert (head.status, head.body) == ("200 OK", b"")
    post = Answer(exporter.wsgi, "POST")
    assert (post.status, post.headers["Allow"], post.body) == (
        "405 Method Not Allowed",
        "GET, HEAD",
        b"metrics are only read: GET or HEAD\n",
    )


def test_textfile_is_the_scrape_and_can_be_read_by_others(exporter, tmp_path):
    """The file holds the text format, replaces an older one, is readable by the collector, and is all that is left."""
    path = tmp_path / "iace.prom"
    path.write_text("old")
    exporter.write_textfile(path)
    assert path.read_bytes() == exporter.scrape().body
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    assert [entry.name for entry in tmp_path.iterdir()] == ["iace.prom"]


def test_textfile_that_cannot_be_written_leaves_the_old_one(exporter, tmp_path, monkeypatch):
    """On a full disk the old file stays whole, nothing is left beside it, and the error says what to do."""
    path = tmp_path / "iace.prom"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFailedError, match=r"iace\.prom: No space left on device; free space or choose another"):
        exporter.write_textfile(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["iace.prom"]


def test_textfile_into_nowhere_is_found_out_beforehand(exporter, tmp_path):
    """A missing directory, or a directory in the file's place, fails when asked and when written."""
    for path in (tmp_path / "nowhere" / "iace.prom", tmp_path):
        with pytest.raises(StoreFailedError, match="the metrics cannot be written to"):
            require_writable(path)
        with pytest.raises(StoreFailedError, match="the metrics cannot be written to"):
            exporter.write_textfile(path)


def test_textfile_that_is_forbidden_is_told_apart(tmp_path, monkeypatch):
    """What the operating system forbids is a matter of permission, not of space."""

    def forbidden(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(NotPermittedError, match="Permission denied; choose another file with --textfile"):
        require_writable(tmp_path / "iace.prom")


def test_asking_beforehand_changes_nothing(tmp_path):
    """Whether a file can be written is found out without touching what is there."""
    path = tmp_path / "iace.prom"
    path.write_text("old")
    require_writable(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["iace.prom"]


class Gateway(http.server.BaseHTTPRequestHandler):
    """Takes a push, or behaves as its server says."""

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.pushed.append((self.path, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    """A small server that keeps what is pushed in `pushed` and answers with `status`."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Gateway)
    server.pushed, server.status = [], 200
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_push_puts_the_scrape_under_its_group(exporter, gateway):
    """The whole scrape goes by PUT under job and group, odd characters and all."""
    exporter.push(gateway.url, {"plant": "http://127.0.0.1:8080"})
    [(path, body)] = gateway.pushed
    assert path == "/metrics/job/iace_run/plant@base64/aHR0cDovLzEyNy4wLjAuMTo4MDgw"
    assert body == exporter.scrape().body


def test_a_push_that_is_refused_is_told(exporter, gateway):
    """An answer that is no success is a failed store, with the address and the status."""
    gateway.status = 400
    with pytest.raises(
        StoreFailedError, match=rf"Pushgateway at {gateway.url} did not take the metrics: HTTP Error 400"
    ):
        exporter.push(gateway.url, {})


def test_a_push_to_nobody_is_told(exporter):
    """Where nobody listens the push fails at once."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(StoreFailedError, match=r"did not take the metrics: .*refused"):
        exporter.push(url, {})


def test_a_push_has_one_deadline_for_all_of_it(exporter):
    """A gateway that drips its answer byte by byte, each in time, is left when the deadline has passed."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection:
                while not over.wait(0.05):
                    connection.sendall(b"H")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with pytest.raises(StoreFailedError, match=r"did not take the metrics within 0\.3 s"):
                exporter.push(f"http://127.0.0.1:{server.getsockname()[1]}", {}, deadline_s=0.3)
        finally:
            over.set()
            dripping.join()


@pytest.mark.parametrize("url", ["localhost:9091", "ftp://host", "http://", "http://u:secret@host", "http://host/?a=b"])
def test_addresses_that_cannot_be_used_are_refused(url):
    """A gateway needs scheme and host, and nothing that must not be printed."""
    with pytest.raises(ValueError, match="must") as refused:
        gateway_name(url)
    assert "secret" not in str(refused.value)


@pytest.mark.process
def test_a_real_pushgateway_takes_it(exporter, tmp_path):
    """The Pushgateway itself accepts the push, and shows it with the group's labels."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [tool("prometheus-pushgateway"), f"--web.listen-address={address}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                exporter.push(f"http://{address}", {"plant": "embedded"})
                break
            except StoreFailedError:
                time.sleep(0.05)
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        process.terminate()
        process.wait()
    assert 'iace_last_run_exit_code{instance="",job="iace_run",plant="embedded"} 51\n' in text
    assert 'push_failure_time_seconds{instance="",job="iace_run",plant="embedded"} 0\n' in text
