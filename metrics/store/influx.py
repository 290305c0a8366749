"""Telemetry in InfluxDB, behind a spool: a `Store` whose writes wait for nothing and are lost by no outage.

`write` hands the points over and returns; `accounts` tells what became of them. A read first waits, for a moment, until
what was written before has arrived, then asks the server.

In the store's directory: `spool/` with what has not been sent, `refused.jsonl` with what the server would not take.

Left out: roll-ups, which are the server's business (continuous queries, tasks), and creating databases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from metrics.errors import IaceError, NotPermittedError, StoreFailedError
from metrics.store.dead_letter import DeadLetter
from metrics.store.influx_client import InfluxClient, InfluxTarget
from metrics.store.influx_history import InfluxHistory
from metrics.store.influx_lines import Lines, LineWriter
from metrics.store.outbox import CLOSE_TIMEOUT_S, Outbox, Pace
from metrics.store.protocol import Aggregate, Point, Sample, WriteResult
from metrics.store.spool import Spool
from metrics.store_writer import StoreAccounts

SPOOL_BYTES_MAX = 256 * 2**20  # an hour of 4,000 series a second, compressed
DEAD_LETTER_BYTES_MAX = 8 * 2**20
READ_PATIENCE_S = 2.0  # how long a read waits for what was written before it


class InfluxStore:
    """A `Store` in the bucket of `target`.

    Points of another process or an earlier one that are in the spool are sent first, and count as produced.

    Args:
        target: the server and the bucket, which must exist.
        directory: for the spool and the refused lines; created where it is missing, one process at a time.
        plant: tag of everything that is written, and what is read.
        run: tag of what concerns the whole plant.
        cluster_of: the cluster of a node, for its tag.
        spool_bytes_max: bound on the spool; beyond it the oldest go.
        pace: batches, delays and back-off.

    Raises:
        StoreFailedError: the directory cannot be used, or the URL is none. A server that is away is no error.
        NotPermittedError: the operating system forbids it.
    """

    def __init__(
        self,
        target: InfluxTarget,
        directory: Path,
        *,
        plant: str,
        run: str,
        cluster_of: Callable[[str], str] = lambda _: "",
        spool_bytes_max: int = SPOOL_BYTES_MAX,
        pace: Pace | None = None,
    ) -> None:
        self._target = target
        self._lines = LineWriter(plant, run, cluster_of)
        self._closed = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except PermissionError as error:
            raise NotPermittedError(f"{directory} cannot be created ({error})") from error
        except OSError as error:
            raise StoreFailedError(f"{directory} cannot be created: {error}") from error
        spool = Spool(directory / "spool", spool_bytes_max)
        self._client = InfluxClient(target)
        self._history = InfluxHistory(self._client, plant)
        dead_letter = DeadLetter(directory / "refused.jsonl", DEAD_LETTER_BYTES_MAX)
        self._outbox = Outbox(spool, self._client.send, dead_letter, pace)

    @property
    def failure(self) -> IaceError | None:
        """Why nothing is sent at the moment; None when all is well."""
        return self._outbox.failure

    def accounts(self) -> StoreAccounts:
        """What became of the points so far: produced = written + rejected + dropped + buffered."""
        return self._outbox.accounts()

    def write(self, points: Iterable[Point]) -> WriteResult:
        """Take points over; "written" ones are on their way. Waits for nobody; for one thread, as are the next two."""
        self._must_be_open()
        return self._put(self._lines.points(points))

    def write_nodes(
        self, signals: Mapping[str, Iterable[float]], nodes: Iterable[str], status: Iterable[str], at_ns: int
    ) -> WriteResult:
        """Take one point for each node over, with all its signals and its status; see `LineWriter.nodes`."""
        self._must_be_open()
        return self._put(self._lines.nodes(signals, nodes, status, at_ns))

    def write_event(self, *, kind: str, state: str, text: str, seq: int, at_ns: int) -> WriteResult:
        """Take an event over; `seq` is its number in the journal, `at_ns` nanoseconds UTC."""
        self._must_be_open()
        return self._put(self._lines.event(kind=kind, state=state, text=text, seq=seq, at_ns=at_ns))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was written before has arrived; False when it has not in time, or the server is away."""
        return self._outbox.flush(timeout_s)

    def range(self, series: str, start_ns: int, end_ns: int) -> list[Sample]:
        """The samples of a series in time order; empty for an unknown series."""
        return self._reading().range(series, start_ns, end_ns)

    def aggregate(self, series: str, start_ns: int, end_ns: int, step_ns: int, how: Aggregate) -> list[Sample]:
        """One sample for each step that has any, at the step's start; steps are counted from `start_ns`.

        Raises:
            ValueError: `step_ns` is not positive.
        """
        return self._reading().aggregate(series, start_ns, end_ns, step_ns, how)

    def latest(self, series: str) -> Sample | None:
        """The newest sample, None for an unknown series."""
        return self._reading().latest(series)

    def series(self) -> tuple[str, ...]:
        """The names of all series that have samples, sorted."""
        return self._reading().series()

    def retain(self, before_ns: int) -> int:
        """Forget every sample older than `before_ns`; how many went. 3.x refuses: use its own retention."""
        return self._reading().retain(before_ns)

    def check(self) -> None:
        """Raise unless the bucket can be read and what was written gets there."""
        self._reading().check()
        if self.failure is not None:
            raise self.failure

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what can be sent within `timeout_s`, and leave the rest in the spool for the next start."""
        self._closed = True
        self._outbox.close(timeout_s)
        self._client.close()

    def _put(self, points: Lines) -> WriteResult:
        self._outbox.put(points.lines, points.rejected)
        return WriteResult(len(points.lines), points.rejected)

    def _reading(self) -> InfluxHistory:
        self._must_be_open()
        self._outbox.flush(READ_PATIENCE_S)
        return self._history

    def _must_be_open(self) -> None:
        if self._closed:
            raise StoreFailedError(f"{self._target.name} is closed")
