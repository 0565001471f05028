"""Settings of gunicorn in a container; it finds this file by itself."""

import logging
import os

from flask_sse_emitters.gunicorn import post_worker_init, worker_int  # noqa: F401

logging.basicConfig(
    level=logging.INFO,
    format="%(asctime)s [%(process)d] [%(levelname)s] %(name)s: %(message)s",
    datefmt="[%Y-%m-%d %H:%M:%S %z]",
)

bind = os.environ.get("BIND", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "gevent"
worker_connections = 10_000
worker_tmp_dir = "/dev/shm"  # noqa: S108 - the root file system may be read-only, and a disk may hang
control_socket_disable = True
graceful_timeout = 15  # above SSE_DRAIN_SECONDS (5) plus 2; the containers' grace periods are above this
keepalive = 1
