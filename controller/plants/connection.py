"""How does a connection wait no longer than until a moment, however slowly the server sends?

`http.client` knows only a timeout for each single read, so a server that drips a byte a second could hold a caller
for ever. Here every read and write is armed with what is left until `ends_s`, and so are name resolution, connecting
and the TLS handshake. It leaves out requests and their repetition; `transport.py` has them.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time
from typing import Any

from controller.plants.endpoint import Endpoint


class TimedConnection(http.client.HTTPConnection):
    """A connection each of whose waits ends at `ends_s` (monotonic time)."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self._tls = _tls_context() if endpoint.scheme == "https" else None
        self.ends_s = 0.0

    def connect(self) -> None:
        """Try the host's addresses one after the other until one answers or the deadline has come."""
        refused: OSError | None = None
        for family, kind, protocol, _, address in _resolve(self.host, self.port, _left_s(self.ends_s)):
            plain = _TimedSocket(family, kind, protocol)
            plain.connection = self
            try:
                plain.settimeout(_left_s(self.ends_s))
                plain.connect(address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sock = plain if self._tls is None else self._secured(plain, self._tls)
            except TimeoutError:
                plain.close()
                raise
            except OSError as error:
                plain.close()
                refused = error
            else:
                return
        raise refused or OSError(f"no address for {self.host}")

    def is_idle(self) -> bool:
        """True where the connection is open and the server has neither closed it nor sent anything unasked."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def _secured(self, plain: _TimedSocket, tls: ssl.SSLContext) -> ssl.SSLSocket:
        secured = tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        assert isinstance(secured, _TimedTlsSocket)  # noqa: S101 - the context was told to make these
        secured.connection = self
        try:
            secured.settimeout(_left_s(self.ends_s))
            secured.do_handshake()
        except OSError:
            secured.close()  # it has taken over the plain socket
            raise
        return secured


class _TimedSocket(socket.socket):
    """A socket that waits no longer than its connection's deadline, read by read and write by write."""

    connection: TimedConnection

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - handed on unread
        self.settimeout(_left_s(self.connection.ends_s))
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on unread
        self.settimeout(_left_s(self.connection.ends_s))
        super().sendall(*args, **kwargs)


class _TimedTlsSocket(ssl.SSLSocket):
    """The same over TLS."""

    connection: TimedConnection

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - handed on unread
        self.settimeout(_left_s(self.connection.ends_s))
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - handed on unread; `sendall` is made of sends
        self.settimeout(_left_s(self.connection.ends_s))
        return super().send(*args, **kwargs)


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _TimedTlsSocket
    return context


def _left_s(ends_s: float) -> float:
    left_s = ends_s - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError
    return left_s


def _resolve(host: str, port: int, timeout_s: float) -> list[Any]:
    """The addresses of `host`. The system's resolver knows no deadline, hence the thread that may be left behind."""
    found: list[Any] = []
    failed: list[OSError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, name="iace-resolve", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError
    if failed:
        raise failed[0]
    return found
