"""A QECS server that offers only the three routes of v1.5, sound unless it is given vices.

Its time advances by `tick_s` with every reading of the field, so tests need not wait. Every account opens with
`OPENING_BALANCE` tokens, because v1.5 has no route to fund one.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

OPENING_BALANCE = 1_000_000
FEE = 10
_EPOCH_S = 1_700_000_000.0


class Vice(StrEnum):
    """What can be wrong with the server, named in lower case; any number at once, changed at any time by `turn`."""

    APPROVES_EVERYTHING = auto()  # each commit is answered 200 APPROVED, whatever it says
    APPROVES_OVERDRAFTS = auto()
    APPROVES_MALFORMED = auto()
    APPROVES_CONFLICTS = auto()  # a known id with other content is executed
    EXECUTES_REPLAYS = auto()  # a known id with the same content is executed again
    REJECTS_EVERYTHING = auto()
    NAN_KPIS = auto()
    NULL_KPIS = auto()
    STRING_KPIS = auto()
    BOOL_KPIS = auto()
    FROZEN_TIME = auto()
    BACKWARD_TIME = auto()
    NO_TIME = auto()
    GARBAGE = auto()  # a body that is no JSON
    WRONG_SHAPE = auto()  # JSON, but not an object
    DUPLICATE_KEYS = auto()
    DEEP_NESTING = auto()
    NOT_HTTP = auto()
    SERVER_ERRORS = auto()  # 500 for everything
    UNAUTHORIZED = auto()  # 401 for everything
    REDIRECTS = auto()  # 302 for everything
    HANGS = auto()  # never answers
    DRIPS_HEADERS = auto()
    DRIPS_BODY = auto()
    ENDLESS_BODY = auto()
    TRUNCATED_BODY = auto()  # closes before the end that Content-Length promised
    HUGE_LENGTH = auto()  # promises a terabyte
    CLOSES_UNASKED = auto()  # closes the kept-alive connection after each answer, without saying so


class FakeQecsV15:
    """The server; `with FakeQecsV15() as server:` runs it on a free loopback port at `server.url`."""

    def __init__(self, *vices: str, kpis: Mapping[str, float] | None = None, tick_s: float = 1.0) -> None:
        self.vices: set[Vice] = set()
        self.turn(*vices)
        self.kpis = {
            "cs": 0.962,
            "gas": 0.974,
            "rsi": 0.943,
            "lambda_opt": 0.46,
            "delta_lambda": 0.0007,
            **(kpis or {}),
        }
        self.tick_s = tick_s
        self.ticks = 0
        self.balances: Counter[str] = Counter()
        self.requests: list[tuple[str, str]] = []
        self.stopping = threading.Event()
        self._executed: dict[str, tuple[object, dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def turn(self, *vices: str) -> None:
        """Have these vices from now on, and no others; none makes it sound."""
        self.vices = {Vice(name) for name in vices}

    def balance(self, account: str) -> int:
        """Tokens of an account as the server keeps them."""
        return OPENING_BALANCE + self.balances[account]

    def get(self, path: str) -> tuple[int, object]:
        """Answer of a reading route."""
        if path == "/field/curvature_metrics":
            return 200, self._curvature()
        if path == "/system/status":
            return 200, self._status()
        return 404, {"status": "error", "message": f"no route {path}"}

    def post(self, path: str, body: bytes) -> tuple[int, object]:
        """Answer of the writing route."""
        if path != "/ledger/commit":
            return 404, {"status": "error", "message": f"no route {path}"}
        with self._lock:
            return self._commit(body)

    def _figures(self) -> dict[str, object]:
        wobble = 0.002 * math.sin(self.ticks)
        figures: dict[str, object] = {
            name: value + (wobble if name in {"cs", "gas", "rsi"} else 0.0) for name, value in self.kpis.items()
        }
        for vice, value in (
            (Vice.NAN_KPIS, math.nan),
            (Vice.NULL_KPIS, None),
            (Vice.STRING_KPIS, "0.97"),
            (Vice.BOOL_KPIS, True),
        ):
            if vice in self.vices:
                figures = dict.fromkeys(figures, value)
        return figures

    def _curvature(self) -> dict[str, object]:
        with self._lock:
            step = -1 if Vice.BACKWARD_TIME in self.vices else 0 if Vice.FROZEN_TIME in self.vices else 1
            self.ticks += step
            stamp = datetime.fromtimestamp(_EPOCH_S + self.ticks * self.tick_s, UTC).isoformat()
            figures = self._figures()
        answer = {**figures, "safe_mode": False, "stability_state": "STABLE", "ricci_scalar": 0.013}
        return answer if Vice.NO_TIME in self.vices else {"timestamp": stamp, **answer}

    def _status(self) -> dict[str, object]:
        figures = self._figures()
        return {
            "status": "STABLE",
            "coherence": figures.pop("cs"),
            **figures,
            "thresholds": {"gas_min": 0.95, "cs_min": 0.90, "rsi_min": 0.65},
            "system_metrics": {"action_cost": 0.025, "delta_entropy": 0.0004, "uptime_s": 3600},
        }

    def _commit(self, body: bytes) -> tuple[int, object]:
        if Vice.REJECTS_EVERYTHING in self.vices:
            return 400, _rejected("closed for stocktaking")
        transaction = _transaction(body)
        if Vice.APPROVES_EVERYTHING in self.vices:
            return 200, self._approved(transaction or {})
        if transaction is None:
            if Vice.APPROVES_MALFORMED in self.vices:
                return 200, self._approved({})
            return 400, _rejected("expected id, sender, receiver and a whole amount above zero")
        return self._execute(transaction)

    def _execute(self, transaction: dict[str, Any]) -> tuple[int, object]:
        known = self._executed.get(transaction["id"])
        if known is not None:
            same = known[0] == transaction
            if same and Vice.EXECUTES_REPLAYS not in self.vices:
                return 200, known[1]
            if not same and Vice.APPROVES_CONFLICTS not in self.vices:
                return 409, _rejected(f"{transaction['id']} was executed with other content")
        sender, amount = transaction["sender"], transaction["amount"]
        if amount > self.balance(sender) and Vice.APPROVES_OVERDRAFTS not in self.vices:
            return 400, _rejected(f"insufficient funds: {sender} has {self.balance(sender)}")
        self.balances[sender] -= amount
        self.balances[transaction["receiver"]] += amount - FEE
        answer = self._approved(transaction)
        self._executed[transaction["id"]] = (transaction, answer)
        return 200, answer

    def _approved(self, transaction: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": "APPROVED",
            "tx_id": f"{transaction.get('id')}-{len(self._executed)}-{self.balances[str(transaction.get('sender'))]}",
            "C_system": self.kpis["cs"],
            "fee": FEE,
            "emission": 0,
        }


def _rejected(reason: str) -> dict[str, str]:
    return {"status": "REJECTED", "reason": reason}


def _transaction(body: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        found = json.loads(body)
        if not isinstance(found, dict):
            return None
        names = all(isinstance(found.get(key), str) and found[key] for key in ("id", "sender", "receiver"))
        amount = found.get("amount")
        if names and isinstance(amount, int) and not isinstance(amount, bool) and 0 < amount < 2**63:
            return found
    return None


_SENT: Mapping[Vice, tuple[int, bytes]] = {
    Vice.GARBAGE: (200, b'{"cs": 0.97, <html>'),
    Vice.WRONG_SHAPE: (200, b"[1, 2, 3]"),
    Vice.DUPLICATE_KEYS: (200, b'{"cs": 0.97, "cs": 0.10, "timestamp": 1}'),
    Vice.DEEP_NESTING: (200, b"[" * 100_000 + b"]" * 100_000),
    Vice.SERVER_ERRORS: (500, b'{"status": "error", "message": "out of cheese"}'),
    Vice.UNAUTHORIZED: (401, b'{"status": "error", "message": "who are you?"}'),
    Vice.REDIRECTS: (302, b""),
}


def _drip(first: bytes, endless: bytes) -> Callable[[FakeQecsV15], Iterator[bytes]]:
    def drops(server: FakeQecsV15) -> Iterator[bytes]:
        yield first
        while not server.stopping.wait(0.02):
            yield endless

    return drops


def _flood(server: FakeQecsV15) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
    while not server.stopping.is_set():
        yield b"1," * 50_000


def _silence(server: FakeQecsV15) -> Iterator[bytes]:
    server.stopping.wait()
    yield b""


_RAW: Mapping[Vice, Callable[[FakeQecsV15], Iterator[bytes]]] = {
    Vice.HANGS: _silence,
    Vice.NOT_HTTP: lambda _: iter([b"SSH-2.0-OpenSSH_9.2p1\r\n"]),
    Vice.DRIPS_HEADERS: _drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"z"),
    Vice.DRIPS_BODY: _drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{", b" "),
    Vice.ENDLESS_BODY: _flood,
    Vice.TRUNCATED_BODY: lambda _: iter([b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"cs":']),
    Vice.HUGE_LENGTH: lambda _: iter([b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n{"]),
}


class _Server(ThreadingHTTPServer):
    """Knows the fake that its handlers answer for."""

    daemon_threads = True

    def __init__(self, fake: FakeQecsV15) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._serve(lambda: self.server.fake.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._serve(lambda: self.server.fake.post(self.path, body))

    def _serve(self, answer: Callable[[], tuple[int, object]]) -> None:
        fake = self.server.fake
        fake.requests.append((self.command, self.path))
        raw = next(iter(_RAW.keys() & fake.vices), None)
        sent = next(iter(_SENT.keys() & fake.vices), None)
        if raw is not None:
            self.close_connection = True
            with suppress(OSError):
                for part in _RAW[raw](fake):
                    self.wfile.write(part)
        elif sent is not None:
            self._send(*_SENT[sent])
        else:
            status, body = answer()
            self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", f"{self.server.fake.url}/elsewhere")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)
            self.wfile.flush()
        if Vice.CLOSES_UNASKED in self.server.fake.vices:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing: the tests read `requests`."""
