"""How often, when and how badly did each detector fire? Anomalies of a run, one entry a kind instead of one a tick."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metrics.assessment import Anomaly


def grouped(found: Sequence[Anomaly]) -> list[dict[str, object]]:
    """One entry for each KPI, node and severity: first and last time, how often, and score and reason at its worst."""
    groups: dict[tuple[str, str | None, str], list[Anomaly]] = {}
    for anomaly in found:
        groups.setdefault((anomaly.kpi, anomaly.node, str(anomaly.severity)), []).append(anomaly)
    return [_entry(group) for group in groups.values()]


def _entry(group: Sequence[Anomaly]) -> dict[str, object]:
    worst = max(group, key=lambda anomaly: anomaly.score if math.isfinite(anomaly.score) else -math.inf)
    return {
        "kpi": worst.kpi,
        "node": worst.node,
        "severity": str(worst.severity),
        "score": worst.score,
        "reason": worst.reason,
        "first_s": group[0].at_s,
        "last_s": group[-1].at_s,
        "count": len(group),
    }
