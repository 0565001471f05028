"""Judge when the pieces of a stream arrived."""

from __future__ import annotations

from .answer import Answer
from .connection import printable
from .findings import Finding, Findings, read_server_report

#: Seconds in which the first byte must arrive.
FIRST_BYTE_SECONDS = 2.0

#: At how many different times the comments that a server writes one by one must arrive, at least.
MIN_MOMENTS = 4

#: How many seconds late a heartbeat may be.
SLACK_SECONDS = 5.0

_UNBUFFER = (
    "A proxy, or a middleware, collects the stream before it passes it on. nginx: proxy_buffering off; in the stream's "
    "location, and no proxy_ignore_headers X-Accel-Buffering. Apache: flushpackets=on. A CDN: no caching, nor "
    "rewriting, of this path."
)


def judge_body(answer: Answer, others: list[Answer]) -> Findings:
    """Judge whether bytes arrive when they are written.

    :param others: further streams, which also show whether the first byte arrives in time.
    """
    if answer.is_over:
        seen = f"The stream ended for good after {answer.ended:.1f} s, as its channel has, or the view was done."
        fix = (
            "A client that comes back is answered 204, and stays away. Buffering, silence and replay were not checked: "
            "check a stream that goes on."
        )
        yield Finding("over", "note", seen, fix)
        yield _judge_first_byte([answer, *others])
        return
    if answer.end in ("clean", "closed") and answer.ended < FIRST_BYTE_SECONDS:
        seen = f"The stream ended by itself {answer.ended:.1f} s after the request."
        fix = (
            "A limit on streams was reached (SSE_MAX_CLIENTS, or one for each identity or address, perhaps by the few "
            "streams of this check), the worker stops, or the view ends its emitter. The app's log says which."
        )
        yield Finding("ended", "fault", seen, fix)
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
    if first is not None and first <= FIRST_BYTE_SECONDS:
        return Finding("first-byte", "ok", f"The first byte came after {first:.2f} s.")
    seen = f"No byte came within {FIRST_BYTE_SECONDS:g} s" + (
        f"; the first after {first:.1f} s." if first else ", nor later."
    )
    fix = (
        "Either the server sends nothing at first (this package sends a comment at once), or all of its threads are "
        "busy, or a proxy buffers the response: see buffered."
    )
    return Finding("no-byte", "fault", seen, fix)


def _judge_buffering(answer: Answer) -> Findings:
    report = read_server_report(answer)
    if report is None:
        lumps = [index for index, piece in enumerate(answer.pieces) if _is_lump(answer, index, piece.data)]
        if len(lumps) > 1:
            seen = f"Bytes come in lumps: {len(lumps)} times several events at once, after seconds without any."
            yield Finding("buffered", "fault", seen, _UNBUFFER)
        return
    if not report.comments:
        yield Finding(
            "buffered", "note", "Others are checking this process now, so buffering was not checked: try again."
        )
        return
    moments = answer.moments()
    period = report.comments * report.every
    if len(moments) >= MIN_MOMENTS:
        seen = f"What the server wrote over {period:g} s came at {len(moments)} times, none held back."
        yield Finding("buffered", "ok", seen)
    elif moments:
        came = "at once" if len(moments) == 1 else f"at {len(moments)} times"
        seen = (
            f"{report.comments} comments, written one by one over {period:g} s, came {came}, after {moments[-1]:.1f} s."
        )
        yield Finding("buffered", "fault", seen, _UNBUFFER)
    else:
        seen = f"Of {report.comments} comments, written over {period:g} s, nothing came in {answer.ended:.1f} s."
        yield Finding("buffered", "fault", seen, _UNBUFFER)


def _is_lump(answer: Answer, index: int, data: bytes) -> bool:
    return index > 0 and answer.quiet_before(index) >= 1 and data.count(b"\n\n") >= 3


def judge_silence(quiet: Answer) -> Findings:
    """Judge whether a silent stream stays open until its heartbeat.

    :param quiet: a stream on which nothing but heartbeats is written, as far as this check knows.
    """
    report = read_server_report(quiet)
    beat = report.heartbeat if report is not None else 0.0
    last = len(quiet.pieces)
    silence = quiet.quiet_before(last)
    if quiet.error is not None or quiet.status != 200:
        why = printable(str(quiet.error)) if quiet.error else f"{quiet.status} {printable(quiet.reason)}"
        yield Finding("read-timeout", "note", f"A second stream, to be left silent, could not be opened: {why}")
    elif quiet.is_over:
        seen = f"The silent stream ended for good after {quiet.ended:.1f} s: no longer silence could be seen."
        yield Finding("read-timeout", "note", seen)
    elif quiet.end in ("cut", "closed"):
        every = f", while the server writes a heartbeat every {beat:g} s" if beat else ""
        below = f"below {silence:.0f}" if silence >= 2 else "lower"
        fix = (
            f"A proxy's read timeout is shorter than the silence. nginx: proxy_read_timeout {max(60, 4 * beat):.0f}s; "
            f"in the stream's location. Or set SSE_HEARTBEAT {below}."
        )
        yield Finding("read-timeout", "fault", f"The stream was cut after {silence:.1f} s without a byte{every}.", fix)
    elif quiet.end == "clean":
        fix = "Its lifetime was over (SSE_TIMEOUT), a limit on streams was reached, or the worker stopped."
        yield Finding("read-timeout", "note", f"The silent stream ended, in order, after {quiet.ended:.1f} s.", fix)
    elif quiet.end == "enough" and last:
        seen = f"After {quiet.quiet_before(last - 1):.1f} s of silence the stream was open, and a heartbeat came."
        yield Finding("read-timeout", "ok", seen)
    elif report is not None and not beat:
        fix = "Behind a proxy set SSE_HEARTBEAT to less than its read timeout; nginx's is 60 s."
        yield Finding("heartbeat", "note", f"There are no heartbeats; open after {silence:.1f} s of silence.", fix)
    elif beat and silence > beat + SLACK_SECONDS / 2:
        seen = f"No heartbeat came in {silence:.1f} s, though the server writes one every {beat:g} s."
        yield Finding("heartbeat", "fault", seen, "Something on the way holds back small pieces: see buffered.")
    else:
        seen = f"The stream was open after {quiet.ended:.1f} s, {silence:.1f} s of them silent."
        yield Finding("read-timeout", "note", seen, f"Its heartbeat is every {beat:g} s." if beat else "")
