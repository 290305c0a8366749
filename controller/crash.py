"""What people get instead of a bare traceback when IACE itself is at fault: a file to send to those who can mend it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from state.outcome import ExitCode, code_of

DRILL = "IACE_TEST_FAIL"
TRACE_LINES_MAX = 3


def bugs(errors: Iterable[BaseException]) -> list[BaseException]:
    """Those of `errors` that nobody foresaw."""
    return [error for error in errors if code_of(error) is ExitCode.INTERNAL_ERROR]


def write(directory: Path, errors: Iterable[BaseException]) -> str:
    """Write the tracebacks to a new file in `directory`; where it is, or the last lines if it cannot be written."""
    traces = ["".join(traceback.format_exception(error)) for error in errors]
    path = directory / f"iace-crash-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.txt"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(traces), encoding="utf-8")
    except OSError:
        return " / ".join(" | ".join(trace.splitlines()[-TRACE_LINES_MAX:]) for trace in traces)
    return str(path)


def fire_drill() -> None:
    """Fail as a bug would, where the environment asks for it: that way anybody can try exit code 70."""
    if os.environ.get(DRILL) == "internal":
        raise RuntimeError(f"fire drill: {DRILL}=internal asks for an internal error")
