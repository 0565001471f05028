"""Answers that crowds read: each from a generator of its own, which waits for the crowd after its first item."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter
from tests.apps.base import configured
from tests.apps.holdings import holdings

app = configured(__name__)
sse = SSE(app)

pulled: dict[int, int] = {}  #: how many items each generator has given
closed: dict[int, float] = {}  #: when each was closed, by ``time.monotonic``, which all processes share
gate = threading.Event()


@app.get("/answer/<int:number>")
def answer(number: int) -> ResponseReturnValue:
    """Send ``count`` words of ``size`` bytes, the number of each first, by a socket that keeps as few as it may."""
    count, size = (int(request.args[name]) for name in ("count", "size"))
    client = request.environ["gunicorn.socket"]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def words() -> Any:
        try:
            for index in range(count):
                if index == 1:
                    gate.wait()
                pulled[number] = index + 1
                yield f"{index} {'x' * size}"
        finally:
            closed[number] = time.monotonic()

    return SseEmitter(bare=True).send_from(words(), done="[DONE]")


@app.post("/go")
def go() -> ResponseReturnValue:
    gate.set()
    return {}


@app.get("/state")
def state() -> dict[str, Any]:
    pulling = sum(thread.name == "sse-producer" for thread in threading.enumerate())
    return {"pulled": pulled, "closed": closed, "clients": sse.stats()["clients"], "pulling": pulling}


@app.get("/holdings")
def held() -> dict[str, Any]:
    return holdings()
