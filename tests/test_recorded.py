"""A recording as a plant: what it shows, what it refuses, how it ends, and what `iace run` makes of it."""

import json
import math

import numpy as np
import pytest

from controller.cli import main
from controller.clock import VirtualClock
from controller.config import load
from controller.plants.embedded import EmbeddedPlant
from controller.plants.factory import make_plant
from controller.plants.recorded import RecordedPlant
from controller.recording import load as load_recording
from controller.recording_source import located, take
from metrics.errors import BadDataError, ConfigInvalidError, RecordingEndedError, UnsupportedError
from metrics.observation import SIGNAL_NAMES, Capability, Parameters

KPIS = ("coherence", "gas", "rsi", "delta_entropy", "action_cost")


@pytest.fixture
def recorded(tmp_path):
    """Call it with the text of a CSV file for the plant that replays it."""

    def plant(text):
        path = tmp_path / "recorded.csv"
        path.write_text(text, encoding="utf-8")
        return RecordedPlant(load_recording(path), clock=VirtualClock())

    return plant


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Call it with arguments of `iace run` for its exit code, its report and what it said."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        code = main(["run", *map(str, arguments)])
        report = tmp_path / "reports" / "report.json"
        return code, json.loads(report.read_text()) if report.exists() else None, capsys.readouterr().err

    return start


def csv_of_a_cluster(path, ticks, *, nodes=10, signals=True):
    """A wide CSV file of a healthy embedded cluster."""
    plant = EmbeddedPlant(nodes, clock=VirtualClock())
    names = SIGNAL_NAMES if signals else ()
    lines = [",".join(["time", "node", *KPIS, *names])]
    for _ in range(ticks):
        (seen,) = plant.observe(1.0)
        at_s = seen.plant_time_s
        lines.append(",".join(map(str, [at_s, "", *(seen.kpis[name] for name in KPIS), *("" for _ in names)])))
        for i, node in enumerate(seen.topology.nodes if signals else ()):
            figures = [float(getattr(seen.signals, name)[i]) for name in names]
            lines.append(",".join(map(str, [at_s, node, *("" for _ in KPIS), *figures])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def statuses(report):
    return {check["name"]: check["status"] for phase in report["phases"] for check in phase["checks"]}


def test_it_shows_one_row_a_tick_and_then_says_that_it_has_ended(recorded):
    """Each observation is the next recorded moment, a gap in time is a gap in ticks, and the end is an error."""
    plant = recorded(
        "time,node,coherence,lambda1,lambda2,alpha,action_cost_limit\n10,,0.9,0.3,0.35,1,0.05\n20,,,0.3,0.35,1,0.05\n"
        "30,,0.8,9,0.35,1,0.05\n60,,0.7,0.3,0.35,1,\n"
    )
    assert plant.connect(1.0).capabilities == frozenset()
    seen = [plant.observe(1.0)[0] for _ in range(4)]
    assert [(item.tick, item.plant_time_s) for item in seen] == [(1, 10.0), (2, 20.0), (3, 30.0), (6, 60.0)]
    np.testing.assert_array_equal([item.kpis["coherence"] for item in seen], [0.9, math.nan, 0.8, 0.7])
    assert [item.parameters for item in seen] == [Parameters(), Parameters(), None, None]
    assert seen[0].topology is None
    assert seen[3].received_s == 60.0
    with pytest.raises(RecordingEndedError, match="ended after 4 ticks"):
        plant.observe(1.0)


def test_times_that_lie_close_are_ticks_of_their_own(recorded):
    """No tick is numbered twice, however irregular the times are."""
    plant = recorded("time,node,coherence\n" + "".join(f"{at_s},,0.9\n" for at_s in (0, 10, 20, 21, 22, 30, 40, 50)))
    assert [plant.observe(1.0)[0].tick for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_nodes_are_shown_where_all_of_their_signals_were_recorded(tmp_path):
    """With every signal the nodes of the recording are those of the cluster, value for value."""
    recording = load_recording(csv_of_a_cluster(tmp_path / "cluster.csv", 3))
    plant = RecordedPlant(recording, clock=VirtualClock())
    assert plant.info.capabilities == {Capability.NODES}
    original = EmbeddedPlant(10, clock=VirtualClock())
    for _ in range(3):
        (theirs,), (ours,) = original.observe(1.0), plant.observe(1.0)
        assert ours.topology.nodes == theirs.topology.nodes
        for name in SIGNAL_NAMES:
            np.testing.assert_array_equal(getattr(ours.signals, name), getattr(theirs.signals, name))


def test_nodes_without_all_signals_are_not_shown(recorded):
    """A metric or two are no evidence for a gravity field."""
    plant = recorded("time,node,phase,queue,coherence\n0,a,1,2,\n0,,,,0.9\n")
    assert plant.info.capabilities == frozenset()
    assert plant.observe(1.0)[0].signals is None


def test_nothing_can_be_done_to_it(recorded):
    """Every action and every look behind the observations is refused, each by its capability."""
    plant = recorded("time,node,coherence\n0,,0.9\n")
    refused = {
        Capability.ISOLATE: [
            plant.isolated,
            lambda: plant.isolate("a", key="k", epoch=1, ttl_s=1.0),
            lambda: plant.restore("a", key="k", epoch=1),
        ],
        Capability.PARAMETERS: [plant.parameters, lambda: plant.apply(Parameters(), key="k", epoch=1)],
        Capability.FAULTS: [
            lambda: plant.inject({}, key="k", epoch=1),
            lambda: plant.clear("f", key="k", epoch=1),
        ],
        Capability.LEDGER: [plant.ledger, lambda: plant.blocks(0, 1), lambda: plant.balance("a")],
        Capability.COMMIT: [lambda: plant.commit({})],
    }
    assert plant.epoch_seen(1.0) == 0
    for capability, calls in refused.items():
        for call in calls:
            with pytest.raises(UnsupportedError) as no:
                call()
            assert no.value.capability == capability


def test_a_run_over_a_recording_is_honest_about_what_it_has_not_seen(run, tmp_path):
    """All that can be checked is, to the recording's end; the rest is skipped with its reason, and it is 61."""
    path = csv_of_a_cluster(tmp_path / "cluster.csv", 230)
    code, report, said = run("--plant", "replay", "--from", path)
    assert code == report["exit_code"] == 61, said
    assert report["causes"] == ["a recording shows no ledger: its required checks were skipped"]
    assert "the recording ended after 230 ticks, and with it the governing window" in said
    found = statuses(report)
    passed = {"plant.answers", "stream.cadence", "kpi.coherence", "kpi.action_cost", "field.gravity_distribution"}
    assert {found[name] for name in passed} == {"passed"}
    skipped = {"ledger.chain", "ledger.supply", "ledger.probe.good", "field.gating"}
    assert {found[name] for name in skipped} == {"skipped"}
    assert report["isolations"] == []


@pytest.mark.parametrize(("ticks", "phase"), [(3, "PHASE_I"), (100, "PHASE_II"), (140, "PHASE_III")])
def test_a_recording_that_ends_too_soon_is_inconclusive(run, tmp_path, ticks, phase):
    """Where the recording ends within a phase there is no verdict, and the cause says how far it went."""
    path = csv_of_a_cluster(tmp_path / "short.csv", ticks)
    code, report, _ = run("--from", path)
    assert code == 61
    assert report["causes"] == [f"the recording ended after {ticks} ticks, before {phase} was over"]


def test_a_recording_without_kpis_is_inconclusive(run, tmp_path):
    """Node metrics of another system tell nothing about the KPIs that Phase I has to judge."""
    path = tmp_path / "other.csv"
    path.write_text("time,node,cpu\n" + "".join(f"{at_s},a,0.5\n" for at_s in range(200)), encoding="utf-8")
    code, report, _ = run("--from", path)
    assert code == 61
    assert statuses(report)["kpi.coherence"] == "inconclusive"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,node,coherence\nsoon,,0.9\n", "line 2: no time: 'soon'"),
        ("when,who,what\n", "its first line must be"),
    ],
)
def test_a_bad_file_is_65_with_its_line(run, tmp_path, text, words):
    """Nothing usable in the file: bad data, and the line that shows why."""
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    code, report, _ = run("--from", path)
    assert code == 65
    assert words in report["causes"][0]


def test_bad_rows_among_good_ones_are_told_with_their_lines(tmp_path, caplog):
    """What could not be understood is left out and said."""
    path = tmp_path / "mixed.csv"
    path.write_text("time,node,coherence\n0,,0.9\n1,,high\n" + "x,,1\n" * 30, encoding="utf-8")
    settings = {"plant": {"kind": "replay", "recording": str(path)}}
    plant = make_plant(load(None, settings, {}), VirtualClock())
    assert plant.observe(1.0)[0].kpis["coherence"] == 0.9
    assert f"{path}:3 is left out: coherence is no number: 'high'" in caplog.text
    assert "31 bad rows are left out in all" in caplog.text
    assert len(caplog.records) == 21


def test_what_cannot_be_replayed_is_a_configuration_error(run, tmp_path):
    """No recording named, faults asked of a recording, and InfluxDB without an address end in 78."""
    with pytest.raises(ConfigInvalidError, match=r"plant\.recording: is needed"):
        load(None, {"plant": {"kind": "replay"}}, {})
    path = csv_of_a_cluster(tmp_path / "cluster.csv", 2)
    assert run("--from", path, "--scenario", "byzantine-node")[0] == 78
    assert run("--from", "influxdb")[0] == 78


def test_a_run_is_named_by_its_number(tmp_path):
    """A number that is no file is a run of the data directory; another number is bad data."""
    (tmp_path / "runs" / "4").mkdir(parents=True)
    assert located("4", tmp_path) == str(tmp_path / "runs" / "4" / "telemetry.db")
    assert located("some.csv", tmp_path) == "some.csv"
    with pytest.raises(BadDataError, match="no run 5"):
        located("5", tmp_path)


def test_the_last_rows_alone_can_be_taken(tmp_path):
    """`last_s` keeps what lies within so many seconds of the newest row, in every part of the recording."""
    path = csv_of_a_cluster(tmp_path / "cluster.csv", 20, nodes=5)
    whole = take(str(path), load(None, {}, {}))
    part = take(str(path), load(None, {}, {}), last_s=5.0)
    assert part.times_s.tolist() == whole.times_s[-5:].tolist()
    np.testing.assert_array_equal(part.values, whole.values[-5:])
    np.testing.assert_array_equal(part.kpis["coherence"], whole.kpis["coherence"][-5:])
