"""The grant that a rule may return, and the tag that tells readers apart."""

from __future__ import annotations

import base64
import hmac
import math
from collections.abc import Iterable
from datetime import timedelta

from ..streams.registry.identity import check_identity
from ..types import Duration


class Grant:
    """What a rule returns to allow more than a plain yes does: who reads, and for how long.

    ::

        @sse.authorizer
        def may_read(channel):
            return Grant(session["user"], seconds=session["until"] - time.time())

    :param identity: the reader, 1 to 500 characters; None leaves that open.
    :param seconds: how long the stream may last, a number or a timedelta. It then ends as with its timeout, and the
        rule is asked again when its client reconnects. 0 or less denies. None is no bound.
    :raises TypeError: where one of them has another type.
    :raises ValueError: names the parameter and the accepted values.
    """

    __slots__ = ("identity", "seconds")

    def __init__(self, identity: str | None = None, *, seconds: Duration | None = None) -> None:
        self.identity: str | None = None if identity is None else check_identity(identity)
        self.seconds: float | None = None if seconds is None else _seconds(seconds)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.identity!r}, seconds={self.seconds!r})"


def tag_reader(
    identity: str | None, secret: str | bytes | None, old_secrets: Iterable[str | bytes] | None = None
) -> str:
    """Return a tag that differs between readers and does not reveal who they are.

    It has a part of 16 characters for each secret, joined with dots. Two tags belong to the same reader if they share a
    part, so a reader stays the same while an app changes its secret.

    :param identity: None returns ``-``: the channel is public, or the rule does not name its reader.
    :param secret: the app's ``SECRET_KEY``: all its processes then return the same tag, and no outsider can compute it.
        Without one, the tag still tells readers apart, but anyone can test a guess of the identity.
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
