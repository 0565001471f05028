"""What the status and the headers of an answer show."""

from __future__ import annotations

import re

from .connection import plain
from .findings import Finding, Findings, said
from .wire import Answer

_REFUSED = {
    204: "An EventSource never comes back after it: answer with a stream, also where there is nothing to send.",
    400: "The address is not one of a stream: /events?channel=NAME, say.",
    401: "Send what a reader sends: --header 'Authorization: Bearer ...', or --header 'Cookie: session=...'. In a "
    "browser, EventSource sends cookies and no other header.",
    403: "Whoever asks may not read this: send what a reader sends (--header 'Cookie: session=...'); a channel is "
    'closed until sse.channel("...", public=True) or @sse.authorizer opens it. The app\'s log says why, at DEBUG.',
    404: "There is no stream at this address: mind the blueprint's url_prefix, and the path of the proxy's location.",
    405: "A stream is asked for with GET: allow that.",
    429: "A limit on requests counts streams as well: leave them out, or let SSE_MAX_CLIENTS_PER_ADDRESS see to it.",
    500: "The view, or the server, failed: see the app's log. gunicorn's sync worker cannot hold streams: use gevent.",
    502: "The proxy does not reach the app: does gunicorn run, and at the address that the proxy has?",
    503: "The proxy, or a limit in it, refused. An EventSource never comes back after it.",
    504: "The app did not answer the proxy in time: is every thread of its workers busy with a stream?",
}


def judge_status(answer: Answer) -> Findings:
    """What a browser asks of an answer before it is a stream: WHATWG HTML, section 9.2.3."""
    sent = answer.value("Content-Type")
    if answer.status != 200:
        body = plain(answer.body.decode("utf-8", "replace")) if "text/plain" in sent.lower() else ""
        seen = f"The answer is {answer.status} {plain(answer.reason)}" + (f": {body}" if body else ".")
        mend = _REFUSED.get(answer.status, "Only a 200 is a stream to browsers; after any other they never come back.")
        yield Finding("status", "fault", seen, mend)
    elif sent.partition(";")[0].strip().lower() != "text/event-stream":
        mend = (
            "A stream has the Content-Type text/event-stream: return the emitter itself from the view. A page in its "
            "place is one that asks for a login, or what the proxy serves where it finds nothing else."
        )
        yield Finding("content-type", "fault", f"The Content-Type is {plain(sent) or 'missing'}.", mend)
    else:
        yield Finding("status", "ok", f"200, {plain(sent)}")


def judge_encoding(answer: Answer) -> Findings:
    encoding = answer.value("Content-Encoding")
    if encoding.strip().lower() in ("", "identity"):
        yield Finding("compressed", "ok", "Not compressed.")
        return
    mend = (
        "A compressor holds back what it gets until it has enough. nginx: gzip off; in the stream's location, or take "
        "text/event-stream out of gzip_types. In the app: leave text/event-stream out of the compressed types."
    )
    yield Finding("compressed", "fault", f"The answer has Content-Encoding: {plain(encoding)}.", mend)


def judge_caching(answers: list[tuple[str, Answer]]) -> Findings:
    """
    :param answers: each with the nonce that was sent for it.
    """
    mend = "Keep the cache off this path. nginx: proxy_cache off; in the stream's location. A CDN: bypass the cache."
    for nonce, answer in answers:
        if seen := _cached(nonce, answer):
            yield Finding("cached", "fault", seen, mend)
            return
    control = answers[0][1].value("Cache-Control").lower()
    if re.search(r"\bpublic\b|max-age=0*[1-9]", control):
        seen = f"The answer may be cached: Cache-Control: {plain(control)}."
        yield Finding(
            "cached", "fault", seen, "Send Cache-Control: no-cache, as this package does; a proxy replaced it."
        )
    elif "no-cache" in control or "no-store" in control:
        yield Finding("cached", "ok", "Not from a cache.")
    else:
        seen = "Not from a cache, but nothing says that it must not be."
        yield Finding("cached", "note", seen, "Send Cache-Control: no-cache.")


def _cached(nonce: str, answer: Answer) -> str:
    told = said(answer)
    if told is not None and told.nonce != nonce:
        return "The answer is one that somebody else was given before: a cache gave it."
    age = answer.value("Age").strip()
    if age.isdigit() and int(age):
        return f"The answer comes from a cache: Age: {age}."
    for name in ("X-Cache", "X-Cache-Status", "X-Proxy-Cache", "CF-Cache-Status", "X-Varnish-Cache"):
        if re.search(r"\bhit\b", answer.value(name), re.IGNORECASE):
            return f"The answer comes from a cache: {name}: {plain(answer.value(name))}."
    return ""


def judge_way(answer: Answer) -> Findings:
    """How the proxy speaks to the worker, which only the worker knows."""
    told = said(answer)
    if told is None:
        seen = (
            "The server does not answer Sse-Check: it is none of this package, or an older one, or a proxy drops that."
        )
        yield Finding("server", "note", seen, "What only the server can see was not looked at.")
        return
    if told.protocol == "HTTP/1.0":
        with_close = ", with Connection: close" if told.connection == "close" else ""
        mend = (
            "Without chunks nobody can tell a stream that was cut from one that ended, and each request costs a new "
            'connection. nginx: proxy_http_version 1.1; and proxy_set_header Connection "";'
        )
        yield Finding("http-1.0", "fault", f"The proxy speaks HTTP/1.0 to the worker{with_close}.", mend)
    elif told.connection == "close":
        mend = (
            'Each request costs a new connection. nginx: proxy_set_header Connection ""; (and keepalive 32; upstream)'
        )
        yield Finding("connection-close", "fault", "The proxy sends Connection: close to the worker.", mend)
    else:
        yield Finding("http-1.0", "ok", f"The worker is spoken to in {told.protocol}, on connections that are kept.")
