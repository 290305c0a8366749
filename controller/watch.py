"""`iace watch`: a running daemon, tick by tick. A live view on a terminal, one line a tick elsewhere.

A stream that breaks off, because the daemon restarts or the network does, is taken up again after the last tick seen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.live import Live

from controller.api_client import ApiClient, ApiUnreachableError
from controller.control_display import tick_line, watched
from controller.display import rich_console

ATTEMPTS_MAX = 5
RETRY_S = 2.0
WORST = 8
_REDRAW_S = 0.5  # what is asked for beside the stream costs the daemon something


def watch(client: ApiClient, *, ticks: int | None, as_json: bool) -> int:
    """Show every tick; returns the exit code.

    Args:
        client: asks the daemon.
        ticks: end after so many, None for never.
        as_json: one JSON object a line.

    Raises:
        ApiUnreachableError, NotPermittedError, ApiRefusedError: as the client.
    """
    console = rich_console(sys.stdout)
    if as_json or not console.is_terminal or console.is_dumb_terminal:
        for tick in _ticks(client, ticks):
            sys.stdout.write((json.dumps(tick) if as_json else tick_line(tick)) + "\n")
            sys.stdout.flush()
        return 0
    drawn_s = -_REDRAW_S
    with Live(console=console, auto_refresh=False, screen=False) as live:
        for tick in _ticks(client, ticks):
            now_s = time.monotonic()
            if now_s - drawn_s >= _REDRAW_S:
                drawn_s = now_s
                state = client.get("api", "control", "state")["data"]
                worst = client.get("api", "nodes", limit=WORST)["nodes"]
                live.update(watched(tick, state, worst), refresh=True)
    return 0


def _ticks(client: ApiClient, count: int | None) -> Iterator[dict[str, Any]]:
    """The ticks as they come, over as many streams as it takes."""
    last_id: str | None = None
    seen = attempts = 0
    while count is None or seen < count:
        try:
            for event_id, tick in client.events(last_id):
                last_id, attempts, seen = event_id, 0, seen + 1
                yield tick
                if seen == count:
                    return
        except ApiUnreachableError:
            if last_id is None or attempts >= ATTEMPTS_MAX:
                raise
        attempts += 1
        if attempts > ATTEMPTS_MAX:
            raise ApiUnreachableError(f"{client.url} keeps ending the event stream; see the daemon's log")
        time.sleep(RETRY_S)
