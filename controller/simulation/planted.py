"""Six planted bugs: does the simulation find what it is there to find?

Each replaces one part of the controller, or of the plant, by one that errs; nothing of them is in the controller
itself. A simulation that does not find them within a simulated day is not worth its electricity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from controller.loop import Loop
from controller.plant_time import PlantTime
from controller.simulation.clock import SimClock
from controller.simulation.message import Message
from controller.simulation.process import Parts
from controller.simulation.runner import Bug
from controller.simulation.world import LightWorld
from metrics.assessment import Assessment
from metrics.observation import Observation
from state.action import Action
from state.decision import Decision, Draft
from state.event import EventKind
from state.governor import Governor
from state.isolation import IsolationPolicy
from state.phase import Phase
from state.stimulus import Assessed, Replied, Stimulus


class _UnfencedWorld(LightWorld):
    """A plant that takes requests of a leader that was deposed long ago."""

    def _fence(self, message: Message) -> None:
        self._epoch = max(self._epoch, message.epoch)


class _Credulous:
    """An assessor for whom what is not a number is very large."""

    def __init__(self, assessor: Any) -> None:  # noqa: ANN401 - any of the assessors
        self._assessor = assessor

    def assess(self, observation: Observation) -> Assessment:
        """Every value counts."""
        seen: Assessment = self._assessor.assess(observation)
        if seen.reading is None:
            return seen
        gravity, components = (
            np.nan_to_num(values, nan=9.0, posinf=9.0) for values in (seen.reading.gravity, seen.reading.components)
        )
        return replace(seen, reading=replace(seen.reading, gravity=gravity, components=components))


class _DeafGovernor(Governor):
    """Goes on at the first tick of a pause that has been acknowledged."""

    def step(self, stimulus: Stimulus, now_s: float) -> Decision:
        """Decide."""
        if isinstance(stimulus, Assessed) and self.state.phase is Phase.PAUSED:
            draft = Draft(self.state, now_s)
            draft.record(EventKind.RESUMED, by="nobody")
            first, then = draft.finish(), super().step(stimulus, now_s)
            return replace(then, events=first.events + then.events)
        return super().step(stimulus, now_s)


class _WallTime(PlantTime):
    """Counts the seconds of the wall clock."""

    def __init__(self, clock: SimClock, resumed_s: float | None = None) -> None:
        super().__init__(resumed_s)
        self._clock, self._offset_at_start_s = clock, clock.wall_offset_s

    def at(self, tick: int, plant_time_s: float) -> float:
        """The plant's time, moved by whatever the wall clock has been stepped by since the start."""
        return super().at(tick, plant_time_s) + self._clock.wall_offset_s - self._offset_at_start_s


class _HeedlessLoop(Loop):
    """Checks its evidence when it decides, and not again when it acts."""

    def _too_late(self, action: Action) -> Replied | None:
        del action
        return None


def _unbounded(policy: IsolationPolicy) -> IsolationPolicy:
    """A policy that knows no budget."""
    return replace(policy, fraction_max=1.0, cluster_fraction_max=1.0, absolute_max=None, quorum=0)


def _wall_timed(clock: SimClock) -> Parts:
    return Parts(plant_time=partial(_WallTime, clock))


BUGS: Mapping[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug("stale_epoch_accepted", world=_UnfencedWorld),
        Bug("no_budget_check", Parts(policy=_unbounded)),
        Bug("nan_counted", Parts(assessor=_Credulous)),
        Bug("pause_ignored", Parts(governor=_DeafGovernor)),
        Bug("wall_clock_timer", on_clock=_wall_timed),
        Bug("check_then_act", Parts(loop=_HeedlessLoop)),
    )
}
