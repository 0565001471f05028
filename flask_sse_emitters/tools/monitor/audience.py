"""Send events to the open monitors."""

from __future__ import annotations

import json
from typing import Any

from ...broadcast.emitters import SseEmitters
from ...wire.event import Event
from ...wire.frame import Frame, make_frame

#: An event for a monitor is smaller than this, whatever ``SSE_MAX_EVENT_BYTES`` says.
MAX_EVENT_BYTES = 8_388_608


class MonitorClients(SseEmitters):
    """A list of open monitors."""

    __slots__ = ()

    def send_json(self, name: str, data: Any) -> None:
        """Send an event with this name, and this data as JSON."""
        self._delivery.put([monitor_frame(name, data)])


def monitor_frame(name: str, data: Any) -> Frame:
    """Encode an event for a monitor: with plain JSON, whatever encoder the app uses."""
    return make_frame(Event(json.dumps(data, separators=(",", ":")), event=name), json.dumps, MAX_EVENT_BYTES)
