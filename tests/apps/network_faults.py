"""Channels with named clients: the app records their ends, and shows how its worker writes to them."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any
from weakref import WeakValueDictionary

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.signals import emitter_closed, emitter_opened
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.outgoing import WriterState
from tests.apps.channels import app as app
from tests.apps.contract import process
from tests.faults import network_syscalls as faults_network_syscalls

app.add_url_rule("/process", view_func=process)

streams: WeakValueDictionary[str, SseEmitter] = WeakValueDictionary()
ends: defaultdict[str, list[list[str]]] = defaultdict(list)


@emitter_opened.connect_via(app)
def note_ends(_app: Any, emitter: SseEmitter) -> None:
    name = request.args.get("name", "")
    emitter.name = name  # type: ignore[attr-defined]
    if name:
        streams[name] = emitter
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
    watch = getattr(stream_of(emitter).outgoing.writer, "_watch", None)
    return {
        "open": emitter.is_open,
        "idle": stream_of(emitter).outgoing.state is WriterState.IDLE,
        "pending": emitter.pending,
        "writer": type(stream_of(emitter).outgoing.writer).__name__,
        "descriptor": watch and watch.descriptor,
    }


@app.get("/ends")
def what_became() -> ResponseReturnValue:
    return ends


if path := os.environ.get("SYSCALLS"):
    faults_network_syscalls.offer_sends(path)
