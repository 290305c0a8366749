"""How does the API say no? One exception, which becomes `{"status": "error", "message": …}` with a fitting status."""

from __future__ import annotations

from http import HTTPStatus


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: the HTTP status.
        message: what is wrong and what to do about it, for people; never anything secret.
        counted: a constant under which the daemon counts the refusal, None where it is not worth counting.
        headers: further headers of the answer.
        fields: further fields of the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        counted: str | None = None,
        headers: dict[str, str] | None = None,
        fields: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.counted = counted
        self.headers = headers or {}
        self.fields = fields or {}
