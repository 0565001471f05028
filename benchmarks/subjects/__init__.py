"""Those that are compared, from ``start`` to the end of a ``with``; all serve /events and /publish."""

from __future__ import annotations

from .bare import Bare
from .gunicorn import FlaskSse, Ours, OursInMemory, OursOnPostgresql, OursOnRedis, Recipe
from .nchan import Nchan, NchanOnRedis
from .plain_sends import PlainSends
from .server import Server, Subject
from .socketio import SocketIoOnRedis
from .sse_starlette import SseStarlette

#: In the order of the tables.
SUBJECTS: list[Subject] = [
    Bare("bare"),
    PlainSends("plain-sends"),
    Ours("ours-on", handoff="auto", most_clients=19_000),
    Ours("ours-sync", handoff="auto", most_clients=19_000, worker_class="sync"),
    Ours("ours-gthread", handoff="auto", most_clients=19_000, worker_class="gthread"),
    Ours("ours-off", handoff="off", most_clients=10_000),
    Recipe("recipe"),
    FlaskSse("flask-sse"),
    OursOnRedis("ours-redis"),
    OursOnRedis("ours-redis-sync", worker_class="sync"),
    OursOnRedis("ours-redis-gthread", worker_class="gthread"),
    OursInMemory("ours-memory"),
    OursInMemory("ours-memory-sync", worker_class="sync"),
    OursInMemory("ours-memory-gthread", worker_class="gthread"),
    OursOnPostgresql("ours-postgresql"),
    SocketIoOnRedis("socketio-redis"),
    SseStarlette("sse-starlette"),
    Nchan("nchan"),
    NchanOnRedis("nchan-redis"),
]

__all__ = ["SUBJECTS", "Server", "Subject"]
