"""Publishing over HTTP: ``POST <prefix>/<channel>``, if the app's rule allows it; shared with the monitor's form."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any, NoReturn

from flask import Response, jsonify, request

from ..channels.registry import Channels
from ..errors import BrokerUnavailable, InvalidEvent
from .denials import plain_response

_MIMETYPES = ("application/json", "text/plain")
_CHARSETS = ("utf-8", "utf8")

#: An ``EventSource`` has events of its own with these names; a page would take one for the state of its connection.
_RESERVED_NAMES = ("open", "error")


class Refused(Exception):
    """An event that a client has posted is not published. The text tells the client why.

    :param status: of the response.
    :param headers: of the response.
    """

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def publish_request(channel: str, channels: Channels, max_bytes: int, publisher: str | None) -> Response:
    """Publish the body of the current request, JSON or text; the event's name and key are in the query.

    May wait for the broker.

    :param max_bytes: of the body.
    :param publisher: the identity of the client; None where the rule names none.
    :raises Refused: where the request or the event is invalid, or the broker cannot be reached in time.
    """
    if request.mimetype not in _MIMETYPES or request.mimetype_params.get("charset", "utf-8").lower() not in _CHARSETS:
        raise Refused(415, f"The Content-Type must be one of {', '.join(_MIMETYPES)}, in UTF-8")
    if "retry" in request.args:  # it would apply to all channels of a client's stream, for days
        raise Refused(400, "retry cannot be given over HTTP: the app says when clients come back")
    key = request.args.get("key")
    if key == "":
        raise Refused(400, "key must not be empty: each event needs one of its own")
    try:
        text = read_body(max_bytes).decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"The body is not UTF-8: {error.reason} at byte {error.start}") from error
    data = read_json(text) if request.mimetype == "application/json" else text
    event_id = publish_posted(channels, channel, data, request.args.get("event"), _own_key(key, publisher))
    response = jsonify(id=event_id)
    response.status_code = 201
    return response


def answer_refused(refused: Refused) -> Response:
    """Return the response that tells the client in plain text why."""
    return plain_response(str(refused), refused.status, **refused.headers)


def read_body(max_bytes: int) -> bytes:
    """Return the body of the current request, also if a rule has read it before.

    :raises Refused: where it is larger, ends before its ``Content-Length``, or comes in chunks, without one.
    """
    if "HTTP_TRANSFER_ENCODING" in request.environ:
        raise Refused(411, "The request must say its Content-Length")
    length = request.content_length or 0
    if length > max_bytes:
        raise Refused(413, f"SSE_MAX_EVENT_BYTES allows {max_bytes} bytes in a body")
    body = request.get_data()
    if len(body) < length:  # not every server notices
        raise Refused(400, "The body ends too early")
    return body


def read_json(text: str) -> Any:
    """Return the data of an event, parsed from JSON.

    :raises Refused: where the text is not valid JSON.
    """
    try:
        data = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"This is no JSON: {error}") from error
    return "null" if data is None else data  # None would be an event without data


def publish_posted(channels: Channels, channel: str, data: Any, event: str | None, key: str | None = None) -> str:
    """Publish an event that a client has posted. May wait for the broker.

    :return: the event's id.
    :raises Refused: where the event cannot be encoded, its name is reserved, or the broker cannot be reached in time.
    """
    if event in _RESERVED_NAMES:
        raise Refused(
            400, f"the event must not be named {event!r}: an EventSource has an event of its own with that name"
        )
    try:
        return channels.publish(channel, data, event, None, key)
    except InvalidEvent as error:
        raise Refused(400, str(error)) from error
    except BrokerUnavailable as error:
        unconfirmed = "The event may have been published or not: with a key in the query, try again"
        text = unconfirmed if error.may_be_published else "The event was not published: try again"
        raise Refused(503, text, **{"Retry-After": "1"}) from error


def parse_json(text: str) -> Any:
    """Parse JSON as RFC 8259 defines it; Python accepts more.

    :raises ValueError: where it is invalid, or has a number that no float can hold.
    :raises RecursionError: where it is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)


def _own_key(key: str | None, publisher: str | None) -> str | None:
    """Return a key that neither the app nor another publisher can have: else this would keep their event out."""
    return None if key is None else "http:" + sha256(json.dumps([publisher, key]).encode()).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a float")
    return number
