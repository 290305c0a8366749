"""What do the series in InfluxDB say? Read in InfluxQL, the one language that 1.x, 2.x and 3.x share.

Reads are of one plant and across its runs. 2.x answers InfluxQL where the bucket has a DBRP mapping; 3.x cannot delete.
VictoriaMetrics has no InfluxQL. Left out: writing, and what caches such reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metrics.store.influx_client import InfluxClient
from metrics.store.influx_lines import KPI, NODE, OTHER, PARAMETER, place, series_name
from metrics.store.line_protocol import TIME_MAX_NS, TIME_MIN_NS, decode_name, encode_name
from metrics.store.protocol import Aggregate, Sample

_TAGS = {KPI: "", PARAMETER: "", NODE: "node", OTHER: "series"}  # what tells the series of a measurement apart


class InfluxHistory:
    """Reads what `client`'s bucket holds of `plant`; the methods are those of a `Store` that read, and `retain`.

    Every method raises `StoreFailedError` where the server does not answer, or answers with an error.
    """

    def __init__(self, client: InfluxClient, plant: str) -> None:
        self._client = client
        self._plant = plant

    def range(self, series: str, start_ns: int, end_ns: int) -> list[Sample]:
        """The samples of a series in time order; empty for an unknown series."""
        return self._samples(series, "{field}", start_ns, end_ns)

    def aggregate(self, series: str, start_ns: int, end_ns: int, step_ns: int, how: Aggregate) -> list[Sample]:
        """One sample for each step that has any, at the step's start; steps are counted from `start_ns`.

        Raises:
            ValueError: `step_ns` is not positive.
        """
        if step_ns <= 0:
            raise ValueError(f"step_ns must be positive, not {step_ns}")
        # InfluxQL calls the aggregates as we do.
        steps = f" GROUP BY time({step_ns}ns, {start_ns % step_ns}ns) fill(none)"
        return self._samples(series, f"{how.value}({{field}})", start_ns, end_ns, steps)

    def latest(self, series: str) -> Sample | None:
        """The newest sample, None for an unknown series."""
        newest = self._samples(series, "{field}", TIME_MIN_NS, TIME_MAX_NS + 1, " ORDER BY time DESC LIMIT 1")
        return newest[0] if newest else None

    def series(self) -> tuple[str, ...]:
        """The names of all series that have samples, sorted."""
        return tuple(sorted(name for measurement in _TAGS for name in self._names(measurement)))

    def plants(self) -> tuple[str, ...]:
        """The names of all plants that the bucket holds anything of, sorted."""
        rows = self._rows('SHOW TAG VALUES WITH KEY = "plant"')
        return tuple(sorted({decode_name(value) for _, value in rows}))

    def retain(self, before_ns: int) -> int:
        """Forget every sample older than `before_ns`; how many went."""
        condition = self._where({}, TIME_MIN_NS, before_ns)
        if not condition:
            return 0
        forgotten = 0
        for measurement in _TAGS:
            older = f"FROM {_identifier(measurement)} WHERE {condition}"
            counted = sum(sum(row[1:]) for row in self._rows(f"SELECT count(*) {older}"))
            if counted:
                self._client.query(f"DELETE {older}", changes=True)
            forgotten += counted
        return forgotten

    def check(self) -> None:
        """Raise unless the bucket can be read."""
        self._client.query("SHOW MEASUREMENTS LIMIT 1")

    def _samples(self, series: str, what: str, start_ns: int, end_ns: int, end: str = "") -> list[Sample]:
        where = place(series)
        tags = dict([where.tag]) if where.tag is not None else {}
        condition = self._where(tags, start_ns, end_ns)
        if not condition:
            return []
        source = f"{_identifier(where.measurement)} WHERE {condition}{end}"
        rows = self._rows(f"SELECT {what.format(field=_identifier(where.field))} FROM {source}")  # noqa: S608 - escaped
        return [Sample(at_ns, float(value)) for at_ns, value in rows if value is not None]

    def _names(self, measurement: str) -> Iterator[str]:
        tag = _TAGS[measurement]
        grouped = f" GROUP BY {_identifier(tag)}" if tag else ""
        source = f'{_identifier(measurement)} WHERE "plant" = {_literal(self._plant)}{grouped}'
        for part in self._client.query(f"SELECT last(*) FROM {source}"):  # noqa: S608 - escaped
            value = decode_name(part.get("tags", {}).get(tag, ""))
            for column, newest in zip(part["columns"][1:], part["values"][0][1:], strict=True):
                if isinstance(newest, int | float):  # texts are no samples
                    yield series_name(measurement, value, decode_name(column.removeprefix("last_")))

    def _rows(self, statement: str) -> list[Any]:
        return [row for part in self._client.query(statement) for row in part["values"]]

    def _where(self, tags: Mapping[str, str], start_ns: int, end_ns: int) -> str:
        """The condition for those tags and times; "" where no time can meet it."""
        first, last = max(start_ns, TIME_MIN_NS), min(end_ns - 1, TIME_MAX_NS)
        if first > last:
            return ""
        wanted = {"plant": self._plant, **tags}
        conditions = [f"{_identifier(name)} = {_literal(value)}" for name, value in wanted.items()]
        return " AND ".join([*conditions, f"time >= {first}", f"time <= {last}"])


def _identifier(name: str) -> str:
    return '"' + encode_name(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(text: str) -> str:
    return "'" + encode_name(text).replace("\\", "\\\\").replace("'", "\\'") + "'"
