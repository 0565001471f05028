"""What type checkers must find: each line that ends with ``# wrong``, and no other. Is never run."""

# ruff: noqa: ARG002, B018

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from flask import Flask
from flask.typing import ResponseReturnValue
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession

from flask_sse_emitters import SSE, CopyOnWriteList, Event, Publisher, SseEmitter, SseEmitters
from flask_sse_emitters.access import Grant, jwt_authorizer
from flask_sse_emitters.brokers import Bounds, Broker, Frame, Listener, Published, Start, make_broker
from flask_sse_emitters.signals import broker_changed, emitter_closed, emitter_opened, event_published, gap_sent
from flask_sse_emitters.testing import open_stream, published, read_events
from flask_sse_emitters.types import BrokerStatus, Overflow, Process, Stats

app = Flask(__name__)
sse = SSE(app)
emitters = SseEmitters()
emitter = SseEmitter()

# Views


@app.get("/list")  # wrong
def view_of_list() -> SseEmitters:
    return emitters


@app.get("/status")
def view_with_list() -> ResponseReturnValue:
    return emitters, 200  # wrong


app.register_blueprint(sse)  # wrong
app.register_blueprint(sse.blueprint("/events"))  # wrong

# Emitters

SseEmitter("60")  # wrong
SseEmitter(overflow="drop_newest")  # wrong
SseEmitter(drain="wait")  # wrong
SseEmitter(end="break")  # wrong
SseEmitter(milliseconds=60_000)  # wrong
emitter.send("x", "name")  # wrong
emitter.send("x", event=7)  # wrong
emitter.send("x", wait="5")  # wrong
emitter.try_send("x", wait=5)  # wrong
emitter.complete_with_error("too slow")  # wrong
emitter.send_from(7)  # wrong
emitter.close_reason = None  # wrong
[*emitter]  # wrong
Event("x", "name")  # wrong
Event("x", retry="1000")  # wrong
SseEmitter.event().id(1.5)  # wrong
emitters.add("emitter")  # wrong
overflow: Overflow = "oldest"  # wrong


async def items() -> AsyncIterator[str]:
    yield "x"


emitter.send_from(items())  # wrong


@emitter.on_completion  # wrong
def completed(reason: str) -> None: ...


@emitter.on_error  # wrong
def failed(error: str) -> None: ...


@emitter.on_error  # wrong
def failed_without() -> None: ...


numbers: CopyOnWriteList[int] = CopyOnWriteList()
numbers.add("one")  # wrong

# Channels, publishing

sse.channel(7)  # wrong
sse.channel("a", public="yes")  # wrong
sse.channel("a", history="10")  # wrong
sse.publish({"id": 7})  # wrong
sse.publish("a", "x", event=b"name")  # wrong
sse.publish("a", "x", key=7)  # wrong
sse.publish_many(["a", "b"])  # wrong
sse.publish_to(7, "x")  # wrong
sse.channel("a").subscribe(identity=None)  # wrong
sse.channel("a").publish_from(items())  # wrong
sse.channel("a").cancel().wait()  # wrong
sse.publish_on_commit(create_engine("sqlite://"), "a", "x")  # wrong
sse.publish_on_commit(AsyncSession(), "a", "x")  # wrong
sse.publish_on_commit("a", "x")  # wrong
sse.disconnect(7)  # wrong
Publisher("redis://localhost", publish_seconds="2")  # wrong

# Rules


@sse.authorizer  # wrong
def reads_any() -> bool:
    return True


@sse.authorizer  # wrong
def reads_number(channel: str) -> int:
    return 7


@sse.authorizer  # wrong
async def reads_later(channel: str) -> bool:
    return True


@sse.publisher(cookies="yes")  # wrong
def publishes(channel: str) -> bool:
    return True


@sse.monitor_access  # wrong
def monitors(channel: str) -> bool:
    return True


Grant(7)  # wrong
Grant("ann", seconds="60")  # wrong
jwt_authorizer("key", algorithms=None)  # wrong

# Figures

stats: Stats = sse.stats()
stats["client"]  # wrong
stats["slow"][0]["name"]  # wrong
stats["outlets"]["handed_of"]  # wrong
text: str = stats["clients"]  # wrong
process: Process = sse.processes()[0]
process["slow"]  # wrong
sse.processes()["clients"]  # wrong

# Signals


@emitter_opened.connect_via(app)  # wrong
def opened(app: Flask) -> None: ...


@emitter_closed.connect_via(app)  # wrong
def closed(app: Flask, emitter: SseEmitter, reason: str, error: BaseException | None) -> None: ...


@emitter_closed.connect  # wrong
def closed_early(app: Flask, emitter: SseEmitter) -> None: ...


@event_published.connect  # wrong
def was_published(app: Flask, channel: str, id: int, **others: Any) -> None: ...


@gap_sent.connect  # wrong
def gap(emitter: SseEmitter, requested: str) -> None: ...


@broker_changed.connect  # wrong
def changed(app: Flask, state: bool, error: str | None) -> None: ...


# Brokers


class OwnBroker(Broker):
    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> str:  # wrong
        return "1"

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        listener.arrived("frame")  # wrong
        return None

    def unsubscribe(self, channel: str, listener: Listener) -> None: ...

    def status(self) -> BrokerStatus:
        return {"state": "up"}  # wrong


class NoBroker(Broker):
    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, key: str | None = None) -> Published:
        return Published("1", True)


NoBroker()  # wrong
make_broker("memory://", secret="x")  # wrong

# Tests

read_events(7, 1)  # wrong
read_events(app.test_client().get("/"), "1")  # wrong
open_stream(app, "/")  # wrong
published("sse", "a")  # wrong
