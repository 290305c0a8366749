"""The KPI catalogue: the one home of every KPI's name, unit, meaning and limits.

Alerts, dashboards, the report and the documentation are generated from it. A limit is *healthy* (beyond it the KPI is
unhealthy) and, where there is one, *critical*. Healthy systems breach limits for single ticks at N = 5 (docs/model.md
section 4), so verdicts ask for persistence: see `assessment.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Side(StrEnum):
    """Which side of its limit is the healthy one."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"


class KpiStatus(StrEnum):
    """What one value says of its KPI."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Limit:
    """A healthy and a critical bound on one side; the critical one is None where nothing is worse than unhealthy."""

    side: Side
    healthy: float
    critical: float | None = None

    def __str__(self) -> str:
        """The limit as people write it."""
        sign = "≥" if self.side is Side.AT_LEAST else "≤"
        critical = "" if self.critical is None else f", critical {self.critical:g}"
        return f"{sign} {self.healthy:g}{critical}"

    def status(self, value: float) -> KpiStatus:
        """What `value` means; NaN and infinities are unknown, never healthy and never a breach."""
        if not math.isfinite(value):
            return KpiStatus.UNKNOWN
        if self.critical is not None and self._beyond(value, self.critical):
            return KpiStatus.CRITICAL
        return KpiStatus.WARNING if self._beyond(value, self.healthy) else KpiStatus.HEALTHY

    def moved(self, healthy: float | None = None, critical: float | None = None) -> Limit:
        """The same limit with one or both bounds replaced."""
        return replace(
            self,
            healthy=self.healthy if healthy is None else healthy,
            critical=self.critical if critical is None else critical,
        )

    def _beyond(self, value: float, bound: float) -> bool:
        return value < bound if self.side is Side.AT_LEAST else value > bound


@dataclass(frozen=True, slots=True)
class Kpi:
    """One key performance indicator.

    Attributes:
        name: the one name used in code, stores and JSON.
        unit: UCUM-like unit, "1" for a ratio.
        help: what it is, in a sentence.
        window_ticks: ticks of history before its first value means anything.
        limit: None for a KPI that is only watched.
        aliases: names under which existing QECS clients know it, at the border only.
    """

    name: str
    unit: str
    help: str
    window_ticks: int = 1
    limit: Limit | None = None
    aliases: tuple[str, ...] = ()


_KPIS = (
    Kpi(
        "coherence",
        "1",
        "Kuramoto order parameter of all active nodes, 15-tick moving average (C_S).",
        15,
        Limit(Side.AT_LEAST, 0.90, 0.85),
        ("cs",),
    ),
    Kpi(
        "gas",
        "1",
        "Geometric alignment score: population-weighted order parameter within clusters, 15-tick moving average.",
        15,
        Limit(Side.AT_LEAST, 0.95, 0.90),
    ),
    Kpi(
        "rsi",
        "1",
        "Recursive stability index: steadiness of coherence over the last 60 ticks.",
        60,
        Limit(Side.AT_LEAST, 0.65),
    ),
    Kpi(
        "action_cost",
        "1",
        "I_eff: action-efficiency cost per committed transaction (effort, retries, shed and invalid work).",
        15,
        Limit(Side.AT_MOST, 0.05, 0.10),
    ),
    Kpi("lambda_opt", "1/s", "Realised contraction rate of the phases, 30-tick moving average (λ_opt).", 30),
    Kpi(
        "delta_lambda",
        "1/s",
        "Change of λ_opt over 10 ticks (ΔΛ).",
        40,
        Limit(Side.AT_MOST, 0.01),
    ),
    Kpi("entropy", "nat", "Normalised Shannon entropy of the commit shares plus ln(S/S0).", 30),
    Kpi(
        "delta_entropy",
        "nat",
        "Change of entropy over 10 ticks (ΔH).",
        40,
        Limit(Side.AT_MOST, 0.002),
    ),
    Kpi("coherence_service", "1", "Coherence inferred from service alone, without phase sensors (C_svc).", 15),
    Kpi("gas_target", "1", "Slow target of coherence (GAS_target)."),
    Kpi("transaction_rate", "1/s", "Committed transactions a second, 15-tick moving average.", 15),
    Kpi("supply", "token", "Tokens in existence."),
    Kpi("emission", "token", "Tokens minted by the CAF in the tick."),
    Kpi("burned", "token", "Tokens burned in the tick."),
    Kpi("governing_law", "1", "I_eff + λ1·ΔΛ + λ2·ΔH, reported and never optimised."),
    Kpi("objective", "1", "J, what tuners are judged on: I_eff + ΔΛ + 5·ΔH plus constraint violations."),
    Kpi("gravity_wells", "node", "Active nodes with |g| above the critical gravity.", 20),
    Kpi(
        "stable_clusters",
        "cluster",
        "Clusters with order parameter at least 0.90 and |g_c| below critical.",
        20,
    ),
)

CATALOGUE: Mapping[str, Kpi] = {kpi.name: kpi for kpi in _KPIS}

WARM_UP_TICKS = max(kpi.window_ticks for kpi in _KPIS)


def with_limits(overrides: Mapping[str, Mapping[str, float]]) -> dict[str, Kpi]:
    """The catalogue with the healthy and critical bounds of some KPIs replaced, as configuration asks.

    Args:
        overrides: KPI name to {"healthy": value, "critical": value}, either or both.

    Raises:
        KeyError: a KPI that is unknown or has no limit to replace.
    """
    catalogue = dict(CATALOGUE)
    for name, bounds in overrides.items():
        limit = catalogue[name].limit
        if limit is None:
            raise KeyError(name)
        catalogue[name] = replace(catalogue[name], limit=limit.moved(**bounds))
    return catalogue
