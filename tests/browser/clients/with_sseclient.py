"""Follows the stream of the URL given with sseclient-py, over requests."""

import sys
import time
from contextlib import suppress

import requests
from sseclient import SSEClient

url = sys.argv[1]
last_id, retry = "", 100  # sseclient tells of an id or a time to wait only together with an event

while True:
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    with (
        suppress(requests.RequestException),
        requests.get(url, headers=headers, stream=True, timeout=(10, 60)) as response,  # longer than SSE_HEARTBEAT
    ):
        response.raise_for_status()
        for event in SSEClient(response.iter_content(None)).events():
            print(event.event, event.id or last_id, event.data, sep="\t", flush=True)  # noqa: T201
            last_id = event.id or last_id
            retry = int(event.retry or retry)
    time.sleep(retry / 1000)
