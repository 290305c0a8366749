"""What is kept of telemetry as it ages: every sample, then a row for each minute, then a row for each hour.

Three tiers, each with a retention of its own. A row of a coarser tier holds least, greatest, sum, last and count of
what fell into its bucket, so that any aggregate of whole buckets follows from it. Two marks a tier say what may be
believed: everything below `rolled_ns` has been rolled up into it, and everything below `kept_ns` has been forgotten.
Nothing is forgotten before the next tier has it, so below one tier's `kept_ns` lies the rolled part of the next.

Every function works within the caller's transaction. Times are nanoseconds; buckets begin at whole minutes and hours of
the series' own time. Left out: when this is done, which is the store's and the writer's question.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metrics.store.protocol import Aggregate

NS_PER_S = 1_000_000_000
MINUTE_NS = 60 * NS_PER_S
HOUR_NS = 60 * MINUTE_NS
PIECE_NS = 10 * MINUTE_NS  # rolled up or forgotten in one go, so that catching up is no long stop for the caller
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_ROWS = """
    series_id INTEGER NOT NULL REFERENCES series (id),
    at_ns INTEGER NOT NULL,
    low REAL NOT NULL,
    high REAL NOT NULL,
    total REAL,
    last REAL NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (series_id, at_ns)
"""
SCHEMA = (
    f"CREATE TABLE minutes ({_ROWS}) WITHOUT ROWID",
    f"CREATE TABLE hours ({_ROWS}) WITHOUT ROWID",
    "CREATE TABLE tiers (name TEXT PRIMARY KEY, rolled_ns INTEGER NOT NULL, kept_ns INTEGER NOT NULL) WITHOUT ROWID",
    *(
        f"INSERT INTO tiers VALUES ('{tier}', {INT64_MIN + 1} - 1, {INT64_MIN + 1} - 1)"  # noqa: S608 - constants only
        for tier in ("points", "minutes", "hours")
    ),
)

# How a row of each tier contributes to an aggregate: a sample is a bucket of its own.
_AS_BUCKETS = {
    "points": "at_ns, value AS low, value AS high, value AS total, value AS last, 1 AS count",
    "minutes": "at_ns, low, high, total, last, count",
    "hours": "at_ns, low, high, total, last, count",
}

_AGGREGATES = {
    Aggregate.MEAN: "sum(total) / sum(count)",
    Aggregate.MIN: "min(low)",
    Aggregate.MAX: "max(high)",
    Aggregate.COUNT: "sum(count)",
    Aggregate.LAST: "last, max(at_ns)",  # SQLite takes bare columns from the row that holds the maximum
}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each tier is kept, s.

    Raises:
        ValueError: a coarser tier would be kept for a shorter time than a finer one.
    """

    raw_s: float
    minute_s: float
    hour_s: float

    def __post_init__(self) -> None:
        if not 0 < self.raw_s <= self.minute_s <= self.hour_s:
            raise ValueError(f"what is coarser is kept longer, not {self.raw_s}, {self.minute_s}, {self.hour_s} s")


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a tier has been rolled up, and from where on it is kept."""

    rolled_ns: int
    kept_ns: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A span [start_ns, end_ns) of time that is read from one tier."""

    tier: str
    start_ns: int
    end_ns: int


def marks(connection: sqlite3.Connection) -> dict[str, Mark]:
    """The marks of every tier."""
    rows = connection.execute("SELECT name, rolled_ns, kept_ns FROM tiers")
    return {name: Mark(rolled_ns, kept_ns) for name, rolled_ns, kept_ns in rows}


def plan(at: Mapping[str, Mark], start_ns: int, end_ns: int, step_ns: int) -> list[Segment]:
    """From which tiers to read steps of `step_ns` from `start_ns` on: the coarsest that gives what every sample gives.

    Whole buckets of a tier whose bucket divides both are as good as the samples; a last step that ends within a bucket
    is read from what is finer. Where what is finer has been forgotten, the next tier has to do: there a bucket counts
    as a whole for the step in which it begins.
    """
    found, begin_ns = [], start_ns
    for tier, bucket_ns, finer in (("hours", HOUR_NS, "minutes"), ("minutes", MINUTE_NS, "points")):
        stop_ns = min(end_ns, at[finer].kept_ns)
        if step_ns % bucket_ns == 0 and start_ns % bucket_ns == 0:
            stop_ns = max(stop_ns, min(floor(end_ns, bucket_ns), at[tier].rolled_ns))
        if stop_ns > begin_ns:
            found.append(Segment(tier, begin_ns, stop_ns))
            begin_ns = stop_ns
    if end_ns > begin_ns:
        found.append(Segment("points", begin_ns, end_ns))
    return found


def select(segments: Sequence[Segment], how: Aggregate | None) -> tuple[str, dict[str, int]]:
    """The SELECT that reads `segments`, and the spans among its parameters: steps by `how`, or else every row's mean.

    Its other parameters are :series, and with `how` also :start_ns and :step_ns.
    """
    source = " UNION ALL ".join(
        f"SELECT {_AS_BUCKETS[part.tier]} FROM {part.tier} "  # noqa: S608 - constants only
        f"WHERE series_id = (SELECT id FROM series WHERE name = :series) AND at_ns >= :from_{i} AND at_ns < :to_{i}"
        for i, part in enumerate(segments)
    )
    spans = {f"from_{i}": part.start_ns for i, part in enumerate(segments)}
    spans |= {f"to_{i}": part.end_ns for i, part in enumerate(segments)}
    if how is None:
        return f"SELECT at_ns, total / count FROM ({source}) ORDER BY at_ns", spans  # noqa: S608 - as above
    return (
        f"SELECT :start_ns + (at_ns - :start_ns) / :step_ns * :step_ns AS step, {_AGGREGATES[how]} "  # noqa: S608 - as above
        f"FROM ({source}) GROUP BY step ORDER BY step"
    ), spans


def roll_up(connection: sqlite3.Connection, now_ns: int) -> None:
    """Roll up the minutes and hours that are over at `now_ns`; of a long backlog only a piece at a time."""
    minutes_ns, hours_ns = marks(connection)["minutes"].rolled_ns, marks(connection)["hours"].rolled_ns
    oldest_ns = _oldest(connection, "points", minutes_ns)
    if oldest_ns is not None:
        begin_ns = floor(oldest_ns, MINUTE_NS)
        stop_ns = min(floor(now_ns, MINUTE_NS), begin_ns + PIECE_NS)
        if stop_ns > begin_ns:
            _fill(connection, "minutes", begin_ns, stop_ns)
            _set(connection, "minutes", "rolled_ns", stop_ns)
            minutes_ns = stop_ns
    oldest_ns = _oldest(connection, "minutes", hours_ns)
    if oldest_ns is not None:
        begin_ns, stop_ns = floor(oldest_ns, HOUR_NS), floor(minutes_ns, HOUR_NS)
        if stop_ns > begin_ns:
            _fill(connection, "hours", begin_ns, stop_ns)
            _set(connection, "hours", "rolled_ns", stop_ns)


def forget(connection: sqlite3.Connection, now_ns: int, retention: Retention) -> int:
    """Forget what each tier need not keep any longer at `now_ns` and the next one has; how many rows went."""
    went = 0
    for tier, kept_s, bucket_ns, coarser in (
        ("points", retention.raw_s, MINUTE_NS, "minutes"),
        ("minutes", retention.minute_s, HOUR_NS, "hours"),
        ("hours", retention.hour_s, HOUR_NS, None),
    ):
        before_ns = floor(max(INT64_MIN, now_ns - round(kept_s * NS_PER_S)), bucket_ns)
        oldest_ns = _oldest(connection, tier, INT64_MIN)
        if coarser is not None:
            before_ns = min(before_ns, marks(connection)[coarser].rolled_ns)
        if oldest_ns is None or oldest_ns >= before_ns:
            continue
        if tier == "points":
            before_ns = min(before_ns, floor(oldest_ns, bucket_ns) + PIECE_NS)
        went += erase(connection, tier, before_ns)
        _set(connection, tier, "kept_ns", max(before_ns, marks(connection)[tier].kept_ns))
    return went


def refresh(connection: sqlite3.Connection, late: Iterable[tuple[int, int]]) -> None:
    """Roll buckets up again into which samples have come late.

    A bucket of which samples have been forgotten already stays as it is: what is left would not tell the whole.

    Args:
        connection: within a transaction that has written the samples.
        late: number of the series and time of the sample, ns.
    """
    at = marks(connection)
    minutes = {(series, floor(at_ns, MINUTE_NS)) for series, at_ns in late}
    minutes = {(series, begin_ns) for series, begin_ns in minutes if begin_ns >= at["points"].kept_ns}
    for series, begin_ns in minutes:
        _fill(connection, "minutes", begin_ns, begin_ns + MINUTE_NS, series)
    for series, begin_ns in {(series, floor(begin_ns, HOUR_NS)) for series, begin_ns in minutes}:
        if at["minutes"].kept_ns <= begin_ns < at["hours"].rolled_ns:
            _fill(connection, "hours", begin_ns, begin_ns + HOUR_NS, series)


def erase(connection: sqlite3.Connection, tier: str, before_ns: int) -> int:
    """Delete the rows of a tier that begin before `before_ns`; how many went."""
    ids = connection.execute("SELECT id FROM series").fetchall()
    # A range of the primary key for each series: one DELETE by time alone would read every row.
    statement = f"DELETE FROM {tier} WHERE series_id = ? AND at_ns < ?"  # noqa: S608 - a constant
    return sum(connection.execute(statement, (number, before_ns)).rowcount for (number,) in ids)


def floor(at_ns: int, bucket_ns: int) -> int:
    """The beginning of the bucket that holds `at_ns`."""
    return max(INT64_MIN, at_ns // bucket_ns * bucket_ns)


def _fill(connection: sqlite3.Connection, tier: str, begin_ns: int, stop_ns: int, series: int | None = None) -> None:
    """Make the rows of a tier for [begin_ns, stop_ns), whole buckets, from the next finer tier."""
    bucket_ns, finer = (MINUTE_NS, "points") if tier == "minutes" else (HOUR_NS, "minutes")
    last = "value" if finer == "points" else "last"
    only = "" if series is None else "AND series.id = :series"
    connection.execute(
        # The remainder of a negative time is negative, hence twice the remainder for the beginning of its bucket.
        f"INSERT OR REPLACE INTO {tier} SELECT id, bucket, low, high, total, "  # noqa: S608 - constants only
        f"(SELECT {last} FROM {finer} WHERE series_id = id AND at_ns = newest_ns), count FROM ("
        "SELECT id, at_ns - (at_ns % :bucket_ns + :bucket_ns) % :bucket_ns AS bucket, min(low) AS low, "
        "max(high) AS high, sum(total) AS total, max(at_ns) AS newest_ns, sum(count) AS count "
        f"FROM series CROSS JOIN (SELECT series_id, {_AS_BUCKETS[finer]} FROM {finer}) ON series_id = id "
        f"WHERE at_ns >= :begin_ns AND at_ns < :stop_ns {only} GROUP BY id, bucket)",
        {"bucket_ns": bucket_ns, "begin_ns": begin_ns, "stop_ns": stop_ns, "series": series},
    )


def _oldest(connection: sqlite3.Connection, tier: str, from_ns: int) -> int | None:
    """The earliest row of a tier that does not begin before `from_ns`."""
    query = f"SELECT min((SELECT min(at_ns) FROM {tier} WHERE series_id = id AND at_ns >= ?)) FROM series"  # noqa: S608 - a constant
    oldest: int | None = connection.execute(query, (from_ns,)).fetchone()[0]
    return oldest


def _set(connection: sqlite3.Connection, tier: str, mark: str, at_ns: int) -> None:
    connection.execute(f"UPDATE tiers SET {mark} = ? WHERE name = ?", (at_ns, tier))  # noqa: S608 - a constant
