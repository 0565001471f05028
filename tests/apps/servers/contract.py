"""The contract application: each view is one way to use the package; tests inspect and control it over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import psutil
from flask import Blueprint, Flask, Response, current_app, g, has_request_context, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters
from tests.apps import base
from tests.apps.holdings import holdings
from tests.apps.real_threads import original, start_thread

sse = SSE()
streams = Blueprint("streams", __name__)
steering = Blueprint("steering", __name__)

emitters: dict[str, SseEmitter] = {}
lists: defaultdict[str, SseEmitters] = defaultdict(SseEmitters)
journals: defaultdict[str, list[str]] = defaultdict(list)


def make(name: str) -> SseEmitter:
    """Make an emitter under a name, with the options and list of the query, and a journal of its callbacks."""
    options: dict[str, Any] = {
        key: convert(request.args[key])
        for key, convert in (("timeout", float), ("heartbeat", float), ("max_pending", int), ("overflow", str))
        if key in request.args
    }
    emitter = emitters[name] = SseEmitter(**{"timeout": 60, "heartbeat": 0, **options})
    journal, requests_thread = journals[name], threading.current_thread()

    def note(what: str) -> None:
        away = "" if threading.current_thread() is not requests_thread else " on the request's thread"
        app = current_app.name if current_app else "no app"
        journal.append(f"{what} in {app}{away}")

    emitter.on_completion(lambda: note("completion"))
    emitter.on_timeout(lambda: note("timeout"))
    emitter.on_error(lambda _: note("error"))
    return lists[request.args.get("list", name)].add(emitter)


@streams.get("/silent/<name>")
def silent(name: str) -> ResponseReturnValue:
    return make(name)


@streams.get("/numbered/<name>")
def numbered(name: str) -> ResponseReturnValue:
    emitter = make(name)
    for number in range(3):
        emitter.send(SseEmitter.event().name("number").id(number).data(number))
    return emitter


@streams.get("/tuple/<name>")
def in_a_tuple(name: str) -> Any:
    return make(name), 200, {"X-Foo": "bar"}


@streams.get("/completed/<name>")
def completed(name: str) -> ResponseReturnValue:
    emitter = make(name)
    emitter.send("only this")
    emitter.complete()
    return emitter


@streams.get("/failing/<name>")
def failing(name: str) -> ResponseReturnValue:
    make(name)
    raise RuntimeError("the view failed")


@streams.get("/failing-after/<name>")
def failing_after(name: str) -> ResponseReturnValue:
    g.fail_after = True
    return make(name)


@streams.get("/unreturned/<name>")
def unreturned(name: str) -> ResponseReturnValue:
    make(name)
    return "something else"


@streams.get("/awaited/<name>")
async def awaited(name: str) -> ResponseReturnValue:
    """Return a stream of a channel with the name of the emitter, to which a send comes first."""
    await asyncio.sleep(0.01)
    emitter = emitters[name] = sse.channel(name).subscribe()
    emitter.send("from an async view")
    return emitter


@streams.get("/awaited-response/<name>")
async def awaited_response(name: str) -> ResponseReturnValue:
    """Make the response in the coroutine, which runs on another thread than the server's."""
    await asyncio.sleep(0.01)
    return make(name).response(headers={"X-Foo": "bar"})


@streams.post("/awaited/<name>")
async def publish_awaited(name: str) -> ResponseReturnValue:
    await asyncio.sleep(0.01)
    return {"id": sse.publish(name, request.get_json())}


@streams.after_request
def fail_after(response: Response) -> Response:
    if g.get("fail_after"):
        raise RuntimeError("after_request failed")
    return response


@streams.teardown_request
def note_the_end_of_the_request(error: BaseException | None) -> None:
    if has_request_context() and request.view_args:
        journals["requests"].append(request.view_args["name"])


@steering.get("/state/<name>")
def state(name: str) -> ResponseReturnValue:
    if name not in emitters:
        return {"journal": []}
    emitter = emitters[name]
    return {
        "open": emitter.is_open,
        "reason": emitter.close_reason and emitter.close_reason.name,
        "error": emitter.error and str(emitter.error),
        "pending": emitter.pending,
        "last_event_id": emitter.last_event_id,
        "journal": journals[name],
    }


@steering.get("/requests")
def requests() -> ResponseReturnValue:
    return journals["requests"]


@steering.post("/send/<name>")
def send(name: str) -> ResponseReturnValue:
    return {"sent": emitters[name].try_send(request.get_json())}


@steering.post("/complete/<name>")
def complete(name: str) -> ResponseReturnValue:
    emitters[name].complete()
    return ""


@steering.post("/fail/<name>")
def fail(name: str) -> ResponseReturnValue:
    emitters[name].complete_with_error(ValueError("on purpose"))
    return ""


@steering.get("/lists/<name>")
def count(name: str) -> ResponseReturnValue:
    return {"count": len(lists[name])}


@steering.post("/lists/<name>/send")
def send_to_all(name: str) -> ResponseReturnValue:
    return {"count": lists[name].send(request.get_json())}


@steering.post("/lists/<name>/complete")
def complete_all(name: str) -> ResponseReturnValue:
    lists[name].complete()
    return ""


@steering.post("/lists/<name>/publish")
def publish(name: str) -> ResponseReturnValue:
    """Send events from several threads; ``foreign`` ones are native threads even if gevent has patched."""
    threads, each, first = (int(request.args[key]) for key in ("threads", "each", "first"))

    is_foreign = "foreign" in request.args
    pause: Callable[[float], object] = original("time", "sleep") if is_foreign else time.sleep

    def send(sender: int) -> None:
        for number in range(first, first + each):
            lists[name].send(f"{sender}:{number}")
            if not number % 10:
                pause(0.001)

    if is_foreign:
        waits = [start_thread(send, number) for number in range(threads)]
    else:
        own = [threading.Thread(target=send, args=(number,)) for number in range(threads)]
        for thread in own:
            thread.start()
        waits = [thread.join for thread in own]
    for wait in waits:
        wait()
    return ""


@steering.get("/process")
def process() -> ResponseReturnValue:
    """Return what this process holds, with the number of open connections but that of this request."""
    connections = psutil.Process().net_connections("tcp")
    ports = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    clients = [each for each in connections if each.raddr and each.laddr.port in ports]
    return {**holdings(), "watched": len(clients) - 1}


def create_app(name: str, **config: Any) -> Flask:
    app = base.configured(name, **config)
    sse.init_app(app)
    app.register_blueprint(streams)
    app.register_blueprint(steering)
    app.register_blueprint(base.steering(sse))
    return app


app = create_app("contract")
