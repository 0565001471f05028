"""The contract application: each view is one way to use the package; tests inspect and control it over HTTP."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, has_request_context, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, SseEmitter, SseEmitters

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


@streams.get("/unknown")
def unknown() -> ResponseReturnValue:
    """Return an emitter that only its list references, until its end."""
    emitter = lists["unknown"].add(SseEmitter(timeout=float(request.args["timeout"])))
    emitter.try_send("hello")
    emitter.on_completion(lambda: None)
    emitter.on_error(lambda _: None)
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


@steering.get("/stats")
def stats() -> ResponseReturnValue:
    return sse.stats()


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
    threads, each, first = (int(request.args[name]) for name in ("threads", "each", "first"))

    def send(sender: int) -> None:
        for number in range(first, first + each):
            lists[name].send(f"{sender}:{number}")
            if not number % 10:
                pause_briefly()

    run_on_threads(send, threads, foreign="foreign" in request.args)
    return ""


def pause_briefly() -> None:
    threading.Event().wait(0.001)


def run_on_threads(call: Callable[[int], object], count: int, foreign: bool) -> None:
    if foreign and is_patched_by_gevent():
        from gevent.hub import get_hub
        from gevent.monkey import get_original

        nap = get_original("time", "sleep")
        globals()["pause_briefly"] = lambda: nap(0.001)
        results = [get_hub().threadpool.spawn(call, number) for number in range(count)]
        for result in results:
            result.get()
        return
    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def is_patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


@steering.get("/process")
def process() -> ResponseReturnValue:
    """Return what this process holds. Its clients are the open connections but that of this request."""
    import gc

    import psutil

    gc.collect()
    me = psutil.Process()
    kinds = (
        "SseEmitter",
        "Stream",
        "ResponseBody",
        "SocketWriter",
        "Watch",
        "Timer",
        "Callbacks",
        "Backlog",
        "Deadlines",
    )
    counts = dict.fromkeys(kinds, 0)
    for thing in gc.get_objects():
        kind = type(thing)
        if kind.__name__ in counts and kind.__module__.startswith("flask_sse_emitters"):
            counts[kind.__name__] += 1
    connections = me.net_connections("tcp")
    ports = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    clients = [each for each in connections if each.raddr and each.laddr.port in ports]
    greenlets = sys.modules.get("greenlet")
    return {
        "pid": os.getpid(),
        "greenlets": sum(isinstance(thing, greenlets.greenlet) for thing in gc.get_objects()) if greenlets else 0,
        "objects": counts,
        "all_objects": len(gc.get_objects()),
        "rss": me.memory_info().rss,
        "threads": me.num_threads(),
        "python_threads": threading.active_count(),
        "descriptors": me.num_fds(),
        "watched": len(clients) - 1,
    }


def create_app(name: str, **config: Any) -> Flask:
    app = Flask(name)
    attach = float(os.environ.get("SSE_ATTACH_SECONDS") or 30)
    app.config.update({"SSE_ATTACH_SECONDS": attach, "SSE_HANDOFF": os.environ.get("SSE_HANDOFF", "auto"), **config})
    sse.init_app(app)
    app.register_blueprint(streams)
    app.register_blueprint(steering)
    return app


app = create_app("contract")
