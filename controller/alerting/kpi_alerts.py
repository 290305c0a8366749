"""When is a KPI out of its limits lastingly enough that people should hear of it?

One alert for each bound in the catalogue: a warning beyond `healthy`, a critical one beyond `critical`. A healthy plant
breaches limits for single ticks (docs/model.md section 4), so a bound counts as broken when the KPI was beyond it in
more than half of the last minute, as the controller itself judges by more than half of its window; it has to stay so
for 30 s, and to be well for 2 minutes until the alert ends. The threshold is `iace_kpi_limit`: see `recordings.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.alerting.recordings import BREACH_SHARE, limited_kpis
from controller.alerting.rule import LIVE, Alert, Scope, Severity
from metrics.export_catalogue import KPI_METRICS
from metrics.kpi import Kpi, Limit, Side


def kpi_alerts() -> tuple[Alert, ...]:
    """The alerts of all limits in the catalogue."""
    return tuple(alert for kpi in limited_kpis() for alert in _of(kpi))


def _of(kpi: Kpi) -> Iterator[Alert]:
    if kpi.limit is None:
        return
    yield _alert(kpi, kpi.limit, "healthy", kpi.limit.healthy, "Unhealthy", Severity.WARNING)
    if kpi.limit.critical is not None:
        yield _alert(kpi, kpi.limit, "critical", kpi.limit.critical, "Critical", Severity.CRITICAL)


def _alert(kpi: Kpi, limit: Limit, level: str, default: float, ending: str, severity: Severity) -> Alert:
    metric = KPI_METRICS[kpi.name]
    side = "below" if limit.side is Side.AT_LEAST else "above"
    unit = "" if kpi.unit == "1" else f" {kpi.unit}"
    return Alert(
        name=f"Iace{kpi.name.title().replace('_', '')}{ending}",
        expr=f"{metric}{{{LIVE}}}\n"
        f'and ignoring (kpi, level) {BREACH_SHARE}{{{LIVE},kpi="{kpi.name}",level="{level}"}} > 0.5',
        severity=severity,
        scope=Scope.PLANT,
        summary=f"{kpi.name} is lastingly {side} its {level} limit.",
        description=f'{kpi.name} is {{{{ $value | printf "%.3g" }}}}{unit} at {{{{ $labels.instance }}}} and was '
        f"{side} its {level} limit for most of the last minute. The limit is the one in force there, "
        f'iace_kpi_limit{{kpi="{kpi.name}",level="{level}"}}: {default:g}{unit} unless configured otherwise.',
        after="30s",
        hold="2m",
        labels={"kpi": kpi.name},
    )
