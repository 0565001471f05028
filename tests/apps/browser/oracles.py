"""An app that publishes the awkward events to a channel, and writes the awkward streams."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response, request

from tests.apps.base import make_app
from tests.apps.browser import clients as clients_app
from tests.support.awkward_events import END, EVENT_NAMES, MARK, PUBLISHED, WRITTEN, Row, mark_bytes

app, sse = make_app(
    __name__,
    SSE_CORS_ORIGINS="*",  # a page reads through the splitter, another origin
    SSE_HEARTBEAT=600,
    SSE_HISTORY=10_000,
    SSE_MAX_EVENT_BYTES=2**21,
    SSE_MAX_PENDING=10_000,
    SSE_MAX_PENDING_BYTES=2**26,
)
sse.authorizer(lambda _: True)
app.add_url_rule("/pages/<path:path>", view_func=clients_app.page)
app.add_url_rule("/packages/<path:path>", view_func=clients_app.package)


@app.get("/names")
def names() -> list[str]:
    return EVENT_NAMES


@app.get("/waiting/<channel>")
def waiting(channel: str) -> dict[str, int]:
    """Return how many clients have received everything and wait."""
    return {"clients": clients_app.count_waiting(sse, channel)}


@app.post("/publish-all/<channel>")
def publish(channel: str) -> list[list[str]]:
    """Publish everything; return the ids of each event and of its mark, empty if the event has its own."""
    ids = []
    sse.publish(channel, "begin", event=MARK)
    for number, row in enumerate(PUBLISHED):
        ids.append([_publish(channel, row), sse.publish(channel, str(number), event=MARK)])
    sse.publish(channel, END, event=MARK)
    return ids


def _publish(channel: str, row: Row) -> str:
    if not row.by_hand:
        return sse.publish(channel, row.event)
    sse.channel(channel).emitters.send(row.event)
    return ""


@app.get("/written")
def written() -> Response:
    """Write the awkward streams as one, in their own pieces or in pieces of ``size`` bytes."""
    size = request.args.get("size", 0, int)
    pieces = list(_pieces())
    if size:
        whole = b"".join(pieces)
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    return Response(
        iter(pieces), content_type="text/event-stream", headers={"Cache-Control": "no-store", **_ANY_ORIGIN}
    )


_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}


def _pieces() -> Iterator[bytes]:
    first, *others = WRITTEN
    yield from first.pieces
    yield mark_bytes(0)
    for number, block in enumerate(others, 1):
        yield from block.pieces
        yield mark_bytes(number)
    yield mark_bytes(END)
