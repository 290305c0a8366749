"""The dashboards on real servers: whatever a panel asks for is there, and can be drawn."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from controller.dashboards import looking, reading
from controller.dashboards.asking import Answer, QueryFailedError, Series, Servers
from controller.dashboards.reading import TimeRange

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
BOARDS = [reading.read(path) for path in FILES]
PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("dashboards")]


@pytest.fixture(scope="module")
def stage(need_programs, tmp_path_factory):
    """A real Prometheus and InfluxDB with an eventful time of a governed plant, and with pipelines' runs."""
    need_programs("influxd", "nginx", "prometheus")
    module = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("dashboard_stage.py"))))
    with module.staged(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


def rows(stage, query):
    target = reading.Target("A", "prometheus" if "{" in query else "influxdb", query, "", instant=True, table=True)
    return list(stage.servers.rows(target, stage.live))


def test_what_happened_is_what_the_story_tells(stage):
    """The story that fills the servers has an isolation, a re-admission, a guard's veto, a trial, and somebody out."""
    kinds = {row["kind"] for row in rows(stage, 'SELECT "kind"::tag, "text" FROM "iace_event" WHERE $timeFilter')}
    assert {
        "ISOLATION_VERIFIED",
        "RESTORATION_VERIFIED",
        "ISOLATION_BLOCKED",
        "TRIAL_STARTED",
        "TRIAL_KEPT",
        "PHASE_PASSED",
    } <= kinds
    (out,) = rows(stage, 'iace_node_isolated{job="iace"} == 1')
    assert out["node"] == "node-0004"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_query_of_every_panel_returns_data(stage, board):
    """Each query of each panel, and of each annotation, brings something from the real servers."""
    when = stage.when(board)
    silent = [
        f"{panel.title} {target.ref}: {target.query}"
        for panel in board.panels
        for answer in (stage.servers.ask(panel, when),)
        for target in panel.targets
        if answer.empty(target.ref)
    ]
    assert silent == []
    assert all(list(stage.servers.rows(target, when)) for target in board.annotations)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_variable_has_values(stage, board):
    """Each variable that a server is asked for has at least one value there: the choice boxes are not empty."""
    for variable in board.raw["templating"]["list"]:
        if variable["type"] == "query" and variable["datasource"]["type"] == "influxdb":
            query = reading.filled(variable["query"], stage.servers.values)
            (series,) = stage.servers._influxdb(query)
            assert series["values"], variable["name"]
        elif variable["type"] == "query":
            series, _, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            query = reading.filled(series, stage.servers.values)
            assert any(label in row for row in rows(stage, query if "{" in query else f"{query}{{}}")), variable["name"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_dashboard_can_be_looked_at(stage, path, tmp_path):
    """A dashboard is drawn into a PNG of its grid's size."""
    board = reading.read(path)
    picture = tmp_path / "board.png"
    looking.draw(board, stage.servers, stage.when(board), picture)
    content = picture.read_bytes()
    assert content.startswith(PNG)
    rows_high = max(y + h for _, y, _, h in (panel.place for panel in board.panels))
    assert int.from_bytes(content[16:20]) == 24 * looking.COLUMN_PX
    assert abs(int.from_bytes(content[20:24]) - looking.HEAD_PX - rows_high * looking.ROW_PX) <= 1


def test_a_refused_query_is_an_error_and_no_empty_panel(stage):
    """A query that a server refuses raises with its reason; so does a server that is not there."""
    when = stage.live
    wrong = reading.Target("A", "prometheus", "rate(up)", "", instant=False, table=False)
    with pytest.raises(QueryFailedError, match="expected type range vector"):
        list(stage.servers.series(wrong, when))
    wrong = reading.Target("A", "influxdb", "SELECT nothing", "", instant=False, table=False)
    with pytest.raises(QueryFailedError, match="SELECT nothing: "):
        list(stage.servers.series(wrong, when))
    nobody = Servers("http://127.0.0.1:1", "http://127.0.0.1:1", "iace", {})
    with pytest.raises(QueryFailedError, match="did not answer"):
        list(nobody.series(reading.Target("A", "prometheus", "up", "", instant=False, table=False), when))


def test_a_variable_without_a_value_is_an_error():
    """What Grafana would not fill in is found out, instead of being asked for literally."""
    assert reading.filled("a$node ${node:regex}", {"node": "b"}) == "ab b"
    with pytest.raises(KeyError, match="cluster"):
        reading.filled("$cluster", {"node": "b"})


def test_the_range_gives_grafanas_own_variables():
    """Step, rate interval and range follow from the range, as Grafana computes them for a scrape every two seconds."""
    assert TimeRange(0.0, 100.0).builtins() == {
        "__interval": "2s",
        "__rate_interval": "8s",
        "__range": "100s",
        "timeFilter": "time >= 0ms AND time <= 100000ms",
    }
    assert TimeRange(0.0, 36_000.0).builtins()["__interval"] == "90s"
    assert TimeRange(0.0, 36_000.0).builtins()["__rate_interval"] == "92s"


def test_an_answer_without_values_is_empty():
    """A series of nothing but gaps is as empty as none; a row or a single value is not."""
    gaps = Answer((Series("A", "x", (1.0, 2.0), (None, None)),), (("B", {"node": "n"}),))
    assert gaps.empty("A")
    assert not gaps.empty("B")
    assert not Answer((Series("A", "x", (1.0, 2.0), (None, 0.0)),), ()).empty("A")
