"""What does a person want to know of a run, on one page? `report.md`.

Verdict first, then why, then the evidence, then what to do. Long lists are cut, with a word on how much was left out;
the whole is in report.json. Everything but the last line is the same for equal runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from controller.next_steps import next_step
from controller.record import Refused, RunRecord
from controller.timeline import Blocked, Isolation, Timeline, TrialStory, timeline
from controller.wording import changes, quantity
from metrics.kpi import Kpi, KpiStatus, Side
from state.outcome import Outcome
from state.verdict import CheckStatus, PhaseResult

ROWS_MAX = 10
TEXT_MAX = 500  # characters of a cause or of what a check says
PROPOSALS_MAX = 8
SPARKLINE_CHARACTERS = 24
_BARS = "▁▂▃▄▅▆▇█"


def markdown(record: RunRecord, report: Mapping[str, Any], proposals_dir: str, *, journal: str, daemon: bool) -> str:
    """The page.

    Args:
        record: a run that has ended.
        report: its `report.document`.
        proposals_dir: where its proposals are whole.
        journal: the options that name its journal to a command.
        daemon: whether it is a daemon's, whose journal goes on.

    Raises:
        ValueError: the run has not ended.
    """
    if record.outcome is None:
        raise ValueError("a run without an outcome has no report")
    stories = timeline(item.event for item in record.events)
    sections = (
        _head(record, record.outcome),
        _phases(record.phases),
        _kpis(record),
        _isolations(record, stories),
        _refusals(stories.blocked, list(record.refusals.values())),
        _healing(stories.trials),
        _proposals(report["proposals"], proposals_dir),
        ["## What to do next", "", next_step(record.outcome.code, daemon=daemon)],
        _verify(report, daemon=daemon),
        ["---", _last_line(record, journal)],
    )
    return "\n".join("\n".join(section) + "\n" for section in map(list, sections) if section)


def sparkline(values: Sequence[float], characters: int = SPARKLINE_CHARACTERS) -> str:
    """The course of `values` as bars, each the mean of its share of them; a blank where nothing is known."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    width = min(characters, len(values))
    bounds = [len(values) * position // width for position in range(width + 1)]
    pieces = (values[start:stop] for start, stop in pairwise(bounds))
    return "".join(_bar([value for value in piece if math.isfinite(value)], low, high) for piece in pieces)


def limit_text(kpi: Kpi) -> str:
    """The healthy limit of a KPI with its sign, "" where it has none."""
    if kpi.limit is None:
        return ""
    return f"{'≥' if kpi.limit.side is Side.AT_LEAST else '≤'} {quantity(kpi.limit.healthy)}"


def _bar(values: Sequence[float], low: float, high: float) -> str:
    if not values:
        return " "
    if high == low:
        return _BARS[len(_BARS) // 2]
    share = (sum(values) / len(values) - low) / (high - low)
    return _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))]


def _head(record: RunRecord, outcome: Outcome) -> Iterator[str]:
    yield f"# {outcome.code.name} (exit code {int(outcome.code)})"
    yield ""
    yield f"**{outcome.status_code}**: {_brief(outcome.causes[0])}"
    yield from _few([f"- {_brief(cause)}" for cause in outcome.causes[1:]])
    yield ""
    plural = "cluster" if record.clusters == 1 else "clusters"
    nodes = f"{record.nodes} nodes in {record.clusters} {plural}" if record.nodes else "without nodes"
    dry = " Dry run: nothing was acted upon." if record.dry_run else ""
    yield (
        f"Plant {_inline(record.plant)} ({_inline(record.system)}), {nodes}, seed {record.seed}, scenario "
        f"{_inline(record.scenario)}, governing window of {record.ticks} ticks.{dry}"
    )


def _phases(phases: Sequence[PhaseResult]) -> Iterator[str]:
    yield "## Phases"
    yield ""
    yield from _table(
        ("phase", "about", "verdict", "passed", "failed", "skipped", "undecided", "plant time, s"),
        [
            (
                result.phase,
                result.phase.meaning,
                f"**{result.verdict}**",
                *(str(_count(result, *statuses)) for statuses in _COLUMNS),
                f"{result.started_s:g} to {result.ended_s:g}",
            )
            for result in phases
        ],
    )
    notes = [check for result in phases for check in result.checks if check.status is not CheckStatus.PASSED]
    if notes:
        yield ""
        yield from _few(
            [
                f"- `{check.name}` {check.status}{' (dry run)' if check.dry_run else ''}: {_brief(check.message)}"
                for check in notes
            ]
        )


_COLUMNS = (
    (CheckStatus.PASSED,),
    (CheckStatus.FAILED,),
    (CheckStatus.SKIPPED,),
    (CheckStatus.INCONCLUSIVE, CheckStatus.ERROR),
)


def _count(result: PhaseResult, *statuses: CheckStatus) -> int:
    return sum(check.status in statuses for check in result.checks)


def _kpis(record: RunRecord) -> Iterator[str]:
    yield "## KPIs"
    yield ""
    rows = []
    for name, kpi in record.catalogue.items():
        values = record.history.values.get(name, [])
        known = [value for value in values if math.isfinite(value)]
        if not known or (kpi.limit is None and name != "gravity_wells"):
            continue
        outside = 0 if kpi.limit is None else sum(kpi.limit.status(item) is not KpiStatus.HEALTHY for item in known)
        status = "" if kpi.limit is None else f"{kpi.limit.status(values[-1])}"
        last = quantity(values[-1]) if math.isfinite(values[-1]) else "unknown"
        spread = f"{quantity(min(known))} to {quantity(max(known))}"
        rows.append((f"`{name}`", last, limit_text(kpi), status, spread, str(outside), sparkline(values)))
    header = ("KPI", "last", "healthy", "status", "range", "ticks outside", "course")
    yield from _table(header, rows) if rows else ("None was seen.",)


def _isolations(record: RunRecord, stories: Timeline) -> Iterator[str]:
    yield "## Isolations"
    yield ""
    if stories.isolations:
        header = ("node", "cluster", "|g|", "why", "decided, s", "verified, s", "back, s")
        yield from _table(header, [_isolation_row(story) for story in stories.isolations])
    else:
        yield "Nobody was isolated."
    if record.still_isolated:
        yield ""
        shown = ", ".join(f"{node} (until {until:g} s)" for node, until in record.still_isolated[:ROWS_MAX])
        more = len(record.still_isolated) - ROWS_MAX
        yield f"Still isolated: {shown}" + (f" and {more} more, all in report.json" if more > 0 else "")


def _isolation_row(story: Isolation) -> Sequence[str]:
    why = story.reason if story.probe is None else f"{story.reason}; made ill by probe {story.probe}"
    verified = f"failed: {story.failure}" if story.failure is not None else _moment(story.verified_at_s)
    decided = _moment(story.intended_at_s)
    return (story.node, story.cluster, f"{story.gravity:.2f}", why, decided, verified, _moment(story.restored_at_s))


def _refusals(blocked: Sequence[Blocked], refusals: Sequence[Refused]) -> Iterator[str]:
    if not blocked and not refusals:
        return
    yield "## What was not done, and why"
    yield ""
    if blocked:
        yield "Gravity wells that a safety guard forbade to isolate:"
        yield ""
        header = ("subject", "|g|", "guard", "would be", "limit", "at, s")
        rows = [
            (
                item.subject,
                f"{item.gravity:.2f}",
                item.guard,
                quantity(item.observed),
                quantity(item.limit),
                _moment(item.at_s),
            )
            for item in blocked
        ]
        yield from _table(header, rows)
        yield ""
    if refusals:
        yield "Decisions not to act, each with its guard and how often it was taken:"
        yield ""
        ranked = ((item.latest, item.count) for item in sorted(refusals, key=lambda item: -item.count))
        rows = [
            (item.rule, item.subject, item.guard, quantity(item.observed), quantity(item.limit), str(count))
            for item, count in ranked
        ]
        yield from _table(("what", "subject", "guard", "observed", "limit", "times"), rows)


def _healing(trials: Sequence[TrialStory]) -> Iterator[str]:
    if not trials:
        return
    yield "## Healing"
    yield ""
    yield from _table(
        ("trial", "change", "why", "objective", "violation", "outcome"),
        [
            (
                str(story.trial),
                changes(story.before, story.after),
                story.reason,
                _before_after(story, "objective"),
                _before_after(story, "violation"),
                story.outcome.replace("_", " ") + (f": {story.rollback_reason}" if story.rollback_reason else ""),
            )
            for story in trials
        ],
    )


def _before_after(story: TrialStory, name: str) -> str:
    after = quantity(story.measured[name]) if story.measured else "not measured"
    return f"{quantity(story.baseline[name])} → {after}"


def _proposals(proposals: Sequence[Mapping[str, Any]], directory: str) -> Iterator[str]:
    if not proposals:
        return
    yield "## Proposals"
    yield ""
    for item in proposals[:PROPOSALS_MAX]:
        yield f"- **{_inline(item['title'])}** (`{item['id']}`): {_inline(item['summary'])}"
        if item["expected"]:
            yield f"  - Expected: {_inline(item['expected'])}."
        yield from (f"  - `{command['command']}` {_inline(command['does'])}." for command in item["commands"])
    if len(proposals) > PROPOSALS_MAX:
        yield f"- and {len(proposals) - PROPOSALS_MAX} more in `{directory}`"
    yield ""
    yield (
        f"Each is whole in `{directory}/<id>.json`, with its evidence, risk, verification and rollback; "
        "the last line has the command that proves from the journal where it comes from."
    )


def _verify(report: Mapping[str, Any], *, daemon: bool) -> Iterator[str]:
    tip = report["journal_tip"]
    event = f"event {tip['seq']} with hash `{tip['hash']}`"
    yield "## How to verify"
    yield ""
    if daemon:
        yield (
            f"The commands of the last line check the whole chain and print its events. It must hold {event}; where it "
            "ends before that, or has another hash there, the journal was cut or replaced after this report."
        )
    else:
        yield (
            f"The command of the last line checks the whole chain. It must end at {event}; another tip means that the "
            "journal was cut or replaced after this report."
        )


def _last_line(record: RunRecord, journal: str) -> str:
    """All that differs between equal runs: also the options `journal`, which have the run's number."""
    which = f" {journal}" if journal else ""
    return (
        f"Run {record.run_id}, started {record.wall_started}, took {record.wall_s:.1f} s: `iace journal verify{which}` "
        f"checks its chain, `iace journal export{which}` prints its events, and `iace proposals verify FILE{which}` "
        "proves where a proposal comes from."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _row(header)
    yield "|" + "---|" * len(header)
    yield from _few([_row(row) for row in rows])


def _few(lines: Sequence[str]) -> Iterator[str]:
    """The first of a list's lines, or a table's, and how many there are besides."""
    yield from lines[:ROWS_MAX]
    if len(lines) > ROWS_MAX:
        yield ""
        yield f"and {len(lines) - ROWS_MAX} more, all in report.json"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_inline(str(cell)).replace("|", "\\|") for cell in cells) + " |"


def _brief(text: str) -> str:
    """One line of a text, with how much of it was left out."""
    line = _inline(text)
    more = len(line) - TEXT_MAX
    return f"{line[:TEXT_MAX]}… and {more} more characters, all in report.json" if more > 0 else line


def _inline(text: str) -> str:
    return " ".join(text.split())


def _moment(at_s: float | None) -> str:
    return "" if at_s is None else f"{at_s:g}"
