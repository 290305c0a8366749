"""How the daemon gets to its plant, and what it takes along: everything that outlives one stay and is built only once.

A stay begins with a connection and a higher epoch, and goes on where the journal ends. It ends when the plant is lost;
the plant's adapter, the stores behind the stream and the governor's time are kept for the next one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller import aftermath, rundir
from controller.assembly import assessor, governor_settings
from controller.clock import Clock, SystemClock, VirtualClock
from controller.config import fingerprint
from controller.console import RunConsole
from controller.effector import Effector
from controller.governed import CHECKS, Governed, facts
from controller.loop import Loop
from controller.meter import Meter
from controller.plant_time import PlantTime
from controller.plants.bounded import BoundedPlant
from controller.plants.factory import make_plant
from controller.plants.metered import MeteredPlant
from controller.plants.plant import Plant, PlantInfo
from controller.plants.read_only import ReadOnlyPlant
from controller.publisher import Publisher
from controller.record import Recorded, RunRecord
from controller.session import Session
from controller.settings import Config
from controller.sinks import Sinks, open_sinks, prepare
from metrics.errors import ConfigInvalidError, NotPermittedError, PlantRefusedError, PlantUnavailableError
from metrics.observation import Capability
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import StoreAccounts
from metrics.telemetry import Telemetry
from state.event import Event, EventKind
from state.governor import Governor
from state.journal import Journal
from state.phase import Phase
from state.stimulus import Restarted, Started

BODIES_MAX = 3600  # an hour of an embedded plant's transactions
ARRIVALS = frozenset({EventKind.RUN_STARTED, EventKind.RESTARTED})
NOTED_PLANT = "plant"
CHECK_TURN_S = 0.5  # a check that takes longer lets the loop go on, and whoever waits for it


@dataclass(slots=True)
class Stays:
    """One plant, however often it has to be reached.

    Attributes:
        data_dir: of all runs.
        store, journal, governor, record, meter, telemetry, console: the daemon's.
        time: the governor's time.
        dry_run: assess and report, act on nothing.
        clock: the machine's.
        plant: its adapter, once there is one.
        host: the cluster behind an embedded plant.
        sinks: where telemetry goes, once the plant's name is known.
    """

    data_dir: Path
    store: SqliteStore
    journal: Journal
    governor: Governor
    record: RunRecord
    meter: Meter
    telemetry: Telemetry
    time: PlantTime
    console: RunConsole
    dry_run: bool
    clock: SystemClock
    plant: Plant | None = None
    host: object | None = None
    sinks: Sinks | None = None
    _virtual: VirtualClock | None = None

    def set_out(self, config: Config) -> None:
        """Make the plant's adapter.

        Raises:
            ConfigInvalidError: there can be no such plant.
        """
        virtual = VirtualClock()
        plant = make_plant(config, virtual, bodies_max=BODIES_MAX)
        if config.plant.kind == "embedded":
            from controller.plants.embedded import EmbeddedPlant  # noqa: PLC0415 - made already, so imported already

            self._virtual = virtual
            self.host = plant.host if isinstance(plant, EmbeddedPlant) else None
        else:
            plant = BoundedPlant(plant, config.plant.deadline_s)
        self.plant = MeteredPlant(ReadOnlyPlant(plant) if self.dry_run else plant, self.meter, self.clock)

    def arrive(self, config: Config, *, again: bool) -> Governed:
        """Reach the plant and take up governing; `again` after it was lost.

        Raises:
            PlantError: it cannot be reached, or not understood.
            ConfigInvalidError: a file that the sinks need cannot be used, or the journal is about another plant.
        """
        plant = self.plant
        if plant is None:
            raise RuntimeError("set out first")
        if self.sinks is None:  # they outlive a stay, and need no file any more
            prepare(config)
        info = self._reach(plant, config.plant.connect_s, again=again)
        self._require_same(info)
        epoch = max(plant.epoch_seen(config.plant.deadline_s), self.governor.state.epoch) + 1
        self.time.rebase()
        self.record.plant, self.record.system = info.name, info.system
        governed = Governed(self._session(config, plant, info, epoch))
        begun = facts(governed.session, fingerprint(config), reason="the plant is back" if again else "start")
        if not again:
            self._clear_up(plant, info, epoch)
        if self.governor.state.phase is Phase.IDLE:
            governed.loop.tell(Started(epoch, info.capabilities, begun))
        else:
            governed.loop.tell(Restarted(epoch, info.capabilities, self.monotonic_s(), begun))
        self._claim(plant, info, epoch)
        governed.undo_probes()
        self._tell_of_dry_run()
        phase = self.governor.state.phase
        self.console.say(f"governing {info.name} ({info.system}), epoch {epoch}, {phase}")
        if phase not in CHECKS:
            self.console.phase_started(phase)
        return governed

    def _reach(self, plant: Plant, connect_s: float, *, again: bool) -> PlantInfo:
        """Connect. A token that is not accepted *any more* may be again: what has governed before goes on trying."""
        try:
            return plant.connect(connect_s)
        except NotPermittedError as error:
            if not again:
                raise
            raise PlantUnavailableError(str(error)) from error

    def _require_same(self, info: PlantInfo) -> None:
        """Go on at the plant of which the journal tells, and at no other: nothing that is known of one holds there.

        Raises:
            ConfigInvalidError: it is another one.
        """
        known = None
        if self.governor.state.phase is not Phase.IDLE:
            arrivals = (item.event.data for item in reversed(self.record.events) if item.event.kind in ARRIVALS)
            # After months the journal has forgotten its beginning, hence the note beside it.
            known = next((data["plant"] for data in arrivals if "plant" in data), self.journal.noted(NOTED_PLANT))
        if known not in (None, info.name):
            problem = (
                f"{self.data_dir} is about {known}, and {info.name} is another plant: name another directory with "
                f"--data-dir, or {known}; another directory also if the plant has only moved, where the phases are "
                "made again and whoever is out comes back at its time limit"
            )
            raise ConfigInvalidError("plant", [problem])
        self.journal.note(NOTED_PLANT, info.name)

    def _tell_of_dry_run(self) -> None:
        """Say what is left open, because nothing is done about it."""
        state = self.governor.state
        left = [f"probe {name}" for name in sorted(state.probes)]
        if state.trial is not None:
            left.append(f"trial {state.trial.number}, which forbids isolations")
        if self.dry_run and left:
            self.console.say(f"a dry run leaves as it is what it has found open: {'; '.join(left)}")

    def _claim(self, plant: Plant, info: PlantInfo, epoch: int) -> None:
        """Let the plant see the epoch now: a late request of a dead predecessor is refused from here on.

        The parameters in force are put into force once more, which changes nothing but that.
        """
        if self.dry_run or Capability.PARAMETERS not in info.capabilities:
            return
        with suppress(PlantRefusedError):  # whoever else leads shows at the first action
            plant.apply(plant.parameters(), key=f"{self.record.run_id}/{epoch}/claim", epoch=epoch)

    def monotonic_s(self) -> float:
        """Monotonic time as the plant's observations are stamped with it, s."""
        return self.clock.monotonic_s() if self._virtual is None else self._virtual.monotonic_s()

    def keep(self, events: tuple[Event, ...]) -> None:
        """Make events durable and tell of them, with or without a plant at hand."""
        entries = self.journal.append(events, epoch=self.governor.state.epoch, wall_time=self.clock.wall())
        for entry in entries:
            recorded = Recorded(entry.seq, entry.hash, entry.event)
            if self.sinks is not None:
                self._publisher(self.sinks).event(recorded)
            else:
                self.record.events.append(recorded)

    def accounts(self) -> dict[str, StoreAccounts]:
        """What became of the points, by store."""
        return {} if self.sinks is None else self.sinks.accounts()

    def close(self) -> None:
        """Let go of the plant, which is left as it is, and of the stores.

        Raises:
            StoreFailedError: what was buffered could not be written.
        """
        try:
            if self.sinks is not None:
                self.sinks.close()
        finally:
            if self.plant is not None:
                self.plant.close()
            self.store.close()

    def _session(self, config: Config, plant: Plant, info: PlantInfo, epoch: int) -> Session:
        sinks = self.sinks = self.sinks or self._sinks(config, info)
        clock: Clock = self.clock if self._virtual is None else self._virtual
        name = self.record.run_id
        loop = Loop(
            plant=plant,
            clock=clock,
            assessor=assessor(config),
            governor=self.governor,
            journal=self.journal,
            effector=Effector(plant, clock, run_id=name, epoch=epoch),
            publisher=self._publisher(sinks),
            record=self.record,
            policy=governor_settings(config, dry_run=self.dry_run, daemon=True).isolation,
            deadline_s=config.plant.deadline_s,
            time=self.time,
        )
        run_id = f"{name}/{epoch}"
        return Session(
            config,
            plant,
            info,
            loop,
            self.record,
            sinks.store,
            sinks.writer,
            self.console,
            self.dry_run,
            run_id,
            turn_s=CHECK_TURN_S,
        )

    def _publisher(self, sinks: Sinks) -> Publisher:
        return Publisher(sinks, self.console, self.record, self.meter)

    def _sinks(self, config: Config, info: PlantInfo) -> Sinks:
        return open_sinks(
            config,
            self.store,
            self.data_dir,
            plant=info.name,
            run=self.record.run_id,
            real_time=True,
            state=self.governor.state,
            telemetry=self.telemetry,
        )

    def _clear_up(self, plant: Plant, info: PlantInfo, epoch: int) -> None:
        """Undo what runs in this data directory have left at this plant."""
        for left in rundir.leftovers(self.data_dir):
            if left.plant == info.name:
                aftermath.clear_up_after(
                    left,
                    plant,
                    self.console.say,
                    data_dir=self.data_dir,
                    epoch=epoch,
                    name="govern",
                    dry_run=self.dry_run,
                )
