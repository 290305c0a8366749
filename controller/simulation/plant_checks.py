"""What must hold of everything that reaches the plant, as counted there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from controller.simulation.evidence import EvidenceBook
from controller.simulation.ground import Ground, Intended, ViolatedError
from controller.simulation.message import Core, Effect, Message
from controller.simulation.parameter_checks import ParameterChecks
from metrics.observation import PARAMETER_BOUNDS
from state.event import Event
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy

EVIDENCE_MAX_S = 10.0
IN_A_PAUSE = frozenset({"renew", "rollback"})
TIMELESS = frozenset({"renew", "apply", "rollback"})  # they keep, or bring back, what was, or are read back at once
SLACK = 1e-9


class PlantChecks:
    """Watches what is sent, and what the plant does.

    Args:
        ground: the facts.
        core: the plant.
        key_prefix: of our own idempotency keys at the plant.

    Attributes:
        effects: requests that the plant has executed.
    """

    def __init__(self, ground: Ground, core: Core, key_prefix: str) -> None:
        self._ground, self._core, self._prefix = ground, core, key_prefix
        self._parameters = ParameterChecks(core, HealingPolicy())
        self._done: Counter[tuple[int, str]] = Counter()
        self._ours: set[str] = set()
        self.effects = 0

    def sent(self, message: Message, evidence: EvidenceBook, epoch: int) -> None:
        """Pauses bind, and evidence must be fresh, at the moment at which something is asked for."""
        if self._claims(message):
            if message.epoch != epoch or message.parameters != self._core.parameters:
                raise ViolatedError("intents_come_first", f"{message.key} claims what nobody has taken, or changes it")
            return
        intent = self._intent(message)
        self._parameters.sent(message.key.removeprefix(self._prefix), message.parameters)
        if self._ground.paused and intent.what not in IN_A_PAUSE:
            raise ViolatedError("pause_is_kept", f"{message.key} ({intent.what}) was sent in an acknowledged pause")
        age_s = self._ground.now_s - evidence.received_s
        if intent.what not in TIMELESS and age_s > EVIDENCE_MAX_S + SLACK:
            raise ViolatedError("evidence_is_fresh", f"{message.key} was sent on evidence {age_s:.0f} s old")

    def durable(self, event: Event) -> None:
        """An event has become durable."""
        self._parameters.durable(event)

    def at_rest(self) -> None:
        """Nothing is under way any more."""
        self._parameters.at_rest()

    def executed(self, effect: Effect) -> None:
        """The plant has done something for us."""
        self.effects += 1
        message, key = effect.message, (effect.life, effect.message.key)
        self._done[key] += 1
        if self._done[key] > 1:
            raise ViolatedError("one_effect_a_key", f"{message.key} had {self._done[key]} effects")
        if message.epoch < effect.epoch_before:
            raise ViolatedError(
                "stale_epochs_are_fenced", f"{message.key} of epoch {message.epoch} after {effect.epoch_before}"
            )
        if message.parameters is not None:
            self._within_bounds(message.key, message.parameters.as_dict())
        self.forget_returned()
        if self._claims(message):
            return
        intent = self._intent(message)
        if message.what == "isolate" and effect.changed:
            self._ours.add(message.node)
            self._within_budgets(message, intent)

    def forget_returned(self) -> None:
        """Whoever takes part again is no longer held out by us."""
        if self._ours:
            self._ours &= self._core.out

    def _claims(self, message: Message) -> bool:
        """Whether it only lets the plant see the epoch."""
        return message.what == "apply" and message.key == f"{self._prefix}{message.epoch}/claim"

    def _intent(self, message: Message) -> Intended:
        intent = self._ground.intents.get(message.key.removeprefix(self._prefix))
        if intent is None:
            raise ViolatedError("intents_come_first", f"{message.key} reached the plant without a durable intent")
        return intent

    def _within_bounds(self, key: str, values: dict[str, float]) -> None:
        for name, (low, high) in PARAMETER_BOUNDS.items():
            if not low <= values[name] <= high:
                raise ViolatedError("parameters_within_bounds", f"{key}: {name} = {values[name]}")

    def _within_budgets(self, message: Message, intent: Intended) -> None:
        ground, members = self._ground, self._core.cluster_of
        cluster = members[message.node]
        out_in_cluster = sum(members[node] == cluster for node in self._ours)
        policies = [intent.policy]
        if intent.what == "renew":
            # It keeps what was: others may have been taken out under another policy, or while there were more nodes.
            held = {node: ground.isolations[node] for node in self._ours}
            policies += [ground.policy, *(isolation.policy for isolation in held.values())]
            intent = replace(
                intent,
                nodes=max(isolation.nodes for isolation in held.values()),
                members=max(isolation.members for node, isolation in held.items() if members[node] == cluster),
            )
        limits = [_limits(policy, intent, len(self._ours), out_in_cluster) for policy in policies]
        for budget in zip(*limits, strict=True):
            name, out, allowed = max(budget, key=lambda limit: limit[2])
            if out > allowed + SLACK:
                raise ViolatedError(
                    "budgets_hold", f"{message.key}: {out} out, {name} allows {allowed:g}: {sorted(self._ours)}"
                )


def _limits(
    policy: IsolationPolicy, intent: Intended, out: int, out_in_cluster: int
) -> tuple[tuple[str, int, float], ...]:
    """Each budget with what is out after the action, and what may be."""
    return (
        ("fraction_max", out, policy.fraction_max * intent.nodes),
        ("absolute_max", out, float("inf") if policy.absolute_max is None else policy.absolute_max),
        ("cluster_fraction_max", out_in_cluster, policy.cluster_fraction_max * intent.members),
        ("quorum", out_in_cluster, intent.members - policy.quorum),
    )
