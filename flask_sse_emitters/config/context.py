"""The current app and request, as Flask has pushed them on this thread or greenlet.

Nothing here blocks, and all of it may be called from any thread, also where nothing is pushed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from flask import Response, copy_current_request_context, current_app, has_app_context, has_request_context, request
from werkzeug.datastructures import ImmutableMultiDict, MultiDict

from ..wire.event import Dumps
from .settings import DEFAULTS, Settings

#: The key in ``app.extensions``.
EXTENSION = "sse_emitters"

#: The key in a request's environ under which the emitters that it has made are kept.
_MADE = "flask_sse_emitters.made"

_NO_QUERY: MultiDict[str, str] = ImmutableMultiDict()

#: The query parameters by which polyfills send the id of the last event, as they can set no header.
_ID_PARAMETERS = ("last_event_id", "lastEventId", "evs_last_event_id")


class AppState(Protocol):
    """The part of ``app.extensions["sse_emitters"]`` that emitters use."""

    settings: Settings

    def check_lifetime(self, timeout: Any) -> None:
        """Warn of a lifetime that is probably meant to be milliseconds."""

    def respond(self, emitter: Any, status: int | str, headers: Any) -> Response:
        """Return the response to the current request that carries the emitter's stream."""


_T = TypeVar("_T")

_states: WeakSet[AppState] = WeakSet()


def app_state() -> AppState | None:
    """Return the state of the current app; None without an app context, or where the app has no :class:`SSE`."""
    return current_app.extensions.get(EXTENSION) if has_app_context() else None


def current_settings() -> Settings:
    """Return the settings of the current app, or the defaults."""
    state = app_state()
    return DEFAULTS if state is None else state.settings


def dumps() -> Dumps:
    """Return the JSON encoder of the current app, else of the only app of this process that has an :class:`SSE`."""
    state = _this_or_only_app()
    return DEFAULTS.dumps if state is None else state.settings.dumps


def check_lifetime(timeout: Any) -> None:
    """Have that app warn, once, of an emitter's lifetime that is probably meant to be milliseconds."""
    state = _this_or_only_app()
    if state is not None:
        state.check_lifetime(timeout)


def register_state(state: AppState) -> None:
    """Remember an app's state for as long as the app lives."""
    _states.add(state)


def note_in_request(emitter: Any) -> None:
    """Note that the current request, if there is one, has made this emitter."""
    if has_request_context():
        request.environ.setdefault(_MADE, []).append(emitter)


def take_made_in_request() -> list[Any]:
    """Return the emitters that the current request has made, and forget them."""
    made: list[Any] = request.environ.pop(_MADE, [])
    return made


def last_event_id() -> str | None:
    """Return the id that the current request's client received last: ``""`` if none, None without a request.

    From the header ``Last-Event-ID`` (WHATWG HTML, section 9.2.3), or else from the query, where polyfills send it.
    Servers decode headers as latin-1, while browsers send UTF-8.
    """
    if not has_request_context():
        return None
    header = request.environ.get("HTTP_LAST_EVENT_ID")
    if header:
        return str(header).encode("latin-1", "replace").decode("utf-8", "replace")
    asked = query()
    return next(filter(None, map(asked.get, _ID_PARAMETERS)), "") if asked else ""


def in_copied_context(call: Callable[[], _T], otherwise: Callable[[], AbstractContextManager[Any]]) -> Callable[[], _T]:
    """Make a call that runs in copies of the contexts of now, of the app and of the request, on any thread.

    They are torn down when it is done.

    :param otherwise: makes the context that it runs in where there is none now.
    """
    if has_request_context():
        return copy_current_request_context(call)
    app_context = current_app.app_context if has_app_context() else otherwise

    def run() -> _T:
        with app_context():
            return call()

    return run


def query() -> MultiDict[str, str]:
    """Return the query of the current request; an empty one where it is not UTF-8."""
    try:
        return request.args if request.environ.get("QUERY_STRING") else _NO_QUERY
    except UnicodeDecodeError:
        return _NO_QUERY


def _this_or_only_app() -> AppState | None:
    return app_state() or (next(iter(_states), None) if len(_states) == 1 else None)
