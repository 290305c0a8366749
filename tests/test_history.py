"""What `iace history` reads and how it shows it."""

import csv
import io
import json

import pytest

from controller import history
from controller.cli import main
from controller.rundir import TELEMETRY, directory
from metrics.errors import BadDataError
from metrics.store.protocol import Aggregate, Point, Sample
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import NS_PER_S


@pytest.fixture
def data_dir(tmp_path):
    """A data directory whose first run kept 120 seconds of coherence and one node's gravity."""
    path = directory(tmp_path, 1)
    path.mkdir(parents=True)
    (path / "journal.db").touch()
    store = SqliteStore(path / TELEMETRY)
    store.write([Point("kpi.coherence", tick * NS_PER_S, tick / 100) for tick in range(1, 121)])
    store.write([Point("node.node-0007.gravity", 5 * NS_PER_S, 1.25)])
    store.close()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("15m", 900.0), ("24h", 86400.0), ("1h30m", 5400.0), ("250ms", 0.25)]
)
def test_durations_are_read_as_people_write_them(text, seconds):
    """A number with a unit, or several of them, is a duration."""
    assert history.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "s", "-5s", "5 s", "1x", "5s!", "0s", "nan"])
def test_what_is_no_duration_is_refused(text):
    """Anything else is refused with an example of what is meant."""
    with pytest.raises(ValueError, match=r"no duration|no time"):
        history.duration_s(text)


def test_last_counts_back_from_the_newest_sample(data_dir, capsys):
    """`--last 3s` gives the last three samples, whatever the wall clock says."""
    assert main(["history", "coherence", "--last", "3s", "--format", "json", "--data-dir", str(data_dir)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "metric": "kpi.coherence",
        "data": [
            {"plant_time_s": 118.0, "value": 1.18},
            {"plant_time_s": 119.0, "value": 1.19},
            {"plant_time_s": 120.0, "value": 1.2},
        ],
    }


def test_step_aggregates(data_dir):
    """`--step` gives one aggregate a step, the maximum where that is asked for."""
    store = SqliteStore(directory(data_dir, 1) / TELEMETRY)
    found = history.read(store, "coherence", last_s=20, step_s=10, how=Aggregate.MAX)
    store.close()
    assert [round(value, 2) for value in found.values] == [1.1, 1.2]


def test_csv_reads_back_exactly(data_dir, capsys):
    """CSV keeps every bit of the values."""
    assert main(["history", "coherence", "--format", "csv", "--data-dir", str(data_dir)]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["plant_time_s", "kpi.coherence"]
    assert [float(value) for _, value in rows[1:]] == [tick / 100 for tick in range(1, 121)]


def test_sparkline_and_table_name_the_series(data_dir, capsys):
    """The forms for people say what they show."""
    for form in ("sparkline", "table"):
        assert main(["history", "node.node-0007.gravity", "--format", form, "--data-dir", str(data_dir)]) == 0
        out = capsys.readouterr().out
        assert "node.node-0007.gravity" in out
        assert "1.25" in out


def test_png_is_a_png(data_dir, tmp_path, capsys):
    """The picture goes where it is asked to go, and its path to standard output."""
    target = tmp_path / "coherence.png"
    arguments = ["history", "coherence", "--format", "png", "--output", str(target), "--data-dir", str(data_dir)]
    assert main(arguments) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{target}\n"


def test_an_unknown_metric_is_answered_with_those_that_are_there(data_dir, capsys):
    """A metric without history ends in 65 and names what there is."""
    assert main(["history", "coherenc", "--data-dir", str(data_dir)]) == 65
    assert "kpi.coherence" in capsys.readouterr().err


def test_a_run_without_telemetry_is_bad_data(tmp_path, capsys):
    """Neither an unknown run nor one without telemetry ends in a traceback."""
    assert main(["history", "coherence", "--data-dir", str(tmp_path)]) == 65
    assert "iace run" in capsys.readouterr().err


def test_an_unwritable_picture_is_said(data_dir, tmp_path, capsys):
    """A picture that cannot be written ends in an error of the family."""
    target = tmp_path / "missing" / "x.png"
    arguments = ["history", "coherence", "--format", "png", "--output", str(target), "--data-dir", str(data_dir)]
    assert main(arguments) == 74
    assert str(target) in capsys.readouterr().err


def test_series_are_found_by_full_name_or_last_part(data_dir):
    """Both "coherence" and "kpi.coherence" mean the same series; nothing is guessed."""
    store = SqliteStore(directory(data_dir, 1) / TELEMETRY)
    for name in ("coherence", "kpi.coherence"):
        assert history.read(store, name, last_s=None, step_s=None, how=Aggregate.MEAN).series == "kpi.coherence"
    with pytest.raises(BadDataError, match="no history of 'coh'"):
        history.read(store, "coh", last_s=None, step_s=None, how=Aggregate.MEAN)
    store.close()


def test_only_influxdb_is_another_source(data_dir, capsys):
    """`--from` with anything but an InfluxDB is a usage error that points at --run."""
    assert main(["history", "coherence", "--from", "some.csv", "--data-dir", str(data_dir)]) == 2
    assert "for a run there is --run" in capsys.readouterr().err


def test_an_axis_of_its_own_is_named_in_every_form():
    """Where times are those of InfluxDB, table, CSV and JSON say so."""
    found = history.History("kpi.coherence", [Sample(1_767_225_600 * NS_PER_S, 0.95)], history.UNIX_TIME)
    assert history.as_table(found) == " unix time s  kpi.coherence\n1767225600.0  0.95\n"
    assert history.as_csv(found) == "unix_time_s,kpi.coherence\r\n1767225600.0,0.95\r\n"
    assert json.loads(history.as_json(found))["data"] == [{"unix_time_s": 1767225600.0, "value": 0.95}]
