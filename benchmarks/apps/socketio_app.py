"""python-socketio with its Redis manager, as its manual has it for gunicorn and gevent: each client joins one room."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs

import socketio
from flask import Flask, Response, request

#: Seconds: no figure measures its heartbeats.
_PING = 300

sockets = socketio.Server(
    async_mode="gevent",
    client_manager=socketio.RedisManager(os.environ["BENCH_REDIS_URL"]),
    ping_interval=_PING,
    ping_timeout=_PING,
)
flask_app = Flask(__name__)
app = socketio.WSGIApp(sockets, flask_app)


@sockets.event  # type: ignore[untyped-decorator]
def connect(sid: str, environ: dict[str, Any]) -> None:
    sockets.enter_room(sid, parse_qs(environ["QUERY_STRING"])["channel"][0])


@flask_app.post("/publish/<channel>")
def publish(channel: str) -> str:
    sockets.emit("message", request.get_data(as_text=True), room=channel)
    return ""


@flask_app.post("/nothing")
def nothing() -> str:
    return request.get_data(as_text=True)


@flask_app.get("/plain")
def plain() -> Response:
    return Response(iter([b"data: x\n\n"]), mimetype="text/event-stream")
