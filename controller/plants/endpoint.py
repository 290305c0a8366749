"""Where is the plant? Its URL, checked before anything is sent to it.

It leaves out whether anything answers there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from metrics.errors import ConfigInvalidError

_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is: the parts of a checked URL.

    Attributes:
        scheme: "http" or "https".
        host: name or address, without brackets.
        port: 1 to 65535.
        prefix: path before every route, without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    prefix: str

    @property
    def url(self) -> str:
        """The URL again, in its plain form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


def parse_endpoint(url: str) -> Endpoint:
    """The parts of the plant's URL.

    Raises:
        ConfigInvalidError: it is not a plain http(s) URL; every problem is listed.
    """
    try:
        parts = urlsplit(url)
        problems = _url_problems(url, parts)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigInvalidError("plant.url", [f"{url!r} is not a URL: {error}"]) from error
    if problems or host is None:
        raise ConfigInvalidError("plant.url", problems)
    return Endpoint(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/"))


def checked_token(token: str) -> str:
    """The bearer token as it is, if it can stand in a header.

    Raises:
        ConfigInvalidError: it cannot; the message does not show it.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigInvalidError("plant.token", ["it must be printable ASCII without blanks; create a new one"])
    return token


def _url_problems(url: str, parts: SplitResult) -> list[str]:
    checks = (
        (parts.scheme not in _DEFAULT_PORTS, f"it must begin with http:// or https://, not {parts.scheme!r}"),
        (not parts.hostname, "it names no host"),
        (parts.port == 0, "port 0 cannot be reached"),
        (parts.username is not None, "it must not hold credentials; configure the token instead"),
        (bool(parts.query or parts.fragment), "it must end with the path, without ? or #"),
        (not url.isascii() or not url.isprintable() or " " in url, "it must be printable ASCII without blanks"),
    )
    return [problem for found, problem in checks if found]
