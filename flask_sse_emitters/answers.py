"""What is said to a client that gets no stream: plain text, and no more than it may know."""

from __future__ import annotations

from flask import Response, current_app

from .errors import AccessDenied
from .settings import EXTENSION


def plain(text: str, status: int, **headers: str) -> Response:
    return Response(
        f"{text}\n",
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers},
        content_type="text/plain; charset=utf-8",
    )


def denied(error: AccessDenied) -> Response:
    """A 401 or a 403, which says why in debug mode alone."""
    current_app.extensions[EXTENSION].streams.denied += 1
    status, text = (403, "Forbidden") if error.challenge is None else (401, "Unauthorized")
    response = plain(str(error) if current_app.debug else text, status)
    if error.challenge is not None:
        response.headers["WWW-Authenticate"] = error.challenge
    return response
