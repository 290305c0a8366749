"""How does a governor reach the cluster over the network? The QECS HTTP API (docs/interfaces.md).

Flask routes over one `ClusterHost`. Handlers validate, take the lock, call, and release it before anything is turned
into JSON. Every error is JSON (`{"status": "error", "message": ...}`) and says what to do; none shows a traceback.

Writes that govern need an idempotency key and an epoch (`qecs.fencing`). There is no authentication: bind it to a
trusted interface.
"""

from __future__ import annotations

import logging
import signal
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException

from qecs import views
from qecs.chain_directory import LedgerWriteError
from qecs.commits import Outcome
from qecs.errors import InvalidRequestError, QecsError, StaleEpochError, UnknownTargetError
from qecs.faults import Fault
from qecs.fencing import KeyReusedError
from qecs.host import TTL_MAX_S, ClusterHost, HostFailedError, NotReadyError
from qecs.parameters import BOUNDS, Parameters
from qecs.strict_http import BODY_BYTES_MAX, StrictServer
from qecs.wire import encode, parse_object, require_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qecs.fencing import WriteGate

_PAGE_BLOCKS: Final = 100
_PAGE_BLOCKS_MAX: Final = 1000
_PAGE_TICKS_MAX: Final = 512
_PAGE_NUMBERS_MAX: Final = 2_000_000
_FENCE_KEYS: Final = frozenset({"idempotency_key", "epoch"})
_COMMIT_STATUS: Final = {
    Outcome.APPROVED: HTTPStatus.OK,
    Outcome.REJECTED: HTTPStatus.BAD_REQUEST,
    Outcome.CONFLICT: HTTPStatus.CONFLICT,
}
_ERROR_STATUS: Final[Mapping[type[QecsError], HTTPStatus]] = {
    UnknownTargetError: HTTPStatus.NOT_FOUND,
    StaleEpochError: HTTPStatus.CONFLICT,
    KeyReusedError: HTTPStatus.CONFLICT,
    InvalidRequestError: HTTPStatus.BAD_REQUEST,
    LedgerWriteError: HTTPStatus.SERVICE_UNAVAILABLE,
    HostFailedError: HTTPStatus.SERVICE_UNAVAILABLE,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
}

_log = logging.getLogger(f"iace.{__name__}")


def serve(host: ClusterHost, address: str, port: int, ready: Callable[[StrictServer], None]) -> None:
    """Let the cluster live and answer until stopped; then bring the ledger to disk.

    Stops on SIGTERM and SIGINT where it runs in the main thread, and always on `stop` of the server given to `ready`.

    Args:
        host: not started yet.
        address: IP address or host name to bind.
        port: TCP port, 0 for any free one.
        ready: called once with the bound server, before it answers.

    Raises:
        OSError: the address cannot be bound.
    """
    server = StrictServer(create_app(host), address=address, port=port)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
    host.start()
    try:
        ready(server)
        server.run()
    finally:
        host.stop()


def create_app(host: ClusterHost) -> Flask:
    """Return the application that answers for `host`."""
    app = Flask("qecs", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX
    app.register_blueprint(qecs_blueprint(host))
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected_error)
    return app


def qecs_blueprint(host: ClusterHost) -> Blueprint:
    """Return the routes of the QECS API, to be registered in any Flask application."""
    routes = Blueprint("qecs", __name__)
    routes.register_error_handler(QecsError, _qecs_error)
    _add_status_routes(routes, host)
    _add_ledger_routes(routes, host)
    _add_node_routes(routes, host)
    _add_control_routes(routes, host)
    return routes


def _add_status_routes(routes: Blueprint, host: ClusterHost) -> None:
    @routes.get("/field/curvature_metrics")
    def curvature_metrics() -> Response:
        return _json(views.curvature_metrics(host.latest()))

    @routes.get("/system/status")
    def system_status() -> Response:
        with host.lock:
            body = views.system_status(host, host.latest())
        return _json(body)

    @routes.get("/capabilities")
    def capabilities() -> Response:
        with host.lock:
            body = views.capabilities(host)
        return _json(body)

    @routes.get("/livez")
    def livez() -> Response:
        host.require_alive()
        return _json({"status": "ok"})


def _add_ledger_routes(routes: Blueprint, host: ClusterHost) -> None:
    ledger = host.cluster.ledger

    @routes.post("/ledger/commit")
    def commit() -> Response:
        transaction = _body()
        with host.lock:
            host.require_alive()
            answer = host.desk.commit(transaction)
        return _json(answer.fields, _COMMIT_STATUS[answer.outcome])

    @routes.get("/ledger")
    def summary() -> Response:
        with host.lock:
            body = views.ledger_summary(host)
        return _json(body)

    @routes.get("/ledger/blocks")
    def blocks() -> Response:
        start = _query("from", 0)
        limit = min(_query("limit", _PAGE_BLOCKS), _PAGE_BLOCKS_MAX, max(1, _PAGE_NUMBERS_MAX // (5 * ledger.nodes)))
        with host.lock:
            page = ledger.blocks(start, limit)
        return _json(views.ledger_blocks(ledger, start, page))

    @routes.get("/ledger/tips")
    def tips() -> Response:
        with host.lock:
            body = views.ledger_tips(host)
        return _json(body)

    @routes.get("/ledger/proof/<int:seq>")
    def proof(seq: int) -> Response:
        leaf = _query("leaf", 0)
        with host.lock:
            found = ledger.proof(seq, leaf)
        return _json(found.to_dict())

    @routes.get("/ledger/accounts/<path:account>")
    def balance(account: str) -> Response:
        with host.lock:
            tokens = host.desk.balance(account)
        return _json({"account": account, "balance": tokens})


def _add_node_routes(routes: Blueprint, host: ClusterHost) -> None:
    cluster = host.cluster

    @routes.get("/nodes")
    def nodes() -> Response:
        return _json({**views.constants(cluster), **views.observation(host.latest())})

    @routes.get("/isolations")
    def isolations() -> Response:
        with host.lock:
            body = views.isolations(host)
        return _json(body)

    @routes.get("/observations")
    def observations() -> Response:
        after = _query("after", 0)
        fitting = max(1, _PAGE_NUMBERS_MAX // (10 * len(cluster.node_ids)))
        records = host.after(after, min(_query("limit", _PAGE_TICKS_MAX), fitting))
        return _json(views.observations(cluster, records, host.latest()))

    @routes.get("/nodes/<node>")
    def one_node(node: str) -> Response:
        with host.lock:
            body = views.node(host, host.latest(), node)
        return _json(body)

    @routes.post("/nodes/<node>/isolate")
    def isolate(node: str) -> Response:
        data = _body()
        require_keys(data, _FENCE_KEYS, frozenset({"ttl_s"}))
        ttl_s = _ttl(data.get("ttl_s"))
        with host.lock:
            host.require_alive()
            answer = _once(host.gate, data, ("isolate", node, ttl_s), lambda: host.isolate(node, ttl_s))
        return _json(answer)

    @routes.post("/nodes/<node>/restore")
    def restore(node: str) -> Response:
        data = _body()
        require_keys(data, _FENCE_KEYS)
        with host.lock:
            host.require_alive()
            answer = _once(host.gate, data, ("restore", node), lambda: host.restore(node))
        return _json(answer)


def _add_control_routes(routes: Blueprint, host: ClusterHost) -> None:
    cluster = host.cluster

    @routes.get("/parameters")
    def parameters() -> Response:
        return _json({"parameters": cluster.parameters.to_dict()})

    @routes.put("/parameters")
    def set_parameters() -> Response:
        data = _body()
        require_keys(data, _FENCE_KEYS | {"parameters"})
        wanted = _object(data, "parameters")
        # All of them, because a missing one would silently go back to its default.
        require_keys(wanted, frozenset(BOUNDS))
        found = Parameters.from_dict(wanted)

        def apply() -> dict[str, Any]:
            cluster.apply(found)
            return {"status": "success", "parameters": found.to_dict(), "tick": cluster.tick}

        with host.lock:
            host.require_alive()
            answer = _once(host.gate, data, ("parameters", found), apply)
        return _json(answer)

    @routes.get("/faults")
    def faults() -> Response:
        with host.lock:
            body = views.faults(cluster)
        return _json(body)

    @routes.post("/faults")
    def change_faults() -> Response:
        if not host.allow_faults:
            return _error("this server does not allow faults", HTTPStatus.FORBIDDEN)
        data = _body()
        if "clear" in data:
            require_keys(data, frozenset({"clear"}), _FENCE_KEYS)
            content: tuple[str, object] = ("clear", data["clear"])
            act = _clearing(host, data["clear"])
        else:
            require_keys(data, frozenset({"fault"}), _FENCE_KEYS)
            fault = Fault.from_dict(_object(data, "fault"))
            content, act = ("fault", fault), _injection(host, fault)
        fenced = bool(_FENCE_KEYS & data.keys())
        with host.lock:
            host.require_alive()
            answer = _once(host.gate, data, content, act) if fenced else act()
        return _json(answer)


def _injection(host: ClusterHost, fault: Fault) -> Callable[[], dict[str, Any]]:
    def inject() -> dict[str, Any]:
        host.cluster.inject(fault)
        return {"status": "success", "fault": fault.to_dict(), "tick": host.cluster.tick}

    return inject


def _clearing(host: ClusterHost, fault_id: object) -> Callable[[], dict[str, Any]]:
    if not isinstance(fault_id, str):
        raise InvalidRequestError("clear must be the id of a fault")

    def clear() -> dict[str, Any]:
        return {"status": "success", "cleared": host.cluster.clear(fault_id), "tick": host.cluster.tick}

    return clear


def _once(
    gate: WriteGate, data: Mapping[str, Any], content: object, act: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    return gate.once(data.get("idempotency_key"), data.get("epoch"), content, act)


def _body() -> dict[str, Any]:
    return parse_object(request.get_data(cache=False))


def _object(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data[key]
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{key} must be a JSON object")
    return value


def _ttl(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= TTL_MAX_S:
        raise InvalidRequestError(f"ttl_s must be a number of seconds above 0, up to {TTL_MAX_S:g}")
    return float(value)


def _query(name: str, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    # Eighteen digits fit into an int64, and longer ones would be slow to convert.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 # see above
        raise InvalidRequestError(f"{name} must be a whole number from 0 on, not {text[:40]!r}")
    return int(text)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(encode(value), status=status, mimetype="application/json")


def _error(message: str, status: int) -> Response:
    return _json({"status": "error", "message": message}, HTTPStatus(status))


def _qecs_error(error: QecsError) -> Response:
    for kind, status in _ERROR_STATUS.items():
        if isinstance(error, kind):
            return _error(str(error), status)
    return _unexpected_error(error)


def _http_error(error: HTTPException) -> Response:
    response = _error(error.description or error.name, error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        # HTTP wants the permitted methods named.
        response.headers["Allow"] = error.get_response().headers.get("Allow", "")
    return response


def _unexpected_error(error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    return _error("internal error; the server's log says more", HTTPStatus.INTERNAL_SERVER_ERROR)
