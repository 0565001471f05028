"""What it shows when the pieces of a stream came."""

from __future__ import annotations

from .connection import plain
from .findings import Finding, Findings, said
from .wire import Answer

#: Seconds in which the first byte is to be there.
FIRST_BYTE = 2.0

#: Comments that are written one by one are to come at so many times at least.
MOMENTS = 4

#: A heartbeat may be so many seconds late.
SLACK = 5.0

_UNBUFFER = (
    "A proxy, or a middleware, collects the stream before it passes it on. nginx: proxy_buffering off; in the stream's "
    "location, and no proxy_ignore_headers X-Accel-Buffering. Apache: flushpackets=on. A CDN: no caching, nor "
    "rewriting, of this path."
)


def judge_body(answer: Answer, others: list[Answer]) -> Findings:
    """Whether bytes come when they are written."""
    if answer.end in ("clean", "closed") and answer.ended < FIRST_BYTE:
        seen = f"The stream ended by itself {answer.ended:.1f} s after the request."
        mend = (
            "A limit on streams was reached (SSE_MAX_CLIENTS, or one of those for each identity or address, also with "
            "the few of this check), the worker stops, or the view ends its emitter. The app's log says which."
        )
        yield Finding("ended", "fault", seen, mend)
        return
    if answer.end == "cut":
        seen = f"The connection was cut {answer.ended:.1f} s after the request."
        yield Finding("cut", "fault", seen, "The proxy's or the app's log says why, at this time.")
        return
    buffered = list(_judge_buffering(answer))
    yield from buffered
    if not any(finding.level == "fault" for finding in buffered):
        yield _judge_first_byte([answer, *others])


def _judge_first_byte(answers: list[Answer]) -> Finding:
    first = min((answer.first_at for answer in answers if answer.first_at is not None), default=None)
    if first is not None and first <= FIRST_BYTE:
        return Finding("first-byte", "ok", f"The first byte came after {first:.2f} s.")
    seen = f"No byte came within {FIRST_BYTE:g} s" + (f"; the first after {first:.1f} s." if first else ", nor later.")
    mend = (
        "Either the server sends nothing at first (this package sends a comment at once), or all of its threads are "
        "busy, or a proxy holds back what it gets: see buffered."
    )
    return Finding("no-byte", "fault", seen, mend)


def _judge_buffering(answer: Answer) -> Findings:
    told = said(answer)
    if told is None:
        lumps = [index for index, piece in enumerate(answer.pieces) if _is_lump(answer, index, piece.data)]
        if len(lumps) > 1:
            seen = f"Bytes come in lumps: {len(lumps)} times several events at once, after seconds without any."
            yield Finding("buffered", "fault", seen, _UNBUFFER)
        return
    if not told.comments:
        yield Finding("buffered", "note", "Others are checking this process now: buffering was not looked at. Again?")
        return
    moments = answer.moments()
    period = told.comments * told.every
    if len(moments) >= MOMENTS:
        seen = f"What the server wrote over {period:g} s came at {len(moments)} times, none held back."
        yield Finding("buffered", "ok", seen)
    elif moments:
        came = "at once" if len(moments) == 1 else f"at {len(moments)} times"
        seen = (
            f"{told.comments} comments, written one by one over {period:g} s, came {came}, after {moments[-1]:.1f} s."
        )
        yield Finding("buffered", "fault", seen, _UNBUFFER)
    else:
        seen = f"Of {told.comments} comments, written over {period:g} s, nothing came in {answer.ended:.1f} s."
        yield Finding("buffered", "fault", seen, _UNBUFFER)


def _is_lump(answer: Answer, index: int, data: bytes) -> bool:
    return index > 0 and answer.quiet_before(index) >= 1 and data.count(b"\n\n") >= 3


def judge_silence(quiet: Answer) -> Findings:
    """
    :param quiet: on which nothing is written but what is written anyway.
    """
    told = said(quiet)
    beat = told.heartbeat if told is not None else 0.0
    last = len(quiet.pieces)
    silence = quiet.quiet_before(last)
    if quiet.error is not None or quiet.status != 200:
        why = plain(str(quiet.error)) if quiet.error else f"{quiet.status} {plain(quiet.reason)}"
        yield Finding("read-timeout", "note", f"A second stream, to be left silent, was not to be had: {why}")
    elif quiet.end in ("cut", "closed"):
        every = f", while the server writes a heartbeat every {beat:g} s" if beat else ""
        below = f"below {silence:.0f}" if silence >= 2 else "lower"
        mend = (
            f"A proxy's read timeout is shorter than the silence. nginx: proxy_read_timeout {max(60, 4 * beat):.0f}s; "
            f"in the stream's location. Or set SSE_HEARTBEAT {below}."
        )
        yield Finding("read-timeout", "fault", f"The stream was cut after {silence:.1f} s without a byte{every}.", mend)
    elif quiet.end == "clean":
        mend = "Its lifetime was over (SSE_TIMEOUT), a limit on streams was reached, or the worker stopped."
        yield Finding("read-timeout", "note", f"The silent stream ended, in order, after {quiet.ended:.1f} s.", mend)
    elif quiet.end == "enough" and last:
        seen = f"After {quiet.quiet_before(last - 1):.1f} s of silence the stream was open, and a heartbeat came."
        yield Finding("read-timeout", "ok", seen)
    elif told is not None and not beat:
        mend = "Behind a proxy set SSE_HEARTBEAT to less than its read timeout; nginx's is 60 s."
        yield Finding("heartbeat", "note", f"There are no heartbeats; open after {silence:.1f} s of silence.", mend)
    elif beat and silence > beat + SLACK / 2:
        seen = f"No heartbeat came in {silence:.1f} s, though the server writes one every {beat:g} s."
        yield Finding("heartbeat", "fault", seen, "Something on the way keeps small pieces back: see buffered.")
    else:
        seen = f"The stream was open after {quiet.ended:.1f} s, {silence:.1f} s of them silent."
        yield Finding("read-timeout", "note", seen, f"Its heartbeat is every {beat:g} s." if beat else "")
