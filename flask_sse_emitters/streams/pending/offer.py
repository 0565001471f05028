"""Giving an event to one stream, which keeps it for its client, or has it written at once."""

from __future__ import annotations

from typing import overload

from ...runtime.gevent_loop import TIME_SLICE_SECONDS
from ...wire.frame import BATCH_BYTES, Frame, count_events
from ..outgoing import AWAKE, IDLE, WRITING
from ..stream import Stream


def offer(stream: Stream, frame: Frame) -> bool:
    """Keep one more event. From any thread; never blocks.

    :return: False where the stream takes none, or has ended because this one did not fit.
    """
    return _offer(stream, frame)


def offer_in_time(stream: Stream, frame: Frame, seconds: float) -> bool:
    """Keep one more event as :func:`offer` does, once there is room. Waits for that, so long at most.

    :raises TimeoutError: where there is none by then; the event is not kept.
    """
    until = stream.scheduler.clock() + seconds
    while stream.wait_until(lambda: stream.outgoing.backlog.has_room(frame, stream.settings), until):
        kept = _offer(stream, frame, waits=True)
        if kept is not None:  # else another sender has been quicker
            return kept
    raise TimeoutError(f"the client has made no room for this event in {seconds:g} s, and it was not sent")


@overload
def _offer(stream: Stream, frame: Frame) -> bool: ...


@overload
def _offer(stream: Stream, frame: Frame, *, waits: bool) -> bool | None: ...


def _offer(stream: Stream, frame: Frame, *, waits: bool = False) -> bool | None:
    """Keep one more event, or have it written at once.

    :param waits: return None where there is no room for it.
    """
    outgoing, settings = stream.outgoing, stream.settings
    with stream.lock:
        if stream.close_reason is not None:
            return False
        if waits and not outgoing.backlog.has_room(frame, settings):
            return None
        outgoing.note_given()
        at_once = outgoing.state is IDLE and _goes_at_once(stream, frame)
        fits = at_once or outgoing.backlog.push(frame, settings)
        sleeper = outgoing.wake(WRITING if at_once else AWAKE) if fits else None
    if not fits:
        stream.overflow()
    elif sleeper is not None and at_once:
        sleeper.wake_with(frame.payload)
        stream.count(count_events((frame,)), len(frame.payload))
    elif sleeper is not None:
        sleeper.wake()
    return fits


def _goes_at_once(stream: Stream, frame: Frame) -> bool:
    """Return whether the idle writer may be given this, past the backlog, on the calling thread. Under the lock.

    Not where lists may be about to write to the client themselves; nor where something has just been written: events
    that come fast are gathered.
    """
    if stream.outgoing.members or len(frame.payload) > min(BATCH_BYTES, stream.settings.max_pending_bytes):
        return False
    if not stream.scheduler.is_writer():
        return False
    now = stream.scheduler.clock()
    at_once = now > stream.deadlines.written + TIME_SLICE_SECONDS  # else what comes next goes with it
    if at_once:
        stream.deadlines.written = now
    return at_once
