"""Judge what clients can do with a stream: resume it, read it from another site, and open many of them."""

from __future__ import annotations

import re

from ...writers.handoff import advice
from .answer import Answer
from .connection import printable
from .findings import Finding, Findings, Level, read_server_report, read_writer_report
from .target import Target


def judge_replay(first: Answer, back: Answer) -> Findings:
    """Judge whether clients that reconnect can tell what they have missed.

    :param back: the answer to a Last-Event-ID that was never sent.
    """
    report = read_server_report(back)
    has_ids = any(re.search(rb"(?m)^id:", answer.body) for answer in (first, back))
    if back.error is not None or back.status != 200:
        why = printable(str(back.error)) if back.error else f"{back.status} {printable(back.reason)}"
        yield Finding("replay", "note", f"Another stream, with a Last-Event-ID, could not be opened: {why}")
    elif re.search(rb"(?m)^event: ?gap\r?$", back.body):
        yield Finding("replay", "ok", "An unknown Last-Event-ID is answered with a gap event.")
    elif report is not None and not report.had_last_event_id:
        fix = "Something on the way drops the header. nginx: proxy_pass_request_headers on; A CDN: forward it."
        yield Finding("last-event-id", "fault", "The header Last-Event-ID did not reach the server.", fix)
    elif has_ids:
        level: Level = "note" if report is None else "fault"
        seen = "Events have ids, but an unknown Last-Event-ID was not answered with a gap event."
        yield Finding(
            "replay", level, seen, "This check cannot tell whether reconnecting clients get what they missed."
        )
    elif report is None:
        seen = "No event with an id arrived, so there was nothing to resume from."
        yield Finding("replay", "note", seen)
    else:
        fix = (
            "Clients that are cut off miss what is sent meanwhile. Publish to a channel (sse.publish) instead of a "
            "list; or say --no-replay, if only the newest event matters."
        )
        yield Finding("replay", "fault", "The stream's events have no ids: it has no replay.", fix)


def judge_origin(origin: str, answer: Answer, *, with_cookies: bool) -> Findings:
    """Judge whether a page of this origin may read the stream."""
    allowed = answer.values("Access-Control-Allow-Origin")
    listed = f'SSE_CORS_ORIGINS = ["{origin}"]'
    if answer.error is not None:
        yield Finding(
            "cors", "note", f"A stream for a page of {origin} could not be opened: {printable(str(answer.error))}"
        )
    elif answer.status != 200:
        seen = f"A page of {origin} gets {answer.status} {printable(answer.reason)}."
        yield Finding("cors", "fault", seen, f"Allow it: {listed}; and let no proxy answer instead of the app.")
    elif len(allowed) > 1 or "," in "".join(allowed):
        seen = f"Access-Control-Allow-Origin is sent twice: {printable(', '.join(allowed))}."
        yield Finding("cors", "fault", seen, "Browsers reject that: let either the app or the proxy send it, not both.")
    elif not allowed or allowed[0] not in ("*", origin):
        seen = f"Access-Control-Allow-Origin is {printable(allowed[0]) if allowed else 'missing'}."
        yield Finding("cors", "fault", seen, f"A page of {origin} may not read the stream: {listed}")
    elif with_cookies and (allowed[0] == "*" or answer.value("Access-Control-Allow-Credentials") != "true"):
        seen = f"A page of {origin} may read the stream, but not with cookies."
        yield Finding("cors", "fault", seen, f"List the origin by itself: {listed}")
    else:
        yield Finding("cors", "ok", f"A page of {origin} may read the stream.")


def judge_preflight(origin: str, answer: Answer, asked: list[str]) -> Findings:
    """Judge the answer to a browser's preflight.

    :param asked: the headers that a page would send.
    """
    allowed = {each.strip().lower() for each in answer.value("Access-Control-Allow-Headers").split(",")}
    refused = [name for name in asked if name.lower() not in allowed]
    allowed_origin = answer.value("Access-Control-Allow-Origin")
    if answer.error is None and 200 <= answer.status < 300 and allowed_origin in ("*", origin) and not refused:
        yield Finding("preflight", "ok", f"The page may send {', '.join(asked)}.")
        return
    got = printable(str(answer.error)) if answer.error else f"{answer.status} {printable(answer.reason)}"
    lacking = f"; Access-Control-Allow-Headers lacks {', '.join(refused)}" if refused else ""
    fix = (
        "For a page that sends these headers, the browser first asks with OPTIONS, without them: let the app answer "
        "that. The package allows Authorization, Cache-Control, Content-Type, Last-Event-ID and X-Requested-With."
    )
    yield Finding("preflight", "fault", f"A browser that asks whether it may send them gets {got}{lacking}.", fix)


def judge_writer(answer: Answer) -> Findings:
    """Judge how many streams the server can hold, by who writes them; nothing where it does not say so."""
    report = read_writer_report(answer)
    if report is None:
        return
    if report.by == "handoff":
        seen = f"It is handed off: it holds neither a thread nor a greenlet of the server ({report.server})."
        yield Finding("writer", "ok", seen)
        return
    threads = f", {report.threads} threads" if report.threads else ""
    seen = f"A {report.by} of the server ({report.server}{threads}) writes it, as long as it is open: {report.why}."
    most = f"{report.threads} streams take all threads, and other requests then wait. " if report.threads else ""
    if report.by == "greenlet":
        most = "gunicorn's --worker-connections limits their number, 1000 by default. "
    yield Finding("writer", "note", seen, f"{most}{advice(report.why)}".strip())


def judge_http2(target: Target, speaks: bool | None) -> Findings:
    """Judge whether streams share one connection.

    :param speaks: whether the server accepts HTTP/2; None where that is not known.
    """
    six = (
        "Over HTTP/1.1 browsers open six connections to an origin, for all tabs: a seventh stream waits for one of "
        "them to end, and so does every other request."
    )
    if not target.is_tls:
        yield Finding(
            "http2", "note", "Not over TLS, and so over HTTP/1.1.", f"{six} HTTP/2 needs https:// in browsers."
        )
    elif speaks is None:
        yield Finding("http2", "note", "Whether the server speaks HTTP/2 could not be found out.")
    elif speaks:
        yield Finding("http2", "ok", "Over HTTP/2: any number of streams shares one connection.")
    else:
        fix = f"{six} nginx: listen 443 ssl http2; (from 1.25.1 on: http2 on;)"
        yield Finding("http2", "note", "The server does not speak HTTP/2.", fix)
