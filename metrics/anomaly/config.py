"""The one configuration of the anomaly detector, each number with its unit and its reason.

Assumptions: the same defaults serve minute-by-minute server metrics, five-minute cloud metrics, hourly business figures
and the governed cluster's KPIs, because every limit is learned per series and every length is counted in rows.
Leaves out: alarm routing and severities, which belong to whoever reads the scores.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Tunables of :class:`metrics.anomaly.detector.StreamingDetector`.

    The values were chosen on the development half of two public corpora; docs/anomaly.md tells what was tried and how
    flat the optimum is. Within a factor of two of these numbers results change by less than their standard error,
    except where noted.
    """

    tail_share: float = 0.004
    """Share of rows beyond each learned limit. Smaller limits are seen too rarely to be learned in a few days."""

    limit_rate: float = 0.01
    """Step of the stochastic quantile, per row, in units of five mean deviations."""

    excess_rate: float = 0.03
    """Forgetting of the mean excess, per exceedance: about 33 exceedances are remembered."""

    drift_rate: float = 0.002
    """Forgetting of location and scale, per row: about 500 rows, slower than any single anomaly."""

    clip_deviations: float = 5.0
    """No row moves what is learned by more than this many deviations, so an outlier is not the new normal but a
    lasting level shift becomes it."""

    scale_floor: float = 0.05
    """Smallest excess that counts, in mean deviations of the series: keeps numerical dust from being news."""

    evidence_max: float = 50.0
    """Cap of one view's evidence in nats; a tail of e^-50 is an extrapolation that nobody should believe further."""

    warmup_rows: int = 50
    """Rows of a series before its first score."""

    memory_rows_min: int = 120
    """An event is news only if it is stronger than all of the last 120 rows ..."""

    memory_rows_max: int = 320
    """... and, as far as 320 rows reach, of the last ``memory_s``."""

    memory_s: float = 90000.0
    """A day and an hour, in seconds: daily events recur, and not to the minute."""

    event_prior: float = 4.0
    """Typical evidence of a series' events before any has been seen, in nats."""

    event_prior_weight: float = 10.0
    """How many events that prior counts for."""

    event_rate: float = 0.02
    """Forgetting of the typical event, per event."""

    onset_score: float = 0.95
    """An onset is an alarm when its calibrated score reaches this."""


DEFAULT = DetectorConfig()
