"""How gunicorn serves the example: it finds this file by itself."""

import os
from typing import Any

# They end the streams of a worker that stops: what is pending is written, and browsers come back to the next worker.
from flask_sse_emitters.gunicorn import post_worker_init, worker_int  # noqa: F401

bind = f"127.0.0.1:{os.environ.get('PORT') or 8080}"

# One process: a list of emitters reaches the clients of its own only, and so does a channel of memory://.
workers = 1
worker_class = "gevent"
worker_connections = 10_000

# Streams of a worker that stops have SSE_DRAIN_SECONDS (5) to end, and their last callbacks 2 more: gunicorn must not
# kill it before.
graceful_timeout = 10

# A worker that stops still answers once on each connection that was kept open: not for longer than its streams go on,
# or what is posted there would reach nobody.
keepalive = 1

accesslog = None
control_socket_disable = True  # known since gunicorn 25.1; older ones pass over it


def when_ready(server: Any) -> None:
    for listener in server.LISTENERS:
        print(f"flask_sse_emitters example: {listener}/", flush=True)  # noqa: T201
