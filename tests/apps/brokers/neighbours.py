"""Channels of readers who give their names: an app that runs on this version of the package and on the one before."""

from __future__ import annotations

from flask import request
from flask.typing import ResponseReturnValue

from tests.apps.base import make_app
from tests.apps.runs import running

app, sse = make_app(__name__)
app.register_blueprint(running(sse))


@sse.authorizer
def name_of_reader(_channel: str) -> str:
    return request.args.get("reader", "somebody")


@app.post("/keyed/<channel>/<key>")
def publish_once(channel: str, key: str) -> ResponseReturnValue:
    return {"id": sse.publish(channel, request.get_json(), key=key)}


@app.get("/seen/<channel>")
def seen(channel: str) -> ResponseReturnValue:
    return {
        "subscribers": sse.channel(channel).subscribers(),
        "processes": len(sse.processes()),
        "position": sse.position(channel),
        "is_running": sse.channel(channel).is_running,
        "is_complete": sse.channel(channel).is_complete,
    }
