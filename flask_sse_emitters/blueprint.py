"""The HTTP endpoints of channels."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request

from .channel import MOST_CHANNELS, Channels, check_name
from .emitter import SseEmitter
from .errors import InvalidChannel


def make_blueprint(channels: Callable[[], Channels]) -> Blueprint:
    """``GET <prefix>?channel=a&channel=b`` and ``GET <prefix>/<channel>``.

    :param channels: those of the app that is at hand.
    """
    blueprint = Blueprint("sse_emitters", __name__, url_prefix="/events")

    def stream(channel: str | None = None) -> SseEmitter | Response:
        asked = request.args.getlist("channel") if channel is None else [channel, *request.args.getlist("channel")]
        names = list(dict.fromkeys(asked))
        try:
            if not names:
                raise InvalidChannel(f"no channel: ask for {request.base_url}?channel=NAME")
            if len(names) > MOST_CHANNELS:
                raise InvalidChannel(f"{len(names)} channels: one stream carries {MOST_CHANNELS} at most")
            for name in names:
                check_name(name)
        except InvalidChannel as error:
            return Response(
                f"{error}\n", 400, {"X-Content-Type-Options": "nosniff"}, content_type="text/plain; charset=utf-8"
            )
        return channels().subscribe(names, None, None)

    blueprint.add_url_rule("/", view_func=stream, endpoint="streams", strict_slashes=False)
    blueprint.add_url_rule("/<path:channel>", view_func=stream, endpoint="stream", merge_slashes=False)
    return blueprint
