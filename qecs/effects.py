"""What do the active faults, taken together, do to the environment, the nodes and the sensors?

Arrays exist only where a fault needs them: None means that every node is as in the healthy cluster, so a healthy tick
pays nothing. Which nodes a fault hits is drawn once, when it is injected.

Source: docs/model.md section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qecs.dynamics import OFFERED_LOAD, Environment
from qecs.fault_kinds import CHANNELS, FaultKind
from qecs.noise import Noise, Stream

if TYPE_CHECKING:
    from qecs.faults import Fault

_BAD_SHARE: Final = 0.5
_SLOW_PARTICIPATION: Final = 0.8
_SLOW_SHIFT: Final = -0.08
_SENSOR_KINDS: Final = (FaultKind.SENSOR_NOISE, FaultKind.SENSOR_STATIC, FaultKind.SENSOR_BIAS)


@dataclass(slots=True, eq=False)
class Effects:
    """The sum of all faults at one moment; read-only once `combined` has made it.

    Arrays have shape (N,) and are None where no fault is concerned, unless said otherwise.

    Attributes:
        environment: with the drifts.
        participation: a.
        coupling: share of the fields' pull that a node follows.
        capacity: share of the normal attempts, cap.
        shift: additional frequency (rad/s), Δω.
        bad: share of attempts that are invalid.
        held: angle (rad) from its cluster's field at which a byzantine node holds its phase, NaN for the others.
        lying: bool, nodes that report the phase of their cluster's field instead of their own.
        sensor_offset: fixed error of the phase sensor (rad).
        sensor_noise: standard deviation of the phase sensor's fresh noise (rad).
        wash: self-paid transactions a second, beyond the demand.
    """

    environment: Environment = field(default_factory=Environment)
    participation: NDArray[np.float64] | None = None
    coupling: NDArray[np.float64] | None = None
    capacity: NDArray[np.float64] | None = None
    shift: NDArray[np.float64] | None = None
    bad: NDArray[np.float64] | None = None
    held: NDArray[np.float64] | None = None
    lying: NDArray[np.bool_] | None = None
    sensor_offset: NDArray[np.float64] | None = None
    sensor_noise: NDArray[np.float64] | None = None
    wash: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A fault at a certain strength on certain nodes.

    Attributes:
        fault: what was asked for.
        targets: int64, shape (k,): indices of the nodes it hits.
        level: share of its strength, 0 to 1.
    """

    fault: Fault
    targets: NDArray[np.int64]
    level: float


def combined(faults: Iterable[Placed], nodes: int, noise: Noise) -> Effects:
    """The effects of several faults on a cluster of `nodes` nodes.

    What adds up is added (frequencies, drifts, sensor errors), what scales is multiplied (participation, coupling,
    capacity).
    """
    effects = Effects()
    for placed in faults:
        kind = placed.fault.kind
        if placed.level == 0.0:
            continue
        if kind in _SENSOR_KINDS:
            _disturb_sensors(effects, placed, nodes, noise)
        elif kind in (FaultKind.DRIFT, FaultKind.SURGE):
            effects.environment = _drifted(effects.environment, placed)
        else:
            _disturb_nodes(effects, placed, nodes)
    return effects


def fault_index(fault_id: str) -> int:
    """Number of a fault by which its randomness is named, the same in every run."""
    return int.from_bytes(sha256(fault_id.encode()).digest()[:8])


def _disturb_nodes(effects: Effects, placed: Placed, nodes: int) -> None:
    fault, hit = placed.fault, placed.targets
    strength = placed.level * fault.strength
    match fault.kind:
        case FaultKind.DETUNED | FaultKind.CLUSTER:
            effects.shift = _array(effects.shift, nodes, 0.0)
            effects.shift[hit] += strength
        case FaultKind.SLOW:
            _slow_down(effects, hit, nodes, participation=_SLOW_PARTICIPATION, rest=fault.strength)
            effects.shift = _array(effects.shift, nodes, 0.0)
            effects.shift[hit] += _SLOW_SHIFT
        case FaultKind.SILENT | FaultKind.FLAPPING:
            _slow_down(effects, hit, nodes, participation=0.0, rest=0.0)
        case FaultKind.BYZANTINE | FaultKind.STEALTH:
            effects.held = _array(effects.held, nodes, np.nan)
            effects.held[hit] = fault.strength
            effects.bad = _array(effects.bad, nodes, 0.0)
            effects.bad[hit] = _BAD_SHARE
            if fault.kind == FaultKind.STEALTH:
                effects.lying = np.zeros(nodes, dtype=np.bool_) if effects.lying is None else effects.lying
                effects.lying[hit] = True
        case FaultKind.ENTROPY_SPIKE:
            effects.wash = _array(effects.wash, nodes, 0.0)
            effects.wash[hit] += strength * OFFERED_LOAD
        case _:  # What damages the ledger has acted when it was injected.
            pass


def _slow_down(effects: Effects, hit: NDArray[np.int64], nodes: int, *, participation: float, rest: float) -> None:
    effects.participation = _array(effects.participation, nodes, 1.0)
    effects.participation[hit] *= participation
    effects.coupling = _array(effects.coupling, nodes, 1.0)
    effects.coupling[hit] *= rest
    effects.capacity = _array(effects.capacity, nodes, 1.0)
    effects.capacity[hit] *= rest


def _disturb_sensors(effects: Effects, placed: Placed, nodes: int, noise: Noise) -> None:
    fault, hit = placed.fault, placed.targets
    strength = placed.level * fault.strength
    if fault.kind == FaultKind.SENSOR_NOISE:
        effects.sensor_noise = _array(effects.sensor_noise, nodes, 0.0)
        effects.sensor_noise[hit] = np.hypot(effects.sensor_noise[hit], strength)
        return
    effects.sensor_offset = _array(effects.sensor_offset, nodes, 0.0)
    if fault.kind == FaultKind.SENSOR_BIAS:
        effects.sensor_offset[hit] += strength
    else:
        draws = noise.normal(Stream.SENSOR_STATIC, fault_index(fault.id), np.empty(nodes))
        effects.sensor_offset[hit] += strength * draws[hit]


def _drifted(environment: Environment, placed: Placed) -> Environment:
    fault = placed.fault
    channels = {"demand": fault.strength} if fault.kind == FaultKind.SURGE else fault.channels
    base = Environment()
    moved = {}
    for name, value in channels.items():
        low, high = CHANNELS[name]
        change = placed.level * (value - getattr(base, name))
        # Several drifts of one channel add up, but never beyond what a single one may ask for.
        moved[name] = min(max(getattr(environment, name) + change, low), high)
    return replace(environment, **moved)


def _array(found: NDArray[np.float64] | None, nodes: int, healthy: float) -> NDArray[np.float64]:
    return np.full(nodes, healthy) if found is None else found
