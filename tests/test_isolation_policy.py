"""Every guard of the isolation policy, in literal numbers and after the action."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from state.isolation import Guard, IsolationPolicy, Refusal, Standing, forbid_cluster, forbid_isolation

topology_of = runpy.run_path(str(Path(__file__).with_name("governor_stage.py")))["topology_of"]


def standing(nodes, clusters=1, *, out=(), assessed=None, tokens=5.0):
    """A standing in which the named node indices are out."""
    mask = np.zeros(nodes, dtype=bool)
    mask[list(out)] = True
    return Standing(topology_of(nodes, clusters), mask, nodes if assessed is None else assessed, tokens, 10.0)


def allowed(policy, nodes, clusters=1):
    """How many nodes of the first cluster may go, one after the other."""
    current = standing(nodes, clusters, tokens=1000.0)
    count = 0
    while forbid_isolation(policy, current, count) is None:
        current.take_out(count)
        count += 1
    return count


@pytest.mark.parametrize(
    ("nodes", "clusters", "may_go"),
    [
        (5, 1, 1),  # a third of 5 is 1.67, 30 % are 1.5
        (6, 1, 1),  # 30 % of 6 are 1.8
        (10, 1, 3),  # 30 % of 10 are exactly 3
        (50, 7, 2),  # a third of 8 is 2.67
        (12, 4, 0),  # quorum 3 of clusters of 3
        (16, 4, 1),  # quorum 3 of clusters of 4
    ],
)
def test_defaults_in_literal_numbers(nodes, clusters, may_go):
    """With the defaults exactly so many nodes of the first cluster may go."""
    assert allowed(IsolationPolicy(), nodes, clusters) == may_go


@pytest.mark.parametrize(("size", "may_go"), [(3, 1), (6, 2), (7, 2), (8, 2), (9, 3), (12, 4), (3000, 1000)])
def test_a_third_is_exactly_a_third(size, may_go):
    """A third of 6 is 2 and of 9 is 3, whatever the last bit of 1/3 says."""
    policy = IsolationPolicy(fraction_max=0.99, quorum=1, evidence_nodes_min=1)
    assert allowed(policy, size) == may_go


@pytest.mark.parametrize(("nodes", "may_go"), [(10, 3), (20, 6), (50, 15), (70, 21), (1000, 300)])
def test_thirty_percent_is_exactly_thirty_percent(nodes, may_go):
    """30 % of 70 are 21, though 0.3 × 70 is not exactly so."""
    policy = IsolationPolicy(cluster_fraction_max=0.99, quorum=1, evidence_nodes_min=1)
    assert allowed(policy, nodes) == may_go


def test_budgets_are_counted_after_the_action():
    """Two of seven may be out, so the third is refused with what would be."""
    current = standing(50, 7, out=(8, 9))
    assert forbid_isolation(IsolationPolicy(), current, 10) == Refusal(
        "isolate", Guard.BUDGET_CLUSTER, "n10", 3 / 7, 1 / 3, 10.0
    )
    refusal = forbid_isolation(IsolationPolicy(), current, 10)
    assert (refusal.observed, refusal.limit) == (3 / 7, 1 / 3)


@pytest.mark.parametrize(
    ("guard", "policy", "current", "observed", "limit"),
    [
        (Guard.BUDGET_CLUSTER, IsolationPolicy(), standing(50, 7, out=(0, 1)), 3 / 8, 1 / 3),
        (Guard.BUDGET_FRACTION, IsolationPolicy(), standing(50, 7, out=range(35, 50)), 16 / 50, 0.30),
        (Guard.BUDGET_ABSOLUTE, IsolationPolicy(absolute_max=2), standing(50, 7, out=(20, 30)), 3, 2),
        (Guard.BUDGET_ABSOLUTE, IsolationPolicy(absolute_max=0), standing(50, 7), 1, 0),
        (Guard.QUORUM, IsolationPolicy(quorum=7), standing(50, 7, out=(0,)), 6, 7),
        (Guard.EVIDENCE_NODES, IsolationPolicy(), standing(50, 7, assessed=4), 4, 5),
        (Guard.RATE, IsolationPolicy(), standing(50, 7, tokens=0.99), 0.99, 1.0),
    ],
)
def test_each_guard_says_what_it_saw_and_holds(guard, policy, current, observed, limit):
    """A refusal names guard, node, value and limit."""
    refusal = forbid_isolation(policy, current, 2)
    assert refusal == Refusal("isolate", guard, "n2", 0, 0, 0)
    assert (refusal.observed, refusal.limit, refusal.at_s) == (observed, limit, 10.0)


def test_just_within_every_guard_is_allowed():
    """One node more evidence, one token, one node less out: the action may be done."""
    assert forbid_isolation(IsolationPolicy(), standing(50, 7, out=(0,)), 2) is None
    assert forbid_isolation(IsolationPolicy(), standing(50, 7, out=range(36, 50)), 2) is None
    assert forbid_isolation(IsolationPolicy(absolute_max=3), standing(50, 7, out=(20, 30)), 2) is None
    assert forbid_isolation(IsolationPolicy(quorum=6), standing(50, 7, out=(0,)), 2) is None
    assert forbid_isolation(IsolationPolicy(), standing(50, 7, assessed=5), 2) is None
    assert forbid_isolation(IsolationPolicy(), standing(50, 7, tokens=1.0 - 1e-12), 2) is None


def test_taking_out_counts_at_once():
    """What is intended in a tick counts for the next candidate of the same tick."""
    current = standing(50, 7)
    current.take_out(8)
    assert (current.total_out, current.tokens) == (1, 4.0)
    assert current.cluster_out.tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_a_whole_cluster_is_measured_by_all_that_is_left_of_it():
    """Isolating a cluster means every node of it that is still in."""
    refusal = forbid_cluster(IsolationPolicy(), standing(50, 7, out=(8,)), 1)
    assert (refusal.guard, refusal.subject, refusal.observed) == (Guard.BUDGET_CLUSTER, "c1", 1.0)


def test_rate_is_five_a_minute_and_scales_with_the_nodes():
    """Up to 20 nodes as configured, above that a quarter of the nodes a minute, or the share that is configured."""
    policy = IsolationPolicy()
    assert policy.rate(5) == (5 / 60, 5.0)
    assert policy.rate(20) == (5 / 60, 5.0)
    assert policy.rate(22) == pytest.approx((5.5 / 60, 5.5))
    assert policy.rate(1000) == pytest.approx((250 / 60, 250.0))
    assert IsolationPolicy(rate_share=0.0).rate(1000) == (5 / 60, 5.0)
    assert IsolationPolicy(rate_per_minute=600, burst=400).rate(1000) == (10.0, 400.0)


def test_bucket_is_full_at_first_refills_and_never_overflows():
    """Full before the first isolation, then a token each twelve seconds up to the burst; time does not go back."""
    policy = IsolationPolicy()
    assert policy.tokens(None, 0.0, 20) == 5.0
    assert policy.tokens(0.0, 12.0, 20) == pytest.approx(1.0)
    assert policy.tokens(4.0, 3600.0, 20) == 5.0
    assert policy.tokens(2.0, -100.0, 20) == 2.0


def test_back_off_grows_by_offence_up_to_its_cap():
    """60 s times the offences, at most an hour, and never less than the base."""
    policy = IsolationPolicy(backoff_jitter=0.0)
    times = [policy.backoff_s("n0", n) for n in (0, 1, 2, 10, 60, 61, 1000)]
    assert times == [60, 60, 120, 600, 3600, 3600, 3600]


def test_back_off_is_drawn_longer_by_node_and_offence():
    """Up to a tenth longer, the same for the same node and offence, different for others, and capped."""
    policy = IsolationPolicy()
    drawn = [policy.backoff_s(f"n{n}", 1) for n in range(200)]
    assert all(60.0 <= time_s < 66.0 for time_s in drawn)
    assert len(set(drawn)) == 200
    assert max(drawn) - min(drawn) > 5.8
    assert policy.backoff_s("n7", 1) == drawn[7]
    assert policy.backoff_s("n0", 2) != 2 * drawn[0]
    assert policy.backoff_s("n7", 1000) == 3600.0
    assert policy.backoff_s("n2", 1) == pytest.approx(63.4848, abs=1e-4)


def test_refusals_are_equal_when_they_explain_the_same():
    """Values and time differ from tick to tick, the explanation does not."""
    assert Refusal("isolate", Guard.RATE, "n0", 0.1, 1.0, 5.0) == Refusal("isolate", Guard.RATE, "n0", 0.2, 1.0, 6.0)
    assert Refusal("isolate", Guard.RATE, "n0", 0.1, 1.0, 5.0) != Refusal("isolate", Guard.RATE, "n1", 0.1, 1.0, 5.0)
