"""Writes all that httpx-sse tells of a stream, until it says the end."""

import json
import sys

import httpx
from httpx_sse import connect_sse

with httpx.Client(timeout=60) as client, connect_sse(client, "GET", sys.argv[1]) as source:
    for sse in source.iter_sse():
        print(json.dumps([sse.event, sse.id, sse.data]))  # noqa: T201
        if (sse.event, sse.data) == ("mark", "end"):
            break
