"""The main job: phases I to IV once against a plant, and the exit code that it amounts to.

`execute` sets everything up, drives the lifecycle, and turns whatever happened into an outcome, a journal that is
closed and a report that is written: an error is an outcome like any other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from controller import aftermath, crash, report, rundir
from controller.assembly import assessor, governor_settings, retention
from controller.clock import Clock, SystemClock, VirtualClock
from controller.config import fingerprint
from controller.console import RunConsole
from controller.drive import Driver
from controller.effector import Effector
from controller.last_scrape import LastScrape
from controller.loop import Loop
from controller.meter import TICK, Meter
from controller.phases.field import field as field_security
from controller.phases.improvement import improvement
from controller.phases.initialization import initialization
from controller.phases.transactions import transactions
from controller.plant_time import PlantTime
from controller.plants.factory import make_plant
from controller.plants.metered import MeteredPlant
from controller.plants.plant import Plant, PlantInfo
from controller.plants.read_only import ReadOnlyPlant
from controller.plants.scenario import Scenario
from controller.proposals import clear
from controller.publisher import Publisher
from controller.record import RunRecord
from controller.rundir import PROPOSALS
from controller.scenario_faults import ScenarioFaults
from controller.session import Session, Ticking
from controller.settings import Config
from controller.signals import stopping
from controller.sinks import Sinks, open_sinks, prepare
from controller.snapshot import Bounds, snapshot
from metrics.errors import ConfigInvalidError, IaceError, RecordingEndedError
from metrics.export_snapshot import ExportSnapshot
from metrics.observation import Capability, Topology
from metrics.store.sqlite import SqliteStore
from state.governor import Governor
from state.journal import Journal
from state.lease import DirectoryLease
from state.outcome import ExitCode, Facts, Outcome, decide
from state.phase import Phase
from state.stimulus import Ended, PhaseEnded, Started, WindowClosing, WindowEnded
from state.verdict import PhaseResult, PhaseVerdict

WAKE_S = 0.2  # how soon a signal or the deadline is noticed between two ticks


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for on the command line.

    Attributes:
        config: the configuration in force.
        scenario: the faults to be injected, or None.
        data_dir: where the run keeps its journal and telemetry.
        report_dir: where the report goes.
        dry_run: assess and report, act on nothing.
        last_scrape: where the metrics of the end go.
        command: what to type for another such run that acts, whose report goes elsewhere.
    """

    config: Config
    scenario: Scenario | None
    data_dir: Path
    report_dir: Path
    dry_run: bool
    last_scrape: LastScrape = field(default_factory=LastScrape)
    command: str = "iace run"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run leaves for the caller: the outcome, the report as a document, and where it was written."""

    outcome: Outcome
    document: Mapping[str, object]
    paths: tuple[Path, ...]


@dataclass(slots=True)
class _Progress:
    """What the lifecycle has found out so far; what is known counts, however the run ends."""

    phases: list[PhaseResult] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    unhealthy: tuple[str, ...] = ()


def execute(job: Job, console: RunConsole) -> Finished:
    """Run the main job.

    Raises:
        IaceError: before there was a journal to write to; the caller turns it into its exit code.
    """
    job.last_scrape.require_possible()
    with DirectoryLease(job.data_dir):
        left = rundir.leftovers(job.data_dir)
        number, directory = rundir.make(job.data_dir)
        journal = Journal(directory / rundir.JOURNAL)
        store = SqliteStore(directory / rundir.TELEMETRY, retention(job.config))
        try:
            return _Run(job, console, number, journal, store, left).finish()
        finally:
            store.close()
            journal.close()


class _Run:
    """One run, from an open journal to a written report."""

    def __init__(
        self,
        job: Job,
        console: RunConsole,
        number: int,
        journal: Journal,
        store: SqliteStore,
        left: Sequence[rundir.Leftover],
    ) -> None:
        self._job = job
        self._config = job.config
        self._console = console
        self._number = number
        self._journal = journal
        self._store = store
        self._left = left
        self._progress = _Progress()
        self._clock = SystemClock()
        self._started_s = self._clock.monotonic_s()
        self._record = RunRecord(
            run_id=str(uuid.uuid4()),
            plant=self._config.plant.kind,
            system="unknown",
            nodes=0,
            clusters=0,
            seed=self._config.plant.seed,
            scenario=job.scenario.name if job.scenario else "none",
            ticks=self._config.schedule.ticks,
            dry_run=job.dry_run,
            catalogue=self._config.catalogue(),
            wall_started=self._clock.wall(),
        )
        self._meter = Meter(self._record.catalogue)
        self._plant_clock: Clock = self._clock
        self._loop: Loop | None = None
        self._sinks: Sinks | None = None
        self._driver: Driver[None] | None = None
        self._signal: ExitCode | None = None

    def finish(self) -> Finished:
        """Drive the run to its end, whatever that is, and write down what came of it."""
        errors: list[BaseException] = []
        plant: Plant | None = None
        with stopping(self._stop):
            with _kept(errors):
                virtual = VirtualClock()
                plant = MeteredPlant(make_plant(self._config, virtual), self._meter, self._clock)
                self._drive(plant, virtual)
            self._conclude(errors)
            if self._sinks is not None:
                with suppress(IaceError):  # a store that fails has had its say by now
                    self._sinks.close()
            if plant is not None:
                plant.close()
            return self._write_down(errors)

    def _stop(self, code: ExitCode) -> None:
        """Take note of a signal, at any time."""
        self._signal = code
        if self._driver is not None:
            self._driver.stop(code)

    def _drive(self, world: Plant, virtual: VirtualClock) -> None:
        """Drive the lifecycle to its end.

        Raises:
            Exception: whatever ended it.
        """
        prepare(self._config)
        plant = ReadOnlyPlant(world) if self._job.dry_run else world
        info = plant.connect(self._config.plant.connect_s)
        clock: Clock = self._clock if info.real_time else virtual
        self._plant_clock = clock
        session = self._session(plant, info, clock)
        driver = Driver(
            session.loop,
            self._lifecycle(session, world),
            self._clock,
            unavailable_s=info.patience_s(self._config.plant.unavailable_s),
            deadline_s=self._config.schedule.deadline_s,
            ticked=self._meter.ticks.add,
        )
        self._driver = driver
        if self._signal is not None:
            driver.stop(self._signal)
        if info.real_time:
            interval_s = self._config.schedule.interval_s
            _in_real_time(driver, self._meter.scheduled(driver.tick, interval_s, self._clock), interval_s)
        else:
            driver.run_to_end()
        if driver.error is not None:
            raise driver.error

    def _session(self, plant: Plant, info: PlantInfo, clock: Clock) -> Session:
        config, record = self._config, self._record
        self._require_scenario_possible(info)
        record.plant, record.system = info.name, info.system
        record.seed = config.plant.seed if info.seed is None else info.seed
        epoch = plant.epoch_seen(config.plant.deadline_s) + 1
        name = self._record.run_id if info.real_time else "run"
        self._journal.note("run_name", name)
        settings = governor_settings(config, dry_run=self._job.dry_run, daemon=False)
        governor = Governor(settings)
        sinks = self._sinks = open_sinks(
            config,
            self._store,
            self._job.data_dir,
            plant=info.name,
            run=name,
            real_time=info.real_time,
            state=governor.state,
        )
        self._loop = Loop(
            plant=plant,
            clock=clock,
            assessor=assessor(config),
            governor=governor,
            journal=self._journal,
            effector=Effector(plant, clock, run_id=name, epoch=epoch),
            publisher=Publisher(sinks, self._console, record, self._meter),
            record=record,
            policy=settings.isolation,
            deadline_s=config.plant.deadline_s,
            time=PlantTime(live=info.real_time),
        )
        session = Session(
            config,
            plant,
            info,
            self._loop,
            record,
            sinks.store,
            sinks.writer,
            self._console,
            self._job.dry_run,
            name,
            recovering=self._clear_up(plant, info, epoch, name),
        )
        self._start(session, epoch)
        return session

    def _require_scenario_possible(self, info: PlantInfo) -> None:
        scenario, plant = self._job.scenario, self._config.plant
        if scenario is None or not scenario.faults:
            return
        if Capability.FAULTS not in info.capabilities:
            raise ConfigInvalidError("--scenario", [f"{info.name} offers no faults, so {scenario.name} cannot be run"])
        if self._job.dry_run and info.real_time:
            problem = f"{scenario.name} injects faults into {info.name}, and a dry run acts on nothing: leave one out"
            raise ConfigInvalidError("--scenario", [problem])
        if not plant.fault_injection_allowed:
            raise ConfigInvalidError(
                "--scenario",
                [f"{scenario.name} injects faults into {info.name}: allow it with --allow-fault-injection"],
            )

    def _clear_up(self, plant: Plant, info: PlantInfo, epoch: int, name: str) -> bool:
        """Undo what earlier runs left at this plant, if anything; what is left at others waits for a run on those."""
        cleared = False
        for left in self._left:
            if left.plant != info.name:
                self._console.say(f"run {left.number} may have left something at {left.plant}: govern that to clear up")
                continue
            cleared |= aftermath.clear_up_after(
                left,
                plant,
                self._console.say,
                data_dir=self._job.data_dir,
                epoch=epoch,
                name=name,
                dry_run=self._job.dry_run,
            )
        return cleared

    def _start(self, session: Session, epoch: int) -> None:
        facts = {
            "plant": session.info.name,
            "real_time": session.info.real_time,
            "system": session.info.system,
            "seed": self._record.seed,
            "scenario": self._record.scenario,
            "config_sha256": fingerprint(self._config),
            "dry_run": self._job.dry_run,
            "ticks": self._config.schedule.ticks,
        }
        session.loop.tell(Started(epoch, session.info.capabilities, facts))

    def _lifecycle(self, session: Session, world: Plant) -> Ticking[None]:
        """Phases I to III, the governing window, Phase IV; ends early where a phase does not pass."""
        faults = ScenarioFaults(session, self._job.scenario, world)
        for phase, checks in (
            (Phase.PHASE_I, initialization),
            (Phase.PHASE_II, transactions),
            (Phase.PHASE_III, field_security),
        ):
            self._console.phase_started(phase)
            try:
                result = yield from faults.during(phase, checks(session))
            except RecordingEndedError as ended:
                self._progress.undecided.append(f"{ended}, before {phase} was over")
                return
            self._describe(session)
            self._ended(result)
            session.loop.tell(PhaseEnded(result))
            if result.verdict is not PhaseVerdict.PASSED:
                faults.end()
                return
        if self._config.plant.kind == "replay":
            # What is recorded is looked at to its end nevertheless; a verdict needs the ledger.
            self._progress.undecided.append("a recording shows no ledger: its required checks were skipped")
        self._console.phase_started(Phase.GOVERNING, self._config.schedule.ticks)
        crash.fire_drill()
        yield from faults.during(Phase.GOVERNING, self._govern(session))
        self._console.phase_started(Phase.PHASE_IV)
        self._ended((yield from improvement(session, self._job.report_dir / PROPOSALS, self._job.command)))
        self._progress.unhealthy = session.loop.unhealthy()
        faults.end()

    def _ended(self, result: PhaseResult) -> None:
        self._progress.phases.append(result)
        self._record.phases.append(result)
        self._console.phase_ended(result)

    def _describe(self, session: Session) -> None:
        topology: Topology | None = session.loop.topology
        if topology is not None:
            self._record.nodes, self._record.clusters = len(topology.nodes), len(topology.clusters)

    def _govern(self, session: Session) -> Ticking[None]:
        """The governing window, and after it the time that what is in flight gets to settle."""
        try:
            for _ in range(self._config.schedule.ticks):
                yield
        except RecordingEndedError as ended:
            self._console.say(f"{ended}, and with it the governing window")
        session.loop.tell(WindowClosing())
        state = session.loop.governor.state
        for _ in range(self._config.schedule.settle_max):
            if not state.intents and state.trial is None:
                break
            yield
        self._progress.undecided += [f"{i.kind} of {i.node} never verified" for i in state.intents.values()]
        session.loop.tell(WindowEnded())
        while state.trial is not None:
            yield  # it is being rolled back, and the window ends with that
        if state.phase is Phase.GOVERNING:
            session.loop.tell(WindowEnded())

    def _conclude(self, errors: list[BaseException]) -> None:
        """Close the telemetry and journal the outcome; what fails at that has its say in the outcome, too."""
        self._record.wall_s = self._clock.monotonic_s() - self._started_s
        with _kept(errors):
            if self._sinks is not None:
                self._sinks.flush()
        self._record.outcome = decide(self._facts(errors))
        if self._loop is None:
            return
        with _kept(errors):
            self._loop.tell(Ended(self._record.outcome))
        self._record.outcome = decide(self._facts(errors))
        state = self._loop.governor.state
        self._record.still_isolated = tuple(
            (node, state.nodes[node].until_s) for node in sorted(state.out_of_service()) if node in state.nodes
        )

    def _facts(self, errors: Sequence[BaseException]) -> Facts:
        progress, undecided, driver = self._progress, list(self._progress.undecided), self._driver
        if driver is not None and driver.overdue:
            undecided.append(f"the deadline of {self._config.schedule.deadline_s:g} s has passed (--deadline)")
        ended = driver is not None and driver.done and not errors and self._signal is None and not driver.overdue
        governor = self._loop.governor if self._loop is not None else None
        reached_the_end = ended and any(result.phase is Phase.PHASE_IV for result in progress.phases)
        return Facts(
            phases=tuple(progress.phases),
            errors=tuple(errors),
            signal=self._signal,
            undecided=tuple(undecided),
            safe_mode=governor.state.safe_mode if governor and reached_the_end else None,
            blocked=governor.blocked() if governor and reached_the_end else (),
            unhealthy=progress.unhealthy if reached_the_end else (),
        )

    def _write_down(self, errors: list[BaseException]) -> Finished:
        """The report, and for a bug the file to report it with; a report that cannot be written is a failure itself."""
        tip = (self._journal.tip.seq, self._journal.tip.hash)
        record, proposals = self._record, self._record.proposals
        paths: list[Path] = []
        with _kept(errors):
            self._write_textfile()  # before the report, which is to tell if it fails
        with _kept(errors):
            clear(self._job.report_dir / PROPOSALS, but={str(proposal["id"]) for proposal in proposals})
        record.outcome = decide(self._facts(errors))
        with _kept(errors):
            paths = report.write(
                record,
                self._job.report_dir,
                journal_tip=tip,
                proposals=proposals,
                run=self._number,
                data_dir=self._job.data_dir,
            )
        reported, outcome = record.outcome, decide(self._facts(errors))
        record.outcome = outcome
        if outcome.code is not reported.code:
            with _kept(errors):
                self._write_textfile()
        self._push()
        document = report.document(record, journal_tip=tip, proposals=proposals)
        self._console.finish(record, paths)
        bugs = crash.bugs(errors)
        if bugs:
            where = crash.write(self._job.report_dir, bugs)
            self._console.say(f"internal error, which is a bug: please report it with {where}")
        return Finished(outcome, document, tuple(paths))

    def _write_textfile(self) -> None:
        if self._job.last_scrape.textfile is not None:
            self._job.last_scrape.write(self._snapshot(), self._plant_clock.monotonic_s)

    def _push(self) -> None:
        if self._job.last_scrape.pushgateway is not None:
            failure = self._job.last_scrape.push(
                self._snapshot(), self._plant_clock.monotonic_s, plant=self._record.plant
            )
            if failure is not None:
                self._console.say(f"not pushed: {failure}")

    def _snapshot(self) -> ExportSnapshot:
        loop, sinks = self._loop, self._sinks
        return snapshot(
            self._meter,
            self._record,
            Bounds(self._config.prometheus.node_series_max, self._config.gravity.critical),
            state=None if loop is None else loop.governor.state,
            assessment=None if loop is None else loop.assessment,
            parameters=None if loop is None else loop.parameters,
            stores={} if sinks is None else sinks.accounts(),
            journal_events=self._journal.tip.seq,
            journal_failures=self._journal.failures,
            leader=True,
        )


@contextmanager
def _kept(errors: list[BaseException]) -> Iterator[None]:
    """Keep what goes wrong while this is entered: it decides the exit code, and the rest is still to be done."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as the docstring says
        errors.append(error)


def _in_real_time(driver: Driver[None], tick: Callable[[], None], interval_s: float) -> None:
    from controller.scheduler import Job, JobScheduler  # noqa: PLC0415 - a virtual run need not wait for its import

    with JobScheduler([Job(TICK, tick, interval_s)]):
        while not driver.wait(timeout_s=min(interval_s, WAKE_S)) and not driver.stopping:
            pass
    driver.tick()  # after a signal: whatever was under way has ended, and the next scheduled tick may be far
