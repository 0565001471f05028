"""An app as users write it, with every part of the public interface: type checkers have nothing to say about it.

``tests/project/test_types.py`` checks it, and runs it. Lines that end with a version of Flask need that one's types.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta

from flask import Blueprint, Flask, abort, request, session
from flask.typing import ResponseReturnValue
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from flask_sse_emitters import (
    SSE,
    BrokerUnavailable,
    Channel,
    CloseReason,
    CopyOnWriteList,
    EmitterClosed,
    Event,
    Publisher,
    PublishFailed,
    Run,
    SseEmitter,
    SseEmitters,
)
from flask_sse_emitters.access import Grant, Rule, jwt_authorizer
from flask_sse_emitters.datastar import read_signals
from flask_sse_emitters.metrics import SseMetrics
from flask_sse_emitters.signals import (
    broker_changed,
    emitter_closed,
    emitter_opened,
    event_published,
    gap_sent,
)
from flask_sse_emitters.testing import decode, open_stream, published, read_events
from flask_sse_emitters.types import BrokerState, Duration, Overflow, Process, SqlSession, Stats

sse = SSE()
views = Blueprint("views", __name__)
emitters = SseEmitters()
ended: CopyOnWriteList[str] = CopyOnWriteList()
database = scoped_session(sessionmaker(create_engine("sqlite://")))


def create_app(config: Mapping[str, object] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(SECRET_KEY="of the tests alone", SSE_BROKER_URL="memory://")
    app.config.from_mapping(config)
    sse.init_app(app)
    app.register_blueprint(views)
    app.register_blueprint(sse.blueprint, url_prefix="/events")
    app.register_blueprint(sse.monitor, url_prefix="/sse-monitor")
    broker_changed.connect(note_broker, app)
    emitter_opened.connect(note_opened, app)
    gap_sent.connect(note_gap, app)

    @emitter_closed.connect_via(app)
    def note_closed(_: Flask, emitter: SseEmitter, reason: CloseReason, error: BaseException | None) -> None:
        ended.add(f"{reason.value}, {emitter.dropped} dropped, {error}")

    @event_published.connect_via(app)
    def note_published(_: Flask, channel: str, id: str, event: str | None, size: int, seconds: float) -> None:
        ended.add(f"{channel} {id} {event} {size / max(seconds, 0.001)}")

    @app.context_processor
    def with_stats() -> dict[str, Stats]:
        note_closed(app, SseEmitter(), CloseReason.COMPLETED, None)
        note_published(app, "a", "1-1", None, 0, 0.0)
        return {"stats": sse.stats()}

    return app


# What views return


@views.get("/connect")
def connect() -> SseEmitter:
    emitter = emitters.add(SseEmitter(timeout=timedelta(minutes=1), overflow="drop_oldest"))
    emitter.send("connected!", event="connect")
    return emitter


@views.get("/with-status")  # Flask 3.1.1
def with_status() -> tuple[SseEmitter, int]:
    return emitters.add(SseEmitter()), 200


@views.get("/with-headers")  # Flask 3.1.1
def with_headers() -> tuple[SseEmitter, dict[str, str]]:
    return emitters.add(SseEmitter()), {"X-Stream": "yes"}


@views.get("/with-both")  # Flask 3.1.1
def with_both() -> tuple[SseEmitter, int, dict[str, str]]:
    emitter = emitters.add(SseEmitter())
    return emitter, 200, {"X-Stream": "yes"}


@views.get("/or-not")
def or_not() -> ResponseReturnValue:
    if "full" in request.args:
        return {"error": "full"}, 503
    if "plain" in request.args:
        return SseEmitter().response(200, {"X-Stream": "yes"})
    return emitters.add(SseEmitter()), 200, {"X-Stream": "yes"}  # Flask 3.1.1


@views.get("/answers")
def answers() -> SseEmitter:
    return SseEmitter(bare=True, drain="finish").send_from(words("a b"), done="[DONE]", on_error=as_event)


@views.get("/runs")  # Flask 3.1.1
def runs() -> tuple[SseEmitter, int, dict[str, str]]:
    channel: Channel = sse.channel("run/1", history_seconds=timedelta(hours=1), since="first")
    run: Run = channel.publish_from(words("a b"), done=Event({"done": True}, event="done"), on_error=as_event, every=0)
    run.wait(30)
    return channel.subscribe(), 200, {"X-Run": "1"}


@views.get("/rows")
async def rows() -> SseEmitter:
    async for word in asynchronous_words():
        sse.publish("words", word)
    return sse.channel("words").subscribe(since="last:2")


def words(text: str) -> Iterator[Event]:
    for word in text.split():
        yield Event({"word": word}, event="word")


async def asynchronous_words() -> AsyncIterator[str]:
    yield "one"
    yield "two"


def as_event(error: BaseException) -> Event:
    return Event({"reason": type(error).__name__}, event="failed")


# Callbacks, emitters, lists


@views.get("/callbacks")
def callbacks() -> SseEmitter:
    emitter = SseEmitter(0, heartbeat=5, max_pending=10, max_pending_bytes=10_000, retry=None, end="cut")

    @emitter.on_completion
    def completed() -> None:
        reason: CloseReason | None = emitter.close_reason
        ended.add("" if reason is None else reason.value)

    @emitter.on_timeout
    def timed_out() -> None:
        emitters.remove(emitter)

    @emitter.on_error
    def failed(error: BaseException) -> None:
        ended.add(str(error))

    emitter.on_completion(lambda: ended.add("completed"))
    completed()
    timed_out()
    failed(ValueError("called by hand"))
    try:
        emitter.send(SseEmitter.event().name("built").id(1).retry(1000).comment("one").data({"a": 1}).data("b"))
        emitter.send({"a": 1}, event="made", wait=1)
    except EmitterClosed as error:
        ended.add(error.reason.value)
    emitter.complete(final=not emitter.try_send("last", id="2"))
    return emitter


@views.get("/lists")
def lists() -> dict[str, object]:
    reached: int = emitters.send(["to", "all"], event="all")
    open_ones: list[SseEmitter] = [emitter for emitter in emitters if emitter.is_open]
    emitters.complete()
    return {"reached": reached, "open": len(open_ones), "ended": list(ended.snapshot())}


# Publishing


@views.get("/publish")
def publish() -> tuple[dict[str, object], int]:
    sse.channels("job/*", public=True, history=10, history_seconds=3600)
    first: str = sse.publish("job/7", {"percent": 1}, event="progress", key="job-7-1")
    ids: list[str] = sse.publish_many([("job/7", Event({"percent": 2})), ("log", "two"), ("log", {"three": 3})])
    own: str = sse.publish_to("ann", "hello", event="mail", last=False)
    try:
        sse.publish_many([("log", "four")])
    except PublishFailed as failure:
        ids += [each for each in failure.results if isinstance(each, str)]
    except BrokerUnavailable as error:
        abort(503 if error.may_be_published else 502)
    channel = sse.channel("job/7")
    channel.complete(Event("over", event="over"))
    position: str = sse.position("job/7", "log")
    found: dict[str, object] = {
        "first": first,
        "ids": ids,
        "own": own,
        "position": position,
        "is_complete": channel.is_complete,
        "readers": channel.subscribers() + sse.private("ann").subscribers(),
    }
    return found, 201


@views.get("/on-commit")
def on_commit() -> ResponseReturnValue:
    sse.publish_on_commit(database, "orders", {"id": 7}, event="created")
    database.commit()
    database.remove()
    with Session(create_engine("sqlite://")) as own:
        notify(own, "ann")
        own.commit()
    return "", 204


def notify(orm: SqlSession, user: str) -> None:
    sse.publish_to_on_commit(orm, user, "you have mail", key="mail-1")


def publish_from_a_script(url: str) -> str:
    with Publisher(url, prefix="shop", publish_seconds=0.5) as publisher:
        publisher.publish_many([("orders", {"id": 7})])
        return publisher.publish("orders", {"id": 8}, event="created", last=True)


# Rules


@sse.authorizer
def may_read(channel: str) -> bool | str | Grant:
    if channel == "~":
        return request.headers.get("X-User", "")
    if channel.startswith("hour/"):
        return Grant("guest", seconds=timedelta(hours=1))
    return channel.startswith("open/")


@sse.publisher(cookies=True)
def may_publish(channel: str) -> bool:
    return may_read(channel) is True


@sse.monitor_access
def may_monitor() -> bool:
    return "admin" in session


def rule_for_tokens() -> Rule:
    return jwt_authorizer(os.environ["KEY"], algorithms=["HS256"])


def either(one: Rule, other: Rule) -> Rule:
    return lambda channel: one(channel) or other(channel)


@views.get("/logout")
def logout() -> ResponseReturnValue:
    sse.disconnect("ann", channel="orders")
    sse.recheck("ann")
    return "", 204


# Figures and signals


@views.get("/stats")
def stats() -> dict[str, object]:
    figures: Stats = sse.stats()
    here: int = figures["outlets"]["handed_off"] + figures["outlets"]["server"]
    names: list[str] = [name for slow in figures["slow"] for name in slow["channels"]]
    state: BrokerState = figures["broker"]["state"]
    trouble: str = figures["broker"].get("error", "")
    return {
        "here": here,
        "is_full": figures["clients"] >= figures["max_clients"],
        "per_event": figures["publish"]["seconds"] / max(1, figures["publish"]["count"]),
        "names": names,
        "state": f"{state} {trouble}",
        "server": figures["server"]["name"],
        "everywhere": sum(map(clients_of, sse.processes())),
        "signals": read_signals(request),
    }


def clients_of(process: Process) -> int:
    return process.get("clients", 0) + sum(process["channels"].values())


def note_broker(app: Flask, *, state: BrokerState, error: str | None) -> None:
    app.logger.warning("%s: %s", state, error)


def note_opened(app: Flask, emitter: SseEmitter) -> None:
    app.logger.info("opened after %s", emitter.last_event_id)


def note_gap(_: Flask, *, requested: str, **others: object) -> None:
    ended.add(f"{requested} {sorted(others)}")


def note_for_a_while(app: Flask, work: Callable[[], object]) -> None:
    with emitter_opened.connected_to(note_opened, app), event_published.muted():
        work()
    emitter_opened.disconnect(note_opened, app)


def read(app: Flask) -> list[Event]:
    """Open a stream, and publish, as a user's own tests do."""
    with open_stream(app.test_client(), "/with-both") as stream, published(sse, "job/7") as events:
        emitters.send("hello")
        assert stream.response.status_code == 200
        sse.publish("job/7", "x")
        with app.test_client().get("/answers") as response:
            last = read_events(response, 4)
        return [*stream.ready(), *last, *decode(b"data: 1\n\n"), *events]


def measure(app: Flask) -> SseMetrics:
    return SseMetrics(sse, app, prefix="shop")


def spread(seconds: Duration) -> SseEmitter:
    overflow: Overflow = "coalesce"
    return SseEmitter(seconds, overflow=overflow)
