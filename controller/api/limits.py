"""How much may one client ask for? A token bucket for each address, in bounded memory.

Left out: how long a request may take to arrive, and how long its body may be; the server sees to that (`server.py`).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

CLIENTS_MAX = 10_000


class RateLimit:
    """Requests by client; safe to share between threads.

    A client that has been quiet for longest is forgotten first; its bucket has then filled, unless more than
    `CLIENTS_MAX` others came meanwhile.

    Args:
        rate_per_s: requests a second in the long run.
        burst: requests at once.
        clock: monotonic seconds.
    """

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """0 where the request may pass, which is then counted; else after how many seconds to try again."""
        with self._lock:
            now_s = self._clock()
            left, at_s = self._buckets.pop(client, (self._burst, now_s))
            left = min(self._burst, left + (now_s - at_s) * self._rate_per_s)
            passes = left >= 1.0
            self._buckets[client] = (left - 1.0 if passes else left, now_s)
            if len(self._buckets) > CLIENTS_MAX:
                self._buckets.popitem(last=False)
            return 0.0 if passes else (1.0 - left) / self._rate_per_s
