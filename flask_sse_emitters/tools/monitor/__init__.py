"""The monitor page: for a person who would rather look than read.

Its page listens to a stream of this package, which one pulse a process feeds while anybody watches. It is closed unless
a rule opens it, or the app is in debug mode and asked by a browser on its own machine.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, redirect, request, send_file

from ...channels.channel import Channel, name_for_operator
from ...errors import AccessDenied, BrokerUnavailable, InvalidChannel
from ...server.app_state import State
from ...server.denials import deny, plain
from ...server.publish_endpoint import Refused, parse_json, publish, read_body, read_json
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

    def publish_event() -> Response:
        return _publish(state())

    blueprint.add_url_rule("/", "page", page, strict_slashes=False)
    blueprint.add_url_rule("/stream", "stream", stream)
    blueprint.add_url_rule("/publish", "publish", publish_event, methods=["POST"])
    blueprint.before_request(gate.check)
    blueprint.after_request(_guard_page)
    blueprint.register_error_handler(AccessDenied, deny)
    blueprint.register_error_handler(Refused, _refuse)
    blueprint.register_error_handler(InvalidChannel, lambda error: plain(str(error), 400))
    return blueprint


def _guard_page(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response


def _pulse(state: State) -> Pulse:
    pulse: Pulse | None = current_app.extensions.get(_EXTENSION)
    return pulse or current_app.extensions.setdefault(_EXTENSION, Pulse(state))


def _publish(state: State) -> Response:
    """Publish the event that the body describes: ``channel``, ``event``, ``text``, and whether that ``is_json``.

    :raises Refused: where that cannot be done.
    """
    if request.mimetype != "application/json":  # which no form of another site's page can send
        raise Refused(415, "Send JSON.")
    said = _said(read_body(2 * state.settings.max_event_bytes + _AROUND))
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) for name in ("channel", "event", "text")):
        raise Refused(400, "Send channel, event and text, each a text.")
    try:
        channel = name_for_operator(said["channel"])
    except InvalidChannel as error:
        raise Refused(400, str(error)) from error
    data = read_json(said["text"]) if said.get("is_json") else said["text"]
    event_id = publish(state.channels, channel, data, said["event"] or None)
    response = jsonify(id=event_id, clients=_readers(state, channel))
    response.status_code = 201
    return response


def _readers(state: State, channel: str) -> int | None:
    """How many clients of all processes read the channel; None where the broker does not say."""
    with suppress(BrokerUnavailable):
        return Channel(channel, lambda: state.channels).subscribers()
    return None


def _said(body: bytes) -> Any:
    """What the body says; None where it is no JSON."""
    with suppress(ValueError, RecursionError):
        return parse_json(body.decode())
    return None


def _refuse(refused: Refused) -> Response:
    text, cause = str(refused), refused.__cause__
    if isinstance(cause, BrokerUnavailable):  # an operator is told why
        outcome = "It may have been published or not" if cause.may_be_published else "It was not published"
        text = f"{outcome}: {cause}"
    response = jsonify(error=text)
    response.status_code = refused.status
    return response
