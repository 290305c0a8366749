"""How is the API served, and stopped? waitress with total deadlines, TLS, and a thread for each event stream.

`StrictServer` refuses ambiguous requests. Here every request has a total deadline to arrive in and every answer one to
be taken in, so that whoever drips bytes, or never reads, holds a connection for a bounded time; event streams are long
by nature and are dropped by their hub instead. With a certificate it speaks https alone.

`stop` ends open streams first, then everything else, without waiting for any client.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from waitress.task import WSGITask

from controller.api.access import is_loopback
from controller.api.app import STREAM, create_app
from controller.api.auth import FILE, TokenFile
from controller.api.stream import StreamHub
from controller.api.views_telemetry import ABORT, LONG_LIVED
from controller.port import Port
from controller.settings import ApiSettings
from metrics.errors import ConfigInvalidError
from qecs.host import ClusterHost
from qecs.server import qecs_blueprint
from qecs.strict_http import StrictChannel, StrictServer

THREADS_APART = 12  # besides one for each stream
CONNECTIONS_APART = 200
IDLE_S = 60
_BUFFERED_BYTES = 262_144  # what a client may be behind before whoever answers it waits
_TLS_READ_BYTES = 65_536  # more than a TLS record, so that none is left behind where poll cannot see it

_log = logging.getLogger(f"iace.{__name__}")
logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait for a thread is no event


class ApiServer:
    """The API of one daemon.

    Args:
        port: the running daemon.
        settings: the section [api] of the configuration.
        data_dir: where the tokens are.
        host: the cluster behind an embedded plant, whose own routes are served beside ours.
    """

    def __init__(self, port: Port, settings: ApiSettings, data_dir: Path, host: object | None = None) -> None:
        self._settings = settings
        self._tokens = TokenFile(data_dir / FILE)
        routes = qecs_blueprint(host) if isinstance(host, ClusterHost) else None
        self._app = create_app(port, settings, self._tokens, routes)
        self._hub: StreamHub = self._app.extensions[STREAM]
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, port: int | None = None) -> int:
        """Bind and answer; returns the port that was bound.

        Args:
            port: instead of the configured one; 0 takes any free one.

        Raises:
            ConfigInvalidError: the address cannot be bound, or a TLS file cannot be used.
        """
        settings = self._settings
        wanted = settings.port if port is None else port
        tls = _tls(settings)
        try:
            self._server = _Server(self._app, settings, wanted, tls)
        except (OSError, ValueError) as error:
            raise ConfigInvalidError(
                "configuration", [f"api.host, api.port: {settings.host}:{wanted} cannot be bound: {error}"]
            ) from error
        self._warn()
        self._hub.start()
        self._thread = threading.Thread(target=self._server.run, name="iace-api", daemon=True)
        self._thread.start()
        return self._server.port

    @property
    def url(self) -> str:
        """Where it answers; while it does."""
        if self._server is None:
            raise RuntimeError("the API has not been started")
        scheme = "http" if self._settings.tls_cert_file is None else "https"
        host = self._settings.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    def stop(self) -> None:
        """Stop answering, within a second; stopping twice is fine."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        self._hub.stop()
        server.stop()
        server.abort_all()
        self._thread.join(timeout=1.0)

    def _warn(self) -> None:
        settings = self._settings
        if is_loopback(settings.host):
            return
        lacking = [
            text
            for lacks, text in (
                (settings.tls_cert_file is None, "TLS (api.tls_cert_file), so that tokens go over the wire in clear"),
                (not self._tokens.any(), "tokens (iace token create)"),
                (settings.anonymous_read is True, "any check of who reads (api.anonymous_read)"),
            )
            if lacks
        ]
        if lacking:
            _log.warning(
                "THE API IS OPEN TO THE NETWORK on %s WITHOUT %s", settings.host, " and without ".join(lacking)
            )


class _Task(WSGITask):  # type: ignore[misc] # waitress ships no types
    """Lets the application break its connection, or claim it for long."""

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[ABORT] = self.channel.abort
        environ[LONG_LIVED] = self.channel.live_long
        return environ


class _Channel(StrictChannel):
    """A connection with deadlines."""

    task_class = _Task

    def __init__(self, server: _Server, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on unread
        self._arriving_s: float | None = None
        self._leaving_s: float | None = None
        self._long_lived = False
        super().__init__(server, sock, *args, **kwargs)

    def handle_read(self) -> None:
        """Read what there is; waitress calls it."""
        try:
            super().handle_read()
        except _NothingYetError:
            return

    def recv(self, buffer_size: int) -> bytes:
        """Read bytes; waitress calls it, and takes any other OSError for the connection's end."""
        try:
            data: bytes = super().recv(buffer_size)
        except ssl.SSLWantReadError:
            raise _NothingYetError from None
        return data

    def received(self, data: bytes) -> bool:
        """Take bytes of a request in; see waitress."""
        before, self._leaving_s = self.request, None  # whoever sends has taken what there was
        taken: bool = super().received(data)
        if self.request is None:
            self._arriving_s = None
        elif self.request is not before:
            self._arriving_s = time.monotonic()
        return taken

    def live_long(self) -> None:
        """The answer takes as long as its client stays."""
        self._long_lived = True

    def abort(self) -> None:
        """Break the connection, from any thread, and free whoever waits for its client to read."""
        self.will_close = True
        connection = self.socket  # None once the server's thread has closed it
        if connection is not None:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        with self.outbuf_lock:
            self.connected = False
            self.outbuf_lock.notify_all()
        with suppress(OSError):  # the server may have closed its trigger
            self.server.pull_trigger()

    def hurry(self, now_s: float, deadline_s: float) -> None:
        """Break the connection if a request or an answer has been under way for too long."""
        waiting = self.total_outbufs_len > 0 and not self._long_lived
        self._leaving_s = (self._leaving_s or now_s) if waiting else None
        for since_s in (self._arriving_s, self._leaving_s):
            if since_s is not None and now_s - since_s > deadline_s:
                self.abort()
                return


class _NothingYetError(Exception):
    """TLS wants more before it gives anything."""


class _Server(StrictServer):
    """The server of the API."""

    channel_class = _Channel

    def __init__(self, application: Any, settings: ApiSettings, port: int, tls: ssl.SSLContext | None) -> None:  # noqa: ANN401 - a WSGI application
        self._deadline_s = settings.request_deadline_s
        self._tls = tls
        super().__init__(
            application,
            address=settings.host,
            port=port,
            threads=settings.streams_max + THREADS_APART,
            body_bytes_max=settings.body_max_bytes,
            connection_limit=settings.streams_max + CONNECTIONS_APART,
            channel_timeout=IDLE_S,
            cleanup_interval=1,
            outbuf_high_watermark=_BUFFERED_BYTES,
            recv_bytes=_TLS_READ_BYTES,
            log_socket_errors=False,
            url_scheme="http" if tls is None else "https",
        )

    def maintenance(self, now: float) -> None:
        """Look after all connections, about once a second; see waitress."""
        super().maintenance(now)
        now_s = time.monotonic()
        for channel in list(self.active_channels.values()):
            channel.hurry(now_s, self._deadline_s)

    def accept(self) -> tuple[socket.socket, Any] | None:
        """A new connection, over TLS where that is asked for; see waitress."""
        accepted: tuple[socket.socket, Any] | None = super().accept()
        if accepted is None or self._tls is None:
            return accepted
        plain, address = accepted
        plain.settimeout(0.0)
        secured = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        assert isinstance(secured, _TlsSocket)  # noqa: S101 - the context was told to make these
        secured.turn = threading.Lock()
        return secured, address

    def abort_all(self) -> None:
        """Break every connection."""
        for channel in list(self.active_channels.values()):
            channel.abort()


class _TlsSocket(ssl.SSLSocket):
    """A TLS socket without blocking that two threads may use. The handshake is made by the first reads."""

    turn: threading.Lock  # OpenSSL forbids reading and writing one connection at the same time

    def recv(self, *args: Any) -> bytes:  # noqa: ANN401 - handed on unread
        """As `socket.recv`; SSLWantReadError where there is nothing yet."""
        with self.turn:
            return super().recv(*args)

    def send(self, *args: Any) -> int:  # noqa: ANN401 - handed on unread
        """As `socket.send`; BlockingIOError where nothing can be sent yet."""
        try:
            with self.turn:
                return super().send(*args)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError(errno.EWOULDBLOCK, "not yet") from None


def _tls(settings: ApiSettings) -> ssl.SSLContext | None:
    """The context for https, None for http.

    Raises:
        ConfigInvalidError: a file cannot be used.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TlsSocket
    try:
        # A key that is encrypted is refused, where OpenSSL would ask the terminal for its password.
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password="")
    except OSError as error:
        raise ConfigInvalidError(
            "configuration",
            [f"api.tls_cert_file, api.tls_key_file: {settings.tls_cert_file}, {settings.tls_key_file}: {error}"],
        ) from error
    return context
