"""The one configuration of the anomaly detector, each number with its unit and its reason.

Assumptions: the same numbers serve minute-by-minute server metrics, five-minute cloud metrics, hourly business figures
and the governed cluster's KPIs, because every limit is learned for each series and most lengths are counted in rows.
Leaves out: severities and alarm routing, which belong to whoever reads the scores.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Tunables of the streaming detector; docs/anomaly.md tells how flat each optimum is."""

    tail_share: float = 0.004
    """Share of rows beyond each learned limit. With fewer the limits take more than days to learn."""

    limit_rate: float = 0.01
    """Step of a limit per row, in steps of five mean deviations: a limit walks one deviation in twenty rows."""

    excess_rate: float = 0.03
    """Forgetting of the mean excess per exceedance: the last 33 exceedances count."""

    drift_rate: float = 0.002
    """Forgetting of location and scale per row: about 500 rows, longer than a single anomaly lasts."""

    clip_deviations: float = 5.0
    """No row teaches more than this many deviations, so that an outlier does not become the norm, but a level shift
    that lasts does. The one sensitive number: at 3 the score on the development corpus falls by four points."""

    scale_floor: float = 0.05
    """Smallest excess that counts, in mean deviations of the series: numerical dust is not news."""

    evidence_max: float = 50.0
    """Cap of one view's evidence in nats. Nobody should believe a tail extrapolated beyond exp(-50)."""

    warmup_rows: int = 50
    """Rows of a series before its first evidence."""

    memory_rows_min: int = 120
    """News must be stronger than all of the last 120 rows ..."""

    memory_rows_max: int = 320
    """... and, as far as 320 rows reach, of the last ``memory_s``."""

    memory_s: float = 90000.0
    """A day and an hour, in seconds: daily events recur, though not to the minute."""

    event_prior: float = 4.0
    """Typical evidence of an event, in nats, before a series has had any."""

    event_prior_weight: float = 10.0
    """For how many events that prior counts."""

    event_rate: float = 0.02
    """Forgetting of the typical event, per event."""

    onset_score: float = 0.83
    """News is an alarm from this score on: an event stronger than 83 % of its series' events, assumed exponential."""

    deviation_rate: float = 0.001
    """Forgetting of mean and variance behind ``Scores.deviation``, per row: about 1000 rows."""

    lasting_rows: int = 40
    """From this age on an excursion to one side is reported as a level shift instead of an incident."""


DEFAULT = DetectorConfig()
