"""Debian's nginx in front of gunicorn with ``deploy/nginx.conf``: streams, disconnects, limits and reloads."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from tests.servers.nginx.behind_nginx import CHANNEL, VIEW, App, await_text, stream
from tests.support.waiting import PATIENCE, until
from tests.support.web.nginx import Nginx

#: These tests share an app.
together = pytest.mark.xdist_group("nginx")

#: nginx buffers unless the configuration or a header turns it off.
DEFAULT_BUFFERING = {"proxy_buffering off; ": ""}


@together
@pytest.mark.parametrize("path", [CHANNEL, VIEW], ids=["a channel", "an emitter of a view"])
@pytest.mark.parametrize("changes", [{}, DEFAULT_BUFFERING], ids=["as given", "with nginx's own buffering"])
def test_nginx_passes_each_event_on_at_once(changes: dict[str, str], path: str, nginx_app: App) -> None:
    """The client has each event before the next is sent. The view's location does not mention buffering."""
    send = "/publish/news" if path == CHANNEL else "/send"
    with Nginx(nginx_app.socket, changes) as nginx, stream(nginx, path) as response:
        assert response.getheader("Content-Type") == "text/event-stream"
        assert response.getheader("Content-Encoding") is None
        assert response.read1(), "the preamble, before any event"
        for number in range(5):
            nginx_app.post(send, f"number {number}")
            await_text(response, f"number {number}")


@together
def test_disconnect_from_nginx_reaches_the_app(nginx_app: App) -> None:
    until(lambda: nginx_app.get("/stats")["clients"] == 0, "the clients of other tests to have left")
    with Nginx(nginx_app.socket) as nginx:
        with stream(nginx, CHANNEL) as response:
            assert response.read1()
            assert nginx_app.get("/stats")["outlets"] == {"handed_off": 1, "server": 0}
        until(lambda: nginx_app.get("/stats")["clients"] == 0, "the app to see that the client left")


def test_limit_per_address_ignores_forged_forwarded_header(tmp_path: Path) -> None:
    with App(tmp_path, SSE_MAX_CLIENTS_PER_ADDRESS=2) as app, Nginx(app.socket) as nginx:
        paths = [(f"{CHANNEL}&n={n}", {"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(3)]
        with stream(nginx, *paths[0]) as first, stream(nginx, *paths[1]) as second:
            assert first.read1()
            assert second.read1()
            with stream(nginx, *paths[2]) as refused:
                assert app.get("/stats")["refused"] == 1
                assert b"retry: " in refused.read(), "a stream that ends at once"
            app.post("/publish/news", "still there")
            await_text(first, "still there")
            await_text(second, "still there")


class Load:
    """Clients behind nginx in a ``with`` block: some post without pause, others read streams to their ends."""

    def __init__(self, nginx: Nginx, posting: int, reading: int) -> None:
        self.posted: list[int] = []  #: statuses
        self.read: list[int] = []  #: of streams that have ended
        self._nginx = nginx
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._post) for _ in range(posting)]
        self._threads += [threading.Thread(target=self._read) for _ in range(reading)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def is_over(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _post(self) -> None:
        self._ask(self.posted, "POST", "/send", "1", {"Content-Type": "application/json"})

    def _read(self) -> None:
        self._ask(self.read, "GET", VIEW)

    def _ask(self, statuses: list[int], *request: Any) -> None:
        context = ssl.create_default_context(cafile=str(self._nginx.certificate))
        with closing(HTTPSConnection("localhost", self._nginx.port, context=context, timeout=PATIENCE)) as connection:
            while not self._stopped.is_set():
                connection.request(*request)
                with connection.getresponse() as response:
                    response.read()
                    statuses.append(response.status)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_no_post_fails_while_streams_end_and_workers_reload(kind: str, tmp_path: Path) -> None:
    """nginx keeps connections to the app open, and repeats a GET on one that closes, but no POST."""
    with App(tmp_path, kind) as app, Nginx(app.socket) as nginx, Load(nginx, posting=4, reading=16) as load:

        def end_until(condition: Callable[[], object], what: str) -> None:
            """End all streams repeatedly until the condition holds."""

            def is_so() -> object:
                app.post("/end", None)
                return condition()

            until(is_so, what)

        end_until(lambda: len(load.read) >= 200 and len(load.posted) >= 100, "many ends of streams")
        app.replace_worker()
        load.stop()
        end_until(lambda: load.is_over, "the last streams to end")
    assert set(load.posted) == set(load.read) == {200}
