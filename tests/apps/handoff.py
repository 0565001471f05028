"""The site of most tests here: the contract application, views about hand-off, and apps that tests add."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.apps import channels
from tests.apps.real_threads import original, start_thread
from tests.apps.servers import contract
from tests.apps.servers.answers import answers
from tests.apps.servers.contract import emitters, journals, lists, make
from tests.apps.servers.finite import finite
from tests.apps.servers.mcp import mcp
from tests.apps.servers.middleware import add_middleware

logging.basicConfig(level=logging.INFO)

more = Blueprint("more", __name__)


@more.get("/seen")
def what_was_seen() -> ResponseReturnValue:
    """Return what the app's observing middleware has seen."""
    found: list[str] = current_app.extensions["seen"]()
    return found


@more.post("/fork")
def fork() -> ResponseReturnValue:
    """Fork a child that holds all descriptors open until it is killed."""
    child = os.fork()
    if child == 0:
        original("time", "sleep")(600)
        os._exit(0)
    return {"pid": child}


@more.get("/connections")
def connections() -> ResponseReturnValue:
    """Return how many connections gunicorn's gthread worker counts."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__")  # noqa: B009 - mypy knows no such attribute
    return {"count": worker.nr_conns}


@more.post("/from-loop/<name>")
def from_loop(name: str) -> ResponseReturnValue:
    """Send from the event loop itself, which may not wait: to the list, and to the emitter alone."""
    from gevent.hub import get_hub

    def send(number: int) -> None:
        lists[name].send(f"to all {number}")
        emitters[name].send(f"to one {number}")

    for number in range(int(request.args["count"])):
        get_hub().loop.run_callback(send, number)
    return ""


floods: set[str] = set()  # those that are under way


@more.post("/flood/<name>")
def flood(name: str) -> ResponseReturnValue:
    """Send from a native thread as fast as possible, until the stream ends."""

    def send() -> None:
        while emitters[name].try_send("x" * 200):
            pass
        floods.discard(name)

    floods.add(name)
    start_thread(send)
    return ""


@more.get("/flooding/<name>")
def flooding(name: str) -> ResponseReturnValue:
    return {"flooding": name in floods}


@more.post("/exhaust-descriptors")
def exhaust_descriptors() -> ResponseReturnValue:
    """Limit the process to the descriptors that it has now, including that of this request's connection."""
    import resource

    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    while (number := os.dup(0)) <= highest:  # free numbers in between
        held.append(number)
    held.append(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return ""


held: list[int] = []


@more.get("/promising/<name>")
def promising(name: str) -> ResponseReturnValue:
    """Return a response that declares a Content-Length."""
    return make(name).response(headers={"Content-Length": "1000"})


@more.get("/noted/<name>")
def noted(name: str) -> ResponseReturnValue:
    """Return a response that records when it is closed."""
    response: Response = make(name).response()
    response.call_on_close(lambda: journals[name].append("closed"))
    return response


def create_app(name: str, middleware: str = "", **config: Any) -> Flask:
    app = contract.create_app(name, **config)
    app.register_blueprint(more)
    app.register_blueprint(finite)
    app.register_blueprint(answers)
    app.register_blueprint(mcp)
    add_middleware(app, middleware)
    return app


#: What tests add, by path.
added: dict[str, Any] = {}

app = create_app("contract")
dispatcher = DispatcherMiddleware(app.wsgi_app)
dispatcher.mounts = added  # it takes no empty one
app.wsgi_app = dispatcher  # type: ignore[method-assign]


@app.post("/apps/<name>")
def add_app(name: str) -> ResponseReturnValue:
    """Serve one more app below a path of this name: with channels, or like this one."""
    given = request.get_json()
    create = channels.create_app if given.pop("channels") else create_app
    added[f"/{name}"] = create(name, **given).wsgi_app
    return {}
