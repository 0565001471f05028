"""The limit of publishing over Redis: redis-py alone calls the script that publishes, always with the same event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from flask_sse_emitters.brokers import Publication
from flask_sse_emitters.brokers.event_log import Bounds
from flask_sse_emitters.brokers.redis.messages import KeyNames, publish_arguments
from flask_sse_emitters.brokers.redis.scripts.channels import PUBLISH
from flask_sse_emitters.wire.frame import Frame

CHANNEL = "bare"


def evalsha(client: redis.Redis) -> Callable[[], Any]:
    names = KeyNames("sse")
    keys = names.keys(CHANNEL)
    event = Publication(CHANNEL, Frame(b'data: {"n": 1}\n\n', "message"), Bounds(1000, 300.0))
    arguments = publish_arguments([event], names.announcements(CHANNEL), durable="1")
    client.eval(PUBLISH.text, len(keys), *keys, *arguments)
    return lambda: client.evalsha(PUBLISH.digest, len(keys), *keys, *arguments)
