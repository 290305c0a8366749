"""How is one HTTP request made that ends, whatever the server does, by its deadline?

The deadline is total: it covers name resolution, connecting, TLS, the request and the whole answer, so a server that
drips a byte a second, or hangs within its headers, costs no more than one that answers nothing. Answers are bounded in
size, redirects are not followed, and proxies of the environment are not used.

One connection is kept alive and re-used. The server may close it just as a request is sent, and then nobody knows
whether the request was read: one that is safe to repeat is sent again on a fresh connection, one that is not is never
sent on a used connection at all. Which is safe is for the caller to say. It leaves out what an answer means;
`client.py` has that.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from controller.plants.connection import TimedConnection
from controller.plants.endpoint import Endpoint, checked_token
from metrics.errors import PlantUnavailableError

ANSWER_MAX_BYTES: Final = 64 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
_CLOSED_BY_SERVER: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: the HTTP status, the headers by lower-case name, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Requests to one server over one kept-alive connection; safe to share between threads, one request at a time.

    Args:
        endpoint: the server.
        token: sent as a bearer token; never shown in a message.

    Attributes:
        answer_max_bytes: an answer that is longer is refused.

    Raises:
        ConfigInvalidError: the token cannot stand in a header.
    """

    def __init__(self, endpoint: Endpoint, *, token: str | None = None) -> None:
        self.answer_max_bytes = ANSWER_MAX_BYTES
        self._endpoint = endpoint
        self._headers = {"Accept": "application/json", "User-Agent": "iace"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {checked_token(token)}"
        self._connection: TimedConnection | None = None
        self._turn = threading.Lock()

    def request(
        self, method: str, route: str, *, deadline_s: float, body: bytes | None = None, repeatable: bool
    ) -> Answer:
        """Send one request and read its whole answer.

        Args:
            method: HTTP method.
            route: path and query below the endpoint's prefix, already percent-encoded.
            deadline_s: the time that all of it may take, s.
            body: JSON, or None for a request without one.
            repeatable: True where sending it twice has no further effect.

        Raises:
            PlantUnavailableError: no whole answer by the deadline; the effect of the request is unknown.
        """
        what = f"{method} {self._endpoint.url}{route}"
        ends_s = time.monotonic() + deadline_s
        if not self._turn.acquire(timeout=max(0.0, deadline_s)):
            raise PlantUnavailableError(f"{what}: another request held the connection for all of {deadline_s:g} s")
        try:
            return self._exchange(method, route, body, ends_s, repeatable=repeatable)
        except TimeoutError as error:
            self._drop()
            raise PlantUnavailableError(
                f"{what}: expected an answer within {deadline_s:g} s, but it was not complete by then; "
                "see whether the plant is overloaded, or allow it more time"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            raise PlantUnavailableError(f"{what}: expected an HTTP answer, {_came(error)}") from error
        except BaseException:
            self._drop()  # an interrupt leaves half an exchange on the connection
            raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """Let go of the connection; a later request opens a new one."""
        with self._turn:
            self._drop()

    def _exchange(self, method: str, route: str, body: bytes | None, ends_s: float, *, repeatable: bool) -> Answer:
        if repeatable and self._connection is not None and self._connection.is_idle():
            with suppress(*_CLOSED_BY_SERVER):
                return self._send_and_read(self._connection, method, route, body, ends_s)
        self._drop()
        self._connection = TimedConnection(self._endpoint)
        return self._send_and_read(self._connection, method, route, body, ends_s)

    def _send_and_read(
        self, connection: TimedConnection, method: str, route: str, body: bytes | None, ends_s: float
    ) -> Answer:
        connection.ends_s = ends_s
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        connection.request(method, self._endpoint.prefix + route, body=body, headers=headers)
        with connection.getresponse() as response:
            answer = Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=self._read_bounded(response),
            )
        if response.will_close:
            self._drop()
        return answer

    def _read_bounded(self, response: http.client.HTTPResponse) -> bytes:
        limit = self.answer_max_bytes
        if response.length is not None and response.length > limit:
            raise _TooLongError(f"{response.length} bytes long and at most {limit} are read; ask for less")
        chunks: list[bytes] = []
        left = limit + 1
        while left > 0 and (chunk := response.read(min(left, _CHUNK_BYTES))):
            chunks.append(chunk)
            left -= len(chunk)
        if left == 0:
            raise _TooLongError(f"longer than the {limit} bytes that are read; ask for less")
        if response.length:
            raise http.client.IncompleteRead(b"".join(chunks), response.length)
        return b"".join(chunks)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _TooLongError(http.client.HTTPException):
    """The answer is longer than is read."""


_CAUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ConnectionRefusedError, "but nothing listens there; start the plant or correct the URL"),
    (socket.gaierror, "but the host's name cannot be resolved ({error}); correct the URL"),
    (ssl.SSLCertVerificationError, "but its certificate is not trusted ({error}); install its authority"),
    (ssl.SSLError, "but TLS failed ({error}); see whether the server speaks https"),
    (_TooLongError, "but it is {error}"),
    (http.client.RemoteDisconnected, "but the server closed the connection without one; look into the plant's log"),
    (http.client.IncompleteRead, "but it broke off before its end; look into the plant's log"),
    (OSError, "but the connection failed ({error}); see whether the plant runs and can be reached"),
    (Exception, "but what came is not HTTP ({error!r}); see what listens at that address"),
)


def _came(error: Exception) -> str:
    """What came instead of an answer, and what to do about it: the first cause that fits."""
    return next(text for kind, text in _CAUSES if isinstance(error, kind)).format(error=error)
