"""Serve the monitor page, the stream that feeds it, and the form that publishes a test event."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, redirect, request, send_file

from ...channels.channel import Channel
from ...channels.names import name_for_operator
from ...errors import AccessDenied, BrokerUnavailable, InvalidChannel
from ...server.app_state import State
from ...server.denials import deny, plain_response
from ...server.publish_endpoint import Refused, parse_json, publish_posted, read_body, read_json
from .access import MonitorAccess
from .feeder import MonitorFeeder

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

#: What the JSON of a test event may take beyond the bytes of its data: names of fields, and the event's name.
_FORM_BYTES = 4096


def make_monitor(state: Callable[[], State], access: MonitorAccess) -> Blueprint:
    """Make the page at ``<prefix>/``, its stream at ``/stream?channel=NAME``, and its form's ``POST <prefix>/publish``.

    :param state: returns the state of the current app.
    :param access: checks every request.
    """
    blueprint = Blueprint(
        "sse_monitor", __name__, url_prefix="/sse-monitor", static_folder="static", static_url_path="/static"
    )

    def page() -> Any:
        if not request.path.endswith("/"):  # the page requests relative URLs, so that it works behind any prefix
            return redirect(request.path.rpartition("/")[2] + "/", 308)
        response = send_file(_PAGE, mimetype="text/html")
        response.headers["Cache-Control"] = "no-store"
        return response

    def stream() -> Response:
        channel = request.args.get("channel")
        return _publisher(state()).open_stream(None if channel is None else name_for_operator(channel))

    def publish_event() -> Response:
        return _publish(state())

    blueprint.add_url_rule("/", "page", page, strict_slashes=False)
    blueprint.add_url_rule("/stream", "stream", stream)
    blueprint.add_url_rule("/publish", "publish", publish_event, methods=["POST"])
    blueprint.before_request(access.check)
    blueprint.after_request(_add_headers)
    blueprint.register_error_handler(AccessDenied, deny)
    blueprint.register_error_handler(Refused, _answer_refused)
    blueprint.register_error_handler(InvalidChannel, lambda error: plain_response(str(error), 400))
    return blueprint


def _add_headers(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response


def _publisher(state: State) -> MonitorFeeder:
    publisher: MonitorFeeder | None = current_app.extensions.get(_EXTENSION)
    return publisher or current_app.extensions.setdefault(_EXTENSION, MonitorFeeder(state))


def _publish(state: State) -> Response:
    """Publish the event that the body describes: ``channel``, ``event``, ``text``, and whether the text ``is_json``.

    :raises Refused: where this is not possible.
    """
    if request.mimetype != "application/json":  # which no form of another site's page can send
        raise Refused(415, "Send JSON.")
    form = _parse_form(read_body(2 * state.settings.max_event_bytes + _FORM_BYTES))
    if not isinstance(form, dict) or not all(isinstance(form.get(name), str) for name in ("channel", "event", "text")):
        raise Refused(400, "Send channel, event and text, each a text.")
    try:
        channel = name_for_operator(form["channel"])
    except InvalidChannel as error:
        raise Refused(400, str(error)) from error
    data = read_json(form["text"]) if form.get("is_json") else form["text"]
    event_id = publish_posted(state.channels, channel, data, form["event"] or None)
    response = jsonify(id=event_id, clients=_count_clients(state, channel))
    response.status_code = 201
    return response


def _count_clients(state: State, channel: str) -> int | None:
    """Count the channel's clients in all processes; None where the broker does not answer."""
    with suppress(BrokerUnavailable):
        return Channel(channel, lambda: state.channels).subscribers()
    return None


def _parse_form(body: bytes) -> Any:
    """Return the JSON value of the body; None where it is no JSON."""
    with suppress(ValueError, RecursionError):
        return parse_json(body.decode())
    return None


def _answer_refused(refused: Refused) -> Response:
    text, cause = str(refused), refused.__cause__
    if isinstance(cause, BrokerUnavailable):  # an operator may know why
        outcome = "It may have been published or not" if cause.may_be_published else "It was not published"
        text = f"{outcome}: {cause}"
    response = jsonify(error=text)
    response.status_code = refused.status
    return response
