"""How does a route come to be? From a function, a rule for access, and models for what goes in and out.

    @routes.post("/api/control/pause", rule=Rule.CONTROL, body=PauseBody, answer=CommandAnswer, tag="control")
    def pause(call: Call) -> Json: ...

What is declared is both enforced and published: the same models check the request and make the OpenAPI document, and
the same rule guards the door. Requests are checked here rather than by spectree, which takes a body that is no JSON for
an empty object; spectree writes the document.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from flask import Flask, Response, current_app, g, request
from pydantic import BaseModel, ValidationError
from spectree import Response as Responses
from spectree import SecurityScheme, SpecTree
from spectree.models import SecureType, SecuritySchemeData

from controller.api.access import Rule
from controller.api.errors import ApiError
from controller.api.models import Error
from controller.api.strict_json import parse_object

TITLE = "IACE"
BEARER = "bearer"
HEALTH = frozenset({"/livez", "/readyz"})
JSON_TYPE, EVENTS_TYPE = "application/json", "text/event-stream"
EVENT_SCHEMA = {
    "type": "object",
    "description": "A server-sent event; its data is that of /api/telemetry/current as JSON text.",
    "required": ["id", "data"],
    "properties": {"id": {"type": "string"}, "data": {"type": "string", "contentMediaType": JSON_TYPE}},
}
_PROBLEMS_MAX = 20

Json = Mapping[str, Any]
View = Callable[["Call"], Json | Response]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked.

    Attributes:
        principal: who is asking.
        body, query: instances of the route's models, None where it has none.
        key: the idempotency key, if one was sent.
        path: the parts of the path that the route leaves open.
    """

    principal: str
    body: Any
    query: Any
    key: str | None
    path: Mapping[str, str]


class Routes:
    """The routes of one application.

    Args:
        app: the application.

    Attributes:
        rules: endpoint to the rule for it.
    """

    def __init__(self, app: Flask) -> None:
        self.rules: dict[str, Rule] = {}
        self._app = app
        self._declared: dict[str, Callable[[SpecTree], object]] = {}
        self._media: dict[str, str] = {}
        self._document: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def get(self, path: str, **declared: Any) -> Callable[[View], View]:  # noqa: ANN401 - as `_add` takes them
        """A route that only reads."""
        return functools.partial(self._add, "GET", path, **declared)

    def post(self, path: str, **declared: Any) -> Callable[[View], View]:  # noqa: ANN401 - as `_add` takes them
        """A route that changes something."""
        return functools.partial(self._add, "POST", path, **declared)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document, made when it is first asked for; within the application's context."""
        with self._lock:
            if self._document is None:
                self._document = self._described()
            return self._document

    def _described(self) -> dict[str, Any]:
        spec = SpecTree(
            "flask",
            mode="strict",
            annotations=False,
            title=TITLE,
            version=version("iace"),
            description="What a running IACE daemon tells, and what it may be told to do.",
            naming_strategy=lambda model: model.__name__,
            nested_naming_strategy=lambda _, child: child,
            validation_error_model=Error,
            security_schemes=[_scheme()],
        )
        for endpoint, declare in self._declared.items():
            # spectree finds what it knows of a view along this attribute. It is not left to wrap the view itself,
            # because its wrapper reads the whole response into memory, which for an event stream takes for ever.
            self._app.view_functions[endpoint].__wrapped__ = declare(spec)  # type: ignore[union-attr] # a function
        document: dict[str, Any] = spec.spec
        for path, media in self._media.items():
            schema = {"$ref": "#/components/schemas/Event"} if media == EVENTS_TYPE else {"type": "string"}
            document["paths"][path]["get"]["responses"]["200"]["content"] = {media: {"schema": schema}}
        document["components"]["schemas"]["Event"] = EVENT_SCHEMA
        return document

    def _add(
        self,
        method: str,
        path: str,
        view: View,
        *,
        rule: Rule,
        tag: str,
        answer: type[BaseModel] | None = None,
        media: str = JSON_TYPE,
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        headers: type[BaseModel] | None = None,
        errors: Sequence[int] = (),
    ) -> View:
        name = view.__name__

        @functools.wraps(view)
        def answered(**parts: str) -> Response:
            call = Call(g.principal, _body(body), _query(query), _key(), parts)
            result = view(call)
            return result if isinstance(result, Response) else success(result)

        def declare(spec: SpecTree) -> object:
            statuses = sorted({*errors, *_errors(path, rule, body, query, headers)})
            responses = Responses("HTTP_200") if answer is None else Responses(HTTP_200=answer)
            for status in statuses:
                responses.add_model(status, Error)
            return spec.validate(
                query=query,
                json=body,
                headers=headers,
                resp=responses,
                tags=(tag,),
                security=[] if rule is Rule.OPEN else [{BEARER: []}],
                validation_error_status=statuses[-1] if statuses else HTTPStatus.INTERNAL_SERVER_ERROR,
                operation_id=name,
            )(view)

        self._app.add_url_rule(path, endpoint=name, view_func=answered, methods=[method])
        self._declared[name] = declare
        self.rules[name] = rule
        if media != JSON_TYPE:
            self._media[path] = media
        return view


def _scheme() -> SecurityScheme:
    return SecurityScheme(name=BEARER, data=SecuritySchemeData(type=SecureType.HTTP, scheme="bearer"))


def success(fields: Json) -> Response:
    """An answer in JSON, "success" unless it says something else."""
    return _response({"status": "success", **fields}, HTTPStatus.OK)


def error(status: int, message: str, fields: Json | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """An error in JSON."""
    response = _response({"status": "error", "message": message, **(fields or {})}, status)
    response.headers.update(headers or {})
    return response


def _response(document: Json, status: int) -> Response:
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return current_app.response_class(text, status=int(status), mimetype=JSON_TYPE)


def _errors(
    path: str, rule: Rule, body: type[BaseModel] | None, query: type[BaseModel] | None, headers: type[BaseModel] | None
) -> set[int]:
    """The statuses that follow from what a route declares."""
    found = set() if path in HEALTH else {429}
    if rule is not Rule.OPEN:
        found |= {401}
    if rule is Rule.CONTROL:
        found |= {403}
    if body is not None:
        found |= {400, 413, 415}
    if body is not None or query is not None or headers is not None:
        found |= {422}
    return found


def _body(model: type[BaseModel] | None) -> BaseModel | None:
    if model is None:
        return None
    if request.mimetype != JSON_TYPE:
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected a body of Content-Type {JSON_TYPE}", counted="bad request"
        )
    try:
        fields = parse_object(request.get_data(cache=False))
    except ValueError as wrong:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"the body is not taken: {wrong}", counted="bad request") from None
    try:
        return model.model_validate(fields)
    except ValidationError as wrong:
        raise _unprocessable(wrong, "bad request") from None


def _query(model: type[BaseModel] | None) -> BaseModel | None:
    given = request.args
    twice = [name for name in given if len(given.getlist(name)) > 1]
    if twice:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{twice[0][:40]!r} is given more than once")
    if model is None:
        return None
    try:
        return model.model_validate_strings(given.to_dict())
    except ValidationError as wrong:
        raise _unprocessable(wrong, None) from None


def _key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key and not (len(key) <= 128 and all("!" <= letter <= "~" for letter in key)):  # noqa: PLR2004 - as documented
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "Idempotency-Key must be at most 128 printable ASCII characters without blanks",
            counted="bad request",
        )
    return key or None


def _unprocessable(wrong: ValidationError, counted: str | None) -> ApiError:
    """Every fault, without repeating what was sent: it may be anything."""
    problems = [
        f"{'.'.join(str(part)[:40] for part in fault['loc']) or 'request'}: {fault['msg']}".replace("Value error, ", "")
        for fault in wrong.errors(include_url=False, include_input=False, include_context=False)
    ][:_PROBLEMS_MAX]
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(problems), counted=counted, fields={"problems": problems}
    )
