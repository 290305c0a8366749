"""What answers have to go through before they can be drawn: rows are merged, series put on a grid or broken at gaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from controller.dashboards.asking import Series, Value
from controller.dashboards.reading import TimeRange

DAY_S = 86_400.0  # matplotlib counts days
_GAP_STEPS = 3


def merged(rows: Sequence[tuple[str, Mapping[str, Value]]]) -> list[dict[str, Value]]:
    """Grafana's "merge": rows of several queries that agree in their labels become one."""
    by_labels: dict[tuple[tuple[str, Value], ...], dict[str, Value]] = {}
    for place, (_, row) in enumerate(rows):
        valued = any(name.startswith("Value") for name in row)
        labels = tuple(sorted((name, value) for name, value in row.items() if not name.startswith("Value")))
        key = labels if valued else (("row", float(place)),)
        by_labels.setdefault(key, {}).update(row)
    return list(by_labels.values())


def sort_key(value: Value) -> tuple[bool, float, str]:
    """None last, numbers by value, then texts."""
    return value is None, value if isinstance(value, float) else 0.0, str(value)


def last_value(series: Series) -> Value:
    """The newest value that there is, None where there is none."""
    return next((value for value in reversed(series.values) if value is not None), None)


def stretches(series: Series, step_s: float) -> Iterator[tuple[float, float, Value]]:
    """Times during which the value stayed the same; a gap of some steps ends one."""
    known = [(at_s, value) for at_s, value in zip(series.times_s, series.values, strict=True) if value is not None]
    if not known:
        return
    start_s, last_s, current = known[0][0], known[0][0], known[0][1]
    for at_s, value in known[1:]:
        gap = at_s - last_s > _GAP_STEPS * step_s
        if value != current or gap:
            yield start_s, last_s + step_s if gap else at_s, current
            start_s, current = at_s, value
        last_s = at_s
    yield start_s, last_s + step_s, current


def broken(series: Series, step_s: float) -> tuple[Any, Any]:
    """Times and values of a line, broken where there was nothing for some steps."""
    times, values = np.array(series.times_s), floats(series.values)
    gaps = np.flatnonzero(np.diff(times) > _GAP_STEPS * step_s) + 1
    return dates(np.insert(times, gaps, times[gaps - 1])), np.insert(values, gaps, np.nan)


def on_grid(series: Series, when: TimeRange, base: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - numpy arrays
    """The series on the whole range's grid, so that series can be stacked."""
    grid = np.arange(when.start_s, when.end_s + when.step_s, when.step_s)
    values = np.full(len(grid), np.nan)
    at = np.rint((np.array(series.times_s) - when.start_s) / when.step_s).astype(int)
    inside = (at >= 0) & (at < len(grid))
    values[at[inside]] = np.array(floats(series.values))[inside]
    return dates(grid), values, base if isinstance(base, np.ndarray) else np.zeros(len(grid))


def dates(times_s: Any) -> Any:  # noqa: ANN401 - numpy arrays, or what becomes one
    """Unix times as matplotlib counts them: in days from the epoch."""
    return np.asarray(times_s, dtype=float) / DAY_S


def floats(values: Sequence[Value]) -> Any:  # noqa: ANN401 - a numpy array
    """float64: the values, NaN where there is no number."""
    return np.array([float(value) if isinstance(value, int | float) else np.nan for value in values])
