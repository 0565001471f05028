"""The Flask extension."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from . import wsgi
from .emitter import SseEmitter
from .settings import EXTENSION, Settings, made_in_request, read_config, register


class SSE:
    """Server-Sent Events for Flask apps.

    ::

        sse = SSE(app)

    or, with an app factory, ``sse = SSE()`` and later ``sse.init_app(app)``. One ``SSE`` may serve several apps.

    Config keys; durations are seconds or a timedelta:

    ``SSE_TIMEOUT`` (1800)
        The whole lifetime of a stream; 0 means never. A browser reconnects by itself.
    ``SSE_HEARTBEAT`` (15)
        After so long without an event a comment is written, so that proxies keep the stream open; 0 means never.
    ``SSE_RETRY`` (3000)
        How long clients wait before they reconnect, an int of milliseconds.
    ``SSE_MAX_PENDING`` (1000), ``SSE_MAX_PENDING_BYTES`` (1048576)
        How many events, and bytes of them, may wait for a slow client.
    ``SSE_OVERFLOW`` (``"close"``)
        What happens beyond that: ``"close"`` ends the stream, ``"drop_oldest"`` makes room, ``"coalesce"`` first
        replaces the pending event of the same name.
    ``SSE_WRITE_SECONDS`` (30)
        A client that takes nothing of what is written to it for so long counts as gone; 0 means never.
    ``SSE_MAX_EVENT_BYTES`` (1048576)
        A larger event, encoded, is refused with :class:`InvalidEvent` where it is sent.
    ``SSE_HANDOFF`` (``"auto"``)
        Whether streams are written without a greenlet for each. ``"auto"``: where nothing stands between them and
        gunicorn's gevent worker. ``"on"``: also behind middleware, which then sees each stream end after its first
        bytes. ``"off"``: never.
    ``SSE_ATTACH_SECONDS`` (30)
        An emitter whose stream has not begun by then ends with an error.

    :param app: as for :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the config, and let views return emitters.

        :raises ValueError: where a config key has a value that it does not accept.
        :raises RuntimeError: where the app has an ``SSE`` already.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError("this app has an SSE already: import that one instead of calling init_app() again")
        settings = Settings(
            **read_config(app.config), dumps=lambda data: app.json.dumps(data), app_context=app.app_context
        )
        app.extensions[EXTENSION] = state = _AppState(app, settings)
        register(state)
        app.teardown_request(_end_failed)
        make_response = app.make_response

        def make_response_of_emitter(rv: Any) -> Response:
            return make_response(_respond_for(rv))

        app.make_response = make_response_of_emitter  # type: ignore[method-assign]


class _AppState:
    """What belongs to one app."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self.settings = settings
        self._app = app
        self._response_class = app.response_class
        self._streaming_class = wsgi.streaming(app.response_class)

    def respond(self, emitter: SseEmitter, status: int | str, headers: Any) -> Response:
        if self._response_class is not self._app.response_class:  # set since
            self._response_class = self._app.response_class
            self._streaming_class = wsgi.streaming(self._response_class)
        return wsgi.respond(emitter, self._streaming_class, self.settings, status, headers)


def _end_failed(error: BaseException | None) -> None:
    """No client will ever get the emitters of a request that failed."""
    made = made_in_request()
    if error is not None:
        for emitter in made:
            emitter.complete_with_error(error)


def _respond_for(rv: Any) -> Any:
    """A view's result, with the response of an emitter in its place: bare, or the first of a tuple."""
    if isinstance(rv, SseEmitter):
        return rv.response()
    if isinstance(rv, tuple) and rv and isinstance(rv[0], SseEmitter):
        return (rv[0].response(), *rv[1:])
    return rv
