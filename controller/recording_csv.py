"""A recording out of a CSV file, long or wide.

    time,node,metric,value          one value a row
    time,node,cpu,latency,...       one row a node and time, a column for each metric

A time is seconds or ISO 8601 (UTC where it names no zone). An empty node means the whole plant: KPIs and parameters by
their names. An empty value, or "nan", is missing. Rows may come in any order. A row that cannot be understood is
skipped and kept with its line number; a value that was already given for its time, node and metric is one of those.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from controller.recording import BadRow, Recording, assemble
from metrics.errors import BadDataError

_LONG = ["time", "node", "metric", "value"]
_MISSING = frozenset({"", "nan", "null", "none"})
_TIME_MAX_S = 1e12  # some 30,000 years; beyond it the unit is another one

Cells = dict[tuple[str, str], dict[float, float]]


def read(path: Path) -> Recording:
    """The recording in the file at `path`.

    Raises:
        BadDataError: it is no text in UTF-8, or its header is not one of the two.
    """
    cells: Cells = {}
    bad: list[BadRow] = []
    used = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            _check(header, path)
            for row in reader:
                if not row:
                    continue
                try:
                    _take(cells, header, row)
                    used += 1
                except ValueError as error:
                    bad.append(BadRow(reader.line_num, str(error)))
    except UnicodeDecodeError as error:
        raise BadDataError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise BadDataError(f"{path} is no CSV: {error}") from error
    return assemble(str(path), cells, tuple(bad), used)


def _check(header: Sequence[str], path: Path) -> None:
    metrics = header[2:]
    if header[:2] != ["time", "node"] or not metrics or not all(metrics) or len(set(metrics)) < len(metrics):
        raise BadDataError(
            f"{path}: its first line must be time,node,metric,value or time,node and a distinct name for each "
            f"metric, not {','.join(header)[:80]!r}"
        )


def _take(cells: Cells, header: list[str], row: list[str]) -> None:
    """Add the values of a row, all of them or, with a ValueError, none."""
    if len(row) != len(header):
        raise ValueError(f"{len(row)} fields instead of {len(header)}")
    at_s, node = _time_s(row[0].strip()), row[1].strip()
    pairs = [(row[2].strip(), row[3])] if header == _LONG else list(zip(header[2:], row[2:], strict=True))
    values = list(_values(pairs))
    for metric, _ in values:
        if not metric:
            raise ValueError("no metric is named")
        if at_s in cells.get((node, metric), ()):
            raise ValueError(f"{metric} of {node or 'the plant'} at {row[0].strip()} was given before")
    for metric, value in values:
        cells.setdefault((node, metric), {})[at_s] = value


def _values(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, float]]:
    for metric, text in pairs:
        if text.strip().lower() in _MISSING:
            continue
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{metric} is no number: {text[:40]!r}") from None
        if not math.isfinite(value):
            raise ValueError(f"{metric} is infinite")
        yield metric, value


def _time_s(text: str) -> float:
    try:
        at_s = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"no time: {text[:40]!r}") from None
        at_s = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if not abs(at_s) <= _TIME_MAX_S:
        raise ValueError(f"no time in seconds: {text[:40]!r}")
    return at_s
