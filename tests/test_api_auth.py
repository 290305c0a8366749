"""Tokens: how they are kept, found, ended, and what becomes of a file that cannot be trusted; rate limits by client."""

import hashlib
import json
import stat
import threading

import pytest

from controller.api.auth import Role, Standing, TokenFile
from controller.api.limits import CLIENTS_MAX, RateLimit
from controller.api.strict_json import parse_object
from metrics.errors import BadDataError, NotPermittedError


@pytest.fixture
def tokens(tmp_path):
    """An empty token file whose clock stands at `tokens.now_s[0]`."""
    now_s = [1_000.0]
    made = TokenFile(tmp_path / "data" / "tokens.json", clock=lambda: now_s[0])
    made.now_s = now_s
    return made


def test_only_a_hash_is_kept_and_only_the_owner_may_read_it(tokens):
    """The file has mode 0600 and holds the SHA-256 of 256 random bits, not the token."""
    secret = tokens.create("ops", Role.OPERATOR)
    text = tokens.path.read_text()
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600
    assert secret not in text
    assert secret.startswith("iace_")
    assert len(secret) == 48
    (entry,) = json.loads(text)["tokens"]
    assert entry["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert secret != tokens.create("other", Role.VIEWER)


def test_a_token_is_found_by_itself_alone(tokens):
    """The whole token is known, with its role; a part of it, or its hash, is not."""
    secret = tokens.create("ops", Role.OPERATOR)
    found, standing = tokens.find(secret)
    assert (found.name, found.role, standing) == ("ops", Role.OPERATOR, Standing.VALID)
    for wrong in (secret[:-1], secret + "x", "", found.sha256, "\ud800"):
        assert tokens.find(wrong) is None


def test_a_token_ends(tokens):
    """An expired token counts from its end on no longer, a revoked one at once; its name can then be used again."""
    secret = tokens.create("ops", Role.OPERATOR, lifetime_s=60.0)
    tokens.now_s[0] = 1_059.9
    assert tokens.find(secret)[1] is Standing.VALID
    tokens.now_s[0] = 1_060.0
    assert tokens.find(secret)[1] is Standing.EXPIRED
    renewed = tokens.create("ops", Role.OPERATOR)
    assert tokens.revoke("ops") == 2
    assert tokens.find(renewed)[1] is Standing.REVOKED
    with pytest.raises(BadDataError, match="no token 'ops' to revoke"):
        tokens.revoke("ops")


def test_the_file_is_read_anew_when_it_has_changed(tokens):
    """What another process creates or revokes counts at once; a file that is gone has no tokens."""
    elsewhere = TokenFile(tokens.path)
    assert not tokens.any()
    secret = elsewhere.create("ops", Role.OPERATOR)
    assert tokens.any()
    assert tokens.find(secret)[1] is Standing.VALID
    elsewhere.revoke("ops")
    assert tokens.find(secret)[1] is Standing.REVOKED
    tokens.path.unlink()
    assert not tokens.any()
    assert tokens.find(secret) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 2, "tokens": []}',
        '{"schema_version": 1, "tokens": [{"name": "x"}]}',
        "[" * 9999,
    ],
)
def test_a_damaged_file_lets_nobody_in_and_opens_nothing(tokens, content, caplog):
    """No token counts, nobody is anonymous, nothing is written over it, and the log says what to do."""
    secret = tokens.create("ops", Role.OPERATOR)
    tokens.path.write_text(content)
    assert tokens.find(secret) is None
    assert tokens.any()
    assert "restore it, or remove it" in caplog.text
    with pytest.raises(BadDataError, match="is damaged"):
        tokens.create("more", Role.VIEWER)
    assert tokens.path.read_text() == content


def test_a_file_that_others_may_write_to_is_not_trusted(tokens):
    """Whoever can write to the file could give himself tokens, so none of it counts."""
    secret = tokens.create("ops", Role.OPERATOR)
    tokens.path.chmod(0o620)
    assert tokens.find(secret) is None
    assert tokens.any()
    with pytest.raises(NotPermittedError, match="chmod 600"):
        tokens.tokens()


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "x" * 65, "a\nb", "ä"])
def test_a_name_that_would_confuse_the_journal_is_refused(tokens, name):
    """Names are plain words."""
    with pytest.raises(BadDataError, match="cannot name a token"):
        tokens.create(name, Role.VIEWER)


def test_a_name_is_taken_while_its_token_counts(tokens):
    """Two valid tokens of one name could not be told apart in the journal."""
    tokens.create("ops", Role.OPERATOR)
    with pytest.raises(BadDataError, match="already"):
        tokens.create("ops", Role.VIEWER)


def test_tokens_created_at_once_are_all_kept(tokens):
    """Writers wait for each other, so none undoes what another wrote."""
    threads = [threading.Thread(target=tokens.create, args=(f"n{i}", Role.VIEWER)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in tokens.tokens()} == {f"n{i}" for i in range(8)}


def test_a_client_has_a_burst_and_a_rate():
    """After its burst a client may ask as often as its rate allows; another is not concerned."""
    now_s = [0.0]
    limit = RateLimit(rate_per_s=2.0, burst=3.0, clock=lambda: now_s[0])
    assert [limit.wait_s("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limit.wait_s("b") == 0.0
    now_s[0] = 0.5
    assert [limit.wait_s("a") for _ in range(2)] == [0.0, 0.5]
    now_s[0] = 1_000.0
    assert [limit.wait_s("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_clients_are_forgotten_rather_than_remembered_for_ever():
    """However many addresses come, memory is bounded."""
    limit = RateLimit(rate_per_s=1.0, burst=1.0, clock=lambda: 0.0)
    for number in range(CLIENTS_MAX + 50):
        limit.wait_s(str(number))
    assert len(limit._buckets) == CLIENTS_MAX


def test_plain_json_is_read():
    """Objects with everything that JSON has come through as they are."""
    assert parse_object(b'{"a": [1, -2.5, "\\u00e4\\ud83d\\ude00", true, null, {"b": {}}]}') == {
        "a": [1, -2.5, "ä😀", True, None, {"b": {}}]
    }
