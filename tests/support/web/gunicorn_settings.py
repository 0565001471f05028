"""Settings of gunicorn in tests."""

import os

bind = f"fd://{os.environ['LISTENER']}"
workers = 1
worker_connections = 5000
graceful_timeout = 1
keepalive = 5
control_socket_disable = True
