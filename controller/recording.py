"""What was recorded of a plant, on one time axis, whichever file it came from.

A recording holds node metrics, plant-wide KPIs and parameters, each as an array over the same times. A cell that was
not recorded is NaN. What could not be understood is kept as well, with its line, so that nothing is lost silently.
A recording of our own has the metric `gravity`, |g| as it was at the time.

Left out: how files are read, see `recording_csv.py` and `recording_store.py`. A recording is held in memory whole:
8 bytes for each time, node and metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metrics.errors import BadDataError, NotPermittedError

Floats = NDArray[np.float64]

GRAVITY = "gravity"
CELLS_MAX = 200_000_000  # 1.6 GB
SQLITE_HEADER = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be used: its line in the file, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recorded plant.

    Attributes:
        source: where it came from, for people.
        times_s: float64[T], ascending.
        nodes, metrics: names, sorted; `gravity` is not among the metrics.
        values: float64[T, N, K].
        gravity: float64[T, N], recorded |g|; None where none was.
        kpis: KPI of the catalogue to float64[T].
        parameters: parameter to float64[T].
        rows: rows of the file that were used.
        bad: rows that were not.
        ignored: plant-wide series that mean nothing to a backtest.
    """

    source: str
    times_s: Floats
    nodes: tuple[str, ...]
    metrics: tuple[str, ...]
    values: Floats
    gravity: Floats | None
    kpis: Mapping[str, Floats]
    parameters: Mapping[str, Floats]
    rows: int
    bad: tuple[BadRow, ...]
    ignored: tuple[str, ...]


def load(path: Path) -> Recording:
    """The recording in a CSV file or in a telemetry store of ours.

    Raises:
        BadDataError: there is no such file, or nothing in it can be used.
        NotPermittedError: it must not be read.
    """
    from controller import recording_csv, recording_store  # noqa: PLC0415 - they build what is defined here

    try:
        with path.open("rb") as file:
            header = file.read(len(SQLITE_HEADER))
    except PermissionError as error:
        raise NotPermittedError(f"{path} must not be read: {error.strerror}") from error
    except OSError as error:
        raise BadDataError(f"{path} cannot be read: {error.strerror}") from error
    found = recording_store.read(path) if header == SQLITE_HEADER else recording_csv.read(path)
    if not found.times_s.size or not (found.nodes or found.kpis):
        problem = f"; line {found.bad[0].line}: {found.bad[0].reason}" if found.bad else ""
        raise BadDataError(f"{path}: nothing in it can be used, {len(found.bad)} bad rows{problem}")
    return found


def assemble(
    source: str, cells: Mapping[tuple[str, str], Mapping[float, float]], bad: tuple[BadRow, ...], rows: int
) -> Recording:
    """A recording from series of (node, metric), node "" for what is plant-wide, each a mapping of time to value.

    Raises:
        BadDataError: it is too large to be held in memory.
    """
    from metrics.kpi import CATALOGUE  # noqa: PLC0415 - what names mean, needed here alone
    from metrics.observation import PARAMETER_BOUNDS  # noqa: PLC0415 - as above

    times = np.array(sorted({at_s for series in cells.values() for at_s in series}), dtype=np.float64)
    index = {at_s: i for i, at_s in enumerate(times.tolist())}
    nodes = tuple(sorted({node for node, _ in cells if node}))
    metrics = tuple(sorted({metric for node, metric in cells if node and metric != GRAVITY}))
    if times.size * len(nodes) * (1 + len(metrics)) > CELLS_MAX:
        raise BadDataError(
            f"{source}: {times.size} times of {len(nodes)} nodes with {len(metrics)} metrics are too many to be held: "
            "let all nodes share their times, or cut the recording into pieces"
        )
    values = np.full((times.size, len(nodes), len(metrics)), np.nan)
    gravity = np.full((times.size, len(nodes)), np.nan)
    wide: dict[str, Floats] = {}
    node_at, metric_at = {n: i for i, n in enumerate(nodes)}, {m: i for i, m in enumerate(metrics)}
    for (node, metric), series in cells.items():
        where = [index[at_s] for at_s in series]
        if not node:
            column = wide.setdefault(metric, np.full(times.size, np.nan))
        elif metric == GRAVITY:
            column = gravity[:, node_at[node]]
        else:
            column = values[:, node_at[node], metric_at[metric]]
        column[where] = list(series.values())
    return Recording(
        source=source,
        times_s=times,
        nodes=nodes,
        metrics=metrics,
        values=values,
        gravity=gravity if any(metric == GRAVITY for node, metric in cells if node) else None,
        kpis={name: wide[name] for name in sorted(wide) if name in CATALOGUE},
        parameters={name: wide[name] for name in sorted(wide) if name in PARAMETER_BOUNDS},
        rows=rows,
        bad=bad,
        ignored=tuple(sorted(name for name in wide if name not in CATALOGUE and name not in PARAMETER_BOUNDS)),
    )
