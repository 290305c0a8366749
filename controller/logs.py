"""The log on standard error: plain lines for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO

from controller.settings import LogSettings


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time, so that a redirected one is followed."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there, looked up anew here
        """Standard error now."""
        return sys.stderr


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One object a line."""
        fields = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        return json.dumps(fields, ensure_ascii=False)


def set_up(settings: LogSettings) -> None:
    """Log what the configuration asks for, from now on."""
    handler = _StandardError()
    plain = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if settings.format == "json" else plain)
    logger = logging.getLogger("iace")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    # A tick that comes while another one runs is left out, and the loop makes up for it: nothing to warn about.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
