"""Where does a figure stand in InfluxDB, and how does it get there as a line?

One point is one line with one value, so that the accounts count what the server counts; InfluxDB itself joins the
values of one measurement, tag set and time into one row.

| series                | measurement       | tags                        | field       |
|---|---|---|---|
| `kpi.<name>`          | `iace_kpi`        | `plant`, `run`              | `<name>`    |
| `parameter.<name>`    | `iace_parameter`  | `plant`, `run`              | `<name>`    |
| `node.<id>.<signal>`  | `iace_node`       | `plant`, `cluster`, `node`  | `<signal>`  |
| any other             | `iace_series`     | `plant`, `run`, `series`    | `value`     |

Every figure is a float. Beside the figures there are events (`iace_event`: tags `plant`, `kind`, `state`; fields
`text`, `seq`), and whole nodes, one line each (`iace_node` with all signals and the text field `status`).

For use by one thread. Left out: sending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import NamedTuple

from metrics.store.line_protocol import TIME_MAX_NS, TIME_MIN_NS, Encoder, field_key, series_key, text_value
from metrics.store.protocol import Point
from metrics.telemetry import Frame

KPI, NODE, PARAMETER, EVENT, OTHER = "iace_kpi", "iace_node", "iace_parameter", "iace_event", "iace_series"

_SERIES_REMEMBERED = 1_000_000
_BY_PREFIX = {"kpi": KPI, "parameter": PARAMETER}
_PREFIXES = {measurement: prefix for prefix, measurement in _BY_PREFIX.items()}
_NO_FIELD = {"", "time"}


class Place(NamedTuple):
    """Where a series stands, the tags that all of a plant's or run's series share left out."""

    measurement: str
    tag: tuple[str, str] | None
    field: str


class Lines(NamedTuple):
    """Points on their way out, and how many had no form."""

    lines: list[str]
    rejected: int


def place(series: str) -> Place:
    """Where the series `series` stands."""
    prefix, _, rest = series.partition(".")
    if prefix in _BY_PREFIX and rest not in _NO_FIELD:
        return Place(_BY_PREFIX[prefix], None, rest)
    node, _, signal = rest.rpartition(".")
    if prefix == "node" and node and signal not in _NO_FIELD:
        return Place(NODE, ("node", node), signal)
    return Place(OTHER, ("series", series), "value")


def series_name(measurement: str, tag: str, field: str) -> str:
    """The series that stands there: what `place` was given; `tag` is the value of its tag, "" where it has none."""
    if measurement in _PREFIXES:
        return f"{_PREFIXES[measurement]}.{field}"
    return f"node.{tag}.{field}" if measurement == NODE else tag


class LineWriter:
    """Turns what the telemetry tells into lines.

    Args:
        plant: tag of everything.
        run: tag of everything that concerns the whole plant.
        cluster_of: the cluster of a node, "" where it is not known; asked once for each series of a node.
    """

    def __init__(self, plant: str, run: str, cluster_of: Callable[[str], str]) -> None:
        self._plant = plant
        self._run = run
        self._cluster_of = cluster_of
        self._encoder = Encoder()
        self._prefixes: dict[str, str] = {}
        self._nodes: dict[str, tuple[str, str]] = {}

    def points(self, points: Iterable[Point]) -> Lines:
        """A line for each point; those that are not finite, or beyond InfluxDB's time, are counted as rejected."""
        lines, rejected = [], 0
        prefixes = self._prefixes
        for series, at_ns, value in points:
            prefix = prefixes.get(series) or self._learn(series)
            if isfinite(value) and TIME_MIN_NS <= at_ns <= TIME_MAX_NS:
                lines.append(f"{prefix}{float(value)!r} {at_ns}")
            else:
                rejected += 1
        return Lines(lines, rejected)

    def frame(self, frame: Frame, at_ns: int) -> Lines:
        """A line for each figure of one tick; `at_ns` is its time, nanoseconds UTC."""
        return self.points(Point(series, at_ns, value) for series, value in frame.points.items())

    def nodes(
        self, signals: Mapping[str, Iterable[float]], nodes: Iterable[str], status: Iterable[str], at_ns: int
    ) -> Lines:
        """A line for each node with all its signals and its status.

        Args:
            signals: for each signal ("gravity", ...) its values, in the order of `nodes`; may be NaN.
            nodes: ids.
            status: of each node.
            at_ns: nanoseconds UTC.

        Raises:
            ValueError: the lengths differ.
        """
        columns = [_column(field_key(name), values) for name, values in signals.items()]
        lines = []
        for node, state, *figures in zip(nodes, status, *columns, strict=True):
            lines.append(f"{self._node(node)}{''.join(figures)}status={text_value(state)} {at_ns}")
        in_time = TIME_MIN_NS <= at_ns <= TIME_MAX_NS
        return Lines(lines, 0) if in_time else Lines([], len(lines))

    def event(self, *, kind: str, state: str, text: str, seq: int, at_ns: int) -> Lines:
        """The line of one event; `seq` is its number in the journal."""
        tags = {"plant": self._plant, "kind": kind, "state": state}
        line = self._encoder.line(EVENT, tags, {"text": text, "seq": seq}, at_ns)
        return Lines([line], 0) if line is not None else Lines([], 1)

    def _node(self, node: str) -> str:
        """What the line of a whole node begins with."""
        cluster = self._cluster_of(node)
        known = self._nodes.get(node)
        if known is None or known[0] != cluster:
            if len(self._nodes) >= _SERIES_REMEMBERED:
                self._nodes.clear()
            tags = {"plant": self._plant, "cluster": cluster, "node": node}
            known = self._nodes[node] = (cluster, f"{series_key(NODE, tags)} ")
        return known[1]

    def _learn(self, series: str) -> str:
        """What the lines of `series` begin with."""
        where = place(series)
        tags = dict(self._tags(where))
        prefix = f"{series_key(where.measurement, tags)} {field_key(where.field)}="
        if len(self._prefixes) >= _SERIES_REMEMBERED:
            self._prefixes.clear()
        self._prefixes[series] = prefix
        return prefix

    def _tags(self, where: Place) -> Iterator[tuple[str, str]]:
        yield "plant", self._plant
        if where.tag is not None:
            yield where.tag
        if where.measurement == NODE and where.tag is not None:
            yield "cluster", self._cluster_of(where.tag[1])
        else:
            yield "run", self._run


def _column(key: str, values: Iterable[float]) -> list[str]:
    """One field of many lines, each with the comma behind it; "" where there is no figure."""
    return [f"{key}={value!r}," if isfinite(value) else "" for value in map(float, values)]
