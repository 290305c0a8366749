"""One simulated life, from a schedule to a verdict; equal schedules give equal lives, event for event.

    outcome = run(draw(seed=7, hours=40, nodes=12))
    outcome.violation is None

First everything goes wrong that the schedule says, and safety must hold after every step. Then faults stop, and
everything must come to rest. All the while a person looks after what waits for one, every now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import cast

from controller.simulation.clock import SimClock
from controller.simulation.ground import ViolatedError
from controller.simulation.journal import Disk, Row
from controller.simulation.light import LightAssessor
from controller.simulation.message import Core
from controller.simulation.network import Link, Network
from controller.simulation.operators import caretaking, command_of
from controller.simulation.oracle import Oracle
from controller.simulation.process import KEY_PREFIX, Parts, Process, Site
from controller.simulation.schedule import FULL, Fault, FaultKind, Schedule
from controller.simulation.streams import share
from controller.simulation.swarm import policy
from controller.simulation.weather import CrashedError, Weather
from controller.simulation.world import LightWorld
from metrics.assessment import Assessor
from metrics.errors import BadDataError, InvariantBreachError, StoreFailedError
from state.governor import GovernorSettings
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy

HOUR_S = 3600.0
RESTART_S = 300.0  # after which whoever watches over the process starts it again
TELEMETRY_S = 60.0  # telemetry on record is at most so old
EARLY = 0.5  # share of the commands that come before a tick is taken in, the others come after it
CARE_EVERY_S = 900.0
DETECTOR_EVERY = 5  # lives with the full plant of which one has the detector of anomalies at work


@dataclass(frozen=True, slots=True)
class Violation:
    """What did not hold, and when.

    Attributes:
        invariant: its name.
        detail: the values.
        at_s: true time.
    """

    invariant: str
    detail: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.invariant} after {self.at_s / HOUR_S:.2f} h: {self.detail}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a life went.

    Attributes:
        schedule: what was played.
        violation: None where everything held.
        hours: simulated.
        events: made durable.
        effects: requests that the plant executed.
        lives: of the process.
        spent: faults that have happened, by kind.
        digest: of all that became durable; equal for equal lives.
    """

    schedule: Schedule
    violation: Violation | None
    hours: float
    events: int
    effects: int
    lives: int
    spent: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Bug:
    """A planted bug: what of the real controller, or of the light plant, it replaces."""

    name: str
    parts: Parts = field(default_factory=Parts)
    world: type[LightWorld] = LightWorld
    on_clock: Callable[[SimClock], Parts] | None = None


SOUND = Bug("none")


def run(schedule: Schedule, bug: Bug = SOUND, told: Callable[[float], None] = lambda _hours: None) -> Outcome:
    """Live a schedule to its end, or to the first violation.

    Args:
        schedule: what goes wrong.
        bug: planted.
        told: is told the simulated hours as they pass.
    """
    life = _Life(schedule, bug)
    violation = None
    try:
        life.live(told)
    except ViolatedError as violated:
        violation = Violation(violated.invariant, violated.detail, life.clock.now_s)
    except InvariantBreachError as breach:
        violation = Violation(breach.invariant, f"found by the controller itself: {breach.detail}", life.clock.now_s)
    except BadDataError as bad:
        violation = Violation("the_journal_is_readable", str(bad), life.clock.now_s)
    except Exception as error:  # noqa: BLE001 - whatever the controller raises that nobody foresaw is a finding
        violation = Violation("no_unforeseen_error", f"{type(error).__name__}: {error}", life.clock.now_s)
    return Outcome(
        schedule=schedule,
        violation=violation,
        hours=life.clock.now_s / HOUR_S,
        events=life.oracle.events,
        effects=life.oracle.effects,
        lives=life.lives,
        spent={kind.value: count for kind, count in sorted(life.weather.spent.items())},
        digest=life.digest.hexdigest(),
    )


class _Life:
    def __init__(self, schedule: Schedule, bug: Bug) -> None:
        self.clock = SimClock()
        self.weather = Weather(schedule.faults, self.clock)
        self.lives = 0
        self.digest = sha256()
        self._schedule = schedule
        core, assessor = _plant(schedule, self.weather, bug.world)
        self._core = core
        self._policy = IsolationPolicy(**schedule.policy)
        network = Network(core, self.weather)
        self.clock.drives(network.live_to)
        self.oracle = oracle = Oracle(self.clock, core, self._policy, key_prefix=KEY_PREFIX, tick_s=schedule.tick_s)
        core.on_effect = oracle.executed
        disk = Disk(schedule.seed, self.weather)
        disk.on_synced = self._synced
        healing = HealingPolicy()
        self._site = Site(
            clock=self.clock,
            weather=self.weather,
            disk=disk,
            oracle=oracle,
            link=lambda: Link(core, network, self.weather, self.clock, oracle),
            assessor=assessor,
            parts=bug.parts if bug.on_clock is None else bug.on_clock(self.clock),
            settings=lambda policy: GovernorSettings(policy, healing, auto_apply=True, daemon=True),
        )
        self._process: Process | None = None
        self._start_at_s = 0.0
        self._telemetry_s: float | None = None

    def live(self, told: Callable[[float], None]) -> None:
        """Storm, calm, rest."""
        schedule = self._schedule
        end_s, ticks = schedule.storm_s + schedule.calm_s, 0
        care_s, rested = CARE_EVERY_S, False
        while self.clock.now_s < end_s:
            ticks += 1
            self.clock.advance_to(ticks * schedule.tick_s)
            calm = self.clock.now_s >= schedule.storm_s
            if calm:
                self.weather.clear_up()
            caring = self.clock.now_s >= care_s
            if caring:
                care_s = self.clock.now_s + CARE_EVERY_S
            self._turn(caring=caring)
            if schedule.world == FULL and not rested and self.clock.now_s >= schedule.storm_s + schedule.calm_s / 2:
                rested = self._at_rest() is None
            if ticks % 256 == 0:
                told(self.clock.now_s / HOUR_S)
        # Noise may take a node of the full plant out at any time, so it need not be at rest at the very end.
        unrest = None if rested or schedule.calm_s == 0.0 else self._at_rest()
        if unrest is not None:
            raise unrest

    def _at_rest(self) -> ViolatedError | None:
        if self._process is None:
            return ViolatedError("all_comes_to_rest", "no process is running")
        try:
            self.oracle.at_rest(self._process.governor.state)
        except ViolatedError as unrest:
            return unrest
        return None

    def _turn(self, *, caring: bool) -> None:
        """One point of the schedule's grid: what has begun, then the process."""
        due = self.weather.due()
        later = []
        for fault in due:
            if fault.kind is FaultKind.WALL_STEP:
                self.clock.wall_offset_s += float(fault.args["step_s"])
            elif fault.kind not in (FaultKind.COMMAND, FaultKind.RELOAD, FaultKind.STOP):
                self._core.befall(fault)
            elif share(self._schedule.seed, "early", fault.at_s) < EARLY:
                self._process_does(partial(self._tell, fault))
            else:
                later.append(fault)
        if self._process is None and self.clock.now_s >= self._start_at_s:
            self._start()
        self._process_does(Process.turn)
        for fault in later:
            self._process_does(partial(self._tell, fault))
        if caring:
            self._process_does(self._care)

    def _start(self) -> None:
        self.lives += 1
        try:
            self._process = Process(self._site, self._policy, self._telemetry_s)
        except StoreFailedError:
            self._ended(RESTART_S)
        except CrashedError as crash:
            self._ended(crash.down_s)

    def _process_does(self, act: Callable[[Process], None]) -> None:
        process = self._process
        if process is None:
            return
        try:
            act(process)
        except CrashedError as crash:
            self._ended(crash.down_s)
        except StoreFailedError:
            self._ended(RESTART_S)
        else:
            if process.now_s - (self._telemetry_s or 0.0) >= TELEMETRY_S:
                self._telemetry_s = process.now_s

    def _ended(self, down_s: float) -> None:
        self._process, self._start_at_s = None, self.clock.now_s + down_s

    def _tell(self, fault: Fault, process: Process) -> None:
        if fault.kind is FaultKind.RELOAD:
            schedule = self._schedule
            wanted = policy(int(fault.args["policy"]), schedule.world, schedule.nodes)
            self._policy = IsolationPolicy(**wanted)
            process.reload(self._policy)
        elif fault.kind is FaultKind.STOP:
            process.stop()
            raise CrashedError(float(fault.args["down_s"]))
        else:
            command, key = command_of(fault, self._core.nodes)
            for _ in range(1 + bool(fault.args["twice"])):
                self.oracle.ground.commands.append(str(fault.args["name"]))
                process.command(command, key)

    def _care(self, process: Process) -> None:
        for command in caretaking(process.governor.state):
            self.oracle.ground.commands.append("resume")
            process.command(command, None)

    def _synced(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.digest.update(str(row[4]).encode())
        self.oracle.synced(rows)


def _plant(schedule: Schedule, weather: Weather, light: type[LightWorld]) -> tuple[Core, Callable[[], Assessor]]:
    if schedule.world == FULL:
        # The governed system is imported only where it is wanted.
        from controller.simulation.full import FullWorld, NoDetector  # noqa: PLC0415 - as the comment says

        world = FullWorld(schedule, weather)
        return world, Assessor if schedule.seed % DETECTOR_EVERY == 0 else partial(Assessor, detector=NoDetector)
    return light(schedule, weather), lambda: cast("Assessor", LightAssessor())
