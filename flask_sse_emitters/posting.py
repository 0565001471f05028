"""Publishing over HTTP: ``POST <prefix>/<channel>``, for whom the app's rule lets."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from flask import Response, jsonify, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wsgi import get_input_stream

from .answers import plain
from .channel import Channels
from .errors import BrokerUnavailable, InvalidEvent

_TYPES = ("application/json", "text/plain")


def publish_request(channel: str, channels: Channels, max_bytes: int) -> Response:
    """Publish the body of the request that is pushed here: JSON, or a text; its name and key are in the query.

    :param max_bytes: of the body.
    """
    if request.mimetype not in _TYPES or request.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        return plain(f"The Content-Type must be one of {', '.join(_TYPES)}, in UTF-8", 415)
    try:
        body = get_input_stream(request.environ, max_content_length=max_bytes).read()
    except RequestEntityTooLarge:
        return plain(f"SSE_MAX_EVENT_BYTES allows {max_bytes} bytes", 413)
    except ClientDisconnected:
        return plain("The body ends too early", 400)
    try:
        text = body.decode()
        data = parse_json(text) if request.mimetype == "application/json" else text
        data = "null" if data is None else data  # None would be an event without data
        retry = request.args.get("retry")
        event_id = channels.publish(
            channel, data, request.args.get("event"), None if retry is None else int(retry), request.args.get("key")
        )
    except InvalidEvent as error:
        return plain(str(error), 400)
    except (ValueError, RecursionError) as error:
        return plain(f"The body is not as its Content-Type says, or retry is no number: {error}", 400)
    except BrokerUnavailable:
        unconfirmed = "The event may have been published or not: with a key in the query, try again"
        return plain(unconfirmed, 503, **{"Retry-After": "1"})
    response = jsonify(id=event_id)
    response.status_code = 201
    return response


def parse_json(text: str) -> Any:
    """What RFC 8259 calls JSON, which is less than Python does.

    :raises ValueError: where it is none.
    :raises RecursionError: where it is too deep.
    """
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
