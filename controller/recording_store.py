"""A recording out of a store: `kpi.*`, `parameter.*`, `node.<id>.gravity`, and the signals of nodes on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from controller.recording import GRAVITY, Recording, assemble
from metrics.errors import BadDataError, StoreFailedError
from metrics.observation import SIGNAL_NAMES
from metrics.store.protocol import Sample
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import NS_PER_S

_START_NS, _END_NS = -(2**63), 2**63 - 1


class Readable(Protocol):
    """The reading half of a store."""

    def series(self) -> tuple[str, ...]:
        """The names of all series that have samples, sorted."""
        ...

    def range(self, series: str, start_ns: int, end_ns: int) -> list[Sample]:
        """The samples of a series in time order; empty for an unknown series."""
        ...

    def latest(self, series: str) -> Sample | None:
        """The newest sample, None for an unknown series."""
        ...


def read(path: Path) -> Recording:
    """The recording in the telemetry store at `path`.

    Raises:
        BadDataError: the file is no store of ours, or damaged.
        NotPermittedError: the operating system forbids it.
    """
    try:
        store = SqliteStore(path)
        try:
            return recorded(store, str(path))
        finally:
            store.close()
    except StoreFailedError as error:
        raise BadDataError(str(error)) from error


def recorded(store: Readable, source: str, *, last_s: float | None = None, signals: bool = False) -> Recording:
    """The recording in `store`.

    Args:
        store: what is read.
        source: what it is called, for people.
        last_s: only so many seconds before the newest KPI; None for all.
        signals: whether the nodes' signals are read as well, which is a series for each node and signal.

    Raises:
        StoreFailedError: the store cannot be read.
        BadDataError: there is too much to be held in memory.
    """
    names = store.series()
    start_ns = _START_NS if last_s is None else _newest_ns(store, names) - round(last_s * NS_PER_S) + 1
    cells = {}
    for name in names:
        key = _key(name, signals=signals)
        if key is not None:
            samples = store.range(name, start_ns, _END_NS)
            cells[key] = {sample.at_ns / NS_PER_S: sample.value for sample in samples}
    return assemble(source, cells, (), sum(map(len, cells.values())))


def _key(name: str, *, signals: bool) -> tuple[str, str] | None:
    """Node, "" for the whole plant, and metric of a series; None for one that is not wanted."""
    kind, _, rest = name.partition(".")
    node, _, metric = rest.rpartition(".")
    if kind == "node" and metric in SIGNAL_NAMES:
        return (node, metric) if signals else None
    return (node, metric) if kind == "node" and metric == GRAVITY else ("", rest)


def _newest_ns(store: Readable, names: tuple[str, ...]) -> int:
    newest = (store.latest(name) for name in names if name.startswith("kpi."))
    return max((sample.at_ns for sample in newest if sample is not None), default=0)
