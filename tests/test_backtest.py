"""What a backtest tells: who would have been isolated and why, which configuration is worse, and where it stopped."""

import importlib.util
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from controller import backtest
from controller.cli import main
from controller.evidence import Evidence
from controller.recording import load
from metrics.errors import BadDataError
from metrics.store.protocol import Point
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import NS_PER_S

ROOT = Path(__file__).resolve().parents[1]
NEZHA = ROOT.parent / "shared" / "bench" / "data" / "nezha" / "2022-08-22.npz"
TICKS, ILL_FROM, ILL_TO = 400, 250, 300


@pytest.fixture
def recorded(tmp_path):
    """Eight nodes with two metrics for 400 seconds; node n3 is ill in both from 250 to 300 s."""
    rng = np.random.default_rng(11)
    values = rng.normal(10.0, 1.0, (TICKS, 8, 2))
    values[ILL_FROM:ILL_TO, 3] += 30.0
    path = tmp_path / "recorded.csv"
    lines = ["time,node,cpu,latency"]
    lines += [f"{t},n{n},{cpu:.6f},{late:.6f}" for t, row in enumerate(values) for n, (cpu, late) in enumerate(row)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def own_run(tmp_path):
    """The telemetry of six nodes of which node-2 is a well from 100 to 160 s."""
    path = tmp_path / "telemetry.db"
    store = SqliteStore(path)
    for tick in range(300):
        ill = 3.0 if 100 <= tick < 160 else 0.2
        store.write(Point(f"node.node-{n}.gravity", tick * NS_PER_S, ill if n == 2 else 0.2) for n in range(6))
    store.close()
    return path


def run(capsys, *words):
    code = main(["backtest", *map(str, words)])
    return code, capsys.readouterr()


def document(capsys, *words):
    code, said = run(capsys, *words, "--format", "json")
    assert code in (0, 1), said.err
    return code, json.loads(said.out)


def test_an_ill_node_is_isolated_and_the_reason_is_told(recorded, capsys):
    """The node that fell ill is the one incident, is isolated after confirmation, and the KPIs say why."""
    code, found = document(capsys, "--from", recorded)
    assert code == 0
    (judged,) = found["configurations"]
    isolations = [d for d in judged["decisions"] if d["kind"] == "ISOLATION_INTENDED"]
    assert [(d["subject"], d["at_s"]) for d in isolations] == [("n3", 252.0)]
    first = isolations[0]["why"][0]
    assert first["kpi"] in ("cpu", "latency")
    assert first["deviation"] > 6.0
    assert 250.0 <= first["since_s"] <= 252.0
    assert [incident["suspects"][0]["node"] for incident in judged["incidents"]] == ["n3"]
    assert judged["incidents"][0]["from_s"] == 250.0


def test_recorded_gravity_is_the_evidence(own_run, capsys):
    """Our own telemetry is judged by the |g| that was recorded, and the node returns when it is clean."""
    _, found = document(capsys, "--from", own_run)
    assert found["recording"]["evidence"] == "recorded gravity"
    (judged,) = found["configurations"]
    told = [(d["kind"], d["subject"], d["at_s"]) for d in judged["decisions"]]
    assert told == [
        ("GRAVITY_WELL_CONFIRMED", "node-2", 102.0),
        ("ISOLATION_INTENDED", "node-2", 102.0),
        ("RESTORATION_INTENDED", "node-2", 219.0),
        ("NODE_READMITTED", "node-2", 280.0),
    ]
    assert judged["totals"]["exposure_node_s"] == 3.0
    assert judged["totals"]["collateral_node_s"] == 60.0


def test_a_guard_that_forbids_is_told(own_run, tmp_path, capsys):
    """With a quorum of six nobody may go out: the well is blocked, and the guard is named."""
    strict = tmp_path / "strict.toml"
    strict.write_text("[isolation]\nquorum = 6\n", encoding="utf-8")
    _, found = document(capsys, "--from", own_run, "--config", strict)
    (judged,) = found["configurations"]
    assert judged["totals"]["isolations"] == 0
    assert [(d["kind"], d["subject"]) for d in judged["decisions"]][1] == ("ISOLATION_BLOCKED", "node-2")
    assert [(held["guard"], held["subject"]) for held in judged["withheld"]] == [("quorum", "node-2")]


def test_a_worse_configuration_is_exit_code_1(own_run, tmp_path, capsys):
    """One that leaves a well in service costs more node-seconds; the other way round it is better."""
    strict = tmp_path / "strict.toml"
    strict.write_text("[isolation]\nquorum = 6\nreadmit_gravity = 0.7\n", encoding="utf-8")
    slow = tmp_path / "slow.toml"
    slow.write_text("[isolation]\nconfirm_ticks = 90\n", encoding="utf-8")
    usual = tmp_path / "usual.toml"
    usual.write_text("", encoding="utf-8")
    code, found = document(capsys, "--from", own_run, "--config", usual, "--against", slow)
    costs = [side["cost_node_s"] for side in found["comparison"]["sides"]]
    assert costs == [63.0, 60.0]
    assert (code, found["comparison"]["verdict"]) == (0, "better")
    code, found = document(capsys, "--from", own_run, "--config", slow, "--against", usual)
    assert (code, found["comparison"]["verdict"]) == (1, "worse")
    code, found = document(capsys, "--from", own_run, "--config", slow, "--against", strict)
    assert (code, found["comparison"]["verdict"]) == (0, "as good")


def test_a_report_that_cannot_be_written_names_its_option(recorded, tmp_path, capsys):
    """The directory in question is the report's."""
    (tmp_path / "file").write_text("")
    code, said = run(capsys, "--from", recorded, "--report", tmp_path / "file")
    assert code == 74
    assert f"the backtest cannot be written to {tmp_path / 'file'}: " in said.err
    assert "with --report" in said.err
    assert "--data-dir" not in said.err


def test_bad_rows_are_reported_by_line_and_counted(recorded, capsys):
    """Bad rows are told on standard error and in the document; the rest is judged."""
    recorded.write_text(recorded.read_text(encoding="utf-8") + "later,n1,1,1\n", encoding="utf-8")
    code, said = run(capsys, "--from", recorded, "--format", "json")
    assert code == 0
    assert said.err == f"{recorded}:3202: no time: 'later'\n"
    held = json.loads(said.out)["recording"]
    assert (held["rows"], held["bad_rows"], held["bad"]) == (3200, 1, [{"line": 3202, "reason": "no time: 'later'"}])


@pytest.mark.parametrize("content", ["", "hello\n", "time,node,cpu\nx,y,z\n"])
def test_bad_data_is_65(tmp_path, capsys, content):
    """A file in which nothing can be used ends in 65 with a sentence."""
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    code, said = run(capsys, "--from", path)
    assert code == 65
    assert said.err.startswith("iace: ")


def test_a_resumed_pass_gives_the_same_evidence(recorded, tmp_path):
    """Interrupted in the middle and resumed from its checkpoint, the evidence and its reasons are equal bit for bit."""
    recording = load(recorded)
    whole, first, second = Evidence(recording), Evidence(recording), Evidence(recording)
    whole.run()

    def interrupt(row):
        if row == 260:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.npz"
    with pytest.raises(KeyboardInterrupt):
        first.run(checkpoint, interrupt)
    second.resume(checkpoint)
    assert second.done == 260
    second.run()
    np.testing.assert_array_equal(second.rise, whole.rise)
    assert [second.why(row, 3) for row in range(TICKS)] == [whole.why(row, 3) for row in range(TICKS)]


def test_a_checkpoint_of_another_recording_is_refused(recorded, own_run, tmp_path):
    """A checkpoint is only good for the recording that it was made of, and garbage is none."""
    checkpoint = tmp_path / "checkpoint.npz"
    Evidence(load(own_run)).save(checkpoint)
    with pytest.raises(BadDataError, match="without --resume"):
        Evidence(load(recorded)).resume(checkpoint)
    whole = checkpoint.read_bytes()
    for garbage in (b"nothing", b"", whole[: len(whole) // 2]):
        checkpoint.write_bytes(garbage)
        with pytest.raises(BadDataError, match="no checkpoint"):
            Evidence(load(own_run)).resume(checkpoint)


def test_a_database_of_another_program_is_bad_data(tmp_path, capsys):
    """A SQLite file that is no store of ours ends in 65."""
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    code, said = run(capsys, "--from", path)
    assert code == 65
    assert "another program" in said.err


def test_an_interrupted_backtest_goes_on(recorded, tmp_path, capsys):
    """`--resume` goes on from the checkpoint beside the report and says the same as a run without a break."""
    report = tmp_path / "report"
    half = Evidence(load(recorded))

    def interrupt(row):
        if row == 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half.run(report / "backtest.checkpoint.npz", interrupt)
    resumed = run(capsys, "--from", recorded, "--report", report, "--resume")[1]
    assert resumed.err == "going on after 200 of 400 ticks\n"
    assert resumed.out == run(capsys, "--from", recorded)[1].out


def test_the_report_is_written_and_the_checkpoint_goes(recorded, tmp_path, capsys):
    """The report holds what standard output says, twice the same, and no checkpoint is left behind."""
    reports = [tmp_path / "one", tmp_path / "two"]
    said = [run(capsys, "--from", recorded, "--report", report)[1].out for report in reports]
    assert said[0] == said[1] == (reports[0] / "backtest.txt").read_text(encoding="utf-8")
    assert (reports[0] / "backtest.json").read_bytes() == (reports[1] / "backtest.json").read_bytes()
    assert sorted(path.name for path in reports[0].iterdir()) == ["backtest.json", "backtest.txt"]


def test_suspects_can_be_asked_for_at_any_time(recorded, capsys):
    """`--at` ranks the nodes at a moment; a moment outside the recording is bad data."""
    _, found = document(capsys, "--from", recorded, "--at", 250)
    assert found["at"][0]["suspects"][0]["node"] == "n3"
    assert run(capsys, "--from", recorded, "--at", 9999)[0] == 65


def test_a_recording_of_kpis_alone_has_alarms_and_no_nodes(tmp_path, capsys):
    """Without nodes there is nobody to suspect, but a KPI that jumps is told with its reason."""
    rng = np.random.default_rng(12)
    path = tmp_path / "kpis.csv"
    values = [0.7 if t >= 150 else float(rng.normal(0.95, 0.002)) for t in range(160)]
    rows = [f"{t},,{value!r},1" for t, value in enumerate(values)]
    path.write_text("time,node,coherence,weather\n" + "\n".join(rows) + "\n", encoding="utf-8")
    _, found = document(capsys, "--from", path)
    assert found["recording"]["ignored"] == ["weather"]
    (judged,) = found["configurations"]
    assert judged["incidents"] == judged["decisions"] == []
    assert [(told["kpi"], told["first_s"]) for told in judged["anomalies"]] == [("coherence", 150.0)]
    assert "standard deviations below its habit" in judged["anomalies"][0]["reason"]


def test_resume_without_a_report_is_a_usage_error(recorded, capsys):
    """A checkpoint lives beside the report, so there is nothing to resume without one."""
    assert run(capsys, "--from", recorded, "--resume")[0] == 2


@pytest.mark.skipif(not NEZHA.exists(), reason="the shared benchmark data are not here")
def test_the_faulty_pods_of_nezha_are_named(tmp_path):
    """Of the 18 faults of a real system that its metrics show, at least 12 have the faulty pod as first suspect."""
    spec = importlib.util.spec_from_file_location("nezha_csv", ROOT / "benchmarks" / "nezha_csv.py")
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    faults = converter.convert(NEZHA, tmp_path / "day.csv")
    recording = load(tmp_path / "day.csv")
    evidence = Evidence(recording)
    evidence.run()
    visible = [fault for fault in faults if fault["type"].startswith(("cpu", "network"))]
    first = [
        backtest.moment(recording, evidence, fault["at_s"])["suspects"][0]["node"] == fault["node"] for fault in visible
    ]
    assert len(visible) == 18
    assert sum(first) >= 12
    told = backtest.incidents(recording, evidence, 1.5)
    alarmed = [
        any(
            abs(incident["from_s"] - fault["at_s"]) <= 180 and incident["suspects"][0]["node"] == fault["node"]
            for incident in told
        )
        for fault in visible
    ]
    assert sum(alarmed) >= 7
