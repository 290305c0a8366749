"""What do the telemetry routes tell? The shapes that existing QECS dashboards read, out of frames and the store.

Names that those dashboards know and that differ from ours are translated here and nowhere else. What is not known is
null, never an invented number. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from controller.api.errors import ApiError
from controller.clock import utc_ns
from controller.port import Port
from metrics.kpi import Kpi, KpiStatus
from metrics.store.protocol import Aggregate, Sample, Store
from metrics.store_writer import NS_PER_S
from metrics.telemetry import Frame

SAMPLES_MAX = 10_000  # more than any screen has columns; about 600 kB of JSON
DAY_S = 86_400.0
_NAMES = {"emission": "caf_emission", "gravity_wells": "gravity_well_count"}  # ours to theirs
_OURS = {theirs: ours for ours, theirs in _NAMES.items()}
_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_ANNOUNCED = ("coherence", "gas", "rsi", "lambda_opt", "delta_lambda", "emission", "gravity_wells", "stable_clusters")
_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a history that is asked for, as Unix times; None where it is not bounded."""

    start_s: float | None
    end_s: float | None
    hours: float | None
    step_s: float | None
    how: Aggregate


def timestamp(unix_s: float) -> str:
    """A Unix time as people and dashboards read it."""
    return (_ORIGIN + timedelta(seconds=unix_s)).isoformat(timespec="milliseconds")


def unix_s(text: str) -> float:
    """Unix time of an ISO 8601 text or of a number of seconds.

    Raises:
        ValueError: it is neither.
    """
    try:
        return float(text) if _NUMBER.fullmatch(text) else utc_ns(text) / NS_PER_S
    except (ValueError, OverflowError):
        raise ValueError("write a time as Unix seconds or like 2026-01-31T12:00:00Z") from None


def current(frame: Frame, catalogue: Mapping[str, Kpi], base_time_s: float) -> dict[str, object]:
    """One tick: the fields that dashboards read, then all others."""
    kpis = {name: _known(frame.points.get(f"kpi.{name}")) for name in catalogue}
    told: dict[str, object] = {
        "timestamp": timestamp(base_time_s + frame.plant_time_s),
        "phase": frame.state,
    }
    told |= {_NAMES.get(name, name): kpis[name] for name in (*_ANNOUNCED, *kpis) if name in kpis}
    parameters = {name: value for name, value in frame.points.items() if name.startswith("parameter.")}
    return {
        **told,
        "system_health": health(frame, catalogue),
        "tick": frame.tick,
        "plant_time_s": frame.plant_time_s,
        "parameters": {name.removeprefix("parameter."): _known(value) for name, value in parameters.items()},
    }


def health(frame: Frame, catalogue: Mapping[str, Kpi]) -> str:
    """STABLE, WARNING or CRITICAL, by the limits in force; a KPI that is not known is no evidence of stability."""
    found = {
        kpi.limit.status(frame.points.get(f"kpi.{name}", math.nan))
        for name, kpi in catalogue.items()
        if kpi.limit is not None
    }
    if KpiStatus.CRITICAL in found:
        return "CRITICAL"
    return "STABLE" if found == {KpiStatus.HEALTHY} else "WARNING"


def event_data(frame: Frame, catalogue: Mapping[str, Kpi], base_time_s: float) -> str:
    """What an event of the stream carries: `current` as JSON on one line."""
    return json.dumps(current(frame, catalogue, base_time_s), separators=(",", ":"), allow_nan=False)


def metrics(catalogue: Mapping[str, Kpi], last: Frame | None) -> list[str]:
    """The names that `history` knows: KPIs and parameters; series of nodes are named `node.<id>.gravity`."""
    points = () if last is None else last.points
    return [_NAMES.get(name, name) for name in catalogue] + [name for name in points if name.startswith("parameter.")]


def described(catalogue: Mapping[str, Kpi]) -> list[dict[str, object]]:
    """Each KPI with unit, meaning, window and limits."""
    return [
        {
            "name": _NAMES.get(name, name),
            "unit": kpi.unit,
            "help": kpi.help,
            "window_ticks": kpi.window_ticks,
            "limits": None
            if kpi.limit is None
            else {"side": kpi.limit.side.value, "healthy": kpi.limit.healthy, "critical": kpi.limit.critical},
        }
        for name, kpi in catalogue.items()
    ]


def history(port: Port, metric: str, window: Window) -> dict[str, object]:
    """The history of a metric.

    At most `SAMPLES_MAX` samples come: where there are more, and where the steps that are asked for would be too many,
    the steps are as long as that takes. The answer says how long they are.

    Raises:
        ApiError: 404 for a metric that is not known.
        StoreFailedError, NotPermittedError: the store failed.
    """
    base_s = port.base_time_s()
    with closing(port.history()) as store:
        series = _series(port, store, metric)
        if series is None:
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                f"there is no metric {metric[:80]!r}; /api/telemetry/metrics lists those there are",
            )
        newest = store.latest(series)
        if newest is None:
            return _told(metric, [], base_s, None, window.how)
        start_ns, end_ns = _bounds(window, base_s, newest.at_ns)
        step_ns = _step_ns(store, series, start_ns, end_ns, window.step_s)
        if step_ns is None:
            samples = store.range(series, start_ns, end_ns)
        else:
            samples = store.aggregate(series, start_ns, end_ns, step_ns, window.how)
    return _told(metric, samples, base_s, step_ns, window.how)


def count(port: Port) -> int:
    """How many ticks the store holds: the samples of its first KPI."""
    with closing(port.history()) as store:
        series = f"kpi.{next(iter(port.catalogue))}"
        newest = store.latest(series)
        if newest is None:
            return 0
        span_ns = max(1, newest.at_ns + 1)
        return round(sum(sample.value for sample in store.aggregate(series, 0, span_ns, span_ns, Aggregate.COUNT)))


def _series(port: Port, store: Store, metric: str) -> str | None:
    """The series behind a name: a KPI's by its own name, a dashboard's or an older client's, else the series' own."""
    name = _OURS.get(metric, metric)
    aliases = {alias: kpi.name for kpi in port.catalogue.values() for alias in kpi.aliases}
    name = aliases.get(name, name)
    if name in port.catalogue:
        return f"kpi.{name}"
    last = port.telemetry.last
    known = last is not None and name in last.points
    return name if known or store.latest(name) is not None else None


def _bounds(window: Window, base_s: float, newest_ns: int) -> tuple[int, int]:
    """The window in the store's nanoseconds, [start, end), clipped to where there can be samples."""
    end_ns = newest_ns + 1
    if window.end_s is not None:
        end_ns = min(end_ns, round((window.end_s - base_s) * NS_PER_S))
    if window.start_s is not None:
        start_ns = round((window.start_s - base_s) * NS_PER_S)
    else:
        start_ns = end_ns - round((window.hours or DAY_S / 3600) * 3600 * NS_PER_S)
    end_ns = max(0, end_ns)
    return min(max(0, start_ns), end_ns), end_ns


def _step_ns(store: Store, series: str, start_ns: int, end_ns: int, step_s: float | None) -> int | None:
    """How long the steps are, None for every sample as it is."""
    span_ns = end_ns - start_ns
    shortest_ns = -(-span_ns // SAMPLES_MAX)
    if shortest_ns > NS_PER_S:
        shortest_ns = -(-shortest_ns // NS_PER_S) * NS_PER_S  # whole seconds read better
    if step_s is not None:
        return max(1, shortest_ns, round(step_s * NS_PER_S))
    if span_ns == 0:
        return None
    counted = sum(sample.value for sample in store.aggregate(series, start_ns, end_ns, span_ns, Aggregate.COUNT))
    return None if counted <= SAMPLES_MAX else shortest_ns


def _told(metric: str, samples: list[Sample], base_s: float, step_ns: int | None, how: Aggregate) -> dict[str, object]:
    return {
        "metric": metric,
        "data": [
            {"timestamp": timestamp(base_s + sample.at_ns / NS_PER_S), "value": _known(sample.value)}
            for sample in samples
        ],
        "step_s": None if step_ns is None else step_ns / NS_PER_S,
        "aggregate": None if step_ns is None else how.value,
    }


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
