"""What does an answer of the plant's server mean? From HTTP statuses to values and to the kinds of `PlantError`.

| answer | meaning |
|---|---|
| 2xx with a JSON object | the value |
| 404, 405 or 501 where nothing but the route itself can be missing | `UnsupportedError` |
| 408, 429, 1xx, 3xx, other 5xx, whatever is no JSON object | `PlantUnavailableError`: the effect is unknown |
| any other 4xx | `PlantRefusedError` in the server's own words |

It leaves out which routes there are; `http.py` knows them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from controller.plants.endpoint import Endpoint
from controller.plants.plant import CommitAnswer
from controller.plants.transport import Answer, Transport
from controller.plants.wire import Fields, excerpt, parse_fields
from metrics.errors import PlantError, PlantRefusedError, PlantUnavailableError, UnsupportedError

_PERMISSION: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_MISSING: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
_BUSY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_REFUSALS: Final = range(400, 500)
_SUCCESSES: Final = range(200, 300)
_WORDS_CHARACTERS: Final = 1000  # a server may list every problem of what it refuses


class PermissionRefusedError(PlantRefusedError):
    """The server wants a token, or another one."""


class Deadline:
    """The moment by which a call, however many requests it makes, has to be over."""

    def __init__(self, deadline_s: float) -> None:
        self._ends_s = time.monotonic() + deadline_s

    @property
    def left_s(self) -> float:
        """What is left of it, s; never negative."""
        return max(0.0, self._ends_s - time.monotonic())


class Client:
    """Reads from and writes to one server; raises nothing but `PlantError`.

    Args:
        endpoint: the server.
        transport: carries the requests there.
    """

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport

    def get(self, route: str, deadline: Deadline, *, offers: str | None = None) -> Fields:
        """The object that a route answers with.

        Args:
            route: path and query, percent-encoded.
            deadline: of the call.
            offers: the capability that is missing where the route is; None where 404 may as well speak of what was
                asked for.

        Raises:
            PlantUnavailableError: no intelligible answer in time.
            PlantRefusedError: the server said no.
            UnsupportedError: the route is missing.
        """
        answer = self._transport.request("GET", route, deadline_s=deadline.left_s, repeatable=True)
        return self._value(answer, f"GET {route}", offers)

    def find(self, route: str, deadline: Deadline) -> Fields | None:
        """The same for a route that a server need not have: None where it is missing."""
        answer = self._transport.request("GET", route, deadline_s=deadline.left_s, repeatable=True)
        return None if answer.status in _MISSING else self._value(answer, f"GET {route}", None)

    def write(
        self, method: str, route: str, body: Mapping[str, object], deadline: Deadline, *, offers: str | None
    ) -> Fields:
        """Send a write that carries an idempotency key, and so may be sent again; errors as for `get`."""
        answer = self._transport.request(
            method, route, deadline_s=deadline.left_s, body=encoded(body, route), repeatable=True
        )
        return self._value(answer, f"{method} {route}", offers)

    def commit(self, route: str, transaction: Mapping[str, object], deadline: Deadline) -> CommitAnswer:
        """Offer a transaction, once: whether a server executes it twice is what a probe may be about.

        A refusal of the transaction is an answer; a refusal to look at it is an error.

        Raises:
            PlantUnavailableError: no intelligible answer in time; whether it was executed is unknown.
            PlantRefusedError: the server does not let us offer transactions.
            UnsupportedError: the route is missing.
        """
        answer = self._transport.request(
            "POST", route, deadline_s=deadline.left_s, body=encoded(transaction, route), repeatable=False
        )
        judged = answer.status in _REFUSALS and answer.status not in _PERMISSION | _MISSING | _BUSY
        if not judged:
            fields = self._value(answer, f"POST {route}", "commit")
        elif (words := self._words(answer)) is None:
            return CommitAnswer(answer.status, "REJECTED", {"reason": excerpt(_text(answer))})
        else:
            fields = words
        status = fields.values.get("status")
        return CommitAnswer(answer.status, status if isinstance(status, str) else "", fields.values)

    def _value(self, answer: Answer, what: str, offers: str | None) -> Fields:
        if answer.status in _SUCCESSES:
            return parse_fields(answer.body, f"{what} at {self._endpoint.url}")
        raise self._error(answer, what, offers)

    def _error(self, answer: Answer, what: str, offers: str | None) -> PlantError:
        status = answer.status
        if status in _MISSING and offers is not None:
            return UnsupportedError(f"{offers} ({self._endpoint.url} has no route {what})")
        words = self._words(answer)
        said = excerpt(_reason(words) or _text(answer), _WORDS_CHARACTERS) or "nothing more"
        if status in _REFUSALS and status not in _BUSY:
            kind = PermissionRefusedError if status in _PERMISSION else PlantRefusedError
            return kind(what, f"{said} (HTTP {status})")
        if "location" in answer.headers:
            target = excerpt(answer.headers["location"])
            said = f"a redirect to {target}, which is not followed; configure that URL if it is to be trusted"
        return PlantUnavailableError(
            f"{what} at {self._endpoint.url}: expected an answer, but HTTP {status} came, saying: {said}"
        )

    def _words(self, answer: Answer) -> Fields | None:
        """The object in the body of an error; None where there is none."""
        try:
            return parse_fields(answer.body, self._endpoint.url)
        except PlantUnavailableError:
            return None


def encoded(body: Mapping[str, object], what: str) -> bytes:
    """The JSON of a request.

    Raises:
        PlantRefusedError: it holds what JSON cannot say, such as NaN; nothing was sent.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PlantRefusedError(what, f"the request cannot be written as JSON ({error})") from error


def _reason(words: Fields | None) -> str:
    if words is None:
        return ""
    found = (words.values.get(name) for name in ("message", "reason", "error"))
    return next((text for text in found if isinstance(text, str)), "")


def _text(answer: Answer) -> str:
    return answer.body[:1000].decode("utf-8", "replace")
