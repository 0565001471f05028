"""The contract application with a middleware that the environment names."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue

from flask_sse_emitters.runtime.gevent_loop import unpatched
from tests.apps.contract import create_app, emitters, journals, lists, make, sse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logging.basicConfig(level=logging.INFO)


class Gzip:
    """Compress responses event by event, around the application, and wrap ``start_response``."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Content-Encoding", "gzip")], exc_info)

        if "gzip" not in environ.get("HTTP_ACCEPT_ENCODING", ""):
            return self._app(environ, start_response)
        return self._compressed(self._app(environ, start))

    @staticmethod
    def _compressed(body: Iterable[bytes]) -> Iterator[bytes]:
        gzip = zlib.compressobj(wbits=31)
        try:
            for part in body:
                yield gzip.compress(part) + gzip.flush(zlib.Z_SYNC_FLUSH)
            yield gzip.flush()
        finally:
            body.close()  # type: ignore[attr-defined]


def shouting(app: WSGIApplication) -> WSGIApplication:
    """Change the bytes, and wrap the iterable alone."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        body = app(environ, start_response)
        is_stream = environ["PATH_INFO"].startswith("/numbered")
        try:
            yield from (part.upper() if is_stream else part for part in body)
        finally:
            body.close()  # type: ignore[attr-defined]

    return wrapped


def shouting_in_c(app: WSGIApplication) -> WSGIApplication:
    """Do the same with an iterator that has no frame."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = app(environ, start_response)
        return map(bytes.upper, body) if environ["PATH_INFO"].startswith("/numbered") else body

    return wrapped


def forgetful(app: WSGIApplication) -> WSGIApplication:
    """Wrap the iterable, and never close it."""
    return lambda environ, start_response: (part for part in app(environ, start_response))


def hasty(app: WSGIApplication) -> WSGIApplication:
    """Pass on only the first part of each stream, and never close it."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = app(environ, start_response)
        return islice(body, 1) if environ["PATH_INFO"].startswith("/numbered") else body

    return wrapped


def compressing(app: Flask) -> None:
    """Compress inside the application."""
    from flask_compress import Compress

    app.config.update(
        COMPRESS_MIMETYPES=["text/event-stream"], COMPRESS_STREAMS=True, COMPRESS_ALGORITHM_STREAMING="gzip"
    )
    Compress(app)


def tracing(app: WSGIApplication) -> WSGIApplication:
    """Add OpenTelemetry's middleware, and record its spans."""
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    seen.append(lambda: [span.name for span in spans.get_finished_spans()])
    traced: WSGIApplication = OpenTelemetryMiddleware(app, tracer_provider=provider)
    return traced


def reporting(app: WSGIApplication) -> WSGIApplication:
    """Add Sentry's middleware, and record what it would report: errors and transactions."""
    import sentry_sdk
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
    from sentry_sdk.transport import Transport

    reports: list[str] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            reports.extend(item.type for item in envelope.items)

    sentry_sdk.init(dsn="http://key@localhost/1", transport=Kept, traces_sample_rate=1.0, default_integrations=False)
    seen.append(lambda: [report for report in reports if report in ("event", "transaction")])
    reported: WSGIApplication = SentryWsgiMiddleware(app)
    return reported


#: Functions that return what an observing middleware has seen.
seen: list[Callable[[], list[str]]] = []

AROUND: dict[str, Callable[[WSGIApplication], WSGIApplication]] = {
    "gzip": Gzip,
    "shouting": shouting,
    "shouting in C": shouting_in_c,
    "forgetful": forgetful,
    "hasty": hasty,
    "tracing": tracing,
    "reporting": reporting,
}

more = Blueprint("more", __name__)


@more.get("/seen")
def what_was_seen() -> ResponseReturnValue:
    return [found for read in seen for found in read()]


@more.get("/stats")
def stats() -> ResponseReturnValue:
    return sse.stats()


@more.post("/fork")
def fork() -> ResponseReturnValue:
    """Fork a child that holds all descriptors open until it is killed."""
    child = os.fork()
    if child == 0:
        unpatched("time", "sleep")(600)
        os._exit(0)
    return {"pid": child}


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


floods: dict[str, Any] = {}


@more.post("/flood/<name>")
def flood(name: str) -> ResponseReturnValue:
    """Send from a native thread as fast as possible, until the stream ends."""
    from gevent.hub import get_hub

    def send() -> None:
        while emitters[name].try_send("x" * 200):
            pass

    floods[name] = get_hub().threadpool.spawn(send)
    return ""


@more.get("/flooding/<name>")
def flooding(name: str) -> ResponseReturnValue:
    return {"flooding": not floods[name].ready()}


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


app = create_app("contract", SSE_DRAIN_SECONDS=float(os.environ.get("SSE_DRAIN_SECONDS") or 5))
app.register_blueprint(more)
middleware = os.environ.get("MIDDLEWARE", "")
if middleware == "compressing":
    compressing(app)
elif middleware:
    app.wsgi_app = AROUND[middleware](app.wsgi_app)  # type: ignore[assignment,method-assign]
