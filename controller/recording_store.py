"""A recording out of a telemetry store of ours: `kpi.*`, `parameter.*` and `node.<id>.gravity`."""

from __future__ import annotations

from pathlib import Path

from controller.recording import GRAVITY, Recording, assemble
from metrics.errors import BadDataError, StoreFailedError
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import NS_PER_S

_START_NS, _END_NS = -(2**63), 2**63 - 1


def read(path: Path) -> Recording:
    """The recording in the store at `path`.

    Raises:
        BadDataError: the file is no store of ours, or damaged.
        NotPermittedError: the operating system forbids it.
    """
    try:
        store = SqliteStore(path)
        try:
            cells = _cells(store)
        finally:
            store.close()
    except StoreFailedError as error:
        raise BadDataError(str(error)) from error
    return assemble(str(path), cells, (), sum(map(len, cells.values())))


def _cells(store: SqliteStore) -> dict[tuple[str, str], dict[float, float]]:
    cells = {}
    for name in store.series():
        kind, _, rest = name.partition(".")
        node, _, metric = rest.rpartition(".")
        key = (node, metric) if kind == "node" and metric == GRAVITY else ("", rest)
        cells[key] = {sample.at_ns / NS_PER_S: sample.value for sample in store.range(name, _START_NS, _END_NS)}
    return cells
