"""Follows the stream of the URL given with httpx-sse."""

import sys
import time
from contextlib import suppress

import httpx
from httpx_sse import connect_sse

url = sys.argv[1]
last_id, retry = "", 1000
timeout = httpx.Timeout(10, read=60)  # longer than SSE_HEARTBEAT

with httpx.Client(timeout=timeout) as client:
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with suppress(httpx.TransportError), connect_sse(client, "GET", url, headers=headers) as source:
            source.response.raise_for_status()
            for sse in source.iter_sse():
                if sse.data:  # else it was only an id, a time to wait, or a comment
                    print(sse.event, sse.id, sse.data, sep="\t", flush=True)  # noqa: T201
                last_id = sse.id or last_id
                retry = retry if sse.retry is None else sse.retry
        time.sleep(retry / 1000)
