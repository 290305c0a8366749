"""Which points did a server refuse, and why? Kept for people, in a bounded file.

Each line of the file is a JSON object with `reason` and `line`. A full file becomes `<name>.1`, in place of an older
one, so that at least the last half of the bound is always there. What cannot be written down is logged and counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(f"iace.{__name__}")


class Refused(NamedTuple):
    """A line that a server will not take, and its reason."""

    line: bytes
    reason: str


class DeadLetter:
    """The file `path`, which with its older part takes up to `bytes_max` bytes; its directory must exist."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._part_max = bytes_max // 2
        self.unwritten = 0  # refused lines that are in no file

    def add(self, refused: Iterable[Refused]) -> None:
        """Append; a disk that fails costs the record, never the caller."""
        letters = [
            json.dumps({"reason": reason, "line": line.decode("utf-8", "replace")}).encode() + b"\n"
            for line, reason in refused
        ]
        try:
            while letters:
                letters = self._append(letters)
        except OSError as error:
            self.unwritten += len(letters)
            _log.warning("%s: %d refused lines cannot be kept: %s", self._path, len(letters), error)

    def _append(self, letters: list[bytes]) -> list[bytes]:
        """Append what fits into the present part, and start a new one for the rest, which is returned."""
        with self._path.open("ab") as file:
            room = self._part_max - file.tell()
            fitting = 0
            for letter in letters:
                if len(letter) > room:
                    break
                room -= len(letter)
                fitting += 1
            file.write(b"".join(letters[:fitting]))
            empty = not file.tell()
        if fitting == len(letters):
            return []
        if empty and not fitting:  # it fits into no part at all
            self.unwritten += 1
            return letters[1:]
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        return letters[fitting:]
