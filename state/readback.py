"""What is in flight, until the plant itself shows the effect, or should have.

A reply is a word, not an effect: only an observation received after the reply says what became of an action, and an
unknown result stays unknown until then; after a refusal it says whether there is still a node to act upon. What is not
seen in time has failed. The time starts with the first look after the reply, so that a plant that cannot be observed is
not taken for one that does not obey.
"""

from __future__ import annotations

from state.action import Reply
from state.decision import Draft
from state.durable import Intent, IntentKind, NodeStatus
from state.event import EventKind
from state.view import NodeView

REPLY_EVENTS = {
    Reply.APPLIED: EventKind.ACTION_APPLIED,
    Reply.REFUSED: EventKind.ACTION_REFUSED,
    Reply.UNKNOWN: EventKind.ACTION_UNKNOWN,
    Reply.VOID: EventKind.ACTION_ABANDONED,
}
_VERIFIED = {
    IntentKind.ISOLATE: EventKind.ISOLATION_VERIFIED,
    IntentKind.RENEW: EventKind.RENEWAL_VERIFIED,
    IntentKind.RESTORE: EventKind.RESTORATION_VERIFIED,
}
GONE = "the plant does not show the node any more"


class ReadBack:
    """The actions on nodes that are in flight; when they were answered and first looked for is volatile.

    Args:
        verify_s: for how long an action may stay unverified, in plant time and by the controller's clock: a fast plant
            must not outrun us, and what we take in late must not count against it.
    """

    def __init__(self, verify_s: float) -> None:
        self._verify_s = verify_s
        self._replied_at: dict[str, float] = {}
        self._first_look_s: dict[str, float] = {}
        self._refused: dict[str, str] = {}  # with the plant's words
        self._uncertain: set[str] = set()  # intents of which it is not even known whether they were ever sent

    def replied(self, draft: Draft, key: str, reply: Reply, reason: str, received_s: float) -> None:
        """Take the plant's answer; that it was never sent is the end of the action."""
        self._replied_at[key] = received_s
        draft.record(REPLY_EVENTS[reply], key=key, **({"reason": reason} if reason else {}))
        if reply is Reply.REFUSED:
            self._refused[key] = reason
        elif reply is Reply.VOID:
            self._forget(key)

    def reconcile(self, draft: Draft, now_received_s: float) -> None:
        """After a restart nothing is known of what was in flight: look before believing anything."""
        self._first_look_s.clear()
        self._uncertain = {key for key, i in draft.state.intents.items() if i.reply in (None, Reply.UNKNOWN)}
        for key in [key for key, intent in draft.state.intents.items() if intent.reply is None]:
            draft.record(EventKind.ACTION_UNKNOWN, key=key, reason="the controller was restarted")
        for key in draft.state.intents:
            self._replied_at[key] = now_received_s

    def settle(self, draft: Draft, seen: NodeView) -> list[Intent]:
        """Believe what the plant shows, give up on what does not show in time; the intents that have ended thereby."""
        ended = []
        for intent in list(draft.state.intents.values()):
            replied_at = self._replied_at.get(intent.key)
            if replied_at is None or seen.received_s <= replied_at:
                continue  # seen before the plant can have acted: it says nothing about this action
            waited_s = seen.received_s - replied_at
            if self._ends(draft, intent, seen.shown_active(intent.node), waited_s):
                ended.append(intent)
        return ended

    def notice_outsiders(self, draft: Draft, seen: NodeView) -> list[str]:
        """Nodes that we hold isolated and that the plant shows taking part: let in by somebody else, or by time.

        What the plant does not show any more is no longer ours to hold either, once its time limit has passed.
        """
        in_flight = {intent.node for intent in draft.state.intents.values()}
        held = {
            node: record
            for node, record in draft.state.nodes.items()
            if record.status is NodeStatus.ISOLATED and node not in in_flight
        }
        back = [node for node in held if seen.shown_active(node)]
        for node in back:
            draft.record(EventKind.ISOLATION_EXPIRED, node=node, reason="the plant shows it taking part")
        for node, record in held.items():
            if seen.shown_active(node) is None and draft.now_s >= record.until_s:
                draft.record(EventKind.ISOLATION_EXPIRED, node=node, reason="the plant does not show it any more")
        return back

    def _ends(
        self,
        draft: Draft,
        intent: Intent,
        active: bool | None,  # noqa: FBT001 - what the plant shows
        waited_s: float,
    ) -> bool:
        first_look_s = self._first_look_s.setdefault(intent.key, draft.now_s)
        if intent.reply is Reply.REFUSED:
            if active is None:
                self._abandon(draft, intent, GONE)  # who has left cannot be taken out, nor let in
            else:
                self._fail(draft, intent, self._refused.get(intent.key, "the plant refused it"))
            return True
        # That a time limit was moved cannot be seen: of a renewal only the plant's own word can be believed.
        believed = intent.kind is not IntentKind.RENEW or intent.reply is Reply.APPLIED
        if believed and active is (intent.kind is IntentKind.RESTORE):
            draft.record(_VERIFIED[intent.kind], key=intent.key, node=intent.node)
            self._forget(intent.key)
            return True
        if min(draft.now_s - first_look_s, waited_s) >= self._verify_s:
            if active is None:
                self._abandon(draft, intent, GONE)
            elif intent.kind is IntentKind.ISOLATE and draft.now_s >= intent.until_s:
                self._abandon(draft, intent, "its time limit had passed before anybody looked")
            else:
                self._fail(draft, intent, f"not seen at the plant within {self._verify_s:g} s")
            return True
        return False

    def _fail(self, draft: Draft, intent: Intent, reason: str) -> None:
        if intent.key in self._uncertain:
            self._abandon(draft, intent, reason)  # the controller died before it was sent: nobody has disobeyed
            return
        # Where a renewal fails the old time limit holds, and it is tried again.
        kind = EventKind.RENEWAL_FAILED if intent.kind is IntentKind.RENEW else EventKind.ISOLATION_FAILED
        draft.record(kind, key=intent.key, node=intent.node, reason=reason)
        self._forget(intent.key)

    def _abandon(self, draft: Draft, intent: Intent, reason: str) -> None:
        draft.record(EventKind.ACTION_ABANDONED, key=intent.key, node=intent.node, reason=reason)
        self._forget(intent.key)

    def _forget(self, key: str) -> None:
        self._uncertain.discard(key)
        self._refused.pop(key, None)
        self._replied_at.pop(key, None)
        self._first_look_s.pop(key, None)
