"""What does a panel ask for? PromQL and InfluxQL targets with the dashboards' variables in them.

Every PromQL selector carries `job` and `instance`, so that a dashboard shows the controllers that were chosen and not
what a pipeline pushed, and `plant`, which a scrape configuration may add: without that label any choice matches.
Every InfluxQL query is bound to the time range and to the plant.
"""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${prometheus_datasource}")
INFLUXDB = DataSourceRef(type_val="influxdb", uid="${influxdb_datasource}")

CONTROLLER = 'job=~"$job",instance=~"$instance",plant=~"$plant|"'
RUNS = 'job=~"$job",plant=~"$plant"'
PLANT = '$timeFilter AND "plant" =~ /^$plant$/'


def of(metric: str, labels: str = "", *, among: str = CONTROLLER) -> str:
    """A selector of `metric` with the dashboard's variables, and with `labels` as further matchers."""
    return f"{metric}{{{among},{labels}}}" if labels else f"{metric}{{{among}}}"


def total(expr: str) -> str:
    """The sum over whatever labels."""
    return f"sum({expr})"


def rate(metric: str, labels: str = "") -> str:
    """The rate of a counter over Grafana's own interval."""
    return f"rate({of(metric, labels)}[$__rate_interval])"


def increase(metric: str, labels: str = "", *, window: str = "$__rate_interval") -> str:
    """The increase of a counter over `window`."""
    return f"increase({of(metric, labels)}[{window}])"


def prom(expr: str, legend: str = "") -> Dataquery:
    """A PromQL query over the time range; `legend` names each series."""
    return prometheus.Dataquery().datasource(PROMETHEUS).expr(expr).legend_format(legend or "__auto").range().build()


def prom_now(expr: str, legend: str = "") -> Dataquery:
    """A PromQL query at the end of the time range, as a table."""
    query = prometheus.Dataquery().datasource(PROMETHEUS).expr(expr).legend_format(legend or "__auto")
    return query.instant().format(PromQueryFormat.TABLE).build()


@dataclass(slots=True)
class InfluxQuery(Dataquery):
    """An InfluxQL query, for which the dashboard library has no builder.

    Attributes:
        query: the statement.
        result_format: "time_series" or "table".
        alias: names each series; `$tag_x` is the tag x.
        ref_id: given by the panel.
    """

    query: str
    result_format: str = "time_series"
    alias: str = ""
    ref_id: str = ""

    def to_json(self) -> dict[str, object]:
        """The target as Grafana stores it."""
        return {
            "refId": self.ref_id,
            "datasource": INFLUXDB.to_json(),
            "rawQuery": True,
            "query": self.query,
            "resultFormat": self.result_format,
            **({"alias": self.alias} if self.alias else {}),
        }


def influx(
    select: str, measurement: str, *, where: str = "", by: str = "", fill: str = "null", alias: str = ""
) -> Dataquery:
    """An InfluxQL query over the time range, one value an interval: `by` are further tags to group by."""
    condition = f"{PLANT} AND {where}" if where else PLANT
    groups = f"time($__interval), {by}" if by else "time($__interval)"
    query = f'SELECT {select} FROM "{measurement}" WHERE {condition} GROUP BY {groups} fill({fill})'  # noqa: S608 - not SQL, and no input
    return InfluxQuery(query, alias=alias)


def events(where: str = "", *, rows_max: int = 200) -> Dataquery:
    """The newest events of the journal as a table: time, state, kind and text."""
    condition = f"{PLANT} AND {where}" if where else PLANT
    select = 'SELECT "state"::tag, "kind"::tag, "text" FROM "iace_event"'
    return InfluxQuery(f"{select} WHERE {condition} ORDER BY time DESC LIMIT {rows_max}", "table")


def kind_is(*kinds: str) -> str:
    """The condition that an event is of one of `kinds`."""
    return f'"kind" =~ /^({"|".join(kinds)})$/'
