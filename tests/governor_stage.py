"""A tiny stage for the governor: a plant that does what the test says, and checks that hold after every step.

Test modules cannot import each other; they take `Stage` from here with `runpy`. After every step the stage asserts the
invariants, and that the journaled events, read back from their bytes, rebuild the live state byte for byte.
"""

import json
import math

import numpy as np

from metrics.assessment import Assessment
from metrics.gravity import FieldReading
from metrics.kpi import KpiStatus
from metrics.kpi_verdict import KpiVerdict
from metrics.observation import Capability, Parameters, Topology
from state import invariants
from state.action import ApplyParameters, IsolateNode, Reply, RestoreNode
from state.durable import DurableState
from state.event import Event, EventKind
from state.governor import Governor, GovernorSettings
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy
from state.machine import PhaseMachine
from state.phase import Phase
from state.stimulus import Assessed, Commanded, PhaseEnded, Replied, Restarted, Started
from state.verdict import CheckResult, CheckStatus, PhaseResult

HEALTHY_GRAVITY = 0.2
HEALTHY_KPIS = {"coherence": 0.96, "gas": 0.97, "action_cost": 0.02, "delta_entropy": 0.0005}


def topology_of(nodes, clusters):
    """Contiguous, near-equal clusters: n0, n1, ... in c0, c1, ..."""
    return Topology(
        tuple(f"n{i}" for i in range(nodes)),
        tuple(f"c{i}" for i in range(clusters)),
        (np.arange(nodes) * clusters // nodes).astype(np.int32),
    )


def reread(event):
    """The event as it comes back from the journal."""
    plain = json.loads(event.canonical())
    return Event(EventKind(plain["kind"]), plain["at_s"], plain["data"])


class FakePlant:
    """Obeys, unless told otherwise.

    Attributes:
        replies: what is answered to the next actions, in order; afterwards APPLIED.
        obeys: whether actions have an effect at all; a refused one never has.
    """

    def __init__(self):
        self.out = {}
        self.parameters = Parameters()
        self.replies = []
        self.obeys = True

    def carry_out(self, action, now_s):
        reply = self.replies.pop(0) if self.replies else Reply.APPLIED
        if self.obeys and reply is not Reply.REFUSED:
            match action:
                case IsolateNode():
                    self.out[action.node] = now_s + action.ttl_s
                case RestoreNode():
                    self.out.pop(action.node, None)
                case ApplyParameters():
                    self.parameters = action.parameters
        return reply

    def advance_to(self, now_s):
        for node in [node for node, until_s in self.out.items() if until_s <= now_s]:
            self.out.pop(node)


class Stage:
    """A governor on stage.

    Attributes:
        gravity, trusted: float64[N] and bool[N], what the next ticks show of the nodes.
        cluster_gravity: float64[M], the same of the clusters.
        kpis, unhealthy: values, and names of those that are lastingly outside their limits.
        events, actions, refusals: everything so far.
    """

    def __init__(
        self,
        nodes=5,
        clusters=1,
        *,
        policy=None,
        healing=None,
        capabilities=frozenset(Capability),
        tick_s=1.0,
        **settings,
    ):
        self.policy = policy or IsolationPolicy()
        self.settings = GovernorSettings(self.policy, healing or HealingPolicy(), **settings)
        self.governor = Governor(self.settings)
        self.shadow = DurableState(PhaseMachine(daemon=self.settings.daemon))
        self.capabilities = capabilities
        self.topology = topology_of(nodes, clusters)
        self.gravity = np.full(nodes, HEALTHY_GRAVITY)
        self.trusted = np.ones(nodes, dtype=bool)
        self.cluster_gravity = np.full(clusters, HEALTHY_GRAVITY)
        self.disagreement = 0.0
        self.kpis = dict(HEALTHY_KPIS)
        self.unhealthy = ()
        self.plant_safe_mode = False
        self.breached = ()
        self.environment = None
        self.costs = None
        self.forecasts = {}
        self.spread = 1.0
        self.shows_parameters = True
        self.plant = FakePlant()
        self.tick_s = tick_s
        self.ticks = 0
        self.now_s = 0.0
        self.late_s = 0.0
        self.lag_s = 0.0
        self.answering = True
        self.events, self.actions, self.refusals = [], [], []

    @property
    def state(self):
        return self.governor.state

    @property
    def phase(self):
        return self.state.phase

    def tell(self, stimulus):
        """One step, its checks, and the answers to its actions."""
        return self.take(self.governor.step(stimulus, self.now_s))

    def take(self, decision):
        """Do with a decision what the loop does with it."""
        self.events += decision.events
        self.actions += decision.actions
        self.refusals += decision.refusals
        for event in decision.events:
            self.shadow.apply(reread(event))
        assert self.shadow.snapshot() == self.governor.snapshot()
        acting = any(event.kind is EventKind.ISOLATION_INTENDED for event in decision.events)
        invariants.check(self.state, self.policy, self.topology, taken=None if acting else ())
        for action in decision.actions:
            reply = self.plant.carry_out(action, self.now_s)
            if self.answering:
                reason = "" if reply is Reply.APPLIED else "told so"
                self.tell(Replied(action.key, reply, reason, self.now_s))
        return decision

    def tick(self, count=1):
        """Some ticks; the events of them."""
        first = len(self.events)
        for _ in range(count):
            self.ticks += 1
            self.now_s += self.tick_s
            self.plant.advance_to(self.now_s)
            parameters = self.plant.parameters if self.shows_parameters else None
            self.tell(Assessed(self.assessment(), parameters, self.lag_s))
        return self.events[first:]

    def until(self, kind, ticks_max=300):
        """Tick until an event of this kind; after how many ticks."""
        for waited in range(1, ticks_max + 1):
            if any(event.kind is kind for event in self.tick()):
                return waited
        raise AssertionError(f"no {kind} within {ticks_max} ticks; events: {self.kinds()}")

    def assessment(self):
        active = np.array([node not in self.plant.out for node in self.topology.nodes])
        count = len(self.topology.nodes)
        reading = FieldReading(
            tick=self.ticks,
            gravity=self.gravity.copy(),
            components=np.stack([np.zeros(count), self.gravity, np.zeros(count)], axis=1),
            samples=np.full(count, 100, dtype=np.int32),
            trusted=self.trusted.copy(),
            cluster_gravity=self.cluster_gravity.copy(),
            cluster_order=np.full(len(self.topology.clusters), 0.97),
            mean_field=0.96 + 0j,
            unit=0.4,
            spread=self.spread,
        )
        verdicts = {
            name: KpiVerdict(
                name,
                value,
                KpiStatus.WARNING if name in self.breached else self.status(value),
                KpiStatus.WARNING if name in self.unhealthy else KpiStatus.HEALTHY,
            )
            for name, value in self.kpis.items()
        }
        return Assessment(
            tick=self.ticks,
            plant_time_s=self.now_s,
            received_s=self.now_s - self.late_s,
            kpis=verdicts,
            topology=self.topology,
            reading=reading,
            active=active,
            disagreement=self.disagreement,
            sensors_doubted=self.disagreement > 0.03,
            anomalies=(),
            scores={},
            plant_safe_mode=self.plant_safe_mode,
            environment=self.environment,
            costs=self.costs,
            forecasts=self.forecasts,
        )

    @staticmethod
    def status(value):
        return KpiStatus.HEALTHY if math.isfinite(value) else KpiStatus.UNKNOWN

    def start(self):
        self.tell(Started(1, self.capabilities, {"seed": 7}))
        return self

    def end_phase(self, phase, status=CheckStatus.PASSED):
        self.tell(PhaseEnded(PhaseResult(phase, (CheckResult("a.check", status, "it was tried"),))))

    def reach(self, phase):
        """Through the phases up to `phase`."""
        self.start()
        for passed in (Phase.PHASE_I, Phase.PHASE_II, Phase.PHASE_III):
            if self.phase is phase:
                break
            self.end_phase(passed)
        assert self.phase is phase
        return self

    def restart(self, recovered=None):
        """A new governor over the replayed journal, as after a crash; `recovered` makes the state in another way."""
        recovered = recovered or self.replayed
        self.governor, self.shadow = Governor(self.settings, recovered()), recovered()
        self.tell(Restarted(self.state.epoch + 1, self.capabilities, self.now_s, {}))

    def command(self, command, *, by="ada", reason="because", key=None):
        """An operator's command; the answer."""
        return self.tell(Commanded(command, by, reason, key)).answer

    def replayed(self):
        """The state that the events give."""
        state = DurableState(PhaseMachine(daemon=self.settings.daemon))
        for event in self.events:
            state.apply(reread(event))
        return state

    def make_bad(self, *nodes, gravity=2.0):
        for node in nodes:
            self.gravity[self.topology.index[node]] = gravity

    def make_good(self, *nodes):
        self.make_bad(*nodes, gravity=HEALTHY_GRAVITY)

    def kinds(self):
        return [event.kind for event in self.events]

    def of(self, kind):
        return [event for event in self.events if event.kind is kind]

    def isolated(self):
        return [action.node for action in self.actions if isinstance(action, IsolateNode)]

    def guards(self, rule="isolate"):
        return {refusal.guard for refusal in self.refusals if refusal.rule == rule}
