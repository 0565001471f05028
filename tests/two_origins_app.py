"""Channels for pages of other origins, whose readers have a token: in a header, or in a cookie."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

from flask import Flask, Response, request

from flask_sse_emitters import SSE
from flask_sse_emitters.access import Grant, jwt_authorizer

#: Milliseconds until a client comes back.
RETRY = 100

#: Signs the tokens.
SECRET = "a secret of the tests alone, of 32 bytes or more"

#: Where a token may be, beside the header.
COOKIE = "token"

app = Flask(__name__)
app.config.update(SSE_RETRY=RETRY, SSE_CORS_ORIGINS=os.environ.get("ORIGINS", "").split())
sse = SSE(app)
sse.channel("public", public=True)
app.register_blueprint(sse.blueprint, url_prefix="/events")
by_token = jwt_authorizer(SECRET, algorithms=["HS256"], cookie=COOKIE)

#: Identities that may read no longer, whatever their tokens say.
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
def publish() -> Response:
    """Publish what is said; where it says so, end the streams of that channel first."""
    for said in request.get_json():
        if said.get("cuts"):
            sse.channel(said["channel"]).emitters.complete()
        elif "identity" in said:
            sse.publish_to(said["identity"], said["data"])
        else:
            sse.publish(said["channel"], said["data"], retry=said.get("retry"))
    return Response(status=204)


@app.post("/ban/<identity>")
def ban(identity: str) -> Response:
    banned.add(identity)
    sse.disconnect(identity)
    return Response(status=204)


@app.get("/log-in")
def log_in() -> Response:
    """Set the cookie, with what the query says of it."""
    response = Response("hello")
    response.headers["Set-Cookie"] = f"{COOKIE}={request.args['token']}; HttpOnly; Path=/; {request.args['attributes']}"
    return response
