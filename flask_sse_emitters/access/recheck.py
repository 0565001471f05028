"""Asking an app's rule again about streams that are open: :meth:`.SSE.recheck`.

The request of each stream is restored from its copy, in a context of its own, on a helper thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import Context

from flask import Flask
from werkzeug.exceptions import HTTPException

from ..errors import AccessDenied
from ..runtime.scheduler import SCHEDULER
from ..streams.registry.identity import Reader
from ..streams.stream import Stream
from .request_copy import restore_environ
from .rules import Admission, Rules

log = logging.getLogger("flask_sse_emitters.access")


def recheck(app: Flask, rules: Rules, streams: Sequence[Stream]) -> None:
    """Ask the rule again about each of these streams, and end those that it denies. May block.

    A stream that a view has begun ends without being asked about: its client asks the view again.
    """
    for stream in streams:
        reader = stream.reader
        if reader is None or stream.close_reason is not None:
            continue
        admission = _ask_again(app, rules, reader, stream)
        if admission is None or admission.reader is None or admission.reader.identities != reader.identities:
            stream.end_with_retry(drops_pending=True)
        elif admission.seconds is not None:
            stream.end_by(SCHEDULER.clock() + admission.seconds)


def _ask_again(app: Flask, rules: Rules, reader: Reader, stream: Stream) -> Admission | None:
    """Return what the rule grants now; None where it denies, or cannot be asked."""
    if reader.request is None:
        return None
    try:
        # An empty context shows the rule nothing of the caller: neither its session nor its flask.g.
        return Context().run(_admit_again, app, rules, reader.request, reader.asked)
    except (AccessDenied, HTTPException) as error:
        log.debug("%r is denied: %s", stream, error)
    except Exception:
        log.exception("the rule failed when it was asked again: access denied")
    return None


def _admit_again(app: Flask, rules: Rules, request: bytes, channels: Sequence[str]) -> Admission:
    with app.request_context(restore_environ(request)):
        if app.preprocess_request() is not None:
            raise AccessDenied("a before_request function answered in place of the channel")
        return rules.admit_reader(channels)
