"""The HTTP API of a running daemon: the Flask application, put together.

Every request passes the same gates in the same order: the client's rate limit, then the rule of the route for whoever
is asking, then the check of what was sent. Every answer carries the same headers. Every error is JSON
(`{"status": "error", "message": …}`) and shows neither a traceback nor anything secret. What was turned away is told to
the daemon, which journals the counts.

With the routes of an embedded plant the API answers as that plant's server does; its own `/livez` is the daemon's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus

from flask import Blueprint, Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from controller.api import telemetry, views_control, views_records, views_service, views_telemetry
from controller.api.access import Access
from controller.api.auth import TokenFile
from controller.api.errors import ApiError
from controller.api.limits import RateLimit
from controller.api.routing import HEALTH, Routes, error
from controller.api.stream import StreamHub
from controller.port import Port
from controller.settings import ApiSettings
from metrics.errors import NotPermittedError, StoreFailedError
from metrics.telemetry import Frame

STREAM = "iace_stream"
_SECURE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_TLS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}
_CORS_METHODS = "GET, POST"
_CORS_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"

_log = logging.getLogger(f"iace.{__name__}")


def create_app(port: Port, settings: ApiSettings, tokens: TokenFile, qecs_blueprint: Blueprint | None = None) -> Flask:
    """The application.

    Its event stream, `app.extensions[STREAM]`, is to be started and stopped with the server.

    Args:
        port: the running daemon.
        settings: the section [api] of the configuration.
        tokens: who may do what.
        qecs_blueprint: the routes of the governed plant, where it is embedded.
    """
    app = Flask("iace", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_max_bytes
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # a redirect would repeat what somebody sent
    app.url_map.strict_slashes = False

    def encode(frame: Frame) -> str:
        return telemetry.event_data(frame, port.catalogue, port.base_time_s())

    hub = app.extensions[STREAM] = StreamHub(port.telemetry, encode, settings.streams_max)
    routes = Routes(app)
    _add_gates(app, routes, Access(tokens, settings.anonymous_read), settings)
    _add_errors(app, port)
    views_service.add(routes, port)
    views_telemetry.add(routes, port, hub)
    views_control.add(routes, port)
    views_records.add(routes, port)
    if qecs_blueprint is not None:
        app.register_blueprint(qecs_blueprint)
    return app


def _add_gates(app: Flask, routes: Routes, access: Access, settings: ApiSettings) -> None:
    limit = RateLimit(settings.rate_per_s, settings.burst)
    origins = frozenset(settings.cors_origins)
    headers = _SECURE_HEADERS | (_TLS_HEADERS if settings.tls_cert_file is not None else {})

    @app.before_request
    def admit() -> Response | None:
        if request.path not in HEALTH:
            _pass(limit)
        if request.method == "OPTIONS" and request.headers.get("Origin") in origins:
            return Response(status=HTTPStatus.NO_CONTENT)
        if request.routing_exception is None:
            g.principal = access.admit(routes.rules.get(request.endpoint or ""), request.environ)
        return None

    @app.after_request
    def secure(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        origin = request.headers.get("Origin")
        if origins:
            response.headers.add("Vary", "Origin")
        if origin in origins:
            response.headers.update(_cors(str(origin)))
        return response


def _pass(limit: RateLimit) -> None:
    wait_s = limit.wait_s(request.remote_addr or "")
    if wait_s > 0:
        raise ApiError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too many requests from this address (api.rate_per_s, api.burst); slow down",
            counted="rate limit",
            headers={"Retry-After": str(int(wait_s) + 1)},
        )


def _cors(origin: str) -> Iterable[tuple[str, str]]:
    return (
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Methods", _CORS_METHODS),
        ("Access-Control-Allow-Headers", _CORS_HEADERS),
        ("Access-Control-Max-Age", "600"),
    )


def _add_errors(app: Flask, port: Port) -> None:
    @app.errorhandler(ApiError)
    def refused(refusal: ApiError) -> Response:
        if refusal.counted is not None:
            port.refuse_request(refusal.counted)
        return error(refusal.status, refusal.message, refusal.fields, refusal.headers)

    @app.errorhandler(HTTPException)
    def wrong(exception: HTTPException) -> Response:
        status = exception.code or HTTPStatus.INTERNAL_SERVER_ERROR
        allowed = exception.get_response().headers.get("Allow") if status == HTTPStatus.METHOD_NOT_ALLOWED else None
        return error(status, exception.description or exception.name, headers={"Allow": allowed} if allowed else None)

    @app.errorhandler(StoreFailedError)
    @app.errorhandler(NotPermittedError)
    def unreadable(failure: Exception) -> Response:
        _log.warning("%s %s: %s", request.method, request.path, failure)
        text = "what was asked for cannot be read at the moment; the daemon's log says why"
        return error(HTTPStatus.SERVICE_UNAVAILABLE, text, headers={"Retry-After": "5"})

    @app.errorhandler(Exception)
    def unexpected(failure: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.path, exc_info=failure)
        return error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the daemon's log says more")
