"""The alerting configuration is current, valid, made of metrics that exist, explained, and reaches whom it concerns."""

import re
import shutil
import subprocess
import sys
import threading
import time
import wsgiref.simple_server
from pathlib import Path

import promql_parser
import pytest
import yaml

from controller.alerting.__main__ import files
from controller.alerting.alerts import alerts
from controller.alerting.recordings import recordings
from controller.alerting.rule import Alert, Scope, Severity, alert_file
from metrics.export_catalogue import EXPORTED, KPI_METRICS
from metrics.export_snapshot import Durations, ExportSnapshot, NodeSample
from metrics.exporter import Exporter
from metrics.kpi import CATALOGUE
from state.outcome import ExitCode

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = ROOT / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = {alert.name: alert for group in alerts().values() for alert in group}
RECORDINGS = [rule for group in recordings().values() for rule in group]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def eventually(reached):
    """Wait until `reached` says yes; how long that takes is no matter of the test."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def selectors(expr):
    """Every selection of series in an expression."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(promql_parser.parse(expr), pre_visit=visit)
    return found


@pytest.mark.parametrize("name", files())
def test_the_committed_rules_are_those_of_the_code(name):
    """`python -m controller.alerting` would change nothing."""
    assert (PROMETHEUS / "rules" / name).read_text(encoding="utf-8") == files()[name]


def test_the_generator_writes_where_it_is_told(tmp_path):
    """Another directory gets both files, with the address of somebody's own runbooks."""
    run(sys.executable, "-m", "controller.alerting", str(tmp_path), "--runbooks", "https://wiki.example/iace/")
    assert {path.name for path in tmp_path.iterdir()} == {"alerts.yml", "recording.yml"}
    document = yaml.safe_load((tmp_path / "alerts.yml").read_text())
    urls = {rule["annotations"]["runbook_url"] for group in document["groups"] for rule in group["rules"]}
    assert "https://wiki.example/iace/IaceSafeMode.md" in urls
    assert all(url.startswith("https://wiki.example/iace/Iace") for url in urls)


def test_odd_words_survive_the_yaml():
    """Quotes, colons and several lines are read back as they were written."""
    odd = Alert("IaceX", "a\n> b", Severity.INFO, Scope.RUN, "it's: odd", 'a "b" {{ $c }} # d', "0s", "1m", {"k": "0"})
    (group,) = yaml.safe_load(alert_file({"g": [odd]}, "r"))["groups"]
    assert group == {
        "name": "g",
        "rules": [
            {
                "alert": "IaceX",
                "expr": "a\n> b",
                "for": "0s",
                "keep_firing_for": "1m",
                "labels": {"severity": "info", "scope": "run", "k": "0"},
                "annotations": {
                    "summary": "it's: odd",
                    "description": 'a "b" {{ $c }} # d',
                    "runbook_url": "r/IaceX.md",
                },
            }
        ],
    }


def test_every_limit_of_the_catalogue_has_its_alert():
    """A warning for each healthy bound, a critical alert for each critical one, and none for a KPI without limit."""
    expected = set()
    for kpi in CATALOGUE.values():
        if kpi.limit is not None:
            expected.add((kpi.name, "warning"))
            if kpi.limit.critical is not None:
                expected.add((kpi.name, "critical"))
    found = {(a.labels["kpi"], a.severity.value) for a in ALERTS.values() if "kpi" in a.labels}
    assert found == expected
    assert {kpi.name for kpi in CATALOGUE.values() if kpi.limit} <= set(KPI_METRICS)


def test_no_threshold_of_a_kpi_is_written_into_an_expression():
    """Limits are compared as exported, so none of the catalogue's numbers stands in an expression."""
    expressions = [rule.expr for rule in (*RECORDINGS, *ALERTS.values())]
    numbers = {number for expr in expressions for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", expr)}
    assert numbers == {"0.5", "0.05", "2.5"}  # shares of a window, of the ticks, and counts: none is a KPI's
    limits = [kpi.limit for kpi in CATALOGUE.values() if kpi.limit is not None]
    assert {"0.9", "0.85", "0.95", "0.65", "0.1", "0.01", "0.002"} == {
        f"{bound:g}" for limit in limits for bound in (limit.healthy, limit.critical) if bound not in (None, 0.05)
    }


@pytest.mark.parametrize("rule", [*RECORDINGS, *ALERTS.values()], ids=lambda rule: rule.name)
def test_rules_use_metrics_and_labels_that_exist(rule):
    """Each name is exported or recorded, each label one of its own or of the scrape."""
    labels = {metric.name: set(metric.labels) | ({"node", "cluster"} if metric.nodes else set()) for metric in EXPORTED}
    labels["up"] = set()
    recorded = {"kpi", "level", "severity", "plant"}
    names = {recording.name for recording in RECORDINGS}
    found = selectors(rule.expr)
    assert found
    for selector in found:
        used = {matcher.name for matcher in selector.matchers.matchers} - {"job"}
        assert used <= (recorded if selector.name in names else labels[selector.name])


def test_alerts_on_what_lives_look_at_the_daemon_only():
    """What a run left at a Pushgateway last month tells of no plant that is down today."""
    for alert in ALERTS.values():
        jobs = {str(m.op) + m.value for s in selectors(alert.expr) for m in s.matchers.matchers if m.name == "job"}
        assert jobs == ({"MatchOp.NotEqualiace"} if alert.scope is Scope.RUN else {"MatchOp.Equaliace"}), alert.name


def test_names_words_and_times_are_as_agreed():
    """CamelCase with one prefix, a summary without templates, a description with some, and a time to go on firing."""
    assert len(ALERTS) == sum(len(group) for group in alerts().values())
    for alert in ALERTS.values():
        assert re.fullmatch(r"Iace(?:[A-Z][a-z]+)+", alert.name)
        assert "{{" not in alert.summary
        assert alert.summary.endswith(".")
        assert "{{" in alert.description
        assert alert.hold != "0s"
    for recording in RECORDINGS:
        assert re.fullmatch(r"[a-z_]+:iace_[a-z_]+:[a-z0-9_]+", recording.name)


def test_signals_are_the_exit_codes_that_are_no_failure():
    """From 128 on a run was stopped by somebody; every failure has a smaller code."""
    assert {code.name for code in ExitCode if code >= 128} == {"INTERRUPTED", "TERMINATED"}


# Prometheus' and Alertmanager's own tools


def test_promtool_finds_no_fault(need_programs):
    """Rules and configuration pass promtool's checks and lints."""
    need_programs("promtool")
    for name in files():
        run("promtool", "check", "rules", "--lint-fatal", f"prometheus/rules/{name}")
    assert "2 rule files found" in run("promtool", "check", "config", "--lint-fatal", "prometheus/prometheus.yml")


def test_the_targets_of_compose_fit_in_place_of_the_local_ones(need_programs, tmp_path):
    """The folder that the stack mounts over targets/ has the same files, and Prometheus takes them."""
    need_programs("promtool")
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus", dirs_exist_ok=True)
    shutil.copytree(PROMETHEUS / "compose-targets", tmp_path / "prometheus" / "targets", dirs_exist_ok=True)
    names = [{path.name for path in (PROMETHEUS / folder).iterdir()} for folder in ("targets", "compose-targets")]
    assert names[0] == names[1]
    run("promtool", "check", "config", "--lint-fatal", str(tmp_path / "prometheus" / "prometheus.yml"))


def test_amtool_finds_no_fault(need_programs):
    """Alertmanager's configuration passes amtool."""
    need_programs("amtool")
    assert "3 receivers" in run("amtool", "check-config", "prometheus/alertmanager.yml")


@pytest.mark.parametrize("severity", Severity)
def test_alerts_go_to_the_receiver_of_their_severity(severity, need_programs):
    """Whatever else an alert carries, its severity decides, as amtool routes it."""
    need_programs("amtool")
    labels = [f"severity={severity}", "alertname=IaceX", "job=iace", "instance=one:8470"]
    routed = run("amtool", "config", "routes", "test", "--config.file=prometheus/alertmanager.yml", *labels)
    assert routed.strip() == severity.value


def test_what_has_no_severity_is_not_lost(need_programs):
    """An alert of somebody else's rules goes to the receiver of warnings."""
    need_programs("amtool")
    routed = run("amtool", "config", "routes", "test", "--config.file=prometheus/alertmanager.yml", "alertname=Other")
    assert routed.strip() == "warning"


def test_inhibitions_name_alerts_and_scopes_that_exist():
    """Alertmanager would say nothing of a misspelt name; it would just never inhibit."""
    text = (PROMETHEUS / "alertmanager.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"Iace\w+", text.partition("inhibit_rules")[2])) <= set(ALERTS)
    assert set(re.findall(r'scope="(\w+)"', text)) <= {scope.value for scope in Scope}


@pytest.fixture(scope="module")
def alertmanager(need_programs, real_servers, tmp_path_factory):
    """A running Alertmanager with the committed configuration."""
    need_programs("prometheus-alertmanager")
    with real_servers.Alertmanager(tmp_path_factory.mktemp("alertmanager"), PROMETHEUS / "alertmanager.yml") as server:
        yield server


def of_rule(name, **labels):
    """The labels of one of our alerts, as Prometheus sends them."""
    alert = ALERTS[name]
    return {"alertname": name, "severity": alert.severity.value, "scope": alert.scope.value, **alert.labels, **labels}


INHIBITED = [
    ("IaceControllerAbsent", {"instance": ""}, "IaceNodeIsolated", {"node": "n1"}),
    ("IacePlantDown", {}, "IaceObservationStale", {}),
    ("IacePlantDown", {}, "IaceCoherenceCritical", {}),
    ("IacePlantDown", {}, "IaceAnomaly", {"kpi": "supply"}),
    ("IaceCoherenceCritical", {}, "IaceCoherenceUnhealthy", {}),
    ("IaceCoherenceCritical", {}, "IaceAnomalyCritical", {"kpi": "coherence"}),
    ("IaceRsiUnhealthy", {}, "IaceAnomaly", {"kpi": "rsi"}),
    ("IaceStorm", {}, "IaceSafeMode", {}),
    ("IaceIsolationBlocked", {"guard": "quorum"}, "IaceGravityWell", {}),
    ("IaceRollbackFailed", {}, "IaceHealingFailed", {}),
    ("IaceNoLeader", {"instance": ""}, "IaceLeadershipLost", {}),
]
LEFT_ALONE = [
    ("IaceControllerAbsent", {"instance": "", "plant": "east"}, "IaceNodeIsolated", {"node": "n1", "plant": "west"}),
    ("IacePlantDown", {}, "IacePlantDown", {"instance": "other:8470"}),
    ("IacePlantDown", {}, "IaceObservationStale", {"instance": "other:8470"}),
    ("IacePlantDown", {}, "IaceSafeMode", {}),
    ("IacePlantDown", {}, "IaceStoreBacklog", {"store": "influxdb"}),
    ("IaceCoherenceCritical", {}, "IaceRsiUnhealthy", {}),
    ("IaceCoherenceCritical", {}, "IaceNodeIsolated", {"node": "n1"}),
    ("IaceControllerAbsent", {"instance": ""}, "IaceRunFailed", {"job": "iace_run", "plant": "embedded"}),
    ("IaceStorm", {}, "IaceIsolationBlocked", {"guard": "quorum"}),
]


@pytest.mark.process
@pytest.mark.parametrize(
    ("source", "target", "inhibited"),
    [((a, b), (c, d), True) for a, b, c, d in INHIBITED] + [((a, b), (c, d), False) for a, b, c, d in LEFT_ALONE],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_cause_mutes_what_follows_from_it_and_nothing_else(source, target, inhibited, alertmanager, request):
    """Alertmanager itself inhibits children of a cause at the same controller, and leaves the others alone."""
    # An alert without instance speaks for its whole job, so each case has a job of its own.
    where = {"job": f"iace-{request.node.name}", "instance": "one:8470"}
    child = of_rule(target[0], **where | target[1])
    # Alertmanager takes alerts in one after the other: once it mutes the last one, it has seen them all.
    apart = {"job": f"apart-{request.node.name}", "instance": "one:8470"}
    last = of_rule("IaceObservationStale", **apart)
    alertmanager.alert(of_rule(source[0], **where | source[1]), child, of_rule("IacePlantDown", **apart), last)
    eventually(lambda: alertmanager.state(last) == "suppressed")
    assert (alertmanager.state(child) == "suppressed") is inhibited


# Runbooks


def test_every_alert_has_its_runbook_and_every_runbook_its_alert():
    """Pages and alerts name each other, and the index names them all, by severity."""
    assert {path.stem for path in RUNBOOKS.iterdir()} - {"README"} == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \| (.+) \|$", index, re.MULTILINE)
    alerts = sorted(ALERTS.values(), key=lambda alert: list(Severity).index(alert.severity))
    assert rows == [(alert.name, alert.name, alert.severity.value, alert.summary) for alert in alerts]


@pytest.mark.parametrize("name", ALERTS)
def test_a_runbook_says_what_somebody_at_night_needs(name):
    """It has the four sections in order, each with content, a command or query to look with, and links that work."""
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    bodies = [body.strip() for body in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]]
    assert all(len(body.split()) >= 10 for body in bodies)
    assert re.search(r"```(?:sh|promql)\n", bodies[2])
    for link in LINK.findall(text):
        assert "://" in link or (RUNBOOKS / link.partition("#")[0]).resolve().exists(), link


def test_runbooks_tell_the_limits_of_the_catalogue():
    """The default that the page of a KPI's alert mentions first is the bound in the catalogue."""
    told, limits = {}, {}
    for name, alert in ALERTS.items():
        if "kpi" in alert.labels:
            text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
            told[name] = float(re.search(r"limit\s\(([\d.]+)\s", text)[1])
            limit = CATALOGUE[alert.labels["kpi"]].limit
            limits[name] = limit.critical if alert.severity is Severity.CRITICAL else limit.healthy
    assert told == limits


@pytest.mark.parametrize("name", ALERTS)
def test_queries_of_a_runbook_can_be_run(name):
    """Each PromQL example parses and names metrics that exist."""
    known = {metric.name for metric in EXPORTED} | {rule.name for rule in RECORDINGS}
    known |= {"up", "push_time_seconds", "ALERTS"}
    known |= {f"{metric.name}_{part}" for metric in EXPORTED if metric.durations for part in ("bucket", "count", "sum")}
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
        for query in block.strip().splitlines():
            assert {selector.name for selector in selectors(query.split(" # ")[0])} <= known


# The whole way


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    """Tells nobody of requests."""

    def log_message(self, *_):
        pass


@pytest.fixture
def exposed():
    """An exporter that shows one isolated node of two, and the address that serves it."""
    exporter = Exporter()
    none = Durations((1.0,), (0, 0), 0.0)
    nodes = (NodeSample("n1", "c1", 2.5, isolated=True), NodeSample("n2", "c1", 0.1, isolated=False))
    exporter.publish(
        ExportSnapshot("GOVERNING", ("GOVERNING",), none, none, node_samples=nodes, leader=True, build={"version": "0"})
    )
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, exporter.wsgi, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.process
def test_an_isolation_reaches_the_webhook(exposed, need_programs, real_servers, tmp_path):
    """From our exporter through Prometheus and Alertmanager, with the committed files, to the receiver of warnings."""
    need_programs("prometheus", "prometheus-alertmanager")
    with (
        real_servers.Webhook() as webhook,
        real_servers.Alertmanager(tmp_path / "am", PROMETHEUS / "alertmanager.yml", webhook.url) as alertmanager,
        real_servers.Prometheus(
            tmp_path / "prometheus",
            PROMETHEUS,
            {"iace": exposed, "alertmanager": f"127.0.0.1:{alertmanager.port}"},
        ) as prometheus,
    ):
        eventually(lambda: webhook.alerts("IaceNodeIsolated", "/warning"))
        isolated = prometheus.query("iace_node_isolated == 1")
    (alert,) = webhook.alerts("IaceNodeIsolated", "/warning")[:1]
    assert alert["status"] == "firing"
    assert alert["labels"] == {
        "alertname": "IaceNodeIsolated",
        "severity": "warning",
        "scope": "controller",
        "job": "iace",
        "instance": exposed,
        "node": "n1",
        "cluster": "c1",
    }
    assert alert["annotations"] == {
        "summary": "A node is isolated.",
        "description": f"The plant holds n1 of c1 out, as {exposed} sees it.",
        "runbook_url": "docs/runbooks/IaceNodeIsolated.md",
    }
    assert [result["metric"]["node"] for result in isolated] == ["n1"]
    assert {notified["labels"]["alertname"] for path, n in webhook.received for notified in n["alerts"]} == {
        "IaceNodeIsolated"
    }
