"""Where did a KPI start, where did it end, and where is it heading?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controller.record import RunRecord
from metrics.kpi import Kpi, KpiStatus, Limit, Side

TREND_TICKS = 60  # long enough for a slope beyond the noise, short enough to tell the end of a run from its middle


@dataclass(frozen=True, slots=True)
class Trend:
    """One KPI over a run.

    Attributes:
        unit: of every value here.
        first, last, mean: of the known values; `mean` and `per_minute` (a least-squares slope) over the last 60 ticks.
        healthy, side: the limit, None where the KPI is only watched.
        margin: distance of `mean` from the limit, positive on the healthy side.
        status: what `last` means.
    """

    unit: str
    first: float
    last: float
    mean: float
    per_minute: float
    healthy: float | None
    side: Side | None
    margin: float | None
    status: KpiStatus | None


def trends(record: RunRecord) -> dict[str, Trend]:
    """The trend of every KPI of which anything is known."""
    found = {
        name: _trend(kpi, record.history.plant_time_s, record.history.values.get(name, ()))
        for name, kpi in record.catalogue.items()
    }
    return {name: trend for name, trend in found.items() if trend is not None}


def margins(found: Mapping[str, Trend]) -> dict[str, float]:
    """The margins of the KPIs that have a limit."""
    return {name: trend.margin for name, trend in found.items() if trend.margin is not None}


def _trend(kpi: Kpi, times: Sequence[float], values: Sequence[float]) -> Trend | None:
    known = [(time, value) for time, value in zip(times, values, strict=False) if math.isfinite(value)]
    if not known:
        return None
    recent = np.array(known[-TREND_TICKS:])
    mean = float(recent[:, 1].mean())
    last = known[-1][1]
    limit = kpi.limit
    return Trend(
        unit=kpi.unit,
        first=known[0][1],
        last=last,
        mean=mean,
        per_minute=60.0 * _slope(recent[:, 0], recent[:, 1]),
        healthy=None if limit is None else limit.healthy,
        side=None if limit is None else limit.side,
        margin=None if limit is None else _margin(limit, mean),
        status=None if limit is None else limit.status(last),
    )


def _slope(times: np.ndarray, values: np.ndarray) -> float:
    centred = times - times.mean()
    spread = float(centred @ centred)
    return float(centred @ values) / spread if spread > 0 else 0.0


def _margin(limit: Limit, value: float) -> float:
    return value - limit.healthy if limit.side is Side.AT_LEAST else limit.healthy - value
