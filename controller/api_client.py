"""How do commands speak to a running daemon? Requests to its HTTP API, each with a total deadline.

Names of errors say what the caller should do: see to the daemon (`ApiUnreachableError`, exit code 69), get another
token (`NotPermittedError`, 77), or read why the answer is no (`ApiRefusedError`, 1). The token is sent and never shown;
it is not sent over plain http to another machine.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from controller.plants.connection import TimedConnection
from controller.plants.endpoint import Endpoint, parse_endpoint
from controller.wording import printable
from metrics.errors import ConfigInvalidError, NotPermittedError, PlantUnavailableError, RequestRefusedError

DEFAULT_URL = "http://127.0.0.1:8470"
DEADLINE_S = 10.0  # a command waits up to 5 s for its turn
SILENCE_MAX_S = 45.0  # three heartbeats of an event stream
_ANSWER_BYTES_MAX = 64 * 1024 * 1024
_LINE_BYTES_MAX = 1024 * 1024
_FORBIDDEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Json = dict[str, Any]


class ApiUnreachableError(PlantUnavailableError):
    """The daemon's API did not answer, or not in time, or not like ours: start the daemon, or correct the address."""


class ApiRefusedError(RequestRefusedError):
    """The API said no: `status` is the HTTP status, `answer` what it told."""

    def __init__(self, status: int, answer: Mapping[str, Any]) -> None:
        self.status = status
        self.answer = answer
        super().__init__(printable(str(answer.get("message", f"HTTP status {status}"))))


class ApiClient:
    """Asks one daemon; every request has a connection of its own.

    Args:
        url: base address of the API.
        token: bearer token, None to go without.
        deadline_s: total time of one request.

    Raises:
        ConfigInvalidError: the address or the token cannot be used.
        NotPermittedError: the token would go over the network in clear.
    """

    def __init__(self, url: str, token: str | None = None, deadline_s: float = DEADLINE_S) -> None:
        self._endpoint = _endpoint(url)
        self._deadline_s = deadline_s
        self._headers = {"Accept": "application/json", "User-Agent": "iace", "Connection": "close"}
        if token is not None:
            if self._endpoint.scheme == "http" and self._endpoint.host not in _LOOPBACK:
                raise NotPermittedError(f"the token is not sent in clear to {self._endpoint.url}: use https")
            self._headers["Authorization"] = f"Bearer {token}"

    @property
    def url(self) -> str:
        """The address in its plain form."""
        return self._endpoint.url

    def get(self, *path: str, **query: object) -> Json:
        """What the route `path`, given in its parts, answers.

        Raises:
            ApiUnreachableError, NotPermittedError, ApiRefusedError: as the module's docstring says.
        """
        given = {name: value for name, value in query.items() if value is not None}
        return self._asked("GET", _route(path) + (f"?{urlencode(given)}" if given else ""), None, {})

    def post(self, *path: str, body: Mapping[str, object], key: str) -> Json:
        """Give a command, under an idempotency key.

        Raises:
            ApiUnreachableError, NotPermittedError, ApiRefusedError: as for `get`.
        """
        given = {name: value for name, value in body.items() if value is not None}
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return self._asked("POST", _route(path), json.dumps(given).encode(), headers)

    def events(self, last_id: str | None = None) -> Iterator[tuple[str, Json]]:
        """Every tick as it comes, as its id and what it tells, until the daemon ends the stream.

        Raises:
            ApiUnreachableError, NotPermittedError, ApiRefusedError: as for `get`.
        """
        headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
        with closing(TimedConnection(self._endpoint)) as connection:
            try:
                response = self._sent(connection, "GET", "/api/telemetry/stream", None, headers)
                if response.status != HTTPStatus.OK:
                    _raise(response.status, self._parsed(response.read(_LINE_BYTES_MAX)))
                yield from self._event_lines(connection, response)
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error

    def _event_lines(
        self, connection: TimedConnection, response: http.client.HTTPResponse
    ) -> Iterator[tuple[str, Json]]:
        fields: dict[str, str] = {}
        while line := response.readline(_LINE_BYTES_MAX):
            connection.ends_s = time.monotonic() + SILENCE_MAX_S
            text = line.decode("utf-8", "replace").rstrip("\n")
            if text:
                name, _, value = text.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields.get("id", ""), self._parsed(fields["data"].encode())
                fields = {}

    def _asked(self, method: str, route: str, body: bytes | None, headers: Mapping[str, str]) -> Json:
        with closing(TimedConnection(self._endpoint)) as connection:
            try:
                response = self._sent(connection, method, route, body, headers)
                raw = response.read(_ANSWER_BYTES_MAX + 1)
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
        if len(raw) > _ANSWER_BYTES_MAX:
            raise ApiUnreachableError(f"what {self.url} answers is too long to be ours")
        answer = self._parsed(raw)
        if response.status != HTTPStatus.OK:
            _raise(response.status, answer)
        return answer

    def _sent(
        self, connection: TimedConnection, method: str, route: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        connection.ends_s = time.monotonic() + self._deadline_s
        connection.request(method, self._endpoint.prefix + route, body=body, headers={**self._headers, **headers})
        return connection.getresponse()

    def _parsed(self, raw: bytes) -> Json:
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ApiUnreachableError(f"what listens at {self.url} is no IACE daemon: it does not answer in JSON")
        return answer

    def _unreachable(self, error: Exception) -> ApiUnreachableError:
        why = next(text for kind, text in _CAUSES if isinstance(error, kind)).format(error=error)
        return ApiUnreachableError(f"the API at {self.url} cannot be reached: {why}")


_CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionRefusedError, "nothing listens there; start iace govern, or name another address with --api"),
    (TimeoutError, "no whole answer in time; see whether the daemon is overloaded"),
    (socket.gaierror, "the host's name cannot be resolved ({error}); correct --api"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted ({error}); name its authority in SSL_CERT_FILE"),
    (ssl.SSLError, "TLS failed ({error}); see whether it speaks https"),
    (OSError, "the connection failed ({error})"),
    (Exception, "what came is not HTTP ({error!r}); see what listens there, and whether it speaks https"),
)


def _endpoint(url: str) -> Endpoint:
    try:
        return parse_endpoint(url)
    except ConfigInvalidError as invalid:
        raise ConfigInvalidError("--api", invalid.problems) from invalid


def _route(parts: tuple[str, ...]) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _raise(status: int, answer: Json) -> None:
    if status in _FORBIDDEN:
        raise NotPermittedError(
            f"{printable(str(answer.get('message', 'not permitted')))}; name a token's file with --token-file, or set "
            "IACE_TOKEN"
        )
    raise ApiRefusedError(status, answer)
