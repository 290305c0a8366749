"""The telemetry routes: now, before, which, how it is doing, and every tick as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from flask import Response, request

from controller.api import models, telemetry
from controller.api.access import Rule
from controller.api.errors import ApiError
from controller.api.routing import EVENTS_TYPE, Call, Json, Routes
from controller.api.stream import FullError, StreamHub, Subscriber
from controller.port import Port
from metrics.store.protocol import Aggregate

TAG = "telemetry"
ABORT = "iace.abort"
LONG_LIVED = "iace.long_lived"
_ID_DIGITS_MAX = 18


def add(routes: Routes, port: Port, hub: StreamHub) -> None:
    """Add the routes of this module."""

    @routes.get(
        "/api/telemetry/current",
        rule=Rule.READ,
        tag=TAG,
        answer=models.CurrentAnswer,
        errors=(HTTPStatus.SERVICE_UNAVAILABLE,),
    )
    def telemetry_current(_call: Call) -> Json:
        """The latest tick."""
        frame = port.telemetry.last
        if frame is None:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE, "no tick has been made yet; try again", headers={"Retry-After": "1"}
            )
        return {"data": telemetry.current(frame, port.catalogue, port.base_time_s())}

    @routes.get(
        "/api/telemetry/history/<metric_name>",
        rule=Rule.READ,
        tag=TAG,
        answer=models.HistoryAnswer,
        query=models.HistoryQuery,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
    )
    def telemetry_history(call: Call) -> Json:
        """The history of a KPI, a parameter or a node's gravity."""
        asked: models.HistoryQuery = call.query
        window = telemetry.Window(
            None if asked.start is None else telemetry.unix_s(asked.start),
            None if asked.end is None else telemetry.unix_s(asked.end),
            asked.hours,
            asked.step,
            Aggregate(asked.aggregate),
        )
        return telemetry.history(port, call.path["metric_name"], window)

    @routes.get(
        "/api/telemetry/metrics", rule=Rule.READ, tag=TAG, answer=models.MetricsAnswer, query=models.MetricsQuery
    )
    def telemetry_metrics(call: Call) -> Json:
        """Which metrics there are."""
        if call.query.detail == "1":
            return {"metrics": telemetry.described(port.catalogue)}
        return {"metrics": telemetry.metrics(port.catalogue, port.telemetry.last)}

    @routes.get(
        "/api/telemetry/status",
        rule=Rule.READ,
        tag=TAG,
        answer=models.StatusAnswer,
        errors=(HTTPStatus.SERVICE_UNAVAILABLE,),
    )
    def telemetry_status(_call: Call) -> Json:
        """How telemetry is doing."""
        frame = port.telemetry.last
        known = None if frame is None else telemetry.timestamp(port.base_time_s() + frame.plant_time_s)
        return {
            "system_status": "NO_DATA" if frame is None else telemetry.health(frame, port.catalogue),
            "latest_update": known,
            "history_records": telemetry.count(port),
            "subscribers": hub.subscribers,
            "subscribers_dropped": hub.dropped,
        }

    @routes.get(
        "/api/telemetry/stream",
        rule=Rule.READ,
        tag=TAG,
        media=EVENTS_TYPE,
        query=models.StreamQuery,
        headers=models.StreamHeaders,
        errors=(HTTPStatus.SERVICE_UNAVAILABLE,),
    )
    def telemetry_stream(call: Call) -> Response:
        """Every tick as it comes, as server-sent events.

        Each event's data is that of /api/telemetry/current, its id the plant's tick. A client that comes back with
        Last-Event-ID gets what it missed, as far as it is still held.
        """
        try:
            subscriber = hub.subscribe(_last_id(), request.environ.get(ABORT))
        except FullError:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "there are as many event streams as are allowed (api.streams_max); try again later",
                headers={"Retry-After": "10"},
            ) from None
        long_lived = request.environ.get(LONG_LIVED)
        if long_lived is not None:
            long_lived()
        count = call.query.events
        body = subscriber if count is None else _First(subscriber, count)
        return Response(body, mimetype=EVENTS_TYPE, headers={"X-Accel-Buffering": "no"})


class _First:
    """The first so many events of a subscriber."""

    def __init__(self, subscriber: Subscriber, count: int) -> None:
        self._subscriber = subscriber
        self._left = count

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._subscriber:
            pieces = chunk.split(b"\n\n")[:-1]
            for piece in pieces:
                yield piece + b"\n\n"
                self._left -= piece.startswith(b"id:")
                if self._left == 0:
                    return

    def close(self) -> None:
        """The response has ended."""
        self._subscriber.close()


def _last_id() -> int | None:
    """The client's last event; an id that we never give counts as one that is not known, which gets all there is."""
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return None
    plain = text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS_MAX
    return int(text) if plain else 10**_ID_DIGITS_MAX
