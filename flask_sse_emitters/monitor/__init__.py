"""The monitor page: for a person who would rather look than read.

Its page listens to a stream of this package, which one pulse a process feeds while anybody watches. It is closed unless
a rule opens it, or the app is in debug mode and asked for at this machine's own names.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, redirect, request, send_file

from ..answers import deny, plain
from ..channel import Channel, name_for_operator
from ..errors import AccessDenied, BrokerUnavailable, InvalidChannel, InvalidEvent
from ..posting import parse_json
from ..state import State
from .gate import Gate, MonitorRule
from .pulse import Pulse

__all__ = ["Gate", "MonitorRule", "make_monitor"]

_PAGE = Path(__file__).with_name("monitor.html")

#: The key in ``app.extensions``.
_EXTENSION = "sse_emitters.monitor"

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

#: What a test event may take as JSON beyond its own bytes: names of fields, and the event's.
_AROUND = 4096


def make_monitor(state: Callable[[], State], gate: Gate) -> Blueprint:
    """The page at ``<prefix>/``, what feeds it at ``/stream?channel=NAME``, and its form's ``POST <prefix>/publish``.

    :param state: of the app that is at hand.
    :param gate: is asked for each of them.
    """
    blueprint = Blueprint(
        "sse_monitor", __name__, url_prefix="/sse-monitor", static_folder="static", static_url_path="/static"
    )

    def page() -> Any:
        if not request.path.endswith("/"):  # what the page asks for is relative to it, behind any prefix
            return redirect(request.path.rpartition("/")[2] + "/", 308)
        response = send_file(_PAGE, mimetype="text/html")
        response.headers["Cache-Control"] = "no-store"
        return response

    def stream() -> Response:
        channel = request.args.get("channel")
        return _pulse(state()).watch(None if channel is None else name_for_operator(channel))

    def publish() -> Response:
        return _publish(state())

    blueprint.add_url_rule("/", "page", page, strict_slashes=False)
    blueprint.add_url_rule("/stream", "stream", stream)
    blueprint.add_url_rule("/publish", "publish", publish, methods=["POST"])
    blueprint.before_request(gate.check)
    blueprint.after_request(_guard_page)
    blueprint.register_error_handler(AccessDenied, deny)
    blueprint.register_error_handler(InvalidChannel, lambda error: plain(str(error), 400))
    return blueprint


def _guard_page(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response


def _pulse(state: State) -> Pulse:
    pulse: Pulse | None = current_app.extensions.get(_EXTENSION)
    return pulse or current_app.extensions.setdefault(_EXTENSION, Pulse(state))


def _publish(state: State) -> Response:
    """The event that the body describes: ``channel``, ``event``, ``text``, and whether that ``is_json``."""
    if request.mimetype != "application/json":  # which no form of another site's page can send
        return _refuse(415, "Send JSON.")
    if "HTTP_TRANSFER_ENCODING" in request.environ:
        return _refuse(411, "The request must say its Content-Length.")
    if (request.content_length or 0) > 2 * state.settings.max_event_bytes + _AROUND:
        return _refuse(413, f"SSE_MAX_EVENT_BYTES allows {state.settings.max_event_bytes} bytes.")
    said = _said()
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) for name in ("channel", "event", "text")):
        return _refuse(400, "Send channel, event and text, each a text.")
    try:
        channel = name_for_operator(said["channel"])
        data = _parsed(said["text"]) if said.get("is_json") else said["text"]
        event_id = state.channels.publish(channel, data, said["event"] or None, None, None)
    except (InvalidChannel, InvalidEvent) as error:
        return _refuse(400, str(error))
    except (ValueError, RecursionError) as error:
        return _refuse(400, f"This is no JSON: {error}")
    except BrokerUnavailable as error:
        outcome = "It may have been published or not" if error.may_be_published else "It was not published"
        return _refuse(503, f"{outcome}: {error}")
    response = jsonify(id=event_id, clients=_readers(state, channel))
    response.status_code = 201
    return response


def _readers(state: State, channel: str) -> int | None:
    """How many clients of all processes read the channel; None where the broker does not say."""
    with suppress(BrokerUnavailable):
        return Channel(channel, lambda: state.channels).subscribers()
    return None


def _said() -> Any:
    """What the body says; None where it is no JSON."""
    with suppress(ValueError, RecursionError):
        return parse_json(request.get_data().decode())
    return None


def _parsed(text: str) -> Any:
    data = parse_json(text)
    return "null" if data is None else data  # None would be an event without data


def _refuse(status: int, text: str) -> Response:
    response = jsonify(error=text)
    response.status_code = status
    return response
