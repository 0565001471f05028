"""Signals that tell an app's code what happens to its streams. As with Flask's signals, the app is their sender.

::

    from flask_sse_emitters.signals import emitter_closed

    @emitter_closed.connect_via(app)
    def note(app, emitter, reason, error): ...

A signal without receivers costs nothing. An exception of a receiver is logged, and stops nothing else.
"""

from __future__ import annotations

import logging
from typing import Any

from blinker import Namespace

from .types import (
    BrokerChangedSignal,
    EmitterClosedSignal,
    EmitterMovedSignal,
    EmitterOpenedSignal,
    EventPublishedSignal,
    GapSentSignal,
    Signal,
)

__all__ = ["broker_changed", "emitter_closed", "emitter_moved", "emitter_opened", "event_published", "gap_sent"]

log = logging.getLogger("flask_sse_emitters.signals")

_signals = Namespace()

#: A stream has begun: ``emitter``. Sent in its request, so a receiver must not block for long.
emitter_opened: EmitterOpenedSignal = _signals.signal("emitter-opened")

#: A stream is over, and its client released: ``emitter``, ``reason`` (a :class:`.CloseReason`), ``error`` (or None).
#: Sent in the background, with the app's context pushed; a receiver may block.
emitter_closed: EmitterClosedSignal = _signals.signal("emitter-closed")

#: A stream goes on in another process, as its worker stops, and its client has noticed nothing: ``emitter``,
#: ``direction`` (``"out"`` in the process that has given it away, ``"in"`` in the one that has it now, as an emitter of
#: its own). Sent in the background, with the app's context pushed, in place of the two above.
emitter_moved: EmitterMovedSignal = _signals.signal("emitter-moved")

#: This process has published an event, and the broker has it: ``channel``, ``id``, ``event`` (its name; None where it
#: has no data), ``size`` (bytes on the wire), ``seconds`` (that publishing took). Sent on the thread that published.
event_published: EventPublishedSignal = _signals.signal("event-published")

#: A client was sent a gap, because it has missed events that are gone: ``emitter``, ``requested`` (the id that it came
#: with). Sent in the background, with the app's context pushed.
gap_sent: GapSentSignal = _signals.signal("gap-sent")

#: The broker cannot be reached, or can again: ``state`` (``"degraded"`` or ``"ok"``), ``error`` (or None). Sent in the
#: background, with the app's context pushed.
broker_changed: BrokerChangedSignal = _signals.signal("broker-changed")


def send(signal: Signal, app: Any, **values: Any) -> None:
    """Call the signal's receivers on this thread. Hold no lock: they may block."""
    if not signal.receivers or signal.is_muted:
        return
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **values)
        except Exception:
            log.exception("an error in %r, which is connected to %s", receiver, signal.name)
