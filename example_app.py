"""A notice board, a live chart of this machine's load, and answers word by word: ``gunicorn example_app:app``.

One process serves it and keeps the notices in a file. With ``SSE_BROKER_URL`` set to a shared Redis or PostgreSQL, any
number of processes on any number of machines can serve it.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypedDict

from flask import Blueprint, Flask, Response, current_app, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, BrokerUnavailable, Event, RunExists, SseEmitter, SseEmitters
from flask_sse_emitters.signals import emitter_moved

BROKER_URL = os.environ.get("SSE_BROKER_URL") or "memory://"
IS_SHARED = not BROKER_URL.startswith("memory:")


class Notice(TypedDict):
    id: str
    author: str
    text: str
    at: int  # milliseconds since 1970, as in JavaScript


class Load(TypedDict):
    at: int
    cpu: float  # percent of the whole machine
    clients: int
    process: int
    number: int  # of what this process has sent: a chart that misses one has a hole


ANSWER = """
No language model has read this. The words come from a list, one by one. A thread of the server publishes them to a
channel, whoever reads: reload this page, or open it in a second tab. The words so far come back, and then the rest.
"""
PAUSE = 0.1, 0.4  # seconds between two words, from and to

views = Blueprint("example", __name__, static_folder="example", static_url_path="/example")

sse = SSE()
board = sse.channel("notices", public=True)  # a channel replays what a client has missed, so no notice is lost
answer = sse.channel("answer", public=True, history_seconds=600)  # ends with each answer; the next begins it anew
charts = SseEmitters("charts")  # only the newest sample of the load matters, so a list is enough
connected = SseEmitters()

samples: deque[Load] = deque(maxlen=120)


@views.get("/")
def page() -> ResponseReturnValue:
    return views.send_static_file("board.html")


@views.get("/notices")
def get_notices() -> ResponseReturnValue:
    return notices.newest()


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
    # Keep first, then publish: a page listens first, then fetches what is kept, so it misses no notice in between.
    notices.keep(notice)
    board.publish(notice, event="notice", key=notice["id"])
    return notice, 201


@views.errorhandler(BrokerUnavailable)
@views.errorhandler(OSError)
def refuse(error: Exception) -> ResponseReturnValue:
    current_app.logger.warning("a request is refused: %s", error)
    return {"error": "The notice board cannot be reached. Try again in a moment."}, 503


@views.post("/answer")
def ask() -> ResponseReturnValue:
    posted = request.get_json(silent=True)
    question = posted.get("question") if isinstance(posted, dict) else None
    if not isinstance(question, str) or not 1 <= len(question := question.strip()) <= 200:
        return {"error": "The question must have 1 to 200 characters."}, 400
    asked = {"id": uuid.uuid4().hex, "question": question}
    try:
        answer.publish_from(write_answer(asked), done=Event("", event="done"))  # goes on, whoever reads
    except RunExists:
        return {"error": "An answer is being written already. Stop it first."}, 409
    board.publish(asked, event="asked")  # a page that has had an answer to its end listens to no more by itself
    return "", 204


@views.delete("/answer")
def stop_answer() -> ResponseReturnValue:
    return {"was_running": answer.cancel()}  # in whichever process it runs


@views.get("/live")
def stream_live() -> SseEmitter:
    """Notices and load on one connection: a browser opens six to a server, for all its tabs together."""
    emitter = charts.add(board.subscribe())
    emitter.send(SseEmitter.event().name("samples").data(list(samples.copy())))
    load_publisher.wake()
    return emitter


@views.get("/connect")
def connect() -> Response:
    emitter = SseEmitter()
    connected.add(emitter)
    emitter.send(SseEmitter.event().name("connect").data("connected!"))
    return emitter.response(headers={"Access-Control-Allow-Origin": "*"})


def write_answer(asked: dict[str, str]) -> Iterator[Event | str]:
    """Pretend to be a language model, which gives its words one by one."""
    yield Event(asked, event="asked")
    for word in ANSWER.split():
        time.sleep(random.uniform(*PAUSE))
        yield word


class Notices(Protocol):
    """The newest notices.

    :raises OSError: from each method, if what keeps them cannot be reached.
    """

    def keep(self, notice: Notice) -> None: ...

    def newest(self) -> list[Notice]:
        """Return them, in any order."""


KEPT = 50


class NoticesInFile:
    """Keeps notices in a file, which outlives this process."""

    def __init__(self) -> None:
        self._file = Path(os.environ.get("NOTICES_FILE") or Path(__file__).with_name("instance") / "notices.json")

    def keep(self, notice: Notice) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        written = self._file.with_suffix(".new")
        with open(self._file.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # during a reload there are two workers
            written.write_text(json.dumps([*self.newest(), notice][-KEPT:]))
            written.replace(self._file)

    def newest(self) -> list[Notice]:
        try:
            found: list[Notice] = json.loads(self._file.read_text())
        except FileNotFoundError:
            found = []
        except ValueError as error:
            raise OSError(f"{self._file} does not hold notices, move it away: {error}") from error
        return found


class NoticesInRedis:
    """Keeps notices in the Redis that many processes share."""

    KEY = "example:notices"

    def __init__(self) -> None:
        import redis

        self._error = redis.RedisError
        self._redis: Any = redis.Redis.from_url(BROKER_URL, socket_timeout=1)

    def keep(self, notice: Notice) -> None:
        self._run(("LPUSH", self.KEY, json.dumps(notice)), ("LTRIM", self.KEY, 0, KEPT - 1))

    def newest(self) -> list[Notice]:
        return [json.loads(notice) for notice in self._run(("LRANGE", self.KEY, 0, -1))[0]]

    def _run(self, *commands: tuple[Any, ...]) -> list[Any]:
        try:
            with self._redis.pipeline() as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return list(pipeline.execute())
        except self._error as error:
            raise ConnectionError(f"Redis does not answer: {error}") from error


class NoticesInPostgresql:
    """Keeps notices in a table of the PostgreSQL that many processes share."""

    def __init__(self) -> None:
        import psycopg

        self._psycopg = psycopg

    def keep(self, notice: Notice) -> None:
        self._run("INSERT INTO example_notices (notice) VALUES (%s)", json.dumps(notice))
        self._run("DELETE FROM example_notices WHERE number <= (SELECT max(number) FROM example_notices) - %s", KEPT)

    def newest(self) -> list[Notice]:
        rows = self._run("SELECT notice FROM example_notices ORDER BY number DESC LIMIT %s", KEPT)
        return [json.loads(notice) for (notice,) in rows]

    def _run(self, statement: str, value: Any) -> list[Any]:
        try:
            with self._psycopg.connect(BROKER_URL, autocommit=True, connect_timeout=2) as connection:
                connection.execute("SELECT pg_advisory_lock(7)")  # two that make the table at once would collide
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS example_notices (number serial PRIMARY KEY, notice text)"
                )
                cursor = connection.execute(statement, [value])
                return cursor.fetchall() if cursor.description else []
        except self._psycopg.Error as error:
            raise ConnectionError(f"PostgreSQL does not answer: {error}") from error


def notices_at(url: str) -> Notices:
    if url.startswith("memory:"):
        return NoticesInFile()
    return NoticesInPostgresql() if url.startswith("postgres") else NoticesInRedis()


class LoadPublisher:
    """Sends the load to all charts once a second, and at once when a chart connects.

    One thread sends everything, so that no count of clients overtakes an older one. It runs while there are charts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = False
        self._changed = threading.Event()
        self._processor = Processor()
        self._number = 0

    def wake(self) -> None:
        """Report at once that a chart has connected."""
        self._changed.set()
        with self._lock:
            start = not self._running and len(charts) > 0
            self._running = self._running or start
        if start:
            threading.Thread(target=self._run, name="load-publisher", daemon=True).start()

    def _should_continue(self) -> bool:
        with self._lock:
            self._running = len(charts) > 0
            return self._running

    def _run(self) -> None:
        cpu, due = 0.0, time.monotonic()
        while self._should_continue():
            time.sleep(0.05)  # one report for all charts that connect together
            self._changed.clear()
            sampled = time.monotonic() >= due
            if sampled:
                cpu, due = self._processor.percent(), max(due + 1, time.monotonic())
            self._number += 1
            load = Load(at=now(), cpu=cpu, clients=count_clients(), process=os.getpid(), number=self._number)
            if sampled:
                samples.append(load)
            charts.send(SseEmitter.event().name("load").data(load))
            self._changed.wait(due - time.monotonic())


class Processor:
    """The load of all processors of this machine since the last call."""

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


def count_clients() -> int:
    """Count the clients of all processes, or of this one if the broker is down."""
    try:
        return board.subscribers() if IS_SHARED else len(charts)
    except BrokerUnavailable:
        return len(charts)


def now() -> int:
    return round(time.time() * 1000)


notices = notices_at(BROKER_URL)
load_publisher = LoadPublisher()

app = Flask(__name__, static_folder=None)
app.config["SSE_BROKER_URL"] = BROKER_URL
app.config["SSE_RETRY"] = 1000
app.register_blueprint(views)
app.register_blueprint(sse.blueprint, url_prefix="/events")  # the page listens at /events/answer
sse.init_app(app)


@emitter_moved.connect_via(app)
def go_on(_app: Flask, **_moved: object) -> None:
    """Send the load to charts that were another worker's, which stops."""
    load_publisher.wake()
