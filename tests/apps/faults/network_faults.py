"""Channels with named clients: the app records their ends, and which connections they have."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any
from weakref import WeakValueDictionary

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.signals import emitter_closed, emitter_opened
from tests.apps.channels import app as app
from tests.apps.holdings import holdings
from tests.faults.network.network_syscalls import offer_sends

app.add_url_rule("/process", view_func=holdings)

streams: WeakValueDictionary[str, SseEmitter] = WeakValueDictionary()
connections: dict[str, str] = {}  #: as /proc names them, by client
ends: defaultdict[str, list[list[str]]] = defaultdict(list)


@emitter_opened.connect_via(app)
def note_ends(_app: Any, emitter: SseEmitter) -> None:
    name = request.args.get("name", "")
    emitter.name = name  # type: ignore[attr-defined]
    if name:
        connections[name] = os.readlink(f"/proc/self/fd/{request.environ['gunicorn.socket'].fileno()}")
        streams[name] = emitter  # after its connection, which a request for both may look up at once
    emitter.on_error(lambda error: ends[name].append(["error", str(error)]))
    emitter.on_completion(lambda: ends[name].append(["completion", str(emitter.close_reason)]))


@emitter_closed.connect_via(app)
def note_gone(_app: Any, emitter: SseEmitter, reason: Any, error: Any) -> None:
    """Record that its client has been released, too."""
    ends[emitter.name].append(["gone", reason.name])  # type: ignore[attr-defined]


@app.get("/stream/<name>")
def look(name: str) -> ResponseReturnValue:
    emitter = streams.get(name)
    if emitter is None:
        return {"open": False}
    return {"open": emitter.is_open, "pending": emitter.pending, "connection": connections[name]}


@app.get("/ends")
def what_became() -> ResponseReturnValue:
    return ends


if listener := os.environ.get("SYSCALLS"):
    offer_sends(listener)
