"""Several KPIs of several nodes, one verdict: which node, because of which KPI?

A KPI is strange in nats: half its squared deviation, which is what a Gaussian deviation is worth, plus its evidence
beyond the limits. Both are capped, so that no single KPI can speak for a whole node. The strength of a node is the root
of twice the mean over its KPIs, that is an effective deviation: a node with strength 3 is as strange as one with every
KPI three standard deviations out.

Assumptions: series are ordered node by node; all nodes report the same KPIs.
Leaves out: which node infected which. A slow callee makes its callers slow, and they may look worse than it does.

Source: Fisher's method of summing log tail probabilities (Statistical Methods for Research Workers, 1932), here as a
ranking and not as a test, because KPIs of one node are dependent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.anomaly.detector import NO_VIEW, Scores
from metrics.anomaly.views import View

Floats = NDArray[np.float64]

DEVIATION_MAX = 20.0  # standard deviations
EVIDENCE_MAX = 50.0  # nats


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node is strange, in one KPI.

    Attributes:
        kpi: its name.
        share: share of the node's strangeness that is this KPI's, 0 to 1.
        score: its score, 0 to 1.
        deviation: in standard deviations, signed.
        view: the respect in which it is beyond its limit, None if within.
        distance: how far beyond, in mean excesses, signed.
        since: time in seconds at which its excursion began, None without one.
        shift: it looks like a new level.
    """

    kpi: str
    share: float
    score: float
    deviation: float
    view: View | None
    distance: float
    since: float | None
    shift: bool


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """One node's strength, in effective deviations, with its reasons, strongest first."""

    node: str
    strength: float
    reasons: tuple[Reason, ...]


def strangeness(scores: Scores, kpis: int) -> Floats:
    """Nats by node and KPI, ``(nodes, kpis)``; NaN where no value came.

    Raises:
        ValueError: the number of series is not a multiple of ``kpis``.
    """
    nats = np.minimum(np.abs(scores.deviation), DEVIATION_MAX) ** 2 / 2.0
    nats += np.minimum(scores.evidence, EVIDENCE_MAX)
    return np.where(scores.seen, nats, np.nan).reshape(-1, kpis)


def strength(nats: Floats) -> Floats:
    """Effective deviation of each node, ``(nodes,)``, from :func:`strangeness`; 0 for a silent node."""
    known = np.maximum((~np.isnan(nats)).sum(1), 1)
    effective: Floats = np.sqrt(2.0 * np.nansum(nats, 1) / known)
    return effective


def verdict(scores: Scores, nodes: Sequence[str], kpis: Sequence[str], *, reasons: int = 3) -> list[NodeVerdict]:
    """All nodes, the strangest first, each with its ``reasons`` strongest KPIs.

    Args:
        scores: of ``len(nodes) * len(kpis)`` series, node by node.
        nodes: names of the nodes.
        kpis: names of the KPIs.
        reasons: how many KPIs to give for each node.

    Raises:
        ValueError: the number of series is not nodes times KPIs.
    """
    if scores.score.size != len(nodes) * len(kpis):
        raise ValueError(f"expected {len(nodes)} x {len(kpis)} series, got {scores.score.size}")
    nats = strangeness(scores, len(kpis))
    effective = strength(nats)
    nats = np.nan_to_num(nats)
    return [
        NodeVerdict(
            nodes[i],
            float(effective[i]),
            tuple(
                _reason(scores, i * len(kpis) + j, kpis[j], nats[i, j] / nats[i].sum())
                for j in np.argsort(-nats[i], kind="stable")[:reasons]
                if nats[i, j] > 0.0
            ),
        )
        for i in np.argsort(-effective, kind="stable")
    ]


def _reason(scores: Scores, at: int, kpi: str, share: float) -> Reason:
    view, since = int(scores.view[at]), float(scores.since[at])
    return Reason(
        kpi,
        float(share),
        float(scores.score[at]),
        float(scores.deviation[at]),
        None if view == NO_VIEW else View(view),
        float(scores.distance[at]),
        None if np.isnan(since) else since,
        bool(scores.shift[at]),
    )
