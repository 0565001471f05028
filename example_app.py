"""A notice board and a live chart of this machine's load, both fed by events: ``gunicorn example_app:app``."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import deque
from typing import TypedDict

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters


class Notice(TypedDict):
    id: str
    author: str
    text: str
    at: int  # milliseconds since 1970, as JavaScript counts


class Load(TypedDict):
    at: int
    cpu: float  # percent of the whole machine
    clients: int


views = Blueprint("example", __name__, static_folder="example", static_url_path="/example")

pages = SseEmitters()
connected = SseEmitters()

notices: deque[Notice] = deque(maxlen=50)
samples: deque[Load] = deque(maxlen=120)


@views.get("/")
def page() -> ResponseReturnValue:
    return views.send_static_file("board.html")


@views.get("/stream")
def stream() -> SseEmitter:
    # Into the list first: what is posted meanwhile may come twice, which the page sorts out, but is never missed.
    emitter = pages.add(SseEmitter())
    history = {"notices": list(notices.copy()), "samples": list(samples.copy())}
    emitter.send(SseEmitter.event().name("history").data(history))
    emitter.on_completion(pulse.quicken)
    pulse.quicken()
    return emitter


@views.post("/notices")
def post_notice() -> ResponseReturnValue:
    posted = request.get_json(silent=True)
    if not isinstance(posted, dict):
        return {"error": 'Send a JSON object: {"author": "...", "text": "..."}.'}, 400
    author, text = posted.get("author") or "", posted.get("text")
    if not isinstance(author, str) or len(author := author.strip()) > 40:
        return {"error": "The author must be a text of at most 40 characters."}, 400
    if not isinstance(text, str) or not 1 <= len(text := text.strip()) <= 500:
        return {"error": "The text must have 1 to 500 characters."}, 400
    notice = Notice(id=uuid.uuid4().hex, author=author or "Anonymous", text=text, at=now())
    notices.append(notice)
    pages.send(SseEmitter.event().name("notice").data(notice))
    return notice, 201


@views.get("/connect")
def connect() -> Response:
    emitter = SseEmitter()
    connected.add(emitter)
    emitter.send(SseEmitter.event().name("connect").data("connected!"))
    return emitter.response(headers={"Access-Control-Allow-Origin": "*"})


class Pulse:
    """Tells all pages the load once a second, and at once when a page comes or leaves.

    One thread does it all, so that no number of clients is overtaken by an older one. It lives while there are pages.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = False
        self._moved = threading.Event()
        self._processor = Processor()

    def quicken(self) -> None:
        """A page has come or left."""
        self._moved.set()
        with self._lock:
            start = not self._running and len(pages) > 0
            self._running = self._running or start
        if start:
            threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def _is_wanted(self) -> bool:
        with self._lock:
            self._running = len(pages) > 0
            return self._running

    def _run(self) -> None:
        cpu, due = 0.0, time.monotonic()
        while self._is_wanted():
            time.sleep(0.05)  # one report for all who come or leave together
            self._moved.clear()
            sampled = time.monotonic() >= due
            if sampled:
                cpu, due = self._processor.percent(), max(due + 1, time.monotonic())
            load = Load(at=now(), cpu=cpu, clients=len(pages))
            if sampled:
                samples.append(load)
            pages.send(SseEmitter.event().name("load").data(load))
            self._moved.wait(due - time.monotonic())


class Processor:
    """How busy all of this machine's processors were since they were last asked."""

    def __init__(self) -> None:
        self._total = self._idle = 0
        self.percent()

    def percent(self) -> float:
        try:
            with open("/proc/stat") as stat:
                ticks = [int(field) for field in stat.readline().split()[1:9]]
        except OSError:  # not Linux
            return round(min(100.0, 100 * os.getloadavg()[0] / (os.cpu_count() or 1)), 1)
        total, idle = sum(ticks), ticks[3] + ticks[4]  # the fourth is idle, the fifth idle while a disk is busy
        passed, rested = total - self._total, idle - self._idle
        self._total, self._idle = total, idle
        return round(min(100.0, max(0.0, 100 * (1 - rested / passed))), 1) if passed > 0 else 0.0


def now() -> int:
    return round(time.time() * 1000)


pulse = Pulse()

app = Flask(__name__, static_folder=None)
app.config["SSE_RETRY"] = 1000
app.register_blueprint(views)
SSE(app)
