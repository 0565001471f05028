"""The application that the swarm reads from: five channels, and threads that publish to them."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, BrokerUnavailable
from tests.apps.base import configured
from tests.apps.holdings import holdings
from tests.apps.real_threads import original, start_thread

CHANNELS = ("a", "b", "c", "d", "e")

#: How often each is published to. A stream of two channels often has a quiet one.
WEIGHTS = (30, 30, 30, 9, 1)

app = configured(__name__)
sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.authorizer(lambda _: True)

#: What was published: channel, id, name and data of each event, in the order of each thread.
published: list[list[tuple[str, str, str | None, str]]] = []

may_end = threading.Event()


@app.before_request
def shrink_send_buffer() -> None:
    """Make the socket's send buffer as small as the client asks, so that a slow client fills it."""
    if room := request.args.get("room", type=int):
        client = request.environ["gunicorn.socket"]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)


@app.post("/publish")
def publish() -> ResponseReturnValue:
    """Publish events from several threads in about ``seconds``, and ``over`` to each channel once that may be.

    If threads are greenlets, every other one is a real thread.
    """
    threads, events, seed = (int(request.args[name]) for name in ("threads", "events", "seed"))
    seconds = float(request.args["seconds"])
    published.extend([] for _ in range(threads))

    def start(number: int) -> Callable[[], object]:
        arguments = (number, events // threads, seconds, random.Random(f"{seed}/{number}"))
        if number % 2:
            return start_thread(_publish, *arguments, original("time", "sleep"))
        thread = threading.Thread(target=_publish, args=(*arguments, time.sleep), daemon=True)
        thread.start()
        return thread.join

    def run() -> None:
        for wait in [start(number) for number in range(threads)]:
            wait()
        may_end.wait()
        for channel in CHANNELS:
            _note(0, channel, "over", "")

    threading.Thread(target=run, daemon=True).start()
    return "", 204


@app.post("/over")
def end() -> ResponseReturnValue:
    """Let ``over`` be published, after all that is being published."""
    may_end.set()
    return "", 204


def _publish(thread: int, events: int, seconds: float, dice: random.Random, nap: Callable[[float], object]) -> None:
    for event in drawn(thread, events, seconds, dice, nap):
        _note(thread, *event)


def drawn(
    thread: int, events: int, seconds: float, dice: random.Random, nap: Callable[[float], object]
) -> Iterator[tuple[str, str | None, str]]:
    """Yield channel, name and data of a thread's events, in bursts of random length, each as fast as possible."""
    began, number = time.monotonic(), 0
    while number < events:
        for _ in range(min(int(dice.paretovariate(0.7)), 100, events - number)):
            number += 1
            padding = "x" * dice.randrange(100) if dice.random() < 0.9 else "two\nlines"
            name = dice.choice([None, "tick"])
            [channel] = dice.choices(CHANNELS, WEIGHTS)
            yield channel, name, f"{thread} {number} {padding}"
        nap(max(0.0, began + number / events * seconds - time.monotonic()))


def _note(thread: int, channel: str, name: str | None, data: str) -> None:
    event_id = sse.publish(channel, data, event=name)
    published[thread].append((channel, event_id, name, data))


@app.get("/published")
def what_was_published() -> ResponseReturnValue:
    return published


@app.post("/publish/<channel>")
def publish_one(channel: str) -> ResponseReturnValue:
    event, key = request.args.get("event"), request.args.get("key")
    return {"id": sse.publish(channel, request.get_json(), event=event, key=key)}


@app.errorhandler(BrokerUnavailable)
def refuse_with_503(error: BrokerUnavailable) -> ResponseReturnValue:
    return {"error": str(error)}, 503


@app.get("/holdings")
def held() -> dict[str, Any]:
    return {**state(), **holdings(is_at_rest=request.args.get("at_rest") != "0")}


@app.get("/state")
def state() -> dict[str, Any]:
    return {"pid": os.getpid(), "stats": sse.stats()}
