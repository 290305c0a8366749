"""What is worth computing once, for alerts and dashboards alike?

Names read `level:metric:operations`: the labels that tell the series of one controller apart, the metric, what was
done to it. Thresholds of KPIs are never written here: they are compared with `iace_kpi_limit`, the bounds that the
controller exports as being in force, so that its configuration moves the alerts as well. Which KPIs have limits, and
which side of a limit is the good one, comes from the KPI catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.alerting.rule import LIVE, Recording
from metrics.export_catalogue import KPI_METRICS
from metrics.kpi import CATALOGUE, Kpi, Side

BREACH = "kpi_level:iace_kpi_breach:bool"
BREACH_SHARE = "kpi_level:iace_kpi_breach:avg1m"
ANOMALIES = "kpi_severity:iace_anomalies:increase5m"
WELLS = "instance:iace_gravity_wells:avg1m"
PLANT_UP = "instance:iace_plant_up:avg30s"
LEADER = "plant:iace_leader:max"
MISSED = "instance:iace_ticks_missed_per_ticks:ratio_rate5m"


def limited_kpis() -> Iterator[Kpi]:
    """The KPIs with a limit that are exported."""
    return (kpi for kpi in CATALOGUE.values() if kpi.limit is not None and kpi.name in KPI_METRICS)


def recordings() -> Mapping[str, tuple[Recording, ...]]:
    """All recording rules, by group."""
    return {
        "iace-kpi": (*map(_breach, limited_kpis()), Recording(BREACH_SHARE, f"avg_over_time({BREACH}[1m])")),
        "iace-plant": (
            Recording(ANOMALIES, f"increase(iace_anomalies_total{{{LIVE}}}[5m])"),
            Recording(WELLS, f"avg_over_time(iace_gravity_wells{{{LIVE}}}[1m])"),
            Recording(PLANT_UP, f"avg_over_time(iace_plant_up{{{LIVE}}}[30s])"),
        ),
        "iace-controller": (
            # Without `plant` labels on the targets, all controllers of the job are taken to govern one plant.
            Recording(LEADER, f"max by (job, plant) (iace_leader{{{LIVE}}})"),
            # A label `job` of the metric itself is what Prometheus renames to `exported_job`.
            Recording(
                MISSED,
                f"sum without (exported_job) (rate(iace_ticks_missed_total{{{LIVE}}}[5m]))\n"
                f"* iace_tick_interval_seconds{{{LIVE}}}",
            ),
        ),
    }


def _breach(kpi: Kpi) -> Recording:
    """1 where the KPI is beyond its limit of that level, 0 where it is not; absent while the KPI is not known."""
    beyond = ">" if kpi.limit is not None and kpi.limit.side is Side.AT_LEAST else "<"
    return Recording(
        BREACH,
        f'iace_kpi_limit{{{LIVE},kpi="{kpi.name}"}}\n'
        f"{beyond} bool ignoring (kpi, level) group_left ()\n"
        f"{KPI_METRICS[kpi.name]}{{{LIVE}}}",
        {"kpi": kpi.name},
    )
