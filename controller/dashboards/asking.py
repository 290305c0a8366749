"""What do a dashboard's queries answer? Asks a real Prometheus and InfluxDB, as Grafana would.

Series are named by their legends, tables have the columns that Grafana gives them. For checking and for drawing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

from controller.dashboards.reading import PanelFile, Target, TimeRange, filled

TIMEOUT_S = 30.0
Value: TypeAlias = float | str | None
_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_TAG = re.compile(r"\$tag_(\w+)")
_MS_PER_S = 1000.0


class QueryFailedError(Exception):
    """A server refused a query, or did not answer it."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time.

    Attributes:
        ref: letter of the query.
        name: by its legend.
        times_s: Unix times.
        values: numbers or texts; None where there is none.
    """

    ref: str
    name: str
    times_s: tuple[float, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a panel's queries brought: `series` over time and `rows`, each with the letter of its query."""

    series: tuple[Series, ...]
    rows: tuple[tuple[str, Mapping[str, Value]], ...]

    def empty(self, ref: str) -> bool:
        """Whether the query `ref` brought nothing at all."""
        known = any(value is not None for series in self.series if series.ref == ref for value in series.values)
        return not known and not any(row_ref == ref for row_ref, _ in self.rows)


@dataclass(frozen=True, slots=True)
class Servers:
    """Where to ask.

    Attributes:
        prometheus: its address.
        influxdb: its address.
        database: where the telemetry is.
        values: of the dashboards' variables, as Grafana would fill them in.
    """

    prometheus: str
    influxdb: str
    database: str
    values: Mapping[str, str]

    def ask(self, panel: PanelFile, when: TimeRange) -> Answer:
        """Ask everything that a panel asks.

        Raises:
            QueryFailedError: a server did not answer, or refused.
            KeyError: a variable without a value.
        """
        series: list[Series] = []
        rows: list[tuple[str, Mapping[str, Value]]] = []
        several = len(panel.targets) > 1
        for target in panel.targets:
            if target.table:
                rows += [
                    (target.ref, row)
                    for row in self.rows(target, when, value=f"Value #{target.ref}" if several else "Value")
                ]
            else:
                series += self.series(target, when)
        return Answer(tuple(series), tuple(rows))

    def series(self, target: Target, when: TimeRange) -> Iterator[Series]:
        """The series of one query."""
        query = filled(target.query, {**when.builtins(), **self.values})
        if target.source == "prometheus":
            arguments = {"query": query, "start": when.start_s, "end": when.end_s, "step": when.step_s}
            for found in self._prometheus("/api/v1/query_range", arguments):
                times, values = zip(*found["values"], strict=True)
                name = _named(_LABEL, target.legend, found["metric"])
                yield Series(target.ref, name, tuple(map(float, times)), tuple(_number(value) for value in values))
            return
        for found in self._influxdb(query):
            times, values = zip(*found["values"], strict=True)
            name = _named(_TAG, target.legend, found.get("tags", {}))
            yield Series(target.ref, name, tuple(time / _MS_PER_S for time in times), tuple(values))

    def rows(self, target: Target, when: TimeRange, value: str = "Value") -> Iterator[Mapping[str, Value]]:
        """The rows of one query; `value` names the column of a metric's value."""
        query = filled(target.query, {**when.builtins(), **self.values})
        if target.source == "prometheus":
            for found in self._prometheus("/api/v1/query", {"query": query, "time": when.end_s}):
                yield {**found["metric"], value: _number(found["value"][1])}
            return
        for found in self._influxdb(query):
            columns = ["Time" if column == "time" else column for column in found["columns"]]
            for row in found["values"]:
                yield dict(zip(columns, [row[0] / _MS_PER_S, *row[1:]], strict=True))

    def _prometheus(self, path: str, arguments: Mapping[str, object]) -> list[dict[str, Any]]:
        answer = _get(self.prometheus, path, arguments)
        if answer.get("status") != "success":
            raise QueryFailedError(f"{arguments['query']}: {answer.get('error')}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def _influxdb(self, query: str) -> list[dict[str, Any]]:
        document = _get(self.influxdb, "/query", {"q": query, "db": self.database, "epoch": "ms"})
        (answer,) = document.get("results", [document])
        if "error" in answer:
            raise QueryFailedError(f"{query}: {answer['error']}")
        series: list[dict[str, Any]] = answer.get("series", [])
        return series


def _get(address: str, path: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"{parts.path}{path}?{urlencode(arguments)}")
        body = connection.getresponse().read()
        document: dict[str, Any] = json.loads(body)
    except (OSError, ValueError) as error:
        raise QueryFailedError(f"{address}{path} did not answer: {error}") from error
    finally:
        connection.close()
    return document


def _named(pattern: re.Pattern[str], legend: str, labels: Mapping[str, str]) -> str:
    return pattern.sub(lambda match: labels.get(match[1], ""), legend)


def _number(text: str) -> Value:
    number = float(text)
    return None if math.isnan(number) else number
