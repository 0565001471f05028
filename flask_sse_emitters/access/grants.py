"""What a rule grants, and whose a stream is."""

from __future__ import annotations

import base64
import hmac
import math
from collections.abc import Iterable
from datetime import timedelta

from ..config.settings import Duration
from ..streams.registry.identity import check_identity


class Grant:
    """What a rule may say where it has more to say than yes.

    ::

        @sse.authorizer
        def may_read(channel):
            return Grant(session["user"], seconds=session["until"] - time.time())

    :param identity: whose stream it is, 1 to 500 characters; None where nobody has to know.
    :param seconds: after so many, or a timedelta, the stream ends as if its lifetime were over, and a client that comes
        again is asked again. From 0 down it is a no. None: this grant ends no stream.
    :raises TypeError: where one of them is something else.
    :raises ValueError: names the parameter, and what it accepts.
    """

    __slots__ = ("identity", "seconds")

    def __init__(self, identity: str | None = None, *, seconds: Duration | None = None) -> None:
        self.identity = None if identity is None else check_identity(identity)
        self.seconds = None if seconds is None else _seconds(seconds)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.identity!r}, seconds={self.seconds!r})"


def tag_reader(
    identity: str | None, secret: str | bytes | None, old_secrets: Iterable[str | bytes] | None = None
) -> str:
    """Give the tag that tells one reader from another, and nothing of who they are.

    It has 16 characters for each secret, with a dot between them. Two tags are of the same reader where they have one
    such part in common, so that a reader stays the same while an app changes its secret.

    :param identity: None gives ``-``: the channel is given to anybody, or the rule has not said to whom.
    :param secret: the app's ``SECRET_KEY``, so that all its processes give the same tag, and no outsider can
        guess one. Without it the tag tells readers apart all the same, and shows who it is to those who guess.
    :param old_secrets: the app's ``SECRET_KEY_FALLBACKS``, newest first.
    """
    if identity is None:
        return "-"
    return ".".join(_digest(identity, each) for each in (secret or b"", *(old_secrets or ())))


def _digest(identity: str, secret: str | bytes) -> str:
    key = secret.encode() if isinstance(secret, str) else secret
    digest = hmac.digest(key, b"flask_sse_emitters reader\0" + identity.encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:12]).decode()


def _seconds(value: Duration) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"seconds is a number or a timedelta, not {value!r}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError("seconds is a finite number that a float can hold")
    return seconds
