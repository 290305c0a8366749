"""Healing and proposals: which parameters were tried, did it help, and what is proposed?"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from controller.dashboards import style
from controller.dashboards.board import TRIALS, Board, Row
from controller.dashboards.overview import state_number
from controller.dashboards.panels import About, Column, lines_panel, stat_panel, table_panel, timeline_panel
from controller.dashboards.queries import events, increase, influx, kind_is, of, prom, prom_now
from controller.dashboards.style import BLUE, GREEN, GREY, ORANGE, RED, steps
from metrics.export_catalogue import KPI_METRICS
from metrics.observation import PARAMETER_BOUNDS
from state.event import EventKind
from state.proposal_record import ProposalStatus

OUTCOMES = {"kept": GREEN, "rolled_back": ORANGE, "rollback_failed": RED}


def board() -> Board:
    """Healing."""
    return Board(
        name="healing",
        title="IACE / Healing and proposals",
        description="Which parameters were tried, did it help, and what is proposed?",
        rows=[
            Row(4, [(6, _trials(outcome, colour)) for outcome, colour in OUTCOMES.items()] + [(6, _proposals())]),
            Row(4, [(24, _states())]),
            Row(8, [(12, _parameters()), (12, _objective())]),
            Row(7, [(8, _judged(name)) for name in ("coherence", "gas", "action_cost")]),
            Row(8, [(7, _outcomes()), (17, _told())]),
        ],
    )


def _trials(outcome: str, colour: str) -> model.Panel:
    meaning = {
        "kept": "helped beyond the noise, and stayed in force",
        "rolled_back": "did not help, and the last good value is in force again",
        "rollback_failed": "could not be taken back: the plant does not show the last good value",
    }[outcome]
    about = About(
        f"Trials {outcome.replace('_', ' ')}",
        f"Parameter trials in the time range that {meaning}; one that changed several parameters counts once for each.",
        "short",
        ("IaceRollbackFailed",) if outcome == "rollback_failed" else (),
    )
    query = prom_now(f"sum({_ended(outcome)})")
    idle = GREEN if outcome == "rollback_failed" else GREY
    return stat_panel(about, query, steps=steps(idle, (0.5, colour)), decimals=0)


def _ended(outcome: str) -> str:
    return increase("iace_healing_trials_total", f'outcome="{outcome}"', window="$__range")


def _proposals() -> model.Panel:
    about = About(
        "Proposals",
        "Improvement proposals that wait for somebody's decision: `iace proposals list`.",
        "short",
        ("IaceHealingExhausted",),
    )
    proposed = f'status="{ProposalStatus.PROPOSED}"'
    return stat_panel(about, prom(f"sum({of('iace_proposals', proposed)})"), steps=steps(GREY, (1, BLUE)))


def _states() -> model.Panel:
    about = About(
        "State timeline",
        "Yellow is a trial under way. A gravity well interrupts healing: nodes come before parameters.",
    )
    return timeline_panel(about, [prom(state_number(), "{{instance}}")], mappings=style.phase_map())


def _parameters() -> model.Panel:
    bounds = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in PARAMETER_BOUNDS.items())
    about = About("Parameters in force", f"The tunable parameters as the plant shows them. Bounds: {bounds}.")
    return lines_panel(about, [prom(of("iace_parameter"), "{{parameter}}")], low=0.0, decimals=3)


def _objective() -> model.Panel:
    about = About(
        "Objective J",
        "What trials are judged on: action cost, change of contraction and of entropy, and violated constraints; lower "
        "is better. The governing law is shown beside it and never optimised.",
    )
    return lines_panel(
        about,
        [
            influx('mean("objective")', "iace_kpi", alias="objective"),
            influx('mean("governing_law")', "iace_kpi", alias="governing law"),
        ],
        low=0.0,
        decimals=3,
    )


def _judged(name: str) -> model.Panel:
    limit = style.kpi_limit(name)
    about = About(
        style.kpi_title(name),
        f"Healing begins where this stays outside its limit ({limit}), and a trial that makes it worse is aborted.",
        style.kpi_unit(name),
        style.kpi_runbooks(name),
    )
    return lines_panel(
        about,
        [prom(of(KPI_METRICS[name]), name), prom(of("iace_kpi_limit", f'kpi="{name}",level="healthy"'), "limit")],
        steps=style.limit_steps(limit),
        colours={name: "text", "limit": ORANGE},
        dashed=("limit",),
        decimals=3,
    )


def _outcomes() -> model.Panel:
    about = About(
        "Trials by parameter",
        "How the trials of the time range ended, by the parameter that they changed.",
        "short",
    )
    return table_panel(
        about,
        [prom_now(f"sum by (parameter) ({_ended(outcome)})") for outcome in OUTCOMES],
        [
            Column("parameter", "Parameter"),
            *(
                Column(f"Value #{letter}", outcome.replace("_", " "), steps=steps(GREY, (0.5, colour)), decimals=0)
                for letter, (outcome, colour) in zip("ABC", OUTCOMES.items(), strict=True)
            ),
        ],
    )


def _told() -> model.Panel:
    about = About(
        "Trials and proposals, in words",
        "What was tried and why, what was measured, what was kept or rolled back, and which proposals were written.",
    )
    proposals = (EventKind.PROPOSAL_WRITTEN, EventKind.PROPOSAL_DECIDED, EventKind.HEALING_EXHAUSTED)
    kinds = (*TRIALS, EventKind.ROLLBACK_INTENDED, *proposals)
    return table_panel(
        about,
        [events(kind_is(*kinds))],
        [
            Column("Time", "Time", "dateTimeAsLocalNoDateIfToday", width=95),
            Column("kind", "Kind", width=170),
            Column("text", "Event"),
        ],
    )
