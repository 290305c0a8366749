"""What a time-series store must do, whatever keeps the bytes.

A series is a name ("kpi.coherence") and its samples are (nanosecond, float) pairs. Intervals are half-open,
[start_ns, end_ns). Every store passes the same contract test. Left out: what the names mean, see `telemetry.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class Point(NamedTuple):
    """One value on its way into a store."""

    series: str
    at_ns: int
    value: float


class Sample(NamedTuple):
    """One value read back from a series."""

    at_ns: int
    value: float


class Aggregate(StrEnum):
    """What to make of all samples that fall into one step."""

    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    LAST = "last"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a batch: every point was either written or rejected (not finite, or a time beyond 64 bits)."""

    written: int
    rejected: int


class Store(Protocol):
    """A time-series store.

    Every method raises `StoreFailedError` when the store cannot be read or written, and `NotPermittedError` when the
    operating system forbids it; both say what to do. After such an error nothing of the batch has been written.
    """

    def write(self, points: Iterable[Point]) -> WriteResult:
        """Write a batch, all of it or nothing; a point at the same series and time replaces the older one."""
        ...

    def range(self, series: str, start_ns: int, end_ns: int) -> list[Sample]:
        """The samples of a series in time order; empty for an unknown series."""
        ...

    def aggregate(self, series: str, start_ns: int, end_ns: int, step_ns: int, how: Aggregate) -> list[Sample]:
        """One sample for each step that has any, at the step's start; steps are counted from `start_ns`.

        Raises:
            ValueError: `step_ns` is not positive.
        """
        ...

    def latest(self, series: str) -> Sample | None:
        """The newest sample, None for an unknown series."""
        ...

    def series(self) -> tuple[str, ...]:
        """The names of all series that have samples, sorted."""
        ...

    def retain(self, before_ns: int) -> int:
        """Forget every sample older than `before_ns`; how many went."""
        ...

    def check(self) -> None:
        """Raise unless the store is whole and can be written."""
        ...

    def close(self) -> None:
        """Release what is held; closing twice is fine."""
        ...
