"""Where telemetry goes: the own store bounded, InfluxDB whole, and neither in the way of the other."""

import logging
import subprocess
import sys
from contextlib import closing

import pytest

from controller import influx
from controller.clock import VirtualClock, utc_ns
from controller.config import load
from controller.influx_sink import LATE_MAX_NS, Anchor
from controller.plants.embedded import EmbeddedPlant
from controller.record import Recorded
from controller.sinks import open_sinks, prepare
from metrics.assessment import Assessor
from metrics.errors import ConfigInvalidError, StoreFailedError
from metrics.store.sqlite import SqliteStore
from state.durable import DurableState
from state.event import Event, EventKind
from state.machine import PhaseMachine
from state.phase import Phase

NOWHERE = "http://127.0.0.1:9"  # the discard port, on which nobody listens
S = 1_000_000_000
TICKS = 5


@pytest.fixture
def plant():
    return EmbeddedPlant(12, clusters=2, clock=VirtualClock())


@pytest.fixture
def opened(tmp_path):
    """Call it with sections of the configuration for open sinks in `tmp_path`."""
    store = SqliteStore(tmp_path / "telemetry.db")

    def open_them(settings, *, real_time=True):
        state = DurableState(PhaseMachine(daemon=False))
        config = load(None, settings, {})
        return open_sinks(config, store, tmp_path, plant="p", run="r", real_time=real_time, state=state)

    with closing(store):
        yield open_them


def live(sinks, plant, ticks=TICKS):
    assessor = Assessor()
    for _ in range(ticks):
        (observation,) = plant.observe(1.0)
        sinks.tick(observation, assessor.assess(observation), Phase.PHASE_I)


def test_the_own_store_gets_the_worst_nodes_and_influxdb_all_of_them(opened, plant):
    """`node_series_max` bounds the own store's node series; to InfluxDB goes every node, and every event."""
    sinks = opened({"influxdb": {"url": NOWHERE}, "prometheus": {"node_series_max": 3}})
    live(sinks, plant)
    sinks.event(Recorded(1, "hash", Event(EventKind.WINDOW_ENDED, 3.0)))
    accounts = sinks.accounts()
    kpis_and_parameters = len([name for name in sinks.telemetry.last.points if not name.startswith("node.")])
    assert len(sinks.telemetry.last.points) - kpis_and_parameters == 3
    assert accounts["influxdb"].produced == TICKS * (kpis_and_parameters + 12) + 1
    assert accounts["sqlite"].produced == TICKS * (kpis_and_parameters + 3)
    sinks.close()
    assert all(account.balanced for account in sinks.accounts().values())


def test_what_a_dead_server_did_not_get_is_said_and_counted(opened, plant, caplog):
    """Nobody answers: ticks go on, the end is quick, and what waits is named; the next opening finds it."""
    sinks = opened({"influxdb": {"url": NOWHERE}})
    live(sinks, plant)
    with caplog.at_level(logging.WARNING, "iace"):
        sinks.close()
    buffered = sinks.accounts()["influxdb"].buffered
    assert buffered > 0
    assert f"{buffered} points wait on disk for InfluxDB" in caplog.text
    again = opened({"influxdb": {"url": NOWHERE}})
    assert again.accounts()["influxdb"].buffered == buffered
    again.close()


@pytest.mark.parametrize(
    ("settings", "real_time"),
    [({}, True), ({"influxdb": {"url": NOWHERE}}, False)],
    ids=["not configured", "virtual time"],
)
def test_nothing_goes_to_influxdb_that_should_not(opened, plant, settings, real_time, tmp_path):
    """Without a URL, and in virtual time without a base time, there is no spool and no account."""
    sinks = opened(settings, real_time=real_time)
    live(sinks, plant)
    sinks.close()
    assert list(sinks.accounts()) == ["sqlite"]
    assert not (tmp_path / "influxdb").exists()


def test_a_base_time_lets_a_virtual_run_in(opened, plant):
    """With a base time a virtual run has a time of day."""
    sinks = opened({"influxdb": {"url": NOWHERE, "base_time": "2026-01-01T00:00:00Z"}}, real_time=False)
    live(sinks, plant)
    sinks.close()
    assert sinks.accounts()["influxdb"].buffered > 0


def test_a_spool_that_cannot_be_made_costs_only_influxdb(opened, plant, tmp_path, caplog):
    """Where the spool cannot be, that is said, and the run goes on without InfluxDB."""
    (tmp_path / "influxdb").write_text("in the way")
    with caplog.at_level(logging.WARNING, "iace"):
        sinks = opened({"influxdb": {"url": NOWHERE}})
    live(sinks, plant)
    sinks.close()
    assert "nothing goes to InfluxDB" in caplog.text
    assert list(sinks.accounts()) == ["sqlite"]


def test_a_failing_own_store_does_not_keep_influxdb_open(opened, plant, tmp_path):
    """Closing tells that the own store failed, and has closed InfluxDB nevertheless."""
    sinks = opened({"influxdb": {"url": NOWHERE}})
    live(sinks, plant)
    sinks.store.close()
    with pytest.raises(StoreFailedError):
        sinks.close()
    with pytest.raises(StoreFailedError, match="closed"):
        sinks.event(Recorded(1, "hash", Event(EventKind.WINDOW_ENDED, 3.0)))
    assert (tmp_path / "influxdb" / "spool").is_dir()


def test_the_anchor_puts_plant_time_on_the_wall():
    """The first tick is now, later ones lie plant seconds after it, and what comes before the first is now."""
    wall = [1_000 * S]
    anchor = Anchor(None, lambda: wall[0])
    assert anchor.at_ns(0.0) == 1_000 * S
    assert anchor.tick(300.0) == 1_000 * S
    wall[0] += 7 * S
    assert anchor.tick(305.0) == 1_005 * S
    assert anchor.at_ns(302.0) == 1_002 * S


def test_the_anchor_is_set_anew_when_a_plant_lags_or_begins_afresh():
    """A plant that has come to lie behind, or begun afresh, is put to now; one that runs ahead is left there."""
    wall = [1_000 * S]
    anchor = Anchor(None, lambda: wall[0])
    anchor.tick(0.0)
    assert anchor.tick(500.0) == 1_500 * S
    wall[0] = 1_501 * S + LATE_MAX_NS + 1
    assert anchor.tick(501.0) == wall[0]
    wall[0] += S
    assert anchor.tick(2.0) == wall[0]


def test_a_given_base_is_kept():
    """With a base time the wall clock has no say."""
    anchor = Anchor(5 * S, lambda: 1_000 * S)
    assert anchor.at_ns(1.0) == 6 * S
    assert anchor.tick(2.5) == 7_500_000_000


def test_times_of_day_are_read_exactly():
    """ISO 8601 in any zone, UTC without one; anything else is refused with an example."""
    assert utc_ns("1970-01-01T00:00:01.000001Z") == 1_000_001_000
    assert utc_ns("1970-01-01T01:00:00+01:00") == 0
    assert utc_ns("1970-01-02") == 86_400 * S
    with pytest.raises(ValueError, match="write it like 2026-01-31T12:00:00Z"):
        utc_ns("yesterday")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "influx:8086"}, "influxdb.url: must be an http:// or https:// address"),
        ({"url": "http://me:secret@h:8086"}, "a token belongs in influxdb.token_file"),
        ({"base_time": "noon"}, "influxdb.base_time: 'noon' is no ISO 8601 time"),
        ({"batch_points": 0}, "influxdb.batch_points: "),
        ({"token": "x"}, "influxdb.token: unknown key; did you mean token_file?"),
    ],
)
def test_wrong_settings_are_named_on_load(settings, said):
    """Each problem of the section is told with its path, and no secret is repeated."""
    with pytest.raises(ConfigInvalidError) as refused:
        load(None, {"influxdb": settings}, {})
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_target_takes_its_token_from_a_file(tmp_path):
    """The token is read from the file; a missing certificate or token file is a configuration error."""
    path = tmp_path / "token"
    path.write_text("me:word\n")
    settings = {"url": NOWHERE, "token_file": path, "org": "acme", "bucket": "b/week", "timeout_s": 3.0}
    target = influx.target(load(None, {"influxdb": settings}, {}))
    assert (target.token, target.org, target.bucket, target.timeout_s) == ("me:word", "acme", "b/week", 3.0)
    assert "word" not in repr(target)
    for broken in ({"ca_file": tmp_path / "no"}, {"token_file": tmp_path / "no"}):
        with pytest.raises(ConfigInvalidError, match="influxdb\\."):
            influx.target(load(None, {"influxdb": {"url": NOWHERE, **broken}}, {}))
    with pytest.raises(ConfigInvalidError, match=r"influxdb\.url: is needed"):
        influx.target(load(None, {}, {}))


def test_a_run_without_influxdb_does_not_import_its_client():
    """The client's import is paid for by those alone who use it."""
    code = "import sys, controller.run; sys.exit('influxdb_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_what_is_wrong_with_the_files_is_known_before_a_plant_is_reached(tmp_path):
    """A token file that is missing is a configuration error at once; without a URL nobody asks for it."""
    missing = {"token_file": tmp_path / "no"}
    prepare(load(None, {"influxdb": missing}, {}))
    with pytest.raises(ConfigInvalidError, match=r"influxdb\.token_file: cannot be read"):
        prepare(load(None, {"influxdb": {"url": NOWHERE, **missing}}, {}))


def test_isolated_nodes_are_always_told(opened, plant):
    """A node that is out has a series in the own store, whatever its |g|."""
    node = plant.observe(1.0)[0].topology.nodes[0]
    plant.isolate(node, key="k", epoch=1, ttl_s=900.0)
    sinks = opened({"prometheus": {"node_series_max": 0}})
    live(sinks, plant)
    sinks.close()
    assert [name for name in sinks.telemetry.last.points if name.startswith("node.")] == [f"node.{node}.gravity"]
