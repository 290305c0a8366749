"""The dashboards' files: current, valid, whole, and speaking of nothing that does not exist."""

import json
import re
from itertools import combinations
from pathlib import Path

import jsonschema
import promql_parser
import pytest
import yaml

from controller.alerting.alerts import alerts
from controller.dashboards import __main__ as generator
from controller.dashboards import reading
from controller.dashboards.board import RUNBOOKS, UIDS
from controller.dashboards.looking import _DRAWN
from controller.dashboards.overview import LIMITED
from controller.dashboards.style import PHASE_COLOURS, STATUS_COLOURS, limit_steps
from metrics.export_catalogue import EXPORTED, KPI_METRICS, MetricType
from metrics.kpi import CATALOGUE, Limit, Side
from metrics.observation import SIGNAL_NAMES
from metrics.store.influx_lines import EVENT, KPI, NODE
from state.durable import NodeStatus
from state.event import EventKind
from state.phase import Phase

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "tests" / "data" / "grafana-dashboard.schema.json"
FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
BOARDS = [reading.read(path) for path in FILES]
PANELS = [pytest.param(board, panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]

# Names and labels that are not the exporter's: what Prometheus and the Pushgateway say of themselves, and of a target.
FOREIGN = {"up": set(), "push_time_seconds": set()}
TARGET_LABELS = {"job", "instance", "plant"}
FIELDS = {
    KPI: set(CATALOGUE),
    NODE: {"gravity", "status", "$signal", *SIGNAL_NAMES},
    EVENT: {"text", "seq"},
}
TAGS = {KPI: {"plant", "run"}, NODE: {"plant", "cluster", "node"}, EVENT: {"plant", "kind", "state"}}
INFO_LABELS = {"version", "python"}


def exported():
    """Name of each series that the exporter shows, with its labels."""
    for metric in EXPORTED:
        labels = {"node", "cluster"} if metric.nodes is not None else set(metric.labels)
        if metric.type is MetricType.HISTOGRAM:
            yield from ((f"{metric.name}_{part}", labels) for part in ("sum", "count"))
            yield f"{metric.name}_bucket", {*labels, "le"}
        else:
            yield metric.name, INFO_LABELS if metric.type is MetricType.INFO else labels


SERIES = {**dict(exported()), **FOREIGN}


def selectors(expr):
    """Each vector selector of a parsed expression: its name, and the labels that it matches by."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))

    promql_parser.walk(expr, visit)
    return found


def parsed(query):
    """A PromQL query with Grafana's variables filled in, parsed."""
    when = reading.TimeRange(0.0, 3600.0)
    values = dict.fromkeys(("job", "instance", "plant", "cluster", "node"), ".+")
    return promql_parser.parse(reading.filled(query, {**when.builtins(), **values}))


def targets(source):
    """Every target of a data source, annotations included."""
    return [
        pytest.param(target, id=f"{board.uid}: {title} {target.ref}")
        for board in BOARDS
        for title, asked in [*((p.title, p.targets) for p in board.panels), ("annotations", board.annotations)]
        for target in asked
        if target.source == source
    ]


def links(value):
    """All addresses anywhere in a dashboard."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if key == "url" and inner else links(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from links(inner)


def test_the_committed_files_are_what_the_code_generates():
    """Each file of grafana/dashboards is current, and there is no other."""
    documents = generator.documents()
    assert {path.name for path in FILES} == set(documents)
    stale = [path.name for path in FILES if path.read_text(encoding="utf-8") != documents[path.name]]
    assert not stale, "run: python -m controller.dashboards"


def test_the_generator_checks_and_writes(tmp_path, monkeypatch, capsys):
    """`--check` ends in 1 and writes nothing where a file is missing; without it the files are written, once."""
    command = ["dashboards", "--directory", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*command, "--check"])
    assert generator.main() == 1
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("sys.argv", command)
    assert generator.main() == 0
    assert len(list(tmp_path.iterdir())) == 6
    capsys.readouterr()
    assert generator.main() == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafanas_own_schema_accepts_them(board):
    """Each dashboard is valid against the JSON Schema of @grafana/schema, in the version that it claims."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(board.raw)] == []
    assert board.raw["schemaVersion"] == 42


def test_the_schema_is_one_that_refuses():
    """A dashboard whose refresh is a number, or whose panel has no type, is invalid: the schema is not empty."""
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    sound = BOARDS[0].raw
    assert not validator.is_valid({**sound, "refresh": 10})
    broken = {key: value for key, value in sound["panels"][0].items() if key != "type"}
    assert not validator.is_valid({**sound, "panels": [broken]})


def test_uids_titles_and_ids_are_unique():
    """No two dashboards share a uid or a title, no two panels of one an id, no two queries of a panel a letter."""
    assert sorted(board.uid for board in BOARDS) == sorted(UIDS.values())
    assert len({board.title for board in BOARDS}) == len(BOARDS)
    for board in BOARDS:
        ids = [panel.raw["id"] for panel in board.panels]
        assert ids == list(range(1, len(ids) + 1))
        assert len({panel.title for panel in board.panels}) == len(ids)
        for panel in board.panels:
            assert [target.ref for target in panel.targets] == list("ABCDEF"[: len(panel.targets)])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_no_two_panels_overlap_and_rows_are_full(board):
    """On the grid of 24 columns no cell belongs to two panels, and none that a row reaches is left empty."""
    cells = [
        {(x + i, y + j) for i in range(w) for j in range(h)} for x, y, w, h in (panel.place for panel in board.panels)
    ]
    assert all(not one & other for one, other in combinations(cells, 2))
    covered = set().union(*cells)
    height = max(y for _, y in covered) + 1
    assert covered == {(x, y) for x in range(24) for y in range(height)}


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_panel_is_of_a_kind_that_can_be_looked_at(board, panel):
    """No panel is of a kind that the drawing leaves out, which would hide it from reviewers."""
    assert panel.kind in _DRAWN, board.uid


@pytest.mark.parametrize("target", targets("prometheus"))
def test_promql_speaks_of_the_catalogue_alone(target):
    """Every PromQL query parses, and selects by names and labels that the exporter has."""
    found = selectors(parsed(target.query))
    assert found
    for name, labels in found:
        assert name in SERIES, name
        assert labels <= SERIES[name] | TARGET_LABELS, name


@pytest.mark.parametrize("target", targets("influxdb"))
def test_influxql_speaks_of_what_is_written(target):
    """Every InfluxQL query is bound to time range and plant, and names measurements, fields and tags that there are."""
    (measurement,) = re.findall(r'FROM "(\w+)"', target.query)
    assert 'WHERE $timeFilter AND "plant" =~ /^$plant$/' in target.query
    named = set(re.findall(r'"([$\w]+)"', target.query)) - {measurement}
    assert named <= FIELDS[measurement] | TAGS[measurement]
    kinds = re.findall(r'"kind" =~ /\^\(([A-Z_|]+)\)\$/', target.query)
    assert all(kind in EventKind.__members__ for group in kinds for kind in group.split("|"))
    assert set(re.findall(r"\$tag_(\w+)", target.legend)) <= TAGS[measurement]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_links_lead_to_dashboards_and_runbooks_that_exist(board):
    """Every link between dashboards names a uid that is there; every runbook is that of an alert."""
    names = {rule.name for group in alerts().values() for rule in group}
    for address in links(board.raw):
        dashboard = re.match(r"/d/([\w-]+)\?", address)
        runbook = re.fullmatch(r"\$\{runbooks\}/(\w+)\.md", address)
        assert dashboard or runbook, address
        if dashboard:
            assert dashboard[1] in UIDS.values(), address
        if runbook:
            assert runbook[1] in names, address


def test_the_dashboards_link_to_each_other_by_their_tag():
    """Each has the tag by which each lists the others, variables and time range included."""
    for board in BOARDS:
        (link,) = board.raw["links"]
        assert board.raw["tags"] == link["tags"] == ["iace"]
        assert link["includeVars"] is link["keepTime"] is True


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_variable_that_is_used_is_defined(board):
    """What stands as $name anywhere is a variable of the dashboard or one of Grafana's own."""
    text = json.dumps(board.raw)
    used = {one or other for one, other in re.findall(r"\$(?:\{([a-z_]+)\}|([a-z]\w*))", text)}
    own = {variable["name"] for variable in board.raw["templating"]["list"]}
    assert used <= own | {"timeFilter", "tag_node", "tag_cluster", "__url_time_range", "__value"}
    assert own <= used | {"signal"}


def test_limits_are_coloured_by_the_side_that_is_healthy():
    """A lower bound is green above it, an upper one green below it, and red lies beyond the critical bound."""
    steps = [(step.value, step.color) for step in limit_steps(Limit(Side.AT_LEAST, 0.9, 0.85))]
    assert steps == [(None, "red"), (0.85, "orange"), (0.9, "green")]
    steps = [(step.value, step.color) for step in limit_steps(Limit(Side.AT_MOST, 0.05, 0.1))]
    assert steps == [(None, "green"), (0.05, "orange"), (0.1, "red")]
    steps = [(step.value, step.color) for step in limit_steps(Limit(Side.AT_LEAST, 0.65))]
    assert steps == [(None, "orange"), (0.65, "green")]


def test_every_state_and_status_has_a_colour_of_its_own():
    """No two states look alike, nor two statuses of nodes; each KPI with a limit has its metric."""
    assert list(PHASE_COLOURS) == list(Phase)
    assert len(set(PHASE_COLOURS.values())) == len(Phase)
    assert list(STATUS_COLOURS) == list(NodeStatus)
    assert len(set(STATUS_COLOURS.values())) == len(NodeStatus)
    assert set(LIMITED) <= set(KPI_METRICS)


def test_provisioning_takes_its_secrets_from_the_environment():
    """Both data sources and the provider are there, addresses and the token are variables, no password is anywhere."""
    folder = ROOT / "grafana" / "provisioning"
    sources = [
        source
        for path in sorted((folder / "datasources").glob("*.yml"))
        for source in yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    ]
    assert [(source["type"], source["url"]) for source in sources] == [
        ("influxdb", "${INFLUXDB_URL}"),
        ("prometheus", "${PROMETHEUS_URL}"),
    ]
    assert sources[0]["secureJsonData"] == {"httpHeaderValue1": "Token ${INFLUXDB_TOKEN}"}
    assert sources[1]["jsonData"]["timeInterval"] == f"{reading.SCRAPE_INTERVAL_S:g}s"
    (provider,) = yaml.safe_load((folder / "dashboards" / "iace.yml").read_text(encoding="utf-8"))["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    text = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.yml"))
    assert "password" not in text.lower()
    assert RUNBOOKS.startswith("/public/")


def test_the_scrape_interval_is_prometheus_own():
    """The interval that the data source is told is that of job iace in prometheus.yml, on which rates rest."""
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "iace"]
    assert job["scrape_interval"] == f"{reading.SCRAPE_INTERVAL_S:g}s"
