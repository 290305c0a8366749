"""A KPI's history out of a run's telemetry store, and the forms in which people and programs want it.

Times are plant seconds, or seconds since 1970 where the store is InfluxDB. A history is raw samples, or one aggregate a
step; the store chooses what it reads them from.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controller.summary import sparkline
from metrics.errors import BadDataError
from metrics.store.protocol import Aggregate, Sample, Store
from metrics.store_writer import NS_PER_S

if TYPE_CHECKING:
    from metrics.store.influx_history import InfluxHistory

PLANT_TIME, UNIX_TIME = "plant_time_s", "unix_time_s"
PREFIXES = ("", "kpi.", "parameter.", "node.")
SPARKLINE_CHARACTERS = 60
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True, slots=True)
class History:
    """Samples of one series, oldest first.

    Attributes:
        series, samples: its name and its samples.
        axis: what its times are, "plant_time_s" or "unix_time_s".
    """

    series: str
    samples: Sequence[Sample]
    axis: str = PLANT_TIME

    @property
    def values(self) -> list[float]:
        """The values alone."""
        return [sample.value for sample in self.samples]


def duration_s(text: str) -> float:
    """Seconds in "90s", "15m", "24h", "1h30m" and the like.

    Raises:
        ValueError: it is no such thing, or zero.
    """
    parts = _DURATION.findall(text)
    if "".join(f"{number}{unit}" for number, unit in parts) != text or not parts:
        raise ValueError(f"{text!r} is no duration: write it like 90s, 15m, 24h or 1h30m")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time at all")
    return seconds


def read(
    store: Store | InfluxHistory,
    metric: str,
    *,
    last_s: float | None,
    step_s: float | None,
    how: Aggregate,
    axis: str = PLANT_TIME,
) -> History:
    """The history of a metric, by its series' name or its last part ("coherence" for "kpi.coherence").

    Args:
        store: where it is.
        metric: what is asked for.
        last_s: only so many seconds before the newest sample; None for all.
        step_s: one aggregate for each so many seconds; None for raw samples.
        how: which aggregate.
        axis: what the times in the store are.

    Raises:
        BadDataError: there is no such series; the message names those that are like it.
    """
    series = _series(store, metric)
    newest = store.latest(series)
    if newest is None:
        return History(series, (), axis)
    start_ns = 0 if last_s is None else newest.at_ns - round(last_s * NS_PER_S) + 1
    end_ns = newest.at_ns + 1
    if step_s is None:
        return History(series, store.range(series, start_ns, end_ns), axis)
    step_ns = max(1, round(step_s * NS_PER_S))
    return History(series, store.aggregate(series, start_ns, end_ns, step_ns, how), axis)


def _series(store: Store | InfluxHistory, metric: str) -> str:
    known = store.series()
    for prefix in PREFIXES:
        if prefix + metric in known:
            return prefix + metric
    alike = [name for name in known if metric.lower() in name.lower()] or [n for n in known if n.startswith("kpi.")]
    shown = ", ".join(alike[:12]) + (", ..." if len(alike) > 12 else "")  # noqa: PLR2004 - as many as fit a line or two
    raise BadDataError(f"there is no history of {metric!r} here; there is of {shown or 'nothing'}")


def as_table(history: History) -> str:
    """Aligned columns: time and value."""
    rows = [f"{sample.at_ns / NS_PER_S:12.1f}  {sample.value:.6g}" for sample in history.samples]
    return "\n".join([f"{history.axis.replace('_', ' '):>12}  {history.series}", *rows]) + "\n"


def as_sparkline(history: History) -> str:
    """The course in one line, with first, last, lowest and highest."""
    values = history.values
    if not values:
        return f"{history.series}: nothing\n"
    course = sparkline(values, SPARKLINE_CHARACTERS)
    span = f"first {values[0]:.4g}  last {values[-1]:.4g}  lowest {min(values):.4g}  highest {max(values):.4g}"
    return f"{history.series}  {course}\n{span}  over {len(values)} samples\n"


def as_csv(history: History) -> str:
    """RFC 4180 with a header; times in seconds, values in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([history.axis, history.series])
    writer.writerows([repr(sample.at_ns / NS_PER_S), repr(sample.value)] for sample in history.samples)
    return text.getvalue()


def as_json(history: History) -> str:
    """One JSON object."""
    data = [{history.axis: sample.at_ns / NS_PER_S, "value": sample.value} for sample in history.samples]
    return json.dumps({"metric": history.series, "data": data}, allow_nan=False) + "\n"


def as_png(history: History, path: Path) -> None:
    """A picture of the course.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - half a second that only pictures are worth

    mpl.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(10, 3), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([sample.at_ns / NS_PER_S for sample in history.samples], history.values, linewidth=1.2)
    axes.set_xlabel(history.axis.removesuffix("_s").replace("_", " ") + ", s")
    axes.set_title(history.series, loc="left")
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Software": None})
