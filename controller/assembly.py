"""From the configuration to the parts that a run and a daemon have in common."""

from __future__ import annotations

from controller.settings import Config
from metrics.assessment import Assessor
from metrics.store.rollups import Retention
from state.governor import GovernorSettings
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy


def governor_settings(config: Config, *, dry_run: bool, daemon: bool) -> GovernorSettings:
    """How the governor governs."""
    return GovernorSettings(
        IsolationPolicy(gravity_critical=config.gravity.critical, **config.isolation.model_dump()),
        HealingPolicy(**config.healing.model_dump(exclude={"auto_apply"})),
        auto_apply=config.auto_apply,
        dry_run=dry_run,
        daemon=daemon,
    )


def assessor(config: Config) -> Assessor:
    """What measures; without a past."""
    return Assessor(
        config.catalogue(),
        gravity_critical=config.gravity.critical,
        g0=config.gravity.unit,
        evidence_ticks=config.gravity.evidence_ticks,
        persistence_ticks=config.schedule.persistence_ticks,
    )


def retention(config: Config) -> Retention:
    """How long telemetry is kept in its own store."""
    store = config.store
    return Retention(store.retention_s, store.rollup_minute_retention_s, store.rollup_hour_retention_s)
