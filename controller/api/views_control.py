"""The control routes: what an operator may tell the daemon, each with a reason, each answered with what will happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeVar

from controller.api import models
from controller.api.access import Rule
from controller.api.errors import ApiError
from controller.api.routing import Call, Json, Routes, View
from controller.port import BusyError, FailedError, Port
from state import command as asked
from state.decision import Answer

TAG = "control"
_T = TypeVar("_T")
_REFUSALS = (HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)


def add(routes: Routes, port: Port) -> None:
    """Add the routes of this module."""
    _add_controller(routes, port)
    _add_nodes(routes, port)


def _add_controller(routes: Routes, port: Port) -> None:
    @routes.get("/api/control/state", rule=Rule.READ, tag=TAG, answer=models.StateAnswer)
    def control_state(_call: Call) -> Json:
        """Where the controller stands, why it holds, and the way out."""
        return {"data": dict(port.state())}

    @_control(routes, "/api/control/pause", models.PauseBody)
    def control_pause(call: Call) -> Json:
        """Start nothing new for a while."""
        return ordered(port, call, asked.Pause(call.body.for_s))

    @_control(routes, "/api/control/resume", models.ReasonBody)
    def control_resume(call: Call) -> Json:
        """Go on before the pause is over."""
        return ordered(port, call, asked.Resume())

    @_control(routes, "/api/control/safe-mode/clear", models.ReasonBody)
    def control_clear_safe_mode(call: Call) -> Json:
        """Leave SAFE_MODE: a person has seen to its cause."""
        return ordered(port, call, asked.ClearSafeMode())

    @_control(routes, "/api/control/reload", models.ReasonBody)
    def control_reload(call: Call) -> Json:
        """Read the configuration again; an invalid one changes nothing."""
        return _told(_patiently(lambda: port.reload(by=f"{call.principal} ({call.body.reason})")), {})


def _add_nodes(routes: Routes, port: Port) -> None:
    @_control(routes, "/api/control/isolate", models.IsolateBody)
    def control_isolate(call: Call) -> Json:
        """Take a node out; the same guards hold as for the policy."""
        return ordered(port, call, asked.Isolate(call.body.node, call.body.for_s))

    @_control(routes, "/api/control/restore", models.NodeBody)
    def control_restore(call: Call) -> Json:
        """Let an isolated node back in, on probation."""
        return ordered(port, call, asked.Restore(call.body.node))

    @_control(routes, "/api/control/exempt", models.ExemptBody)
    def control_exempt(call: Call) -> Json:
        """Leave a node alone for a while, whatever it looks like."""
        body: models.ExemptBody = call.body
        return ordered(port, call, asked.Exempt(body.node, body.kind, body.for_s, body.in_s))

    @_control(routes, "/api/control/exempt/end", models.NodeBody)
    def control_end_exemption(call: Call) -> Json:
        """Govern an exempted node like all others again."""
        return ordered(port, call, asked.EndExemption(call.body.node))


def _control(routes: Routes, path: str, body: type[models.ReasonBody]) -> Callable[[View], View]:
    return routes.post(
        path,
        rule=Rule.CONTROL,
        tag=TAG,
        answer=models.CommandAnswer,
        body=body,
        headers=models.IdempotencyHeaders,
        errors=_REFUSALS,
    )


def ordered(port: Port, call: Call, command: asked.Command) -> Json:
    """Let a command be decided, and tell what becomes of it.

    Raises:
        ApiError: 409 where it is refused, 503 where its turn did not come, 500 where it failed on the way.
    """
    # Two people may choose the same key by chance, so that a key is its owner's alone.
    key = None if call.key is None else f"{call.principal}:{call.key}"
    done = _patiently(lambda: port.command(command, by=call.principal, reason=call.body.reason, key=key))
    return _told(done.answer, {"seq": done.seq, "hash": done.hash})


def _told(answer: Answer, tip: Mapping[str, object]) -> Json:
    if not answer.accepted:
        guard = {} if answer.guard is None else {"guard": str(answer.guard)}
        # A key that was used before adds nothing to the journal: its tip would be taken for this refusal's event.
        fresh = {} if answer.repeated else tip
        raise ApiError(HTTPStatus.CONFLICT, answer.text, fields={**guard, **fresh, "repeated": answer.repeated})
    return {"text": answer.text, "repeated": answer.repeated, "seq": None, "hash": None, **tip}


def _patiently(attempt: Callable[[], _T]) -> _T:
    try:
        return attempt()
    except BusyError:
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the daemon is in the middle of something, and nothing was done; try again",
            headers={"Retry-After": "2"},
        ) from None
    except FailedError as failed:
        text = f"it went wrong on the way ({failed}); the journal tells what was done: iace journal"
        raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, text) from failed
