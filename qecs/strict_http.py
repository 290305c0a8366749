"""How does the HTTP server refuse what it should not take? waitress with a stricter parser and JSON errors.

waitress takes a request with both Content-Length and Transfer-Encoding, and one without Host. Both are refused here,
where the raw headers can still be seen: by the time a WSGI application runs, waitress has removed Transfer-Encoding.
Whatever waitress refuses by itself (a body or header that is too large, a broken request line) is answered as JSON too.
"""

from __future__ import annotations

import json
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.utilities import BadRequest
from waitress.wasyncore import close_all

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

BODY_BYTES_MAX = 1024 * 1024
_THREADS = 8
_POLL_S = 0.5


class _JsonError:
    """One of waitress's own errors, answered as JSON."""

    def __init__(self, error: Any) -> None:  # noqa: ANN401 # one of waitress's error classes, which have no types
        self.code: int = error.code
        self.reason: str = error.reason
        self.body: str = error.body

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status line, headers and body; waitress calls it."""
        del ident
        text = json.dumps({"status": "error", "message": f"{self.reason}: {self.body}"})
        return f"{self.code} {self.reason}", [("Content-Type", "application/json")], text.encode()


class _StrictParser(HTTPRequestParser):  # type: ignore[misc] # waitress ships no types
    """Refuses ambiguous requests and turns refusals into JSON."""

    error: Any
    refusal: str | None = None

    def received(self, data: bytes) -> int:
        """Take in bytes of a request; see waitress."""
        consumed: int = super().received(data)
        if self.error is None and self.refusal is not None:
            self.error = BadRequest(self.refusal)
            self.completed = True
        if self.error is not None and not isinstance(self.error, _JsonError):
            self.error = _JsonError(self.error)
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse and judge the head of a request; see waitress, which calls it outside of any handler, too."""
        super().parse_header(header_plus)
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            self.refusal = "both Content-Length and Transfer-Encoding are given"
        elif "HOST" not in self.headers:
            self.refusal = "the Host header is missing"


class StrictChannel(HTTPChannel):  # type: ignore[misc] # waitress ships no types
    """A connection that reads with the strict parser."""

    parser_class = _StrictParser


class StrictServer(TcpWSGIServer):  # type: ignore[misc] # waitress ships no types
    """An HTTP server that is bound at once, serves in `run`, and can be stopped from any thread.

    Args:
        application: what answers.
        address: IP address or host name to bind.
        port: TCP port, 0 for any free one.
        threads: how many requests are answered at once.
        body_bytes_max: longest body of a request, bytes.
        adjustments: further settings of waitress.

    Raises:
        OSError: the address cannot be bound.
    """

    channel_class = StrictChannel

    def __init__(
        self,
        application: WSGIApplication,
        *,
        address: str,
        port: int,
        threads: int = _THREADS,
        body_bytes_max: int = BODY_BYTES_MAX,
        **adjustments: object,
    ) -> None:
        self._stop_wanted = Event()
        settings = Adjustments(
            host=address,
            port=port,
            threads=threads,
            max_request_body_size=body_bytes_max + 1,  # waitress refuses this size as well
            asyncore_use_poll=True,
            ident=None,
            **adjustments,
        )
        try:
            super().__init__(application, adj=settings)
        except OSError:
            # waitress leaves behind what it had made before the address turned out to be taken.
            self.task_dispatcher.shutdown()
            self.trigger.close()
            self.socket.close()
            raise

    @property
    def port(self) -> int:
        """The TCP port it is bound to."""
        return int(self.effective_port)

    def run(self) -> None:
        """Serve until `stop` is called; what is in progress then may go unanswered."""
        while not self._stop_wanted.is_set():
            self.asyncore.loop(timeout=_POLL_S, map=self._map, use_poll=True, count=1)
        self.task_dispatcher.shutdown()
        close_all(self._map)

    def stop(self) -> None:
        """Let `run` return; may be called from any thread and from a signal handler."""
        self._stop_wanted.set()
        with suppress(OSError):  # `run` may have seen it already, and closed the trigger
            self.pull_trigger()
