"""How is InfluxDB spoken to, and what does its answer to a batch mean for each of its lines?

Writing goes through `influxdb-client` to the v2 route, which 1.8, 2.x, 3.x and VictoriaMetrics share; reading goes to
`/query` in InfluxQL, which 1.x, 2.x and 3.x share. Every call ends within its time.

A server that refuses a batch names at most some of the lines that it dropped, or none at all. So a refused batch is
sent again in halves until each refused line is known with its own reason: writing a line twice changes nothing. Lines
that look alike are kept together, since they are mostly refused together, and a server that says that it dropped all
that it was given is believed.

What is wrong with the request, and not with its lines (no permission, no bucket, too much load, a proxy's page), is no
refusal: it raises, and the same lines can be sent later.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3.exceptions import HTTPError

from metrics.errors import StoreFailedError
from metrics.store.dead_letter import Refused

ANSWER_BYTES_MAX = 256 * 2**20  # of a query: two months of one series at a second's step

_CHUNK_BYTES = 2**20
_COMPRESSION = 1  # level 9, which the client takes by itself, halves the rate of the whole path
_DROPPED = re.compile(r"dropped=(\d+)")
_SHAPE = re.compile(rb"((?:\\.|[^,\\ ])*)(?:\\.|[^\\ ])* ((?:\\.|[^=\\])*)", re.DOTALL)
_TOO_LARGE, _BAD_REQUEST, _UNPROCESSABLE = 413, 400, 422
_ADVICE = {
    401: "check its token",
    403: "check what its token may do",
    404: "check its bucket, organisation and database",
}


@dataclass(frozen=True, slots=True)
class InfluxTarget:
    """Where the data go.

    Attributes:
        url: of the server, such as "http://127.0.0.1:8086".
        bucket: 2.x, 3.x: the bucket or database; 1.8: "database" or "database/retention policy".
        org: the organisation; 2.x demands it, the others ignore it.
        token: 1.8: "user:password"; "" where the server asks for none.
        database: what InfluxQL calls the bucket; "" takes the bucket's own name.
        ca_file: certificates to trust beside the usual ones, for https; "" for none.
        timeout_s: bound on one request.
    """

    url: str
    bucket: str
    org: str = ""
    token: str = field(default="", repr=False)
    database: str = ""
    ca_file: str = ""
    timeout_s: float = 10.0

    @property
    def name(self) -> str:
        """The server and the bucket, for messages: without what the URL may hold of secrets."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}, bucket {self.bucket}"


class InfluxAwayError(StoreFailedError):
    """The server took nothing that we know of: send the same again, after `retry_after_s` if it said so."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class _BatchRefusedError(Exception):
    """Lines of a batch are at fault, as the server says in `reason`; `dropped` of them, where it says that."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        told = _DROPPED.search(reason)
        self.dropped = int(told[1]) if told else None
        super().__init__(reason)


class InfluxClient:
    """The connection to `target`; thread-safe.

    Raises:
        StoreFailedError: the URL is none.
    """

    def __init__(self, target: InfluxTarget) -> None:
        self.target = target
        if urlsplit(target.url).scheme not in {"http", "https"}:
            raise StoreFailedError(f"{target.name}: the URL must begin with http:// or https://")
        self._timeout_ms = round(target.timeout_s * 1000)
        ca_file = target.ca_file or None
        self._client = InfluxDBClient(
            target.url, target.token, org=target.org, timeout=self._timeout_ms, ssl_ca_cert=ca_file
        )
        self._writing = WriteService(self._client.api_client)  # type: ignore[no-untyped-call] # the client has few types
        self._reading = urllib3.PoolManager(maxsize=4, ca_certs=ca_file, retries=False)

    def send(self, lines: Sequence[bytes]) -> list[Refused]:
        """Write lines; those that the server refused, with its reason for each.

        Raises:
            InfluxAwayError: it cannot be said that the server took them.
        """
        try:
            self._post(lines)
        except _BatchRefusedError as refusal:
            return self._judge(sorted(lines, key=_shape), refusal)
        return []

    def query(self, statement: str, *, changes: bool = False) -> list[dict[str, Any]]:
        """The series that one InfluxQL statement gives, times in nanoseconds; `changes` if it does not only read.

        Raises:
            StoreFailedError: there was no answer in time, or an error, or only a part.
        """
        database, _, policy = self.target.bucket.partition("/")
        arguments = {"db": self.target.database or database, "q": statement, "epoch": "ns"}
        if policy:
            arguments["rp"] = policy
        status, body = self._ask("POST" if changes else "GET", arguments)
        try:
            answer = json.loads(body)
            (result,) = answer["results"] if status < _BAD_REQUEST else [answer]
            series = result.get("series", [])
            error = result.get("error") or result.get("message")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._unreadable(status) from None
        if error or status >= _BAD_REQUEST:
            raise StoreFailedError(f"{self.target.name} cannot be read: {error or f'status {status}'}{_advice(status)}")
        if any(part.get("name") == "databases" for part in series):
            raise self._unreadable(status)  # VictoriaMetrics answers every statement with a list of databases
        if any(part.get("partial") for part in [result, *series]):
            raise StoreFailedError(f"{self.target.name} gives only a part: raise its max-row-limit, or ask for less")
        return list(series)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()  # type: ignore[no-untyped-call] # the same
        self._reading.clear()

    def _judge(self, lines: list[bytes], refusal: _BatchRefusedError) -> list[Refused]:
        """Each line that is at fault, out of `lines`, which as a whole met with `refusal`."""
        refused: list[Refused] = []
        pending = [(lines, refusal)]
        while pending:
            suspects, refusal = pending.pop()
            if len(suspects) == 1 or refusal.dropped == len(suspects):
                refused.extend(Refused(line, refusal.reason) for line in suspects)
                continue
            half = len(suspects) // 2
            for part in (suspects[:half], suspects[half:]):
                try:
                    self._post(part)
                except _BatchRefusedError as again:
                    pending.append((part, again))
        return refused

    def _post(self, lines: Sequence[bytes]) -> None:
        body = gzip.compress(b"\n".join(lines), _COMPRESSION, mtime=0)
        try:
            self._writing.post_write(  # type: ignore[no-untyped-call] # the same
                org=self.target.org,
                bucket=self.target.bucket,
                body=body,
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                precision=WritePrecision.NS,
            )
        except ApiException as error:
            raise self._meaning(error) from error
        except (HTTPError, ValueError) as error:  # the client decodes every answer as UTF-8
            raise self._silent(error) from error

    def _meaning(self, error: ApiException) -> InfluxAwayError | _BatchRefusedError:
        reason = _reason(error.body)
        status = int(error.status or 0)
        if not status:
            return self._silent(error.reason)
        if status == _TOO_LARGE or (status in {_BAD_REQUEST, _UNPROCESSABLE} and reason is not None):
            return _BatchRefusedError(reason or "it is too large for the server")
        message = f"{self.target.name} answers with status {status}: {reason or 'no reason given'}{_advice(status)}"
        return InfluxAwayError(message, _retry_after_s(error.headers or {}))

    def _ask(self, method: str, arguments: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body of the answer to a query."""
        url = f"{self.target.url.rstrip('/')}/query?{urlencode(arguments)}"
        headers = {"Authorization": f"Token {self.target.token}"} if self.target.token else {}
        timeout_s = self.target.timeout_s
        deadline = time.monotonic() + timeout_s
        body = bytearray()
        try:
            timeout = urllib3.Timeout(total=timeout_s)
            response = self._reading.request(method, url, headers=headers, timeout=timeout, preload_content=False)
            with closing(response):
                while chunk := response.read1(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise StoreFailedError(f"{self.target.name} answers with too much: ask for less")
                    if time.monotonic() > deadline:  # each read has its own timeout, many have none
                        raise InfluxAwayError(f"{self.target.name} did not end its answer within {timeout_s:g} s")
        except HTTPError as error:
            raise self._silent(error) from error
        return response.status, bytes(body)

    def _silent(self, error: object) -> InfluxAwayError:
        return InfluxAwayError(f"{self.target.name} does not answer: {_plain(error)}")

    def _unreadable(self, status: int) -> StoreFailedError:
        return StoreFailedError(
            f"{self.target.name} answers InfluxQL with status {status} and nothing of use{_advice(status)}; "
            "VictoriaMetrics, for one, has no InfluxQL"
        )


def _shape(line: bytes) -> tuple[bytes, ...]:
    """Measurement and first field: lines that agree in them are mostly refused for the same reason."""
    found = _SHAPE.match(line)
    return found.groups() if found else (line,)


def _reason(body: str | None) -> str | None:
    """The reason in a server's JSON; None where the answer is something else, such as a proxy's page."""
    try:
        answer = json.loads(body or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    reason = answer.get("error") or answer.get("message")
    return str(reason) if reason else None


def _retry_after_s(headers: Mapping[str, str]) -> float:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _advice(status: int) -> str:
    return f": {_ADVICE[status]}" if status in _ADVICE else ""


def _plain(error: object) -> str:
    """The error in words, without the objects' addresses that urllib3 writes into it."""
    return re.sub(r"<[^>]*>(, |: )?|\bHTTPConnectionPool\([^)]*\): ", "", str(error))
