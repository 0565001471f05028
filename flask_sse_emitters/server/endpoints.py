"""The HTTP endpoints of channels."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, current_app, request

from ..access import origins
from ..access.grants import tag_reader
from ..access.rules import Rules
from ..channels.channel import MOST_CHANNELS, OWN, check_name
from ..config.settings import Settings
from ..errors import AccessDenied, InvalidChannel
from ..streams.emitter import stream_of
from .app_state import State
from .denials import answer_denied, plain
from .publish_endpoint import Refused, answer_refused, publish_request
from .response import HEADERS

#: The header that tells the browser module who reads: a tag for each channel that was asked for, in order.
READER = "SSE-Reader"

_METHODS = ["GET", "OPTIONS", "POST"]


def make_blueprint(state: Callable[[], State], rules: Rules) -> Blueprint:
    """``GET <prefix>?channel=a&channel=b`` and ``GET <prefix>/<channel>``; with a rule, ``POST <prefix>/<channel>``.

    ``HEAD`` asks the rule as ``GET`` does, and opens no stream. Both say in ``SSE-Reader`` who reads, for the browser
    module.

    Beside them ``GET <prefix>/static/sse-emitters.js``, the browser module, of which no rule is asked: a channel whose
    name begins with ``static/`` is read by ``?channel=`` alone.

    :param state: of the app that is at hand.
    """
    blueprint = Blueprint(
        "sse_emitters", __name__, url_prefix="/events", static_folder="static", static_url_path="/static"
    )

    def endpoint(channel: str | None = None) -> Response:
        publishes = channel is not None and rules.publisher is not None
        if request.method == "OPTIONS":
            return _options(state().settings, publishes)
        if request.method == "POST" and not publishes:
            text = "POST /<channel> needs a rule: @sse.publisher" if current_app.debug else "Method Not Allowed"
            return plain(text, 405, Allow=_allowed(publishes))
        try:
            request.args  # noqa: B018 - Werkzeug reads it now
        except UnicodeDecodeError:
            return plain("The query is not UTF-8", 400)
        origins.check_origin(state().settings, is_read=request.method != "POST")
        if request.method == "POST":
            assert channel is not None
            publisher = rules.admit_publisher(check_name(channel))
            return publish_request(channel, state().channels, state().settings.max_event_bytes, publisher)
        return _stream(_names_asked(channel), state(), rules)

    def allow_origin(response: Response) -> Response:
        origins.allow_origin(response.headers, state().settings)
        if READER in response.headers and "Access-Control-Allow-Origin" in response.headers:
            response.headers.add("Access-Control-Expose-Headers", READER)
        return response

    def refuse_name(error: InvalidChannel) -> Response:
        return plain(str(error), 400)

    blueprint.after_request(allow_origin)
    blueprint.register_error_handler(InvalidChannel, refuse_name)
    blueprint.register_error_handler(Refused, answer_refused)
    blueprint.register_error_handler(AccessDenied, answer_denied)  # before those of a blueprint around this one
    for rule, name, options in (("/", "streams", {"strict_slashes": False}), ("/<path:channel>", "stream", {})):
        blueprint.add_url_rule(
            rule, name, endpoint, methods=_METHODS, provide_automatic_options=False, merge_slashes=False, **options
        )
    return blueprint


def _stream(asked: list[str], state: State, rules: Rules) -> Response:
    with state.revocations.pending_request() as end_if_revoked:
        admission = rules.admit_reader(asked)
        secrets = current_app.secret_key, current_app.config.get("SECRET_KEY_FALLBACKS")
        tags = " ".join(tag_reader(identity, *secrets) for identity in admission.identities)
        if request.method == "HEAD":
            return _head(tags)
        emitter = state.channels.subscribe(admission.channels, reader=admission.reader, seconds=admission.seconds)
        response = emitter.response(headers={READER: tags})
        end_if_revoked(stream_of(emitter))
    return response


def _head(tags: str) -> Response:
    """Answer as to a GET, without a stream: so tabs ask who reads before they share a connection."""
    response = Response(headers={**HEADERS, READER: tags}, content_type="text/event-stream")
    response.automatically_set_content_length = False
    return response


def _names_asked(channel: str | None) -> list[str]:
    asked = request.args.getlist("channel")
    names = list(dict.fromkeys(asked if channel is None else [channel, *asked]))
    if not names:
        raise InvalidChannel(f"no channel: ask for {request.root_path}{request.path}?channel=NAME")
    if len(names) > MOST_CHANNELS:
        raise InvalidChannel(f"{len(names)} channels: one stream carries {MOST_CHANNELS} at most")
    for name in names:
        if name != OWN:
            check_name(name)
    return names


def _options(settings: Settings, publishes: bool) -> Response:
    allowed = _allowed(publishes)
    if not origins.is_preflight():
        return Response(status=200, headers={"Allow": allowed})
    origins.check_origin(settings)
    return Response(status=204, headers=origins.preflight_headers(allowed))


def _allowed(publishes: bool) -> str:
    return "GET, HEAD, OPTIONS, POST" if publishes else "GET, HEAD, OPTIONS"
