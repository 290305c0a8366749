"""When should people hear of it? Every alert but those of the KPI limits, see `kpi_alerts.py`.

An alert tells a state that somebody has to do something about, not an event. None flaps: each has a time before it is
told and one for which it goes on being told, and what swings is averaged first. Numbers here are no limits of the
governed system but say how long a thing has to last; where a number of the configuration decides, the exported one is
compared with, such as `iace_tick_interval_seconds`.

Only the daemon's own series count (`job="iace"`): what a run has pushed stays at the Pushgateway for ever, and would
otherwise tell of a plant that was down last month. Runs have the one alert on their exit code.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.alerting.kpi_alerts import kpi_alerts
from controller.alerting.recordings import ANOMALIES, LEADER, MISSED, PLANT_UP, WELLS
from controller.alerting.rule import LIVE, LIVE_JOB, Alert, Scope, Severity

_SIGNALLED_MIN = 128  # exit codes from here on say that somebody stopped the run

_CONTROLLER = (
    Alert(
        "IaceControllerAbsent",
        # The second half knows which plant has lost its controllers, where the targets say so.
        f"absent(iace_build_info{{{LIVE}}})\nor max by (job, plant) (up{{{LIVE}}}) == 0",
        Severity.CRITICAL,
        Scope.CONTROLLER,
        "No controller answers, so nothing is governed.",
        "No target of job {{ $labels.job }}{{ with $labels.plant }} at plant {{ . }}{{ end }} "
        "gives metrics of a controller.",
        after="30s",
        hold="30s",
    ),
    Alert(
        "IaceNoLeader",
        f"{LEADER}{{{LIVE}}} == 0",
        Severity.CRITICAL,
        Scope.CONTROLLER,
        "No controller may act, so nothing is governed.",
        "None of the controllers of job {{ $labels.job }}"
        "{{ with $labels.plant }} at plant {{ . }}{{ end }} holds the lease.",
        after="30s",
        hold="30s",
    ),
    Alert(
        "IaceLeadershipLost",
        f"iace_leader{{{LIVE}}} == 0\nand max_over_time(iace_leader{{{LIVE}}}[10m]) == 1",
        Severity.WARNING,
        Scope.CONTROLLER,
        "A controller that led does not lead any more.",
        "{{ $labels.instance }} has led within the last 10 minutes and may not act now.",
        after="5s",
        hold="1m",
    ),
    Alert(
        "IaceJournalFailed",
        f"increase(iace_journal_failures_total{{{LIVE}}}[10m]) > 0",
        Severity.CRITICAL,
        Scope.CONTROLLER,
        "Decisions cannot be made durable, so none is carried out.",
        "The journal of {{ $labels.instance }} could not keep "
        '{{ $value | printf "%.0f" }} decisions within the last 10 minutes.',
        after="0s",
        hold="2m",
    ),
    Alert(
        "IaceTicksMissed",
        f"{MISSED}{{{LIVE}}} > 0.05",
        Severity.WARNING,
        Scope.PLANT,
        "The controller looks at the plant less often than it should.",
        "{{ $labels.instance }} has missed {{ $value | humanizePercentage }} of its scheduled ticks "
        "over the last 5 minutes.",
        after="5m",  # as long as one halt shows in the rate: only one that comes again is told
        hold="5m",
    ),
    Alert(
        "IaceSafeMode",
        f"iace_safe_mode{{{LIVE}}} == 1",
        Severity.CRITICAL,
        Scope.CONTROLLER,
        "The controller holds fail-static: it observes and changes nothing.",
        "{{ $labels.instance }} is in SAFE_MODE; `iace status` says why.",
        after="10s",
        hold="1m",
    ),
)

_PLANT = (
    Alert(
        "IacePlantDown",
        f"{PLANT_UP}{{{LIVE}}} < 0.5",
        Severity.CRITICAL,
        Scope.PLANT,
        "The plant does not answer the controller.",
        "The plant left {{ $labels.instance }} without an answer for most of the last 30 seconds.",
        after="10s",
        hold="1m",
    ),
    Alert(
        "IaceObservationStale",
        f"iace_observation_age_seconds{{{LIVE}}} > 10 * iace_tick_interval_seconds{{{LIVE}}}",
        Severity.CRITICAL,
        Scope.PLANT,
        "The plant shows nothing new, so the controller decides on nothing.",
        "The latest observation of {{ $labels.instance }} is {{ $value | humanizeDuration }} old, "
        "more than ten times the interval between its ticks.",
        after="15s",
        hold="1m",
    ),
    Alert(
        "IaceAnomaly",
        f'{ANOMALIES}{{{LIVE},severity="warning"}} > 0',
        Severity.INFO,
        Scope.PLANT,
        "A figure of the plant is unusual.",
        "{{ $labels.kpi }} at {{ $labels.instance }}: "
        '{{ $value | printf "%.0f" }} anomalies began within the last 5 minutes.',
        after="0s",
        hold="2m",
    ),
    Alert(
        "IaceAnomalyCritical",
        f'{ANOMALIES}{{{LIVE},severity="critical"}} > 0',
        Severity.WARNING,
        Scope.PLANT,
        "A figure of the plant is unusual, and critical or not to be believed.",
        "{{ $labels.kpi }} at {{ $labels.instance }}: "
        '{{ $value | printf "%.0f" }} critical anomalies began within the last 5 minutes.',
        after="0s",
        hold="2m",
    ),
)

_GOVERNANCE = (
    Alert(
        "IaceGravityWell",
        f"{WELLS}{{{LIVE}}} > 0.5",
        Severity.WARNING,
        Scope.PLANT,
        "A node drags its cluster down and takes part all the same.",
        'On average {{ $value | printf "%.1f" }} active nodes at {{ $labels.instance }} were gravity wells '
        "during the last minute.",
        after="15s",
        hold="1m",
    ),
    Alert(
        "IaceNodeIsolated",
        f"iace_node_isolated{{{LIVE}}} == 1",
        Severity.WARNING,
        Scope.CONTROLLER,
        "A node is isolated.",
        "The plant holds {{ $labels.node }} of {{ $labels.cluster }} out, as {{ $labels.instance }} sees it.",
        after="0s",
        hold="10s",
    ),
    Alert(
        "IaceIsolationBlocked",
        f"iace_wells_blocked{{{LIVE}}} > 0",
        Severity.CRITICAL,
        Scope.CONTROLLER,
        "A gravity well stays because a safety guard forbids its isolation.",
        "{{ $labels.guard }} keeps {{ $labels.instance }} from isolating "
        '{{ $value | printf "%.0f" }} confirmed gravity wells.',
        after="10s",
        hold="1m",
    ),
    Alert(
        "IaceStorm",
        f"iace_storm{{{LIVE}}} == 1",
        Severity.CRITICAL,
        Scope.CONTROLLER,
        "So many nodes look bad at once that the sensors are suspected.",
        "{{ $labels.instance }} holds in SAFE_MODE for a storm: it isolates nobody.",
        after="0s",
        hold="1m",
    ),
    Alert(
        "IaceHealingFailed",
        "max without (parameter, outcome) "
        f'(increase(iace_healing_trials_total{{{LIVE},outcome="rolled_back"}}[30m])) >= 2.5\n'
        "unless max without (parameter, outcome) "
        f'(increase(iace_healing_trials_total{{{LIVE},outcome="kept"}}[30m])) >= 0.5',
        Severity.WARNING,
        Scope.PLANT,
        "Tuning the parameters does not help.",
        "{{ $labels.instance }} has rolled back three or more trials of one parameter within 30 minutes and kept none.",
        after="0s",
        hold="5m",
    ),
    Alert(
        "IaceHealingExhausted",
        f"iace_healing_exhausted{{{LIVE}}} == 1",
        Severity.WARNING,
        Scope.PLANT,
        "Healing has given up and leaves the matter to people.",
        "{{ $labels.instance }} has run out of ideas: it tries nothing more until its back-off is over.",
        after="0s",
        hold="1m",
    ),
    Alert(
        "IaceRollbackFailed",
        "max without (parameter, outcome) "
        f'(increase(iace_healing_trials_total{{{LIVE},outcome="rollback_failed"}}[10m])) > 0',
        Severity.CRITICAL,
        Scope.CONTROLLER,
        "Parameters on trial could not be taken back.",
        "{{ $labels.instance }} could not restore the last good parameters at the plant.",
        after="0s",
        hold="5m",
    ),
)

_STORES = (
    Alert(
        "IaceStoreBacklog",
        f"iace_store_buffered_points{{{LIVE}}}\n"
        "> ignoring (outcome)\n"
        f'increase(iace_store_points_total{{{LIVE},outcome="written"}}[5m])',
        Severity.WARNING,
        Scope.STORE,
        "A telemetry store falls behind.",
        '{{ $value | printf "%.0f" }} points wait for {{ $labels.store }} at {{ $labels.instance }}: '
        "more than were written within the last 5 minutes.",
        after="5m",
        hold="5m",
    ),
    Alert(
        "IaceStorePointsLost",
        # Not the rejected ones: a KPI that is not known yet is NaN, which no store takes, and nothing is lost by it.
        f'increase(iace_store_points_total{{{LIVE},outcome="dropped"}}[10m]) > 0',
        Severity.WARNING,
        Scope.STORE,
        "Telemetry was lost.",
        '{{ $value | printf "%.0f" }} points for {{ $labels.store }} at {{ $labels.instance }} were dropped '
        "within the last 10 minutes.",
        after="0s",
        hold="5m",
    ),
)

_RUNS = (
    Alert(
        "IaceRunFailed",
        f'(iace_last_run_exit_code{{job!="{LIVE_JOB}"}} > 0) < {_SIGNALLED_MIN}',
        Severity.WARNING,
        Scope.RUN,
        "The latest run of a pipeline has failed.",
        "The latest run {{ with $labels.plant }}on plant {{ . }}{{ else }}at {{ $labels.instance }}{{ end }} "
        "ended with exit code {{ $value }}.",
        after="0s",
        hold="1m",
    ),
)


def alerts() -> Mapping[str, tuple[Alert, ...]]:
    """All alerts, by group."""
    return {
        "iace-controller": _CONTROLLER,
        "iace-plant": _PLANT,
        "iace-kpi": kpi_alerts(),
        "iace-governance": _GOVERNANCE,
        "iace-stores": _STORES,
        "iace-runs": _RUNS,
    }
