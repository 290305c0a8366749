"""What does a commit block record of a transaction? Enough to audit it and to give its first answer again.

Money is conserved: the sender is debited `amount`, of which `burned` leaves the supply and `credited` reaches the
receiver, so `credited = amount - burned`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from qecs.block import canonical_json


@dataclass(frozen=True, slots=True)
class CommitEntry:
    """One executed transaction.

    Attributes:
        id: the client's name for it, which never executes twice.
        sender: account that was debited.
        receiver: account that was credited.
        amount: tokens debited.
        fee: tokens of it that are the fee.
        burned: tokens of the fee that left the supply.
        credited: tokens that reached the receiver.
        sender_node: index of the sender's node, None for a guest account.
        receiver_node: index of the receiver's node, None for a guest account.
        content: hexadecimal SHA-256 of the whole request, unknown keys included.
        coherence: C at the time, as a hexadecimal float, None while its window has not filled.
        tick_emission: tokens that the latest tick minted.
    """

    id: str
    sender: str
    receiver: str
    amount: int
    fee: int
    burned: int
    credited: int
    sender_node: int | None
    receiver_node: int | None
    content: str
    coherence: str | None
    tick_emission: int

    def to_text(self) -> str:
        """Return the canonical JSON text that is hashed as the block's leaf."""
        return canonical_json(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> CommitEntry:
        """Return the entry that `to_text` wrote.

        Raises:
            ValueError: the text is not such an entry.
        """
        try:
            fields: Any = json.loads(text)
            entry = cls(**fields)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not a commit entry: {error}") from error
        if entry.to_text() != text:
            raise ValueError("not a commit entry: it does not read back as it was written")
        return entry
