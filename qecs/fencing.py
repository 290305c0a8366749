"""May this write happen, and has it happened already? Epochs and idempotency keys.

Every author of writes carries an epoch, a number that grows with each change of leadership. Once a higher one was seen
a lower one is refused, so that a leader that was deposed without noticing cannot act. Every write carries an
idempotency key. The same key with the same content gets the first answer again and does nothing, with another content
it is refused. A write that failed is not remembered: its author may repeat it.

The last `KEYS_MAX` keys are remembered, and neither keys nor epoch outlive the process.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from qecs.errors import InvalidRequestError, QecsError, StaleEpochError

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS_MAX: Final = 10_000
KEY_LENGTH_MAX: Final = 128
EPOCH_MAX: Final = 2**63 - 1


class KeyReusedError(QecsError):
    """An idempotency key that was used before for something else: choose a new one."""


class WriteGate:
    """Lets each write through once, in the order of epochs. Not thread-safe.

    Attributes:
        epoch: the highest seen.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._answers: OrderedDict[str, tuple[object, dict[str, Any]]] = OrderedDict()

    def once(self, key: object, epoch: object, content: object, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the answer of `act`, or the first answer if this write happened before.

        Args:
            key: idempotency key, 1 to 128 printable characters.
            epoch: of the author, an integer from 0 on.
            content: what the write is about; compared with that of the first write under this key.
            act: does it.

        Raises:
            InvalidRequestError: key or epoch is malformed.
            StaleEpochError: a higher epoch was seen.
            KeyReusedError: the key was used for another content.
        """
        name, number = _require_key(key), _require_epoch(epoch)
        if number < self.epoch:
            raise StaleEpochError(f"epoch {number} is stale, {self.epoch} has been seen")
        self.epoch = number
        known = self._answers.get(name)
        if known is not None:
            if known[0] != content:
                raise KeyReusedError(f"idempotency key {name!r} was used before for something else")
            return known[1]
        answer = act()
        self._answers[name] = (content, answer)
        if len(self._answers) > KEYS_MAX:
            self._answers.popitem(last=False)
        return answer


def _require_key(key: object) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidRequestError(f"idempotency_key must be 1 to {KEY_LENGTH_MAX} printable characters")
    return key


def _require_epoch(epoch: object) -> int:
    if type(epoch) is not int or not 0 <= epoch <= EPOCH_MAX:
        raise InvalidRequestError(f"epoch must be an integer within 0 and {EPOCH_MAX}")
    return epoch
