"""What the controller tells the exporter: what is counted along the way, and the one value that a scrape shows."""

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from controller.config import load
from controller.console import RunConsole
from controller.last_scrape import LastScrape
from controller.meter import BOUNDS_S, Meter
from controller.plants.metered import MeteredPlant
from controller.record import RunRecord
from controller.run import Job, execute
from controller.snapshot import Bounds, snapshot
from metrics.assessment import Assessor
from metrics.errors import ConfigInvalidError, PlantRefusedError, PlantUnavailableError, StoreFailedError
from metrics.kpi import CATALOGUE
from metrics.observation import NodeSignals, Observation, Parameters, Topology
from metrics.store_writer import StoreAccounts
from state.durable import DurableState, NodeRecord, NodeStatus
from state.event import Event, EventKind
from state.machine import PhaseMachine
from state.outcome import ExitCode, Outcome
from state.phase import Phase
from state.proposal_record import ProposalRecord, ProposalStatus
from state.verdict import CheckResult, CheckStatus, PhaseResult

E = EventKind


def make_record(**changes):
    record = RunRecord(
        "run", "embedded", "qecs", 6, 2, 0, "none", 10, dry_run=False, catalogue=CATALOGUE, wall_started=""
    )
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def observe(nodes=6, *, tick=1, kpis=None, counts=10.0, active=None):
    """A tick of nodes in two clusters, all alike."""
    topology = Topology(tuple(f"n{i}" for i in range(nodes)), ("c0", "c1"), (np.arange(nodes) % 2).astype(np.int32))
    active = np.ones(nodes, dtype=bool) if active is None else active
    columns = np.full((7, nodes), counts)
    signals = NodeSignals(np.zeros(nodes), np.ones(nodes), *columns, active)
    return Observation(tick, float(tick), 5.0, kpis or {}, topology, signals, Parameters())


def assessed(observation, gravity, *, trusted=True):
    """An assessment with the given |g| of each node."""
    assessment = Assessor().assess(observation)
    n = len(gravity)
    reading = SimpleNamespace(gravity=np.array(gravity), trusted=np.full(n, trusted))
    return SimpleNamespace(
        kpis=assessment.kpis,
        scores=assessment.scores,
        topology=assessment.topology,
        active=assessment.active,
        reading=reading,
        received_s=assessment.received_s,
        anomalies=assessment.anomalies,
    )


def taken(meter, record=None, *, node_series_max=100, **parts):
    return snapshot(meter, record or make_record(), Bounds(node_series_max, 1.5), **parts)


@pytest.fixture
def meter():
    return Meter(CATALOGUE)


def test_before_anything_is_known(meter):
    """Without plant, state and ticks the controller is idle, and nothing is invented about the rest."""
    value = taken(meter)
    assert (value.state, value.leader, value.epoch, value.plant_up, value.exit_code) == ("IDLE", False, 0, None, None)
    assert value.states == tuple(Phase)
    assert (value.kpis, value.nodes, value.node_samples, value.received_s) == ({}, {}, (), None)
    assert value.kpi_limits["coherence", "critical"] == 0.85
    assert ("rsi", "critical") not in value.kpi_limits


def test_every_counter_is_there_from_the_start(meter):
    """Label values that are known beforehand start at zero, so that a rate sees the first increase."""
    value = taken(meter)
    assert value.isolations == {"coherence": 0, "direction": 0, "service": 0}
    assert value.blocked == dict.fromkeys(
        ["budget_absolute", "budget_cluster", "budget_fraction", "evidence_nodes", "quorum"], 0
    )
    assert value.trials["lambda2", "rolled_back"] == 0
    assert value.anomalies["coherence", "critical"] == 0
    assert value.ticks_missed == {"tick": 0}


def test_the_state_is_told(meter):
    """Phase, epoch, holds and storm come from the durable state."""
    state = DurableState(PhaseMachine(daemon=False, phase=Phase.SAFE_MODE), epoch=4)
    state.safe_mode, state.safe_mode_cause = "storm", E.STORM_DETECTED
    value = taken(meter, state=state, leader=True)
    assert (value.state, value.epoch, value.safe_mode, value.storm, value.leader) == ("SAFE_MODE", 4, True, True, True)
    state.safe_mode_cause = E.SENSORS_DOUBTED
    assert taken(meter, state=state).storm is False


def test_proposals_and_exhaustion_come_from_the_state(meter):
    """Every status has its number of proposals, and exhaustion lasts as long as the back-off."""
    state = DurableState(PhaseMachine(daemon=True), exhausted_until_s=50.0)
    for number, status in enumerate(("proposed", "proposed", "verified")):
        state.proposals[f"p-{number}"] = ProposalRecord(f"p-{number}", ProposalStatus(status), 0.0)
    record = make_record()
    record.history.plant_time_s.append(49.0)
    value = taken(meter, record, state=state)
    assert {status: count for status, count in value.proposals.items() if count} == {"proposed": 2, "verified": 1}
    assert len(value.proposals) == 7
    assert value.healing_exhausted
    record.history.plant_time_s.append(50.0)
    assert not taken(meter, record, state=state).healing_exhausted
    assert not taken(meter).healing_exhausted


def test_wells_that_a_guard_leaves_in_place_are_told_while_they_last(meter):
    """Each safety guard has its number of blocked wells, 0 where it blocks none."""
    state = DurableState(PhaseMachine(daemon=False))
    state.blocked = {"n1": "quorum", "n2": "quorum", "c0": "budget_cluster"}
    told = taken(meter, state=state).wells_blocked
    assert {guard: count for guard, count in told.items() if count} == {"quorum": 2, "budget_cluster": 1}
    assert set(told) == set(taken(meter).wells_blocked) == set(taken(meter).blocked)


def test_the_run_is_told(meter):
    """Phases, proposals, exit code, journal and stores are those of the record."""
    passed = CheckResult("a", CheckStatus.PASSED, "fine")
    undecided = CheckResult("b", CheckStatus.INCONCLUSIVE, "who knows")
    failed = CheckResult("c", CheckStatus.FAILED, "no")
    record = make_record(
        phases=[
            PhaseResult(Phase.PHASE_I, (passed,), 0.0, 89.0),
            PhaseResult(Phase.PHASE_II, (undecided,), 89.0, 90.0),
            PhaseResult(Phase.PHASE_III, (failed,), 90.0, 92.5),
        ],
        outcome=Outcome(ExitCode.ISOLATION_BLOCKED, ("why",)),
    )
    accounts = StoreAccounts(6, 1, 2, 3, 0)
    value = taken(
        meter,
        record,
        stores={"sqlite": accounts},
        journal_events=12,
        journal_failures=1,
        parameters=Parameters(),
    )
    assert value.phase_results == {"PHASE_I": 1, "PHASE_II": -1, "PHASE_III": 0}
    assert value.phase_durations_s == {"PHASE_I": 89.0, "PHASE_II": 1.0, "PHASE_III": 2.5}
    assert value.exit_code == 51
    assert (value.journal_events, value.journal_failures) == (12, 1)
    assert value.stores == {"sqlite": accounts}
    assert value.parameters["lambda2"] == 0.35


def test_nodes_are_counted_by_where_they_stand(meter):
    """What is on record counts as recorded; else a node that is out is isolated, and one that looks bad suspect."""
    active = np.array([True, True, True, False, True, True])
    assessment = assessed(observe(active=active), [0.1, 2.0, 2.0, 0.1, 0.1, 1.5])
    state = DurableState(PhaseMachine(daemon=False))
    state.nodes = {
        "n1": NodeRecord(NodeStatus.ISOLATING, 0.0),
        "n4": NodeRecord(NodeStatus.PROBATION, 0.0),
        "n5": NodeRecord(NodeStatus.HEALTHY, 0.0, offences=1),
        "gone": NodeRecord(NodeStatus.ISOLATED, 0.0),
    }
    value = taken(meter, state=state, assessment=assessment)
    assert value.nodes == {"healthy": 2, "suspect": 1, "isolating": 1, "isolated": 1, "probation": 1}
    untrusted = assessed(observe(active=active), [9.0] * 6, trusted=False)
    assert taken(meter, assessment=untrusted).nodes["suspect"] == 0


def test_only_the_worst_nodes_and_all_that_are_out_have_series(meter):
    """The number of node series is bounded by the setting and the isolated nodes, whatever the size of the plant."""
    active = np.ones(1000, dtype=bool)
    active[[5, 6, 7]] = False
    gravity = np.arange(1000) / 1000.0
    gravity[999] = math.nan
    assessment = assessed(observe(1000, active=active), gravity)
    samples = taken(meter, assessment=assessment, node_series_max=10).node_samples
    assert {s.node for s in samples if s.isolated} == {"n5", "n6", "n7"}
    assert {s.node for s in samples if not s.isolated} == {f"n{i}" for i in range(989, 999)}
    assert next(s for s in samples if s.node == "n7").cluster == "c1"
    assert {s.node for s in taken(meter, assessment=assessment, node_series_max=0).node_samples} == {"n5", "n6", "n7"}


def test_a_snapshot_does_not_change_afterwards(meter):
    """What was handed to the exporter stays as it was, whatever is counted next."""
    before = taken(meter)
    meter.event(Event(E.ISOLATION_BLOCKED, 1.0, {"guard": "quorum"}))
    meter.ticks.add(0.3)
    assert before.blocked["quorum"] == 0
    assert sum(before.ticks.counts) == 0
    assert taken(meter).blocked["quorum"] == 1


def test_tokens_and_transactions_add_up_over_ticks(meter):
    """What ticks report is summed; garbage and unknown values count as nothing."""
    for tick, emission in enumerate([5.0, math.nan, -3.0, math.inf, 2.0], start=1):
        observation = observe(tick=tick, kpis={"emission": emission, "burned": 1.0})
        meter.tick(observation, assessed(observation, [0.1] * 6))
    assert (meter.emission_tokens, meter.burned_tokens) == (7.0, 5.0)
    assert meter.transactions == {"committed": 300.0, "retried": 300.0, "shed": 300.0, "invalid": 300.0}
    garbage = observe(tick=6, counts=math.nan)
    meter.tick(garbage, assessed(garbage, [0.1] * 6))
    assert meter.transactions["committed"] == 300.0


def test_isolations_are_counted_once_verified_by_their_main_component(meter):
    """An intended isolation counts when the plant shows it, under what weighed most; a failed one never does."""

    def intend(key, **components):
        meter.event(Event(E.ISOLATION_INTENDED, 1.0, {"key": key, "components": components}))

    intend("a", h=0.5, q=-3.0, k=0.1)
    intend("b", h=2.0, q=0.3, k=0.1)
    intend("c", h=0.0, q=0.3, k=1.6)
    assert sum(meter.isolations.values()) == 0
    meter.event(Event(E.ISOLATION_VERIFIED, 2.0, {"key": "a", "node": "n1"}))
    meter.event(Event(E.ISOLATION_FAILED, 2.0, {"key": "b", "reason": "refused"}))
    meter.event(Event(E.ISOLATION_VERIFIED, 2.0, {"key": "c", "node": "n2"}))
    meter.event(Event(E.ISOLATION_VERIFIED, 2.0, {"key": "of an earlier process", "node": "n3"}))
    meter.event(Event(E.RESTORATION_VERIFIED, 3.0, {"key": "d", "node": "n1"}))
    assert meter.isolations == {"coherence": 0, "direction": 1, "service": 1, "unknown": 1}
    assert meter.restorations == 1


def test_trials_are_counted_for_each_parameter_that_they_changed(meter):
    """A trial of two parameters counts for both, under how it ended."""
    before = Parameters().as_dict()
    start = {"from": before, "to": before | {"lambda1": 0.4, "lambda2": 0.4}}
    for outcome in (E.TRIAL_KEPT, E.TRIAL_ROLLED_BACK):
        meter.event(Event(E.TRIAL_STARTED, 1.0, start))
        meter.event(Event(outcome, 2.0, {"trial": 1}))
    told = {key: count for key, count in meter.trials.items() if count}
    assert told == {
        ("lambda1", "kept"): 1,
        ("lambda2", "kept"): 1,
        ("lambda1", "rolled_back"): 1,
        ("lambda2", "rolled_back"): 1,
    }


class Hands:
    """A clock that is moved by hand."""

    now_s = 0.0

    def monotonic_s(self):
        return self.now_s

    def wall(self):
        return ""


def test_calls_to_the_plant_are_timed_and_show_whether_it_is_up(meter):
    """Each call counts with its duration; only a missing answer means down, a refusal is an answer."""
    clock, answers = Hands(), []

    def observe_after(duration_s, answer):
        def observe(_deadline_s):
            clock.now_s += duration_s
            if isinstance(answer, Exception):
                raise answer
            return answer

        return observe

    plant = SimpleNamespace()
    metered = MeteredPlant(plant, meter, clock)
    assert meter.plant_up is None
    for duration_s, answer in (
        (0.002, ["tick"]),
        (3.0, PlantUnavailableError("no")),
        (0.002, PlantRefusedError("a", "b")),
    ):
        plant.observe = observe_after(duration_s, answer)
        try:
            answers.append(metered.observe(1.0))
        except (PlantUnavailableError, PlantRefusedError) as error:
            answers.append(type(error))
        answers.append(meter.plant_up)
    assert answers == [["tick"], True, PlantUnavailableError, False, PlantRefusedError, True]
    requests = meter.plant_requests.read()
    counted = dict(zip((*BOUNDS_S, math.inf), requests.counts, strict=True))
    assert (counted[0.0025], counted[5.0], sum(requests.counts)) == (2, 1, 3)
    assert requests.total_s == pytest.approx(3.004)


def test_late_and_missed_ticks_are_told(meter):
    """On a grid of one second, the third tick is 0.2 s late and two points after it are missed."""
    clock, ran = Hands(), []
    tick = meter.scheduled(lambda: ran.append(clock.now_s), 1.0, clock)
    lags = []
    for now_s in (10.0, 11.0, 12.2, 15.0):
        clock.now_s = now_s
        tick()
        lags.append(round(meter.tick_lag_s, 6))
    assert ran == [10.0, 11.0, 12.2, 15.0]
    assert lags == [0.0, 0.0, 0.2, 0.0]
    assert meter.ticks_missed == {"tick": 2}
    assert taken(meter).tick_interval_s == 1.0


def test_a_late_first_tick_does_not_make_the_others_early(meter):
    """The grid follows the earliest begin, so a first tick that came late costs no phantom misses."""
    clock = Hands()
    tick = meter.scheduled(lambda: None, 1.0, clock)
    for now_s in (10.3, 11.0, 12.0):
        clock.now_s = now_s
        tick()
        assert meter.tick_lag_s >= 0.0
    assert meter.tick_lag_s == pytest.approx(0.0)
    assert meter.ticks_missed == {"tick": 0}


def test_bad_targets_are_found_before_the_run(tmp_path):
    """An address that is none, a name that nobody collects and a missing directory are told at the start."""
    LastScrape().require_possible()
    LastScrape(tmp_path / "iace.prom", "http://127.0.0.1:9091").require_possible()
    with pytest.raises(ConfigInvalidError, match=r"--pushgateway: .*\n.*must be an http:// or https:// address"):
        LastScrape(pushgateway="localhost").require_possible()
    with pytest.raises(ConfigInvalidError, match=r"must end in \.prom"):
        LastScrape(tmp_path / "iace.txt").require_possible()
    with pytest.raises(StoreFailedError, match="nowhere"):
        LastScrape(tmp_path / "nowhere" / "iace.prom").require_possible()


@pytest.mark.process
def test_a_run_leaves_its_metrics_and_does_not_mind_a_missing_gateway(iace, tmp_path):
    """The file tells how the run ended; a gateway that is down costs a line, not the exit code."""
    run = iace(
        "run", "--nodes", 10, "--ticks", 30, "--textfile", tmp_path / "iace.prom", "--pushgateway", "http://127.0.0.1:9"
    )
    text = (tmp_path / "iace.prom").read_text()
    values = {(s.name, *s.labels.values()): s.value for family in parse(text) for s in family.samples}
    assert run.code == 0, run.err
    assert "not pushed: the Pushgateway at http://127.0.0.1:9 did not take the metrics" in run.err
    assert values[("iace_last_run_exit_code",)] == 0.0
    assert values["iace_state", "COHERENT_LOCK"] == 1.0
    assert [values["iace_phase_result", f"PHASE_{number}"] for number in ("I", "II", "III", "IV")] == [1.0] * 4
    assert values[("iace_journal_events_total",)] == run.report["journal_tip"]["seq"]
    assert sum(value for (name, *_), value in values.items() if name == "iace_nodes") == 10.0


@pytest.mark.process
def test_a_run_without_plant_still_tells_its_exit_code(iace, tmp_path):
    """Where the plant does not answer, the file says so: down, idle, exit code 69."""
    run = iace("run", "--url", "http://127.0.0.1:9", "--textfile", tmp_path / "iace.prom")
    text = (tmp_path / "iace.prom").read_text()
    assert run.code == 69
    assert "iace_last_run_exit_code 69.0\n" in text
    assert "iace_plant_up 0.0\n" in text
    assert 'iace_state{state="IDLE"} 1.0\n' in text


@pytest.mark.process
def test_a_textfile_that_cannot_be_written_ends_the_run_before_it_begins(iace, tmp_path):
    """A missing directory is exit code 74, at once and without a journal."""
    run = iace("run", "--textfile", tmp_path / "nowhere" / "iace.prom")
    assert run.code == 74
    assert "nowhere" in run.err
    assert not (run.cwd / ".iace").exists()


class FullDisk(LastScrape):
    """A file that could be written when the run began, and cannot at its end."""

    def write(self, _snapshot, _monotonic_s):
        raise StoreFailedError("the metrics cannot be written: no space")


def test_a_textfile_that_fails_at_the_end_decides_the_exit_code(tmp_path):
    """The report tells of the failure, and the run ends with 74 though the plant is well."""
    config = load(None, {"plant": {"nodes": 5}, "schedule": {"ticks": 5}})
    last_scrape = FullDisk(tmp_path / "iace.prom")
    job = Job(config, None, tmp_path / "data", tmp_path / "reports", dry_run=False, last_scrape=last_scrape)
    with RunConsole(config.catalogue(), stream=io.StringIO()) as console:
        finished = execute(job, console)
    assert finished.outcome.code is ExitCode.STORE_FAILED
    assert json.loads((tmp_path / "reports" / "report.json").read_text())["exit_code"] == 74
