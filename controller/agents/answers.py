"""What do the tools answer? One model each; the output schemas that agents see are made of them.

What the daemon tells in full and in its own shape (state, explanations, events, proposals) is handed on as it is, cut
to a bounded size; `omitted` says where something was left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Omitted = Annotated[
    dict[str, int], Field(description="Path to how many items were left out there to stay short; empty: all is here.")
]
Document = dict[str, Any]


class Answer(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(frozen=True)


class State(Answer):
    """Where the controller stands."""

    model_config = ConfigDict(frozen=True, extra="allow")

    phase: str = Field(description="GOVERNING is normal; SAFE_MODE and PAUSED change nothing.")
    meaning: str
    tick: int | None
    journal: Document = Field(description="Tip of the journal: `seq` and `hash`.")
    safe_mode: Document | None = Field(description="Null, or `reason`, `cause` and `way_out` of the hold.")
    pause: Document | None = Field(description="Null, or who paused, why and until which plant time.")
    wells: list[str] = Field(description="Confirmed gravity wells.")
    blocked: list[Any] = Field(description="Wells that a safety guard forbids to isolate.")
    omitted: Omitted


class KpiValue(Answer):
    """A KPI now."""

    name: str
    value: float | None = Field(description="Null: not known yet or not measured; never zero by default.")
    unit: str
    status: Literal["healthy", "warning", "critical", "unknown", "no limit"]
    side: Literal["at_least", "at_most"] | None = Field(description="Which side of the limits is the good one.")
    healthy: float | None = Field(description="The limit of health.")
    critical: float | None
    help: str


class Kpis(Answer):
    """All KPIs of the latest tick."""

    timestamp: str
    tick: int
    phase: str
    system_health: Literal["STABLE", "WARNING", "CRITICAL"]
    kpis: list[KpiValue] = Field(description="Those outside their limits first.")
    parameters: dict[str, float | None] = Field(description="The plant's tunable parameters in force.")


class Sample(Answer):
    """A value at a time."""

    timestamp: str
    value: float | None


class History(Answer):
    """A series, oldest first."""

    metric: str
    samples: list[Sample]
    step_s: float | None = Field(description="Seconds that one sample stands for; null: as it was measured.")
    aggregate: str | None = Field(description="What is made of the values of a step.")
    first: float | None
    last: float | None
    least: float | None
    greatest: float | None


class Node(Answer):
    """A node; more fields may come."""

    model_config = ConfigDict(frozen=True, extra="allow")

    node: str
    cluster: str
    gravity: float | None = Field(description="|g|; null: not known.")
    status: str
    until: str | None = Field(description="When an isolation ends by itself unless it is renewed.")
    why: str


class Nodes(Answer):
    """Nodes, the worst first."""

    total: int = Field(description="How many fit the filters; `nodes` may be fewer.")
    nodes: list[Node]
    omitted: Omitted


class Explanation(Answer):
    """Why."""

    explanation: Document
    omitted: Omitted


class ProposalLine(Answer):
    """A proposal in short."""

    id: str
    status: str
    kind: str
    title: str
    summary: str


class Proposals(Answer):
    """Proposals, the newest first."""

    total: int = Field(description="How many fit the filter; `proposals` may be fewer.")
    proposals: list[ProposalLine]
    omitted: Omitted


class Proposal(Answer):
    """One proposal in full."""

    proposal: Document
    omitted: Omitted


class Proof(Answer):
    """Whether a proposal is what was journaled."""

    proven: bool
    chain_whole: bool = Field(description="Whether every event of the journal follows from the one before it.")
    problem: str | None = Field(default=None, description="What contradicts what; null where it is proven.")
    sha256: str | None = Field(default=None, description="Of the document's file, as it was journaled.")
    written_seq: int | None = Field(default=None, description="The event that says it was written.")
    anchor_seq: int | None = Field(
        default=None, description="The event up to which the journal stood when it was made."
    )
    events: int | None = Field(default=None, description="How many events were checked.")


class Journal(Answer):
    """Events, oldest first."""

    events: list[Document] = Field(description="`seq`, `hash`, `at_s` (plant time), `kind`, `text` and `data`.")
    tip_seq: int = Field(description="Sequence of the newest event there is.")
    next_after: int | None = Field(description="`after` of the following page; null: no more yet.")
    omitted: Omitted


class Done(Answer):
    """A command that was accepted and journaled. It is begun, not finished: read back what became of it."""

    text: str = Field(description="What will happen.")
    repeated: bool = Field(description="True: this key had been used for the same command, nothing was done again.")
    seq: int | None = Field(description="The journal's sequence after it.")
    hash: str | None = Field(description="The journal's hash there.")
    idempotency_key: str


class Change(Answer):
    """A setting's two values."""

    before: Any
    after: Any


class Decision(Answer):
    """Something that the policy would have done, at a plant time."""

    at_s: float
    kind: str
    subject: str
    reason: str


class Recorded(Answer):
    """What was backtested on."""

    source: str
    ticks: int
    first_s: float
    last_s: float
    nodes: int
    bad_rows: int
    evidence: str


class Backtest(Answer):
    """The same recording under the configuration in force and under the changed one."""

    recording: Recorded
    changed: dict[str, Change]
    verdict: Literal["better", "as good", "worse"] = Field(description="By cost alone: read the totals before it.")
    cost_node_s_before: float = Field(description="Node-seconds that bad nodes served plus that others were out.")
    cost_node_s_after: float
    totals_before: dict[str, float]
    totals_after: dict[str, float]
    only_before: list[Decision] = Field(description="Decisions that would no longer have been taken, the first ones.")
    only_before_total: int
    only_after: list[Decision] = Field(description="Decisions that would have been taken in addition, the first ones.")
    only_after_total: int
    same_configuration_as_daemon: bool | None = Field(
        description="Whether `before` is what the daemon runs with; false where it was started with other settings or "
        "flags; null where that is not known."
    )
    not_applied: list[str] = Field(description="What a recording cannot show.")
