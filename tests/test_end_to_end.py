"""The whole stack from real servers, with the very files that docker-compose.yml mounts, and without containers.

A node goes bad: it is isolated, people are told and the API says why; it is cured, let in, and the alert resolves. Then
InfluxDB is away for a minute: nothing is lost. The plant ticks ten times a second, so that a minute of its time takes
six seconds; everything else, intervals of scraping and grouping included, is as committed.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path, PurePosixPath

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from controller import rundir
from metrics.store.sqlite import SqliteStore
from state.journal import Journal

# A minute without InfluxDB, and up to half a minute until it is tried again, are most of it.
pytestmark = [pytest.mark.process, pytest.mark.timeout(420)]

ROOT = Path(__file__).resolve().parents[1]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
TICK_S = 0.1
NODES, BAD = 12, "node-0003"
TOLD_WITHIN_S = 15.0
OUTAGE_S = 60.0
PATIENCE_S = 120.0
END_NS = 2**63 - 1
SECOND_NS = 1_000_000_000


def mounted(service, below):
    """Files and folders of this tree that docker-compose.yml mounts into a service below a path: where, and what."""
    for mount in SERVICES[service]["volumes"]:
        source, target, *_ = mount.split(":")
        if source.startswith("./") and PurePosixPath(target).is_relative_to(below):
            yield PurePosixPath(target).relative_to(below), ROOT / source


def laid_out(service, below, where):
    """The same as copies below `where`, as the container would see them."""
    for target, source in mounted(service, below):
        (where / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, where / target)
    return where


def eventually(reached, within_s=PATIENCE_S):
    """Wait until it is true, and give what it is."""
    end = time.monotonic() + within_s
    while not (found := reached()):
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.1)
    return found


def tell(**figures):
    """One line for whoever looks at the test's output."""
    sys.stdout.write(f"end to end: {', '.join(f'{name} {value}' for name, value in figures.items())}\n")


class Stack:
    """The services of docker-compose.yml as processes; `with` starts them in its order and ends them."""

    def __init__(self, servers, start_iace, directory):
        self.servers, self.start_iace, self.directory = servers, start_iace, directory
        self.controller_directory = directory / "controller"
        self.data = self.controller_directory / ".iace"
        self.stack = ExitStack()

    def __enter__(self):
        with ExitStack() as stack:
            servers, directory = self.servers, self.directory
            self.webhook = stack.enter_context(servers.Webhook())
            self.influx = stack.enter_context(servers.InfluxServer(directory / "influxdb"))
            self.influx.create("iace")
            qecs = self.start_iace(
                *("qecs", "serve", "--port", 0, "--nodes", NODES, "--seed", 3, "--interval", TICK_S, "--allow-faults"),
                cwd=directory / "qecs",
            )
            self.plant = qecs.stdout.readline().split()[-1]
            self.token, influx_token, prometheus_token = self.tokens()
            port = servers.free_port()
            self.api = f"http://127.0.0.1:{port}"
            ((_, config),) = mounted("controller", "/etc/iace")
            self.controller = self.start_iace(
                *("govern", "--config", config),
                cwd=self.controller_directory,
                env={
                    "IACE_PLANT__URL": self.plant,
                    "IACE_SCHEDULE__INTERVAL_S": str(TICK_S),
                    "IACE_ISOLATION__VERIFY_S": "60",  # of the plant: six seconds for a machine that is busy
                    "IACE_INFLUXDB__URL": self.influx.url,
                    "IACE_INFLUXDB__TOKEN_FILE": str(influx_token),
                    "IACE_API__HOST": "127.0.0.1",
                    "IACE_API__PORT": str(port),
                },
            )
            ((_, alerts),) = mounted("alertmanager", "/etc/alertmanager")
            self.alertmanager = stack.enter_context(
                servers.Alertmanager(directory / "alertmanager", alerts, self.webhook.url)
            )
            layout = laid_out("prometheus", "/etc/prometheus", directory / "etc-prometheus")
            (layout / "tokens").mkdir()
            shutil.copy(prometheus_token, layout / "tokens")
            targets = {"iace": f"127.0.0.1:{port}", "alertmanager": f"127.0.0.1:{self.alertmanager.port}"}
            self.prometheus = stack.enter_context(servers.Prometheus(directory / "prometheus", layout, targets))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def tokens(self):
        """What the service of that name leaves, and an operator's own token besides."""
        self.controller_directory.mkdir()
        script = ROOT / "deploy" / "compose" / "tokens.py"
        files = self.directory / "influxdb.token", self.directory / "iace.token"
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "INFLUXDB_TOKEN": "user:password",
        }
        subprocess.run(
            [sys.executable, script, *files], cwd=self.controller_directory, env=environment, check=True, timeout=60
        )
        token = self.iace("token", "create", "ann", "--role", "operator").strip()
        return token, *files

    def iace(self, *arguments):
        """What a command prints, asked as the operator that `tokens` made."""
        environment = {"IACE_API": self.api, "IACE_TOKEN": self.token} if hasattr(self, "token") else {}
        command = [sys.executable, "-m", "controller", *arguments]
        done = subprocess.run(
            command,
            cwd=self.controller_directory,
            env={"PATH": os.environ["PATH"], **environment},
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def asked(self, route):
        """What the API answers to a GET, as text."""
        request = urllib.request.Request(f"{self.api}{route}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()

    def state(self):
        """Where the controller stands."""
        return json.loads(self.asked("/api/control/state"))["data"]

    def ready(self):
        """Whether it governs."""
        assert self.controller.poll() is None, (self.controller_directory / "stderr").read_text()[-3000:]
        try:
            return bool(self.asked("/readyz"))
        except OSError:
            return False

    def explained(self):
        """Why the bad node is, or is not, isolated."""
        return json.loads(self.asked(f"/api/explain/{BAD}"))["data"]

    def points(self):
        """What has become of the points for InfluxDB, by outcome."""
        samples = [
            sample
            for family in text_string_to_metric_families(self.asked("/metrics"))
            for sample in family.samples
            if sample.labels.get("store") == "influxdb"
        ]
        counted = {s.labels["outcome"]: s.value for s in samples if s.name == "iace_store_points_total"}
        (buffered,) = [s.value for s in samples if s.name == "iace_store_buffered_points"]
        return {**counted, "buffered": buffered}

    def out(self):
        """Whom the plant itself holds out."""
        with urllib.request.urlopen(f"{self.plant}/isolations", timeout=5) as answer:
            return set(json.load(answer)["isolations"])

    def fault(self, **body):
        """Inject or clear a fault."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.plant}/faults", json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=5).close()

    def rows(self, statement):
        """All rows that InfluxDB has for a statement, by the node that they are of, if it groups by nodes."""
        found = {}
        for series in self.influx.query(statement, "iace"):
            found[series.get("tags", {}).get("node")] = series["values"]
        return found

    def held(self):
        """How many points InfluxDB holds: of two measurements every figure is one, of the others every row."""
        statements = (
            "SELECT count(*) FROM iace_kpi",
            "SELECT count(*) FROM iace_parameter",
            "SELECT count(status) FROM iace_node",
            "SELECT count(seq) FROM iace_event",
        )
        return sum(sum(self.rows(statement)[None][0][1:]) for statement in statements)

    def told(self, status):
        """The notifications of that status that the webhook got about the bad node."""
        alerts = self.webhook.alerts("IaceNodeIsolated", "/warning")
        return [alert for alert in alerts if alert["labels"]["node"] == BAD and alert["status"] == status]


@pytest.fixture
def stack(need_programs, real_servers, start_iace, tmp_path):
    need_programs("influxd", "nginx", "prometheus", "promtool", "prometheus-alertmanager", "amtool")
    with Stack(real_servers, start_iace, tmp_path) as running:
        yield running


def test_the_stack_tells_of_a_bad_node_and_survives_an_outage(stack):
    """Isolated, told and explained within 15 s; cured, let in and resolved; and an outage of a minute loses nothing."""
    eventually(stack.ready)
    healthchecks_pass(stack)
    bad_node_is_isolated_and_told(stack)
    cured_node_is_let_in_and_resolved(stack)
    during = outage(stack)
    nothing_is_lost(stack, *during)


def healthchecks_pass(stack):
    """The command by which compose would tell that a service is well tells so, and fails where nobody listens."""
    ports = {"controller": stack.api, "qecs": stack.plant, "prometheus": stack.prometheus.url}
    for service, url in {**ports, "alertmanager": stack.alertmanager.url}.items():
        _, *command = SERVICES[service]["healthcheck"]["test"]
        _, _, port = SERVICES[service]["ports"][0].rpartition(":")
        checked = {
            address: subprocess.run(
                [word.replace(f"http://127.0.0.1:{port}", address) for word in command],
                env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                capture_output=True,
                timeout=60,
                check=False,
            ).returncode
            for address in (url, "http://127.0.0.1:9")
        }
        assert checked[url] == 0, service
        assert checked["http://127.0.0.1:9"] != 0, service


def bad_node_is_isolated_and_told(stack):
    """Every place shows it within 15 s of the fault."""
    seen = {
        "isolated": lambda: BAD in stack.out(),
        "explained": lambda: (stack.explained()["node"]["why"] or "").startswith("isolated by policy"),
        "InfluxDB": lambda: BAD in stack.rows("SELECT status FROM iace_node WHERE status = 'isolated' GROUP BY node"),
        "Prometheus": lambda: stack.prometheus.query(f'iace_node_isolated{{job="iace",node="{BAD}"}} == 1'),
        "webhook": lambda: stack.told("firing"),
    }
    assert stack.out() == set()
    began_s = time.monotonic()
    stack.fault(fault={"id": "bad", "kind": "byzantine", "nodes": [BAD]})
    latency_s = {}
    while len(latency_s) < len(seen) and time.monotonic() - began_s < TOLD_WITHIN_S:
        for place in seen.keys() - latency_s.keys():
            if seen[place]():
                latency_s[place] = time.monotonic() - began_s
        time.sleep(0.05)
    tell(**{place: f"after {latency_s[place]:.1f} s" for place in seen if place in latency_s})
    assert latency_s.keys() == seen.keys()
    assert [event["kind"] for event in stack.explained()["events"]][-3:] == [
        "GRAVITY_WELL_CONFIRMED",
        "ISOLATION_INTENDED",
        "ISOLATION_VERIFIED",
    ]
    assert BAD in stack.iace("nodes", "--status", "isolated")


def cured_node_is_let_in_and_resolved(stack):
    """Without the fault it comes back by itself, and whoever was alerted is told so."""
    began_s = time.monotonic()
    stack.fault(clear="bad")
    eventually(lambda: not stack.out())
    let_in_s = time.monotonic() - began_s
    eventually(lambda: not stack.prometheus.query(f'iace_node_isolated{{job="iace",node="{BAD}"}} == 1'))
    eventually(lambda: stack.told("resolved"))
    tell(let_in=f"after {let_in_s:.1f} s", resolved=f"after {time.monotonic() - began_s:.1f} s")
    assert stack.out() == set()


def outage(stack):
    """A minute without InfluxDB, in which governing goes on; plant times at its beginning and its end."""
    first_s = stack.state()["plant_time_s"]
    stack.influx.stop()
    began_s = time.monotonic()
    stack.iace("exempt", "node-0001", "--for", "10s", "--reason", "an event of that time")
    time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - began_s)))
    waiting, last_s = stack.points()["buffered"], stack.state()["plant_time_s"]
    stack.influx.start()
    began_s = time.monotonic()
    eventually(lambda: stack.points()["buffered"] < waiting / 100)
    tell(
        outage=f"of {OUTAGE_S:.0f} s",
        buffered=f"{waiting:.0f} points",
        sent=f"{time.monotonic() - began_s:.1f} s later",
    )
    assert last_s - first_s > 0.5 * OUTAGE_S / TICK_S
    return first_s, last_s


def nothing_is_lost(stack, first_s, last_s):
    """The accounts balance, and InfluxDB has every tick and event that the controller itself kept."""
    before, held, after = stack.points(), stack.held(), stack.points()
    tell(before=before, held=held, after=after)
    assert after["dropped"] == 0
    assert before["written"] <= held <= after["written"] + after["buffered"]

    stack.controller.terminate()
    assert stack.controller.finish().code == 143
    directory = stack.data / rundir.DAEMON
    with closing(SqliteStore(directory / rundir.TELEMETRY)) as store:
        kept_ns = [sample.at_ns for sample in store.range("parameter.lambda1", 0, END_NS)]
    assert sum(first_s <= at_ns / SECOND_NS <= last_s for at_ns in kept_ns) > 0.5 * OUTAGE_S / TICK_S
    series = [*stack.rows("SELECT gravity FROM iace_node GROUP BY node").values()]
    series += stack.rows("SELECT lambda1 FROM iace_parameter").values()
    assert len(series) == NODES + 1
    for sent in series:
        assert [at_ns - sent[0][0] for at_ns, _ in sent] == [at_ns - kept_ns[0] for at_ns in kept_ns]

    with closing(Journal(directory / rundir.JOURNAL, read_only=True)) as journal:
        kept = [(entry.seq, entry.event.kind.value) for entry in journal.entries()]
    assert [(seq, kind) for _, seq, kind in stack.rows("SELECT seq, kind FROM iace_event")[None]] == kept
    assert {"ISOLATION_VERIFIED", "RESTORATION_VERIFIED", "STOPPED"} <= {kind for _, kind in kept}
