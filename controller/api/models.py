"""What goes in and out over HTTP? One model for each body, query and answer; the OpenAPI document is made of them.

What comes in is strict: nothing unknown, no text for a number, nothing that is not finite. What goes out is described
by its models and not checked against them at run time; tests do that.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from controller.api.telemetry import unix_s
from metrics.store.protocol import Aggregate
from state.command import ExemptionKind

NodeStanding = Literal["", "healthy", "suspect", "isolating", "isolated", "probation", "out, not by us"]
ProposalStanding = Literal["", "proposed", "approved", "rejected", "expired", "applied", "verified", "rolled_back"]

DURATION_MAX_S = 31_536_000.0
EVENTS_MAX = 1000
NODES_MAX = 100_000
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")


class Strict(BaseModel):
    """What all bodies and queries share."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _plain_number(value: object) -> object:
    """Text in a query is a number only if it is written like one: no blanks, no underscores."""
    if not isinstance(value, str):
        return value
    if not _PLAIN_NUMBER.fullmatch(value):
        raise ValueError("write a number in plain digits")
    return int(value) if value.removeprefix("-").isdigit() else float(value)


def _moment(value: str | None) -> str | None:
    if value is not None:
        unix_s(value)
    return value


def _without_surrogates(text: str) -> str:
    text.encode()
    return text


def _never_null(schema: dict[str, Any]) -> None:
    """What may be left out of a query is never null there: a query cannot express that."""
    schema.update(schema.pop("anyOf")[0])
    del schema["default"]


_PLAIN = BeforeValidator(_plain_number)
Reason = Annotated[
    str,
    Field(min_length=1, max_length=500, pattern=r"\S", description="Why; stands in the journal beside your name."),
    AfterValidator(_without_surrogates),
]
NodeName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_without_surrogates)]
Duration = Annotated[float, Field(gt=0, le=DURATION_MAX_S, description="Plant seconds.")]
Moment = Annotated[
    str | None,
    Field(max_length=64),
    AfterValidator(_moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 999_999_999_999},
                {"type": "string", "format": "date-time", "maxLength": 40},
            ]
        }
    ),
]


class ReasonBody(Strict):
    """A command that needs nothing but a reason."""

    reason: Reason


class PauseBody(ReasonBody):
    """How long to start nothing new."""

    for_s: Duration


class IsolateBody(ReasonBody):
    """Which node to take out, and for how long; left out: for as long as the policy would."""

    node: NodeName
    for_s: Duration | None = None


class NodeBody(ReasonBody):
    """Which node."""

    node: NodeName


class ExemptBody(NodeBody):
    """Which node to leave alone, from when and for how long."""

    kind: Annotated[ExemptionKind, Field(strict=False)]
    for_s: Duration
    in_s: Annotated[float, Field(ge=0, le=DURATION_MAX_S, description="Plant seconds from now.")] = 0.0


class HistoryQuery(Strict):
    """Which part of a history; without `start` the last `hours` before `end` or the newest sample."""

    hours: Annotated[float | None, _PLAIN] = Field(
        default=None,
        gt=0,
        le=100_000,
        description="24 where neither it nor start is given.",
        json_schema_extra=_never_null,
    )
    start: Moment = Field(default=None, description="Unix seconds, or ISO 8601.")
    end: Moment = Field(default=None, description="Unix seconds, or ISO 8601; not included.")
    step: Annotated[float | None, _PLAIN] = Field(
        default=None,
        gt=0,
        le=DURATION_MAX_S,
        description="Seconds of one aggregate; longer where there would be more than 10,000.",
        json_schema_extra=_never_null,
    )
    aggregate: Literal["mean", "min", "max", "last"] = Field(
        default=Aggregate.MEAN.value, description="What is made of the samples of a step."
    )


class MetricsQuery(Strict):
    """Names alone, or more."""

    detail: Literal["0", "1"] = Field(default="0", description="1 for unit, help and limits.")


class StreamQuery(Strict):
    """How many events to send."""

    events: Annotated[int | None, _PLAIN] = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="End after so many; never by default.",
        json_schema_extra=_never_null,
    )


class NodesQuery(Strict):
    """Which nodes."""

    status: NodeStanding = Field(default="", description="Only those that stand there; empty: all.")
    cluster: str = Field(default="", max_length=200, description="Only those of one cluster.")
    limit: Annotated[int, _PLAIN] = Field(
        default=1000, ge=1, le=NODES_MAX, description="The worst by |g|, at most so many."
    )


class JournalQuery(Strict):
    """Which events."""

    after: Annotated[int, _PLAIN] = Field(default=0, ge=0, le=2**53, description="Events with a sequence beyond it.")
    limit: Annotated[int, _PLAIN] = Field(default=100, ge=1, le=EVENTS_MAX)


class IdempotencyHeaders(BaseModel):
    """A repeated command with the same key is answered again, and not done again."""

    key: str = Field(default="", alias="Idempotency-Key", max_length=128, pattern=r"^[!-~]*$")


class StreamHeaders(BaseModel):
    """Where to go on."""

    last_id: str = Field(default="", alias="Last-Event-ID", description="The id of the last event received.")


class Answer(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["success"]


class Error(BaseModel):
    """What went wrong, and what to do about it."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["error"]
    message: str
    guard: str | None = Field(default=None, description="What forbade a command.")
    seq: int | None = Field(
        default=None, description="Journal sequence of a command's refusal; null where its key was used before."
    )
    hash: str | None = Field(default=None, description="Journal hash there.")
    repeated: bool = Field(default=False, description="Whether a command had been answered under its key before.")
    problems: list[str] = Field(default_factory=list, description="Every fault of the request or of what is missing.")


class Current(BaseModel):
    """One tick. Figures that are not known are null; all KPIs of the catalogue are there, by their own names."""

    model_config = ConfigDict(extra="allow")

    timestamp: str
    phase: str
    coherence: float | None
    gas: float | None
    rsi: float | None
    lambda_opt: float | None
    delta_lambda: float | None
    caf_emission: float | None
    gravity_well_count: float | None
    stable_clusters: float | None
    transaction_rate: float | None
    system_health: Literal["STABLE", "WARNING", "CRITICAL"]
    tick: int
    plant_time_s: float
    parameters: dict[str, float | None]


class CurrentAnswer(Answer):
    """The latest tick."""

    data: Current


class HistorySample(BaseModel):
    """A value and its time."""

    model_config = ConfigDict(extra="forbid")

    timestamp: str
    value: float | None


class HistoryAnswer(Answer):
    """A history, oldest first; `step_s` is null where every sample is as it was measured."""

    metric: str
    data: list[HistorySample]
    step_s: float | None
    aggregate: str | None


class MetricLimits(BaseModel):
    """The limits in force."""

    model_config = ConfigDict(extra="forbid")

    side: Literal["at_least", "at_most"]
    healthy: float
    critical: float | None


class Metric(BaseModel):
    """One KPI."""

    model_config = ConfigDict(extra="forbid")

    name: str
    unit: str
    help: str
    window_ticks: int
    limits: MetricLimits | None


class MetricsAnswer(Answer):
    """Names, or the KPIs in detail."""

    metrics: list[str] | list[Metric]


class StatusAnswer(Answer):
    """How telemetry is doing."""

    system_status: Literal["STABLE", "WARNING", "CRITICAL", "NO_DATA"]
    latest_update: str | None
    history_records: int
    subscribers: int
    subscribers_dropped: int


class StateAnswer(Answer):
    """Where the controller stands."""

    data: dict[str, Any]


class NodesAnswer(Answer):
    """Nodes, the worst first, and how many fit the query."""

    total: int
    nodes: list[dict[str, Any]]


class ExplainAnswer(Answer):
    """Why."""

    data: dict[str, Any]


class ProposalsAnswer(Answer):
    """All proposals, the newest first."""

    proposals: list[dict[str, Any]]


class ProposalAnswer(Answer):
    """One proposal."""

    proposal: dict[str, Any]


class JournalAnswer(Answer):
    """Events, oldest first; `next` is the `after` of the following page, null where there are no more yet."""

    events: list[dict[str, Any]]
    next: int | None


class CommandAnswer(Answer):
    """What will happen. `seq` and `hash` are the journal's tip after it; null for a reload."""

    text: str
    repeated: bool
    seq: int | None
    hash: str | None


class HealthAnswer(BaseModel):
    """All is well."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok"]
