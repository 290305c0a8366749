"""What does a server say of itself that knows only the published figures of QECS v1.5, and no nodes?

Two routes are read: `GET /field/curvature_metrics`, and for what it leaves out `GET /system/status`. The names that
v1.5 uses are those of the KPI catalogue or their aliases. Time is the server's: its tick where it counts ticks,
otherwise every new timestamp is a new tick. Time that stands still is no news; if it runs backwards, the server is not
the one that was connected to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from controller.plants.client import Client, Deadline
from controller.plants.wire import TICK_MAX, TIME_MAX_S, Fields, as_number, excerpt
from metrics.errors import PlantUnavailableError
from metrics.kpi import CATALOGUE
from metrics.observation import Observation

CURVATURE: Final = "/field/curvature_metrics"
STATUS: Final = "/system/status"
_WALL_TIME_MAX_S: Final = 1e11


@dataclass(frozen=True, slots=True)
class _Moment:
    """The server's time: its tick, and its clock in seconds."""

    tick: int
    clock_s: float


class FieldV15:
    """Reads the figures; one for each connection, as it remembers the first and the last moment seen.

    Args:
        client: reaches the server.
        monotonic_s: the controller's monotonic clock, s.
    """

    def __init__(self, client: Client, monotonic_s: Callable[[], float]) -> None:
        self._client = client
        self._monotonic_s = monotonic_s
        self._first: _Moment | None = None
        self._last: _Moment | None = None

    def probe(self, deadline: Deadline) -> bool:
        """Whether the server has both routes.

        Raises:
            PlantError: one of them answers, but not as v1.5 does.
        """
        curvature = self._client.find(CURVATURE, deadline)
        status = None if curvature is None else self._client.find(STATUS, deadline)
        if curvature is None or status is None:
            return False
        self._moment(curvature)
        _kpis(curvature, status)
        return True

    def observe(self, deadline: Deadline) -> Sequence[Observation]:
        """What is new since the last call: one observation or none.

        Raises:
            PlantUnavailableError: no intelligible answer in time.
        """
        curvature = self._client.get(CURVATURE, deadline)
        moment = self._moment(curvature)
        last = self._last
        if last is not None and (moment.tick < last.tick or moment.clock_s < last.clock_s):
            raise PlantUnavailableError(
                f"{curvature.where}: expected time to go on from tick {last.tick} at {last.clock_s:.3f} s, but it went "
                f"back to tick {moment.tick} at {moment.clock_s:.3f} s; see whether the plant was restarted, "
                "and connect again"
            )
        if last is not None and moment.tick == last.tick:
            return ()
        kpis = _kpis(curvature, self._client.get(STATUS, deadline))
        if self._first is None:
            self._first = moment
        self._last = moment
        return (
            Observation(
                tick=moment.tick,
                plant_time_s=moment.clock_s - self._first.clock_s,
                received_s=self._monotonic_s(),
                kpis=kpis,
                safe_mode=curvature.flag("safe_mode") if "safe_mode" in curvature.values else None,
            ),
        )

    def _moment(self, curvature: Fields) -> _Moment:
        if "tick" in curvature.values and "plant_time_s" in curvature.values:
            return _Moment(curvature.whole("tick", 0, TICK_MAX), curvature.finite("plant_time_s", 0.0, TIME_MAX_S))
        clock_s = _timestamp_s(curvature)
        if self._last is None:
            return _Moment(0, clock_s)
        return self._last if clock_s == self._last.clock_s else _Moment(self._last.tick + 1, clock_s)


def _timestamp_s(curvature: Fields) -> float:
    """The server's timestamp, a number of seconds or ISO 8601, as seconds since 1970."""
    raw = curvature.values.get("timestamp")
    clock_s = as_number(raw)
    if isinstance(raw, str):
        try:
            stamp = datetime.fromisoformat(raw)
        except ValueError:
            stamp = None
        if stamp is not None:
            clock_s = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    if not 0.0 <= clock_s <= _WALL_TIME_MAX_S:
        raise curvature.unintelligible("timestamp", "a time, in seconds or ISO 8601", raw)
    return clock_s


def _kpis(curvature: Fields, status: Fields) -> dict[str, float]:
    """The catalogue's KPIs, each from the first of the objects that has it under any of its names.

    Raises:
        PlantUnavailableError: there is not one name that we know.
    """
    metrics = status.values.get("system_metrics")
    sources: tuple[Mapping[str, Any], ...] = (
        curvature.values,
        status.values,
        metrics if isinstance(metrics, dict) else {},
    )
    found: dict[str, float] = {}
    for name, kpi in CATALOGUE.items():
        values = [as_number(source[key]) for source in sources for key in (name, *kpi.aliases) if key in source]
        if values:
            found[name] = next((value for value in values if not math.isnan(value)), math.nan)
    if not found:
        raise PlantUnavailableError(
            f"{curvature.where}: expected figures such as cs, gas and rsi, but only "
            f"{excerpt(', '.join(curvature.values))} came; see whether that server is a QECS plant"
        )
    return found
