"""Fixtures that several test files share.

Plants to talk to: `start_fake_qecs` (a server of QECS v1.5, sound or vicious) and `start_qecs` (our own server). Runs
as their records tell them, made by hand and without chance: `healthy_run` and `eventful_run`. Processes of the product
itself: `iace` (run to its end), `start_iace` (running) and `serve_qecs` (our own server as a process).
"""

import json
import math
import os
import runpy
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from controller.record import Recorded, RunRecord
from metrics.assessment import Anomaly
from metrics.kpi import CATALOGUE
from state.event import Event, EventKind
from state.isolation import Refusal
from state.outcome import ExitCode, Outcome
from state.phase import Phase
from state.verdict import CheckResult, CheckStatus, PhaseResult

E = EventKind
PHASE_ENDS = ((Phase.PHASE_I, 100), (Phase.PHASE_II, 140), (Phase.PHASE_III, 240), (Phase.GOVERNING, 540))
LAMBDAS = {"lambda1": 0.3, "lambda2": 0.35, "alpha": 1.0, "action_cost_limit": 0.05}


def measured(objective, violation):
    return {
        "objective": objective,
        "objective_se": 0.002,
        "violation": violation,
        "coherence": 0.93,
        "action_cost": 0.04,
        "ticks": 40,
    }


def isolation(at_s, key, node, until_s, offence=1):
    """The intent and its verification, as the governor records them."""
    return [
        Event(
            E.ISOLATION_INTENDED,
            at_s,
            {
                "key": key,
                "node": node,
                "cluster": "c1",
                "gravity": 3.25,
                "components": {"h": 0.5, "q": 3.2, "k": 0.0},
                "until_s": until_s,
                "offence": offence,
                "reason": "|g| 3.25 above 1.5 for 3 ticks",
            },
        ),
        Event(E.ACTION_APPLIED, at_s, {"key": key}),
        Event(E.ISOLATION_VERIFIED, at_s + 1, {"key": key, "node": node}),
    ]


def restoration(at_s, key, node, reason="clean for 60 ticks, out for 80 s"):
    return [
        Event(E.RESTORATION_INTENDED, at_s, {"key": key, "node": node, "reason": reason}),
        Event(E.RESTORATION_VERIFIED, at_s + 1, {"key": key, "node": node}),
    ]


def trial(at_s, number, before, after, *, baseline, result, kept):
    direction = "both_up"
    lambdas = [{**LAMBDAS, "lambda2": value} for value in (before, after)]
    events = [
        Event(
            E.TRIAL_STARTED,
            at_s,
            {
                "trial": number,
                "key": f"apply-{number}",
                "from": lambdas[0],
                "to": lambdas[1],
                "direction": direction,
                "reason": f"action_cost outside limits; fixed step {direction}",
                "baseline": baseline,
            },
        ),
        Event(E.TRIAL_APPLIED, at_s + 1, {"trial": number}),
    ]
    if kept:
        word = {"healed": False, "improved": True}
        return [*events, Event(E.TRIAL_KEPT, at_s + 50, {"trial": number, "measured": result, **word})]
    back = {
        "trial": number,
        "key": f"rollback-{number}",
        "to": lambdas[0],
        "reason": "no improvement",
        "measured": result,
    }
    return [
        *events,
        Event(E.ROLLBACK_INTENDED, at_s + 50, back),
        Event(E.TRIAL_ROLLED_BACK, at_s + 51, {"trial": number}),
    ]


def values(ticks, name, base, dip, *, window):
    """A smooth course with a dip while n07 pulls, unknown until the window has filled."""
    series = []
    for tick in range(ticks):
        wave = 0.1 * abs(dip) * math.sin(tick / 9.0 + len(name))
        pull = dip * math.exp(-(((tick - 320) / 14.0) ** 2))
        series.append(math.nan if tick < window else base + wave + pull)
    return series


def phase_result(phase, started_s, ended_s, *extra):
    checks = (
        CheckResult(
            "plant.answers", CheckStatus.PASSED, "the plant answers", 5.0, 5.0, "observations", {"cadence_s": 1.0}
        ),
        CheckResult("kpis.limits", CheckStatus.PASSED, "all KPIs are within limits", 0.962, 0.9, "1", duration_s=60.0),
        *extra,
    )
    return PhaseResult(phase, checks, started_s, ended_s)


def build(events, *, outcome, ticks=560, dips=True):
    record = RunRecord(
        run_id="2025-01-01-a",
        plant="embedded",
        system="qecs 1.5",
        nodes=50,
        clusters=7,
        seed=7,
        scenario="byzantine-node",
        ticks=300,
        dry_run=False,
        catalogue=CATALOGUE,
        wall_started="2025-01-01T00:00:00Z",
        wall_s=2.5,
        outcome=outcome,
    )
    history = record.history
    history.plant_time_s = [float(tick) for tick in range(ticks)]
    for tick in range(ticks):
        phase = next((phase for phase, end in PHASE_ENDS if tick < end), Phase.PHASE_IV)
        phase = Phase.ISOLATING if dips and 330 <= tick < 334 else phase
        history.phases.append(Phase.HEALING if dips and 420 <= tick < 520 else phase)
    scale = 1.0 if dips else 0.02
    courses = {
        "coherence": (0.962, -0.16),
        "gas": (0.974, -0.05),
        "rsi": (0.94, -0.4),
        "action_cost": (0.025, 0.28),
        "delta_lambda": (0.0007, 0.004),
        "delta_entropy": (0.0001, 0.0009),
    }
    for name, (base, dip) in courses.items():
        history.values[name] = values(ticks, name, base, dip * scale, window=CATALOGUE[name].window_ticks)
    history.values["gravity_wells"] = [1.0 if dips and 310 <= tick < 331 else 0.0 for tick in range(ticks)]
    record.events = [Recorded(seq, f"{seq:064x}", event) for seq, event in enumerate(events, start=1)]
    record.phases = [
        phase_result(Phase.PHASE_I, 0.0, 100.0),
        phase_result(Phase.PHASE_II, 100.0, 140.0),
        phase_result(
            Phase.PHASE_III,
            140.0,
            240.0,
            CheckResult("field.gating", CheckStatus.SKIPPED, "the plant offers no faults", required=False),
        ),
        phase_result(Phase.PHASE_IV, 540.0, 560.0),
    ]
    return record


@pytest.fixture
def healthy_run():
    """A run in which nothing happened."""
    events = [
        Event(E.RUN_STARTED, 0.0, {"epoch": 1}),
        Event(E.PHASE_PASSED, 100.0, {"phase": "PHASE_I", "checks": {"plant.answers": "passed"}}),
        Event(E.WINDOW_ENDED, 540.0, {}),
    ]
    outcome = Outcome(ExitCode.COHERENT_LOCK, ("every phase passed and the KPIs are within limits",))
    return build(events, outcome=outcome, dips=False)


@pytest.fixture
def eventful_run():
    """A probe, a node that came back, a blocked well, a kept and a failed trial, and a node that is still out."""
    bad, better, worse = measured(0.09, 0.04), measured(0.05, 0.005), measured(0.06, 0.012)
    events = [
        Event(E.RUN_STARTED, 0.0, {"epoch": 1}),
        Event(E.PHASE_PASSED, 100.0, {"phase": "PHASE_I", "checks": {"plant.answers": "passed"}}),
        Event(E.PROBE_INTENDED, 150.0, {"probe": "dissonance", "undo": {"clear": "f1"}, "node": "n03"}),
        *isolation(165.0, "isolate-1", "n03", 1065.0),
        *restoration(180.0, "restore-2", "n03", "probe dissonance is over"),
        Event(E.PROBE_ENDED, 200.0, {"probe": "dissonance", "result": {"detected": True}}),
        Event(
            E.GRAVITY_WELL_CONFIRMED,
            329.0,
            {"subject": "n07", "gravity": 3.25, "components": {"h": 0.5, "q": 3.2, "k": 0.0}, "ticks": 3},
        ),
        *isolation(330.0, "isolate-3", "n07", 1230.0),
        Event(
            E.ISOLATION_BLOCKED,
            331.0,
            {"subject": "n08", "gravity": 1.9, "guard": "budget_cluster", "observed": 3 / 7, "limit": 1 / 3},
        ),
        Event(E.GRAVITY_WELL_GONE, 350.0, {"subject": "n08"}),
        *restoration(410.0, "restore-4", "n07"),
        *trial(420.0, 1, 0.35, 0.4375, baseline=bad, result=better, kept=True),
        *trial(475.0, 2, 0.4375, 0.546875, baseline=better, result=worse, kept=False),
        *isolation(530.0, "isolate-9", "n07", 1430.0, offence=2),
        Event(E.WINDOW_ENDED, 540.0, {}),
    ]
    record = build(
        events, outcome=Outcome(ExitCode.COHERENT_LOCK, ("every phase passed and the KPIs are within limits",))
    )
    record.still_isolated = (("n07", 1430.0),)
    record.anomalies = [
        Anomaly("coherence", None, 3.5, "warning", "3.5 deviations below its median", 318.0),
        Anomaly("coherence", None, 6.25, "warning", "6.25 deviations below its median", 320.0),
        Anomaly("gravity", "n07", 4.5, "critical", "alone beyond its peers", 325.0),
    ]
    for at_s in (331.0, 332.0):
        record.refuse([Refusal("isolate", "budget_cluster", "n08", 3 / 7, 1 / 3, at_s)])
    record.refuse([Refusal("isolate", "rate_limit", "n08", 0.4, 1.0, 333.0)])
    return record


@pytest.fixture(scope="session")
def fake_qecs_class():
    """The class in fake_qecs_v15.py; test modules cannot import each other."""
    return runpy.run_path(str(Path(__file__).with_name("fake_qecs_v15.py")))["FakeQecsV15"]


@pytest.fixture
def start_fake_qecs(fake_qecs_class):
    """Call it with names of vices (and `kpis=`, `tick_s=`) for a running v1.5 server; see fake_qecs_v15.py."""
    with ExitStack() as stack:
        yield lambda *vices, **options: stack.enter_context(fake_qecs_class(*vices, **options))


@contextmanager
def _serving(nodes=10, *, clusters=None, seed=3, interval_s=1.0, allow_faults=True, live=False):
    # Flask takes a while to import; only tests that serve should pay for it.
    from qecs.cluster import Cluster  # noqa: PLC0415
    from qecs.host import ClusterHost  # noqa: PLC0415
    from qecs.server import create_app  # noqa: PLC0415
    from qecs.strict_http import StrictServer  # noqa: PLC0415

    host = ClusterHost(Cluster(nodes, clusters=clusters, seed=seed), interval_s=interval_s, allow_faults=allow_faults)
    host.tick()
    server = StrictServer(create_app(host), address="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    if live:
        host.start()
    try:
        yield SimpleNamespace(host=host, url=f"http://127.0.0.1:{server.port}")
    finally:
        host.stop()
        server.stop()
        thread.join()


@pytest.fixture
def start_qecs():
    """Call it for our own server, with `.url` and `.host`; it ticks by `host.tick()` alone unless `live=True`."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(_serving(*args, **options))


def _environment(changes):
    """The environment without settings of ours, with every warning an error, and with `changes` (None takes out)."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("IACE_")}
    wanted = {**plain, "PYTHONWARNINGS": "error", "COLUMNS": "200", **changes}
    return {name: value for name, value in wanted.items() if value is not None}


class IaceProcess(subprocess.Popen):
    """A process of `iace` in `cwd`, its standard error in the file `stderr` there."""

    def __init__(self, arguments, cwd, env=None, stdout=subprocess.PIPE, **options):
        self.cwd = cwd
        cwd.mkdir(exist_ok=True)
        with (cwd / "stderr").open("wb") as stderr:
            super().__init__(
                [sys.executable, "-m", "controller", *map(str, arguments)],
                cwd=cwd,
                env=_environment(env or {}),
                stdout=stdout,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                text=True,
                **options,
            )

    def finish(self, timeout=200):
        """Wait for its end; what it left: `code`, `out`, `err`, `report` (or None) and `cwd`."""
        out, _ = self.communicate(timeout=timeout)
        report = self.cwd / "reports" / "report.json"
        return SimpleNamespace(
            code=self.returncode,
            out=out,
            err=(self.cwd / "stderr").read_text(),
            report=json.loads(report.read_text()) if report.exists() else None,
            cwd=self.cwd,
        )


@pytest.fixture
def start_iace(tmp_path):
    """Call it with arguments (and `cwd=`, `env=`, ...) for a running `iace`."""
    started = []

    def start(*arguments, cwd=tmp_path / "run", **options):
        started.append(IaceProcess(arguments, cwd, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def iace(start_iace):
    """Call it with arguments (and `cwd=`, `env=`, ...) for what a finished `iace` left."""
    return lambda *arguments, **options: start_iace(*arguments, **options).finish()


@pytest.fixture
def serve_qecs(start_iace, tmp_path):
    """Call it with arguments of `iace qecs serve` for the URL at which the new process answers."""
    counted = iter(range(1000))

    def serve(*arguments):
        process = start_iace("qecs", "serve", "--port", 0, *arguments, cwd=tmp_path / f"qecs-{next(counted)}")
        return process.stdout.readline().split()[-1]

    return serve


@pytest.fixture(scope="session")
def fake_daemon():
    """The names in fake_port.py: `FakePort`, a daemon for the HTTP API to speak to, `frame` and more."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("fake_port.py"))))


@pytest.fixture(scope="session")
def real_servers():
    """The names in real_servers.py, such as `InfluxServer` and `VictoriaMetrics`."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("real_servers.py"))))


@pytest.fixture(scope="session")
def need_programs(real_servers):
    """Call it with programs: where one is not installed the test is skipped, or in CI fails, with the packages."""

    def need(*programs):
        missing = real_servers.missing(*programs)
        if missing and os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the Debian packages {missing}: see .ci/packages")
        if missing:
            pytest.skip(f"not installed: {missing} (Debian packages)")

    return need


@pytest.fixture(scope="session")
def influx_server(need_programs, real_servers, tmp_path_factory):
    """A running InfluxDB 1.6 with the v2 write route."""
    need_programs("influxd", "nginx")
    with real_servers.InfluxServer(tmp_path_factory.mktemp("influx")) as server:
        yield server


@pytest.fixture(scope="session")
def victoria_metrics(need_programs, real_servers, tmp_path_factory):
    """A running VictoriaMetrics."""
    need_programs("victoria-metrics")
    with real_servers.VictoriaMetrics(tmp_path_factory.mktemp("victoria")) as server:
        yield server


def pytest_terminal_summary(terminalreporter):
    """Tell how many hours were simulated, and which planted bugs were found when."""
    hours = {"simulated_light_hours": 0.0, "simulated_full_hours": 0.0}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name in hours:
                hours[name] += value
            elif name == "planted":
                terminalreporter.write_line(f"planted bug found: {value}")
    for name, value in hours.items():
        if value:
            terminalreporter.write_line(f"{name.replace('_', ' ')}: {value:,.0f}")
