"""Streams that come to an end of their own, pulled from iterables whose fate is noted."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import Event, SseEmitter

finite = Blueprint("finite", __name__)

#: What has become of each iterable, by its name: how many items it has given, and whether it was closed.
pulled: defaultdict[str, dict[str, Any]] = defaultdict(lambda: {"items": 0, "closed": 0})

#: Lets the iterables of this name go on.
gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)


def noted(name: str, items: Iterator[Any]) -> Iterator[Any]:
    try:
        for item in items:
            pulled[name]["items"] += 1
            yield item
    finally:
        pulled[name]["closed"] += 1


@finite.get("/words/<name>")
def words(name: str) -> ResponseReturnValue:
    """Send so many words, the number of each first."""
    count, size = int(request.args["count"]), int(request.args.get("size", 10))
    emitter = SseEmitter(bare="bare" in request.args)
    return emitter.send_from(noted(name, (f"{number} {'x' * size}" for number in range(count))), done="[DONE]")


@finite.get("/gated/<name>")
def gated(name: str) -> ResponseReturnValue:
    """Send one word, wait for the gate, send another one.

    The gate of a worker that stops, and so answers no requests, is a file.
    """
    file = request.args.get("file")

    def items() -> Iterator[str]:
        yield "first"
        if file is None:
            gates[name].wait()
        while file is not None and not Path(file).exists():
            time.sleep(0.02)
        yield "second"

    return SseEmitter(bare=True, heartbeat=0.1).send_from(noted(name, items()), done="[DONE]")


@finite.post("/posted/<name>")
def posted(name: str) -> ResponseReturnValue:
    """Send a word, wait for the gate, and send one that is large; do not look at what was posted."""
    size = int(request.args["size"])

    def items() -> Iterator[str]:
        yield "first"
        gates[name].wait()
        yield "x" * size

    return SseEmitter().send_from(noted(name, items()))


@finite.post("/open/<name>")
def open_gate(name: str) -> ResponseReturnValue:
    gates[name].set()
    return {}


@finite.get("/raising/<name>")
def raising(name: str) -> ResponseReturnValue:
    def items() -> Iterator[str]:
        yield "half"
        raise ValueError("upstream")

    return SseEmitter().send_from(items(), on_error=lambda error: Event(str(error), event="failed"))


@finite.get("/aborted")
def aborted() -> ResponseReturnValue:
    """Return a stream that is over, and not whole."""
    emitter = SseEmitter(bare=True)
    emitter.abort()
    return emitter


@finite.get("/computing/<name>")
def computing(name: str) -> ResponseReturnValue:
    """Compute for some milliseconds before each item."""

    def items() -> Iterator[int]:
        for number in range(int(request.args["count"])):
            until = time.monotonic() + 0.005
            while time.monotonic() < until:
                pass
            yield number

    return SseEmitter(bare=True).send_from(noted(name, items()), done="[DONE]")


def rows_of(path: str) -> Iterator[str]:
    """Return the rows of a database, which is opened on the thread that pulls them."""
    with sqlite3.connect(path) as database:
        for number, text in database.execute("SELECT number, text FROM rows ORDER BY number"):
            yield f"{number},{text}"


@finite.get("/rows/<name>")
def rows(name: str) -> ResponseReturnValue:
    return SseEmitter(bare=True).send_from(noted(name, rows_of(request.args["path"])), done="[DONE]")


@finite.get("/plain-rows/<name>")
def plain_rows(name: str) -> ResponseReturnValue:
    """Send the same as plain Flask does."""
    items = noted(name, rows_of(request.args["path"]))
    return Response((f"data: {row}\n\n" for row in items), mimetype="text/event-stream")


@finite.get("/loop/<name>")
def loop(name: str) -> ResponseReturnValue:
    """Send in the background, as fast as the client reads."""
    emitter = SseEmitter()

    def send() -> None:
        for number in range(int(count)):
            emitter.send(number, wait=30)
        emitter.complete()

    count = request.args["count"]
    threading.Thread(target=send, daemon=True).start()
    return emitter


@finite.get("/pulled/<name>")
def what_was_pulled(name: str) -> ResponseReturnValue:
    return pulled[name]
