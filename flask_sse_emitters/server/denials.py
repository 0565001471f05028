"""What is said to a client that gets no stream: plain text, and no more than it may know."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, current_app, request

from ..access import origins
from ..config.context import EXTENSION
from ..errors import AccessDenied, Denial

log = logging.getLogger("flask_sse_emitters.answers")


def plain(text: str, status: int, **headers: str) -> Response:
    return Response(
        f"{text}\n",
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers},
        content_type="text/plain; charset=utf-8",
    )


def deny(error: AccessDenied) -> Response:
    """A 401 or a 403, which says why in debug mode alone."""
    status, text = (403, "Forbidden") if error.challenge is None else (401, "Unauthorized")
    response = plain(str(error) if current_app.debug else text, status)
    if error.challenge is not None:
        response.headers["WWW-Authenticate"] = error.challenge
    origins.allow_origin(response.headers, current_app.extensions[EXTENSION].settings)
    return response


def handle_denials(app: Flask) -> None:
    """Have the app answer so. Flask prefers one of the app's own for :class:`AccessDenied`, whenever that is added."""
    app.register_error_handler(Denial, deny)


def answer_denied(error: AccessDenied) -> Any:
    """Answer as the app does, whatever a blueprint around that of the channels does with its errors.

    Flask has no public way to find a handler of the app alone, so this reads where they are, and changes nothing there.
    """
    log.debug("%s %r is denied: %s", request.method, request.path, error)
    current_app.extensions[EXTENSION].streams.note_denied()
    handlers = current_app.error_handler_spec[None][None]
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    return current_app.ensure_sync(handler)(error)
