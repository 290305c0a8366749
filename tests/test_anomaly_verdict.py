"""From the scores of many series to the node and the KPI that are to blame."""

import numpy as np
import pytest

from metrics.anomaly.detector import StreamingDetector
from metrics.anomaly.verdict import strangeness, strength, verdict

NODES = ("alpha", "beta", "gamma")
KPIS = ("latency", "load")
ROWS = 400


def watch(fault=None, *, silent=None):
    """Scores of the last of ``ROWS`` rows, in which ``fault`` = (node, kpi, size) strikes; ``silent`` never reports."""
    rng = np.random.default_rng(21)
    detector = StreamingDetector(len(NODES) * len(KPIS))
    for row in range(ROWS):
        values = rng.normal(50.0, 1.0, (len(NODES), len(KPIS)))
        if silent is not None:
            values[silent] = np.nan
        if fault is not None and row == ROWS - 1:
            values[fault[0], fault[1]] += fault[2]
        scores = detector.update(60.0 * row, values.ravel())
    return scores


def test_the_faulty_node_and_kpi_come_first():
    """A fault in one KPI of one node puts both at the head, with direction and beginning."""
    first, *rest = verdict(watch((1, 1, 20.0)), NODES, KPIS)
    assert first.node == "beta"
    assert first.strength > 3.0 * max(node.strength for node in rest)
    blamed = first.reasons[0]
    assert blamed.kpi == "load"
    assert blamed.share > 0.9
    assert blamed.deviation > 5.0
    assert blamed.distance > 0.0
    assert blamed.view is not None
    assert blamed.since == 60.0 * (ROWS - 1)
    assert not blamed.shift


def test_every_node_has_its_place():
    """All nodes are ranked by falling strength, and the shares of a node's reasons sum to one."""
    ranking = verdict(watch((2, 0, -15.0)), NODES, KPIS)
    assert {node.node for node in ranking} == set(NODES)
    strengths = [node.strength for node in ranking]
    assert strengths == sorted(strengths, reverse=True)
    for node in ranking:
        assert sum(reason.share for reason in node.reasons) == pytest.approx(1.0)


def test_only_so_many_reasons():
    """``reasons`` limits how many KPIs a node names."""
    assert all(len(node.reasons) == 1 for node in verdict(watch(), NODES, KPIS, reasons=1))


def test_one_kpi_cannot_shout_without_end():
    """A deviation of a thousand counts no more than the cap."""
    loud, louder = watch((0, 0, 1e3)), watch((0, 0, 1e9))
    assert strength(strangeness(loud, 2))[0] == strength(strangeness(louder, 2))[0]


def test_a_silent_node_is_weak_and_has_no_reason():
    """A node that never reported has strength 0 and no reasons, and disturbs nobody."""
    ranking = verdict(watch((1, 1, 20.0), silent=0), NODES, KPIS)
    assert ranking[0].node == "beta"
    assert ranking[-1].node == "alpha"
    assert ranking[-1].strength == 0.0
    assert ranking[-1].reasons == ()


def test_a_missing_kpi_does_not_dilute():
    """Strength is the mean over the KPIs that reported."""
    nats = np.array([[8.0, np.nan], [8.0, 8.0], [8.0, 0.0]])
    assert strength(nats).tolist() == [4.0, 4.0, pytest.approx(2.8284271247461903)]


def test_names_must_fit_the_series():
    """Names that do not multiply to the number of series are refused."""
    with pytest.raises(ValueError, match="expected 3 x 1 series, got 6"):
        verdict(watch(), NODES, KPIS[:1])
