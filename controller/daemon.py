"""The daemon: a controller that is left alone with its plant for months.

Everything that decides happens in one thread at a time: whoever has the turn. A tick takes it, a command waits for it.
Questions are answered from the view that the last turn left behind, so nobody who asks can hold a tick up.

What can go wrong has its place here. A plant that does not answer is tried again, and lost after a while, which is an
event. A breach of an invariant is a hold: the state is rebuilt from the journal, which knows nothing of the breach. A
journal that cannot be written, or a bug, ends the daemon with its exit code; the next start goes on where it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from controller import daemon_report, logs, report, rundir
from controller.answers import Answers
from controller.assembly import assessor, governor_settings, retention
from controller.clock import SystemClock
from controller.config import DEFAULT_FILE, fingerprint
from controller.console import RunConsole
from controller.daemon_view import View
from controller.explanations import Explanations
from controller.governed import Governed
from controller.meter import TICK, Meter
from controller.plant_time import PlantTime
from controller.port import COMMAND_WAIT_S, BusyError, Commanded, FailedError, TurnError
from controller.proposals import ProposalFailedError, write, written
from controller.record import Recorded, RunRecord
from controller.reload import changed, fixed
from controller.settings import Config
from controller.snapshot import Bounds, snapshot
from controller.stays import Stays
from metrics.errors import (
    ConfigInvalidError,
    IaceError,
    InvariantBreachError,
    NotLeaderError,
    PlantError,
    PlantUnavailableError,
)
from metrics.export_snapshot import ExportSnapshot
from metrics.observation import Capability
from metrics.store.sqlite import SqliteStore
from metrics.store_writer import NS_PER_S
from state import stimulus as told
from state.action import Reply
from state.command import Command, Isolate, Restore
from state.decision import Answer, Decision
from state.governor import Governor
from state.isolation import Refusal
from state.journal import Entry, Journal
from state.lease import DirectoryLease
from state.outcome import ExitCode
from state.phase import Phase
from state.recovery import Recovered, recover

CONNECT_BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
TRIM_TICKS = 3600  # what reports look back on
SNAPSHOT_EVENTS = 10_000
METRICS_EVERY_S = 0.25
ANCHOR_SLACK_S = 2.0

_log = logging.getLogger(f"iace.{__name__}")


class _DaemonRecord(RunRecord):
    """A record that also keeps the values of the latest refusals, for those who ask."""

    explanations: Explanations

    def refuse(self, refusals: Sequence[Refusal]) -> None:  # type: ignore[override]  # a decision's are a tuple
        """Take refusals in."""
        super().refuse(refusals)
        self.explanations.add(refusals)


class Daemon(Answers):
    """Governs one plant until it is told to stop; implements `controller.port.Port`.

    Args:
        config: the configuration in force.
        load_config: reads the configuration again.
        data_dir: of all runs; the daemon's own files are in `directory`.
        lease: on the data directory, held by the caller.
        directory: journal, telemetry and proposals.
        journal: open, and replayed by `recovered`.
        recovered: what the journal told.
        console: who is told about progress.
        dry_run: assess and report, act on nothing.
        config_file: what `load_config` reads, for those who are to change a setting.

    Attributes:
        error: what ended it, if something did.
        ended: set when it cannot go on.
    """

    def __init__(
        self,
        config: Config,
        load_config: Callable[[], Config],
        *,
        data_dir: Path,
        lease: DirectoryLease,
        directory: Path,
        journal: Journal,
        recovered: Recovered,
        console: RunConsole,
        dry_run: bool,
        config_file: Path = DEFAULT_FILE,
    ) -> None:
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self._config = config
        self._load_config = load_config
        self._config_file = config_file
        self._data_dir = data_dir
        self._lease = lease
        self._console = console
        self._dry_run = dry_run
        self._turn = threading.Lock()
        self._clock = SystemClock()
        store = SqliteStore(directory / rundir.TELEMETRY, retention(config))
        self._time = PlantTime(_resumed_s(recovered, store))
        self._settings = governor_settings(config, dry_run=dry_run, daemon=True)
        self._governor = Governor(self._settings, recovered.state)
        self._snapshots = list(recovered.snapshots)
        explanations = Explanations()
        super().__init__(self._new_record(journal, explanations), explanations, journal, directory)
        self._meter = Meter(self._record.catalogue)
        self._stays = Stays(
            data_dir,
            store,
            journal,
            self._governor,
            self._record,
            self._meter,
            self._telemetry,
            self._time,
            console,
            dry_run,
            self._clock,
        )
        self._stays.set_out(config)
        self._governed: Governed | None = None
        self._tries, self._next_try_s, self._lost, self._unreached = 0, 0.0, False, ""
        self._last_seen_s = self._clock.monotonic_s()
        self._base_time_s = time.time() - self._time.now_s
        self._refused_requests: dict[str, int] = {}
        self._refused_lock = threading.Lock()
        self._metrics: ExportSnapshot = self._snapshot()
        self._metrics_s = 0.0
        self._view = self._look(None)

    # What the outside wants done: see the port. What it asks is in `Answers`.

    @property
    def embedded_host(self) -> object | None:
        """The cluster behind an embedded plant, whose own routes can be served beside ours; None for any other."""
        return self._stays.host

    def command(self, command: Command, *, by: str, reason: str, key: str | None) -> Commanded:
        """Let an operator's command be decided, journaled and begun."""
        with self._having_turn(COMMAND_WAIT_S):
            commanded = told.Commanded(command, by, reason, key, self._objection(command))
            governed = self._governed
            decision, replies = (self._tell(commanded), ()) if governed is None else governed.loop.obey(commanded)
            answer = self._put_right(commanded, decision, replies)
            tip = self._journal.tip
            return Commanded(answer, tip.seq, tip.hash)

    def reload(self, *, by: str) -> Answer:
        """Read the configuration again; an invalid one changes nothing and is reported."""
        try:
            new = self._load_config()
        except ConfigInvalidError as invalid:
            return Answer(accepted=False, text=f"nothing is changed: {invalid}")
        names = changed(self._config, new)
        stuck = [name for name in names if fixed(name)]
        if stuck:
            return Answer(accepted=False, text=f"nothing is changed: {', '.join(stuck)} need a restart")
        with self._having_turn(COMMAND_WAIT_S):
            if not names:
                self._settle_settings(by)  # of a proposal that was approved when its settings were in force already
                return Answer(accepted=True, text="nothing has changed")
            self._config = new
            self._settings = governor_settings(new, dry_run=self._dry_run, daemon=True)
            self._record.catalogue = new.catalogue()
            self._record.new_limits()
            if any(name.startswith("log.") for name in names):
                logs.set_up(new.log)
            self._governor.configure(self._settings)
            self._tell(told.ConfigReloaded(fingerprint(new), names, by, self._stays.monotonic_s()))
            if self._governed is not None:
                self._governed.reconfigure(new, assessor(new), self._settings.isolation)
            self._settle_settings(by)
        return Answer(accepted=True, text=f"in force now: {', '.join(names)}; every node is confirmed afresh")

    def refuse_request(self, why: str) -> None:
        """Count a request that was turned away."""
        with self._refused_lock:
            self._refused_requests[why] = self._refused_requests.get(why, 0) + 1

    def live(self) -> bool:
        """Whether ticks are being made: the plant may be away, but the clock must not stand."""
        return not self.ended.is_set() and self._clock.monotonic_s() - self._view.looked_s < self._dead_s()

    # What the schedule calls.

    def tick(self) -> None:
        """Look at the plant, decide and act; never raises."""
        with suppress(TurnError), self._having_turn():
            began_s = self._clock.monotonic_s()
            try:
                self._advance()
            finally:
                self._meter.ticks.add(self._clock.monotonic_s() - began_s)

    def scheduled_tick(self, interval_s: float) -> Callable[[], None]:
        """`tick`, watched for how late it begins and how many points of its grid it misses."""
        return self._meter.scheduled(self.tick, interval_s, self._clock)

    def missed(self, job: str) -> None:
        """A job's turn came while it was still running. Ticks are not counted here: the meter watches their grid."""
        if job != TICK:
            self._meter.ticks_missed[job] = self._meter.ticks_missed.get(job, 0) + 1

    def check_lease(self) -> None:
        """End where the data directory is no longer ours: two controllers over one journal would destroy it."""
        if not self._lease.held():
            with suppress(TurnError), self._having_turn():
                raise NotLeaderError(f"the lock of {self._data_dir} is gone: another controller may be there")

    def flush(self) -> None:
        """Write what is buffered for the store."""
        with self._turn:
            if self._stays.sinks is not None:
                self._stays.sinks.writer.flush()

    def keep_house(self) -> None:
        """Sum up refused requests, trim what is in memory, take a snapshot of a journal that has grown."""
        with self._refused_lock:
            counts, self._refused_requests = self._refused_requests, {}
        with suppress(TurnError), self._having_turn():
            if counts:
                self._tell(told.RequestsRefused(counts))
            self._record.trim(TRIM_TICKS)
            self._snapshot_when_due()

    def write_report(self, directory: Path) -> None:
        """Write the report and new proposals as of now; what cannot be written is told, and tried again.

        A daemon that has ended proposes nothing: it can journal nothing any more.
        """
        with self._turn:
            loop = None if self._governed is None else self._governed.loop
            unhealthy, topology = ((), None) if loop is None else (loop.unhealthy(), loop.topology)
            record = daemon_report.frozen(self._record, self._governor, unhealthy, topology)
            tip = (self._journal.tip.seq, self._journal.tip.hash)
            situation = daemon_report.situation(
                record,
                self._governor,
                self._config,
                loop,
                now_s=self._time.now_s,
                journal_tip=tip,
                telemetry=self._directory / rundir.TELEMETRY,
                settable=self._governed is not None and self._governed.session.offers(Capability.PARAMETERS),
                config_file=self._config_file,
            )
            if self._stays.sinks is not None:
                self._stays.sinks.writer.flush()
        proposals_dir = self._directory / rundir.PROPOSALS
        try:
            # Settings are rehearsed on what was recorded, which takes a while: not in anybody's turn.
            if not self.ended.is_set():
                earlier = [daemon_report.remembered(item) for item in self._each_proposal()]
                self._keep_proposals(daemon_report.new_proposals(record, situation, earlier))
            each = self._each_proposal()
            record.proposals = [dict(item) for item in each if item["status"] == "proposed" and item["intact"]]
            report.write(
                record,
                directory,
                journal_tip=tip,
                proposals=record.proposals,
                proposals_dir=proposals_dir,
                run=rundir.DAEMON,
                data_dir=self._data_dir,
            )
        except IaceError as error:
            self._console.say(f"the report was not written: {error}")
        except Exception as bug:  # noqa: BLE001 - see the next line
            # A report is told from what has happened and decides nothing: the governing goes on without.
            _log.exception("the report was not written")
            self._console.say(f"the report was not written, which is a bug: {type(bug).__name__}: {bug}")

    def _keep_proposals(self, new: Sequence[Mapping[str, object]]) -> None:
        failed: ProposalFailedError | None = None
        # Files are written in the turn in which they are journaled: a stop that came first leaves none behind.
        with suppress(TurnError), self._having_turn():
            try:
                write(new, self._directory / rundir.PROPOSALS)
            except ProposalFailedError as error:
                failed = error  # costs the report, and not the governing
            else:
                for proposal in new:
                    self._tell(written(proposal))
        if failed is not None:
            raise failed

    def _settle_settings(self, by: str) -> None:
        for brought in daemon_report.brought(self._governor.state, self._config, by):
            self._tell(brought)

    def stop(self, code: ExitCode, reason: str) -> None:
        """Stop in good order: the plant is left as it is, the journal says so."""
        with self._turn:
            if self._governed is not None and self._governed.checks is not None:
                self._governed.abandon()
            if self.error is None:
                self._try(lambda: self._tell(told.Stopped(int(code), reason)))
            self.ended.set()
            self._try(self._stays.close)
            self._telemetry.close()

    # How a turn goes.

    def _advance(self) -> None:
        governed = self._governed if self._governed is not None else self._connect()
        if governed is None:
            return
        if governed.loop.governor.state.probes and governed.checks is None:
            governed.undo_probes()
        for seen in governed.loop.tick():
            self._last_seen_s, self._tries = self._clock.monotonic_s(), 0
            governed.advance(seen)
            self._last_seen_s = self._clock.monotonic_s()  # what took long here was not the plant's silence
        self._anchor()
        if self._is_silent(governed):
            raise PlantUnavailableError(f"the plant made no new tick for {self._patience_s(governed):g} s")

    def _anchor(self) -> None:
        """Plant seconds need not be as long as ours: keep the present where the wall clock has it, give or take."""
        base_s = time.time() - self._time.now_s
        if abs(base_s - self._base_time_s) > ANCHOR_SLACK_S:
            self._base_time_s = base_s

    def _connect(self) -> Governed | None:
        """Reach the plant, if it is time to try."""
        if self._clock.monotonic_s() < self._next_try_s:
            return None
        self._governed = self._stays.arrive(self._config, again=self._lost)
        self._lost, self._last_seen_s = False, self._clock.monotonic_s()
        self._anchor()
        self._settle_settings("a restart")
        return self._governed

    def _silent(self, silence: PlantError) -> None:
        """No answer: try again, and after a while give the stay up."""
        if self._governed is None:
            if str(silence) != self._unreached:
                self._unreached = str(silence)
                self._console.say(f"{silence}; trying again until it answers")
        elif self._is_silent(self._governed):
            self._console.say(f"the plant is lost: {silence}")
            self._governed.checks = None
            self._try(lambda: self._tell(told.PlantLost(str(silence))))
            self._governed, self._lost, self._unreached = None, True, str(silence)
        else:
            return
        # A plant that answers, and then makes no tick, is tried no more often than one that does not answer.
        wait_s = CONNECT_BACKOFF_S[min(self._tries, len(CONNECT_BACKOFF_S) - 1)]
        self._tries, self._next_try_s = self._tries + 1, self._clock.monotonic_s() + wait_s

    def _is_silent(self, governed: Governed) -> bool:
        return self._clock.monotonic_s() - self._last_seen_s > self._patience_s(governed)

    def _patience_s(self, governed: Governed) -> float:
        return governed.session.info.patience_s(self._config.plant.unavailable_s)

    def _breached(self, breach: InvariantBreachError) -> None:
        """Hold: the journal knows nothing of what was wrong, so the state is what it says, and then SAFE_MODE."""
        _log.error("%s", breach)
        self._console.say(f"{breach}: this is a bug; holding in SAFE_MODE")
        self._governed = None
        self._try(lambda: self._hold(breach))

    def _hold(self, breach: InvariantBreachError) -> None:
        state = self._governor.state
        state.become(recover(self._journal, daemon=True).state)
        self._governor.configure(self._settings)
        if not state.phase.final and state.phase is not Phase.IDLE:
            self._tell(told.InvariantBroken(breach.invariant, breach.detail))

    def _end(self, error: BaseException) -> None:
        self.error = error
        self.ended.set()

    def _tell(self, stimulus: told.Stimulus) -> Decision:
        """Tell the governor something, with or without a plant at hand."""
        if self._governed is not None:
            return self._governed.loop.tell(stimulus)
        decision = self._governor.step(stimulus, self._time.now_s)
        self._stays.keep(decision.events)
        self._record.refuse(decision.refusals)
        # Without a plant nothing can be carried out; what was intended is unknown, and looked for when it is back.
        return decision

    def _put_right(self, commanded: told.Commanded, decision: Decision, replies: Sequence[told.Replied]) -> Answer:
        """The answer to a command, which is journaled before its action is carried out: that may have been refused."""
        answer = decision.answer
        if isinstance(commanded.command, Isolate | Restore):  # what a pause takes back says nothing about the pause
            for replied in replies:
                if replied.reply in (Reply.REFUSED, Reply.VOID):
                    answer = self._tell(replace(commanded, failed=replied.reason)).answer
                elif replied.reply is Reply.UNKNOWN and answer is not None:
                    answer = replace(answer, text=f"{answer.text}; the plant has not confirmed it yet")
        if answer is None:
            raise RuntimeError("a command without an answer")
        return answer

    def _try(self, action: Callable[[], object]) -> None:
        """Do something at the end of things; what fails then has its say in the exit code."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - as the docstring says
            if self.error is None:
                self._end(error)

    @contextmanager
    def _having_turn(self, wait_s: float = -1.0) -> Iterator[None]:
        """Have the turn, after waiting for it for at most `wait_s`; what goes wrong in it has its consequence here.

        Raises:
            BusyError: the turn did not come.
            FailedError: what was to be done in it went wrong.
        """
        if not self._turn.acquire(timeout=wait_s):
            raise BusyError(f"the daemon has been busy for {wait_s:g} s: try again")
        try:
            if self.ended.is_set():
                raise BusyError("the daemon is stopping")
            try:
                yield
            except Exception as error:
                self._answer(error)
                raise FailedError(str(error)) from error
            finally:
                self._leave_view(at_once=self.ended.is_set())
        finally:
            self._turn.release()

    def _answer(self, error: Exception) -> None:
        if isinstance(error, PlantError):
            self._silent(error)
        elif isinstance(error, InvariantBreachError):
            self._breached(error)
        else:
            self._end(error)

    # What a turn leaves behind.

    def _leave_view(self, *, at_once: bool = False) -> None:
        self._view = self._look(self._view)
        now_s = self._clock.monotonic_s()
        if at_once or now_s - self._metrics_s >= METRICS_EVERY_S:
            self._metrics, self._metrics_s = self._snapshot(), now_s

    def _look(self, last: View | None) -> View:
        loop = None if self._governed is None else self._governed.loop
        tip = (self._journal.tip.seq, self._journal.tip.hash)
        return View(
            # The durable state changes by events only, and is as large as the cluster.
            plain=last.plain if last is not None and last.tip == tip else self._governor.state.as_plain(),
            tip=tip,
            now_s=self._time.now_s,
            base_time_s=self._base_time_s,
            looked_s=self._clock.monotonic_s(),
            connected=loop is not None,
            plant=self._record.plant,
            system=self._record.system,
            assessment=None if loop is None else loop.assessment,
            parameters=None if loop is None else loop.parameters,
            policy=self._settings.isolation,
            dry_run=self._dry_run,
            refusals=dict(self._explanations.totals),
        )

    def _snapshot(self) -> ExportSnapshot:
        loop = None if self._governed is None else self._governed.loop
        return snapshot(
            self._meter,
            self._record,
            Bounds(self._config.prometheus.node_series_max, self._config.gravity.critical),
            state=self._governor.state,
            assessment=None if loop is None else loop.assessment,
            parameters=None if loop is None else loop.parameters,
            stores=self._stays.accounts(),
            journal_events=self._journal.tip.seq,
            journal_failures=self._journal.failures,
            leader=not isinstance(self.error, NotLeaderError),
        )

    def _snapshot_when_due(self) -> None:
        last = self._snapshots[-1] if self._snapshots else 0
        if self._journal.tip.seq - last < SNAPSHOT_EVENTS or self._governor.state.phase is Phase.IDLE:
            return
        self._tell(told.SnapshotDue())
        self._snapshots.append(self._journal.tip.seq)
        kept = self._config.journal.snapshots_kept
        if len(self._snapshots) > kept:
            self._journal.forget_before(self._snapshots[-kept])
            del self._snapshots[:-kept]

    # What is made from the configuration.

    def _new_record(self, journal: Journal, explanations: Explanations) -> RunRecord:
        record = _DaemonRecord(
            run_id=journal.noted("run_name") or "govern",
            plant=self._config.plant.kind,
            system="unknown",
            nodes=0,
            clusters=0,
            seed=self._config.plant.seed,
            scenario="none",
            ticks=0,
            dry_run=self._dry_run,
            catalogue=self._config.catalogue(),
            wall_started=self._clock.wall(),
            events=[Recorded(entry.seq, entry.hash, entry.event) for entry in _latest(journal)],
        )
        record.explanations = explanations
        return record

    def _dead_s(self) -> float:
        plant = self._config.plant
        return 3 * self._config.schedule.interval_s + plant.deadline_s + plant.connect_s + plant.unavailable_s


def _latest(journal: Journal) -> Iterator[Entry]:
    """As many of the journal's entries as a record holds: what happened before a restart is not forgotten by it."""
    return journal.entries(max(1, journal.tip.seq - TRIM_TICKS + 1))


def _resumed_s(recovered: Recovered, store: SqliteStore) -> float | None:
    """Where time goes on: after the last event and the newest telemetry, whichever is later."""
    newest = store.latest("kpi.coherence")
    known = [s for s in (recovered.at_s, None if newest is None else newest.at_ns / NS_PER_S) if s is not None]
    return max(known, default=None)
