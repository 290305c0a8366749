"""Where are the KPIs that the couplings move heading? The harmonic autoregression, kept for an assessment.

It learns every tick and looks ahead every few: a forecast costs more than a tick of learning, and does not age in so
short a time. A plant that does not show its parameters is forecast as if nobody ever changed them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from metrics.haru.autoregression import HarmonicAutoregression
from metrics.kpi import Kpi, Limit
from metrics.observation import PARAMETER_BOUNDS, Observation

FORECAST_KPIS = ("coherence", "gas", "action_cost")
HORIZON_TICKS = 15
EVERY_TICKS = 5


@dataclass(frozen=True, slots=True)
class KpiForecast:
    """What one KPI is expected to be.

    Attributes:
        horizon_ticks: how far ahead.
        mean, low, high: expected value and 90 % interval.
        limit: the KPI's, None where it has none.
    """

    horizon_ticks: int
    mean: float
    low: float
    high: float
    limit: Limit | None


class KpiAhead:
    """Forecasts of one plant's KPIs.

    Args:
        catalogue: the KPIs and their limits.
    """

    def __init__(self, catalogue: Mapping[str, Kpi]) -> None:
        self._kpis = [catalogue[name] for name in FORECAST_KPIS]
        self._model = HarmonicAutoregression(series=len(FORECAST_KPIS), inputs=len(PARAMETER_BOUNDS))
        self._forecasts: Mapping[str, KpiForecast] = MappingProxyType({})

    def update(self, observation: Observation) -> Mapping[str, KpiForecast]:
        """Take in one observation; the latest forecast of each KPI that has one."""
        values = [float(observation.kpis.get(kpi.name, math.nan)) for kpi in self._kpis]
        parameters = observation.parameters
        inputs = list(parameters.as_dict().values()) if parameters is not None else [0.0] * len(PARAMETER_BOUNDS)
        self._model.update(observation.tick, values, inputs)
        if observation.tick % EVERY_TICKS == 0:
            told = self._model.forecast(HORIZON_TICKS)
            bounds = zip(self._kpis, told.mean.tolist(), told.low.tolist(), told.high.tolist(), strict=True)
            self._forecasts = MappingProxyType(
                {
                    kpi.name: KpiForecast(HORIZON_TICKS, mean, low, high, kpi.limit)
                    for kpi, mean, low, high in bounds
                    if math.isfinite(mean) and math.isfinite(low) and math.isfinite(high)
                }
            )
        return self._forecasts
