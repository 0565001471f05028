"""How gunicorn serves the example: it finds this file by itself."""

import os
from typing import Any

bind = f"127.0.0.1:{os.environ.get('PORT') or 8080}"

# One process: a list of emitters reaches the clients of its own process only.
workers = 1
worker_class = "gevent"
worker_connections = 10_000

# A stream never finishes by itself, and a worker that stops would wait for it for 30 seconds.
graceful_timeout = 5
keepalive = 5

accesslog = None
control_socket_disable = True  # known since gunicorn 25.1; older ones pass over it


def when_ready(server: Any) -> None:
    for listener in server.LISTENERS:
        print(f"flask_sse_emitters example: {listener}/", flush=True)  # noqa: T201
