"""Who is asking? Bearer tokens, of which only hashes are kept, with a role, an optional end, and a way to revoke them.

A token is 256 random bits. SHA-256 is the right hash for that: a slow, salted one protects passwords, which can be
guessed; nobody guesses 256 bits, and a slow hash would only slow down every request. All hashes are compared, each in
constant time, so that timing tells nothing about which one is near.

The file is read anew when it has changed. One that is damaged, or that others may write to, lets nobody in: the
anonymous neither. Left out: what a role may do, see `access.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from controller.files import json_bytes, write_atomically
from metrics.errors import BadDataError, IaceError, NotPermittedError, StoreFailedError

FILE = "tokens.json"
MODE = 0o600
PREFIX = "iace_"  # lets scanners for leaked secrets recognise one
TOKENS_MAX = 1000
_SCHEMA_VERSION = 1
_BITS = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FILE_BYTES_MAX = 1_000_000

_log = logging.getLogger(f"iace.{__name__}")


class Role(StrEnum):
    """What a token's owner may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class Standing(StrEnum):
    """Whether a token counts."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token: all but the token itself.

    Attributes:
        name: whose it is; stands in the journal beside every command.
        role: what it is good for.
        sha256: hash of the token, hexadecimal.
        created_s, expires_s, revoked_s: Unix times, None where it has not happened or never does.
    """

    name: str
    role: Role
    sha256: str
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None

    def standing(self, now_s: float) -> Standing:
        """Whether it counts at `now_s`."""
        if self.revoked_s is not None:
            return Standing.REVOKED
        return Standing.EXPIRED if self.expires_s is not None and now_s >= self.expires_s else Standing.VALID


class TokenFile:
    """The tokens of one data directory; safe to share between threads.

    Args:
        path: the file, which need not exist.
        clock: Unix time, s.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._usable = True

    def tokens(self) -> tuple[Token, ...]:
        """All tokens, in the order of their creation.

        Raises:
            BadDataError: the file is damaged.
            NotPermittedError: it cannot be read, or others may write to it.
        """
        return _read(self.path)

    def any(self) -> bool:
        """Whether there are tokens at all; also true for a file that cannot be used, so that it opens no door."""
        self._refresh()
        return bool(self._tokens) or not self._usable

    def find(self, presented: str) -> tuple[Token, Standing] | None:
        """The token that was presented, and whether it counts; None for one that is not known."""
        self._refresh()
        digest = _digest(presented)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return None if found is None else (found, found.standing(self._clock()))

    def create(self, name: str, role: Role, lifetime_s: float | None = None) -> str:
        """A new token, which is never to be seen again.

        Raises:
            BadDataError: the name is taken or cannot be used, or the file is damaged or full.
            NotPermittedError, StoreFailedError: the file cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise BadDataError(
                f"{name[:80]!r} cannot name a token: use letters, digits, '.', '_', '@' and '-', at most 64"
            )
        secret = PREFIX + secrets.token_urlsafe(_BITS // 8)
        now_s = self._clock()
        expires_s = None if lifetime_s is None else now_s + lifetime_s
        with self._changing() as tokens:
            if any(token.name == name and token.standing(now_s) is Standing.VALID for token in tokens):
                raise BadDataError(f"there is a valid token {name} already: revoke it first, or take another name")
            if len(tokens) >= TOKENS_MAX:
                raise BadDataError(f"{self.path} holds {TOKENS_MAX} tokens, which is the most: remove it to start anew")
            tokens.append(Token(name, role, _digest(secret), now_s, expires_s))
        return secret

    def revoke(self, name: str) -> int:
        """Let the tokens of that name count no longer; how many that were.

        Raises:
            BadDataError: there is none, or the file is damaged.
            NotPermittedError, StoreFailedError: the file cannot be written.
        """
        now_s, revoked = self._clock(), 0
        with self._changing() as tokens:
            for index, token in enumerate(tokens):
                if token.name == name and token.revoked_s is None:
                    tokens[index] = replace(token, revoked_s=now_s)
                    revoked += 1
            if not revoked:
                raise BadDataError(f"there is no token {name[:80]!r} to revoke; see iace token list")
        return revoked

    def _refresh(self) -> None:
        with self._lock:
            try:
                status = self.path.stat()
                seen: tuple[int, ...] = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
            except FileNotFoundError:
                self._seen, self._tokens, self._usable = None, (), True
                return
            except OSError:
                seen = ()
            if seen == self._seen:
                return
            self._seen = seen
            try:
                self._tokens, self._usable = _read(self.path), True
            except IaceError as error:
                self._tokens, self._usable = (), False
                _log.error("no token counts until this is mended: %s", error)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, to be changed; written when the block ends well. One process at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                tokens = list(_read(self.path))
                yield tokens
                _write(self.path, tokens)
        except PermissionError as error:
            raise NotPermittedError(
                f"{self.path} may not be written: become its owner, or name another --data-dir"
            ) from error
        except OSError as error:
            raise StoreFailedError(f"{self.path} cannot be written: {error.strerror or error}") from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> tuple[Token, ...]:
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
                raise NotPermittedError(f"others may write to {path}, and give themselves tokens: chmod 600 {path}")
            raw = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise NotPermittedError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return tuple(map(_token, _entries(raw)))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadDataError(f"{path} is damaged ({error}): restore it, or remove it and create new tokens") from error


def _entries(raw: bytes) -> list[Any]:
    document = json.loads(raw.decode("utf-8"))
    if document["schema_version"] != _SCHEMA_VERSION:
        raise ValueError("it is of a version that is not known")
    entries: list[Any] = document["tokens"]
    return entries


def _token(entry: dict[str, Any]) -> Token:
    token = Token(**{**entry, "role": Role(entry["role"])})
    if not (_NAME.fullmatch(token.name) and re.fullmatch(r"[0-9a-f]{64}", token.sha256)):
        raise ValueError("an entry is no token of ours")
    return token


def _write(path: Path, tokens: list[Token]) -> None:
    document = {"schema_version": _SCHEMA_VERSION, "tokens": [asdict(token) for token in tokens]}
    write_atomically(path, json_bytes(document), MODE)
