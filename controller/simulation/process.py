"""One life of the controller's process: from its start to its death, as the daemon lives it, without threads.

Governor, policy, loop, effector, recovery and the journal are the real ones. What is left out is what decides nothing:
stores, streams, the API's transport and the checks of the phases, whose verdicts the world gives instead.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from controller.clock import Clock
from controller.effector import Effector
from controller.loop import Loop
from controller.plant_time import PlantTime
from controller.plants.plant import Plant
from controller.publisher import Publisher
from controller.record import Recorded, RunRecord
from controller.simulation.evidence import Sight
from controller.simulation.journal import Disk, MemoryJournal
from controller.simulation.light import LightObservation
from controller.simulation.oracle import Oracle
from controller.simulation.schedule import FaultKind
from controller.simulation.weather import Weather
from metrics.assessment import Assessment, Assessor
from metrics.errors import PlantRefusedError, PlantUnavailableError
from metrics.observation import Observation
from state import command as asked
from state import stimulus as told
from state.decision import Decision
from state.governor import Governor, GovernorSettings
from state.isolation import IsolationPolicy, Refusal
from state.phase import Phase
from state.recovery import recover
from state.verdict import CheckResult, CheckStatus, PhaseResult

RUN_NAME = "sim"
KEY_PREFIX = f"{RUN_NAME}/"
CONNECT_S, DEADLINE_S, UNAVAILABLE_S = 2.0, 2.0, 120.0
CONNECT_BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
SNAPSHOT_EVENTS = 40
SNAPSHOTS_KEPT = 2
CHECKED = (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III)
VERDICTS = {"passed": CheckStatus.PASSED, "failed": CheckStatus.FAILED, "undecided": CheckStatus.INCONCLUSIVE}


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process is made of; planted bugs replace some of it."""

    governor: Callable[..., Governor] = Governor
    loop: Callable[..., Loop] = Loop
    plant_time: Callable[..., PlantTime] = PlantTime
    policy: Callable[[IsolationPolicy], IsolationPolicy] = lambda policy: policy
    assessor: Callable[[Any], Any] = lambda assessor: assessor


@dataclass(frozen=True, slots=True)
class Site:
    """What outlives a process.

    Attributes:
        clock: true time.
        weather: the faults.
        disk: the journal's.
        oracle: the witness.
        link: makes a connection to the plant.
        assessor: makes what measures.
        parts: what a process is made of.
        settings: the governor's under a policy.
    """

    clock: Clock
    weather: Weather
    disk: Disk
    oracle: Oracle
    link: Callable[[], Plant]
    assessor: Callable[[], Assessor]
    parts: Parts
    settings: Callable[[IsolationPolicy], GovernorSettings]


class _Quiet(Publisher):
    """Publishes to nobody but the oracle."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    def tick(self, observation: Observation, assessment: Assessment, phase: Phase) -> None:
        """A tick is about to be decided upon."""
        del phase
        topology, received_s = observation.topology, observation.received_s
        # What the light world shows is taken from the world itself, not from what was made of it.
        shown = observation if isinstance(observation, LightObservation) else assessment
        if topology is not None and shown.reading is not None and shown.active is not None:
            self._oracle.taken(Sight(observation.tick, received_s, topology, shown.reading, shown.active))

    def event(self, recorded: Recorded) -> None:
        """The oracle reads the disk instead."""


class _Record:
    """Counts what was not done, and forgets it."""

    refused = 0

    def refuse(self, refusals: tuple[Refusal, ...]) -> None:
        self.refused += len(refusals)


class Process:
    """A controller that has just been started.

    Args:
        site: where it lives.
        policy: its configuration.
        slept_until_s: the governor's time up to which telemetry is on record.

    Raises:
        StoreFailedError: the journal cannot be written.
        CrashedError: it died at once.
    """

    def __init__(self, site: Site, policy: IsolationPolicy, slept_until_s: float | None) -> None:
        self._site, self._policy = site, policy
        self._journal = MemoryJournal(site.disk)
        recovered = recover(self._journal, daemon=True)
        site.oracle.started(recovered.state)
        known = [at_s for at_s in (recovered.at_s, slept_until_s) if at_s is not None]
        self._time = site.parts.plant_time(max(known, default=None))
        self._snapshots = list(recovered.snapshots)
        self.governor = site.parts.governor(self._settings(), recovered.state)
        self._record = _Record()
        self._loop: Loop | None = None
        self._plant: Plant | None = None
        self._tries, self._next_try_s, self._seen_s = 0, 0.0, site.clock.monotonic_s()

    @property
    def now_s(self) -> float:
        """The governor's time."""
        return self._time.now_s

    def turn(self) -> None:
        """What the schedule calls: look, decide, act.

        Raises:
            StoreFailedError: it ends.
            CrashedError: it died.
            InvariantBreachError: a bug.
        """
        self._site.weather.point("turn")
        try:
            self._advance()
        except PlantUnavailableError as silence:
            self._silent(silence)
        self._snapshot_when_due()
        self._site.oracle.after_turn(self.governor)

    def tell(self, stimulus: told.Stimulus) -> Decision:
        """Let the governor decide on something, with or without a plant at hand."""
        if self._loop is not None:
            return self._loop.tell(stimulus)
        decision = self.governor.step(stimulus, self._time.now_s)
        self._journal.append(decision.events, epoch=self.governor.state.epoch, wall_time=self._site.clock.wall())
        return decision

    def command(self, command: asked.Command, key: str | None) -> Decision:
        """An operator's command."""
        return self.tell(told.Commanded(command, "ada", "simulated", key))

    def reload(self, policy: IsolationPolicy) -> None:
        """Another configuration comes into force."""
        self._policy = policy
        self.governor.configure(self._settings())
        self._site.oracle.reconfigured(policy)
        self.tell(told.ConfigReloaded("0" * 64, ("isolation",), "ada", self._site.clock.monotonic_s()))
        if self._loop is not None:
            self._loop.reassess(self._assessor(), self._settings().isolation)

    def stop(self) -> None:
        """End in good order."""
        self.tell(told.Stopped(143, "SIGTERM"))

    def _settings(self) -> GovernorSettings:
        return self._site.settings(self._site.parts.policy(self._policy))

    def _assessor(self) -> Assessor:
        return cast("Assessor", self._site.parts.assessor(self._site.assessor()))

    def _advance(self) -> None:
        if self._loop is None:
            self._connect()
        loop = self._loop
        if loop is None:
            return
        for _ in loop.tick():
            self._seen_s = self._site.clock.monotonic_s()
            self._check_phase(loop)
        if self._site.clock.monotonic_s() - self._seen_s > UNAVAILABLE_S:
            raise PlantUnavailableError("the plant made no new tick for too long")

    def _check_phase(self, loop: Loop) -> None:
        """The checks of a phase take a tick, and end as the world says."""
        state = self.governor.state
        if state.pause is not None or state.phase not in CHECKED:
            return
        fault = self._site.weather.take(FaultKind.PHASE)
        status = VERDICTS["passed" if fault is None else fault.args["verdict"]]
        check = CheckResult("simulated", status, "as the world says")
        loop.tell(told.PhaseEnded(PhaseResult(state.phase, (check,), loop.now_s, loop.now_s)))

    def _connect(self) -> None:
        site, state = self._site, self.governor.state
        if site.clock.monotonic_s() < self._next_try_s:
            return
        plant = self._plant = self._plant or site.link()
        info = plant.connect(CONNECT_S)
        epoch = max(plant.epoch_seen(DEADLINE_S), state.epoch) + 1
        self._time.rebase()
        loop = site.parts.loop(
            plant=plant,
            clock=site.clock,
            assessor=self._assessor(),
            governor=self.governor,
            journal=self._journal,
            effector=Effector(plant, site.clock, run_id=RUN_NAME, epoch=epoch),
            publisher=_Quiet(site.oracle),
            record=cast("RunRecord", self._record),
            policy=self._settings().isolation,
            deadline_s=DEADLINE_S,
            time=self._time,
        )
        site.oracle.connected()
        if state.phase is Phase.IDLE:
            loop.tell(told.Started(epoch, info.capabilities, {"plant": info.name}))
        else:
            loop.tell(told.Restarted(epoch, info.capabilities, site.clock.monotonic_s(), {"plant": info.name}))
        self._claim(plant, epoch)
        self._loop, self._tries, self._seen_s = loop, 0, site.clock.monotonic_s()

    def _claim(self, plant: Plant, epoch: int) -> None:
        """Let the plant see the epoch, as the daemon does: from now on late requests of the dead are refused."""
        with suppress(PlantRefusedError):
            plant.apply(plant.parameters(), key=f"{KEY_PREFIX}{epoch}/claim", epoch=epoch)

    def _silent(self, silence: PlantUnavailableError) -> None:
        now_s = self._site.clock.monotonic_s()
        if self._loop is None:
            self._next_try_s = now_s + CONNECT_BACKOFF_S[min(self._tries, len(CONNECT_BACKOFF_S) - 1)]
            self._tries += 1
        elif now_s - self._seen_s > UNAVAILABLE_S:
            self.tell(told.PlantLost(str(silence)))
            self._loop, self._tries, self._next_try_s = None, 1, now_s + CONNECT_BACKOFF_S[0]

    def _snapshot_when_due(self) -> None:
        last = self._snapshots[-1] if self._snapshots else 0
        if self._journal.tip.seq - last < SNAPSHOT_EVENTS or self.governor.state.phase is Phase.IDLE:
            return
        self.tell(told.SnapshotDue())
        self._snapshots.append(self._journal.tip.seq)
        if len(self._snapshots) > SNAPSHOTS_KEPT:
            self._journal.forget_before(self._snapshots[-SNAPSHOTS_KEPT])
            del self._snapshots[:-SNAPSHOTS_KEPT]
