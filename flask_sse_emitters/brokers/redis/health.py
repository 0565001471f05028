"""The health of Redis as this process sees it: see :mod:`..remote.health`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..remote import health
from ..remote.health import COUNTING as COUNTING
from ..remote.health import LISTENING as LISTENING
from ..remote.health import PUBLISHING as PUBLISHING
from ..remote.health import READING as READING
from .errors import diagnose, error_text

log = logging.getLogger("flask_sse_emitters.brokers.redis_health")


class Health(health.Health):
    """The parts of the work that fail: see :class:`.remote.health.Health`."""

    def __init__(self, url: str, changed: Callable[[], object] = lambda: None) -> None:
        super().__init__(url, changed, diagnose, error_text, log)
