"""A snapshot as metric families, and as the bytes of a scrape.

`prometheus_client` renders everything but the nodes' series, of which there are hundreds: their lines are written here,
in the same form, at ten times the speed. Both ways give the same samples, which a test compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import exposition as text_format
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from metrics.export_catalogue import EXPORTED, ExportedMetric, MetricType
from metrics.export_snapshot import Durations, ExportSnapshot

TEXT_TYPE = text_format.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS_TYPE = openmetrics.CONTENT_TYPE_LATEST

_END = b"# EOF\n"  # of OpenMetrics
_NODE_METRICS = tuple(metric for metric in EXPORTED if metric.nodes is not None)
_OTHER_METRICS = tuple(metric for metric in EXPORTED if metric.nodes is None)


def families(snapshot: ExportSnapshot) -> Iterator[Metric]:
    """Every metric of the catalogue with its samples."""
    yield from _without_nodes(snapshot)
    for metric in _NODE_METRICS:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        if metric.nodes is not None:
            for sample in snapshot.node_samples:
                value = metric.nodes(sample)
                if not math.isnan(value):
                    family.add_metric((_encodable(sample.node), _encodable(sample.cluster)), value)
        yield family


def render(snapshot: ExportSnapshot, *, openmetrics_text: bool = False) -> bytes:
    """The whole scrape, in Prometheus' text format or as OpenMetrics."""
    few = _Fixed(snapshot)
    if openmetrics_text:
        return openmetrics.generate_latest(few).removesuffix(_END) + _node_lines(snapshot) + _END  # type: ignore[no-untyped-call,no-any-return]  # the library's own lack of types
    return text_format.generate_latest(few) + _node_lines(snapshot)


class _Fixed(Collector):
    """What the library renders."""

    def __init__(self, snapshot: ExportSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return _without_nodes(self._snapshot)


def _without_nodes(snapshot: ExportSnapshot) -> Iterator[Metric]:
    for metric in _OTHER_METRICS:
        yield _family(metric, snapshot)


def _family(metric: ExportedMetric, snapshot: ExportSnapshot) -> Metric:
    if metric.durations is not None:
        return _histogram(metric, metric.durations(snapshot))
    if metric.info is not None:
        info = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help)
        info.add_metric((), dict(metric.info(snapshot)))
        return info
    kind = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in metric.value(snapshot) if metric.value is not None else ():
        family.add_metric(labels, value)
    return family


def _histogram(metric: ExportedMetric, durations: Durations) -> Metric:
    bounds = [*(floatToGoString(bound) for bound in durations.bounds_s), "+Inf"]  # type: ignore[no-untyped-call]  # as above
    cumulated = accumulate(durations.counts)
    family = HistogramMetricFamily(metric.name, metric.help)
    family.add_metric((), list(zip(bounds, cumulated, strict=True)), durations.total_s)
    return family


def _node_lines(snapshot: ExportSnapshot) -> bytes:
    """The nodes' families: the text that the library would make of them, which is the same in both formats."""
    labels = [
        f'{{cluster="{_escaped(sample.cluster)}",node="{_escaped(sample.node)}"}}' for sample in snapshot.node_samples
    ]
    lines: list[str] = []
    for metric in _NODE_METRICS:
        lines += (f"# HELP {metric.name} {metric.help}\n", f"# TYPE {metric.name} {metric.type}\n")
        if metric.nodes is not None:
            values = map(metric.nodes, snapshot.node_samples)
            lines += [
                f"{metric.name}{label} {value!r}\n"
                for label, value in zip(labels, values, strict=True)
                if math.isfinite(value)
            ]
    return "".join(lines).encode(errors="replace")


def _escaped(name: str) -> str:
    if name.isalnum():
        return name
    return name.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _encodable(name: str) -> str:
    """`name` without what UTF-8 cannot carry: a plant's odd name must not cost the scrape."""
    return name if name.isascii() else name.encode(errors="replace").decode()
