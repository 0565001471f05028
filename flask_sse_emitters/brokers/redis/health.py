"""The health of Redis as this process sees it: see :mod:`..listening.health`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..listening import health
from ..listening.health import COUNTING as COUNTING
from ..listening.health import LISTENING as LISTENING
from ..listening.health import PUBLISHING as PUBLISHING
from ..listening.health import READING as READING
from .errors import diagnose, error_text

log = logging.getLogger("flask_sse_emitters.brokers.redis_health")


class Health(health.Health):
    """The parts of the work that fail: see :class:`.listening.health.Health`."""

    def __init__(self, url: str, changed: Callable[[], object] = lambda: None) -> None:
        super().__init__(url, changed, diagnose, error_text, log)
