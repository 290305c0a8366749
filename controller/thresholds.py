"""Which limit tells nothing, because it always fires or never does although something is wrong?

Told with numbers and left to people: a limit that is moved until it is quiet, or until it fires, is worth no more than
one that does neither. What another limit would have done is replayed from the run's own telemetry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from controller.findings import NAMED_MAX, Finding
from controller.record import RunRecord
from controller.settings import Config
from controller.wording import quantity
from metrics.kpi import Kpi, KpiStatus, Side
from state.phase import Phase

TICKS_MIN = 120  # of governing, before "always" and "never" mean anything
ALWAYS = 0.9  # share of the ticks
OFTEN = 0.5  # likewise for gravity wells, which isolation is to end
LOWER, HIGHER = 2 / 3, 4 / 3  # of the critical gravity, by way of comparison
WELLS = "gravity_wells"
CRITICAL = "gravity.critical"


def threshold_findings(record: RunRecord, config: Config, unhealthy: Sequence[str]) -> Iterator[Finding]:
    """The limits of KPIs that are always broken, and a critical gravity that always or never fires."""
    for kpi in record.catalogue.values():
        known = _governed(record, kpi.name)
        if kpi.limit is not None and len(known) >= TICKS_MIN:
            outside = sum(kpi.limit.status(value) is not KpiStatus.HEALTHY for value in known)
            if outside >= ALWAYS * len(known):
                yield _always(kpi, known, outside)
    wells = _governed(record, WELLS)
    if len(wells) >= TICKS_MIN:
        fired = sum(value > 0 for value in wells)
        if fired >= OFTEN * len(wells):
            yield _gravity(config, wells, fired, HIGHER, "fires most of the time")
        elif fired == 0 and unhealthy and any(anomaly.node is not None for anomaly in record.anomalies):
            odd = ", ".join(sorted({item.node for item in record.anomalies if item.node is not None})[:NAMED_MAX])
            told = f"never fires, though {odd} behaved oddly and {', '.join(unhealthy)} ended outside limits"
            yield _gravity(config, wells, fired, LOWER, told)


def _governed(record: RunRecord, name: str) -> list[float]:
    """The known values of a KPI while governing; before it the phases' probes make nodes ill on purpose."""
    history = record.history
    return [
        value
        for phase, value in zip(history.phases, history.values.get(name, ()), strict=False)
        if phase == Phase.GOVERNING and math.isfinite(value)
    ]


def _always(kpi: Kpi, known: Sequence[float], outside: int) -> Finding:
    limit = kpi.limit
    if limit is None:
        raise ValueError(f"{kpi.name} has no limit")
    ranked = sorted(known)
    low, middle, high = (ranked[round(share * (len(ranked) - 1))] for share in (0.05, 0.5, 0.95))
    side = "at least" if limit.side is Side.AT_LEAST else "at most"
    return Finding(
        kind="threshold",
        title=f"Decide what kpi.{kpi.name}.healthy is for",
        summary=f"{kpi.name} is to be {side} {quantity(limit.healthy)} and was not in {outside} of {len(known)} ticks "
        f"of governing (5 % below {quantity(low)}, median {quantity(middle)}, 5 % above {quantity(high)}). A limit "
        "that is always broken tells nothing new: mend what breaks it, or set one that means something to this plant.",
        subjects=(f"kpi.{kpi.name}.healthy",),
        evidence={
            "threshold": {
                "setting": f"kpi.{kpi.name}.healthy",
                "value": limit.healthy,
                "fired_ticks": outside,
                "ticks": len(known),
                "quantiles": {"0.05": low, "0.5": middle, "0.95": high},
            }
        },
    )


def _gravity(config: Config, wells: Sequence[float], fired: int, factor: float, told: str) -> Finding:
    critical = config.gravity.critical
    other = round(critical * factor, 3)
    return Finding(
        kind="threshold",
        title=f"Look at {CRITICAL}, which {'fires most of the time' if fired else 'never fires'}",
        summary=f"{CRITICAL} ({quantity(critical)}) {told}: a node was beyond it in {fired} of {len(wells)} ticks of "
        f"governing. What {quantity(other)} would have done is replayed in the evidence; nothing is to be changed "
        "before somebody knows whether the nodes or the limit are at fault.",
        subjects=(CRITICAL,),
        evidence={
            "threshold": {"setting": CRITICAL, "value": critical, "fired_ticks": fired, "ticks": len(wells)},
        },
        what_if={CRITICAL: other},
    )
