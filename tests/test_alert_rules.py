"""Each alert fires on what it is for and on nothing else, as promtool evaluates the committed rules."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "prometheus" / "rules"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
ONE = {"job": "iace", "instance": "one:8470"}
TWO = {"job": "iace", "instance": "two:8470"}


@dataclass(frozen=True)
class Case:
    """Series with a sample every 2 s, and what an alert makes of them.

    Attributes:
        alert: its name.
        what: the situation.
        series: series to values, in promtool's notation: "0x5" is six zeros, "_x5" five gaps.
        at: when it is looked at; each time gives the same.
        fires: the labels of the series beside those of the rule, and the description; None where it is quiet.
    """

    alert: str
    what: str
    series: dict[str, str]
    at: tuple[str, ...]
    fires: tuple[dict[str, str], str] | None = None


def series(name, origin=ONE, **labels):
    text = ",".join(f'{label}="{value}"' for label, value in (origin | labels).items())
    return f"{name}{{{text}}}"


def kpi(name, metric, values, **limits):
    """A KPI's values beside its limits by level."""
    bounds = {series("iace_kpi_limit", kpi=name, level=level): f"{value}x300" for level, value in limits.items()}
    return {series(metric): values} | bounds


COHERENCE = {"healthy": 0.9, "critical": 0.85}
GAS = {"healthy": 0.95, "critical": 0.9}
ACTION_COST = {"healthy": 0.05, "critical": 0.1}
LIMIT = "for most of the last minute. The limit is the one in force there, iace_kpi_limit"


def kpi_case(alert, name, metric, limits, *, bad, side, level, default, good):
    """A KPI that breaks its limit for good, and one that breaks it for 20 s of each 50."""
    text = (
        f"{name} is {bad} at one:8470 and was {side} its {level} limit {LIMIT}"
        f'{{kpi="{name}",level="{level}"}}: {default} unless configured otherwise.'
    )
    value = bad.split()[0]
    swinging = " ".join(f"{good}x14 {value}x9" for _ in range(4))
    return (
        Case(alert, "lasting", kpi(name, metric, f"{good}x30 {value}x60", **limits), ("2m10s",), (ONE, text)),
        Case(alert, "now-and-then", kpi(name, metric, swinging, **limits), ("50s", "1m40s", "2m", "3m10s")),
    )


def coherence_text(value):
    limit = f'{LIMIT}{{kpi="coherence",level="healthy"}}: 0.9 unless configured otherwise.'
    return f"coherence is {value} at one:8470 and was below its healthy limit {limit}"


CASES = (
    *kpi_case(
        "IaceCoherenceUnhealthy",
        "coherence",
        "iace_coherence_ratio",
        COHERENCE,
        bad="0.89",
        side="below",
        level="healthy",
        default="0.9",
        good="0.9",
    ),
    *kpi_case(
        "IaceCoherenceCritical",
        "coherence",
        "iace_coherence_ratio",
        COHERENCE,
        bad="0.84",
        side="below",
        level="critical",
        default="0.85",
        good="0.86",
    ),
    *kpi_case(
        "IaceGasUnhealthy",
        "gas",
        "iace_gas_ratio",
        GAS,
        bad="0.94",
        side="below",
        level="healthy",
        default="0.95",
        good="0.95",
    ),
    *kpi_case(
        "IaceGasCritical",
        "gas",
        "iace_gas_ratio",
        GAS,
        bad="0.89",
        side="below",
        level="critical",
        default="0.9",
        good="0.94",
    ),
    *kpi_case(
        "IaceRsiUnhealthy",
        "rsi",
        "iace_rsi_ratio",
        {"healthy": 0.65},
        bad="0.6",
        side="below",
        level="healthy",
        default="0.65",
        good="0.7",
    ),
    *kpi_case(
        "IaceActionCostUnhealthy",
        "action_cost",
        "iace_action_cost_ratio",
        ACTION_COST,
        bad="0.06",
        side="above",
        level="healthy",
        default="0.05",
        good="0.05",
    ),
    *kpi_case(
        "IaceActionCostCritical",
        "action_cost",
        "iace_action_cost_ratio",
        ACTION_COST,
        bad="0.11",
        side="above",
        level="critical",
        default="0.1",
        good="0.06",
    ),
    *kpi_case(
        "IaceDeltaLambdaUnhealthy",
        "delta_lambda",
        "iace_delta_lambda",
        {"healthy": 0.01},
        bad="0.02 1/s",
        side="above",
        level="healthy",
        default="0.01 1/s",
        good="0.001",
    ),
    *kpi_case(
        "IaceDeltaEntropyUnhealthy",
        "delta_entropy",
        "iace_delta_entropy",
        {"healthy": 0.002},
        bad="0.003 nat",
        side="above",
        level="healthy",
        default="0.002 nat",
        good="0.001",
    ),
    Case(
        "IaceCoherenceUnhealthy",
        "configured-stricter",
        kpi("coherence", "iace_coherence_ratio", "0.94x60", healthy=0.95),
        ("2m",),
        (
            ONE,
            coherence_text("0.94"),
        ),
    ),
    Case(
        "IaceCoherenceUnhealthy",
        "configured-laxer",
        kpi("coherence", "iace_coherence_ratio", "0.86x60", healthy=0.8),
        ("2m",),
    ),
    Case(
        "IaceCoherenceUnhealthy",
        "well-for-two-minutes",
        kpi("coherence", "iace_coherence_ratio", "0.86x60 0.96x140", healthy=0.9),
        ("5m",),
    ),
    Case(
        "IaceCoherenceUnhealthy",
        "well-again-for-one-minute",
        kpi("coherence", "iace_coherence_ratio", "0.86x60 0.96x60", healthy=0.9),
        ("3m",),
        (
            ONE,
            coherence_text("0.96"),
        ),
    ),
    Case(
        "IaceControllerAbsent",
        "gone",
        {series("iace_build_info"): "1x10 stale", series("iace_build_info", {"job": "other"}): "1x60"},
        ("1m",),
        ({"job": "iace"}, "No target of job iace gives metrics of a controller."),
    ),
    Case(
        "IaceControllerAbsent",
        "gone-at-one-plant",
        {
            series("up", plant="east"): "1x10 0x60",
            series("up", TWO, plant="west"): "1x60",
            series("iace_build_info", TWO, plant="west"): "1x60",
        },
        ("1m",),
        ({"job": "iace", "plant": "east"}, "No target of job iace at plant east gives metrics of a controller."),
    ),
    Case(
        "IaceControllerAbsent",
        "gone-altogether",
        {series("up"): "1x10 0x60", series("iace_build_info"): "1x10 stale"},
        ("1m",),
        ({"job": "iace"}, "No target of job iace gives metrics of a controller."),
    ),
    Case(
        "IaceControllerAbsent",
        "one-of-two-gone",
        {series("iace_build_info"): "1x10 stale", series("iace_build_info", TWO): "1x60"},
        ("1m",),
    ),
    Case("IaceControllerAbsent", "restarted", {series("iace_build_info"): "1x10 stale _x8 1x30"}, ("30s", "1m")),
    Case(
        "IaceNoLeader",
        "two-on-standby",
        {series("iace_leader", plant="east"): "0x60", series("iace_leader", TWO, plant="east"): "1x10 0x60"},
        ("1m",),
        (
            {"job": "iace", "plant": "east"},
            "None of the controllers of job iace at plant east holds the lease.",
        ),
    ),
    Case(
        "IaceNoLeader",
        "taken-over",
        {series("iace_leader"): "1x10 0x60", series("iace_leader", TWO): "0x18 1x60"},
        ("30s", "1m"),
    ),
    Case(
        "IaceLeadershipLost",
        "taken-over",
        {series("iace_leader"): "1x30 0x60", series("iace_leader", TWO): "0x30 1x60"},
        ("1m20s",),
        (ONE, "one:8470 has led within the last 10 minutes and may not act now."),
    ),
    Case("IaceLeadershipLost", "standby", {series("iace_leader"): "1x90", series("iace_leader", TWO): "0x90"}, ("2m",)),
    Case(
        "IaceJournalFailed",
        "disk-full",
        {series("iace_journal_failures_total"): "0x30 2x30"},
        ("1m10s",),
        (ONE, "The journal of one:8470 could not keep 2 decisions within the last 10 minutes."),
    ),
    Case("IaceJournalFailed", "long-ago", {series("iace_journal_failures_total"): "0x2 2x800"}, ("15m",)),
    Case(
        "IaceTicksMissed",
        "every-tenth",
        {
            series("iace_ticks_missed_total", exported_job="tick"): "0+0.2x300",
            series("iace_tick_interval_seconds"): "1x300",
        },
        ("9m",),
        (ONE, "one:8470 has missed 10% of its scheduled ticks over the last 5 minutes."),
    ),
    Case(
        "IaceTicksMissed",
        "every-thirtieth",
        {
            series("iace_ticks_missed_total", exported_job="tick"): "0+0.2x300",
            series("iace_tick_interval_seconds"): "0.3x300",
        },
        ("6m", "9m"),
    ),
    Case(
        "IaceSafeMode",
        "held",
        {series("iace_safe_mode"): "0x10 1x30"},
        ("40s",),
        (ONE, "one:8470 is in SAFE_MODE; `iace status` says why."),
    ),
    Case("IaceSafeMode", "left-at-once", {series("iace_safe_mode"): "0x10 1x3 0x30"}, ("26s", "40s")),
    Case(
        "IacePlantDown",
        "silent",
        {series("iace_plant_up"): "1x30 0x30"},
        ("1m50s",),
        (ONE, "The plant left one:8470 without an answer for most of the last 30 seconds."),
    ),
    Case(
        "IacePlantDown",
        "a-lost-call-now-and-then",
        {series("iace_plant_up"): "1x30 0x4 1x9 0x4 1x30"},
        ("1m10s", "1m38s"),
    ),
    Case(
        "IaceObservationStale",
        "frozen",
        {series("iace_observation_age_seconds"): "0+2x60", series("iace_tick_interval_seconds"): "1x60"},
        ("30s",),
        (
            ONE,
            "The latest observation of one:8470 is 30s old, more than ten times the interval between its ticks.",
        ),
    ),
    Case(
        "IaceObservationStale",
        "slow-by-configuration",
        {series("iace_observation_age_seconds"): "0+2x60", series("iace_tick_interval_seconds"): "60x60"},
        ("2m",),
    ),
    Case(
        "IaceAnomaly",
        "began",
        {series("iace_anomalies_total", kpi="rsi", severity="warning"): "0x30 2x30"},
        ("1m10s",),
        (ONE | {"kpi": "rsi"}, "rsi at one:8470: 2 anomalies began within the last 5 minutes."),
    ),
    Case(
        "IaceAnomaly",
        "critical-ones-have-their-own",
        {
            series("iace_anomalies_total", kpi="rsi", severity="warning"): "3x60",
            series("iace_anomalies_total", kpi="rsi", severity="critical"): "0x30 1x30",
        },
        ("1m10s",),
    ),
    Case(
        "IaceAnomalyCritical",
        "began",
        {series("iace_anomalies_total", kpi="gas", severity="critical"): "0x30 1x30"},
        ("1m10s",),
        (ONE | {"kpi": "gas"}, "gas at one:8470: 1 critical anomalies began within the last 5 minutes."),
    ),
    Case(
        "IaceAnomalyCritical",
        "only-warnings",
        {
            series("iace_anomalies_total", kpi="gas", severity="critical"): "1x60",
            series("iace_anomalies_total", kpi="gas", severity="warning"): "0x30 1x30",
        },
        ("1m10s",),
    ),
    Case(
        "IaceGravityWell",
        "stays",
        {series("iace_gravity_wells"): "0x30 2x60"},
        ("2m10s",),
        (
            ONE,
            "On average 2.0 active nodes at one:8470 were gravity wells during the last minute.",
        ),
    ),
    Case(
        "IaceGravityWell", "isolated-within-10-s", {series("iace_gravity_wells"): "0x30 1x5 0x60"}, ("1m12s", "1m30s")
    ),
    Case(
        "IaceNodeIsolated",
        "out",
        {series("iace_node_isolated", node="n1", cluster="c1"): "0x5 1x5"},
        ("12s", "20s"),
        (ONE | {"node": "n1", "cluster": "c1"}, "The plant holds n1 of c1 out, as one:8470 sees it."),
    ),
    Case("IaceNodeIsolated", "in", {series("iace_node_isolated", node="n1", cluster="c1"): "0x30"}, ("1m",)),
    Case(
        "IaceNodeIsolated",
        "in-again-for-4-s",
        {series("iace_node_isolated", node="n1", cluster="c1"): "1x5 0x2"},
        ("14s",),
        (ONE | {"node": "n1", "cluster": "c1"}, "The plant holds n1 of c1 out, as one:8470 sees it."),
    ),
    Case("IaceNodeIsolated", "in-again", {series("iace_node_isolated", node="n1", cluster="c1"): "1x5 0x30"}, ("30s",)),
    Case(
        "IaceIsolationBlocked",
        "quorum",
        {series("iace_wells_blocked", guard="quorum"): "0x5 2x20"},
        ("40s",),
        (
            ONE | {"guard": "quorum"},
            "quorum keeps one:8470 from isolating 2 confirmed gravity wells.",
        ),
    ),
    Case(
        "IaceIsolationBlocked",
        "for-a-moment",
        {series("iace_wells_blocked", guard="quorum"): "0x5 1x3 0x20"},
        ("18s", "40s"),
    ),
    Case(
        "IaceStorm",
        "storm",
        {series("iace_storm"): "0x5 1x5"},
        ("14s",),
        (ONE, "one:8470 holds in SAFE_MODE for a storm: it isolates nobody."),
    ),
    Case("IaceStorm", "calm", {series("iace_storm"): "0x30", series("iace_safe_mode"): "1x30"}, ("1m",)),
    Case(
        "IaceHealingFailed",
        "three-trials-rolled-back",
        {
            series("iace_healing_trials_total", parameter="lambda1", outcome="rolled_back"): "0x30 1x30 2x30 3x30",
            series("iace_healing_trials_total", parameter="lambda2", outcome="rolled_back"): "0x30 1x90",
            series("iace_healing_trials_total", parameter="lambda1", outcome="kept"): "0x120",
        },
        ("4m",),
        (
            ONE,
            "one:8470 has rolled back three or more trials of one parameter within 30 minutes and kept none.",
        ),
    ),
    Case(
        "IaceHealingFailed",
        "one-was-kept",
        {
            series("iace_healing_trials_total", parameter="lambda1", outcome="rolled_back"): "0x30 1x30 2x30 3x30",
            series("iace_healing_trials_total", parameter="lambda2", outcome="kept"): "0x60 1x60",
        },
        ("4m",),
    ),
    Case(
        "IaceHealingExhausted",
        "given-up",
        {series("iace_healing_exhausted"): "0x5 1x30"},
        ("14s", "1m"),
        (ONE, "one:8470 has run out of ideas: it tries nothing more until its back-off is over."),
    ),
    Case("IaceHealingExhausted", "not-yet", {series("iace_healing_exhausted"): "0x30"}, ("40s",)),
    Case("IaceHealingExhausted", "tries-again", {series("iace_healing_exhausted"): "1x10 0x60"}, ("1m50s",)),
    Case(
        "IaceRollbackFailed",
        "failed",
        {
            series("iace_healing_trials_total", parameter="lambda1", outcome="rollback_failed"): "0x30 1x30",
            series("iace_healing_trials_total", parameter="lambda2", outcome="rollback_failed"): "0x30 1x30",
        },
        ("1m10s",),
        (ONE, "one:8470 could not restore the last good parameters at the plant."),
    ),
    Case(
        "IaceRollbackFailed",
        "rolled-back",
        {
            series("iace_healing_trials_total", parameter="lambda1", outcome="rolled_back"): "0x30 1x30",
            series("iace_healing_trials_total", parameter="lambda1", outcome="rollback_failed"): "0x60",
        },
        ("1m10s",),
    ),
    Case(
        "IaceStoreBacklog",
        "nothing-is-written",
        {
            series("iace_store_buffered_points", store="influxdb"): "0+100x300",
            series("iace_store_points_total", store="influxdb", outcome="written"): "900x300",
        },
        ("6m",),
        (
            ONE | {"store": "influxdb"},
            "18000 points wait for influxdb at one:8470: more than were written within the last 5 minutes.",
        ),
    ),
    Case(
        "IaceStoreBacklog",
        "written-every-200-s",
        {
            series("iace_store_buffered_points", store="sqlite"): "0+100x99 0+100x99 0+100x99",
            series("iace_store_points_total", store="sqlite", outcome="written"): "0x99 10000x99 20000x99",
        },
        ("3m", "6m30s", "9m50s"),
    ),
    Case(
        "IaceStorePointsLost",
        "dropped",
        {
            series("iace_store_points_total", store="influxdb", outcome="dropped"): "0x30 500x30",
            series("iace_store_points_total", store="influxdb", outcome="written"): "0+9x60",
        },
        ("1m10s",),
        (
            ONE | {"store": "influxdb", "outcome": "dropped"},
            "500 points for influxdb at one:8470 were dropped within the last 10 minutes.",
        ),
    ),
    Case(
        "IaceStorePointsLost",
        "unknown-values-rejected",
        {
            series("iace_store_points_total", store="influxdb", outcome="rejected"): "0+2x60",
            series("iace_store_points_total", store="influxdb", outcome="dropped"): "7x60",
            series("iace_store_points_total", store="influxdb", outcome="written"): "0+9x60",
        },
        ("1m10s",),
    ),
    Case(
        "IaceRunFailed",
        "pushed",
        {series("iace_last_run_exit_code", {"job": "iace_run"}, plant="embedded"): "20x5"},
        ("10s",),
        (
            {"job": "iace_run", "plant": "embedded"},
            "The latest run on plant embedded ended with exit code 20.",
        ),
    ),
    Case(
        "IaceRunFailed",
        "from-a-textfile",
        {series("iace_last_run_exit_code", {"job": "node", "instance": "ci:9100"}): "51x5"},
        ("10s",),
        (
            {"job": "node", "instance": "ci:9100"},
            "The latest run at ci:9100 ended with exit code 51.",
        ),
    ),
    Case(
        "IaceRunFailed",
        "passed-or-stopped",
        {
            series("iace_last_run_exit_code", {"job": "iace_run"}, plant="a"): "0x5",
            series("iace_last_run_exit_code", {"job": "iace_run"}, plant="b"): "130x5",
            series("iace_last_run_exit_code"): "60x5",
        },
        ("10s",),
    ),
    Case(
        "IaceLeadershipLost",
        "for-a-moment",
        {series("iace_leader"): "1x30 0x1 1x60"},
        ("1m4s", "1m20s"),
    ),
    Case("IaceLeadershipLost", "long-ago", {series("iace_leader"): "1x10 0x500"}, ("12m",)),
    Case(
        "IaceTicksMissed",
        "one-halt-of-30-s",
        {
            series("iace_ticks_missed_total", exported_job="tick"): "0x30 30x300",
            series("iace_tick_interval_seconds"): "1x300",
        },
        ("2m", "5m", "7m"),
    ),
    Case("IacePlantDown", "before-the-first-answer", {series("iace_plant_up"): "0x2 1x30"}, ("4s", "8s", "20s")),
    Case(
        "IaceObservationStale",
        "a-gap-of-20-s",
        {series("iace_observation_age_seconds"): "0+2x10 0x30", series("iace_tick_interval_seconds"): "1x60"},
        ("20s", "30s"),
    ),
    Case("IaceGravityWell", "at-the-start", {series("iace_gravity_wells"): "1x3 0x60"}, ("6s", "30s")),
    Case(
        "IaceHealingFailed",
        "only-two-trials",
        {series("iace_healing_trials_total", parameter="lambda1", outcome="rolled_back"): "0x30 1x30 2x60"},
        ("4m",),
    ),
    Case(
        "IaceRollbackFailed",
        "long-ago",
        {series("iace_healing_trials_total", parameter="lambda1", outcome="rollback_failed"): "0x2 1x600"},
        ("17m",),
    ),
    Case(
        "IaceStorePointsLost",
        "long-ago",
        {series("iace_store_points_total", store="influxdb", outcome="dropped"): "0x2 500x600"},
        ("17m",),
    ),
)


def as_test(case):
    """The case as promtool's test."""
    rule = RULES[case.alert]
    expected = []
    if case.fires is not None:
        labels, description = case.fires
        annotations = {**rule["annotations"], "description": description}
        expected = [{"exp_labels": labels | rule["labels"], "exp_annotations": annotations}]
    looks = [{"eval_time": at, "alertname": case.alert, "exp_alerts": expected} for at in case.at]
    inputs = [{"series": name, "values": values} for name, values in case.series.items()]
    return {"interval": "2s", "name": case.what, "input_series": inputs, "alert_rule_test": looks}


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_fires_when_it_should_and_only_then(alert, tmp_path, need_programs):
    """In each case with its labels and words where it fires, and not at all where nothing is to be told."""
    need_programs("promtool")
    tests = [as_test(case) for case in CASES if case.alert == alert]
    # The rule by itself, taken from the committed file: promtool would evaluate all the others every time.
    (tmp_path / "rule.yml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [RULES[alert]]}]}))
    rule_files = [str(FOLDER / "recording.yml"), "rule.yml"]
    document = {"rule_files": rule_files, "evaluation_interval": "2s", "tests": tests}
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    command = ["promtool", "test", "rules", str(tmp_path / "cases.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_stays_quiet():
    """No alert goes untested, on either side."""
    assert {case.alert for case in CASES if case.fires is not None} == set(RULES)
    assert {case.alert for case in CASES if case.fires is None} == set(RULES)
