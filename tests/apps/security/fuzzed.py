"""The app under fuzzing: public channels, channels that need a token or a session, and one that is never allowed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jwt
from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter
from flask_sse_emitters.access import Grant, jwt_authorizer
from tests.apps.base import configured

ORIGINS = ["https://shop.example", "http://localhost:3000"]
PUBLIC = ["news", "a/b", "user:7@example.org"]

#: Channels whose events are ``<<name>>``, which no client without the right to the channel may read.
CLOSED = ["orders", "orders/7", "desk", "vault"]
PEOPLE = ["ann", "bob", "carol"]

_KEY = "the key that signs the tokens of the fuzzed app"
_OTHER_KEY = "a key that has never signed a token of that app"


def signed(key: str = _KEY, **claims: object) -> str:
    return jwt.encode(claims, key, algorithm="HS256")


def _session(**values: object) -> str:
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    return str(serializer.dumps(values))


def create_app() -> tuple[Flask, SSE]:
    app = configured(
        "fuzzed",
        SECRET_KEY="what signs the sessions of the fuzzed app",
        SSE_MAX_CLIENTS=12,
        SSE_MAX_CLIENTS_PER_IDENTITY=3,
        SSE_MAX_CLIENTS_PER_ADDRESS=8,
        SSE_CORS_ORIGINS=ORIGINS,
        SSE_MAX_EVENT_BYTES=4096,
        SSE_MAX_PENDING=20,
        SSE_HISTORY=20,
        SSE_ATTACH_SECONDS=0.5,
    )
    sse = SSE(app)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    for name in PUBLIC:
        sse.channel(name, public=True)
    sse.channel("a/b", max_clients=3)
    sse.publisher(jwt_authorizer(_KEY, algorithms=["HS256"], cookie="token", query="token", claim="publish"))
    by_token = jwt_authorizer(_KEY, algorithms=["HS256"], cookie="token", query="token")

    @sse.authorizer
    def may_read(channel: str) -> bool | str | Grant:
        user = session.get("user")
        return user if isinstance(user, str) and channel in ("desk", "~") else by_token(channel)

    @app.get("/mine")
    def mine() -> ResponseReturnValue:
        """Return a stream without channel; the view uses nothing of the request."""
        return SseEmitter()

    @app.post("/steer")
    def steer() -> dict[str, Any]:
        """Publish to all channels, and revoke what the query names."""
        steer_streams(sse, **request.args)
        return {"ids": publish_everywhere(sse), **sse.stats()}

    return app, sse


def publish_everywhere(sse: SSE) -> dict[str, str]:
    """Publish to all channels; return the ids by the channel names that clients use."""
    ids = {name: sse.publish(name, "for all", event="greeting") for name in PUBLIC}
    ids |= {name: sse.publish(name, f"<<{name}>>") for name in CLOSED}
    ids |= {f"~{person}": sse.publish_to(person, f"<<~{person}>>") for person in PEOPLE}
    return ids


def steer_streams(sse: SSE, recheck: str = "", person: str = "", channel: str = "") -> None:
    if recheck:
        sse.recheck(recheck)
    if person or channel:
        sse.disconnect(person or None, channel=channel or None)


app, sse = create_app()

_soon = int(time.time()) + 3600

#: Tokens that allow closed channels; only the first one may publish.
TOKENS: Mapping[str, list[str]] = {
    signed(sub="ann", sse=["orders*", "~"], publish=["posted*", "news"], exp=_soon): ["orders", "orders/7", "~ann"],
    signed(sub="bob", sse="~", publish="posted"): ["~bob"],
}
SESSIONS: Mapping[str, list[str]] = {_session(user="carol"): ["desk", "~carol"]}

#: Tokens that allow nothing. Some are signed correctly, with unexpected claims.
BAD_TOKENS = [
    signed(_OTHER_KEY, sub="ann", sse=["*"], forged=True),
    jwt.encode({"sub": "ann", "sse": ["*"]}, "", algorithm="none"),
    jwt.encode({"sub": "ann", "sse": ["*"]}, _KEY, algorithm="HS256", headers={"kid": "../\0", "jwk": {}}).upper(),
    signed(sub="ann", sse=["*"], exp=1),
    signed(sub="ann", sse=["*"], nbf=2**40),
    signed(sub="ann", sse=["*"], aud="another app"),
    signed(sub="ann", sse=["*"], exp="never"),
    signed(sub="ann", sse=["*"], exp=float("nan")),
    signed(sub="ann", sse=["*"], exp=float("inf")),
    signed(sub=["ann"], sse=["*"]),
    signed(sub=True, sse=["*"]),
    signed(sub="ann", sse={"*": "*"}),
    signed(sub="ann", sse=[None, 7, [], ""], publish=[None, 7, [], ""]),
    signed(sub="ann", sse=["posted"], exp=10**400),
    signed(sub="x" * 501, sse=["posted", "~"]),
    signed(sub="\ud800", sse=["posted", "~"]),
    signed(sub="", sse=["posted", "~"]),
]
BAD_SESSIONS = [_session(), _session(user=""), _session(user=["ann"]), "e30.e30.e30", ".eJw", "...", ""]
