"""`iace run`, `iace backtest` and `iace history` with a real InfluxDB: an outage, its end, and reading back."""

import json
from contextlib import closing

import pytest

from controller.rundir import JOURNAL, TELEMETRY, directory
from metrics.kpi import CATALOGUE
from metrics.observation import PARAMETER_BOUNDS, SIGNAL_NAMES
from metrics.store.sqlite import SqliteStore
from state.journal import Journal

pytestmark = pytest.mark.process

NODES = 10
TICK_S = 0.05
END_NS = 2**63 - 1
BASE_S = 1767225600.0  # 2026-01-01T00:00:00Z
UNSENT = {"IACE_INFLUXDB__BASE_TIME": ""}


@pytest.fixture
def influx(need_programs, real_servers, tmp_path):
    """A server that is still to be started, at `url`."""
    need_programs("influxd", "nginx")
    server = real_servers.InfluxServer(tmp_path / "influx")
    yield server
    server.stop()


@pytest.fixture
def plant(serve_qecs):
    return serve_qecs("--nodes", NODES, "--interval", TICK_S)


def kept(cwd, number):
    """Ticks and values of coherence in a run's own store, and its journal's events."""
    run = directory(cwd / ".iace", number)
    with closing(SqliteStore(run / TELEMETRY)) as store:
        samples = store.range("kpi.coherence", 0, END_NS)
    with closing(Journal(run / JOURNAL)) as journal:
        return [sample.value for sample in samples], [(e.seq, e.event.kind.value) for e in journal.entries()]


def rows(server, statement):
    return [row for part in server.query(statement, "iace") for row in part["values"]]


def test_an_outage_loses_nothing_and_what_arrives_reads_back(influx, plant, iace, tmp_path):
    """Without the server a run ends in 0 with all in the spool; the next delivers it, and history reads it."""
    env = {"IACE_INFLUXDB__URL": influx.url}
    run = ("run", "--plant", "http", "--url", plant, "--interval", TICK_S, "--ticks", 10)
    down = iace(*run, env=env)
    assert down.code == 0, down.err[-3000:]
    assert down.err.count("telemetry is buffered on disk") == 1
    assert "points wait on disk for InfluxDB" in down.err
    assert (down.cwd / ".iace" / "influxdb" / "spool").is_dir()

    influx.start()
    influx.create("iace")
    textfile = tmp_path / "metrics.prom"
    up = iace(*run, "--textfile", textfile, env=env)
    assert up.code == 0, up.err[-3000:]
    assert "wait on disk" not in up.err
    assert 'iace_store_buffered_points{store="influxdb"} 0.0' in textfile.read_text()
    assert 'iace_store_points_total{outcome="dropped",store="influxdb"} 0.0' in textfile.read_text()

    runs = [kept(down.cwd, number) for number in (1, 2)]
    ticks = sum(len(values) for values, _ in runs)
    by_run = influx.query('SELECT "coherence" FROM iace_kpi GROUP BY "run"', "iace")
    assert sorted([value for _, value in part["values"]] for part in by_run) == sorted(values for values, _ in runs)
    known = influx.query("SHOW FIELD KEYS FROM iace_kpi", "iace")[0]["values"]
    assert {name for name, _ in known} == set(CATALOGUE)
    assert rows(influx, "SELECT count(*) FROM iace_parameter")[0][1:] == [ticks] * len(PARAMETER_BOUNDS)
    nodes = influx.query('SELECT * FROM iace_node GROUP BY "node", "cluster"', "iace")
    assert [len(part["values"]) for part in nodes] == [ticks] * NODES
    assert set(nodes[0]["columns"]) == {"time", "plant", "gravity", "status", *SIGNAL_NAMES}
    assert {part["tags"]["cluster"] for part in nodes} == {"cluster-00", "cluster-01"}
    told = rows(influx, 'SELECT "seq", "kind" FROM iace_event')
    # This plant's seconds pass twenty times as fast as the wall's, so the runs overlap in time.
    assert sorted((seq, kind) for _, seq, kind in told) == sorted(event for _, events in runs for event in events)

    shown = iace("history", "coherence", "--from", f"influxdb:{plant}", "--format", "json", env=env)
    assert shown.code == 0, shown.err
    data = json.loads(shown.out)["data"]
    assert sorted(sample["value"] for sample in data) == sorted(value for values, _ in runs for value in values)
    assert data[0]["unix_time_s"] > 1.7e9


def test_backtest_and_replay_read_influxdb_as_the_runs_own_store(influx, iace):
    """A virtual run with a base time is in InfluxDB: backtest and replay read it as they read its own store."""
    influx.start()
    influx.create("iace")
    env = {"IACE_INFLUXDB__URL": influx.url, "IACE_INFLUXDB__BASE_TIME": "2026-01-01T00:00:00Z"}
    run = iace("run", "--nodes", 20, "--ticks", 110, "--scenario", "byzantine-node", env=env)
    assert run.code == 0, run.err[-3000:]

    own, theirs = (
        json.loads(iace("backtest", "--from", source, "--format", "json", env=env).out) for source in (1, "influxdb")
    )
    assert own["configurations"][0]["totals"] == theirs["configurations"][0]["totals"]
    assert own["configurations"][0]["totals"]["isolations"] > 0
    assert _decided(own, 0.0) == _decided(theirs, BASE_S)
    assert own["recording"]["ticks"] == theirs["recording"]["ticks"]

    nothing = iace("backtest", "--from", "influxdb:elsewhere", env=env)
    assert nothing.code == 65
    assert "holds nothing of plant elsewhere; the plants there: embedded" in nothing.err

    replayed = iace("run", "--from", "influxdb:embedded", "--report", "again", "--ticks", 1000, env={**env, **UNSENT})
    report = json.loads((replayed.cwd / "again" / "report.json").read_text())
    assert replayed.code == 61
    checks = {check["name"]: check["status"] for phase in report["phases"] for check in phase["checks"]}
    assert checks["field.gravity_distribution"] == "passed"
    assert checks["field.gating"] == checks["ledger.chain"] == "skipped"
    assert f"the recording ended after {own['recording']['ticks']} ticks" in replayed.err


def _decided(document, base_s):
    """What was decided, when in plant time, and about whom."""
    decisions = document["configurations"][0]["decisions"]
    return [(round(told["at_s"] - base_s, 3), told["kind"], told["subject"]) for told in decisions]
