"""How gunicorn serves the example: it finds this file by itself."""

import logging
import os
from multiprocessing import cpu_count
from typing import Any

# They end the streams of a worker that stops: what is pending is written, and browsers come back to the next worker.
from flask_sse_emitters.gunicorn import post_worker_init, worker_int  # noqa: F401

# What the app and its packages log, in the form of gunicorn's own lines: until somebody sets logging up, Python shows
# warnings alone, without time, level and name.
logging.basicConfig(
    level=logging.INFO,
    format="%(asctime)s [%(process)d] [%(levelname)s] %(name)s: %(message)s",
    datefmt="[%Y-%m-%d %H:%M:%S %z]",
)

bind = f"127.0.0.1:{os.environ.get('PORT') or 8080}"

# A list of emitters reaches the clients of its own process only, and so does a channel of memory://. With a broker that
# processes share, channels reach all of them.
if (os.environ.get("SSE_BROKER_URL") or "memory://").startswith("memory:"):
    workers = 1
else:
    workers = int(os.environ.get("WEB_CONCURRENCY") or 2 * cpu_count())
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
