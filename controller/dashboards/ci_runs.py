"""CI runs: how did the last runs of the pipelines end, how long did their phases take, and which KPIs did they leave?

A run pushes its metrics when it ends, and Prometheus goes on scraping them until the next run of that plant pushes. A
run is known by its exit code, which nothing shows that still goes on.
"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from controller.dashboards import style
from controller.dashboards.board import Board, Row
from controller.dashboards.overview import LIMITED
from controller.dashboards.panels import About, Column, lines_panel, stat_panel, table_panel, timeline_panel
from controller.dashboards.queries import RUNS, of, prom, prom_now
from controller.dashboards.style import GREEN, ORANGE, RED, steps
from metrics.export_catalogue import KPI_METRICS

_ENDED = f"on (job, instance, plant) {of('iace_last_run_exit_code', among=RUNS)}"


def of_runs(metric: str, labels: str = "") -> str:
    """A metric of runs that have ended."""
    return f"{of(metric, labels, among=RUNS)} and {_ENDED}"


def board() -> Board:
    """The CI runs."""
    return Board(
        name="ci-runs",
        title="IACE / CI runs",
        description="How did the pipelines' last runs end, how long did their phases take, what KPIs did they leave?",
        time_from="now-7d",
        live=False,
        rows=[
            Row(5, [(10, _last()), (7, _since()), (7, _failed())]),
            Row(5, [(24, _codes())]),
            Row(8, [(12, _durations()), (12, _results())]),
            Row(6, [(12, _left()), (12, _kpis())]),
        ],
    )


def _last() -> model.Panel:
    about = About(
        "Last exit code",
        "How the last run of each plant ended. docs/exit-codes.md tells what each code means and what to do.",
        alerts=("IaceRunFailed",),
    )
    query = prom(of("iace_last_run_exit_code", among=RUNS), "{{plant}}")
    return stat_panel(about, query, steps=steps(RED), mappings=style.exit_map())


def _since() -> model.Panel:
    about = About(
        "Since the last run",
        "Time since the last push of each plant. A pipeline that has stopped running fails silently.",
        "s",
    )
    query = prom(f"time() - {of('push_time_seconds', among=RUNS)}", "{{plant}}")
    return stat_panel(about, query, steps=steps(GREEN, (86_400, ORANGE), (7 * 86_400, RED)), decimals=0)


def _failed() -> model.Panel:
    about = About(
        "Plants whose last run failed",
        "How many plants' last run ended in another code than 0.",
        "short",
        ("IaceRunFailed",),
    )
    query = prom(f"sum({of('iace_last_run_exit_code', among=RUNS)} != bool 0)")
    return stat_panel(about, query, steps=steps(GREEN, (1, RED)))


def _codes() -> model.Panel:
    about = About(
        "Exit codes over time",
        "How the latest run ended, at each time, one row a plant.",
        alerts=("IaceRunFailed",),
    )
    query = prom(of("iace_last_run_exit_code", among=RUNS), "{{plant}}")
    return timeline_panel(about, [query], mappings=style.exit_map())


def _durations() -> model.Panel:
    about = About(
        "Phase durations",
        "Plant time that each phase of the latest run took. A phase that grows waits for something.",
        "s",
    )
    query = prom(of_runs("iace_phase_duration_seconds"), "{{plant}} {{phase}}")
    return lines_panel(about, [query], low=0.0, decimals=0)


def _results() -> model.Panel:
    about = About(
        "Phases of the last run",
        "How each phase of each plant's last run ended, and the plant time that it took.",
        alerts=("IaceRunFailed",),
    )
    return table_panel(
        about,
        [prom_now(_phases("iace_phase_result")), prom_now(_phases("iace_phase_duration_seconds"))],
        [
            Column("plant", "Plant"),
            Column("phase", "Phase"),
            Column("Value #A", "Result", mappings=style.verdict_map(), width=110),
            Column("Value #B", "Took", "s", decimals=0),
        ],
    )


def _phases(metric: str) -> str:
    return f"max by (plant, phase) ({of_runs(metric)})"


def _left() -> model.Panel:
    about = About(
        "What the last run did",
        "Isolations, re-admissions, isolations that a guard forbade, anomalies and proposals of each plant's last run.",
        "short",
    )
    # A run's counters start at zero with it and are pushed once, so their last value is what it did.
    counted = ("iace_isolations_total", "iace_restorations_total", "iace_isolations_blocked_total")
    metrics = (*counted, "iace_anomalies_total", "iace_proposals")
    return table_panel(
        about,
        [prom_now(f"sum by (plant) ({of_runs(metric)})") for metric in metrics],
        [
            Column("plant", "Plant"),
            Column("Value #A", "Isolated", decimals=0),
            Column("Value #B", "Let in again", decimals=0),
            Column("Value #C", "Forbidden", steps=steps("transparent", (0.5, RED)), decimals=0),
            Column("Value #D", "Anomalies", decimals=0),
            Column("Value #E", "Proposals", decimals=0),
        ],
    )


def _kpis() -> model.Panel:
    about = About(
        "KPIs at the end of the last run",
        "The last value of each KPI with a limit, in the colours of that limit by default.",
    )
    return table_panel(
        about,
        [prom_now(f"max by (plant) ({of_runs(KPI_METRICS[name])})") for name in LIMITED],
        [
            Column("plant", "Plant"),
            *(
                Column(f"Value #{letter}", name, steps=style.limit_steps(style.kpi_limit(name)), decimals=4)
                for letter, name in zip("ABCDEF", LIMITED, strict=True)
            ),
        ],
    )
