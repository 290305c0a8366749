"""May this request pass? The rule for every route, and the one place where it is applied.

A route is open (health, the API's own description), for reading (viewers and operators) or for control (operators
alone). A route that was given no rule, such as one of the governed system's, is for reading when it only reads, and for
control otherwise: nothing is open by forgetting it.

Where there are no tokens, reading is open to this machine alone: the peer is a loopback address, nothing says that it
came through a proxy, and the Host is a loopback name, so that no foreign page can be made to read it (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from controller.api.auth import Role, Standing, TokenFile
from controller.api.errors import ApiError

ANONYMOUS = "anonymous"
READING = frozenset({"GET", "HEAD"})
_PROXIED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="iace"'}
_TOKEN_MAX = 512


class Rule(StrEnum):
    """Who may call a route."""

    OPEN = "open"
    READ = "read"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Access:
    """Decides on requests.

    Attributes:
        tokens: the tokens there are.
        anonymous_read: whether reading needs no token; None: only on this machine, while there are no tokens.
    """

    tokens: TokenFile
    anonymous_read: bool | None

    def admit(self, rule: Rule | None, environ: Mapping[str, object]) -> str:
        """Who is asking, if the request may pass.

        Args:
            rule: the route's, None where it was given none.
            environ: the request's WSGI environment.

        Raises:
            ApiError: it may not, 401 or 403.
        """
        if rule is None:
            rule = Rule.READ if environ["REQUEST_METHOD"] in READING else Rule.CONTROL
        if rule is Rule.OPEN:
            return ANONYMOUS
        presented = environ.get("HTTP_AUTHORIZATION")
        if presented is None:
            if rule is Rule.READ and self._reads_anonymously(environ):
                return ANONYMOUS
            raise _unauthorised("no token", "this needs a bearer token; create one with iace token create")
        return self._owner(rule, str(presented))

    def _owner(self, rule: Rule, presented: str) -> str:
        scheme, _, secret = presented.partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(secret) <= _TOKEN_MAX:
            raise _unauthorised("no bearer token", "expected the header 'Authorization: Bearer TOKEN'")
        found = self.tokens.find(secret)
        if found is None:
            raise _unauthorised("unknown token", "this token is not known here")
        token, standing = found
        if standing is not Standing.VALID:
            raise _unauthorised(f"{standing} token", f"this token has {_ENDED[standing]}; create a new one")
        if rule is Rule.CONTROL and token.role is not Role.OPERATOR:
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                f"{token.name} is a {token.role}; this takes the role {Role.OPERATOR}",
                counted="role not permitted",
            )
        return token.name

    def _reads_anonymously(self, environ: Mapping[str, object]) -> bool:
        if self.anonymous_read is not None:
            return self.anonymous_read
        return _from_here(environ) and not self.tokens.any()


_ENDED = {Standing.EXPIRED: "expired", Standing.REVOKED: "been revoked"}


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine and nothing else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _from_here(environ: Mapping[str, object]) -> bool:
    host = str(environ.get("HTTP_HOST", ""))
    name = host if host.endswith("]") else host.rsplit(":", 1)[0]
    direct = not any(header in environ for header in _PROXIED)
    return direct and is_loopback(str(environ.get("REMOTE_ADDR", ""))) and is_loopback(name)


def _unauthorised(counted: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, message, counted=counted, headers=dict(_CHALLENGE))
