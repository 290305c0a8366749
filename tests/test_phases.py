"""The checks of the phases, one by one, on plants and observations that are made to fail them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.phases import field, improvement, initialization, transactions
from controller.phases.chain_audit import ChainAudit, Claim
from controller.plants.embedded import EmbeddedPlant
from controller.plants.plant import LedgerState, LedgerTip, PlantInfo
from controller.session import Session, caught_up, until
from controller.settings import Config
from metrics.errors import PlantUnavailableError, StoreFailedError
from metrics.kpi import CATALOGUE, KpiStatus
from metrics.observation import Capability, Topology
from state.phase import Phase
from state.verdict import CheckStatus

EVERYTHING = frozenset(Capability)
TOPOLOGY = Topology(
    nodes=tuple(f"n{i}" for i in range(6)),
    clusters=("c0", "c1"),
    cluster_of=np.array([0, 0, 0, 1, 1, 1], dtype=np.int32),
)
TIP = LedgerTip(7, "aa" * 32)


class Loop:
    """What checks read of the loop, and a governor without a memory."""

    def __init__(self, *, active=(True,) * 6, known=(), out=(), phase=Phase.GOVERNING):
        self.topology = TOPOLOGY
        self.assessment = SimpleNamespace(active=np.array(active), topology=TOPOLOGY)
        self.now_s = 0.0
        self.backlog = 0
        nodes = dict.fromkeys(known)
        self.governor = SimpleNamespace(
            state=SimpleNamespace(nodes=nodes, out_of_service=lambda: set(out), phase=phase, intents={}, trial=None)
        )


def session_of(*, capabilities=EVERYTHING, real_time=False, interval_s=0.0, plant=None, loop=None, **changes):
    info = PlantInfo("test", "test 1", capabilities, None, real_time=real_time, interval_s=interval_s)
    known = {
        "config": Config(),
        "plant": plant,
        "info": info,
        "loop": loop or Loop(),
        "record": SimpleNamespace(catalogue=CATALOGUE, refusals={}),
        "store": None,
        "writer": None,
        "console": None,
        "dry_run": False,
        "run_id": "test",
    }
    return Session(**known | changes)


def seen(tick, kpis=None, *, plant_time_s=None, received_s=None, gravity=None):
    """One tick as a check gets to see it."""
    verdicts = {
        name: SimpleNamespace(value=value, status=KpiStatus.HEALTHY, persistent=KpiStatus.HEALTHY)
        for name, value in (kpis or {}).items()
    }
    reading = None
    if gravity is not None:
        reading = SimpleNamespace(gravity=np.array(gravity), trusted=np.isfinite(gravity))
    return SimpleNamespace(
        observation=SimpleNamespace(
            tick=tick,
            plant_time_s=float(tick) if plant_time_s is None else plant_time_s,
            received_s=float(tick) if received_s is None else received_s,
            kpis=kpis or {},
        ),
        assessment=SimpleNamespace(
            kpis=verdicts, reading=reading, active=None if gravity is None else np.ones(len(gravity), dtype=bool)
        ),
    )


def waited(generator, ticks=10_000, before_tick=lambda _: None):
    """Drive a waiting generator; what it returned, and after how many ticks."""
    try:
        next(generator)
        for tick in range(1, ticks):
            before_tick(tick)
            generator.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("it never ended")


# Phase I


@pytest.mark.parametrize(
    ("ticks", "problem"),
    [([1, 2, 3, 4, 5], None), ([1, 2, 4, 5, 6], "1 gaps in 4 steps"), ([1, 3, 5, 7, 9], "4 gaps in 4 steps")],
)
def test_a_gap_in_the_stream_fails(ticks, problem):
    """Ticks must follow one another without a gap on a plant that shows its nodes."""
    result = initialization._stream(session_of(), [seen(tick) for tick in ticks])
    assert result.status is (CheckStatus.FAILED if problem else CheckStatus.PASSED)
    assert problem is None or result.message == problem


def test_time_that_does_not_advance_fails():
    """Plant time that stands still or goes back is no stream."""
    items = [seen(tick, plant_time_s=time_s) for tick, time_s in enumerate([1.0, 2.0, 2.0, 1.5, 3.0])]
    result = initialization._stream(session_of(), items)
    assert result.status is CheckStatus.FAILED
    assert result.message == "plant time did not advance 2 times"


@pytest.mark.parametrize(
    ("cadence_s", "status"),
    [(1.0, CheckStatus.PASSED), (2.5, CheckStatus.PASSED), (4.0, CheckStatus.FAILED), (0.2, CheckStatus.FAILED)],
)
def test_a_plant_must_keep_the_cadence_that_it_announces(cadence_s, status):
    """A real plant that ticks three times too slowly or too fast does not keep its own clock."""
    session = session_of(real_time=True, interval_s=1.0)
    result = initialization._stream(session, [seen(tick, received_s=tick * cadence_s) for tick in range(10)])
    assert result.status is status


def test_a_module_that_is_offered_and_does_not_answer_fails():
    """Every module that the plant says it has is asked once."""

    def offline():
        raise PlantUnavailableError("no answer within 2 s")

    plant = SimpleNamespace(isolated=frozenset, parameters=lambda: None, ledger=offline)
    result = initialization._modules(session_of(plant=plant))
    assert result.status is CheckStatus.FAILED
    assert result.message == "ledger offline: no answer within 2 s"
    result = initialization._modules(session_of(plant=plant, capabilities=EVERYTHING - {Capability.LEDGER}))
    assert result.status is CheckStatus.PASSED
    assert result.evidence["modules"]["ledger"] == "not offered"


class Store:
    def __init__(self, values):
        self.values = values

    def range(self, series, _start, _end):
        value = self.values.get(series, math.nan)
        return [] if math.isnan(value) else [SimpleNamespace(value=value)]


def writer(error=None):
    def flush(*, must_succeed):
        assert must_succeed
        if error:
            raise error

    return SimpleNamespace(flush=flush, accounts=lambda: SimpleNamespace(written=9, buffered=0))


@pytest.mark.parametrize(
    ("stored", "status"),
    [
        ({"kpi.coherence": 0.96, "kpi.gas": 0.97, "kpi.rsi": math.nan}, CheckStatus.PASSED),
        ({"kpi.coherence": 0.96, "kpi.gas": 0.9700001}, CheckStatus.FAILED),
        ({"kpi.coherence": 0.96}, CheckStatus.FAILED),
        ({"kpi.coherence": 0.96, "kpi.gas": 0.97, "kpi.rsi": 0.5}, CheckStatus.FAILED),
    ],
)
def test_telemetry_must_read_back_as_it_was_written(stored, status):
    """A value that is missing, altered, or there though it was unknown fails the round trip."""
    session = session_of(store=Store(stored), writer=writer())
    last = seen(5, {"coherence": 0.96, "gas": 0.97, "rsi": math.nan})
    assert initialization._round_trip(session, last).status is status


def test_a_store_that_fails_is_an_error_of_the_round_trip():
    """A store that cannot be written leaves the check without a verdict, with the store's words."""
    session = session_of(store=Store({}), writer=writer(StoreFailedError("disk full")))
    result = initialization._round_trip(session, seen(5, {"coherence": 0.96}))
    assert (result.status, result.message) == (CheckStatus.ERROR, "disk full")


@pytest.mark.parametrize(
    ("persistent", "status"),
    [
        (KpiStatus.HEALTHY, CheckStatus.PASSED),
        (KpiStatus.WARNING, CheckStatus.FAILED),
        (KpiStatus.CRITICAL, CheckStatus.FAILED),
        (KpiStatus.UNKNOWN, CheckStatus.INCONCLUSIVE),
    ],
)
def test_kpis_are_judged_by_persistence(persistent, status):
    """What counts is the state that persists; an unknown one decides nothing."""
    last = seen(5, {"gas": 0.97})
    last.assessment.kpis["gas"].persistent = persistent
    assert initialization._within_limits(session_of(), last, "gas").status is status


def test_a_kpi_that_is_not_published_is_inconclusive():
    """A plant that keeps a required KPI to itself cannot pass."""
    assert initialization._within_limits(session_of(), seen(5), "rsi").status is CheckStatus.INCONCLUSIVE


# Phase II


@pytest.fixture
def embedded():
    plant = EmbeddedPlant(10, seed=1, clock=VirtualClock())
    for _ in range(20):
        plant.observe(1.0)
    return plant


def test_a_live_ledger_is_audited_in_pages(embedded, monkeypatch):
    """The whole chain is read page by page, up to the tip."""
    monkeypatch.setattr(transactions, "PAGE_BLOCKS", 7)
    results = waited(transactions._audits(session_of(plant=embedded)))
    assert {result.status for result in results} == {CheckStatus.PASSED}
    assert results[0].evidence["blocks"] == 21


def test_a_long_audit_lets_ticks_pass_where_others_wait(embedded, monkeypatch):
    """A daemon's audit takes a tick a page where a page takes all of its turn; it ends at the tip it began with."""
    monkeypatch.setattr(transactions, "PAGE_BLOCKS", 7)
    loop, read = Loop(), []
    plant = SimpleNamespace(
        ledger=embedded.ledger, blocks=lambda *page: (read.append(page[0]), embedded.blocks(*page))[1]
    )
    audit = transactions._audits(session_of(plant=plant, loop=loop, turn_s=-1.0))
    for pages in range(3):
        next(audit)
        assert read == [0, 7, 14][:pages]
        loop.backlog = 2  # ticks that came meanwhile are taken in before the next page is read
        next(audit)
        assert read == [0, 7, 14][:pages]
        loop.backlog = 0
        embedded.observe(1.0)
    with pytest.raises(StopIteration) as ended:
        next(audit)
    assert {result.status for result in ended.value.value} == {CheckStatus.PASSED}
    assert ended.value.value[0].evidence["blocks"] == 21


def test_a_chain_with_a_hole_fails(embedded):
    """A server that gives no blocks below its tip is caught."""
    plant = SimpleNamespace(ledger=embedded.ledger, blocks=lambda start, limit: embedded.blocks(start, limit)[:3])
    short = SimpleNamespace(
        ledger=embedded.ledger, blocks=lambda start, _: embedded.blocks(start, 5) if start < 5 else []
    )
    assert waited(transactions._audits(session_of(plant=plant)))[0].status is CheckStatus.PASSED
    (chain, *_) = waited(transactions._audits(session_of(plant=short)))
    assert chain.status is CheckStatus.FAILED
    assert "block 5: is missing below the tip at 20" in chain.message


def test_a_ledger_that_does_not_answer_leaves_every_claim_open():
    """No answer is an error of each audit, never a pass."""

    def silent():
        raise PlantUnavailableError("gone")

    results = waited(transactions._audits(session_of(plant=SimpleNamespace(ledger=silent))))
    assert {result.status for result in results} == {CheckStatus.ERROR}
    assert {result.name for result in results} == {"ledger.fork", *(f"ledger.{claim}" for claim in Claim)}
    assert all(result.required for result in results)


@pytest.mark.parametrize(
    ("state", "claim", "words"),
    [
        (LedgerState(LedgerTip(7, "bb" * 32), 100, 100, 100), Claim.CHAIN, "the tip is bbbbbbbbbbbb"),
        (LedgerState(TIP, 101, 100, 101), Claim.SUPPLY, "the plant says 101"),
        (LedgerState(TIP, 100, 100, 107), Claim.SUPPLY, "balances differ from the supply by 7 tokens"),
    ],
)
def test_what_the_plant_says_beside_its_chain_must_agree(state, claim, words):
    """Tip, supply and balances are held against the audited chain."""
    audit = ChainAudit(tip=(7, "aa" * 32), supply=100)
    transactions._compare(audit, state)
    assert [found for found, texts in audit.findings.items() if texts] == [claim]
    assert words in audit.findings[claim][0]


@pytest.mark.parametrize(
    ("tips", "status"),
    [
        ({"a": TIP, "b": TIP}, CheckStatus.PASSED),
        ({"a": TIP, "b": LedgerTip(7, "cc" * 32)}, CheckStatus.FAILED),
        ({"a": TIP, "b": LedgerTip(6, "aa" * 32)}, CheckStatus.FAILED),
        ({}, CheckStatus.INCONCLUSIVE),
    ],
)
def test_every_node_must_hold_the_same_tip(tips, status):
    """Another hash or another height is a fork; no tips at all are no proof."""
    assert transactions._fork(LedgerState(TIP, 1, 1, 1, tips)).status is status


@pytest.mark.parametrize(
    ("spikes", "status"), [(0, CheckStatus.PASSED), (2, CheckStatus.PASSED), (3, CheckStatus.FAILED)]
)
def test_entropy_may_spike_in_stray_ticks_only(spikes, status):
    """Two ticks beyond the limit are chance, three are not; either sign counts."""
    values = [0.01, -0.01, 0.01][:spikes] + [0.0001] * 20
    result = transactions._entropy(session_of(), [seen(i, {"delta_entropy": v}) for i, v in enumerate(values)])
    assert result.status is status


def test_what_is_not_published_is_skipped_and_said():
    """Without ΔH and I_eff there is nothing to judge."""
    for check in (transactions._entropy, transactions._action_cost):
        result = check(session_of(), [seen(1), seen(2, {"delta_entropy": math.nan, "action_cost": math.nan})])
        assert result.status is CheckStatus.SKIPPED
        assert "publishes no" in result.message


@pytest.mark.parametrize(("cost", "status"), [(0.03, CheckStatus.PASSED), (0.07, CheckStatus.FAILED)])
def test_the_action_cost_is_judged_by_its_mean_with_its_parts(cost, status):
    """I_eff stays within its budget, and the parts that it is made of are in the evidence."""
    result = transactions._action_cost(session_of(), [seen(1, {"action_cost": cost, "cost_sync": 0.01})])
    assert result.status is status
    assert result.evidence["components"] == {"cost_sync": 0.01}


def test_the_stress_is_paid_by_one_serving_node_of_each_cluster():
    """Nodes that are out, for the plant or for this run, pay nothing."""
    loop = Loop(active=(False, True, True, True, True, True), out=("n5",))
    assert transactions._one_of_each_cluster(session_of(loop=loop)) == ["n2", "n4"]
    loop = Loop(active=(False, False, False, True, True, True))
    assert transactions._one_of_each_cluster(session_of(loop=loop)) == ["n5"]


# Phase III


def coherence(values):
    return [seen(i, {"coherence": value}) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([0.96, 0.95] * 30, CheckStatus.PASSED),
        ([0.96] * 31 + [0.89] * 29, CheckStatus.FAILED),  # 0.89 is not far, but the spread is too large
        ([0.89] * 60, CheckStatus.FAILED),
        ([math.nan] * 31 + [0.96] * 29, CheckStatus.INCONCLUSIVE),
        ([math.nan] * 60, CheckStatus.INCONCLUSIVE),
    ],
)
def test_coherence_must_be_high_and_steady(values, status):
    """Swings and lows fail; what is mostly unknown decides nothing."""
    assert field._stability(session_of(), coherence(values)).status is status


@pytest.mark.parametrize(
    ("gravity", "status"),
    [
        ([0.2] * 50, CheckStatus.PASSED),
        ([0.5] * 50, CheckStatus.FAILED),
        ([0.2] * 49 + [3.0], CheckStatus.FAILED),
        ([math.nan] * 50, CheckStatus.INCONCLUSIVE),
    ],
)
def test_the_gravity_field_must_look_healthy(gravity, status):
    """A high median or a well in the field fails; a field without trusted evidence decides nothing."""
    result = field._distribution(session_of(), [seen(i, gravity=gravity) for i in range(10)])
    assert result.status is status


def test_without_nodes_there_is_no_field():
    """A plant that shows no nodes has its field skipped, and it is said that nobody can be isolated."""
    result = field._distribution(session_of(capabilities=frozenset({Capability.COMMIT})), [])
    assert (result.status, result.required) == (CheckStatus.SKIPPED, False)
    assert "no isolation" in result.message


def test_gating_says_why_it_is_not_tried():
    """What is missing is named: a capability, or leave to disturb the cluster."""
    assert "does not offer faults" in field._why_not(session_of(capabilities=EVERYTHING - {Capability.FAULTS}))
    assert "--allow-fault-injection" in field._why_not(session_of(dry_run=True))
    assert field._why_not(session_of()) is None


@pytest.mark.parametrize(
    ("loop", "target"),
    [
        (Loop(), "n5"),
        (Loop(known=("n5",)), "n4"),
        (Loop(active=(True, True, True, True, False, True)), "n2"),
        (Loop(active=(True, False, True, True, False, True)), "n5"),
        (Loop(known=TOPOLOGY.nodes), None),
    ],
)
def test_the_dissonance_befalls_a_good_node_of_a_whole_cluster(loop, target):
    """A node on record, or of a cluster from which one is out already, is left alone if there is another."""
    assert field._target(session_of(loop=loop)) == target


def test_without_a_node_to_make_ill_gating_is_inconclusive():
    """Where every node is on record the proof cannot be made."""
    result = waited(field._gating(session_of(loop=Loop(known=TOPOLOGY.nodes))))
    assert result.status is CheckStatus.INCONCLUSIVE


# Waiting


def test_waiting_counts_the_ticks():
    """`until` tells after how many ticks, at once if it was so before, and gives up in time."""
    counted = iter(range(100))
    assert waited(until(session_of(), lambda: True, 5)) == 0
    assert waited(until(session_of(), lambda: next(counted) == 4, 10)) == 4
    assert waited(until(session_of(), lambda: False, 5)) is None


def test_ticks_from_before_do_not_count_on_a_real_plant():
    """A backlog that a slow check has left behind is taken in first, and only then does the patience begin to run."""
    loop = Loop()
    session = session_of(loop=loop, real_time=True)
    lived = []

    def backlog(tick):
        lived.append(tick)
        loop.backlog = max(0, 100 - tick)

    assert waited(until(session, lambda: False, 5), before_tick=backlog) is None
    assert len(lived) == 101 + 5 - 1
    lived.clear()
    waited(caught_up(session), before_tick=backlog)
    assert len(lived) == 101


def test_a_machine_that_never_catches_up_does_not_wait_for_ever():
    """Where every look brings several ticks, waiting ends all the same."""
    loop = Loop()
    loop.backlog = 3
    assert waited(until(session_of(loop=loop, real_time=True), lambda: False, 5)) is None


def test_a_virtual_plant_is_always_caught_up():
    """Nothing is waited for where the plant waits for us."""
    assert list(caught_up(session_of())) == []


# Phase IV


@pytest.mark.parametrize(
    ("changes", "unhealthy", "words"),
    [
        ({"loop": Loop(phase=Phase.SAFE_MODE)}, ("gas",), "nothing is changed in SAFE_MODE"),
        ({"capabilities": frozenset()}, ("gas",), "offers no parameters"),
        ({"dry_run": True}, ("gas",), "left to people"),
        ({"dry_run": True}, (), None),
        ({}, ("gas",), None),
    ],
)
def test_corrections_say_why_they_are_not_made(changes, unhealthy, words):
    """Nothing is corrected in a hold, without parameters, or in a dry run, and the reason is given."""
    session = session_of(**{"loop": Loop(phase=Phase.PHASE_IV)} | changes)
    reason = improvement._why_not(session, unhealthy)
    assert (words is None and reason is None) or words in reason


def test_with_every_kpi_healthy_there_is_nothing_to_correct():
    """A healthy end is a passed check, at once."""
    result = waited(improvement._corrections(session_of(loop=Loop(phase=Phase.PHASE_IV)), ()))
    assert result.status is CheckStatus.PASSED
    assert "nothing to correct" in result.message
