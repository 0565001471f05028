"""Lists to which crowds connect, while a native thread sends to them without waiting for an event loop."""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from typing import Any

import psutil
from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters
from flask_sse_emitters.runtime.gevent_loop import is_green, unpatched
from flask_sse_emitters.runtime.locks import native_lock

app = Flask(__name__)
app.config.update(json.loads(os.environ.get("CONFIG", "{}")))
app.config["SSE_HANDOFF"] = os.environ.get("SSE_HANDOFF", "auto")
sse = SSE(app)

lists: defaultdict[str, SseEmitters] = defaultdict(SseEmitters)

#: For each list, how its streams ended, according to their callbacks.
ends: defaultdict[str, Counter[str]] = defaultdict(Counter)
_lock = native_lock()
_ticking = False


@app.get("/connect/<name>")
def connect(name: str) -> ResponseReturnValue:
    emitter = lists[name].add(SseEmitter(heartbeat=request.args.get("heartbeat", type=float)))

    @emitter.on_completion
    def count() -> None:
        with _lock:
            ends[name][str(emitter.close_reason and emitter.close_reason.name)] += 1

    emitter.send("welcome")
    return emitter


@app.post("/send/<name>")
def send(name: str) -> ResponseReturnValue:
    return {"reached": lists[name].send(request.get_json())}


@app.post("/tick/<name>")
def tick(name: str) -> ResponseReturnValue:
    """Send numbers with their times, ``every`` so many seconds, until a request with 0."""
    global _ticking
    every = float(request.args["every"])
    _ticking = every > 0
    nap = unpatched("time", "sleep")

    def run() -> None:
        for number in itertools.count():
            if not _ticking:
                return
            lists[name].send(f"{number} {time.monotonic()}")
            nap(every)

    if _ticking:
        on_native_thread(run)
    return ""


def on_native_thread(call: Any) -> None:
    if is_green():
        from gevent import get_hub

        get_hub().threadpool.spawn(call)
    else:
        threading.Thread(target=call, daemon=True).start()


@app.get("/state")
def state() -> dict[str, Any]:
    gc.collect()
    me = psutil.Process()
    greenlets = sys.modules.get("greenlet")
    return {
        "pid": os.getpid(),
        "stats": sse.stats(),
        "lists": {name: len(each) for name, each in lists.items()},
        "ends": ends,
        "descriptors": me.num_fds(),
        "uss": me.memory_full_info().uss,
        "cpu": sum(me.cpu_times()[:2]),
        "greenlets": sum(isinstance(thing, greenlets.greenlet) for thing in gc.get_objects()) if greenlets else 0,
    }


@app.get("/counts/<name>")
def counts(name: str) -> dict[str, Any]:
    """Return counts that are cheap to poll."""
    return {"clients": sse.stats()["clients"], "listed": len(lists[name]), "ended": sum(ends[name].values())}
