"""Names of channels: what they may look like, and the one that belongs to each reader alone."""

from __future__ import annotations

import re
from hashlib import sha256
from urllib.parse import quote

from ..errors import InvalidChannel, InvalidEvent
from ..streams.registry.identity import check_identity
from ..wire.event import plain_text

#: One stream carries at most this many channels.
MAX_CHANNELS = 50

#: The name by which each client asks for its reader's own channel. The real name begins with it, as no other does.
OWN_CHANNEL = "~"

_NAME = re.compile(r"[A-Za-z0-9._\-:/@]{1,200}", re.ASCII)


def check_name(name: object) -> str:
    """Return a valid channel name as a plain str.

    :raises InvalidChannel: where it is not valid.
    """
    text = plain_text(name) if isinstance(name, str) else None
    if text is None or not _NAME.fullmatch(text):
        shown = repr(name) if len(str(name)) <= 220 else f"one of {len(str(name))} characters"
        own = "; a reader's own channel is asked for as '~' alone, and published to with publish_to(identity, ...)"
        raise InvalidChannel(
            f"a channel's name has 1 to 200 ASCII letters, digits and . _ - : / @, unlike {shown}"
            + (own if str(name).startswith(OWN_CHANNEL) else "")
        )
    return text


def private_name(identity: str) -> str:
    """Return the name of the channel that only this identity may read.

    :raises TypeError: where the identity is not a str.
    :raises ValueError: where it is not valid.
    """
    text = check_identity(identity)
    quoted = quote(text, safe="@:+")
    return OWN_CHANNEL + (quoted if len(quoted) < 200 else "!" + sha256(text.encode()).hexdigest())


def name_for_operator(text: str) -> str:
    """Return the real name for a channel's name, or for ``~`` and an identity.

    For operators, who may read and publish everything.

    :raises InvalidChannel: where it is neither.
    """
    if not text.startswith(OWN_CHANNEL):
        return check_name(text)
    try:
        return private_name(text.removeprefix(OWN_CHANNEL))
    except ValueError as error:
        raise InvalidChannel(str(error)) from error


def check_key(key: object) -> str | None:
    """Return the key of an event as a plain str; None where there is none.

    :raises TypeError: where it is not a str.
    :raises InvalidEvent: where it cannot be written as UTF-8.
    """
    if key is None:
        return None
    if not isinstance(key, str):
        raise TypeError(f"key is a str, not {key!r}")
    text = plain_text(key)
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise InvalidEvent(f"key holds a lone surrogate, which cannot be written as UTF-8: {text!r}")
    return text
