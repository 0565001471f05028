"""Middlewares that compress a stream, change it, watch it, or forget to close it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from flask import Flask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


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


def tracing(app: Flask) -> None:
    """Add OpenTelemetry's middleware, and record its spans."""
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app.extensions["seen"] = lambda: [span.name for span in spans.get_finished_spans()]
    app.wsgi_app = OpenTelemetryMiddleware(app.wsgi_app, tracer_provider=provider)  # type: ignore[method-assign]


def reporting(app: Flask) -> None:
    """Add Sentry's middleware, and record what it would report: errors and transactions."""
    import sentry_sdk
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
    from sentry_sdk.transport import Transport

    reports: list[str] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            reports.extend(item.type for item in envelope.items)

    sentry_sdk.init(dsn="http://key@localhost/1", transport=Kept, traces_sample_rate=1.0, default_integrations=False)
    app.extensions["seen"] = lambda: [report for report in reports if report in ("event", "transaction")]
    app.wsgi_app = SentryWsgiMiddleware(app.wsgi_app)  # type: ignore[method-assign]


_AROUND: dict[str, Callable[[WSGIApplication], WSGIApplication]] = {
    "gzip": Gzip,
    "shouting": shouting,
    "shouting in C": shouting_in_c,
    "forgetful": forgetful,
    "hasty": hasty,
}

_INTO: dict[str, Callable[[Flask], None]] = {"compressing": compressing, "tracing": tracing, "reporting": reporting}


def add_middleware(app: Flask, name: str) -> None:
    """Add the middleware of this name to an app; ``""`` is none."""
    if name in _INTO:
        _INTO[name](app)
    elif name:
        app.wsgi_app = _AROUND[name](app.wsgi_app)  # type: ignore[assignment,method-assign]
