"""No token opens a channel but one that is signed, valid, and names it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.security.attempts import EVIL, Attempt, World, base64url, check_attempt, on_gthread, public_pem, token
from tests.support.client import new_name


def with_token(tried: str, status: int, make: Callable[[], str], target: str = "/jwt/events/secret") -> Attempt:
    return Attempt(f"a token {tried}", target, status, user="", token=make)


def with_header(tried: str, status: int, *headers: str, site: str = "/jwt", query: str = "") -> Attempt:
    reaches = status == 200
    return Attempt(tried, f"{site}/events/secret{query}", status, user="", headers=headers, reaches=reaches)


TOKENS = [
    with_header("no token", 401),
    with_token("without a signature", 401, lambda: token(alg="none")),
    with_token("of the algorithm None", 401, lambda: token(alg="None")),
    with_token("of the algorithm nOnE", 401, lambda: token(alg="nOnE")),
    with_token("of no algorithm that is signed", 401, lambda: token(header={"alg": "none"})),
    with_token("of an algorithm that is no text", 401, lambda: token(header={"alg": ["HS256"]})),
    with_token("of HS512", 401, lambda: token(alg="HS512")),
    with_token("of HS512 that says HS256", 401, lambda: token(alg="HS512", header={"alg": "HS256"})),
    with_token("signed with another key", 401, lambda: token(key=new_name() * 2)),
    with_token("signed with nothing", 401, lambda: token(key="")),
    with_token("with a key of its own", 401, lambda: token(key="k" * 32, header={"jwk": {"kty": "oct", "k": "a2tr"}})),
    with_token("with the address of a key", 401, lambda: token(key="k" * 32, header={"jku": "http://127.0.0.1:1/"})),
    with_token("with a file for a key", 401, lambda: token(key="", header={"kid": "../../../../dev/null"})),
    with_token("with something critical", 401, lambda: token(header={"crit": ["exp2"], "exp2": 1})),
    with_token("for another audience", 401, lambda: token(aud="others")),
    with_token("for no audience", 401, lambda: token(aud=None)),
    with_token("for an audience that is no text", 401, lambda: token(aud={"streams": 1})),
    with_token("that has expired", 401, lambda: token(exp=int(time.time()) - 1)),
    with_token("that expired long ago", 401, lambda: token(exp=-(10**9))),
    with_token("that expires at no time", 401, lambda: token(exp="soon")),
    with_token("that is not valid yet", 401, lambda: token(nbf=int(time.time()) + 600)),
    with_token("that was issued tomorrow", 401, lambda: token(iat=int(time.time()) + 86_400)),
    with_token("whose identity is no text", 401, lambda: token(sub=["bob"])),
    with_token("that is garbage", 401, lambda: "garbage"),
    with_token("of three words of garbage", 401, lambda: "not.a.token"),
    with_token("of two dots only", 401, lambda: ".."),
    with_token("of no JSON", 401, lambda: ".".join([base64url(b"{"), base64url(b"}"), "x"])),
    with_token("that is a list", 401, lambda: ".".join([base64url(b"[]"), base64url(b"[]"), "x"])),
    with_token("of brackets", 401, lambda: ".".join([base64url(b"[" * 5000), base64url(b"{}"), "x"])),
    with_token("with half a signature", 401, lambda: token()[:-20]),
    with_token("without its last character", 401, lambda: token()[:-1]),
    with_token("without its signature", 401, lambda: token().rpartition(".")[0] + "."),
    with_token("without its last part", 401, lambda: token().rpartition(".")[0]),
    with_token("with one part more", 401, lambda: token() + ".x"),
    with_token("with another's claims", 401, lambda: ".".join([*token(sub="x").split(".")[:2], token().split(".")[2]])),
    with_token("that is not ASCII", 401, lambda: token() + "é"),
    with_token("of 100 kB", 401, lambda: token(padding="x" * 100_000)),
    with_token("of 17 kB", 401, lambda: token(padding="x" * 13_000)),
    with_token("for another channel", 403, lambda: token(sse=["news"])),
    with_token("for channels that begin so", 403, lambda: token(sse=["secre", "secret/*", "secrets", "Secret"])),
    with_token("for a pattern in the middle", 403, lambda: token(sse=["*secret", "s*t", "secre?", "^secret$", ".*"])),
    with_token("for no channel", 403, lambda: token(sse=None)),
    with_token("for channels that are no list", 403, lambda: token(sse={"secret": True})),
    with_token("for channels that are no text", 403, lambda: token(sse=[["secret"], None, 1, True])),
    with_token("for another channel beside an allowed one", 403, lambda: token(sse=["news"]),
               "/jwt/events?channel=news&channel=secret"),
    with_token("for another channel that is asked for", 200, lambda: token(sub="alice", sse=["news"]),
               "/jwt/events/news"),
    with_token("of a reader for the private channel", 200, lambda: token(sub="alice", sse=["~"]),
               "/jwt/events?channel=~"),
    with_token("without an identity for the private channel", 403, lambda: token(sub=None), "/jwt/events?channel=~"),
    with_token("of an empty identity for the private channel", 401, lambda: token(sub=""), "/jwt/events?channel=~"),
    with_token("of a reader for another reader's private channel", 400, lambda: token(sub="alice"),
               "/jwt/events?channel=~bob"),
    with_token("whose secret is the public key", 401, lambda: token(key=public_pem()), "/jwt-rsa/events/secret"),
    with_token("whose secret is the public key, stripped", 401, lambda: token(key=public_pem().strip()),
               "/jwt-rsa/events/secret"),
    with_token("without a signature where RSA is used", 401, lambda: token(alg="none"), "/jwt-rsa/events/secret"),
    with_token("of HMAC that says RSA", 401, lambda: token(key=public_pem(), header={"alg": "RS256"}),
               "/jwt-rsa/events/secret"),
    with_header("a token in the query where that is off", 401, query="?token={good}&access_token={good}&access={good}"),
    with_header("a token in a cookie where that is off", 401, "Cookie: token={good}; access={good}"),
    with_header("a token in a cookie of another name", 401, "Cookie: Token={good}; tokens={good}",
                site="/jwt-anywhere"),
    with_header("a token in a parameter of another name", 401, site="/jwt-anywhere",
                query="?Access={good}&token={good}"),
    with_header("a bad token in the query", 401, site="/jwt-anywhere", query="?access=x&access={good}"),
    with_header("a bad token beside a good cookie", 401, "Authorization: Bearer x", "Cookie: token={good}",
                site="/jwt-anywhere"),
    with_header("a token in the cookie", 200, "Cookie: token={good}", site="/jwt-anywhere"),
    with_header("a token in the query", 200, site="/jwt-anywhere", query="?access={good}"),
    with_header("a token in another header", 401,
                "X-Authorization: Bearer {good}", "Proxy-Authorization: Bearer {good}"),
    with_header("a token of another scheme", 401, "Authorization: Token {good}"),
    with_header("a token of the scheme Basic", 401, "Authorization: Basic {good}"),
    with_header("a token without a scheme", 401, "Authorization: {good}"),
    with_header("a token after a colon", 401, "Authorization: Bearer:{good}"),
    with_header("a token right after its scheme", 401, "Authorization: Bearer{good}"),
    with_header("a scheme without a token", 401, "Authorization: Bearer"),
    with_header("a scheme and a space without a token", 401, "Authorization: Bearer "),
    with_header("a token in quotes", 401, 'Authorization: Bearer "{good}"'),
    with_header("two headers, the good one first", 401, "Authorization: Bearer {good}", "Authorization: Bearer x"),
    with_header("two headers, the good one last", 401, "Authorization: Bearer x", "Authorization: Bearer {good}"),
    with_header("a token of the scheme BEARER", 200, "Authorization: BEARER {good}"),
    with_header("a token of the scheme bearer", 200, "Authorization: bearer   {good}"),
    Attempt("a good token from another site", "/jwt/events/secret", 403, user="", headers=(EVIL,), token=token),
    *(
        Attempt(
            f"a token that expires {tried}", "/jwt/events/secret", status, user="", token=make, reaches=status == 200
        )
        for tried, status, make in [
            ("in a very long time", 200, lambda: token(exp=10**18)),
            ("in a time that is a large float", 200, lambda: token(exp=1e300)),
            ("at infinity", 401, lambda: token(exp=float("inf"))),
            ("in a time that no float holds", 401, lambda: token(exp=10**400)),
        ]
    ),
    with_token("whose identity is too long", 401, lambda: token(sub="x" * 501)),
    with_token("whose identity is half a character", 401, lambda: token(sub="\ud800")),
]  # fmt: skip


@on_gthread
@pytest.mark.parametrize("attempt", TOKENS, ids=lambda attempt: attempt.tried)
def test_attempt_by_token_gets_no_byte_of_a_secret(world: World, attempt: Attempt) -> None:
    check_attempt(world, attempt)
