"""What the scoreboard's runs come to: a row of figures for each contestant, as text or as a Markdown table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OURS, NOBODY = "ours", "nobody"
COMPETITOR_NAMES = ("Envoy success rate", "fixed threshold", "phi accrual")
CONTESTANTS = (OURS, *COMPETITOR_NAMES)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one run.

    Attributes:
        delays: ticks for each faulty node; the run's length where it was never isolated.
        missed: faulty nodes that never were.
        faulty: faulty nodes.
        wrong: isolations of others.
        node_days: of nodes without a fault.
        breaches: isolations beyond a budget.
        recovery: ticks to sustained coherence, the run's length without one; None where the limits always held.
    """

    delays: tuple[int, ...]
    missed: int
    faulty: int
    wrong: int
    node_days: float
    breaches: int
    recovery: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant's figures; see the module's docstring. NaN where there is nothing to be measured."""

    delay: float
    missed: float
    wrong: float
    recovery: float
    breaches: int
    flagged: float
    flagged_wrong: float

    @classmethod
    def of(cls, runs: Sequence[Result], flags: Sequence[Result], nobody: Sequence[Result], ticks: int) -> Row:
        """From the contestant's runs, its flags on the recordings, and the recordings themselves."""
        delays = [delay for run in runs for delay in run.delays]
        faulty = sum(run.faulty for run in runs)
        # Where nobody's run broke the limits the contestant's may not have: then it had recovered at once.
        recoveries = [
            (run.recovery or 0) if alone.recovery is not None else ticks * (run.recovery is not None)
            for run, alone in zip(runs, nobody, strict=True)
            if alone.recovery is not None or run.recovery is not None
        ]
        return cls(
            delay=_median(delays),
            missed=sum(run.missed for run in runs) / faulty if faulty else np.nan,
            wrong=sum(run.wrong for run in runs) / sum(run.node_days for run in runs),
            recovery=_median(recoveries),
            breaches=sum(run.breaches for run in runs),
            flagged=_median([delay for run in flags for delay in run.delays]),
            flagged_wrong=sum(run.wrong for run in flags) / sum(run.node_days for run in flags),
        )


COLUMNS = ("delay", "missed", "wrong", "recovery", "breaches", "flagged", "flagged_wrong")


def _median(values: list[int]) -> float:
    return float(np.median(values)) if values else np.nan


def behind(rows: Mapping[str, Row]) -> list[str]:
    """Where a competitor is ahead of ours, in words."""
    told = []
    for column in COLUMNS:
        best = getattr(rows[OURS], column)
        ahead = [
            f"{name} {getattr(rows[name], column):.3g}"
            for name in COMPETITOR_NAMES
            if getattr(rows[name], column) < best
        ]
        if ahead:
            told.append(f"{column}: {', '.join(ahead)}, ours {best:.3g}")
    return told


def show(title: str, rows: Mapping[str, Row], ticks: int) -> None:
    """Print one table."""
    print(title)
    heads = f"{'delay':>6s} {'missed':>7s} {'wrong':>7s} {'recovery':>8s} {'breaches':>8s} {'flagged':>8s}  wrong"
    print(f"  {'':19s} {heads}")
    for name, row in rows.items():
        delay, recovery, flagged = (_ticks(value, ticks) for value in (row.delay, row.recovery, row.flagged))
        missed = "-" if np.isnan(row.missed) else f"{row.missed:.1%}"
        print(
            f"  {name:19s} {delay:>6s} {missed:>7s} {row.wrong:7.1f} {recovery:>8s} {row.breaches:8d}"
            f" {flagged:>8s} {row.flagged_wrong:6.1f}"
        )
    for words in behind(rows):
        print(f"  ! behind in {words}")
    sys.stdout.flush()


def markdown(scenarios: Mapping[str, Mapping[str, Row]], ticks: int) -> None:
    """Print one table in Markdown, a line for each scenario, every cell for the contestants in their order."""
    print("| scenario | delay | missed | wrong a node-day | recovery | breaches |")
    print("|---|---|---|---|---|---|")
    for scenario, rows in scenarios.items():
        cells = [_cell(rows, lambda row: _ticks(row.delay, ticks)), _cell(rows, _missed)]
        cells += [_cell(rows, lambda row: f"{row.wrong:.3g}"), _cell(rows, lambda row: _ticks(row.recovery, ticks))]
        cells += [_cell(rows, lambda row: str(row.breaches))]
        print(f"| {scenario} | " + " | ".join(cells) + " |")
    sys.stdout.flush()


def _cell(rows: Mapping[str, Row], shown: Callable[[Row], str]) -> str:
    values = [shown(row) for row in rows.values()]
    return "–" if set(values) == {"-"} else " / ".join(values)


def _missed(row: Row) -> str:
    return "-" if np.isnan(row.missed) else f"{100.0 * row.missed:.1f}".removesuffix(".0") + "%"


def _ticks(value: float, ticks: int) -> str:
    return "-" if np.isnan(value) else f">{ticks}" if value >= ticks else f"{value:.0f}"
