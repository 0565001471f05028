"""What is published to a channel, on the way to its broker."""

from __future__ import annotations

from typing import Any

from ..config.settings import Settings
from ..errors import InvalidEvent
from ..wire.event import Event, EventBuilder, as_event, plain_text
from ..wire.frame import Frame, make_frame
from .replay.gap import GAP


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


def encode_for_channel(data: Any, event: str | None, retry: int | None, settings: Settings) -> Frame:
    """Encode an event for the broker, which gives it its id.

    :param data: an :class:`Event` or a builder's, without an id; or the data of one.
    :param event: its name; None is ``"message"``.
    :param retry: milliseconds until clients reconnect from now on.
    :raises InvalidEvent: where the event cannot be written, has an id of its own, or has the name of a gap.
    """
    if isinstance(data, Event | EventBuilder):
        given = as_event(data)
        if (given.id, event, retry) != (None, None, None):
            raise InvalidEvent(
                "an Event goes into a channel as it is, and gets its id there: give no id, event or retry with it"
            )
    else:
        given = Event(data, event=event, retry=retry)
    if given.event == GAP:
        raise InvalidEvent(
            f"the name {GAP!r} is kept for the event that tells clients that they have missed some: take another one"
        )
    return make_frame(given, settings.dumps, settings.max_event_bytes)
