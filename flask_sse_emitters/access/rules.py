"""Who may read a channel, and who may publish to one over HTTP: what rules say, and how they are asked.

A channel is closed unless it was made public, or the app's rule opens it to whoever asks. The rule runs in the request,
before anything is registered, and once more where :meth:`.SSE.recheck` wants to know again: then the request is made
anew from what was kept of it, in a context of its own, on a helper thread.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, NamedTuple, TypeAlias, TypeVar

from flask import Flask, request
from werkzeug.exceptions import HTTPException

from ..channels.channel import OWN, Options, private_name
from ..errors import AccessDenied
from ..runtime.scheduler import SCHEDULER
from ..streams.registry.identity import Reader
from ..streams.stream import Stream
from .grants import Grant

log = logging.getLogger("flask_sse_emitters.access")

#: The most bytes of a request that are kept, compressed, so that its rule can be asked again. Its credentials are among
#: them: they are what the rule goes by.
REQUEST_KEPT = 4096

#: What no rule goes by, or is no more: a request that is asked about again has no body.
_NOT_KEPT = (
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_TRANSFER_ENCODING",
    "RAW_URI",
    "REQUEST_URI",
    "SERVER_SOFTWARE",
)

_Answer = TypeVar("_Answer")

Rule: TypeAlias = Callable[[str], bool | str | Grant | None]


class Admission(NamedTuple):
    """What a client was granted."""

    channels: tuple[str, ...]  #: that it reads
    reader: Reader | None  #: None where all of them are public
    seconds: float | None  #: for how long, where there is a bound
    identities: tuple[str | None, ...] = ()  #: who reads each channel, in order, as far as the rule has said so


class Rules:
    """Those of one :class:`.SSE`.

    :param options: what was said of channels, by their names.
    """

    def __init__(self, options: Mapping[str, Options]) -> None:
        self.authorizer: Rule | None = None
        self.publisher: Rule | None = None
        self.takes_cookies = False  #: of who publishes, though nothing else says who that is
        self._options = options
        self._said_closed = False

    def may_read(self, asked: Sequence[str]) -> Admission:
        """Ask about each of these channels, in the request that is pushed here.

        :raises AccessDenied: where one of them is not to be read.
        """
        channels: list[str] = []
        identities: dict[str, None] = {}
        bounds: list[float] = []
        grants = {name: self._ask_reader(name) for name in asked if not self._is_public(name)}
        for name in asked:
            grant = grants.get(name)
            channels.append(_own_channel(grant) if name == OWN else name)
            if grant is not None and grant.identity is not None:
                identities[grant.identity] = None
            if grant is not None and grant.seconds is not None:
                bounds.append(grant.seconds)
        kept = _keep(request.environ) if identities else None  # without one, recheck() could not find the stream
        reader = Reader(tuple(identities), tuple(channels), tuple(asked), kept) if grants else None
        each = tuple(grant.identity if (grant := grants.get(name)) is not None else None for name in asked)
        return Admission(tuple(channels), reader, min(bounds, default=None), each)

    def may_publish(self, name: str) -> str | None:
        """Ask whether the request that is pushed here may publish to this channel.

        :return: the identity of who publishes, where the rule says that.
        :raises AccessDenied: where it may not.
        """
        if not self.takes_cookies and "HTTP_COOKIE" in request.environ and "HTTP_AUTHORIZATION" not in request.environ:
            raise AccessDenied(
                "whoever publishes has cookies and no Authorization, so a page of another site may have sent this: "
                "send a token, or say @sse.publisher(cookies=True)"
            )
        assert self.publisher is not None
        return _ask_about(self.publisher, "publisher", name).identity

    def _is_public(self, name: str) -> bool:
        options = self._options.get(name)
        return options is not None and options.public is True

    def _ask_reader(self, name: str) -> Grant:
        if self.authorizer is not None:
            return _ask_about(self.authorizer, "authorizer", name)
        if name == OWN:
            advice = "it is each reader's own, which no public=True opens: say who reads, with @sse.authorizer"
        else:
            advice = (
                f"say sse.channel({name!r}, public=True) where anybody may read it, or who may, with @sse.authorizer"
            )
        closed = f"channel {name!r} is closed, because it was never opened: {advice}"
        if not self._said_closed:
            self._said_closed = True
            log.warning("%s; this is said once", closed)
        raise AccessDenied(closed)


def ask_again(app: Flask, rules: Rules, streams: Sequence[Stream]) -> None:
    """Ask the rule about these streams anew, and end those that it denies. May block.

    A stream that a view has begun cannot be asked about: it ends, and its client asks the view.
    """
    for stream in streams:
        reader = stream.reader
        if reader is None or stream.close_reason is not None:
            continue
        admission = None
        if reader.request is not None:
            try:
                # Empty, so that nothing of whoever calls shows there: neither their session nor what they keep in g.
                admission = Context().run(_ask_anew, app, rules, reader, reader.request)
            except (AccessDenied, HTTPException) as error:
                log.debug("%r is denied: %s", stream, error)
            except Exception:
                log.exception("the rule could not be asked again, which denies")
        if admission is None or admission.reader is None or admission.reader.identities != reader.identities:
            stream.end_with_retry(drops_pending=True)
        elif admission.seconds is not None:
            stream.end_by(SCHEDULER.clock() + admission.seconds)


def ask(rule: Callable[[], _Answer], called: str, about: str = "") -> _Answer:
    """Ask a rule of the app. What it raises denies; it is logged as an error unless it is an HTTPException.

    :param called: what it is called in the log.
    :param about: what it is asked about, as text to put after that.
    :return: what it says.
    :raises AccessDenied: where it raises.
    """
    try:
        return rule()
    except AccessDenied:
        raise
    except HTTPException as error:
        log.debug("the %s denies%s: %s", called, about, error)
        raise AccessDenied(f"the {called} denies{about}: {error}") from error
    except Exception as error:
        log.exception("the %s failed%s, which denies", called, about)
        raise AccessDenied(f"the {called} failed{about}: {error!r}") from error


def _ask_about(rule: Rule, called: str, name: str) -> Grant:
    return ask(lambda: _grant(rule(name), called, name), called, f" for channel {name!r}")


def _grant(said: Any, called: str, name: str) -> Grant:
    if isinstance(said, Grant):
        if said.seconds is not None and said.seconds <= 0:
            raise AccessDenied(f"the {called} grants channel {name!r} for a time that is over")
        return said
    if said is True:
        return Grant()
    if said is None or said is False or said == "":
        raise AccessDenied(f"the {called} returned {said!r} for channel {name!r}")
    if isinstance(said, str):
        return Grant(said)
    raise TypeError(
        f"the {called} must return a bool, the reader's identity as a str, or a Grant, not {said!r}: "
        "str() makes one of a number, and current_user.get_id() is one of Flask-Login's"
    )


def _own_channel(grant: Grant | None) -> str:
    if grant is None or grant.identity is None:
        raise AccessDenied(f"{OWN!r} is the channel of whoever reads: have the authorizer return who that is, a str")
    return private_name(grant.identity)


def _keep(environ: Mapping[str, Any]) -> bytes | None:
    texts = {name: value for name, value in environ.items() if isinstance(value, str) and name not in _NOT_KEPT}
    kept = zlib.compress(json.dumps(texts).encode(), 1)
    return kept if len(kept) <= REQUEST_KEPT else None


def _ask_anew(app: Flask, rules: Rules, reader: Reader, kept: bytes) -> Admission:
    environ = {
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **json.loads(zlib.decompress(kept)),
    }
    with app.request_context(environ):
        if app.preprocess_request() is not None:
            raise AccessDenied("something before the request answers in place of the channel")
        return rules.may_read(reader.asked)
