"""How much does an agent have to read? JSON values cut to a bounded size, with a note of what was left out.

Whatever an agent is told takes up room in its context, and a plant of a thousand nodes has a long state. Only what is
too long is cut, from its end, and where and how much is said, so that nobody takes a part for the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CHARACTERS_MAX = 60_000  # of one answer, roughly as JSON
ITEMS_MAX = 50  # of each list and object within
TEXT_MAX = 2000  # characters of one text
DEPTH_MAX = 12
_VALUE_CHARACTERS = 12  # what a number takes with its punctuation


@dataclass(slots=True)
class Bounded:
    """Cuts the values of one answer.

    Attributes:
        omitted: path to how many items, or characters of a text, were left out there.
    """

    omitted: dict[str, int] = field(default_factory=dict)
    _left: int = CHARACTERS_MAX

    def items(self, values: Sequence[object], path: str) -> list[object]:
        """As many of `values` as fit, each whole but for what is too long in itself; at least the first."""
        kept: list[object] = []
        for value in values:
            noted = dict(self.omitted)
            item = self.cut(value, f"{path}[{len(kept)}]")
            if self._left <= 0 and kept:
                self.omitted = noted
                self._note(path, len(values) - len(kept))
                break
            kept.append(item)
        return kept

    def document(self, value: Mapping[str, object], required: Sequence[str] = ()) -> dict[str, object]:
        """As much of an object as fits; `required` fields come first, and are there, if empty, in any case."""
        first = {name: self.cut(value[name], name, 1) for name in required}
        return first | self._object({name: item for name, item in value.items() if name not in first}, "", 0)

    def cut(self, value: object, path: str = "", depth: int = 0) -> object:
        """`value`, a JSON value, or as much of it as fits."""
        self._left -= _VALUE_CHARACTERS
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, Mapping):
            return self._object(value, path, depth)
        if isinstance(value, list | tuple):
            return self._list(value, path, depth)
        return value

    def _text(self, value: str, path: str) -> str:
        kept = value[: max(0, min(TEXT_MAX, self._left))]
        if len(kept) < len(value):
            self._note(path, len(value) - len(kept))
        self._left -= len(kept)
        return kept

    def _object(self, value: Mapping[str, object], path: str, depth: int) -> dict[str, object]:
        kept: dict[str, object] = {}
        for name, item in value.items():
            if self._full(len(kept), depth):
                self._note(path, len(value) - len(kept))
                break
            self._left -= len(name)
            kept[name] = self.cut(item, f"{path}.{name}" if path else name, depth + 1)
        return kept

    def _list(self, value: Sequence[object], path: str, depth: int) -> list[object]:
        kept: list[object] = []
        for item in value:
            if self._full(len(kept), depth):
                self._note(path, len(value) - len(kept))
                break
            kept.append(self.cut(item, f"{path}[{len(kept)}]", depth + 1))
        return kept

    def _full(self, count: int, depth: int) -> bool:
        return count >= ITEMS_MAX or depth >= DEPTH_MAX or self._left <= 0

    def _note(self, path: str, count: int) -> None:
        if len(self.omitted) < ITEMS_MAX:
            self.omitted[path or "."] = count
