"""The routes about the service itself: alive, ready, its metrics for Prometheus, and its own description."""

from __future__ import annotations

import json
from http import HTTPStatus

from flask import Response, request

from controller.api import models
from controller.api.access import Rule
from controller.api.docs_page import CONTENT_SECURITY_POLICY, page
from controller.api.errors import ApiError
from controller.api.routing import JSON_TYPE, Call, Json, Routes
from controller.port import Port
from metrics.exporter import Exporter

TAG = "service"


def add(routes: Routes, port: Port) -> None:
    """Add the routes of this module."""
    exporter = Exporter()

    @routes.get("/livez", rule=Rule.OPEN, tag=TAG, answer=models.HealthAnswer, errors=(HTTPStatus.SERVICE_UNAVAILABLE,))
    def livez(_call: Call) -> Json:
        """Whether ticks are being made."""
        if not port.live():
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "no ticks are being made; see the daemon's log")
        return {"status": "ok"}

    @routes.get(
        "/readyz", rule=Rule.OPEN, tag=TAG, answer=models.HealthAnswer, errors=(HTTPStatus.SERVICE_UNAVAILABLE,)
    )
    def readyz(_call: Call) -> Json:
        """Whether it governs."""
        missing = list(port.not_ready())
        if missing:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {'; '.join(missing)}", fields={"problems": missing}
            )
        return {"status": "ok"}

    @routes.get("/metrics", rule=Rule.READ, tag=TAG, media="text/plain")
    def metrics(_call: Call) -> Response:
        """Everything for Prometheus, as text or as OpenMetrics."""
        exporter.publish(port.metrics())
        scrape = exporter.scrape(request.headers.get("Accept", ""))
        return Response(scrape.body, content_type=scrape.content_type)

    @routes.get("/openapi.json", rule=Rule.OPEN, tag=TAG, media=JSON_TYPE)
    def description(_call: Call) -> Response:
        """This description (OpenAPI 3.1)."""
        return Response(json.dumps(routes.document(), separators=(",", ":")), mimetype=JSON_TYPE)

    @routes.get("/docs", rule=Rule.OPEN, tag=TAG, media="text/html")
    def docs(_call: Call) -> Response:
        """This description for people."""
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return Response(page(routes.document()), mimetype="text/html", headers=headers)
