"""A snapshot as metric families for `prometheus_client`, and as the bytes of a scrape.

The library's own rendering of a thousand samples would hold the interpreter, and with it the loop, several times as
long as what is written here from prepared names and labels. Both give the same bytes, which a test compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import exposition as text_format
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.utils import floatToGoString

from metrics.export_catalogue import EXPORTED, ExportedMetric, MetricType
from metrics.export_snapshot import ExportSnapshot

TEXT_TYPE = text_format.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS_TYPE = openmetrics.CONTENT_TYPE_LATEST


def families(snapshot: ExportSnapshot) -> Iterator[Metric]:
    """Every metric of the catalogue with its samples."""
    for metric in EXPORTED:
        yield _family(metric, snapshot)


def render(snapshot: ExportSnapshot, *, openmetrics_text: bool = False) -> bytes:
    """The whole scrape, in Prometheus' text format or as OpenMetrics."""
    headers = _OPENMETRICS_HEADERS if openmetrics_text else _TEXT_HEADERS
    node_labels = [
        f'{{cluster="{_escaped(sample.cluster)}",node="{_escaped(sample.node)}"}}' for sample in snapshot.node_samples
    ]
    parts: list[str] = []
    for metric, header in zip(EXPORTED, headers, strict=True):
        parts.append(header)
        if metric.nodes is not None:
            values = map(metric.nodes, snapshot.node_samples)
            parts += [
                f"{metric.name}{labels} {_number(value)}\n"
                for labels, value in zip(node_labels, values, strict=True)
                if not math.isnan(value)
            ]
        else:
            parts += [
                f"{name}{_labels(labels)} {_number(value)}\n" for name, labels, value in _samples(metric, snapshot)
            ]
    if openmetrics_text:
        parts.append("# EOF\n")
    return "".join(parts).encode(errors="replace")


def _samples(metric: ExportedMetric, snapshot: ExportSnapshot) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of every sample of a metric without nodes."""
    if metric.durations is not None:
        durations = metric.durations(snapshot)
        counts = list(accumulate(durations.counts))
        for bound, count in zip((*durations.bounds_s, math.inf), counts, strict=True):
            yield f"{metric.name}_bucket", {"le": _number(bound)}, count
        yield f"{metric.name}_count", {}, counts[-1]
        yield f"{metric.name}_sum", {}, durations.total_s
    elif metric.info is not None:
        yield metric.name, dict(metric.info(snapshot)), 1.0
    elif metric.value is not None:
        for values, value in metric.value(snapshot):
            yield metric.name, dict(zip(metric.labels, values, strict=True)), value


def _family(metric: ExportedMetric, snapshot: ExportSnapshot) -> Metric:
    family = Metric(_base(metric), metric.help, metric.type)
    if metric.nodes is not None:
        for sample in snapshot.node_samples:
            value = metric.nodes(sample)
            if not math.isnan(value):
                labels = {"cluster": _encodable(sample.cluster), "node": _encodable(sample.node)}
                family.add_sample(metric.name, labels, value)
    else:
        for name, labels, value in _samples(metric, snapshot):
            family.add_sample(name, labels, value)
    return family


def _base(metric: ExportedMetric) -> str:
    """The name of the family, which OpenMetrics tells apart from that of its samples."""
    return metric.name.removesuffix("_total").removesuffix("_info")


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(labels[name])}"' for name in sorted(labels)) + "}"


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # the library is not typed there
    return text


def _escaped(name: str) -> str:
    if name.isalnum():
        return name
    return name.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _encodable(name: str) -> str:
    """`name` without what UTF-8 cannot carry: a plant's odd name must not cost the scrape."""
    return name if name.isascii() else name.encode(errors="replace").decode()


def _header(metric: ExportedMetric, *, openmetrics_text: bool) -> str:
    name = _base(metric) if openmetrics_text else metric.name
    kind = "gauge" if metric.type is MetricType.INFO and not openmetrics_text else metric.type.value
    return f"# HELP {name} {metric.help}\n# TYPE {name} {kind}\n"


_TEXT_HEADERS = tuple(_header(metric, openmetrics_text=False) for metric in EXPORTED)
_OPENMETRICS_HEADERS = tuple(_header(metric, openmetrics_text=True) for metric in EXPORTED)
