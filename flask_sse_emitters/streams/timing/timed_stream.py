"""What a stream does when one of its deadlines is due."""

from __future__ import annotations

from ...errors import CloseReason, SseError
from ..ends import ClientSees
from ..machine import Machine
from ..outgoing import IDLE, WRITING
from .deadlines import Due

HEARTBEAT = b":\n\n"


class TimedStream(Machine):
    """A stream whose timer has been given something to do: see :class:`.Deadlines`."""

    __slots__ = ()

    def sees_end_for_now(self) -> ClientSees:
        """Return what its client sees of an end that is none for good: a broken connection where it has only a part.

        So do clients that ask for it, with ``end="cut"``: those that come back after such an end only.
        """
        is_part = "end" not in self.settings.own and (self.settings.bare or self.producer is not None)
        return "break" if is_part or self.settings.end == "cut" else "end"

    def let_finish(self) -> None:
        """Have a worker that stops let it come to its end, unless its view has said otherwise."""
        with self.lock:
            own = {"drain": "finish", **self.settings.own}
            self.settings = self.deadlines.settings = self.settings.with_own(own)

    def next_deadline(self) -> float | None:
        """Return when the next deadline may be due, by the scheduler's clock. Under the lock."""
        is_writing = self.outgoing.state is WRITING
        if self.takes_events:
            return self.deadlines.nearest(is_writing, ended=False)
        if self.outgoing.writer is not None and self.client_sees in ("end", "break"):
            return self.deadlines.nearest(is_writing, ended=True)
        return None

    def on_timer(self) -> None:
        """Do what is due. Only the scheduler calls this."""
        now, outgoing, deadlines = self.scheduler.clock(), self.outgoing, self.deadlines
        writer, unsent, acknowledged = outgoing.writer, None, None
        if writer is not None and (outgoing.state is WRITING or deadlines.is_look_due(now)):
            # In this order: what is acknowledged between the two looks like a client that is there.
            acknowledged, unsent = writer.acknowledged(), writer.unsent()
        direct = sleeper = None
        with self.lock:
            fired, deadlines.timer = deadlines.timer, None
            deadlines.written = max(deadlines.written, *(member.written_at for member in outgoing.members), 0.0)
            is_writing = outgoing.state is WRITING
            due = deadlines.due(now, is_writing, unsent, acknowledged, not self.takes_events)
            if due == "heartbeat" and outgoing.state is IDLE:  # a busy one writes something better
                deadlines.written = now
                direct = outgoing.direct
                sleeper = outgoing.wake(WRITING) if direct is None else None
        if direct is not None:
            direct.beat(HEARTBEAT)
        elif sleeper is not None:
            sleeper.wake_with(HEARTBEAT)
        if direct is not None or sleeper is not None:
            self.count(0, len(HEARTBEAT))
        if due is None or due == "heartbeat":
            deadlines.set_timer(self, fired)
        else:
            self._end_as(due)

    def _end_as(self, due: Due) -> None:
        settings = self.settings
        if due == "attach":
            within = f"SSE_ATTACH_SECONDS={settings.attach_seconds:g}"
            self.end(CloseReason.ERROR, SseError(f"its stream did not begin within {within}: did a view return it?"))
        elif due == "write":
            within = f"SSE_WRITE_SECONDS={settings.write_seconds:g}"
            self.end(CloseReason.DISCONNECTED, TimeoutError(f"the client took nothing for {within}"))
        else:
            self.end(CloseReason.TIMEOUT, sees=self.sees_end_for_now())
