"""How are files for others written? Whole or not at all, and never with a value that JSON cannot carry."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from metrics.errors import NotPermittedError, StoreFailedError

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> Path:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the new one and nothing between.

    Missing directories are made. Nobody but those whom `mode`, less the umask, allows gets to see the content, at no
    time. Returns `path`.

    Raises:
        OSError: the directory or the file cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # a process of this number may have been killed here: its file may have another mode
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path


def unwritable(what: str, directory: Path, error: OSError) -> NotPermittedError | StoreFailedError:
    """The error of the family where a directory of reports cannot be used; `what` is a sentence up to its name."""
    text = f"{what} {directory}: {error.strerror or error}"
    if error.errno in _FORBIDDEN:
        return NotPermittedError(f"{text}; choose another directory with --report")
    return StoreFailedError(f"{text}; free space or choose another directory with --report")


def jsonable(value: object) -> object:
    """`value` as plain JSON values: NaN and infinities become null, NumPy scalars numbers, what is unknown its text."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(str(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [jsonable(item) for item in value]
    return str(value)


def json_bytes(document: Mapping[str, object]) -> bytes:
    """A JSON document for people and machines: indented, UTF-8, one newline at its end.

    Raises:
        ValueError: the document holds NaN or an infinity.
    """
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
