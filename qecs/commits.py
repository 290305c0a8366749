"""What becomes of a single transaction? One desk that executes it at most once, and says the same ever after.

Money. The sender is debited `amount`. The fee is one hundredth of it, floored; half of the fee, floored, is burned.
The other half rewards the receiver as the relay of the transaction, so that the receiver is credited `amount - burned`
(1000 tokens: fee 10, burned 5, credited 995, as in docs/model.md section 1). A transaction mints nothing.

Accounts are node ids, whose balance is the node's own, and guest accounts of any other name, which start at 0. A name
that reads like a node id but is none is refused, because it is a slip of the pen. A sender cannot be its own receiver:
that would move nothing and burn the fee. The account of an isolated node is frozen, in both directions.

At most once. An id that was executed is remembered for as long as the chain, because the chain itself is the memory.
An identical replay (the whole request equal, unknown keys included) is answered with the first answer, any other
request under that id is a conflict. A well-formed transaction that was refused is remembered too, among the last
`REJECTIONS_MAX` refusals: a client that repeats it gets the refusal again even if funds have arrived since, and must
use a new id to try again. This is the safe side: a client that gave up cannot be debited by a late duplicate. Refusals
do not outlive the process. A malformed request leaves no trace.

Not thread-safe: the lock that guards the cluster guards its desk.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from qecs.block import canonical_json
from qecs.entry import CommitEntry
from qecs.errors import UnknownTargetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qecs.cluster import Cluster

AMOUNT_MAX: Final = 2**63 - 1
FEE_DIVISOR: Final = 100
BURN_DIVISOR: Final = 2
ID_LENGTH_MAX: Final = 128
REJECTIONS_MAX: Final = 10_000

_NODE_LIKE = re.compile(r"node-[0-9]+")
_ACCOUNT = re.compile(r"[A-Za-z0-9._:/@-]{1,64}")


class Outcome(StrEnum):
    """How a transaction ended; the word in the answer's `status`."""

    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    CONFLICT = "CONFLICT"


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """What the client is told.

    Attributes:
        outcome: how it ended.
        fields: the answer as JSON-ready values, `status` included.
    """

    outcome: Outcome
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Transaction:
    """A well-formed request."""

    id: str
    sender: str
    receiver: str
    amount: int
    content: str


class CommitDesk:
    """Takes transactions for one cluster; on a recovered ledger it remembers all that were executed.

    Args:
        cluster: its balances are changed in place and its ledger records every transaction.

    Attributes:
        executed: transactions executed by this desk, those of a recovered ledger not counted.
        burned: tokens that they burned.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.executed = 0
        self.burned = 0
        self._heights = {entry.id: height for height, entry in cluster.ledger.entries()}
        self._guests = cluster.ledger.guest_balances()
        self._rejected: OrderedDict[str, tuple[str, CommitAnswer]] = OrderedDict()

    def commit(self, request: Mapping[str, Any]) -> CommitAnswer:
        """Execute `{id, sender, receiver, amount, ...}`, or refuse it, or repeat the first answer.

        Raises:
            LedgerWriteError: it could not be recorded and was not executed.
        """
        read = _read(request)
        if isinstance(read, str):
            return _rejection(request.get("id"), "malformed", read)
        known = self._first_answer(read)
        if known is not None:
            return known
        refusal = self._refusal(read)
        if refusal is not None:
            self._remember_rejection(read, refusal)
            return refusal
        return self._execute(read)

    def balance(self, account: str) -> int:
        """Return the tokens that an account holds; 0 for a guest that was never paid.

        Raises:
            UnknownTargetError: the name is no account, neither of a node nor of a possible guest.
        """
        node = self.node(account)
        if node is not None:
            return int(self._cluster.balances[node])
        if not _ACCOUNT.fullmatch(account) or _NODE_LIKE.fullmatch(account):
            raise UnknownTargetError(f"no account {account!r}")
        return self._guests.get(account, 0)

    def guest_supply(self) -> int:
        """Return the tokens that all guest accounts hold together."""
        return sum(self._guests.values())

    def _first_answer(self, transaction: _Transaction) -> CommitAnswer | None:
        """Return the answer that this id was given before, a conflict if the content differs."""
        height = self._heights.get(transaction.id)
        if height is not None:
            entry = self._cluster.ledger.entry(height)
            content, answer = entry.content, _approval(entry, height)
        elif transaction.id in self._rejected:
            content, answer = self._rejected[transaction.id]
        else:
            return None
        if content == transaction.content:
            return answer
        return CommitAnswer(
            Outcome.CONFLICT,
            {
                "status": Outcome.CONFLICT.value,
                "tx_id": transaction.id,
                "reason": "this id was used before with another content",
            },
        )

    def _refusal(self, transaction: _Transaction) -> CommitAnswer | None:
        sender, receiver = transaction.sender, transaction.receiver
        for account in (sender, receiver):
            if self.node(account) is None and _NODE_LIKE.fullmatch(account):
                return _rejection(transaction.id, "unknown_account", f"no node {account!r}")
        if sender == receiver:
            return _rejection(transaction.id, "same_account", "sender and receiver are the same account")
        isolated = self._cluster.isolated()
        for account in (sender, receiver):
            if account in isolated:
                return _rejection(transaction.id, "isolated", f"{account!r} is isolated, its account is frozen")
        balance = self.balance(sender)
        if balance < transaction.amount:
            reason = f"insufficient funds: {sender!r} holds {balance}, not {transaction.amount}"
            return _rejection(transaction.id, "insufficient_funds", reason)
        return None

    def _execute(self, transaction: _Transaction) -> CommitAnswer:
        cluster = self._cluster
        fee = transaction.amount // FEE_DIVISOR
        burned = fee // BURN_DIVISOR
        snapshot = cluster.snapshot
        coherence = math.nan if snapshot is None else snapshot.kpis["coherence"]
        entry = CommitEntry(
            id=transaction.id,
            sender=transaction.sender,
            receiver=transaction.receiver,
            amount=transaction.amount,
            fee=fee,
            burned=burned,
            credited=transaction.amount - burned,
            sender_node=self.node(transaction.sender),
            receiver_node=self.node(transaction.receiver),
            content=transaction.content,
            coherence=coherence.hex() if math.isfinite(coherence) else None,
            tick_emission=cluster.ledger.last_emission,
        )
        # Recorded first: what is not safely in the ledger has not happened.
        header = cluster.ledger.append_commit(entry)
        self._heights[entry.id] = header.height
        self.executed += 1
        self.burned += entry.burned
        self._move(entry.sender, entry.sender_node, -entry.amount)
        self._move(entry.receiver, entry.receiver_node, entry.credited)
        return _approval(entry, header.height)

    def _move(self, account: str, node: int | None, tokens: int) -> None:
        if node is None:
            self._guests[account] = self._guests.get(account, 0) + tokens
        else:
            self._cluster.balances[node] += tokens

    def node(self, account: str) -> int | None:
        """Return the index of the node of that name, None if there is none."""
        # Ids sort as the nodes stand; a dictionary of a million ids would dwarf everything else.
        nodes = self._cluster.node_ids
        index = bisect_left(nodes, account)
        return index if index < len(nodes) and nodes[index] == account else None

    def _remember_rejection(self, transaction: _Transaction, answer: CommitAnswer) -> None:
        self._rejected[transaction.id] = (transaction.content, answer)
        if len(self._rejected) > REJECTIONS_MAX:
            self._rejected.popitem(last=False)


def _read(request: Mapping[str, Any]) -> _Transaction | str:
    """Return the transaction, or what is malformed about it."""
    problem = next(_problems(request), None)
    if problem is not None:
        return problem
    try:
        content = sha256(canonical_json(dict(request)).encode("ascii")).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return "the request is no plain JSON"
    return _Transaction(request["id"], request["sender"], request["receiver"], request["amount"], content)


def _problems(request: Mapping[str, Any]) -> Iterator[str]:
    missing = [key for key in ("id", "sender", "receiver", "amount") if key not in request]
    if missing:
        yield f"missing: {', '.join(missing)}"
        return
    if not _is_id(request["id"]):
        yield f"id must be 1 to {ID_LENGTH_MAX} printable characters"
    for key in ("sender", "receiver"):
        if not isinstance(request[key], str) or not _ACCOUNT.fullmatch(request[key]):
            yield f"{key} must be 1 to 64 letters, digits or any of ._:/@-"
    amount = request["amount"]
    if type(amount) is not int:
        yield f"amount must be an integer, not {type(amount).__name__}"
    elif not 0 < amount <= AMOUNT_MAX:
        yield f"amount must be within 1 and {AMOUNT_MAX}"


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= ID_LENGTH_MAX and value.isprintable()


def _approval(entry: CommitEntry, height: int) -> CommitAnswer:
    return CommitAnswer(
        Outcome.APPROVED,
        {
            "status": Outcome.APPROVED.value,
            "tx_id": entry.id,
            "C_system": None if entry.coherence is None else float.fromhex(entry.coherence),
            "fee": entry.fee,
            "emission": entry.tick_emission,
            "burned": entry.burned,
            "credited": entry.credited,
            "height": height,
        },
    )


def _rejection(identifier: object, code: str, reason: str) -> CommitAnswer:
    tx_id = identifier if _is_id(identifier) else None
    return CommitAnswer(
        Outcome.REJECTED,
        {"status": Outcome.REJECTED.value, "tx_id": tx_id, "code": code, "reason": reason},
    )
