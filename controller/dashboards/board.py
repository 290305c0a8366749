"""Puts panels into a dashboard: their places on the grid, ids, variables, annotations and the links to the others.

A board is a list of rows, each of one height, whose panels fill the grid's width from left to right: so nothing
overlaps, and what is said first stands first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as model

from controller.dashboards.queries import INFLUXDB, PLANT, PROMETHEUS, InfluxQuery, kind_is
from controller.dashboards.style import BLUE, ORANGE, PURPLE
from state.event import EventKind as Kind

GRID_COLUMNS = 24
TAG = "iace"
UIDS = {
    "overview": "iace-overview",
    "nodes": "iace-nodes",
    "healing": "iace-healing",
    "ledger": "iace-ledger",
    "internals": "iace-internals",
    "ci-runs": "iace-ci-runs",
}
RUNBOOKS = "/public/runbooks"  # docs/runbooks, mounted where Grafana serves its own files: docs/dashboards.md

TRANSITIONS = (
    Kind.RUN_STARTED,
    Kind.PHASE_PASSED,
    Kind.PHASE_FAILED,
    Kind.PHASE_UNDECIDED,
    Kind.STORM_DETECTED,
    Kind.SENSORS_DOUBTED,
    Kind.INVARIANT_BREACHED,
    Kind.SAFE_MODE_LEFT,
    Kind.PLANT_LOST,
    Kind.PAUSED,
    Kind.RESUMED,
    Kind.RESTARTED,
    Kind.STOPPED,
    Kind.RUN_ENDED,
)
ISOLATIONS = (
    Kind.ISOLATION_VERIFIED,
    Kind.ISOLATION_BLOCKED,
    Kind.ISOLATION_FAILED,
    Kind.ISOLATION_EXPIRED,
    Kind.RESTORATION_VERIFIED,
)
TRIALS = (Kind.TRIAL_STARTED, Kind.TRIAL_KEPT, Kind.TRIAL_ROLLED_BACK, Kind.ROLLBACK_FAILED)

# What the schema demands of every annotation's target; only Grafana's own data source reads it.
_GRAFANA_TARGET = {"limit": 100, "matchAny": False, "tags": [], "type": "tags"}
_ALL = {"text": "All", "value": "$__all"}


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side.

    Attributes:
        height: in grid units.
        panels: width and panel of each, from left to right; together they are as wide as the grid.
    """

    height: int
    panels: Sequence[tuple[int, model.Panel]]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard.

    Attributes:
        name: of its file, and its key in `UIDS`.
        title, description: for people.
        rows: the panels from top to bottom.
        variables: beyond those of every board.
        time_from: the range that it opens with.
        live: it follows a controller, whose journal annotates it; otherwise it shows what pipelines pushed.
    """

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[build.QueryVariable | build.CustomVariable] = ()
    time_from: str = "now-1h"
    live: bool = True

    def document(self, runbooks: str = RUNBOOKS) -> str:
        """The dashboard as the JSON that Grafana imports; `runbooks` is the address of the runbooks' folder."""
        builder = (
            build.Dashboard(self.title)
            .uid(UIDS[self.name])
            .description(self.description)
            .tags([TAG])
            .timezone("browser")
            .readonly()
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .time(self.time_from, "now")
            .refresh("10s" if self.live else "1m")
            .links([_all_boards()])
        )
        for variable in _variables(self, runbooks):
            builder = builder.with_variable(variable)
        for annotation in _annotations() if self.live else ():
            builder = builder.annotation(annotation)
        dashboard = builder.build()
        dashboard.panels = list(_placed(self.rows))
        plain = json.loads(json.dumps(dashboard, cls=JSONEncoder))
        for shown in (*plain["links"], *plain["annotations"].get("list", ())):
            del shown["placement"]  # the library hides them in a menu, and they are to be seen above the panels
        return json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def link_to(name: str, variables: str = "") -> str:
    """The address of another board, with the present time range and the value of a click."""
    return f"/d/{UIDS[name]}?${{__url_time_range}}{variables}"


def influx_variable(name: str, label: str, description: str, statement: str) -> build.QueryVariable:
    """A variable whose values InfluxDB knows; several may be chosen."""
    return (
        _reloaded(build.QueryVariable(name).label(label).description(description))
        .datasource(INFLUXDB)
        .query(statement)
        .multi(True)  # noqa: FBT003 - the library's setters take their value so
    )


def with_all(variable: build.QueryVariable, all_value: str) -> build.QueryVariable:
    """The variable with a choice of all, which is what it begins with."""
    chosen = model.VariableOption(text=_ALL["text"], value=_ALL["value"], selected=True)
    return variable.include_all(True).all_value(all_value).current(chosen)  # noqa: FBT003 - as above


def _variables(
    board: Board, runbooks: str
) -> Iterator[build.QueryVariable | build.CustomVariable | build.DatasourceVariable | build.ConstantVariable]:
    yield build.DatasourceVariable("prometheus_datasource").label("Prometheus data source").type("prometheus")
    if board.live:
        yield build.DatasourceVariable("influxdb_datasource").label("InfluxDB data source").type("influxdb")
        yield with_all(
            _labels("job", "Job", 'iace_build_info{instance=~".+"}', "Prometheus' job of the controllers."), ".+"
        )
        instances = 'iace_build_info{job=~"$job"}'
        yield with_all(_labels("instance", "Instance", instances, "The controllers; a pushed run has none."), ".+")
        statement = 'SHOW TAG VALUES FROM "iace_kpi" WITH KEY = "plant"'
        yield with_all(influx_variable("plant", "Plant", "The governed systems.", statement), ".*")
    else:
        ended = "iace_last_run_exit_code"
        yield with_all(_labels("job", "Job", ended, "Prometheus' job of the runs."), ".+")
        yield with_all(_labels("plant", "Plant", f'{ended}{{job=~"$job"}}', "The systems that were governed."), ".*")
    yield build.ConstantVariable("runbooks").label("Runbooks").description("Where the runbooks are.").value(runbooks)
    yield from board.variables


def _labels(name: str, label: str, among: str, description: str) -> build.QueryVariable:
    query: dict[str, object] = {
        "query": f"label_values({among}, {name})",
        "refId": "PrometheusVariableQueryEditor-VariableQuery",
    }
    return (
        _reloaded(build.QueryVariable(name).label(label).description(description))
        .datasource(PROMETHEUS)
        .query(query)
        .definition(f"label_values({among}, {name})")
        .multi(True)  # noqa: FBT003 - as above
    )


def _reloaded(variable: build.QueryVariable) -> build.QueryVariable:
    """A variable that knows the values of the time range that is looked at, not only those of now."""
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.NATURAL_ASC)


@dataclass(slots=True)
class _EventQuery(Dataquery):
    """The annotation query of the InfluxQL data source."""

    query: str

    def to_json(self) -> dict[str, object]:
        return {
            **InfluxQuery(self.query, "table", ref_id="Anno").to_json(),
            "fromAnnotations": True,
            "queryType": "tags",
            "textColumn": "text",
            "tagsColumn": "kind,state",
            **_GRAFANA_TARGET,
        }


def _annotations() -> Iterator[build.AnnotationQuery]:
    for name, kinds, colour in (
        ("Transitions", TRANSITIONS, BLUE),
        ("Isolations", ISOLATIONS, ORANGE),
        ("Trials", TRIALS, PURPLE),
    ):
        condition = f"{PLANT} AND {kind_is(*kinds)}"
        query = f'SELECT "text", "kind"::tag, "state"::tag FROM "iace_event" WHERE {condition}'  # noqa: S608 - not SQL, and no input
        yield (
            build.AnnotationQuery()
            .name(name)
            .datasource(INFLUXDB)
            .enable(True)  # noqa: FBT003 - as above
            .icon_color(colour)
            .target(_Built(_EventQuery(query)))
        )


@dataclass(slots=True)
class _Built(Builder[Dataquery]):
    """Something finished, where the library wants a builder."""

    what: Dataquery

    def build(self) -> Dataquery:
        return self.what


def _all_boards() -> build.DashboardLink:
    return (
        build.DashboardLink("IACE")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)  # noqa: FBT003 - as above
        .include_vars(True)  # noqa: FBT003 - as above
        .keep_time(True)  # noqa: FBT003 - as above
    )


def _placed(rows: Sequence[Row]) -> Iterator[model.Panel]:
    number, y = 0, 0
    for row in rows:
        x = 0
        for width, panel in row.panels:
            number += 1
            panel.id_val = number
            panel.grid_pos = model.GridPos(h=row.height, w=width, x=x, y=y)
            yield panel
            x += width
        if x != GRID_COLUMNS:
            raise ValueError(f"a row is {x} wide, not {GRID_COLUMNS}: {[panel.title for _, panel in row.panels]}")
        y += row.height
