"""Publishing over HTTP: ``POST <prefix>/<channel>``, where the app's rule allows it, and the form of the monitor."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any, NoReturn

from flask import Response, jsonify, request

from ..channels.channel import Channels
from ..errors import BrokerUnavailable, InvalidEvent
from .denials import plain

_TYPES = ("application/json", "text/plain")
_CHARSETS = ("utf-8", "utf8")

#: An ``EventSource`` has events of its own with these names: a page would take one for the state of its connection.
_OF_CLIENTS = ("open", "error")


class Refused(Exception):
    """What a client has posted is not published. Its text says why, to that client.

    :param status: of the answer.
    :param headers: of the answer.
    """

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def publish_request(channel: str, channels: Channels, max_bytes: int, publisher: str | None) -> Response:
    """Publish the body of the current request: JSON, or a text; what else belongs to the event is in the query.

    May wait for the broker.

    :param max_bytes: of the body.
    :param publisher: the identity of who has posted it; None where the rule does not say.
    :raises Refused: where that cannot be done.
    """
    if request.mimetype not in _TYPES or request.mimetype_params.get("charset", "utf-8").lower() not in _CHARSETS:
        raise Refused(415, f"The Content-Type must be one of {', '.join(_TYPES)}, in UTF-8")
    if "retry" in request.args:  # it would hold for all channels of a client's stream, and for days
        raise Refused(400, "retry cannot be given over HTTP: the app says when clients come back")
    key = request.args.get("key")
    if key == "":
        raise Refused(400, "key must not be empty: each event needs one of its own")
    try:
        text = read_body(max_bytes).decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"The body is not UTF-8: {error.reason} at byte {error.start}") from error
    data = read_json(text) if request.mimetype == "application/json" else text
    own_key = None if key is None else _key(key, publisher)
    response = jsonify(id=publish(channels, channel, data, request.args.get("event"), own_key))
    response.status_code = 201
    return response


def answer_refused(refused: Refused) -> Response:
    """Answer in plain text."""
    return plain(str(refused), refused.status, **refused.headers)


def read_body(max_bytes: int) -> bytes:
    """Return the body of the current request, also where a rule has read it before.

    :raises Refused: where it is larger, or ends before its ``Content-Length``, or has none.
    """
    if "HTTP_TRANSFER_ENCODING" in request.environ:
        raise Refused(411, "The request must say its Content-Length")
    length = request.content_length or 0
    if length > max_bytes:
        raise Refused(413, f"SSE_MAX_EVENT_BYTES allows {max_bytes} bytes in a body")
    body = request.get_data()
    if len(body) < length:  # which not every server notices
        raise Refused(400, "The body ends too early")
    return body


def read_json(text: str) -> Any:
    """Return the data that this JSON is, for an event.

    :raises Refused: where it is none.
    """
    try:
        data = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"This is no JSON: {error}") from error
    return "null" if data is None else data  # None would be an event without data


def publish(channels: Channels, channel: str, data: Any, event: str | None, key: str | None = None) -> str:
    """Publish what a client has posted. May wait for the broker.

    :return: the event's id.
    :raises Refused: where the event cannot be written, has a name that clients give a meaning, or the broker cannot be
        reached in time.
    """
    if event in _OF_CLIENTS:
        raise Refused(
            400, f"the event must not be named {event!r}: an EventSource has an event of its own with that name"
        )
    try:
        return channels.publish(channel, data, event, None, key)
    except InvalidEvent as error:
        raise Refused(400, str(error)) from error
    except BrokerUnavailable as error:
        unconfirmed = "The event may have been published or not: with a key in the query, try again"
        said = unconfirmed if error.may_be_published else "The event was not published: try again"
        raise Refused(503, said, **{"Retry-After": "1"}) from error


def parse_json(text: str) -> Any:
    """What RFC 8259 calls JSON, which is less than Python does.

    :raises ValueError: where it is none, or has a number that no float can hold.
    :raises RecursionError: where it is too deep.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)


def _key(key: str, publisher: str | None) -> str:
    """Make a key that neither the app nor another publisher has: else its next event would count as published."""
    return "http:" + sha256(json.dumps([publisher, key]).encode()).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a float")
    return number
