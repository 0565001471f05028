"""The clients that people use, each a program or a page here, written as its users should write it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page
from werkzeug.serving import make_server

from tests.apps.browser.clients import PACKAGES, app
from tests.support.awkward_events import Dispatched
from tests.support.programs import miss, program
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

HERE = Path(__file__).parent


class Client(NamedTuple):
    """How to start it, and what is to be known of it."""

    file: str
    npm_package: str | None = None
    options: tuple[str, ...] = ()
    #: When an ``id:`` that comes without an event, as a stream begins with one, becomes its position.
    takes_bare_id: Literal["at once", "with an event", "never"] = "at once"
    #: Whether it waits as long as the server's ``retry:`` says, or longer.
    heeds_retry: bool = True
    #: Whether the id of an event of which only a part has come is not its position.
    drops_halves: bool = True

    @property
    def is_page(self) -> bool:
        return self.file.endswith(".html")


CLIENTS = {
    "native": Client("native.html"),
    "event-source-polyfill": Client("polyfill.html", "event-source-polyfill", takes_bare_id="with an event"),
    "fetch-event-source": Client("fetch.html", "@microsoft/fetch-event-source", drops_halves=False),
    "fetch-event-source with an id of ours": Client("fetch.html", "@microsoft/fetch-event-source", ("keep-id",)),
    "eventsource": Client("eventsource.mjs", "eventsource"),
    "httpx-sse": Client("with_httpx_sse.py"),
    "sseclient-py": Client("with_sseclient.py", takes_bare_id="never", heeds_retry=False),
    "launchdarkly-eventsource": Client("with_launchdarkly.py", takes_bare_id="never", heeds_retry=False),
    "curl": Client("curl.sh"),
}


class Follower(NamedTuple):
    """A client at work."""

    received: Callable[[], list[Dispatched]]
    is_over: Callable[[], bool]  #: whether it has given up


class Pages:
    """Pages of a browser, which are used again: a new one takes longer than a test."""

    def __init__(self, browser: Browser) -> None:
        self._context = browser.new_context()
        self._free: list[Page] = []
        self._errors: list[str] = []

    @contextmanager
    def one(self) -> Iterator[Page]:
        page = self._free.pop() if self._free else self._new()
        self._errors.clear()
        yield page
        page.goto("about:blank")
        self._free.append(page)
        assert self._errors == []

    def _new(self) -> Page:
        page = self._context.new_page()
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        return page


@contextmanager
def another_origin() -> Iterator[int]:
    """Serve the same pages from a port of their own, and return it."""
    with make_server("127.0.0.1", 0, app, threaded=True) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def in_page(client: Client, url: str, site: Server, pages: Pages, options: tuple[str, ...]) -> Iterator[Follower]:
    """Start one that keeps what it receives in its page."""
    find_package(client)
    query = urlencode([("url", url), *((option, "") for option in client.options + options)])
    with pages.one() as page:
        page.goto(f"{site.url}/pages/{client.file}?{query}")
        yield Follower(
            lambda: [Dispatched(*each) for each in page.evaluate("received")],
            lambda: bool(page.evaluate("window.isOver")),
        )


@contextmanager
def as_program(client: Client, url: str, output: Path, options: tuple[str, ...]) -> Iterator[Follower]:
    """Start one that writes what it receives, an event a line."""
    script = HERE / client.file
    # Packages are looked for beside a script, but for one from stdin where node is started.
    commands: dict[str, Callable[[], list[str]]] = {
        ".mjs": lambda: [program("node", "nodejs"), "--input-type=module", "-"],
        ".sh": lambda: ["sh", str(script), program("curl", "curl")],
        ".py": lambda: [sys.executable, str(script)],
    }
    with script.open() as stdin, output.open("wb") as stdout:
        process = subprocess.Popen(
            [*commands[script.suffix](), url, *client.options, *options],
            cwd=find_package(client),
            stdin=stdin,
            stdout=stdout,
            start_new_session=True,
        )
    try:
        yield Follower(lambda: _events_in(output.read_text()), lambda: process.poll() is not None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)


def _events_in(output: str) -> list[Dispatched]:
    """Return the events that a program has written: as JSON, if their data may be anything."""
    *lines, _ = output.split("\n")
    return [Dispatched(*(json.loads(line) if line.startswith("[") else line.split("\t"))) for line in lines]


def find_package(client: Client) -> Path | None:
    """Where its npm package is installed; without it the test is skipped, or fails where CI must have it."""
    if client.npm_package is None:
        return None
    if not (PACKAGES / client.npm_package).is_dir():
        miss(f"{client.npm_package} is missing: apt-get install npm && make build/npm/.installed")
    return PACKAGES.parent
