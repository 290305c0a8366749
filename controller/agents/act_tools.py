"""The tools that act: each is a command of the API, decided by the same guards and journaled like everybody else's.

They exist only where the server was started with `--allow-act` and a token; whether that token may control is for the
API to say. Every command has a reason and an idempotency key.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from controller.agents import answers
from controller.agents.daemon import AskedDaemon, seconds

Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        pattern=r"\S",
        description="Why, with the evidence in a sentence; stands in the journal beside the token's name.",
    ),
]
Key = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=100,
        pattern=r"^[!-~]+$",
        description="Names this one intention: the same key with the same arguments, whatever the reason is, does "
        "nothing twice, and with others it is refused. Give one of "
        "your own, or leave it out and take the one that the answer tells. To try a refused command again later, use "
        "a new one.",
    ),
]
NodeName = Annotated[str, Field(min_length=1, max_length=200, description="A node's name, from `nodes`.")]
ProposalId = Annotated[str, Field(min_length=1, max_length=200, description="Like p-0123456789ab.")]
Length = Annotated[str, Field(max_length=40, description="Like 90s, 30m or 2h.")]


class ActTools:
    """Commands to one daemon."""

    def __init__(self, daemon: AskedDaemon) -> None:
        self._daemon = daemon

    def approve_proposal(self, proposal_id: ProposalId, reason: Reason, idempotency_key: Key = None) -> answers.Done:
        """Approve an improvement proposal that waits for a decision.

        Only after you have read it with `proposal`, proven it with `verify_proposal` and, where it changes settings,
        tried it with `backtest_change`, and only where the people you work for leave that decision to you. It cannot
        be taken back.
        """
        return self._order(("proposals", proposal_id, "approve"), {"reason": reason}, idempotency_key)

    def reject_proposal(self, proposal_id: ProposalId, reason: Reason, idempotency_key: Key = None) -> answers.Done:
        """Reject an improvement proposal that waits for a decision; it cannot be taken back.

        Leave it waiting where you are not sure: an open proposal does no harm.
        """
        return self._order(("proposals", proposal_id, "reject"), {"reason": reason}, idempotency_key)

    def pause(self, duration: Length, reason: Reason, idempotency_key: Key = None) -> answers.Done:
        """Let the controller start nothing new for a while; it goes on by itself then.

        For planned work on the plant, or when the controller itself seems wrong. While it is paused bad nodes are not
        isolated and nothing heals: keep it as short as possible, and `resume` when you are done.
        """
        return self._order(("control", "pause"), {"for_s": seconds(duration), "reason": reason}, idempotency_key)

    def resume(self, reason: Reason, idempotency_key: Key = None) -> answers.Done:
        """Go on before a pause is over. It does not end SAFE_MODE, which is for people to end."""
        return self._order(("control", "resume"), {"reason": reason}, idempotency_key)

    def isolate(
        self, node: NodeName, reason: Reason, duration: Length | None = None, idempotency_key: Key = None
    ) -> answers.Done:
        """Take a node out of service; its load goes to its peers.

        Seldom needed: the policy isolates confirmed gravity wells by itself, and `explain` says why it has not. Only
        for evidence that the controller cannot see. The same budgets and quorums hold as for the policy; a refusal
        names the guard, and no other argument gets around it. Without `duration` it lasts as long as the policy
        would let it. Verify with `nodes`.
        """
        body = {"node": node, "for_s": None if duration is None else seconds(duration), "reason": reason}
        return self._order(("control", "isolate"), body, idempotency_key)

    def restore(self, node: NodeName, reason: Reason, idempotency_key: Key = None) -> answers.Done:
        """Let an isolated node back in, on probation, before its time is over.

        Only once its cause has been mended: the policy lets clean nodes in by itself, and one that comes back bad is
        isolated again for longer.
        """
        return self._order(("control", "restore"), {"node": node, "reason": reason}, idempotency_key)

    def _order(self, path: tuple[str, ...], body: Mapping[str, object], key: str | None) -> answers.Done:
        used = str(uuid.uuid4()) if key is None else key
        answer = self._daemon.post(*path, body=body, key=used)
        return answers.Done(
            text=answer["text"],
            repeated=answer["repeated"],
            seq=answer["seq"],
            hash=answer["hash"],
            idempotency_key=used,
        )
