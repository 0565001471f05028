"""Lists to which crowds connect, while a real thread sends to them without waiting for an event loop."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters
from tests.apps.base import configured
from tests.apps.holdings import holdings
from tests.apps.real_threads import original, start_thread

app = configured(__name__)
sse = SSE(app)

lists: defaultdict[str, SseEmitters] = defaultdict(SseEmitters)

#: For each list, how its streams ended, according to their callbacks.
ends: defaultdict[str, Counter[str]] = defaultdict(Counter)
_lock = original("_thread", "allocate_lock")()
_ticking = False


@app.get("/connect/<name>")
def connect(name: str) -> ResponseReturnValue:
    timeout, heartbeat = (request.args.get(option, type=float) for option in ("timeout", "heartbeat"))
    emitter = lists[name].add(SseEmitter(timeout=timeout, heartbeat=heartbeat))
    emitter.on_error(lambda _: None)

    @emitter.on_completion
    def count() -> None:
        with _lock:
            ends[name][str(emitter.close_reason and emitter.close_reason.name)] += 1

    emitter.try_send("welcome")
    return emitter


@app.post("/send/<name>")
def send(name: str) -> ResponseReturnValue:
    return {"reached": lists[name].send(request.get_json())}


@app.post("/tick/<name>")
def tick(name: str) -> ResponseReturnValue:
    """Send numbers, ``every`` so many seconds, until a request with 0."""
    global _ticking
    every = float(request.args["every"])
    _ticking = every > 0
    nap = original("time", "sleep")

    def run() -> None:
        for number in itertools.count():
            if not _ticking:
                return
            lists[name].send(number)
            nap(every)

    if _ticking:
        start_thread(run)
    return ""


@app.get("/state")
def state() -> dict[str, Any]:
    return {**holdings(), "lists": {name: len(each) for name, each in lists.items()}, "ends": ends}


@app.get("/counts/<name>")
def counts(name: str) -> dict[str, Any]:
    """Return counts that are cheap to poll."""
    return {"clients": sse.stats()["clients"], "listed": len(lists[name]), "ended": sum(ends[name].values())}
