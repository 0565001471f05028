"""What other code may want to know of: signals, as Flask has them, with the app as their sender.

::

    from flask_sse_emitters.signals import emitter_closed

    @emitter_closed.connect_via(app)
    def note(app, emitter, reason, error): ...

Without anybody who is connected they cost nothing. What a receiver raises is logged, and stops nothing else.
"""

from __future__ import annotations

import logging
from typing import Any

from blinker import NamedSignal, Namespace

__all__ = ["broker_changed", "emitter_closed", "emitter_opened", "event_published", "gap_sent"]

log = logging.getLogger("flask_sse_emitters.signals")

_signals = Namespace()

#: A stream has begun: ``emitter``. In its request, so a receiver must not block for long.
emitter_opened = _signals.signal("emitter-opened")

#: A stream is over, and its client let go: ``emitter``, ``reason`` (a :class:`.CloseReason`), ``error`` (or None).
#: In the background, with the app's context pushed; it may block.
emitter_closed = _signals.signal("emitter-closed")

#: An event was published by this process, and the broker has it: ``channel``, ``id``, ``event`` (its name;
#: None where it has no data), ``size`` (bytes as they are written), ``seconds`` (how long that took). On the thread
#: that published.
event_published = _signals.signal("event-published")

#: A client was told that it has missed what is no longer to be had: ``emitter``, ``requested`` (the id that it came
#: with). In the background, with the app's context pushed.
gap_sent = _signals.signal("gap-sent")

#: The broker cannot be reached, or can again: ``state`` (``"degraded"`` or ``"ok"``), ``error`` (or None). In the
#: background, with the app's context pushed.
broker_changed = _signals.signal("broker-changed")


def tell(signal: NamedSignal, app: Any, **said: Any) -> None:
    """Call whoever is connected, here and now, with no lock held."""
    if not signal.receivers or signal.is_muted:
        return
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **said)
        except Exception:
            log.exception("an error in %r, which is connected to %s", receiver, signal.name)
