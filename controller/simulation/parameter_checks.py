"""What must hold of the parameters: the last good ones are known, kept and come back, and nothing moves far at a time.

Whoever dies in the middle of a trial must find the way back: what a trial began with is what was good before, and what
its end leaves at the plant is what it says, over restarts too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from controller.simulation.ground import ViolatedError
from controller.simulation.message import Core
from metrics.observation import Parameters
from state.event import Event, EventKind
from state.healing import HealingPolicy

FACTOR_MAX = math.exp(0.70)  # by which a coupling moves at a time: the widest reach, broader than the fixed step
ROUNDING = 1e-5
COUPLINGS = ("lambda1", "lambda2")

Values = Mapping[str, float]


class ParameterChecks:
    """Watches trials, on the disk and at the plant.

    Args:
        core: the plant.
        policy: of healing.
    """

    def __init__(self, core: Core, policy: HealingPolicy) -> None:
        self._core, self._policy = core, policy
        self._good: Values | None = core.parameters.as_dict()  # None: unknown, the next trial tells
        self._life = core.life
        self._from: Values = {}
        self._to: Values = {}
        self._asked: dict[str, Values] = {}
        self._tokens: tuple[float, float] = (policy.burst, 0.0)  # trials left, and when

    def durable(self, event: Event) -> None:
        """An event has become durable."""
        data: Any = event.data
        match event.kind:
            case EventKind.TRIAL_STARTED:
                self._start(event)
            case EventKind.ROLLBACK_INTENDED:
                if data["to"] != self._from:
                    raise ViolatedError("last_good_comes_back", f"{data['key']}: {data['to']}, good is {self._from}")
                self._asked[str(data["key"])] = data["to"]
            case EventKind.TRIAL_KEPT:
                self._end(event, self._to)
            case EventKind.TRIAL_ROLLED_BACK:
                self._end(event, self._from)
            case EventKind.ROLLBACK_FAILED:
                self._good = None

    def sent(self, key: str, parameters: Parameters | None) -> None:
        """Parameters, if any, are asked for: those that were intended under this key."""
        if parameters is not None and parameters.as_dict() != self._asked.get(key):
            raise ViolatedError("intents_come_first", f"{key} asks for {parameters}, intended {self._asked.get(key)}")

    def at_rest(self) -> None:
        """With no trial open the plant has the last good parameters."""
        self._notice_restart()
        if self._good is not None and self._core.parameters.as_dict() != self._good:
            raise ViolatedError(
                "last_good_comes_back", f"at rest the plant has {self._core.parameters}, good is {self._good}"
            )

    def _start(self, event: Event) -> None:
        data: Any = event.data
        self._notice_restart()
        self._from, self._to = data["from"], data["to"]
        if self._good is not None and self._from != self._good:
            raise ViolatedError("last_good_is_known", f"{data['key']}: from {self._from}, good is {self._good}")
        self._good = self._from
        self._asked[str(data["key"])] = self._to
        for name in COUPLINGS:
            factor = self._to[name] / self._from[name]
            if max(factor, 1.0 / factor) > FACTOR_MAX + ROUNDING:
                raise ViolatedError("steps_are_small", f"{data['key']}: {name} times {factor:g}")
        if abs(self._to["alpha"] - self._from["alpha"]) > self._policy.alpha_step + ROUNDING:
            raise ViolatedError("steps_are_small", f"{data['key']}: alpha {self._from['alpha']} to {self._to['alpha']}")
        left, at_s = self._tokens
        left = self._policy.tokens(left, event.at_s - at_s) - 1.0
        if left < -ROUNDING:
            raise ViolatedError("rate_is_kept", f"{data['key']}: {left:.3f} trials left")
        self._tokens = (left, event.at_s)

    def _end(self, event: Event, wanted: Values) -> None:
        self._notice_restart()
        if self._good is None:
            return
        self._good = wanted
        if self._core.parameters.as_dict() != wanted:
            raise ViolatedError("last_good_is_known", f"{event.kind}: {wanted}, the plant has {self._core.parameters}")

    def _notice_restart(self) -> None:
        """A plant that starts again may have other parameters than before."""
        if self._life != self._core.life:
            self._life, self._good = self._core.life, None
