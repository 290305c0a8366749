"""The daemon, ticked by hand over an embedded plant: it governs, is steered, and forgets nothing."""

import json
import logging
import threading
from dataclasses import replace
from types import SimpleNamespace

import jsonschema
import pytest

from controller import config as configuration
from controller import daemon as daemon_module
from controller import daemon_report, rundir
from controller.console import RunConsole
from controller.daemon import Daemon
from controller.governed import Governed
from controller.plants.embedded import EmbeddedPlant
from controller.port import BusyError, FailedError
from metrics.errors import (
    ConfigInvalidError,
    InvariantBreachError,
    NotPermittedError,
    PlantRefusedError,
    PlantUnavailableError,
    StoreFailedError,
)
from metrics.observation import Parameters
from state import command as asked
from state.decision import Draft
from state.durable import DurableState, replay
from state.event import Event, EventKind
from state.journal import Journal
from state.lease import DirectoryLease
from state.machine import PhaseMachine
from state.nodes import Licence
from state.outcome import ExitCode, code_of
from state.phase import Phase
from state.recovery import recover
from state.stimulus import ProposalWritten

E = EventKind
BYZANTINE = {"id": "bad", "kind": "byzantine", "nodes": ["node-0003"]}


class Governing:
    """A daemon in a directory; `restart` is what a new process does after the old one is gone."""

    dry_run = False

    def __init__(self, directory, **overrides):
        self.directory, self.overrides = directory, {"nodes": 12, "seed": 3, **overrides}
        self.lease = DirectoryLease(directory)
        self.lease.__enter__()
        self.start()

    def load(self):
        return configuration.load(None, {"plant": self.overrides})

    def start(self):
        self.journal = Journal(self.directory / "govern" / "journal.db")
        config = self.load()
        self.console = RunConsole(config.catalogue())
        self.daemon = Daemon(
            config,
            self.load,
            data_dir=self.directory,
            lease=self.lease,
            directory=self.directory / "govern",
            journal=self.journal,
            recovered=recover(self.journal, daemon=True),
            console=self.console,
            dry_run=self.dry_run,
        )

    def die(self):
        """As by kill -9: nobody is told; the files are let go of, as the operating system does."""
        self.daemon._stays.store.close()
        self.journal.close()

    def restart(self):
        self.die()
        self.start()

    def ticks(self, count):
        for _ in range(count):
            self.daemon.tick()
        assert self.daemon.error is None, self.daemon.error

    def until(self, reached, ticks_max=700):
        for _ in range(ticks_max):
            if reached():
                return
            self.ticks(1)
        pytest.fail(f"not reached in {ticks_max} ticks: {self.daemon.state()}")

    def governing(self):
        """In GOVERNING, with evidence of every node: the phases were passed by an earlier process."""
        if self.phase is Phase.IDLE:
            done = [Event(E.PHASE_PASSED, 0.0, {"phase": phase, "checks": {}}) for phase in Phase if "PHASE" in phase]
            events = [Event(E.RUN_STARTED, 0.0, {"epoch": 1}), *done[:3]]
            self.journal.append(events, epoch=1, wall_time="2030-01-01T00:00:00Z")
            self.restart()
            self.ticks(30)
        return self

    def inject(self, fault=BYZANTINE):
        self.daemon._stays.plant._plant.inject(fault, key=f"test-{fault['id']}", epoch=self.daemon.state()["epoch"])

    def tell(self, command, key=None, reason="because", by="ann"):
        return self.daemon.command(command, by=by, reason=reason, key=key).answer

    def node(self, name="node-0003"):
        (found,) = [node for node in self.daemon.nodes() if node["node"] == name]
        return found

    def kinds(self):
        return [entry.event.kind for entry in self.journal.entries()]

    @property
    def phase(self):
        return Phase(self.daemon.state()["phase"])

    def live_equals_journal(self):
        """The live durable state is what the journal gives, byte for byte."""
        replayed = recover(self.journal, daemon=True).state
        assert replayed.snapshot() == self.daemon._governor.state.snapshot()


@pytest.fixture
def governed(tmp_path):
    made = Governing(tmp_path)
    yield made
    if not made.daemon.ended.is_set():
        made.daemon.stop(ExitCode.TERMINATED, "the test is over")
    made.journal.close()
    made.lease.__exit__(None, None, None)


def test_it_passes_the_phases_and_governs(governed):
    """From IDLE through phases I to III to GOVERNING, after which it is ready and stays."""
    assert governed.daemon.not_ready() == ["the plant is not connected", "IDLE is not over"]
    governed.until(lambda: governed.phase is Phase.GOVERNING)
    assert governed.daemon.not_ready() == []
    passed = [e.event.data["phase"] for e in governed.journal.entries() if e.event.kind is E.PHASE_PASSED]
    assert passed == ["PHASE_I", "PHASE_II", "PHASE_III"]
    governed.live_equals_journal()


def test_a_bad_node_is_isolated_and_explained(governed):
    """A byzantine node is isolated and verified, and `explain` tells why, and why it stays out."""
    governed.governing().inject()
    governed.until(lambda: governed.node()["status"] == "isolated", 60)
    told = governed.daemon.explain("node-0003")
    assert told["node"]["why"].startswith("isolated by policy")
    assert [e["kind"] for e in told["events"]][-3:] == [
        "GRAVITY_WELL_CONFIRMED",
        "ISOLATION_INTENDED",
        "ISOLATION_VERIFIED",
    ]
    assert governed.daemon.explain("nobody") is None
    seq = told["events"][-1]["seq"]
    event = governed.daemon.explain(str(seq))
    assert event["event"]["text"] == "node-0003 is isolated, as the plant shows"
    assert governed.daemon.explain("999999") is None
    governed.live_equals_journal()


def test_a_restart_goes_on_where_it_was(governed):
    """After a kill the same node is known to be out, time goes on, and the epoch is higher."""
    governed.governing().inject()
    governed.until(lambda: governed.node()["status"] == "isolated", 60)
    before, epoch = governed.daemon.state()["plant_time_s"], governed.daemon.state()["epoch"]
    told = governed.daemon.explain("node-0003")["events"]
    assert "GRAVITY_WELL_CONFIRMED" in [event["kind"] for event in told]
    governed.restart()
    assert governed.daemon.explain("node-0003")["events"] == told
    assert governed.daemon.state()["plant_time_s"] >= before - 20  # what had not been flushed is lost, no more
    assert governed.daemon.state()["phase"] == "GOVERNING"
    governed.ticks(1)
    assert governed.daemon.state()["epoch"] == epoch + 1
    # The embedded plant died with its controller: the new one shows the node taking part, which is an event.
    assert governed.kinds()[-2:] == [E.RESTARTED, E.ISOLATION_EXPIRED]
    assert governed.node()["status"] == "probation"
    assert governed.node()["offences"] == 1
    governed.live_equals_journal()


def test_pause_starts_nothing_and_resume_goes_on(governed):
    """While paused a bad node is only looked at; after resuming it is isolated, with fresh counters."""
    governed.governing()
    assert governed.tell(asked.Pause(3600.0)).accepted
    assert governed.phase is Phase.PAUSED
    governed.inject()
    governed.ticks(40)
    assert governed.node()["active"]
    assert {item["guard"] for item in governed.daemon.explain("node-0003")["not_done"]} == {"paused"}
    answer = governed.tell(asked.Resume())
    assert answer.accepted
    assert answer.text == "resumed in GOVERNING; every node is confirmed afresh"
    governed.until(lambda: governed.node()["status"] == "isolated", 10)
    governed.live_equals_journal()


def test_a_pause_expires_also_over_a_restart(governed):
    """A pause survives a restart and ends by itself when its time has passed."""
    governed.governing()
    governed.tell(asked.Pause(50.0))
    governed.restart()
    governed.ticks(2)
    assert governed.phase is Phase.PAUSED
    governed.ticks(80)
    assert governed.phase is Phase.GOVERNING
    assert E.RESUMED in governed.kinds()


def test_a_pause_in_phase_iii_takes_the_probe_back(governed):
    """Pausing while the dissonance is injected ends the fault, lets the node in, and then is acknowledged."""
    governed.until(lambda: governed.daemon._governor.state.probes.get("dissonance") is not None)
    governed.ticks(2)
    governed.tell(asked.Pause(3600.0))
    governed.ticks(2)
    assert governed.phase is Phase.PAUSED
    assert governed.daemon._stays.plant._plant.host.cluster.faults == ()
    governed.tell(asked.Resume())
    assert governed.phase is Phase.PHASE_III
    governed.until(lambda: governed.phase is Phase.GOVERNING)
    governed.live_equals_journal()


def test_the_same_key_is_the_same_command(governed):
    """A repeated key gets the first answer and does nothing again; with another content it is refused."""
    governed.governing()
    first = governed.tell(asked.Isolate("node-0001"), key="k1")
    assert first.accepted
    again = governed.tell(asked.Isolate("node-0001"), key="k1")
    assert (again.accepted, again.text, again.repeated) == (True, first.text, True)
    other = governed.tell(asked.Isolate("node-0002"), key="k1")
    assert not other.accepted
    governed.ticks(3)
    assert governed.kinds().count(E.ISOLATION_INTENDED) == 1
    assert governed.node("node-0001")["by"] == "ann"


def refuse(_plant, node, **_):
    raise PlantRefusedError(f"isolate {node}", "no such node")


def fall_silent(_plant, _node, **_):
    raise PlantUnavailableError("no answer")


def test_a_command_that_the_plant_refuses_is_answered_with_its_refusal(governed, monkeypatch):
    """The answer is the plant's, also to a repetition and after a restart, and nobody is told of an isolation."""
    governed.governing()
    monkeypatch.setattr(EmbeddedPlant, "isolate", refuse)
    answer = governed.tell(asked.Isolate("node-0007"), key="k")
    assert (answer.accepted, answer.text) == (False, "the plant refused isolate node-0007: no such node")
    assert governed.kinds()[-4:] == [E.ISOLATION_INTENDED, E.COMMANDED, E.ACTION_REFUSED, E.COMMAND_REFUSED]
    monkeypatch.undo()
    governed.live_equals_journal()
    governed.restart()
    again = governed.tell(asked.Isolate("node-0007"), key="k")
    assert (again.accepted, again.text, again.repeated) == (False, answer.text, True)


def test_a_restoration_that_the_plant_refuses_is_answered_with_its_refusal(governed, monkeypatch):
    """Letting a node in takes the same path."""
    governed.governing()
    governed.tell(asked.Isolate("node-0007"))
    governed.ticks(2)
    monkeypatch.setattr(EmbeddedPlant, "restore", refuse)
    answer = governed.tell(asked.Restore("node-0007"))
    assert (answer.accepted, answer.text) == (False, "the plant refused isolate node-0007: no such node")
    assert governed.kinds()[-1] is E.COMMAND_REFUSED


def test_a_command_on_old_evidence_is_answered_with_that(governed, monkeypatch):
    """What is not sent, because the evidence has become too old, is not said to be done."""
    governed.governing()
    loop = governed.daemon._governed.loop
    late_s = loop._clock.monotonic_s() + 15.0
    monkeypatch.setattr(loop, "_clock", SimpleNamespace(monotonic_s=lambda: late_s, wall=loop._clock.wall))
    for repeated in (False, True):
        answer = governed.tell(asked.Isolate("node-0007"), key="k")
        assert (answer.accepted, answer.text) == (False, "not sent: the evidence was 15 s old")
        assert answer.repeated is repeated
    assert governed.daemon._stays.plant.isolated() == frozenset()


def test_a_command_without_a_reply_is_not_confirmed(governed, monkeypatch):
    """Where the plant does not answer, the command stands, and is said not to be confirmed."""
    governed.governing()
    monkeypatch.setattr(EmbeddedPlant, "isolate", fall_silent)
    answer = governed.tell(asked.Isolate("node-0007", 900.0))
    assert answer.accepted
    assert answer.text == (
        "node-0007 is to be taken out for 900 s, or until it is restored; the plant has not confirmed it yet"
    )
    assert governed.kinds()[-1] is E.ACTION_UNKNOWN


def test_after_a_refusal_the_rest_of_a_decision_is_not_sent(governed, monkeypatch):
    """Where the plant refuses an isolation, those that were decided with it are given up until it has been seen why."""
    governed.governing()
    governor, loop = governed.daemon._governor, governed.daemon._governed.loop
    monkeypatch.setattr(EmbeddedPlant, "isolate", refuse)
    draft = Draft(governor.state, loop.now_s)
    for node in ("node-0001", "node-0007"):
        licence = Licence(watching=True)
        assert governor._nodes.isolate_by_hand(draft, node, licence, by="ann", reason="both", for_s=900.0) is None
    loop.carry_out(draft.finish())
    assert [entry.event.data.get("reason") for entry in governed.journal.entries()][-2:] == [
        "the plant refused isolate node-0001: no such node",
        "not sent: the plant has refused to isolate node-0001",
    ]
    assert governed.kinds()[-2:] == [E.ACTION_REFUSED, E.ACTION_ABANDONED]
    monkeypatch.undo()
    governed.ticks(1)
    assert governed.phase is Phase.SAFE_MODE
    assert governed.daemon._stays.plant.isolated() == frozenset()
    governed.live_equals_journal()


WRITING = ("isolate", "restore", "apply", "inject", "clear", "commit")
OPEN = [
    Event(
        E.TRIAL_STARTED,
        40.0,
        {
            "trial": 1,
            "key": "apply-1",
            "from": Parameters().as_dict(),
            "to": Parameters(lambda1=0.36).as_dict(),
            "direction": "gray_box",
            "baseline": {"violation": 0.0},
            "tokens": 1.0,
        },
    ),
    Event(E.PROBE_INTENDED, 40.0, {"probe": "stress", "undo": {"clear": "f1", "restore": "node-0002"}}),
]


def test_a_dry_run_acts_on_nothing(governed, monkeypatch, capsys):
    """Whatever it finds open, what a run has left included, stays as it is; the next daemon takes it back."""
    governed.governing()
    governed.journal.append(OPEN, epoch=2, wall_time="2030-01-01T00:00:00Z")
    number, directory = rundir.make(governed.directory)
    left = Journal(directory / "journal.db")
    started = Event(E.RUN_STARTED, 0.0, {"epoch": 1, "plant": "embedded", "real_time": True})
    left.append([started, OPEN[1]], epoch=1, wall_time="2030-01-01T00:00:00Z")
    left.close()
    sent = []
    for name in WRITING:
        monkeypatch.setattr(EmbeddedPlant, name, lambda *_, name=name, **__: sent.append(name))

    governed.dry_run = True
    governed.restart()
    governed.ticks(200)
    governed.tell(asked.Pause(3600.0))
    governed.ticks(20)
    governed.restart()
    governed.ticks(1)
    assert sent == []
    assert governed.phase is Phase.HEALING
    assert list(governed.daemon._governor.state.probes) == ["stress"]
    assert not {E.ROLLBACK_INTENDED, E.PROBE_ENDED} & set(governed.kinds())
    told = capsys.readouterr().err
    assert f"run {number} may have left something at embedded; a dry run leaves it" in told
    assert "a dry run leaves as it is what it has found open: probe stress; trial 1" in told

    governed.dry_run = False
    governed.restart()
    governed.ticks(1)
    assert sorted(sent) == ["apply", "apply", "clear", "clear", "restore", "restore"]
    assert rundir.leftovers(governed.directory) == []


@pytest.mark.parametrize("forgotten", [False, True])
def test_another_plant_is_no_place_to_go_on(governed, start_qecs, monkeypatch, forgotten):
    """On the data directory of one plant another one is refused with 78, also once the journal has forgotten it."""
    governed.governing()
    if forgotten:
        governed.daemon.refuse_request("no token")
        governed.daemon.keep_house()
        monkeypatch.setattr(daemon_module, "TRIM_TICKS", 1)
    before, server = governed.kinds(), start_qecs(12)
    governed.overrides.update(kind="http", url=server.url)
    governed.restart()
    governed.daemon.tick()
    assert code_of(governed.daemon.error) is ExitCode.CONFIG_INVALID
    assert f"is about embedded, and {server.url} is another plant" in str(governed.daemon.error)
    assert governed.kinds() == before
    governed.daemon.stop(ExitCode.TERMINATED, "the test is over")


def test_the_same_plant_may_be_written_in_another_way(governed, start_qecs):
    """A slash at the end of its URL, or capitals, make no other plant of it."""
    server = start_qecs(12)
    governed.overrides.update(kind="http", url=server.url)
    governed.restart()
    governed.governing()
    governed.overrides["url"] = f"{server.url.replace('http', 'HTTP')}/"
    governed.restart()
    governed.ticks(1)
    assert governed.kinds()[-1] is E.RESTARTED


def test_an_operator_cannot_exceed_the_budget(governed):
    """Isolations by hand pass the same guards as the policy's."""
    governed.governing()
    answers = [governed.tell(asked.Isolate(f"node-{i:04}")) for i in range(12)]
    governed.ticks(2)
    out = sum(not node["active"] for node in governed.daemon.nodes())
    assert out <= 3  # 30 % of 12
    assert sum(answer.accepted for answer in answers) == out
    assert {answer.guard for answer in answers if not answer.accepted} <= {
        "budget_cluster",
        "budget_fraction",
        "rate_limit",
        "in_flight",
        "action_in_flight",
    }


def test_a_plant_that_is_away_is_lost_and_found(governed, monkeypatch):
    """Silence is an event after a while; when the plant is back, governing goes on under a higher epoch."""
    governed.governing()
    daemon, epoch = governed.daemon, governed.daemon.state()["epoch"]
    now = [daemon._clock.monotonic_s()]
    monkeypatch.setattr(daemon._clock, "monotonic_s", lambda: now[0], raising=False)

    def silent(_deadline_s):
        raise PlantUnavailableError("no answer")

    monkeypatch.setattr(daemon._stays.plant, "observe", silent, raising=False)
    monkeypatch.setattr(daemon._stays.plant, "connect", silent, raising=False)
    for _ in range(8):
        now[0] += 2.0
        daemon.tick()
    assert daemon.error is None
    assert governed.kinds()[-1] is E.PLANT_LOST
    assert daemon.not_ready() == ["the plant is not connected"]
    assert not governed.tell(asked.Isolate("node-0001")).accepted
    monkeypatch.undo()
    monkeypatch.setattr(daemon._clock, "monotonic_s", lambda: now[0], raising=False)
    now[0] += 60.0
    governed.ticks(3)
    assert daemon.state()["connected"]
    assert daemon.state()["epoch"] == epoch + 1
    governed.live_equals_journal()


@pytest.fixture
def clock(governed, monkeypatch):
    """The daemon's own time, from when it governs: a list of one, to be moved by hand."""
    governed.governing()
    now = [governed.daemon._clock.monotonic_s()]
    monkeypatch.setattr(governed.daemon._clock, "monotonic_s", lambda: now[0], raising=False)
    return now


def test_a_token_that_is_not_accepted_for_a_while_ends_nothing(governed, clock, monkeypatch):
    """At the first arrival that is somebody's mistake; later it is one of the ways in which a plant is away."""

    def refused(_deadline_s):
        raise NotPermittedError("the plant refused GET /capabilities: token (HTTP 401)")

    def silent(_deadline_s):
        raise PlantUnavailableError("no answer")

    plant = governed.daemon._stays.plant
    with monkeypatch.context() as away:
        away.setattr(plant, "observe", silent, raising=False)
        away.setattr(plant, "connect", refused, raising=False)
        for _ in range(20):
            clock[0] += 2.0
            governed.ticks(1)
    assert governed.kinds()[-1] is E.PLANT_LOST
    assert any("token (HTTP 401); trying again until it answers" in line for line in governed.console._lines)
    clock[0] += 60.0
    governed.ticks(3)
    assert governed.daemon.state()["connected"]


def test_what_takes_long_here_is_not_the_plants_silence(governed, clock, monkeypatch):
    """A check that keeps the loop for half a minute does not make a plant that ticks be lost."""

    def slowly(_governed, _seen):
        clock[0] += 30.0

    monkeypatch.setattr(Governed, "advance", slowly)
    governed.ticks(3)
    assert governed.kinds().count(E.PLANT_LOST) == 0


def test_a_plant_that_ticks_slowly_is_not_silent(governed, clock, monkeypatch):
    """Every fifteen seconds is often enough where that is its own interval; three without a tick are silence."""
    session = governed.daemon._governed.session
    governed.daemon._governed.session = replace(session, info=replace(session.info, interval_s=15.0))
    monkeypatch.setattr(governed.daemon._stays.plant, "observe", lambda _: (), raising=False)
    for _ in range(44):
        clock[0] += 1.0
        governed.ticks(1)
    assert governed.kinds().count(E.PLANT_LOST) == 0
    clock[0] += 2.0
    governed.ticks(1)
    assert governed.kinds()[-1] is E.PLANT_LOST


def test_a_plant_that_stands_still_is_reached_less_and_less_often(governed, clock, monkeypatch):
    """One that answers and makes no tick costs a stay each time, with growing waits in between."""
    monkeypatch.setattr(governed.daemon._stays.plant, "observe", lambda _: (), raising=False)
    for _ in range(240):
        clock[0] += 1.0
        governed.ticks(1)
    assert governed.kinds().count(E.PLANT_LOST) == 9


def test_what_the_stores_need_is_needed_once(governed, monkeypatch):
    """They are open by the time the plant is back: a file of theirs that has gone since is no reason to end."""
    governed.governing()

    def gone(_config):
        raise ConfigInvalidError("influxdb.token", ["influxdb.token_file: cannot be read"])

    monkeypatch.setattr("controller.stays.prepare", gone)
    governed.daemon._governed, governed.daemon._lost = None, True
    governed.ticks(2)
    assert governed.daemon.state()["connected"]
    governed.live_equals_journal()


def test_a_breached_invariant_is_a_hold(governed, monkeypatch):
    """The state goes back to what the journal says, the daemon holds in SAFE_MODE, and a person lets it go on."""
    governed.governing()

    def broken(*_arguments, **_options):
        raise InvariantBreachError("budgets_hold", "as the test wants it")

    with monkeypatch.context() as patched:
        patched.setattr("controller.loop.invariants.check", broken)
        governed.daemon.tick()
    assert governed.phase is Phase.SAFE_MODE
    assert governed.daemon.state()["safe_mode"]["reason"] == "invariant budgets_hold does not hold"
    governed.live_equals_journal()
    governed.ticks(5)
    assert governed.tell(asked.ClearSafeMode()).accepted
    assert governed.phase is Phase.GOVERNING


def test_a_journal_that_cannot_be_written_ends_it(governed, monkeypatch):
    """Nothing is decided that cannot be kept: exit code 74, and the restarted one knows only what was acknowledged."""
    governed.governing().inject()

    def full(*_arguments, **_options):
        raise StoreFailedError("no space left")

    monkeypatch.setattr(governed.journal, "append", full)
    for _ in range(60):
        governed.daemon.tick()
    assert isinstance(governed.daemon.error, StoreFailedError)
    assert governed.daemon._stays.plant._plant.isolated() == frozenset()
    with pytest.raises(BusyError):
        governed.tell(asked.Resume())


def test_reload_changes_what_may_change(governed):
    """A policy is changed while governing; what needs a restart, and what is invalid, changes nothing."""
    governed.governing()
    assert governed.daemon.reload(by="ann").text == "nothing has changed"
    governed.overrides["seed"] = 4
    answer = governed.daemon.reload(by="ann")
    assert (answer.accepted, answer.text) == (False, "nothing is changed: plant.seed need a restart")
    governed.overrides["seed"] = 3
    loaded = governed.load
    governed.daemon._load_config = lambda: configuration.load(
        None, {"plant": governed.overrides, "isolation": {"confirm_ticks": 5}}
    )
    assert governed.daemon.reload(by="ann").accepted
    assert governed.kinds()[-1] is E.CONFIG_RELOADED
    assert governed.daemon._governed.session.config.isolation.confirm_ticks == 5
    governed.daemon._load_config = lambda: configuration.load(None, {"isolation": {"quorum": -1}})
    answer = governed.daemon.reload(by="ann")
    assert not answer.accepted
    assert "isolation.quorum" in answer.text
    governed.daemon._load_config = loaded
    governed.inject()
    governed.until(lambda: governed.node()["status"] == "isolated", 60)
    confirmed = [e.event for e in governed.journal.entries() if e.event.kind is E.GRAVITY_WELL_CONFIRMED][-1]
    assert confirmed.data["ticks"] == 5
    governed.live_equals_journal()


def test_a_reload_without_the_file_that_was_there_changes_nothing(governed, tmp_path):
    """A file that has vanished, or cannot be read, loosens no guard."""
    file = tmp_path / "policy.toml"
    file.write_text("[isolation]\nfraction_max = 0.2\n")
    source = configuration.Source(file, {"plant": governed.overrides}, {})
    governed.daemon._load_config = source.load
    assert governed.daemon.reload(by="ann").text.startswith("in force now: isolation.fraction_max")
    file.unlink()
    answer = governed.daemon.reload(by="ann")
    assert not answer.accepted
    assert answer.text.startswith("nothing is changed: ")
    assert "the file is gone" in answer.text
    file.symlink_to(file)
    assert "cannot be read" in governed.daemon.reload(by="ann").text
    assert governed.daemon.error is None
    assert governed.daemon._config.isolation.fraction_max == 0.2


def test_a_reload_of_the_log_is_in_force_at_once(governed, monkeypatch):
    """What was left out before is logged from now on."""
    monkeypatch.setattr(logging.getLogger("iace"), "handlers", [])
    level = logging.getLogger("iace").level
    governed.daemon._load_config = lambda: configuration.load(
        None, {"plant": governed.overrides, "log": {"level": "debug"}}
    )
    try:
        assert governed.daemon.reload(by="ann").text.startswith("in force now: log.level")
        assert logging.getLogger("iace").level == logging.DEBUG
    finally:
        logging.getLogger("iace").setLevel(level)


def test_a_bug_in_a_report_does_not_end_the_governing(governed, monkeypatch, tmp_path, capsys):
    """It is told and logged; ticks, and the orderly stop, go on."""
    governed.governing()
    monkeypatch.setattr(daemon_report, "new_proposals", lambda *_: 1 / 0)
    governed.daemon.write_report(tmp_path / "report")
    assert "the report was not written, which is a bug: ZeroDivisionError" in capsys.readouterr().err
    governed.ticks(1)
    assert governed.daemon.error is None
    assert not governed.daemon.ended.is_set()


def test_missed_ticks_are_counted_once(governed):
    """The meter counts them by their grid; what the scheduler tells of other jobs is counted here."""
    governed.daemon.missed("tick")
    governed.daemon.missed("report")
    assert governed.daemon._meter.ticks_missed == {"tick": 0, "report": 1}


def test_the_journal_is_cut_at_snapshots(governed, monkeypatch):
    """A journal that grows is cut before the snapshots that are kept, and a replay from there gives the same state."""
    monkeypatch.setattr("controller.daemon.SNAPSHOT_EVENTS", 5)
    governed.governing()
    governed.daemon._config = governed.daemon._config.model_copy(
        update={"journal": governed.daemon._config.journal.model_copy(update={"snapshots_kept": 2})}
    )
    for round_ in range(4):
        for step in range(3):
            governed.tell(asked.Exempt("node-0001", asked.ExemptionKind.VETO, 60.0), key=f"{round_}-{step}")
        governed.daemon.keep_house()
    entries = list(governed.journal.entries())
    assert entries[0].event.kind is E.SNAPSHOT
    assert [e.event.kind for e in entries].count(E.SNAPSHOT) == 2
    governed.live_equals_journal()
    governed.restart()
    governed.ticks(2)
    governed.live_equals_journal()
    with pytest.raises(KeyError):
        replay(DurableState(PhaseMachine(daemon=True)), []).nodes["node-0001"]


def test_refused_requests_are_summed_up(governed):
    """Requests that were turned away are one event a minute, with what was wrong and how often."""
    governed.governing()
    for why in ("no token", "no token", "wrong role"):
        governed.daemon.refuse_request(why)
    governed.daemon.keep_house()
    governed.daemon.keep_house()
    (event,) = [e.event for e in governed.journal.entries() if e.event.kind is E.REQUESTS_REFUSED]
    assert event.data == {"counts": {"no token": 2, "wrong role": 1}}


def test_the_report_says_what_a_run_would_leave_with(governed, tmp_path):
    """A daemon's report follows the same schema, with the verdict as of now."""
    governed.until(lambda: governed.phase is Phase.GOVERNING)
    governed.ticks(60)
    governed.daemon.write_report(tmp_path / "reports")
    document = json.loads((tmp_path / "reports" / "report.json").read_text())
    with open("docs/report.schema.json") as file:  # noqa: PTH123 - the test runs in the repository
        jsonschema.validate(document, json.load(file))
    assert document["exit_name"] == "COHERENT_LOCK", document["causes"]


def test_stopping_is_an_event_and_leaves_the_plant_alone(governed):
    """The journal's last word is that it was stopped, and who is out stays out."""
    governed.governing().inject()
    governed.until(lambda: governed.node()["status"] == "isolated", 60)
    plant = governed.daemon._stays.plant._plant
    governed.daemon.stop(ExitCode.TERMINATED, "TERMINATED")
    assert governed.kinds()[-1] is E.STOPPED
    assert plant.isolated() == frozenset({"node-0003"})
    with pytest.raises(BusyError):
        governed.tell(asked.Resume())


def test_questions_do_not_wait_for_a_turn(governed):
    """While a tick hangs, everything that is only read is answered from the tick before."""
    governed.governing()
    answered = threading.Event()

    def ask():
        assert governed.daemon.state()["phase"] == "GOVERNING"
        assert len(governed.daemon.nodes()) == 12
        assert governed.daemon.metrics().state == "GOVERNING"
        assert governed.daemon.explain("node-0001") is not None
        answered.set()

    with governed.daemon._turn:
        thread = threading.Thread(target=ask)
        thread.start()
        assert answered.wait(30)
    thread.join()


def test_a_fenced_controller_stops_leading(governed):
    """Once the plant has seen a higher epoch, the next action is refused there, and the daemon ends with 75."""
    governed.governing().inject()
    plant, epoch = governed.daemon._stays.plant._plant, governed.daemon.state()["epoch"]
    plant.apply(plant.parameters(), key="another-controller", epoch=epoch + 5)
    for _ in range(60):
        governed.daemon.tick()
    assert code_of(governed.daemon.error) is ExitCode.NOT_LEADER
    assert plant.isolated() == frozenset()


def test_a_command_of_a_fenced_controller_ends_it(governed):
    """A command whose action the plant refuses for its epoch fails, and the daemon ends with 75 at once."""
    governed.governing()
    plant, epoch = governed.daemon._stays.plant._plant, governed.daemon.state()["epoch"]
    plant.apply(plant.parameters(), key="another-controller", epoch=epoch + 5)
    with pytest.raises(FailedError, match="epoch"):
        governed.tell(asked.Isolate("node-0001", 60.0))
    assert code_of(governed.daemon.error) is ExitCode.NOT_LEADER
    assert not governed.daemon.metrics().leader
    with pytest.raises(BusyError, match="stopping"):
        governed.tell(asked.Resume())


def test_a_bug_within_a_command_ends_it(governed, monkeypatch):
    """Whatever fails in a command may have left the live state ahead of the journal: nothing is decided on it."""
    governed.governing()

    def broken(*_args, **_kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(governed.daemon._governor, "step", broken)
    with pytest.raises(FailedError, match="a bug"):
        governed.tell(asked.Resume())
    assert code_of(governed.daemon.error) is ExitCode.INTERNAL_ERROR
    assert not governed.daemon.live()


def test_a_journal_that_fails_while_a_proposal_is_written_down_ends_it(governed, monkeypatch, tmp_path):
    """A proposal that the journal does not know of must not be in the live state: the daemon ends with 74."""
    governed.governing()
    monkeypatch.setattr(daemon_report, "new_proposals", lambda *_: [{"id": "p-1"}])
    monkeypatch.setattr(daemon_module, "write", lambda *_: None)
    monkeypatch.setattr(daemon_module, "written", lambda _: ProposalWritten("p-1", "00" * 32, None))

    def full(*_args, **_kwargs):
        raise StoreFailedError("the disk is full")

    monkeypatch.setattr(governed.journal, "append", full)
    governed.daemon.write_report(tmp_path / "reports")
    assert code_of(governed.daemon.error) is ExitCode.STORE_FAILED


def test_a_lock_that_was_replaced_ends_it(governed, tmp_path):
    """Whoever moves the lock file away makes room for a second controller: this one ends with 75."""
    governed.governing()
    governed.daemon.check_lease()
    assert governed.daemon.error is None
    (tmp_path / "lock").rename(tmp_path / "old")
    (tmp_path / "lock").touch()
    governed.daemon.check_lease()
    assert code_of(governed.daemon.error) is ExitCode.NOT_LEADER
    assert not governed.daemon.metrics().leader


def test_a_new_epoch_is_claimed_at_once(governed):
    """The plant knows the epoch before anything is done, so that a predecessor's late request is refused."""
    governed.governing()
    plant, epoch = governed.daemon._stays.plant._plant, governed.daemon.state()["epoch"]
    assert plant.epoch_seen(1.0) == epoch
    with pytest.raises(PlantRefusedError, match="stale"):
        plant.isolate("node-0001", key="late", epoch=epoch - 1, ttl_s=60.0)
