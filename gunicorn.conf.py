"""Settings of gunicorn for the example; gunicorn finds this file by itself."""

import logging
import os
from multiprocessing import cpu_count
from typing import Any

# With these the streams of a worker that stops move to the next one, or end: pending events are written, and browsers
# reconnect.
from flask_sse_emitters.gunicorn import post_worker_init, worker_int  # noqa: F401

# Log the app and its packages in the format of gunicorn's own lines. Without this, Python shows only warnings, without
# a time, a level or a name.
logging.basicConfig(
    level=logging.INFO,
    format="%(asctime)s [%(process)d] [%(levelname)s] %(name)s: %(message)s",
    datefmt="[%Y-%m-%d %H:%M:%S %z]",
)

bind = f"127.0.0.1:{os.environ.get('PORT') or 8080}"

# A list of emitters reaches only the clients of its own process, and so does a channel on memory://. With a shared
# broker, channels reach the clients of all processes.
if (os.environ.get("SSE_BROKER_URL") or "memory://").startswith("memory:"):
    workers = 1
else:
    workers = int(os.environ.get("WEB_CONCURRENCY") or 2 * cpu_count())
worker_class = "gevent"
worker_connections = 10_000

# When a worker stops, an answer that is being written has so long, less 2, to come to its end. Other streams have
# SSE_DRAIN_SECONDS (5), and their last callbacks 2 more: gunicorn must not kill the worker earlier. The rest is the
# time in which a new worker has to be ready, so that streams move to it.
graceful_timeout = 30

# A worker that stops still answers one request on each kept-alive connection. That must not take longer than its
# streams last, or an event posted there would reach no client.
keepalive = 1

accesslog = None
control_socket_disable = True  # since gunicorn 25.1; older versions ignore it


def when_ready(server: Any) -> None:
    for listener in server.LISTENERS:
        print(f"flask_sse_emitters example: {listener}/", flush=True)  # noqa: T201
