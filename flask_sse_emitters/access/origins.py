"""Which pages of other sites may read the endpoints of channels: ``SSE_CORS_ORIGINS``, as the Fetch standard has it.

A browser says in ``Origin`` whose page asks. It lets the page see an answer only where that allows it; but it asks all
the same, with the reader's cookies. So what a page may not see is not sent in the first place.

What a page has opened rather than asked for (a frame, a window, an image) comes without ``Origin``. That it is another
site's is in ``Sec-Fetch-Site`` then, which browsers send to ``https`` and to the machine that they run on.
"""

from __future__ import annotations

from flask import request
from werkzeug.datastructures import Headers

from ..config.settings import Settings
from ..errors import AccessDenied

#: How long a browser may remember an answer to a preflight, in seconds.
PREFLIGHT_SECONDS = 600

#: What polyfills send beside what every page may. A ``*`` here would leave out Authorization.
_HEADERS = "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-Requested-With"

_ANYONE = ("*",)

#: For the origin of a page of another site that the browser does not name.
_NOT_NAMED = "another site"


def check_origin(settings: Settings, is_read: bool = True) -> None:
    """Check that the page that sends the current request may do so.

    :param is_read: else it publishes, which takes an origin that is listed.
    :raises AccessDenied: where it comes from a page of another site that is not listed; or of any, where anyone may
        read, but not with somebody's cookies.
    """
    origin = foreign_origin()
    if origin is None or origin in settings.cors_origins:
        return
    if origin == _NOT_NAMED and settings.cors_origins != _ANYONE:
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


def allow(headers: Headers, settings: Settings) -> None:
    """Have a browser show the answer to the page that asked, if that may see it and nobody has said so yet."""
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
    return request.method == "OPTIONS" and "Origin" in request.headers


def preflight_headers(methods: str) -> dict[str, str]:
    """What a page may send, once :func:`allow` has said that it may."""
    return {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": _HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }


def foreign_origin() -> str | None:
    """Return the origin of the page that asks, in lower case; None where it is of this site, or no page asks."""
    origin = request.headers.get("Origin", "").lower()
    site = request.headers.get("Sec-Fetch-Site")
    if site == "same-origin":
        return None
    if site in ("cross-site", "same-site"):
        return origin or _NOT_NAMED
    if not origin:  # a person has typed the address, or no browser asks
        return None
    scheme, _, host = origin.partition("://")
    own = request.host.lower()
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    # Behind a proxy it may look like http; never the other way round.
    is_own = host and host == (own.removesuffix(port) if port else own) and not (request.is_secure and scheme == "http")
    return None if is_own else origin
