"""What does a run look like on a terminal? Renderables for the live view and for the summary at its end.

Everything that came from a plant is stripped of control characters and never read as markup. This module imports rich;
`console.py`, which decides what is shown when, imports it only where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.next_steps import NEXT_STEPS
from controller.record import KpiHistory, RunRecord
from controller.summary import limit_text, sparkline
from controller.timeline import timeline
from controller.wording import printable, quantity
from metrics.kpi import Kpi, KpiStatus
from state.phase import Phase
from state.verdict import CheckStatus, PhaseResult, PhaseVerdict

SHOWN = ("coherence", "gas", "rsi", "action_cost")
STAGES = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III, Phase.GOVERNING, Phase.PHASE_IV)
ROWS_MAX = 10
BAR_CHARACTERS = 30
PLAIN_WIDTH = 100
_COURSE_TICKS = 120

_KPI_STYLES: Mapping[KpiStatus, str] = {
    KpiStatus.HEALTHY: "green",
    KpiStatus.WARNING: "yellow",
    KpiStatus.CRITICAL: "bold red",
    KpiStatus.UNKNOWN: "dim",
}
_VERDICT_STYLES: Mapping[PhaseVerdict, tuple[str, str]] = {
    PhaseVerdict.PASSED: ("✔", "green"),
    PhaseVerdict.UNDECIDED: ("?", "yellow"),
    PhaseVerdict.FAILED: ("✘", "bold red"),
}
_STATE_STYLES: Mapping[Phase, str] = {
    Phase.ISOLATING: "yellow",
    Phase.HEALING: "magenta",
    Phase.SAFE_MODE: "bold red",
}
_COLUMNS: Sequence[tuple[str, tuple[CheckStatus, ...], str]] = (
    ("passed", (CheckStatus.PASSED,), "green"),
    ("failed", (CheckStatus.FAILED,), "bold red"),
    ("skipped", (CheckStatus.SKIPPED,), "dim"),
    ("undecided", (CheckStatus.INCONCLUSIVE, CheckStatus.ERROR), "yellow"),
)


@dataclass(slots=True)
class Glance:
    """What the live view shows.

    Attributes:
        catalogue: KPIs with their limits.
        stage: the stage under way, None before the first.
        done, total: ticks of it so far, and as many as it takes; None where nobody knows.
        results: the phases that have ended.
        state: the controller's state.
        history: the KPIs so far; None before the first tick.
        isolated: the nodes that are out.
        lines: the latest events.
    """

    catalogue: Mapping[str, Kpi]
    stage: Phase | None = None
    done: int = 0
    total: int | None = None
    results: dict[Phase, PhaseResult] = field(default_factory=dict)
    state: Phase = Phase.IDLE
    history: KpiHistory | None = None
    isolated: Sequence[str] = ()
    lines: Sequence[str] = ()


def rich_console(stream: IO[str]) -> Console:
    """A console on `stream` that reads nothing as markup; as wide as the terminal, else 100 columns."""
    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def live_view(glance: Glance) -> Text:
    """The whole live view, as one text: tables would cost ten times as much at every redraw."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for piece, style in (*_stages(glance), *_kpis(glance), *_nodes(glance)):
        text.append(piece, style)
    for line in glance.lines:
        text.append(f"\n  {line}", "dim")
    return text


def summary(record: RunRecord, paths: Sequence[Path]) -> RenderableType:
    """What a person reads when the run has ended: phases, KPIs, isolations, the verdict and where the report is."""
    parts: list[RenderableType] = [_phase_table(record.phases), _kpi_table(record)]
    parts += _isolation_lines(record)
    parts += _verdict_lines(record, paths)
    return Group(*parts)


def _stages(glance: Glance) -> Iterator[tuple[str, str]]:
    for stage in STAGES:
        mark, style, note = _stage(glance, stage)
        yield f"\n {mark} {stage.value:<10} ", style
        if stage is glance.stage and glance.total:
            done = BAR_CHARACTERS * min(glance.done, glance.total) // glance.total
            yield "━" * done, "green"
            yield "━" * (BAR_CHARACTERS - done) + " ", "dim"
        yield note, "dim"


def _stage(glance: Glance, stage: Phase) -> tuple[str, str, str]:
    result = glance.results.get(stage)
    if result is not None:
        mark, style = _VERDICT_STYLES[result.verdict]
        return mark, style, f"{_passed(result)} of {len(result.checks)} checks passed"
    if stage is not glance.stage:
        over = glance.stage in STAGES and STAGES.index(stage) < STAGES.index(glance.stage)
        return ("✔", "green", "") if over else ("·", "dim", stage.meaning)
    ticks = f"tick {glance.done}" + (f" of {glance.total}" if glance.total else "")
    return "▶", "bold", f"{ticks} · {stage.meaning}"


def _kpis(glance: Glance) -> Iterator[tuple[str, str]]:
    values = {} if glance.history is None else glance.history.values
    for name in SHOWN:
        kpi, series = glance.catalogue[name], values.get(name, [])
        value = series[-1] if series else math.nan
        style = _KPI_STYLES[_status(kpi, value)]
        yield f"\n   {name:<12} ", ""
        yield (f"{value:<7.3f}" if math.isfinite(value) else "unknown"), style
        yield f" {limit_text(kpi):<8} ", "dim"
        yield sparkline(series[-_COURSE_TICKS:], 40), style


def _nodes(glance: Glance) -> Iterator[tuple[str, str]]:
    yield "\n   state        ", ""
    yield glance.state.value, _STATE_STYLES.get(glance.state, "bold")
    if glance.isolated:
        shown = ", ".join(glance.isolated[:ROWS_MAX]) + (" …" if len(glance.isolated) > ROWS_MAX else "")
        yield f"  isolated {len(glance.isolated)}: {printable(shown)}", "yellow"


def _phase_table(phases: Sequence[PhaseResult]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Phases", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("phase")
    table.add_column("about", style="dim")
    for name, _, _ in _COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for result in phases:
        mark, verdict_style = _VERDICT_STYLES[result.verdict]
        counts = [sum(check.status in statuses for check in result.checks) for _, statuses, _ in _COLUMNS]
        styles = [style for _, _, style in _COLUMNS]
        cells = [Text(str(count), style if count else "dim") for count, style in zip(counts, styles, strict=True)]
        table.add_row(result.phase.value, result.phase.meaning, *cells, Text(f"{mark} {result.verdict}", verdict_style))
    return table


def _kpi_table(record: RunRecord) -> Table:
    table = Table(box=SIMPLE_HEAD, title="KPIs", title_justify="left", title_style="bold", pad_edge=False)
    for name in ("KPI", "last", "healthy", "lowest", "highest", "course"):
        table.add_column(name, justify="right" if name in ("last", "lowest", "highest") else "left")
    for name, kpi in record.catalogue.items():
        series = record.history.values.get(name, [])
        known = [value for value in series if math.isfinite(value)]
        if kpi.limit is not None and known:
            style = _KPI_STYLES[_status(kpi, series[-1])]
            last = Text(quantity(series[-1]) if math.isfinite(series[-1]) else "unknown", style)
            low, high = quantity(min(known)), quantity(max(known))
            table.add_row(name, last, limit_text(kpi), low, high, Text(sparkline(series), style))
    return table


def _isolation_lines(record: RunRecord) -> Iterator[RenderableType]:
    stories = timeline(item.event for item in record.events)
    if stories.isolations:
        yield Text("Isolations", "bold")
    for story in stories.isolations[:ROWS_MAX]:
        outcome = "verified" if story.verified else f"not verified{': ' + story.failure if story.failure else ''}"
        back = "still out" if story.restored_at_s is None else f"back at {story.restored_at_s:g} s"
        probe = "" if story.probe is None else f" (probe {story.probe})"
        line = f"{story.node} of {story.cluster} at {story.intended_at_s:g} s{probe}: {story.reason}; {outcome}; {back}"
        yield Text(printable(line))
    if len(stories.isolations) > ROWS_MAX:
        yield Text(f"and {len(stories.isolations) - ROWS_MAX} more, all in the report", "dim")
    for item in stories.blocked[:ROWS_MAX]:
        line = f"{item.subject} blocked at {item.at_s:g} s by {item.guard}: {quantity(item.observed)}"
        yield Text(printable(f"{line}, the limit is {quantity(item.limit)}"), "yellow")


def _verdict_lines(record: RunRecord, paths: Sequence[Path]) -> Iterator[RenderableType]:
    outcome = record.outcome
    if outcome is None:
        return
    style = "bold green" if outcome.coherent else "bold red"
    yield Text("")
    yield Text(f"{outcome.status_code}  {outcome.code.name}, exit code {int(outcome.code)}", style)
    yield from (Text(f"  {printable(cause)}") for cause in outcome.causes)
    yield Text(NEXT_STEPS[outcome.code], "dim")
    if paths:
        yield Text(f"report in {paths[0].parent}: {', '.join(path.name for path in paths)}", overflow="fold")


def _passed(result: PhaseResult) -> int:
    return sum(check.status is CheckStatus.PASSED for check in result.checks)


def _status(kpi: Kpi, value: float) -> KpiStatus:
    if kpi.limit is None:
        return KpiStatus.HEALTHY if math.isfinite(value) else KpiStatus.UNKNOWN
    return kpi.limit.status(value)
