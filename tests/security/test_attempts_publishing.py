"""Nobody publishes without the right to."""

from __future__ import annotations

import pytest

from tests.security.attempts import EVIL, PUBLISHER, Attempt, World, check_attempt


def posting(
    tried: str,
    status: int,
    *headers: str,
    target: str = "/posts/events/secret",
    user: str = "",
    body: bytes = b'"posted"',
) -> Attempt:
    if not any("Length:" in line or "Encoding:" in line for line in headers):
        headers += (f"Content-Length: {len(body)}",)
    if not any(line.startswith("Content-Type") for line in headers):
        headers += ("Content-Type: application/json",)
    return Attempt(tried, target, status, user, "POST", headers, body)


MAY = f"Authorization: {PUBLISHER}"
CHUNKED = "Transfer-Encoding: chunked"

#: Which bodies and parameters are rejected is in ``inprocess/publishing/test_publish_endpoint.py``.
POSTS = [
    posting("an event without credentials", 403),
    posting("an event by alice", 403, user="alice"),
    posting("an event by bob's cookie alone", 403, user="bob"),
    posting("an event by bob's cookie from our own page", 403, "Origin: http://127.0.0.1:{port}", user="bob"),
    posting("an event by a bad token", 403, f"{MAY}x"),
    posting("an event by a token in lower case", 403, MAY.lower()),
    posting("an event by a bad token and alice's cookie", 403, "Authorization: Basic eDp4", user="alice"),
    posting("an event from a page of another site", 403, MAY, EVIL),
    posting("an event from a page of no site", 403, MAY, "Origin: null"),
    posting("a form without credentials", 403, "Content-Type: application/x-www-form-urlencoded"),
    posting("no type", 415, MAY, "Content-Type:"),
    posting("too much", 413, MAY, "Content-Length: 10001", body=b""),
    posting("far too much", 413, MAY, "Content-Length: 99999999999999", body=b""),
    posting("chunks", 411, MAY, CHUNKED, body=b"3\r\n123\r\n0\r\n\r\n"),
    posting("too much in chunks", 411, MAY, CHUNKED, body=b"2712\r\n" + b"1" * 10_002 + b"\r\n0\r\n\r\n"),
    posting("chunks without credentials", 403, CHUNKED, body=b"3\r\n123\r\n0\r\n\r\n"),
    posting("too much without credentials", 403, "Content-Length: 10001", body=b""),
    posting("to another reader's private channel", 400, MAY, target="/posts/events/%7Ebob"),
    posting("to the revocation channel", 400, MAY, target="/posts/events/%21revoked"),
    posting("to no name", 400, MAY, target="/posts/events/secret%00"),
    posting("to a channel in the query", 405, MAY, target="/posts/events?channel=secret"),
    posting("where publishing is off", 405, MAY, target="/events/secret", user="bob"),
    posting("a name of two lines", 400, MAY, target="/posts/events/secret?event=x%0d%0adata:%20injected"),
    posting("a name that ends in CR", 400, MAY, target="/posts/events/secret?event=x%0d"),
]


@pytest.mark.parametrize("attempt", POSTS, ids=lambda attempt: attempt.tried)
def test_attempt_to_publish_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)
