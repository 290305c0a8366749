"""Controller internals: are its ticks, stores, journal and leadership well, and does the plant answer?"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from controller.dashboards import style
from controller.dashboards.board import Board, Row
from controller.dashboards.panels import About, Column, lines_panel, stat_panel, table_panel
from controller.dashboards.queries import increase, of, prom, prom_now, rate
from controller.dashboards.style import BLUE, GREEN, ORANGE, RED, steps

QUANTILES = (0.5, 0.95, 0.99)


def board() -> Board:
    """The internals."""
    return Board(
        name="internals",
        title="IACE / Controller internals",
        description="Is the controller itself well: ticks, stores, journal, leadership, and the plant's answers?",
        rows=[
            Row(4, [(4, _scraped()), (4, _leader()), (4, _epoch()), (4, _missed()), (4, _lost()), (4, _failures())]),
            Row(8, [(12, _ticks()), (12, _schedule())]),
            Row(8, [(12, _requests()), (12, _age())]),
            Row(8, [(8, _points()), (8, _backlog()), (8, _journal())]),
            Row(4, [(24, _build())]),
        ],
    )


def _scraped() -> model.Panel:
    about = About(
        "Scraped",
        "Whether Prometheus reaches every controller that was chosen.",
        "bool_yes_no",
        ("IaceControllerAbsent",),
    )
    query = prom('min(up{job=~"$job",instance=~"$instance"})')
    mappings = style.flag_map(("yes", GREEN), ("NO", RED))
    return stat_panel(about, query, steps=steps(RED, (1, GREEN)), mappings=mappings)


def _leader() -> model.Panel:
    about = About(
        "Leaders",
        "Controllers that may act. Of several that govern one plant exactly one should be it.",
        "short",
        ("IaceLeadershipLost",),
    )
    return stat_panel(about, prom(f"sum({of('iace_leader')})"), steps=steps(RED, (1, GREEN)))


def _epoch() -> model.Panel:
    about = About("Epoch", "The fencing epoch; it grows by one with every start or change of leader.", "short")
    return stat_panel(about, prom(f"max({of('iace_epoch')})"), steps=steps(BLUE))


def _missed() -> model.Panel:
    about = About(
        "Missed ticks",
        "Scheduled ticks that were skipped in the time range.",
        "short",
        ("IaceTicksMissed",),
    )
    query = prom_now(f"sum({increase('iace_ticks_missed_total', window='$__range')})")
    return stat_panel(about, query, steps=steps(GREEN, (0.5, ORANGE)), decimals=0)


def _lost() -> model.Panel:
    about = About(
        "Points lost",
        "Telemetry that was dropped in the time range: its spool was full, or its disk failed.",
        "short",
        ("IaceStorePointsLost",),
    )
    lost = increase("iace_store_points_total", 'outcome="dropped"', window="$__range")
    return stat_panel(about, prom_now(f"sum({lost})"), steps=steps(GREEN, (0.5, RED)), decimals=0)


def _failures() -> model.Panel:
    about = About(
        "Journal failures",
        "Decisions that the journal could not keep in the time range, and that were therefore not carried out.",
        "short",
        ("IaceJournalFailed",),
    )
    query = prom_now(f"sum({increase('iace_journal_failures_total', window='$__range')})")
    return stat_panel(about, query, steps=steps(GREEN, (0.5, RED)), decimals=0)


def _quantiles(about: About, histogram: str) -> model.Panel:
    queries = [
        prom(
            f"histogram_quantile({quantile}, sum by (le) ({rate(f'{histogram}_bucket')}))",
            f"p{quantile * 100:g}",
        )
        for quantile in QUANTILES
    ]
    colours = dict(zip((f"p{quantile * 100:g}" for quantile in QUANTILES), (GREEN, ORANGE, RED), strict=True))
    return lines_panel(about, queries, colours=colours, low=0.0)


def _ticks() -> model.Panel:
    about = About(
        "Tick duration",
        "How long the controller takes for a tick: observe, assess, decide, record, act. It should stay far below the "
        "interval.",
        "s",
    )
    return _quantiles(about, "iace_tick_duration_seconds")


def _schedule() -> model.Panel:
    about = About(
        "Schedule: lag and interval",
        "How late the last tick began, beside the time between two ticks; and ticks that were skipped.",
        "s",
        ("IaceTicksMissed",),
    )
    return lines_panel(
        about,
        [
            prom(of("iace_tick_lag_seconds"), "lag"),
            prom(of("iace_tick_interval_seconds"), "interval"),
            prom(f"sum({increase('iace_ticks_missed_total')})", "missed ticks"),
        ],
        colours={"lag": ORANGE, "interval": BLUE, "missed ticks": RED},
        dashed=("interval",),
        low=0.0,
    )


def _requests() -> model.Panel:
    about = About(
        "Plant latency",
        "How long calls to the governed system take.",
        "s",
        ("IacePlantDown",),
    )
    return _quantiles(about, "iace_plant_request_seconds")


def _age() -> model.Panel:
    about = About(
        "Observation age",
        "How old the newest observation is. It should stay near the interval; a line that climbs is a plant that makes "
        "no ticks, or does not answer.",
        "s",
        ("IaceObservationStale",),
    )
    return lines_panel(about, [prom(of("iace_observation_age_seconds"), "age")], colours={"age": BLUE}, low=0.0)


def _points() -> model.Panel:
    about = About(
        "Telemetry, points a second",
        "What became of the points, by store. Dropped ones are lost; values that are not yet known count as rejected.",
        "wps",
        ("IaceStorePointsLost",),
    )
    query = prom(f"sum by (store, outcome) ({rate('iace_store_points_total')})", "{{store}}: {{outcome}}")
    bad = {"/.*: dropped/": RED, "/.*: rejected/": ORANGE}
    return lines_panel(about, [query], colours=bad, low=0.0)


def _backlog() -> model.Panel:
    about = About(
        "Points that wait for their store",
        "A backlog that grows is a store that is slow or away; nothing is lost before its spool is full.",
        "short",
        ("IaceStoreBacklog",),
    )
    query = prom(f"sum by (store) ({of('iace_store_buffered_points')})", "{{store}}")
    return lines_panel(about, [query], low=0.0)


def _journal() -> model.Panel:
    about = About(
        "Journal, events in each interval",
        "Only what changes durable state is journaled, so a quiet plant gives a quiet journal.",
        "short",
        ("IaceJournalFailed",),
    )
    query = prom(f"sum({increase('iace_journal_events_total')})", "events")
    return lines_panel(about, [query], bars=True, colours={"events": BLUE}, low=0.0)


def _build() -> model.Panel:
    about = About("What is running", "The version of each controller, and of its Python.", "string")
    return table_panel(
        about,
        [prom_now(of("iace_build_info"))],
        [
            Column("job", "Job"),
            Column("instance", "Instance"),
            Column("version", "IACE"),
            Column("python", "Python"),
        ],
    )
