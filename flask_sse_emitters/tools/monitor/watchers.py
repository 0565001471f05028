"""The streams of monitors, and what is written to them."""

from __future__ import annotations

import json
from typing import Any

from ...broadcast.emitters import SseEmitters
from ...wire.event import Event
from ...wire.frame import Frame, make_frame

#: No event of a monitor gets as large, whatever ``SSE_MAX_EVENT_BYTES`` allows others.
MOST_BYTES = 8_388_608


class Watchers(SseEmitters):
    """A list of monitors."""

    __slots__ = ()

    def show(self, name: str, data: Any) -> None:
        """Send them an event of this name."""
        self._delivery.put([monitor_frame(name, data)])


def monitor_frame(name: str, data: Any) -> Frame:
    """An event for a monitor: JSON of our own making, whatever the app's encoder does."""
    return make_frame(Event(json.dumps(data, separators=(",", ":")), event=name), json.dumps, MOST_BYTES)
