"""Debian's nginx in front of gunicorn with ``deploy/nginx.conf``: what streams need from it, and that
``flask sse check`` reports each fault put into it."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser import FLAGS
from tests.support.nginx import Nginx
from tests.support.programs import program
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.timeout(300)

#: These tests share the servers of their module.
together = pytest.mark.xdist_group("nginx")

#: Common faults, as changes of the configuration.
BUFFERED = {"proxy_buffering off; ": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; "}
OLD_HTTP = {"proxy_http_version 1.1; ": "", 'proxy_set_header Connection ""; ': ""}
CLOSING = {'proxy_set_header Connection ""; ': ""}
COMPRESSED = {"gzip off;": "gzip on; gzip_types text/event-stream;"}
IMPATIENT = {"proxy_read_timeout 60s;": "proxy_read_timeout 5s;"}
FORGETFUL = {'proxy_set_header Connection ""; ': 'proxy_set_header Connection ""; proxy_set_header Last-Event-ID ""; '}

#: nginx buffers unless the configuration or a header turns it off.
DEFAULT_BUFFERING = {"proxy_buffering off; ": ""}

#: Without HTTP/2, for comparison.
HTTP1 = {" ssl http2;": " ssl;"}

CHANNEL, VIEW = "/events?channel=news", "/connect"

#: Cases: changes of the configuration, the path and further arguments of the check, and the faults that it must find.
CASES: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "as given": ({}, [CHANNEL], []),
    "a view's emitter, and nginx buffers": ({}, [VIEW, "--no-replay"], []),
    "a view's emitter that should have a replay": ({}, [VIEW], ["replay"]),
    "buffering": (BUFFERED, [CHANNEL], ["buffered"]),
    "HTTP/1.0": (OLD_HTTP, [CHANNEL], ["http-1.0"]),
    "Connection: close": (CLOSING, [CHANNEL], ["connection-close"]),
    "gzip": (COMPRESSED, [CHANNEL], ["compressed"]),
    "a header that is dropped": (FORGETFUL, [CHANNEL], ["last-event-id"]),
    "no HTTP/2": (HTTP1, [CHANNEL], []),
    "many at once": ({**BUFFERED, **OLD_HTTP, **COMPRESSED}, [CHANNEL], ["buffered", "compressed", "http-1.0"]),
}

#: The fix of each common fault.
FIXES = {
    "buffering": ("buffered", "proxy_buffering off;"),
    "HTTP/1.0": ("http-1.0", 'proxy_http_version 1.1; and proxy_set_header Connection "";'),
    "Connection: close": ("connection-close", 'proxy_set_header Connection "";'),
    "gzip": ("compressed", "gzip off;"),
}


class App:
    """The app on gunicorn, at a socket for nginx, and for tests that control it.

    :param folder: of the socket.
    :param kind: of the server.
    """

    def __init__(self, folder: Path, kind: str = "gevent", **config: object) -> None:
        self.socket = folder / "app.sock"
        arguments = ["--bind", f"unix:{self.socket}"]
        self._server = Server(
            kind, "tests.apps.behind_nginx:app", env={"CONFIG": json.dumps(config)}, arguments=arguments
        )

    def __enter__(self) -> App:
        self._server.start()
        until(self.socket.exists, "gunicorn's socket")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.__exit__(kind, error, tb)

    def replace_worker(self) -> None:
        """Reload gunicorn and wait until the old worker has exited."""
        old = self.get("/stats")["pid"]
        self._server.signal(signal.SIGHUP)
        until(lambda: not psutil.pid_exists(old), "the old worker's end")

    def get(self, path: str) -> Any:
        return self._answer("GET", path)

    def post(self, path: str, data: object) -> Any:
        return self._answer("POST", path, json.dumps(data), {"Content-Type": "application/json"})

    def _answer(self, *request: Any) -> Any:
        with closing(HTTPConnection("localhost")) as connection, closing(socket.socket(socket.AF_UNIX)) as connected:
            connected.settimeout(PATIENCE)
            connected.connect(str(self.socket))
            connection.sock = connected
            connection.request(*request)
            with connection.getresponse() as response:
                assert response.status == 200
                return json.loads(response.read())


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with App(tmp_path_factory.mktemp("app"), SSE_HEARTBEAT=2) as app:
        yield app


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


class Report(NamedTuple):
    """The report of ``flask sse check``."""

    code: int
    findings: dict[str, dict[str, str]]  #: by name
    progress: str

    @property
    def faults(self) -> list[str]:
        return [name for name, finding in self.findings.items() if finding["level"] == "fault"]


def check(app: App, changes: dict[str, str], arguments: Sequence[str]) -> Report:
    """Check a path behind an nginx with these changes."""
    command = [sys.executable, "-m", "flask", "--app", "tests.apps.cli", "sse", "check", "--json"]
    with Nginx(app.socket, changes) as nginx:
        found = subprocess.run(
            [*command, nginx.url + arguments[0], *arguments[1:]],
            cwd=ROOT,
            env={**os.environ, "SSL_CERT_FILE": str(nginx.certificate)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert found.stdout, found.stderr
    findings = {each["name"]: each for each in json.loads(found.stdout)["findings"]}
    return Report(found.returncode, findings, found.stderr)


@pytest.fixture(scope="module")
def reports(app: App) -> dict[str, Report]:
    """Check all cases. Four run at a time: a process of the app accepts no more."""
    with ThreadPoolExecutor(4) as pool:
        checked = {name: pool.submit(check, app, case[0], case[1]) for name, case in CASES.items()}
        return {name: report.result() for name, report in checked.items()}


@together
@pytest.mark.parametrize("path", [CHANNEL, VIEW], ids=["a channel", "an emitter of a view"])
@pytest.mark.parametrize("changes", [{}, DEFAULT_BUFFERING], ids=["as given", "with nginx's own buffering"])
def test_nginx_passes_each_event_on_at_once(changes: dict[str, str], path: str, app: App) -> None:
    """The client has each event before the next is sent. The view's location does not mention buffering."""
    send = "/publish" if path == CHANNEL else "/send"
    with Nginx(app.socket, changes) as nginx, stream(nginx, path) as response:
        assert response.getheader("Content-Type") == "text/event-stream"
        assert response.getheader("Content-Encoding") is None
        assert response.read1(), "the preamble, before any event"
        for number in range(5):
            app.post(send, f"number {number}")
            await_text(response, f"number {number}")


@together
def test_disconnect_from_nginx_reaches_the_app(app: App) -> None:
    before = app.get("/stats")["clients"]
    with Nginx(app.socket) as nginx:
        with stream(nginx, CHANNEL) as response:
            assert response.read1()
            assert app.get("/stats")["clients"] == before + 1
            assert app.get("/stats")["outlets"]["handed_off"] == before + 1
        until(lambda: app.get("/stats")["clients"] == before, "the app to see that the client left")


@together
@pytest.mark.parametrize("case", CASES)
def test_check_reports_exactly_the_faults_of_the_configuration(case: str, reports: dict[str, Report]) -> None:
    report, faults = reports[case], CASES[case][2]
    assert report.faults == faults
    assert report.code == (1 if faults else 0)


@together
def test_check_reports_ok_findings_and_progress(reports: dict[str, Report]) -> None:
    report = reports["as given"]
    for name in (
        "status",
        "buffered",
        "first-byte",
        "compressed",
        "cached",
        "http-1.0",
        "read-timeout",
        "replay",
        "http2",
    ):
        assert report.findings[name]["level"] == "ok"
    assert "- waiting on a silent stream for a heartbeat, every 2 s, 7 s at most\n" in report.progress
    assert reports["no HTTP/2"].findings["http2"]["level"] == "note"
    assert "six connections" in reports["no HTTP/2"].findings["http2"]["fix"]


@together
@pytest.mark.parametrize("case", FIXES)
def test_check_names_directive_that_fixes_each_fault(case: str, reports: dict[str, Report]) -> None:
    name, directive = FIXES[case]
    assert directive in reports[case].findings[name]["fix"]


def test_check_reports_read_timeout_shorter_than_heartbeat(tmp_path: Path) -> None:
    with App(tmp_path) as app:
        report = check(app, IMPATIENT, [CHANNEL])
    assert (report.code, report.faults) == (1, ["read-timeout"])
    finding = report.findings["read-timeout"]
    assert "s without a byte, while the server writes a heartbeat every 15 s." in finding["seen"]
    assert "proxy_read_timeout 60s;" in finding["fix"]
    assert "every 15 s, 20 s at most" in report.progress


def test_limit_per_address_ignores_forged_forwarded_header(tmp_path: Path) -> None:
    with (
        App(tmp_path, SSE_MAX_CLIENTS_PER_ADDRESS=2) as app,
        Nginx(app.socket) as nginx,
    ):
        paths = [(f"{CHANNEL}&n={n}", {"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(3)]
        with stream(nginx, *paths[0]) as first, stream(nginx, *paths[1]) as second:
            assert first.read1()
            assert second.read1()
            with stream(nginx, *paths[2]) as refused:
                assert app.get("/stats")["refused"] == 1
                assert b"retry: " in refused.read(), "a stream that ends at once"
            app.post("/publish", "still there")
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


@pytest.mark.parametrize("kind", ["gevent", "gevent_off", "gthread", "gevent_pywsgi"])
def test_no_post_fails_while_streams_end_and_workers_reload(kind: str, tmp_path: Path) -> None:
    """nginx keeps connections to the app open, and repeats a GET on one that closes, but no POST."""
    with (
        App(tmp_path, kind, SSE_HANDOFF="off" if kind == "gevent_off" else "auto") as app,
        Nginx(app.socket) as nginx,
        Load(nginx, posting=4, reading=16) as load,
    ):

        def end_until(condition: Callable[[], object], what: str) -> None:
            """End all streams repeatedly until the condition holds."""

            def is_so() -> object:
                app.post("/end", None)
                return condition()

            until(is_so, what)

        end_until(lambda: len(load.read) >= 500 and len(load.posted) >= 100, "many ends of streams")
        if kind != "gevent_pywsgi":  # it cuts all requests of a worker that stops
            for _ in range(2):
                app.replace_worker()
        load.stop()
        end_until(lambda: load.is_over, "the last streams to end")
    assert set(load.posted) == set(load.read) == {200}


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=FLAGS)
        yield browser
        browser.close()


#: Opens ``count`` streams, and records which are open and what each has received.
OPEN = """count => {
    window.opened = new Set();
    window.got = Array.from({ length: count }, () => []);
    window.streams = got.map((texts, n) => {
        const stream = new EventSource(`/events?channel=news&n=${n}`);
        stream.onopen = () => opened.add(n);
        stream.onmessage = e => texts.push(e.data);
        return stream;
    });
}"""


@contextmanager
def page_with_streams(browser: Browser, nginx: Nginx, count: int) -> Iterator[Page]:
    with browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.goto(nginx.url)
        page.evaluate(OPEN, count)
        yield page


def opened(page: Page) -> int:
    return int(page.evaluate("opened.size"))


def receivers(page: Page, text: str) -> int:
    """Return how many of the page's streams have received ``text``."""
    return int(page.evaluate("text => got.filter(texts => texts.includes(text)).length", text))


@pytest.mark.xdist_group("browser")
def test_http2_page_has_twenty_open_streams(browser: Browser, tmp_path: Path) -> None:
    with App(tmp_path) as app, Nginx(app.socket) as nginx:
        with page_with_streams(browser, nginx, 20) as page:
            until(lambda: opened(page) == 20, "all streams to open")
            assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
            app.post("/publish", "to all")
            until(lambda: receivers(page, "to all") == 20, "all streams to have it")
            assert page.evaluate("fetch('/').then(response => response.status)") == 200, "other requests still work"
        until(lambda: app.get("/stats")["clients"] == 0, "the streams to end with their page")


@pytest.mark.xdist_group("browser")
def test_http1_origin_has_six_open_streams_and_others_wait(browser: Browser, tmp_path: Path) -> None:
    with App(tmp_path) as app, Nginx(app.socket, HTTP1) as nginx:
        with page_with_streams(browser, nginx, 20) as page:
            until(lambda: opened(page) == 6, "six streams to open")
            app.post("/publish", "to six")
            until(lambda: receivers(page, "to six") == 6, "six streams to have it")
            assert app.get("/stats")["clients"] == 6
            page.evaluate("streams[[...opened][0]].close()")
            until(lambda: opened(page) == 7, "a waiting stream to take the place of a closed one")
            assert app.get("/stats")["opened"] == 7
