"""How does a tool ask the daemon? Through the client that the commands use, with every error as a sentence for agents.

An agent decides by what an error says: whether the arguments are to be corrected, the answer is a no that will stay
one, or the same thing may be tried again. The token is in the client and in none of the sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

from mcp.server.mcpserver.exceptions import ToolError

from controller.api_client import ApiClient, ApiRefusedError, ApiUnreachableError, Json
from controller.history import duration_s
from controller.wording import printable
from metrics.errors import ConfigInvalidError, IaceError

_BAD = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


class AskedDaemon:
    """A daemon behind its API, which answers or lets the tool fail with a reason."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get(self, *path: str, **query: object) -> Json:
        """What the route answers.

        Raises:
            ToolError: it cannot be reached, or says no.
        """
        with in_words():
            return self._client.get("api", *path, **query)

    def post(self, *path: str, body: Mapping[str, object], key: str) -> Json:
        """Give a command.

        Raises:
            ToolError: it is refused, or what became of it is not known.
        """
        with in_words():
            try:
                return self._client.post("api", *path, body=body, key=key)
            except ApiUnreachableError as error:
                raise ToolError(
                    f"{printable(str(error))}. Whether the command was carried out is not known: once the daemon "
                    f"answers, call again with the same arguments and idempotency_key {key!r}, which does nothing twice"
                ) from error


@contextmanager
def in_words() -> Iterator[None]:
    """Turns the errors that were foreseen into what an agent is told."""
    try:
        yield
    except ApiRefusedError as refusal:
        raise ToolError(_refusal(refusal)) from refusal
    except ConfigInvalidError as invalid:
        raise ToolError(printable(f"{invalid.source}: {'; '.join(invalid.problems)}")) from invalid
    except (IaceError, OSError) as error:
        raise ToolError(printable(str(error))) from error


def seconds(duration: str) -> float:
    """A duration as people write it, in seconds.

    Raises:
        ToolError: it is none.
    """
    try:
        return duration_s(duration)
    except ValueError as wrong:
        raise ToolError(str(wrong)) from wrong


def _refusal(refusal: ApiRefusedError) -> str:
    answer, told = refusal.answer, str(refusal)
    if refusal.status == HTTPStatus.CONFLICT:
        guard = f"refused by guard {answer['guard']}" if answer.get("guard") else "refused"
        seq = f" It is journal event {answer['seq']}." if answer.get("seq") is not None else ""
        return f"{guard}: {told}. Nothing was done.{seq}"
    if refusal.status in _BAD:
        problems = "".join(f"; {printable(str(problem))}" for problem in answer.get("problems", []))
        return f"bad arguments: {told}{problems}"
    if refusal.status == HTTPStatus.NOT_FOUND:
        return f"not found: {told}"
    return f"not now: {told}"
