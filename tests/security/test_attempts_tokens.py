"""No token opens a channel but one that is valid, names it, and comes where it may.

What makes a token invalid is in ``inprocess/access/test_tokens.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.security.attempts import EVIL, Attempt, World, check_attempt, on_gthread, token
from tests.support.client import new_name


def with_token(tried: str, status: int, make: Callable[[], str], target: str = "/jwt/events/secret") -> Attempt:
    return Attempt(f"a token {tried}", target, status, user="", token=make, reaches="very long" in tried)


def with_header(tried: str, status: int, *headers: str, site: str = "/jwt", query: str = "") -> Attempt:
    reaches = status == 200
    return Attempt(tried, f"{site}/events/secret{query}", status, user="", headers=headers, reaches=reaches)


TOKENS = [
    with_token("signed with another key", 401, lambda: token(key=new_name() * 2)),
    with_token("without its signature", 401, lambda: token().rpartition(".")[0] + "."),
    with_token("that has expired", 401, lambda: token(exp=int(time.time()) - 1)),
    with_token("that expires in a very long time", 200, lambda: token(exp=10**18)),
    with_token("that expires in a very long time, a float", 200, lambda: token(exp=1e300)),
    with_token("that is not ASCII", 401, lambda: token() + "é"),
    with_token("of 100 kB", 401, lambda: token(padding="x" * 100_000)),
    with_token("for another channel", 403, lambda: token(sse=["news"])),
    with_token("for another channel beside an allowed one", 403, lambda: token(sse=["news"]),
               "/jwt/events?channel=news&channel=secret"),
    with_token("for another channel that is asked for", 200, lambda: token(sub="alice", sse=["news"]),
               "/jwt/events/news"),
    with_token("of a reader for the private channel", 200, lambda: token(sub="alice", sse=["~"]),
               "/jwt/events?channel=~"),
    Attempt("a good token from another site", "/jwt/events/secret", 403, user="", headers=(EVIL,), token=token),
    with_header("no token", 401),
    with_header("a token in the query where that is off", 401, query="?token={good}&access_token={good}&access={good}"),
    with_header("a token in a cookie where that is off", 401, "Cookie: token={good}; access={good}"),
    with_header("a token under other names", 401, "Cookie: Token={good}", site="/jwt-anywhere", query="?token={good}"),
    with_header("a bad token in the query", 401, site="/jwt-anywhere", query="?access=x&access={good}"),
    with_header("a bad token beside a good cookie", 401, "Authorization: Bearer x", "Cookie: token={good}",
                site="/jwt-anywhere"),
    with_header("a token in the cookie", 200, "Cookie: token={good}", site="/jwt-anywhere"),
    with_header("a token in the query", 200, site="/jwt-anywhere", query="?access={good}"),
    with_header("a token in another header", 401,
                "X-Authorization: Bearer {good}", "Proxy-Authorization: Bearer {good}"),
    with_header("two headers, the good one first", 401, "Authorization: Bearer {good}", "Authorization: Bearer x"),
    with_header("two headers, the good one last", 401, "Authorization: Bearer x", "Authorization: Bearer {good}"),
    *(
        with_header(f"a token as {form!r}", status, f"Authorization: {form}")
        for form, status in [
            ("Token {good}", 401), ("Basic {good}", 401), ("{good}", 401), ("Bearer:{good}", 401),
            ("Bearer{good}", 401), ("Bearer", 401), ("Bearer ", 401), ('Bearer "{good}"', 401),
            ("BEARER {good}", 200), ("bearer   {good}", 200),
        ]
    ),
]  # fmt: skip


@on_gthread
@pytest.mark.parametrize("attempt", TOKENS, ids=lambda attempt: attempt.tried)
def test_attempt_by_token_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)
