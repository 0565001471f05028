"""Cross-origin requests to the endpoints of channels: ``SSE_CORS_ORIGINS``, by the Fetch standard.

A browser names the page's origin in ``Origin``. It shows the page a response only if that allows it, but it sends the
request all the same, with the reader's cookies. So a request from a page that may not read is denied.

A frame, a window or an image that a page opens sends no ``Origin``. ``Sec-Fetch-Site`` then tells whether the page is
of another site; browsers send it to ``https`` and to their own machine.
"""

from __future__ import annotations

from flask import request
from werkzeug.datastructures import Headers

from ..config.settings import Settings
from ..errors import AccessDenied

#: A browser may remember the response to a preflight for so long.
PREFLIGHT_SECONDS = 600

#: Polyfills send these beside the headers that every page may send. ``*`` would not include Authorization.
_ALLOWED_HEADERS = "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-Requested-With"

_ANYONE = ("*",)

#: Stands for the origin of another site's page where the browser does not name it.
_UNNAMED_SITE = "another site"


def check_origin(settings: Settings, is_read: bool = True) -> None:
    """Check that the page that sends the current request may do so.

    :param is_read: False where it publishes: ``"*"`` then allows no origin.
    :raises AccessDenied: where the page is of another origin that is not listed; or where ``"*"`` allows all, and the
        request has cookies.
    """
    origin = foreign_origin()
    if origin is None or origin in settings.cors_origins:
        return
    if origin == _UNNAMED_SITE and settings.cors_origins != _ANYONE:
        raise AccessDenied(
            "a page of another site has opened this, in a frame, say, or by a link (so says Sec-Fetch-Site, without an "
            "Origin): have pages read it with EventSource or fetch, which say their origin"
        )
    if settings.cors_origins == _ANYONE and not is_read:
        raise AccessDenied(f"a page of {origin!r} publishes, and SSE_CORS_ORIGINS is '*': list it there instead")
    if settings.cors_origins != _ANYONE:
        raise AccessDenied(f"a page of {origin!r} asks, which is not in SSE_CORS_ORIGINS: list it there if it may read")
    if "HTTP_COOKIE" in request.environ:
        raise AccessDenied(f"a page of {origin!r} sends cookies, and SSE_CORS_ORIGINS is '*': list it there instead")


def allow_origin(headers: Headers, settings: Settings) -> None:
    """Let the browser show the response to the page that asked, if it may read; keep headers that the app has set."""
    if not settings.cors_origins or "Access-Control-Allow-Origin" in headers:
        return
    if settings.cors_origins == _ANYONE:
        headers["Access-Control-Allow-Origin"] = "*"
        return
    if "Origin" not in headers.getlist("Vary"):
        headers.add("Vary", "Origin")
    origin = request.headers.get("Origin", "").lower()
    if origin in settings.cors_origins:
        headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        headers["Access-Control-Allow-Credentials"] = "true"


def is_preflight() -> bool:
    """Return whether the current request is a preflight: the browser's question before the page's request."""
    return request.method == "OPTIONS" and "Origin" in request.headers


def preflight_headers(methods: str) -> dict[str, str]:
    """Return the headers that tell a browser what an allowed page may send."""
    return {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }


def foreign_origin() -> str | None:
    """Return the origin of the page that sends the current request, in lower case; None for this site, or no page."""
    origin = request.headers.get("Origin", "").lower()
    site = request.headers.get("Sec-Fetch-Site")
    if site == "same-origin":
        return None
    if site in ("cross-site", "same-site"):
        return origin or _UNNAMED_SITE
    if not origin:  # the address was typed, or the client is no browser
        return None
    scheme, _, host = origin.partition("://")
    own = request.host.lower()
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    # Behind a proxy, https may look like http here; never the other way round.
    is_own = host and host == (own.removesuffix(port) if port else own) and not (request.is_secure and scheme == "http")
    return None if is_own else origin
