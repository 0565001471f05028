"""What people copy by hand: a queue for each client, and a generator that waits for it.

It says something at once, as not every copy does: gunicorn sends a response head with the first bytes of the body.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

app = Flask(__name__)

clients: list[queue.Queue[str]] = []


@app.get("/events")
def events() -> Response:
    client: queue.Queue[str] = queue.Queue()
    clients.append(client)

    def stream() -> Iterator[str]:
        try:
            yield ": open\n\n"
            while True:
                yield client.get()
        finally:
            clients.remove(client)

    return Response(stream(), mimetype="text/event-stream")


@app.post("/publish")
def publish() -> ResponseReturnValue:
    message = f"data: {request.get_data(as_text=True)}\n\n"
    for client in clients:
        client.put(message)
    return "", 204
