"""What the readers of a channel are told of its members."""

from __future__ import annotations

import json
from collections.abc import Iterable

from flask_sse_emitters import Event

SIGNS = {"join": "+", "leave": "-"}


def told(events: Iterable[Event]) -> list[str]:
    """Return who has come, and who is gone, as in ``+ann``. There are to be no other events."""
    return [SIGNS[str(event.event)] + json.loads(event.data)["identity"] for event in events]
