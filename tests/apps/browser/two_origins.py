"""Channels for pages of other origins, with a token of the reader in a header or a cookie."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from flask import Response, request

from flask_sse_emitters.access import Grant, jwt_authorizer
from tests.apps.base import make_app

#: Signs the tokens.
SECRET = "a secret of the tests alone, of 32 bytes or more"

#: The cookie that may hold a token.
COOKIE = "token"

app, sse = make_app(__name__, SSE_RETRY=100)
sse.channel("public", public=True)
by_token = jwt_authorizer(SECRET, algorithms=["HS256"], cookie=COOKIE)

#: Identities without rights, whatever their tokens claim.
banned: set[str | None] = set()

#: The requests for streams, by the number of the reader in the query.
visits: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)


@sse.authorizer
def may_read(channel: str) -> bool | Grant:
    granted = by_token(channel)
    return granted if isinstance(granted, Grant) and granted.identity not in banned else False


@app.after_request
def note_visit(response: Response) -> Response:
    if request.path == "/events":
        visits[request.args["reader"]].append(
            {
                "method": request.method,
                "has_cookie": COOKIE in request.cookies,
                "wanted_headers": request.headers.get("Access-Control-Request-Headers"),
                "header": request.headers.get("Last-Event-ID"),
                "query": request.args.get("lastEventId"),
                "status": response.status_code,
            }
        )
    return response


@app.get("/visits/<reader>")
def get_visits(reader: str) -> list[dict[str, Any]]:
    return visits[reader]


@app.post("/publish")
def publish() -> dict[str, str]:
    """Publish the event of the body, if it ``cuts`` right after the streams of its channel have ended."""
    wanted = request.get_json()
    if wanted.get("cuts"):
        sse.channel(wanted["channel"]).emitters.complete()
    return {"id": sse.publish(wanted["channel"], wanted["data"], retry=wanted.get("retry"))}


@app.post("/ban/<identity>")
def ban(identity: str) -> dict[str, str]:
    banned.add(identity)
    sse.disconnect(identity)
    return {}


@app.get("/log-in")
def log_in() -> Response:
    response = Response("hello")
    response.set_cookie(COOKIE, request.args["token"], httponly=True, samesite="Lax")
    return response
