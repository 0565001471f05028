"""Servers other than gunicorn: ``LISTENER=3 python -m tests.support.web.other_servers KIND module:app``."""

from __future__ import annotations

import logging
import os
import socket
import sys
from importlib import import_module
from typing import Any

LISTENER = int(os.environ["LISTENER"])

#: Of servers that have a number of threads.
THREADS = int(os.environ.get("THREADS", "8"))


def werkzeug(app: Any, *, threaded: bool = True) -> None:
    """Serve as ``flask run`` does."""
    from werkzeug.serving import make_server

    make_server("127.0.0.1", 0, app, threaded=threaded, fd=LISTENER).serve_forever()


def waitress(app: Any) -> None:
    from waitress import serve

    serve(app, sockets=[socket.socket(fileno=LISTENER)], threads=THREADS)


def uwsgi(site: str) -> None:
    import pyuwsgi

    options = f"--socket fd://{LISTENER} --protocol http --master --need-app --module {site} --buffer-size 16384"
    pyuwsgi.run([*options.split(), *(["--enable-threads", "--threads", str(THREADS)] if THREADS > 1 else [])])


def uvicorn(app: Any) -> None:
    from uvicorn import run

    run(app, fd=LISTENER, log_level="warning")


def a2wsgi(app: Any) -> None:
    """Serve by an ASGI server, through a bridge."""
    from a2wsgi import WSGIMiddleware

    uvicorn(WSGIMiddleware(app, workers=THREADS))


def asgiref(app: Any) -> None:
    """Serve by an ASGI server, through a bridge that handles one request at a time."""
    from asgiref.wsgi import WsgiToAsgi

    uvicorn(WsgiToAsgi(app))  # type: ignore[no-untyped-call]


def main(kind: str, site: str) -> None:
    if kind == "uwsgi":  # it imports the app itself
        uwsgi(site)
    module, _, name = site.partition(":")
    app = getattr(import_module(module), name)
    match kind:
        case "werkzeug":
            werkzeug(app)
        case "werkzeug_unthreaded":
            werkzeug(app, threaded=False)
        case "waitress":
            waitress(app)
        case "a2wsgi":
            a2wsgi(app)
        case "asgiref":
            asgiref(app)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*sys.argv[1:])
