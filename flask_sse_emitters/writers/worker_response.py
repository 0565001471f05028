"""All that this package knows of how gunicorn's workers write a response.

Three of them (``sync``, ``gthread``, ``gevent``) have a response object of gunicorn's; ``gevent_pywsgi`` has a handler
of gevent's server. Both are found from the ``start_response`` that is theirs, or from the worker's loop over the body.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Protocol

#: Where workers show an application its client's socket.
GUNICORN, PYWSGI = "gunicorn.socket", "gunicorn.sock"


class WorkerResponse(Protocol):
    """The response that a worker is writing."""

    @property
    def socket(self) -> Any:
        """The client's."""

    @property
    def is_chunked(self) -> bool:
        """Whether the body is sent in chunks; known once ``start_response`` has been called, or the head is out."""

    @property
    def has_sent_headers(self) -> bool:
        """Whether the head is out."""

    @property
    def has_length(self) -> bool:
        """Whether the head promises a Content-Length."""

    def close_afterwards(self) -> None:
        """Have the worker close the connection after this response."""

    def let_go(self) -> None:
        """Have the worker write no last chunk: its client's socket has been taken."""


class _GunicornResponse:
    __slots__ = ("_response",)

    def __init__(self, response: Any) -> None:
        self._response = response

    @property
    def socket(self) -> Any:
        return self._response.sock

    @property
    def is_chunked(self) -> bool:
        return bool(self._response.chunked)

    @property
    def has_sent_headers(self) -> bool:
        return bool(self._response.headers_sent)

    @property
    def has_length(self) -> bool:
        return self._response.response_length is not None

    def close_afterwards(self) -> None:
        self._response.force_close()

    def let_go(self) -> None:
        self._response.chunked = False
        self._response.force_close()


class _PywsgiResponse:
    __slots__ = ("_handler",)

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    @property
    def socket(self) -> Any:
        return self._handler.socket

    @property
    def is_chunked(self) -> bool:
        return bool(self._handler.response_use_chunked)

    @property
    def has_sent_headers(self) -> bool:
        return bool(self._handler.headers_sent)

    @property
    def has_length(self) -> bool:
        return self._handler.provided_content_length is not None

    def close_afterwards(self) -> None:
        """Do nothing: the header ``Connection: close`` of the stream, which this server takes, has it done."""

    def let_go(self) -> None:
        self._handler.response_use_chunked = False
        self._handler.close_connection = True
        self._handler.socket = None


def client_of(environ: Mapping[str, Any]) -> Any:
    """Return the socket of a gunicorn worker's client; None on another server."""
    return environ.get(GUNICORN) or environ.get(PYWSGI)


def response_of(start_response: Callable[..., Any] | None) -> WorkerResponse | None:
    """Return the response whose own ``start_response`` this is; None where a middleware has replaced it."""
    owner = getattr(start_response, "__self__", None)
    if _is_made_by(owner, "gunicorn.http.wsgi", "Response"):
        return _GunicornResponse(owner)
    return _PywsgiResponse(owner) if _is_made_by(owner, "gunicorn.workers.ggevent", "PyWSGIHandler") else None


def response_of_loop(frame: FrameType | None) -> WorkerResponse | None:
    """Return the response of the worker's loop that, in the end, iterates over a body, from this frame; else None."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("gunicorn.workers."):
            response = frame.f_locals.get("resp")
            if _is_made_by(response, "gunicorn.http.wsgi", "Response"):
                return _GunicornResponse(response)
        frame = frame.f_back
    return None


def iterates(frame: FrameType, body: Iterator[bytes]) -> bool:
    """Return whether this is the frame of a worker's own loop over the body, with no middleware in between."""
    module = frame.f_globals.get("__name__")
    found = None
    if module in ("gunicorn.workers.sync", "gunicorn.workers.gthread", "gunicorn.workers.base_async"):
        # By its name in the worker's code, because a wrapper that is written in C has no frame of its own.
        found = frame.f_locals.get("respiter")
    elif module == "gevent.pywsgi":
        found = getattr(frame.f_locals.get("self"), "result", None)
    return getattr(found, "pieces", None) is body


def _is_made_by(instance: Any, module: str, name: str) -> bool:
    found = sys.modules.get(module)
    return found is not None and type(instance) is getattr(found, name)
