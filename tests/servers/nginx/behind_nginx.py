"""An app behind nginx."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.support.web.nginx import Nginx

CHANNEL, VIEW = "/events?channel=news", "/connect"


class App:
    """The app on gunicorn, at a socket for nginx, and for tests that control it.

    :param folder: of the socket.
    :param kind: of the server.
    """

    def __init__(self, folder: Path, kind: str = "gevent", **config: object) -> None:
        self.socket = folder / "app.sock"
        arguments = ["--bind", f"unix:{self.socket}"]
        self._server = Server(kind, "tests.apps.channels:app", env={"CONFIG": json.dumps(config)}, arguments=arguments)

    def __enter__(self) -> App:
        self._server.start()
        until(self._listens, "gunicorn to listen")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.__exit__(kind, error, tb)

    def replace_worker(self) -> None:
        """Reload gunicorn and wait until the old worker has exited."""
        old = self.reload()
        until(lambda: not psutil.pid_exists(old), "the old worker's end")

    def reload(self) -> int:
        """Tell gunicorn to replace its worker; return the old one's process id."""
        old: int = self.get("/stats")["pid"]
        self._server.signal(signal.SIGHUP)
        return old

    def get(self, path: str) -> Any:
        return self._answer("GET", path)

    def post(self, path: str, data: object) -> Any:
        return self._answer("POST", path, json.dumps(data), {"Content-Type": "application/json"})

    def _answer(self, *request: Any) -> Any:
        with self.response(*request) as response:
            assert response.status == 200
            return json.loads(response.read())

    @contextmanager
    def response(self, *request: Any) -> Iterator[HTTPResponse]:
        """Make a request, given as for ``http.client``, without nginx; yield its response."""
        with closing(HTTPConnection("localhost")) as connection, closing(self.connect()) as connected:
            connection.sock = connected
            connection.request(*request)
            with connection.getresponse() as response:
                yield response

    def connect(self) -> socket.socket:
        """Connect to its socket, without nginx."""
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(PATIENCE)
        try:
            connected.connect(str(self.socket))
        except OSError:
            connected.close()
            raise
        return connected

    def _listens(self) -> bool:
        """Return whether it takes connections: the socket is there a moment before."""
        try:
            self.connect().close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


@contextmanager
def stream(nginx: Nginx, path: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
    """Open a stream through nginx and yield its response."""
    context = ssl.create_default_context(cafile=str(nginx.certificate))
    connection = HTTPSConnection("localhost", nginx.port, context=context, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=headers or {})
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def await_text(response: Any, text: str) -> None:
    """Read up to this event, and no further."""
    read = b""
    while f"data: {text}\n".encode() not in read:
        piece = response.read1()
        assert piece, f"the stream ended before {text!r}: {read!r}"
        read += piece
