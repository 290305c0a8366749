"""Carries an action out at the plant, and tells what the plant replied.

A refusal is an answer. No answer, or one that cannot be understood, leaves the effect unknown: only looking at the
plant again will tell. The idempotency key at the plant is the intent's key under the run's own name, because keys of
different runs must never be taken for repetitions of each other.
"""

from __future__ import annotations

from controller.clock import Clock
from controller.plants.plant import Plant
from metrics.errors import NotLeaderError, PlantError, PlantRefusedError, PlantUnavailableError, UnsupportedError
from state.action import Action, ApplyParameters, IsolateNode, Reply, RestoreNode
from state.stimulus import Replied

EPOCH_DEADLINE_S = 2.0


class Effector:
    """The controller's hand at one plant."""

    def __init__(self, plant: Plant, clock: Clock, *, run_id: str, epoch: int) -> None:
        self._plant = plant
        self._clock = clock
        self._run_id = run_id
        self._epoch = epoch

    def carry_out(self, action: Action) -> Replied:
        """Do it, once; whatever the plant says is an answer.

        Raises:
            NotLeaderError: the plant refused, and has seen a higher epoch: another controller governs it.
        """
        try:
            self._send(action, f"{self._run_id}/{action.key}")
        except (PlantRefusedError, UnsupportedError) as refused:
            self._require_leadership()
            return self._reply(action, Reply.REFUSED, str(refused))
        except PlantUnavailableError as unknown:
            return self._reply(action, Reply.UNKNOWN, str(unknown))
        return self._reply(action, Reply.APPLIED, "")

    def _send(self, action: Action, key: str) -> None:
        match action:
            case IsolateNode():
                self._plant.isolate(action.node, key=key, epoch=self._epoch, ttl_s=action.ttl_s)
            case RestoreNode():
                self._plant.restore(action.node, key=key, epoch=self._epoch)
            case ApplyParameters():
                self._plant.apply(action.parameters, key=key, epoch=self._epoch)

    def _require_leadership(self) -> None:
        try:
            seen = self._plant.epoch_seen(EPOCH_DEADLINE_S)
        except PlantError:
            return  # whoever leads, it is not known that it is somebody else
        if seen > self._epoch:
            raise NotLeaderError(
                f"the plant has seen epoch {seen}, ours is {self._epoch}: another controller governs it, stop one"
            )

    def _reply(self, action: Action, reply: Reply, reason: str) -> Replied:
        return Replied(action.key, reply, reason, self._clock.monotonic_s())
