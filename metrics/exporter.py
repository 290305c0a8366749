"""The metrics for Prometheus: published by the loop, scraped by whoever likes, without either waiting for the other.

    exporter = Exporter(clock.monotonic_s)
    exporter.publish(snapshot)            # one assignment; the scrape under way keeps the snapshot that it has
    exporter.scrape(accept).body          # one snapshot, never halves of two

A scrape is rendered in the thread that asks. Series are bounded by whoever builds the snapshot. Every exporter has a
registry of its own, without the process metrics of the global one; its counters carry no creation time, so there are no
`_created` series. For runs that end before anybody scrapes there are a file and a push.

Left out: who may scrape, and where; `wsgi` is mounted by the server.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import push_to_gateway
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from metrics import exposition
from metrics.errors import IaceError, NotPermittedError, StoreFailedError
from metrics.export_snapshot import ExportSnapshot

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

JOB = "iace_run"  # told apart from the daemon, which is scraped as "iace"
PUSH_DEADLINE_S = 5.0

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_METHODS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Scrape:
    """The answer to one scrape."""

    content_type: str
    body: bytes


class Exporter(Collector):
    """Shows the snapshot that was published last; before the first there is nothing to show.

    Args:
        clock: monotonic seconds, the clock that `received_s` of a snapshot was read from.

    Attributes:
        registry: a registry of its own, for whatever in `prometheus_client` wants one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._snapshot: ExportSnapshot | None = None
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def publish(self, snapshot: ExportSnapshot) -> None:
        """Show `snapshot` from now on; returns at once."""
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """The families of the present snapshot."""
        snapshot = self._present()
        return iter(()) if snapshot is None else exposition.families(snapshot)

    def scrape(self, accept: str = "") -> Scrape:
        """The present snapshot as OpenMetrics where `accept` asks for that, else in Prometheus' text format."""
        openmetrics = any(
            part.split(";")[0].strip().lower() == "application/openmetrics-text" for part in accept.split(",")
        )
        snapshot = self._present()
        content_type = exposition.OPENMETRICS_TYPE if openmetrics else exposition.TEXT_TYPE
        if snapshot is None:
            return Scrape(content_type, b"# EOF\n" if openmetrics else b"")
        return Scrape(content_type, exposition.render(snapshot, openmetrics_text=openmetrics))

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """A WSGI application that answers scrapes at whatever path it is mounted."""
        method = str(environ["REQUEST_METHOD"])
        if method not in _METHODS:
            refusal = b"metrics are only read: GET or HEAD\n"
            headers = [
                ("Allow", ", ".join(_METHODS)),
                ("Content-Type", "text/plain"),
                ("Content-Length", str(len(refusal))),
            ]
            start_response("405 Method Not Allowed", headers)
            return [refusal]
        scrape = self.scrape(str(environ.get("HTTP_ACCEPT", "")))
        start_response("200 OK", [("Content-Type", scrape.content_type), ("Content-Length", str(len(scrape.body)))])
        return [] if method == "HEAD" else [scrape.body]

    def write_textfile(self, path: Path) -> None:
        """Write the present snapshot for node_exporter's textfile collector, whole or not at all.

        The file has to end in `.prom` to be collected. Everybody may read it, as far as the umask allows.

        Raises:
            NotPermittedError: the operating system forbids it.
            StoreFailedError: its directory is missing, the disk is full or failed.
        """
        try:
            with _beside(path) as (file, temporary):
                file.write(self.scrape().body)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
        except OSError as error:
            raise _explained(path, error) from error

    def push(self, url: str, grouping: Mapping[str, str], deadline_s: float = PUSH_DEADLINE_S) -> None:
        """Push the present snapshot to a Pushgateway, in place of what it has for this grouping.

        The deadline is for all of it, looking the name up and a dripping answer included: what takes longer is left to
        itself, in a thread that ends with the process.

        Raises:
            StoreFailedError: it did not take it, or not in time; nothing else depends on that, so a caller may go on.
        """
        where, failed = gateway_name(url), list[Exception]()
        present = _Pushed(self._present())

        def attempt() -> None:
            try:
                push_to_gateway(url, JOB, present, dict(grouping), timeout=deadline_s)
            except Exception as error:  # noqa: BLE001 - handed over to the thread that waits
                if isinstance(error, HTTPError):
                    error.close()
                failed.append(error)

        pushing = threading.Thread(target=attempt, name="iace-push", daemon=True)
        pushing.start()
        pushing.join(deadline_s)
        if pushing.is_alive():
            raise StoreFailedError(f"the Pushgateway at {where} did not take the metrics within {deadline_s:g} s")
        if failed:
            raise StoreFailedError(f"the Pushgateway at {where} did not take the metrics: {failed[0]}") from failed[0]

    def _present(self) -> ExportSnapshot | None:
        snapshot = self._snapshot  # read once: what is published meanwhile is for the next scrape
        if snapshot is None or snapshot.received_s is None:
            return snapshot
        return replace(snapshot, observation_age_s=max(0.0, self._clock() - snapshot.received_s))


class _Pushed(Collector):
    """One snapshot for the library's client."""

    def __init__(self, snapshot: ExportSnapshot | None) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return iter(()) if self._snapshot is None else exposition.families(self._snapshot)


def require_writable(path: Path) -> None:
    """Make sure that a file can be written to `path`, without touching what is there.

    Raises:
        NotPermittedError, StoreFailedError: it cannot, as for `Exporter.write_textfile`.
    """
    try:
        with _beside(path):
            pass
    except OSError as error:
        raise _explained(path, error) from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A file beside `path` under a name of its own, which is gone afterwards unless it was moved away."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file, temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def gateway_name(url: str) -> str:
    """The address of a Pushgateway as it may be told, without anything secret.

    Raises:
        ValueError: it is no http or https address with a host, or holds a user, password, query or fragment, which
            would be printed and logged with it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("must be an http:// or https:// address with a host, e.g. http://127.0.0.1:9091")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must hold no user, password, query or fragment")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _explained(path: Path, error: OSError) -> IaceError:
    text = f"the metrics cannot be written to {path}: {error.strerror or error}"
    if error.errno in _FORBIDDEN:
        return NotPermittedError(f"{text}; choose another file with --textfile")
    return StoreFailedError(f"{text}; free space or choose another file with --textfile")
