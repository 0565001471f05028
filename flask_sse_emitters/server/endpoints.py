"""The HTTP endpoints of channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from ..access import origins
from ..access.grants import tag_reader
from ..access.rules import Rules
from ..channels.names import MAX_CHANNELS, OWN_CHANNEL, check_name
from ..channels.replay.since import parse_since
from ..config.context import query
from ..config.settings import Settings, checked
from ..errors import AccessDenied, BrokerUnavailable, InvalidChannel
from ..streams.emitter import stream_of
from .app_state import State
from .denials import answer_denied, plain_response
from .publish_endpoint import Refused, answer_refused, publish_request
from .response import HEADERS

#: Tells the browser module who reads: a tag for each requested channel, in order.
READER_HEADER = "SSE-Reader"

_METHODS = ["GET", "OPTIONS", "POST"]

#: What a query may say of its stream.
_OPTION_CHECKS: dict[str, Callable[[str], object]] = {"since": parse_since, "end": partial(checked, "end")}


def make_blueprint(state: Callable[[], State], rules: Rules) -> Blueprint:
    """Make the blueprint of the endpoints of channels.

    ``GET <prefix>?channel=a&channel=b`` and ``GET <prefix>/<channel>`` are streams, which begin where ``since`` says
    for clients without an id, and end for now as ``end`` says; or a 204, where all channels are complete, and nothing
    is left for the client. ``POST <prefix>/<channel>`` publishes, where there is a rule for that.

    ``GET <prefix>/<channel>/members`` tells who reads that channel, under the same rule; a 404 where it has no members.
    A channel whose name ends with ``/members`` can only be read with ``?channel=``.

    ``HEAD`` asks the rule as ``GET`` does, and opens no stream. ``GET`` and ``HEAD`` name the reader in ``SSE-Reader``,
    for the browser module.

    ``GET <prefix>/static/sse-emitters.js`` is that module; no rule is asked for it. A channel whose name begins with
    ``static/`` can only be read with ``?channel=``.

    :param state: returns that of the current app.
    """
    blueprint = Blueprint(
        "sse_emitters", __name__, url_prefix="/events", static_folder="static", static_url_path="/static"
    )

    def add_headers(response: Response) -> Response:
        return _add_cors_headers(response, state().settings)

    blueprint.after_request(add_headers)
    blueprint.register_error_handler(InvalidChannel, _answer_invalid_channel)
    blueprint.register_error_handler(Refused, answer_refused)
    blueprint.register_error_handler(AccessDenied, answer_denied)  # before those of a blueprint around this one
    _add_rules(blueprint, state, rules)
    return blueprint


def _add_rules(blueprint: Blueprint, state: Callable[[], State], rules: Rules) -> None:
    def streams() -> Response:
        return _answer(None, state(), rules)

    def stream(channel: str) -> Response:
        return _answer(channel, state(), rules)

    def members(channel: str) -> Response:
        return _answer_members(channel, state(), rules)

    options: dict[str, Any] = {"provide_automatic_options": False, "merge_slashes": False}
    blueprint.add_url_rule("/", view_func=streams, methods=_METHODS, strict_slashes=False, **options)
    blueprint.add_url_rule("/<path:channel>", view_func=stream, methods=_METHODS, **options)
    methods = ["GET", "OPTIONS"]  # events can be posted to a channel whose name ends so
    blueprint.add_url_rule("/<path:channel>/members", view_func=members, methods=methods, **options)


def _answer(channel: str | None, state: State, rules: Rules) -> Response:
    accepts_events = channel is not None and rules.publisher is not None
    if request.method == "OPTIONS":
        return _answer_options(state.settings, accepts_events)
    if request.method == "POST" and not accepts_events:
        text = "POST /<channel> needs a rule: @sse.publisher" if current_app.debug else "Method Not Allowed"
        return plain_response(text, 405, Allow=_allowed_methods(accepts_events))
    _check_query()
    origins.check_origin(state.settings, is_read=request.method != "POST")
    if request.method == "POST":
        assert channel is not None
        publisher = rules.admit_publisher(check_name(channel))
        return publish_request(channel, state.channels, state.settings.max_event_bytes, publisher)
    return _answer_stream(_requested_channels(channel), _requested_options(), state, rules)


def _answer_members(channel: str, state: State, rules: Rules) -> Response:
    if request.method == "OPTIONS":
        return _answer_options(state.settings, False)
    _check_query()
    if "channel" in request.args:
        raise Refused(400, "The members of one channel are asked for at a time: the one of the path")
    origins.check_origin(state.settings, is_read=True)
    [name] = rules.admit_reader(_requested_channels(channel)).channels
    if not state.channels.roster.has_members(name):
        text = f"The channel has no members: sse.channel({name!r}, members=True)" if current_app.debug else "Not Found"
        raise Refused(404, text)
    try:
        response = jsonify(members=state.channels.roster.members(name))
    except BrokerUnavailable as error:
        raise Refused(503, "Who the members are is not known now: try again", **{"Retry-After": "1"}) from error
    response.headers["Cache-Control"] = "no-store"
    return response


def _check_query() -> None:
    try:
        if request.environ.get("QUERY_STRING"):
            request.args  # noqa: B018 - Werkzeug decodes it now
    except UnicodeDecodeError as error:
        raise Refused(400, "The query is not UTF-8") from error


def _answer_stream(asked: list[str], options: dict[str, Any], state: State, rules: Rules) -> Response:
    with state.revocations.pending_request() as end_if_revoked:
        admission = rules.admit_reader(asked)
        secrets = current_app.secret_key, current_app.config.get("SECRET_KEY_FALLBACKS")
        tags = " ".join(tag_reader(identity, *secrets) for identity in admission.identities)
        if request.method == "HEAD":
            return _answer_head(tags)
        emitter = state.channels.subscribe(
            admission.channels, reader=admission.reader, seconds=admission.seconds, **options
        )
        response = emitter.response(headers={READER_HEADER: tags})
        end_if_revoked(stream_of(emitter))
    return response


def _answer_head(tags: str) -> Response:
    """Answer as to a GET, without a stream: so browser tabs learn who reads before they share a connection."""
    response = Response(headers={**HEADERS, READER_HEADER: tags}, content_type="text/event-stream")
    response.automatically_set_content_length = False
    return response


def _requested_channels(channel: str | None) -> list[str]:
    asked = query().getlist("channel")
    names = list(dict.fromkeys(asked if channel is None else [channel, *asked]))
    if not names:
        raise InvalidChannel(f"no channel: ask for {request.root_path}{request.path}?channel=NAME")
    if len(names) > MAX_CHANNELS:
        raise InvalidChannel(f"{len(names)} channels: one stream carries {MAX_CHANNELS} at most")
    for name in names:
        if name != OWN_CHANNEL:
            check_name(name)
    return names


def _requested_options() -> dict[str, Any]:
    """Return where a client without an id begins, and how its stream ends for now, as far as the query says."""
    asked = query()
    given = {name: asked[name] for name in _OPTION_CHECKS if name in asked}
    try:
        for name, value in given.items():
            _OPTION_CHECKS[name](value)
    except ValueError as error:
        raise Refused(400, str(error)) from error
    return given


def _answer_options(settings: Settings, accepts_events: bool) -> Response:
    allowed = _allowed_methods(accepts_events)
    if not origins.is_preflight():
        return Response(status=200, headers={"Allow": allowed})
    origins.check_origin(settings)
    return Response(status=204, headers=origins.preflight_headers(allowed))


def _answer_invalid_channel(error: InvalidChannel) -> Response:
    return plain_response(str(error), 400)


def _allowed_methods(accepts_events: bool) -> str:
    return "GET, HEAD, OPTIONS, POST" if accepts_events else "GET, HEAD, OPTIONS"


def _add_cors_headers(response: Response, settings: Settings) -> Response:
    origins.allow_origin(response.headers, settings)
    if READER_HEADER in response.headers and "Access-Control-Allow-Origin" in response.headers:
        response.headers.add("Access-Control-Expose-Headers", READER_HEADER)
    return response
