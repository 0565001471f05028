"""Publishing over HTTP: ``POST <prefix>/<channel>``, for whom the app's rule lets."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from flask import Response, jsonify, request

from .answers import plain
from .channel import Channels
from .errors import BrokerUnavailable, InvalidEvent

_TYPES = ("application/json", "text/plain")
_CHARSETS = ("utf-8", "utf8")
_RETRY = re.compile(r"[0-9]{1,9}", re.ASCII)


def publish_request(channel: str, channels: Channels, max_bytes: int) -> Response:
    """Publish the body of the request that is pushed here: JSON, or a text; what else belongs to it is in the query.

    :param max_bytes: of the body.
    """
    if request.mimetype not in _TYPES or request.mimetype_params.get("charset", "utf-8").lower() not in _CHARSETS:
        return plain(f"The Content-Type must be one of {', '.join(_TYPES)}, in UTF-8", 415)
    if "HTTP_TRANSFER_ENCODING" in request.environ:
        return plain("The request must say its Content-Length", 411)
    if (request.content_length or 0) > max_bytes:
        return plain(f"SSE_MAX_EVENT_BYTES allows {max_bytes} bytes", 413)
    retry, key = request.args.get("retry"), request.args.get("key")
    if retry is not None and not _RETRY.fullmatch(retry):
        return plain("retry must be a number of milliseconds", 400)
    if key == "":
        return plain("key must not be empty: each event needs one of its own", 400)
    try:
        body = request.get_data()  # also where a rule has read it
        if len(body) < (request.content_length or 0):  # which not every server notices
            return plain("The body ends too early", 400)
        data = _data(body)
        event_id = channels.publish(
            channel, data, request.args.get("event"), None if retry is None else int(retry), key
        )
    except InvalidEvent as error:
        return plain(str(error), 400)
    except (ValueError, RecursionError):
        return plain("The body is not what its Content-Type says", 400)
    except BrokerUnavailable as error:
        unconfirmed = "The event may have been published or not: with a key in the query, try again"
        said = unconfirmed if error.may_be_published else "The event was not published: try again"
        return plain(said, 503, **{"Retry-After": "1"})
    response = jsonify(id=event_id)
    response.status_code = 201
    return response


def parse_json(text: str) -> Any:
    """What RFC 8259 calls JSON, which is less than Python does.

    :raises ValueError: where it is none, or has a number that no float can hold.
    :raises RecursionError: where it is too deep.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)


def _data(body: bytes) -> Any:
    text = body.decode()
    if request.mimetype != "application/json":
        return text
    data = parse_json(text)
    return "null" if data is None else data  # None would be an event without data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a float")
    return number
