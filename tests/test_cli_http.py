"""`iace run --plant http` against servers in other processes: our own, ones of v1.5, and ones that misbehave."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.process

TICK_S = 0.05
ALLOWED = ("--allow-probes", "--allow-fault-injection")
V15 = ("--interval", 0.01, "--ticks", 20)
PATIENT = {"IACE_ISOLATION__VERIFY_S": "120", "IACE_HEALING__VERIFY_S": "120"}  # ten ticks are a blink here
IMPATIENT = {"IACE_PLANT__UNAVAILABLE_S": "1", "IACE_PLANT__DEADLINE_S": "0.5", "IACE_PLANT__CONNECT_S": "1"}


def at(url, *arguments):
    return ("run", "--plant", "http", "--url", url, *arguments)


def governing(url, *arguments):
    return at(url, "--interval", TICK_S, *ALLOWED, *arguments)


def no_traceback(done):
    assert "Traceback" not in done.err
    assert "Traceback" not in done.out
    assert done.report is None or done.report["exit_code"] == done.code


def status_of(report, name):
    (check,) = [check for phase in report["phases"] for check in phase["checks"] if check["name"] == name]
    return check["status"]


def read(url, route):
    with urllib.request.urlopen(f"{url}{route}", timeout=5) as answer:
        return json.load(answer)


def until(reached, seconds=60):
    """Wait for another process; a machine that is busier than this is broken."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.05)


def last_event(cwd, number=None):
    chosen = [] if number is None else ["--run", str(number)]
    command = [sys.executable, "-m", "controller", "journal", "export", *chosen]
    return json.loads(subprocess.run(command, cwd=cwd, check=True, capture_output=True).stdout.splitlines()[-1])


@pytest.fixture
def plant(serve_qecs):
    """Our own server in another process, 50 nodes, faults allowed."""
    return serve_qecs("--interval", TICK_S, "--allow-faults")


@pytest.fixture
def small_plant(serve_qecs):
    """The same with 20 nodes."""
    return serve_qecs("--nodes", 20, "--interval", TICK_S, "--allow-faults")


@pytest.mark.parametrize(
    ("scenario", "ticks", "code"),
    [
        ("healthy", 20, 0),
        ("byzantine-node", 110, 0),
        ("ledger-tampering", 20, 20),
        ("cluster-fault", 110, 51),
        ("sensor-fault", 130, 60),
    ],
)
def test_a_server_gets_the_verdict_of_the_embedded_plant(iace, plant, scenario, ticks, code):
    """The same scenario on a server in another process ends in the same exit code, for the same reason."""
    done = iace(*governing(plant, "--scenario", scenario, "--ticks", ticks), env=PATIENT)
    no_traceback(done)
    assert done.code == code, done.err[-3000:]
    governed = [isolation for isolation in done.report["isolations"] if isolation["probe"] is None]
    if scenario == "byzantine-node":
        (isolation,) = governed
        assert isolation["verified"]
        assert read(plant, "/isolations")["isolations"].keys() == {isolation["node"]}
    if scenario == "ledger-tampering":
        assert status_of(done.report, "ledger.roots") == "failed"
    if scenario == "cluster-fault":
        assert "budget_cluster" in done.report["causes"][0]
        assert len(read(plant, "/isolations")["isolations"]) <= 15
    if scenario == "sensor-fault":
        assert governed == []
    assert read(plant, "/faults")["faults"] == [] or scenario == "ledger-tampering"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_in_order_and_leaves_the_plant_as_it_is(start_iace, iace, small_plant, tmp_path, number, code):
    """A signal in the middle of a scenario ends the run in order; what it left is cleared up by the next run."""
    scenario = tmp_path / "early.toml"
    scenario.write_text('[[fault]]\nkind = "slow"\nphase = "PHASE_I"\nafter_ticks = 5\n')
    running = start_iace(*governing(small_plant, "--scenario", scenario), env=PATIENT)
    until(lambda: read(small_plant, "/faults")["faults"])
    running.send_signal(number)
    done = running.finish()
    no_traceback(done)
    assert done.code == code
    assert last_event(done.cwd)["kind"] == "RUN_ENDED"
    assert last_event(done.cwd)["hash"] == done.report["journal_tip"]["hash"]
    assert [fault["id"] for fault in read(small_plant, "/faults")["faults"]] == ["slow-1"]

    after = iace(*at(small_plant, "--interval", TICK_S, "--ticks", 1, "--deadline", 1))
    assert after.code == 61
    assert "left by run 1: fault slow-1 ended" in after.err
    assert read(small_plant, "/faults")["faults"] == []


def test_a_killed_run_is_cleared_up_after(start_iace, iace, small_plant, tmp_path):
    """After `kill -9` the next run ends the leftover fault, knows the leftover isolation, and ends in its own code."""
    scenario = tmp_path / "soon.toml"
    scenario.write_text('[[fault]]\nkind = "byzantine"\nafter_ticks = 1\n')
    running = start_iace(*governing(small_plant, "--scenario", scenario, "--ticks", 3000), env=PATIENT)
    until(lambda: "GOVERNING" in (running.cwd / "stderr").read_text())
    until(lambda: read(small_plant, "/isolations")["isolations"])
    (left,) = read(small_plant, "/isolations")["isolations"]
    until(lambda: f"{left} is isolated, as the plant shows" in (running.cwd / "stderr").read_text())
    running.kill()
    assert running.finish().code == -signal.SIGKILL
    assert read(small_plant, "/faults")["faults"] != []

    done = iace(*governing(small_plant, "--ticks", 20), env=PATIENT)
    no_traceback(done)
    assert "left by run 1: fault byzantine-1 ended" in done.err
    assert f"left by run 1: {left} is still out, until its time limit" in done.err
    assert read(small_plant, "/faults")["faults"] == []
    assert done.code == 0, done.err[-3000:]
    assert last_event(done.cwd, 1)["kind"] != "RUN_ENDED"
    assert last_event(done.cwd, 2)["kind"] == "RUN_ENDED"


def test_leftovers_wait_for_a_run_that_reaches_their_plant(start_iace, iace, small_plant):
    """After `kill -9` during Phase III's own probe, runs that reach no plant or another one do not forget it."""
    running = start_iace(*governing(small_plant, "--ticks", 20), env=PATIENT)
    until(lambda: "dissonance" in {fault["id"] for fault in read(small_plant, "/faults")["faults"]})
    running.kill()
    running.finish()
    assert iace(*at("http://127.0.0.1:9"), env=IMPATIENT).code == 69
    dry = iace(*at(small_plant, "--interval", TICK_S, "--ticks", 1, "--deadline", 1, "--dry-run"))
    assert f"run 1 may have left something at {small_plant}; a dry run leaves it" in dry.err
    assert read(small_plant, "/faults")["faults"] != []
    elsewhere = iace("run", "--nodes", 10, "--deadline", 0.001)
    assert f"run 1 may have left something at {small_plant}" in elsewhere.err
    done = iace(*governing(small_plant, "--ticks", 20), env=PATIENT)
    no_traceback(done)
    assert "left by run 1: fault dissonance ended" in done.err
    assert done.code == 0, done.err[-3000:]
    assert read(small_plant, "/faults")["faults"] == []


def test_a_scenario_needs_a_server_that_offers_faults_and_leave_to_use_them(iace, serve_qecs):
    """A scenario on a server without faults, or without leave, is refused with 78 before anything is changed."""
    closed, open_ = serve_qecs(), serve_qecs("--allow-faults")
    done = iace(*at(closed, *ALLOWED, "--scenario", "slow-node"))
    assert done.code == 78
    assert "offers no faults" in done.err
    done = iace(*at(open_, "--scenario", "slow-node"))
    assert done.code == 78
    assert "--allow-fault-injection" in done.err
    done = iace(*at(open_, *ALLOWED, "--scenario", "slow-node", "--dry-run"))
    assert done.code == 78
    assert "a dry run acts on nothing" in done.report["causes"][0]


def test_nobody_listening_is_unavailable(iace):
    """An address at which nobody listens ends in 69, with a report that says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    done = iace(*at(url), env=IMPATIENT)
    no_traceback(done)
    assert done.code == 69
    assert done.report["exit_name"] == "PLANT_UNAVAILABLE"
    assert url in done.report["causes"][0]


@pytest.mark.parametrize("vice", ["hangs", "drips_body", "endless_body", "garbage", "not_http", "server_errors"])
def test_a_server_that_gives_no_answer_is_unavailable(iace, start_fake_qecs, vice):
    """A server that hangs, drips, floods or talks nonsense ends in 69 by the total deadline."""
    done = iace(*at(start_fake_qecs(vice).url), env=IMPATIENT)
    no_traceback(done)
    assert done.code == 69, done.err[-2000:]


def test_a_server_that_wants_a_token_is_not_permitted(iace, start_fake_qecs):
    """A server that asks who we are ends in 77."""
    done = iace(*at(start_fake_qecs("unauthorized").url), env=IMPATIENT)
    no_traceback(done)
    assert done.code == 77


@pytest.mark.parametrize("vice", ["garbage", "hangs", "frozen_time", "nan_kpis"])
def test_a_server_that_goes_bad_on_the_way_never_passes(start_iace, start_fake_qecs, vice):
    """Whatever becomes of the server in the middle of a run, the run ends in 69 or without a verdict, never in 0."""
    server = start_fake_qecs()
    running = start_iace(*at(server.url, "--interval", 0.02, "--ticks", 100, "--allow-probes"), env=IMPATIENT)
    until(lambda: server.ticks > 30)
    server.turn(vice)
    done = running.finish()
    no_traceback(done)
    assert done.code in {69, 61}, done.err[-2000:]
    assert done.report["status_code"] == "500_CRITICAL_DISSONANCE"
    assert last_event(done.cwd)["kind"] == "RUN_ENDED"


def test_a_sound_v15_server_passes_with_probes(iace, start_fake_qecs):
    """With probes a sound v1.5 server ends in 0; what it cannot show is skipped and said."""
    done = iace(*at(start_fake_qecs().url, *V15, "--allow-probes"))
    no_traceback(done)
    assert done.code == 0, done.err[-2000:]
    for name in ("ledger.chain", "ledger.roots", "ledger.fork", "field.gravity_distribution", "field.gating"):
        assert status_of(done.report, name) == "skipped"
    for name in ("good", "overdraft", "replay", "conflict", "malformed"):
        assert status_of(done.report, f"ledger.probe.{name}") == "passed"
    assert done.report["run"]["nodes"] == 0
    assert "no nodes: no field, no isolation" in done.err


def test_a_v15_server_without_probes_is_inconclusive(iace, start_fake_qecs):
    """Without leave for probes nothing is known of a v1.5 server's ledger: 61, with the word that would help."""
    server = start_fake_qecs()
    done = iace(*at(server.url, *V15))
    no_traceback(done)
    assert done.code == 61
    assert "--allow-probes" in done.report["causes"][0]
    assert ("POST", "/ledger/commit") not in server.requests


@pytest.mark.parametrize(("vice", "check"), [("approves_everything", "overdraft"), ("executes_replays", "replay")])
def test_a_v15_server_that_answers_commits_wrongly_fails_phase_ii(iace, start_fake_qecs, vice, check):
    """A ledger that approves what it must not ends in 20, by the probe that asked."""
    done = iace(*at(start_fake_qecs(vice).url, *V15, "--allow-probes"))
    no_traceback(done)
    assert done.code == 20, done.err[-2000:]
    assert status_of(done.report, f"ledger.probe.{check}") == "failed"


def test_a_replay_that_is_executed_twice_in_secret_fails_phase_ii(iace, fake_qecs_class):
    """A server that repeats its first answer and yet executes a replay again is found out: 20."""

    class Secretive(fake_qecs_class):
        def _execute(self, transaction):
            known = self._executed.get(transaction["id"])
            if known is not None and known[0] == transaction:
                self.balances[transaction["sender"]] -= transaction["amount"]
                self.balances[transaction["receiver"]] += transaction["amount"] - 10
                return 200, known[1]
            return super()._execute(transaction)

    with Secretive() as server:
        done = iace(*at(server.url, *V15, "--allow-probes"))
    no_traceback(done)
    assert done.code == 20, done.err[-2000:]
    assert status_of(done.report, "ledger.probe.replay") == "failed"


def test_a_v15_server_that_takes_no_transaction_is_inconclusive(iace, start_fake_qecs):
    """A ledger that refuses every transaction has shown nothing: 61, with the server's own words."""
    done = iace(*at(start_fake_qecs("rejects_everything").url, *V15, "--allow-probes"))
    no_traceback(done)
    assert done.code == 61
    assert "closed for stocktaking" in done.report["causes"][0]


def test_our_own_server_reduced_to_v15_passes(iace, serve_qecs):
    """Behind a gateway that lets only the three routes of v1.5 through, our own server ends in 0 with probes."""
    upstream = serve_qecs("--nodes", 50, "--interval", 0.01)
    with ExitStack() as stack:
        url = stack.enter_context(Gateway(upstream))
        done = iace(*at(url, *V15, "--allow-probes"))
    no_traceback(done)
    assert done.code == 0, done.err[-3000:]
    assert status_of(done.report, "ledger.probe.replay") == "passed"
    assert status_of(done.report, "ledger.chain") == "skipped"


class Gateway:
    """A proxy that passes the three routes of v1.5 on to `upstream` and answers 404 to all else."""

    ROUTES = frozenset({"/field/curvature_metrics", "/system/status", "/ledger/commit"})

    def __init__(self, upstream):
        routes = self.ROUTES

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._pass_on(None)

            def do_POST(self):
                self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

            def _pass_on(self, body):
                status, answer = 404, b'{"status": "error", "message": "no such route"}'
                if self.path in routes:
                    headers = {"Content-Type": "application/json"}
                    request = urllib.request.Request(upstream + self.path, data=body, headers=headers)
                    try:
                        with urllib.request.urlopen(request, timeout=5) as response:
                            status, answer = response.status, response.read()
                    except urllib.error.HTTPError as error:
                        with error:
                            status, answer = error.code, error.read()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
