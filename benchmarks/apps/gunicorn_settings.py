"""How the benchmarks run gunicorn, for every application alike."""

import os

bind = f"127.0.0.1:{os.environ['BENCH_PORT']}"
workers = int(os.environ.get("BENCH_WORKERS", "1"))
worker_class = os.environ.get("BENCH_WORKER_CLASS", "gevent")
threads = 4 if worker_class == "gthread" else 1  # gunicorn takes gthread in place of sync where there are more
worker_connections = 25_000
backlog = 4096
keepalive = 5
timeout = 300  # a loop over thousands of clients is no reason to kill a worker
accesslog = None
control_socket_disable = True
