"""Responses to clients that get no stream: plain text that tells no more than the client may know."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, current_app, request

from ..access import origins
from ..config.context import EXTENSION
from ..errors import AccessDenied, Denial

log = logging.getLogger("flask_sse_emitters.answers")


def plain_response(text: str, status: int, **headers: str) -> Response:
    """Return a response of one line of plain text, which nothing caches."""
    return Response(
        f"{text}\n",
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers},
        content_type="text/plain; charset=utf-8",
    )


def deny(error: AccessDenied) -> Response:
    """Return a 401 or a 403, which tells the reason in debug mode only."""
    status, text = (403, "Forbidden") if error.challenge is None else (401, "Unauthorized")
    response = plain_response(str(error) if current_app.debug else text, status)
    if error.challenge is not None:
        response.headers["WWW-Authenticate"] = error.challenge
    origins.allow_origin(response.headers, current_app.extensions[EXTENSION].settings)
    return response


def handle_denials(app: Flask) -> None:
    """Have the app answer denials with :func:`deny`. Flask prefers a handler of the app for :class:`AccessDenied`."""
    app.register_error_handler(Denial, deny)


def answer_denied(error: AccessDenied) -> Any:
    """Answer a denial with the app's handler, whatever handlers a blueprint around that of the channels has.

    Flask has no public way to find a handler of the app alone, so this reads its table of handlers.
    """
    log.debug("%s %r is denied: %s", request.method, request.path, error)
    current_app.extensions[EXTENSION].streams.note_denied()
    handlers = current_app.error_handler_spec[None][None]
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    return current_app.ensure_sync(handler)(error)
