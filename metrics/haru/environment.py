"""What environment does the plant live in? The evidence of phases and flows, put together as one value.

Assumptions: reported phases mean what they say, and the plant's law of pull and prices are those of docs/model.md. A
tick after a gap, nodes without a finite phase and isolated nodes teach nothing. After a change of the topology, or a
restart of the plant, everything is learnt anew.
Left out: what to do about it (`tuning.py`). O(N) a tick and O(N) memory. Source: docs/model.md section 6, steps 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from metrics.haru.costs import SMOOTHING_TICKS, Costs, CostShares
from metrics.haru.plant_model import Bias, Environment, limited_gains, predict
from metrics.haru.surplus import PhaseReading, Surplus
from metrics.observation import Observation, Parameters, Topology
from metrics.smoothing import gap_weight

EVIDENCE_TICKS = 15  # pairs of ticks before the environment is told at all
BIAS_EVERY_TICKS = 5  # a prediction costs about as much as all the rest of a tick at N = 50
# Whatever the model is off by beyond this is another regime (lost lock, a backlog), which other couplings would end.
BIAS_LIMIT = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class _Last:
    tick: int
    topology: Topology
    phases: PhaseReading


class EnvironmentIdentifier:
    """Watches one plant, tick after tick, and tells its environment.

    >>> identifier = EnvironmentIdentifier()
    >>> identifier.update(Observation(tick=1, plant_time_s=1.0, received_s=0.0, kpis={}))
    >>> identifier.environment() is None
    True
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._last: _Last | None = None
        self._surplus: Surplus | None = None
        self._costs = Costs()
        self._bias = Bias()

    def update(self, observation: Observation) -> None:
        """Take in one observation; one of a tick that was seen before, or without nodes or parameters, is no evidence.

        The parameters of an observation must be those that were in force when the plant came to its tick.
        """
        topology, signals, parameters = observation.topology, observation.signals, observation.parameters
        if topology is None or signals is None or parameters is None:
            return
        last = self._last
        if last is not None and (observation.tick < last.tick or not _same(topology, last.topology)):
            self._start()
            last = None
        if last is not None and observation.tick == last.tick:
            return
        gap_ticks = 1 if last is None else observation.tick - last.tick
        phases = PhaseReading.of(topology, signals)
        surplus = self._surplus = self._surplus or Surplus(topology)
        self._costs.update(observation, gap_ticks)
        if last is not None and gap_ticks == 1:
            gains = limited_gains(
                parameters.lambda1,
                parameters.lambda2,
                price=self._costs.price,
                load=self._costs.load,
                action_cost_limit=parameters.action_cost_limit,
            )
            surplus.learn(last.phases, phases, gains)
        self._last = _Last(observation.tick, topology, phases)
        if observation.tick % BIAS_EVERY_TICKS == 0:
            self._follow_bias(phases, observation, parameters)

    def costs(self) -> CostShares | None:
        """What the action cost is made of; None while it is unknown."""
        return self._costs.shares

    def environment(self) -> Environment | None:
        """The environment as known now; None while there is too little evidence."""
        surplus = self._surplus
        if surplus is None or surplus.ticks < EVIDENCE_TICKS or surplus.groups == 0:
            return None
        noise, sensing = surplus.noise.state.tolist()
        of_node = surplus.nodes.noise
        per_cluster = surplus.counted / surplus.groups
        return Environment(
            nodes=surplus.counted,
            clusters=surplus.groups,
            phase_noise=noise,
            sensing_noise=sensing,
            frequency_spread=surplus.nodes.spread(of_node),
            typical_spread=surplus.nodes.typical_spread(of_node),
            cluster_noise=max(surplus.clusters.noise - of_node / per_cluster, 0.0),
            cluster_spread=surplus.clusters.spread(surplus.clusters.noise),
            system_noise=max(surplus.system_noise - surplus.clusters.noise / surplus.groups, 0.0),
            drift=surplus.drift,
            load=self._costs.load,
            load_spread=self._costs.load_spread,
            price=self._costs.price,
            invalid=self._costs.invalid,
            bias=self._bias,
        )

    def _follow_bias(self, phases: PhaseReading, observation: Observation, parameters: Parameters) -> None:
        environment = self.environment()
        if environment is None:
            return
        said = predict(replace(environment, bias=Bias()), parameters)
        weight = gap_weight(BIAS_EVERY_TICKS, SMOOTHING_TICKS)
        old = self._bias
        self._bias = Bias(
            coherence=_moved(old.coherence, phases.coherence - float(said.coherence), weight),
            gas=_moved(old.gas, phases.gas - float(said.gas), weight),
            action_cost=_moved(
                old.action_cost, observation.kpis.get("action_cost", float("nan")) - float(said.action_cost), weight
            ),
        )


def _same(one: Topology, other: Topology) -> bool:
    return one is other or (one.nodes == other.nodes and bool((one.cluster_of == other.cluster_of).all()))


def _moved(average: float, value: float, weight: float) -> float:
    if value != value:  # noqa: PLR0124 - NaN, an unknown KPI, moves nothing
        return average
    return average + weight * (min(BIAS_LIMIT, max(-BIAS_LIMIT, value)) - average)
