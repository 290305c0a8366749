"""What was recorded, read back from CSV and from our own store, and the shadow in which it is acted upon."""

import math

import numpy as np
import pytest

from controller.plants.replay import Replay
from controller.recording import load
from metrics.errors import BadDataError
from metrics.observation import Capability, Parameters
from metrics.store.protocol import Point
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import NS_PER_S
from state.action import ApplyParameters, IsolateNode, Reply, RestoreNode


def written(tmp_path, text):
    path = tmp_path / "recorded.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_long_and_wide_files_say_the_same(tmp_path):
    """The same values in both forms, in any order of rows, are the same recording."""
    long = load(written(tmp_path, "time,node,metric,value\n60,b,cpu,2\n0,a,cpu,1\n0,a,disk,\n0,,coherence,0.9\n"))
    wide = load(written(tmp_path, "time,node,cpu,coherence\n60,b,2,\n0,a,1,\n0,,,0.9\n"))
    assert long.times_s.tolist() == wide.times_s.tolist() == [0.0, 60.0]
    assert long.nodes == wide.nodes == ("a", "b")
    np.testing.assert_array_equal(long.values[:, :, 0], [[1.0, math.nan], [math.nan, 2.0]])
    np.testing.assert_array_equal(wide.values[:, :, wide.metrics.index("cpu")], long.values[:, :, 0])
    assert long.kpis["coherence"][0] == wide.kpis["coherence"][0] == 0.9


def test_iso_times_are_utc_unless_they_say_otherwise(tmp_path):
    """An ISO 8601 time is read with its zone, and as UTC without one."""
    found = load(written(tmp_path, "time,node,cpu\n1970-01-01T00:01:00,a,1\n1970-01-01T02:00:00+01:00,a,2\n"))
    assert found.times_s.tolist() == [60.0, 3600.0]


def test_bad_rows_are_kept_with_their_lines_and_reasons(tmp_path):
    """What cannot be understood is counted by line, and the good rows around it are used."""
    found = load(
        written(
            tmp_path,
            "time,node,cpu\n0,a,1\nsoon,a,1\n1,a\n2,a,much\n3,a,inf\n0,a,7\n4,a,2\n1e300,a,2\n",
        )
    )
    assert [(bad.line, bad.reason) for bad in found.bad] == [
        (3, "no time: 'soon'"),
        (4, "2 fields instead of 3"),
        (5, "cpu is no number: 'much'"),
        (6, "cpu is infinite"),
        (7, "cpu of a at 0 was given before"),
        (9, "no time in seconds: '1e300'"),
    ]
    assert found.rows == 2
    assert found.values[:, 0, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line must be"),
        ("a,b\n1,2\n", "first line must be"),
        ("time,node,cpu,cpu\n", "first line must be"),
        ("time,node,cpu\n", "nothing in it can be used, 0 bad rows"),
        ("time,node,cpu\nx,a,1\n", "nothing in it can be used, 1 bad rows; line 2: no time: 'x'"),
    ],
)
def test_a_file_without_anything_useful_is_refused(tmp_path, text, said):
    """No header that is ours, or no usable row, is bad data, and the message says what was expected."""
    with pytest.raises(BadDataError, match=said):
        load(written(tmp_path, text))


def test_bytes_and_missing_files_are_refused(tmp_path):
    """What is no text, and what is not there, is bad data."""
    path = tmp_path / "noise"
    path.write_bytes(b"time,node,cpu\n\xff\xfe\x00")
    with pytest.raises(BadDataError, match="no text in UTF-8"):
        load(path)
    with pytest.raises(BadDataError, match="cannot be read"):
        load(tmp_path / "nowhere.csv")


def test_a_store_gives_gravity_kpis_and_parameters(tmp_path):
    """Our own store is read as recorded gravity, KPIs and parameters; a node's name may hold dots."""
    path = tmp_path / "telemetry.db"
    store = SqliteStore(path)
    store.write([Point("node.a.example.gravity", tick * NS_PER_S, 0.25) for tick in range(3)])
    store.write([Point("kpi.coherence", NS_PER_S, 0.95), Point("parameter.alpha", NS_PER_S, 1.0)])
    store.close()
    found = load(path)
    assert found.nodes == ("a.example",)
    assert found.gravity[:, 0].tolist() == [0.25, 0.25, 0.25]
    assert found.kpis["coherence"][1] == 0.95
    assert found.parameters["alpha"][1] == 1.0
    assert found.rows == 5


def test_isolations_are_shown_until_they_end(tmp_path):
    """A node that was isolated is out until it is restored or its time is over; the recording is not changed."""
    replay = Replay(
        load(written(tmp_path, "time,node,cpu\n" + "".join(f"{t},a,1\n{t},b,1\n" for t in range(0, 60, 10))))
    )
    replay.observe(0)
    assert replay.carry_out(IsolateNode("k1", "a", 25.0)).reply is Reply.APPLIED
    replay.carry_out(IsolateNode("k2", "b", 900.0))
    replay.observe(2)
    assert replay.active().tolist() == [False, False]
    replay.observe(3)
    assert replay.active().tolist() == [True, False]
    replay.carry_out(RestoreNode("k3", "b"))
    assert replay.active().tolist() == [True, True]
    assert Capability.PARAMETERS not in replay.capabilities


def test_parameters_are_shown_as_applied(tmp_path):
    """Where all parameters were recorded they can be changed in shadow."""
    header = "time,node,coherence,lambda1,lambda2,alpha,action_cost_limit\n"
    replay = Replay(load(written(tmp_path, header + "0,,0.9,0.3,0.35,1,0.05\n1,,0.9,0.3,0.35,1,0.05\n")))
    assert Capability.PARAMETERS in replay.capabilities
    assert replay.observe(0).parameters == Parameters()
    replay.carry_out(ApplyParameters("k1", Parameters(lambda1=0.4)))
    assert replay.observe(1).parameters == Parameters(lambda1=0.4)
