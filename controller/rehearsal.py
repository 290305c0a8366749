"""What would other settings have done to this very run? Backtests of its own telemetry, kept short.

The last ticks of |g|, KPIs and parameters are taken from the run's own store through the real policy, once with the
settings in force and once with each change. How much is replayed depends on the size of the plant alone, never on the
time of a clock, so that equal runs give equal proposals. Where too little would fit, nothing is replayed, and that is
said.

Source: docs/backtest.md; docs/proposals.md section 3 has the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from controller.recording import Recording
from controller.settings import Config
from metrics.errors import IaceError

TICKS_MAX = 600
CELLS_MAX = 180_000  # ticks times nodes
TICKS_MIN = 120
CHANGES_MAX = 4  # changes that are rehearsed for one set of proposals
PER_CLUSTER = "isolation.cluster_fraction_max"

Outcome = Mapping[str, Any]


class NotRehearsedError(IaceError):
    """A change was not rehearsed; the message says why. Nothing else fails by it."""


class Rehearsal:
    """The backtests of one run.

    Args:
        open_recording: gives so many of the last seconds of the run.
        config: the settings in force.
        nodes: of the plant.
        tick_s: plant time between two ticks.
    """

    def __init__(
        self, open_recording: Callable[[float], Recording], config: Config, *, nodes: int, tick_s: float
    ) -> None:
        self._open = open_recording
        self._config = config
        self._nodes = nodes
        self._tick_s = tick_s
        self._left = CHANGES_MAX
        self._ready: tuple[Callable[[Config], Outcome], Outcome, str] | None = None

    def compare(self, settings: Mapping[str, object]) -> tuple[Outcome, Outcome, str]:
        """The outcomes with the settings in force and with `settings` (by path), and what was replayed.

        Raises:
            NotRehearsedError: it was not replayed, and why.
        """
        if PER_CLUSTER in settings:
            raise NotRehearsedError("a replay knows no clusters: all nodes count as one")
        if self._left == 0:
            raise NotRehearsedError(f"{CHANGES_MAX} other changes were replayed, and more would take too long")
        judge, now, basis = self._prepared()
        self._left -= 1
        return now, judge(with_settings(self._config, settings)), basis

    def _prepared(self) -> tuple[Callable[[Config], Outcome], Outcome, str]:
        if self._ready is None:
            self._ready = self._prepare()
        return self._ready

    def _prepare(self) -> tuple[Callable[[Config], Outcome], Outcome, str]:
        from controller import backtest  # noqa: PLC0415 - most runs rehearse nothing
        from controller.evidence import Evidence  # noqa: PLC0415 - as above

        ticks = min(TICKS_MAX, CELLS_MAX // max(1, self._nodes))
        if ticks < TICKS_MIN:
            raise NotRehearsedError(
                f"a replay of {TICKS_MIN} ticks of {self._nodes} nodes would take too long: iace backtest does it apart"
            )
        try:
            recording = self._open(ticks * self._tick_s)
        except IaceError as error:
            raise NotRehearsedError(f"its telemetry cannot be read: {error}") from error
        if recording.gravity is None or len(recording.times_s) < TICKS_MIN:
            raise NotRehearsedError(f"fewer than {TICKS_MIN} ticks of |g| were recorded")
        evidence = Evidence(recording)
        evidence.run()
        reference_g = self._config.gravity.critical

        def judge(config: Config) -> Outcome:
            return backtest.judge(recording, evidence, config, reference_g=reference_g)

        basis = (
            f"backtest of the last {len(recording.times_s)} ticks of this run's own telemetry, "
            f"{len(recording.nodes)} nodes, with the old and the new setting"
        )
        return judge, judge(self._config), basis


def with_settings(config: Config, settings: Mapping[str, object]) -> Config:
    """`config` with other values at some paths such as "isolation.quorum"."""
    values = config.model_dump()
    for path, value in settings.items():
        section, _, name = path.partition(".")
        values[section][name] = value
    return Config.model_validate(values)


def value_at(config: Config, path: str) -> object:
    """The value of a setting; None where there is no such setting."""
    section, _, name = path.partition(".")
    return getattr(getattr(config, section, None), name, None)


def tick_s(times_s: Sequence[float]) -> float:
    """Usual plant time between two ticks; 1 where there are not two."""
    return float(np.median(np.diff(times_s[-TICKS_MIN:]))) if len(times_s) > 1 else 1.0
