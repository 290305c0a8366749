"""The tools that only read: where it stands, how it is doing, why, and what has happened.

Their docstrings are what agents read to choose between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from controller.agents import answers
from controller.agents.bounds import Bounded
from controller.agents.daemon import AskedDaemon, seconds
from controller.api.models import NodeStanding, ProposalStanding
from metrics.kpi import KpiStatus, Limit, Side

SAMPLES_MAX = 200
NODES_MAX = 100
EVENTS_MAX = 100
PROPOSALS_MAX = 50

Duration = Annotated[str, Field(max_length=40, description="Like 90s, 15m, 24h or 1h30m.")]
_WORST_FIRST = ("critical", "warning", "unknown", "healthy", "no limit")


class ReadTools:
    """Questions to one daemon."""

    def __init__(self, daemon: AskedDaemon) -> None:
        self._daemon = daemon

    def state(self) -> answers.State:
        """Where the controller stands: phase, why it holds and the way out, pause, trial, actions in flight, wells.

        Start here. In GOVERNING it acts by itself; in SAFE_MODE or PAUSED it observes and changes nothing, and
        `safe_mode.way_out` says what ends that. Read it again after every act. For figures use `kpis`.
        """
        document, omitted = _cut(self._daemon.get("control", "state")["data"], _STATE)
        return answers.State.model_validate({**document, "omitted": omitted})

    def kpis(self) -> answers.Kpis:
        """Every KPI now with unit, limits and status, those outside their limits first, and the plant's parameters.

        A single tick outside a limit is no finding: limits are judged by persistence, so look at `history` before you
        conclude anything. `unknown` means that a window has not filled or nothing was measured; do not guess a value.
        """
        current = self._daemon.get("telemetry", "current")["data"]
        described = self._daemon.get("telemetry", "metrics", detail=1)["metrics"]
        told = sorted((_kpi(kpi, current) for kpi in described), key=lambda kpi: _WORST_FIRST.index(kpi.status))
        return answers.Kpis(
            timestamp=current["timestamp"],
            tick=current["tick"],
            phase=current["phase"],
            system_health=current["system_health"],
            kpis=told,
            parameters=current["parameters"],
        )

    def history(
        self,
        metric: Annotated[
            str,
            Field(
                min_length=1,
                max_length=200,
                description="A KPI's name from `kpis`, parameter.NAME, or node.NODE.gravity.",
            ),
        ],
        last: Duration = "15m",
        step: Annotated[
            str | None, Field(max_length=40, description="One sample for so long, like 10s; longer where needed.")
        ] = None,
        aggregate: Annotated[
            Literal["mean", "min", "max", "last"], Field(description="What is made of the values of a step.")
        ] = "mean",
    ) -> answers.History:
        """How a metric went over the last while, up to its newest sample: at most 200 samples, oldest first.

        Use it to tell a spike from a lasting change, and to see what an isolation or a trial did. Where more samples
        were measured they are aggregated, and `step_s` says so: ask with `aggregate` min or max for a spike, which a
        mean hides.
        """
        last_s = seconds(last)
        query: dict[str, Any] = {"hours": last_s / 3600, "aggregate": aggregate}
        step_s = None if step is None else max(seconds(step), last_s / SAMPLES_MAX)
        answer = self._daemon.get("telemetry", "history", metric, step=step_s, **query)
        if len(answer["data"]) > SAMPLES_MAX:
            answer = self._daemon.get("telemetry", "history", metric, step=last_s / SAMPLES_MAX, **query)
        samples = [answers.Sample(**sample) for sample in answer["data"][-SAMPLES_MAX:]]
        known = [sample.value for sample in samples if sample.value is not None]
        return answers.History(
            metric=metric,
            samples=samples,
            step_s=answer["step_s"],
            aggregate=answer["aggregate"],
            first=known[0] if known else None,
            last=known[-1] if known else None,
            least=min(known, default=None),
            greatest=max(known, default=None),
        )

    def nodes(
        self,
        status: Annotated[NodeStanding, Field(description="Only those that stand there; empty: all.")] = "",
        cluster: Annotated[str, Field(max_length=200, description="Only those of one cluster; empty: all.")] = "",
        limit: Annotated[int, Field(ge=1, le=NODES_MAX, description="At most so many.")] = 20,
    ) -> answers.Nodes:
        """The nodes, the worst by |g| first, each with status and why.

        |g| (gravity) is how strongly a node pulls the cluster out of coherence; one above the critical |g| (1.5 unless
        configured otherwise) for some ticks is a gravity well, which the controller isolates by itself unless a guard
        forbids it. Do not page through a large plant: filter.
        """
        answer = self._daemon.get("nodes", status=status or None, cluster=cluster or None, limit=limit)
        bounded = Bounded()
        nodes = [answers.Node.model_validate(node) for node in bounded.items(answer["nodes"], "nodes")]
        return answers.Nodes(total=answer["total"], nodes=nodes, omitted=bounded.omitted)

    def explain(
        self,
        subject: Annotated[
            str, Field(min_length=1, max_length=200, description="A node, a cluster, or the sequence of an event.")
        ],
    ) -> answers.Explanation:
        """Why a node or cluster is, or is not, isolated, or why an event happened: the evidence and the guards.

        `not_done` lists what was considered and held back, with the guard, the observed value and its limit. Ask this
        before you propose or do anything about a node.
        """
        document, omitted = _cut(self._daemon.get("explain", subject)["data"])
        return answers.Explanation(explanation=document, omitted=omitted)

    def proposals(
        self,
        status: Annotated[ProposalStanding, Field(description="Only those that stand there; empty: all.")] = "",
    ) -> answers.Proposals:
        """The improvement proposals in short, the newest first, at most 50 of them.

        A proposal is made by the controller from its own evidence; one that is `proposed` waits for a decision. Read
        it in full with `proposal` before you judge it.
        """
        found = [one for one in self._daemon.get("proposals")["proposals"] if status in ("", one["status"])]
        bounded = Bounded()
        lines = bounded.items(
            [{name: one[name] for name in _PROPOSAL_LINE} for one in found[:PROPOSALS_MAX]], "proposals"
        )
        return answers.Proposals(
            total=len(found),
            proposals=[answers.ProposalLine.model_validate(line) for line in lines],
            omitted=bounded.omitted,
        )

    def proposal(
        self,
        proposal_id: Annotated[str, Field(min_length=1, max_length=200, description="Like p-0123456789ab.")],
    ) -> answers.Proposal:
        """One proposal in full: change, expected effects and how they were estimated, evidence, commands, anchor.

        `expectation.estimated` false means that nobody measured the effect. Where `change.settings` is not empty,
        try its `to` values with `backtest_change`.
        """
        document, omitted = _cut(self._daemon.get("proposals", proposal_id)["proposal"])
        return answers.Proposal(proposal=document, omitted=omitted)

    def journal(
        self,
        after: Annotated[
            int | None, Field(ge=0, le=2**53, description="Events with a sequence beyond it; left out: the newest.")
        ] = None,
        limit: Annotated[int, Field(ge=1, le=EVENTS_MAX, description="At most so many.")] = 20,
    ) -> answers.Journal:
        """What has happened: events of the hash-chained journal, oldest first, each with a sentence and its data.

        Every decision is here before its effect, also commands that were refused and by whom. Without `after` it
        gives the newest events; to follow along, ask again with `next_after` (or the last `seq` you have seen).
        """
        tip = int(self._daemon.get("control", "state")["data"]["journal"]["seq"])
        start = max(0, tip - limit) if after is None else after
        answer = self._daemon.get("journal", after=start, limit=limit)
        bounded = Bounded()
        events = [_document(event) for event in bounded.items(answer["events"], "events")]
        cut = len(events) < len(answer["events"])
        following = events[-1]["seq"] if cut else answer["next"]
        return answers.Journal(events=events, tip_seq=tip, next_after=following, omitted=bounded.omitted)


_PROPOSAL_LINE = tuple(answers.ProposalLine.model_fields)
_STATE = tuple(name for name in answers.State.model_fields if name != "omitted")


def _kpi(kpi: Mapping[str, Any], current: Mapping[str, Any]) -> answers.KpiValue:
    value, limits = current.get(kpi["name"]), kpi["limits"]
    status: str = "no limit"
    if limits is not None:
        limit = Limit(Side(limits["side"]), limits["healthy"], limits["critical"])
        status = limit.status(math.nan if value is None else value).value
    elif value is None:
        status = KpiStatus.UNKNOWN.value
    return answers.KpiValue.model_validate(
        {
            "name": kpi["name"],
            "value": value,
            "unit": kpi["unit"],
            "status": status,
            "side": None if limits is None else limits["side"],
            "healthy": None if limits is None else limits["healthy"],
            "critical": None if limits is None else limits["critical"],
            "help": kpi["help"],
        }
    )


def _cut(document: Mapping[str, Any], required: Sequence[str] = ()) -> tuple[answers.Document, dict[str, int]]:
    bounded = Bounded()
    return bounded.document(document, required), bounded.omitted


def _document(value: object) -> answers.Document:
    assert isinstance(value, dict)  # noqa: S101 - an object stays one when it is cut
    return value
