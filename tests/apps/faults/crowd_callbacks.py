"""Streams with callbacks that do what they should not: raise, block, and change lists during changes."""

from __future__ import annotations

import threading
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import EmitterClosed, SseEmitter, SseEmitters
from tests.apps.faults.crowd import app as app
from tests.apps.faults.crowd import lists, sse
from tests.apps.real_threads import original

emitters: dict[str, SseEmitter] = {}
journal: list[str] = []
_lock = original("_thread", "allocate_lock")()
_released = threading.Event()


def note(what: str) -> None:
    with _lock:
        journal.append(what)


def raising(name: str, emitter: SseEmitter, clients: SseEmitters) -> None:
    @emitter.on_error
    def fail(error: BaseException) -> None:
        raise ValueError(f"the first of {name}")

    @emitter.on_completion
    def leave() -> None:
        raise SystemExit(f"the second of {name}")


def blocking(name: str, emitter: SseEmitter, clients: SseEmitters) -> None:
    @emitter.on_completion
    def block() -> None:
        note(f"{name} blocks")
        _released.wait()


def recursing(name: str, emitter: SseEmitter, clients: SseEmitters) -> None:
    """Do everything to the list that the emitter has just left, and to the emitter itself."""

    @emitter.on_completion
    def do_all() -> None:
        clients.send(f"{name} is gone")
        emitter.complete()
        emitter.complete_with_error(RuntimeError("too late"))
        try:
            emitter.send("to itself")
        except EmitterClosed:
            note(f"{name} cannot send to itself")
        clients.add(emitter)
        emitter.on_completion(lambda: note(f"{name} has registered one more"))
        late = clients.add(SseEmitter())
        late.on_completion(lambda: clients.send(f"the late one of {name} is gone"))
        late.complete()
        clients.remove(emitters["removed"])
        emitters["next"].complete()


HABITS = {"raise": raising, "block": blocking, "recurse": recursing}


@app.get("/connect/<list>/<name>")
def connect_named(list: str, name: str) -> ResponseReturnValue:
    emitter = emitters[name] = lists[list].add(SseEmitter(heartbeat=request.args.get("heartbeat", type=float)))
    if habit := request.args.get("habit"):
        HABITS[habit](name, emitter, lists[list])
    emitter.on_completion(lambda: note(f"{name} is over"))
    emitter.send("welcome")
    return emitter


@app.post("/complete/<name>")
def complete(name: str) -> ResponseReturnValue:
    emitters[name].complete()
    return ""


@app.post("/release")
def release() -> ResponseReturnValue:
    _released.set()
    return ""


@app.post("/chain/<name>")
def chain(name: str) -> ResponseReturnValue:
    """Make a chain of emitters: the end of each ends the next one, and the last one ends this stream."""
    every = [SseEmitter() for _ in range(int(request.args["length"]))]
    for emitter, following in zip(every, [*every[1:], emitters[name]], strict=True):
        lists["chain"].add(emitter).on_completion(following.complete)
    every[0].complete()
    return {"length": len(every)}


@app.get("/state/<list>")
def state_of(list: str) -> dict[str, Any]:
    clients = sse.stats()["clients"]
    return {"journal": journal, "count": len(lists[list]), "clients": clients, "chain": len(lists["chain"])}
