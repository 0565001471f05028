"""Judge the status and the headers of an answer."""

from __future__ import annotations

import re

from .answer import Answer
from .connection import printable
from .findings import Finding, Findings, read_server_report

_REFUSED = {
    204: "An EventSource never comes back after it. That is right where a stream is over for good, as this package "
    "answers then; else answer with a stream, also where there is nothing to send.",
    400: "This is not the address of a stream, such as /events?channel=NAME.",
    401: "Send what a reader sends: --header 'Authorization: Bearer ...', or --header 'Cookie: session=...'. In a "
    "browser, EventSource sends cookies and no other header.",
    403: "The client may not read this: send what a reader sends (--header 'Cookie: session=...'); a channel is "
    'closed until sse.channel("...", public=True) or @sse.authorizer opens it. The app\'s log says why, at DEBUG.',
    404: "There is no stream at this address: check the blueprint's url_prefix, and the path of the proxy's location.",
    405: "A stream is requested with GET: allow that.",
    429: "A limit on requests also counts streams: exclude them, or limit them with SSE_MAX_CLIENTS_PER_ADDRESS.",
    500: "The view, or the server, failed: the app's log says why. A server that answers one request at a time refuses "
    "a stream that would block it: gunicorn's sync worker with SSE_HANDOFF off, with TLS of its own, or behind a "
    "middleware that changes the body; Werkzeug, uWSGI or an ASGI bridge with one thread.",
    502: "The proxy does not reach the app: does gunicorn run at the address that the proxy uses?",
    503: "The proxy, or a limit in it, refused. An EventSource never comes back after it.",
    504: "The app did not answer the proxy in time: is every thread of its workers busy with a stream?",
}


def judge_status(answer: Answer) -> Findings:
    """Judge whether a browser takes the answer for a stream: WHATWG HTML, section 9.2.3."""
    sent = answer.value("Content-Type")
    if answer.status == 204 and read_server_report(answer) is not None:
        fix = (
            "So an EventSource stays away. It is what a client gets that has it all, or comes when nothing is kept any "
            "more. Nothing else was checked: check a channel that goes on."
        )
        yield Finding("over", "note", "The answer is 204: the stream is over for good, and nothing is left of it.", fix)
    elif answer.status != 200:
        body = printable(answer.body.decode("utf-8", "replace")) if "text/plain" in sent.lower() else ""
        seen = f"The answer is {answer.status} {printable(answer.reason)}" + (f": {body}" if body else ".")
        fix = _REFUSED.get(answer.status, "Only a 200 is a stream to browsers; after any other they never come back.")
        yield Finding("status", "fault", seen, fix)
    elif sent.partition(";")[0].strip().lower() != "text/event-stream":
        fix = (
            "A stream has the Content-Type text/event-stream: return the emitter itself from the view. A page instead "
            "of it asks for a login, or is what the proxy serves where it finds nothing else."
        )
        yield Finding("content-type", "fault", f"The Content-Type is {printable(sent) or 'missing'}.", fix)
    else:
        yield Finding("status", "ok", f"200, {printable(sent)}")


def judge_encoding(answer: Answer) -> Findings:
    """Judge whether the stream is compressed."""
    encoding = answer.value("Content-Encoding")
    if encoding.strip().lower() in ("", "identity"):
        yield Finding("compressed", "ok", "Not compressed.")
        return
    fix = (
        "A compressor holds back data until it has enough. nginx: gzip off; in the stream's location, or remove "
        "text/event-stream from gzip_types. In the app: remove text/event-stream from the compressed types."
    )
    yield Finding("compressed", "fault", f"The answer has Content-Encoding: {printable(encoding)}.", fix)


def judge_caching(answers: list[tuple[str, Answer]]) -> Findings:
    """Judge whether a cache answers, or may store the stream.

    :param answers: each with the nonce that was sent for it.
    """
    fix = "Keep the cache off this path. nginx: proxy_cache off; in the stream's location. A CDN: bypass the cache."
    for nonce, answer in answers:
        if seen := _cached(nonce, answer):
            yield Finding("cached", "fault", seen, fix)
            return
    control = answers[0][1].value("Cache-Control").lower()
    if re.search(r"\bpublic\b|max-age=0*[1-9]", control):
        seen = f"The answer may be cached: Cache-Control: {printable(control)}."
        yield Finding(
            "cached", "fault", seen, "Send Cache-Control: no-cache, as this package does; a proxy replaced it."
        )
    elif "no-cache" in control or "no-store" in control:
        yield Finding("cached", "ok", "Not from a cache.")
    else:
        seen = "Not from a cache, but no header forbids that."
        yield Finding("cached", "note", seen, "Send Cache-Control: no-cache.")


def _cached(nonce: str, answer: Answer) -> str:
    report = read_server_report(answer)
    if report is not None and report.nonce != nonce:
        return "The answer was given to somebody else before: it comes from a cache."
    age = answer.value("Age").strip()
    if age.isdigit() and int(age):
        return f"The answer comes from a cache: Age: {age}."
    for name in ("X-Cache", "X-Cache-Status", "X-Proxy-Cache", "CF-Cache-Status", "X-Varnish-Cache"):
        if re.search(r"\bhit\b", answer.value(name), re.IGNORECASE):
            return f"The answer comes from a cache: {name}: {printable(answer.value(name))}."
    return ""


def judge_proxy(answer: Answer) -> Findings:
    """Judge how the proxy connects to the worker, which only the worker can report."""
    report = read_server_report(answer)
    if report is None:
        seen = (
            "The server does not answer Sse-Check: it does not use this package, or an older one, or a proxy drops it."
        )
        yield Finding("server", "note", seen, "What only the server can see was not checked.")
        return
    if report.protocol == "HTTP/1.0":
        with_close = ", with Connection: close" if report.connection == "close" else ""
        fix = (
            "Without chunks a client cannot tell a cut stream from one that ended, and each request costs a new "
            'connection. nginx: proxy_http_version 1.1; and proxy_set_header Connection "";'
        )
        yield Finding("http-1.0", "fault", f"The proxy speaks HTTP/1.0 to the worker{with_close}.", fix)
    elif report.connection == "close":
        fix = 'Each request costs a new connection. nginx: proxy_set_header Connection ""; (and keepalive 32; upstream)'
        yield Finding("connection-close", "fault", "The proxy sends Connection: close to the worker.", fix)
    else:
        yield Finding("http-1.0", "ok", f"The worker gets {report.protocol}, on connections that are kept open.")
