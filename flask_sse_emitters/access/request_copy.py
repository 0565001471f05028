"""A compact copy of a request, from which its rule can be asked again after the request has ended."""

from __future__ import annotations

import io
import json
import sys
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: A copy has at most so many bytes, compressed. The credentials are among them, since the rule goes by them.
MAX_COPY_BYTES = 4096

#: Left out: no rule depends on these, or they describe the body, which a copy does not have.
_LEFT_OUT = (
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_TRANSFER_ENCODING",
    "RAW_URI",
    "REQUEST_URI",
    "SERVER_SOFTWARE",
)


def copy_request(environ: Mapping[str, Any]) -> bytes | None:
    """Return a copy of the request with this environ, without its body; None where it would be too large."""
    texts = {name: value for name, value in environ.items() if isinstance(value, str) and name not in _LEFT_OUT}
    copy = zlib.compress(json.dumps(texts).encode(), 1)
    return copy if len(copy) <= MAX_COPY_BYTES else None


def restore_environ(copy: bytes) -> WSGIEnvironment:
    """Return the environ of a copied request, with an empty body."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **json.loads(zlib.decompress(copy)),
    }
