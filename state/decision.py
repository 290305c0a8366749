"""What a step of the governor amounts to, and how it is put together.

A decision is events (facts that are already part of the durable state), actions (to be carried out after the events
are in the journal) and refusals (what was not done, and why).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from metrics.errors import BadDataError, InvariantBreachError
from state.action import Action
from state.durable import DurableState
from state.event import Event, EventKind
from state.isolation import Refusal


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operator is told: whether it will be done, and what will happen, or why not.

    Attributes:
        accepted: whether the command takes effect.
        text: a sentence for people.
        guard: what forbade it, if a guard did.
        repeated: True where the same key had been answered before.
    """

    accepted: bool
    text: str
    guard: str | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What has been decided; nothing of it has been done yet. `answer` is set for commands alone."""

    events: tuple[Event, ...] = ()
    actions: tuple[Action, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    answer: Answer | None = None


@dataclass(slots=True)
class Draft:
    """A decision being put together at plant time `now_s`; every event takes effect on the state as it is recorded."""

    state: DurableState
    now_s: float
    events: list[Event] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    answer: Answer | None = None

    def record(self, kind: EventKind, /, **data: object) -> None:
        """A fact: applied to the state at once, journaled before any action is carried out.

        Raises:
            InvariantBreachError: the fact is impossible in this state, so deciding on it was a bug.
        """
        event = Event(kind, self.now_s, data)
        try:
            self.state.apply(event)
        except BadDataError as impossible:
            raise InvariantBreachError("facts_fit_the_state", str(impossible)) from impossible
        self.events.append(event)

    def act(self, action: Action) -> None:
        """Something to be done once the events are durable."""
        self.actions.append(action)

    def refuse(self, refusal: Refusal) -> None:
        """Something that is not done, with its explanation."""
        self.refusals.append(refusal)

    def finish(self) -> Decision:
        """The decision."""
        return Decision(tuple(self.events), tuple(self.actions), tuple(self.refusals), self.answer)
