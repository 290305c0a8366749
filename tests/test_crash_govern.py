"""`iace govern`, killed again and again while it acts on a busy plant, forgets nothing and repeats nothing.

The plant is our own server over HTTP, twenty ticks a second, and lives in this process, so that it can be asked what
was ever done to it. Half of the kills come right after an isolation has taken effect, before its answer has been
journaled: the restarted process then has an action in flight of which it cannot know the outcome without looking.
"""

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

from controller.wording import printable, sentence
from state.durable import DurableState, NodeStatus
from state.event import Event, EventKind
from state.isolation import IsolationPolicy
from state.journal import Journal
from state.machine import PhaseMachine

pytestmark = pytest.mark.process

E = EventKind
TICK_S = 0.05
KILLS = (
    13  # a life: more would ruin nodes, since each isolation costs one half of its money, and a poor one serves badly
)
LIVES = 16 if os.environ.get("CI") else 1  # 208 kills where there is time for them
NODES, SIZE = 24, 6  # in four clusters
NUMBERS = {"backoff_base_s": 20.0, "probation_ticks": 20, "flap_offences": 50, "verify_s": 120.0}
SETTINGS = {f"IACE_ISOLATION__{name.upper()}": str(value) for name, value in NUMBERS.items()}
INTENTS = {E.ISOLATION_INTENDED, E.RENEWAL_INTENDED, E.RESTORATION_INTENDED, E.TRIAL_STARTED, E.ROLLBACK_INTENDED}
WALL = "2030-01-01T00:00:00Z"
IMPATIENCE_S = 200.0  # what a kill has left unknown is given up after verify_s by the clock


class Plant:
    """A served cluster that remembers what was done to it.

    Attributes:
        url: where it answers.
        effects: how often the write of each idempotency key took effect.
        out_max: the most nodes that were ever out, of all and of one cluster.
        isolated: set when an isolation takes effect.
    """

    def __init__(self, served):
        self._host, self.url = served.host, served.url
        self.effects, self.out_max = Counter(), (0, 0)
        self.isolated = threading.Event()
        self._faults, self._illnesses = itertools.count(1), Counter()
        once = served.host.gate.once

        def remembered(key, epoch, content, act):
            def counted():
                answer = act()
                self.effects[key] += 1
                if content[0] == "isolate":
                    self._count_out()
                    if "isolate-" in key:  # a renewal takes nobody out
                        self.isolated.set()
                return answer

            return once(key, epoch, content, counted)

        served.host.gate.once = remembered

    def make_ill(self, rng):
        """Cure those who are ill, and let a node each of two complete clusters turn byzantine; their names."""
        nodes = [self._next_of(cluster, rng) for cluster in rng.sample(self.complete(), 2)]
        self._illnesses.update(nodes)
        with self._host.lock:
            number = next(self._faults)
            self._host.cluster.clear(f"bad-{number - 1}")
            self._host.cluster.inject(fault_type(f"bad-{number}", "byzantine", nodes=tuple(nodes)))
        return nodes

    def _next_of(self, cluster, rng):
        """One of those nodes of a cluster that were ill least often."""
        nodes = [f"node-{number:04d}" for number in range(SIZE * cluster, SIZE * (cluster + 1))]
        least = min(self._illnesses[node] for node in nodes)
        return rng.choice([node for node in nodes if self._illnesses[node] == least])

    def complete(self):
        """The clusters of which nobody is out."""
        hit = {int(node.removeprefix("node-")) // SIZE for node in self.out()}
        return sorted(set(range(NODES // SIZE)) - hit)

    def out(self):
        with self._host.lock:
            return set(self._host.cluster.isolated())

    def _count_out(self):
        out = [int(node.removeprefix("node-")) for node in self._host.cluster.isolated()]
        in_one = max(Counter(node // SIZE for node in out).values())
        self.out_max = (max(self.out_max[0], len(out)), max(self.out_max[1], in_one))


def fault_type(name, kind, **options):
    from qecs.faults import Fault  # noqa: PLC0415 - the governed system is for this test's own plant alone

    return Fault(name, kind, **options)


class Life:
    """One process after the other over one data directory."""

    def __init__(self, start_iace, plant, data):
        self.data, self.epoch = data, 1
        self._start_iace, self._plant = start_iace, plant
        self.running = None
        journal = Journal(data / "govern" / "journal.db")
        passed = [Event(E.PHASE_PASSED, 0.0, {"phase": f"PHASE_{n}", "checks": {}}) for n in ("I", "II", "III")]
        journal.append([Event(E.RUN_STARTED, 0.0, {"epoch": 1}), *passed], epoch=1, wall_time=WALL)
        journal.close()

    def start(self):
        self.epoch += 1
        self.running = self._start_iace(
            *("govern", "--plant", "http", "--url", self._plant.url, "--interval", TICK_S),
            *("--no-api", "--data-dir", self.data),
            env=SETTINGS,
        )
        self.until(lambda: f"epoch {self.epoch}, " in self.told())

    def until(self, reached):
        end = time.monotonic() + IMPATIENCE_S
        while not reached():
            assert self.running.poll() is None, self.told()
            assert time.monotonic() < end, self.told()
            time.sleep(0.01)

    def kill(self):
        self.running.kill()
        assert self.running.finish().code == -signal.SIGKILL, self.told()

    def told(self):
        return (self.running.cwd / "stderr").read_text()

    def entries(self):
        with closing(Journal(self.data / "govern" / "journal.db", read_only=True)) as journal:
            return list(journal.entries())


def lines(entries):
    """The journal's events as the console tells them, which it does once they are durable."""
    return {printable(f"[{entry.event.at_s:g} s] {sentence(entry.event)}") for entry in entries}


def check_limits(entries):
    """Back-offs grow with the offences and are sat out, and the rate limit's tokens are spent, across all restarts.

    Returns how many nodes were let in again.
    """
    policy, state, served = IsolationPolicy(**NUMBERS), DurableState(PhaseMachine(daemon=True)), 0
    for entry in entries:
        data = entry.event.data
        record = state.nodes.get(data.get("node"))
        if entry.event.kind is E.ISOLATION_INTENDED:
            assert data["offence"] == (record.offences if record else 0) + 1
            assert data["backoff_s"] == policy.backoff_s(data["node"], data["offence"])
            left = policy.tokens(state.tokens, entry.event.at_s - state.tokens_at_s, NODES)
            assert data["tokens"] == left - 1 >= 0
        elif entry.event.kind is E.RESTORATION_INTENDED:
            assert entry.event.at_s - record.isolated_s >= record.backoff_s
            served += 1
        state.apply(entry.event)
    return served


@pytest.mark.parametrize("seed", range(11, 11 + LIVES))
def test_a_daemon_killed_while_it_acts_repeats_nothing_and_forgets_nothing(seed, start_qecs, start_iace, tmp_path):
    """Through 13 kills: no acknowledged event lost, one effect a key, budgets and back-offs kept, and it goes on."""
    rng = random.Random(seed)
    plant = Plant(start_qecs(NODES, clusters=NODES // SIZE, interval_s=TICK_S, live=True))
    life = Life(start_iace, plant, tmp_path / "data")
    known = []
    for number in range(KILLS):
        life.start()
        found = [entry.hash for entry in life.entries()]
        assert found[: len(known)] == known
        life.until(lambda: len(plant.complete()) >= 2)
        plant.isolated.clear()
        plant.make_ill(rng)
        if number % 2:
            life.until(plant.isolated.is_set)
            time.sleep(rng.uniform(0.0, 0.02))
        else:
            time.sleep(rng.uniform(0.0, 2.0))
        known = [entry.hash for entry in life.entries()]
        life.kill()
        after = life.entries()  # it was acknowledged before it was told, and is there after the death
        assert {line for line in life.told().splitlines() if line.startswith("[")} <= lines(after)

    life.start()
    life.until(lambda: len(plant.complete()) >= 2)
    ill = plant.make_ill(rng)
    life.until(lambda: any(f"{node} is isolated, as the plant shows" in life.told() for node in ill))
    life.running.send_signal(signal.SIGTERM)
    assert life.running.finish().code == 143
    entries = life.entries()
    assert [entry.hash for entry in entries][: len(known)] == known

    assert set(plant.effects.values()) == {1}
    intended = {entry.event.data["key"] for entry in entries if entry.event.kind in INTENTS}
    # A new leader also claims its epoch; the intent of that is the event with which it took up governing.
    epochs = (entry.event.data["epoch"] for entry in entries if entry.event.kind in (E.RUN_STARTED, E.RESTARTED))
    intended |= {f"{epoch}/claim" for epoch in epochs}
    assert {key.partition("/")[2] for key in plant.effects} <= intended
    kinds = Counter(entry.event.kind for entry in entries)
    assert kinds[E.RESTARTED] == KILLS + 1
    assert kinds[E.ISOLATION_INTENDED] > KILLS / 2
    assert check_limits(entries) > 0
    assert plant.out_max[0] <= 7  # 30 % of 24
    assert plant.out_max[1] <= 2  # a third of 6
    state = DurableState(PhaseMachine(daemon=True))
    for entry in entries:
        state.apply(entry.event)
    assert plant.out() <= state.out_of_service()
    in_flight = {intent.node for intent in state.intents.values()}
    isolated = {node for node, record in state.nodes.items() if record.status is NodeStatus.ISOLATED}
    assert isolated - in_flight <= plant.out()
