"""nginx with the nchan module: one worker, and a buffer that loses nothing."""

from __future__ import annotations

import getpass
import os
import shutil
from pathlib import Path

from ..processes import Program, children
from .redis import WithRedis
from .server import Server, Subject

_MODULES = [
    Path(folder) / "ngx_nchan_module.so"
    for folder in ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")
]

_CONFIG = """\
load_module {module};
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
worker_rlimit_nofile 65536;
events {{
    worker_connections 30000;
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_body_buffer_size 1m;
    keepalive_requests 100000000;
    tcp_nodelay on;
    nchan_shared_memory_size 512m;
    {redis}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /ready {{ return 204; }}
        location = /nothing {{ return 204; }}
        location = /plain {{
            default_type text/event-stream;
            return 200 "data: x\\n\\n";
        }}
        location ~ ^/events/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            {through}
        }}
        location ~ ^/publish/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 5m;
            {through}
        }}
        location = /events {{
            nchan_subscriber eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
        location = /publish {{
            nchan_publisher;
            nchan_channel_id bench;
            nchan_message_buffer_length 20000;
            nchan_message_timeout 10m;
        }}
    }}
}}
"""


class Nchan(Subject):
    def missing(self) -> str | None:
        if missing := super().missing():
            return missing
        if not shutil.which("nginx"):
            return "not installed: nginx"
        if not any(module.exists() for module in _MODULES):
            return "not installed: the nchan module of nginx (Debian: libnginx-mod-nchan)"
        return None

    def launch(self, server: Server) -> None:
        module = next(module for module in _MODULES if module.exists())
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        config = server.folder / "nginx.conf"
        redis, through = self._through(server)
        words = {"module": module, "user": user, "folder": server.folder, "redis": redis, "through": through}
        config.write_text(_CONFIG.format(port=server.port, **words))
        server.add(Program(["nginx", "-p", str(server.folder), "-c", str(config)], server.folder))

    def _through(self, _server: Server, /) -> tuple[str, str]:
        """Where the channels are kept if not here: a block of the configuration, and a line for each location."""
        return "", ""

    def pids(self, server: Server) -> list[int]:
        """The workers: the master only watches."""
        return children(server.programs[-1].pid)


class NchanOnRedis(Nchan, WithRedis):
    """nchan that keeps its channels in Redis, as several of its servers would share them."""

    packages = ("redis",)

    def _through(self, server: Server, /) -> tuple[str, str]:
        return f"upstream redis {{ nchan_redis_server {server.broker_url}; }}", "nchan_redis_pass redis;"
