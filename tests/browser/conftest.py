"""One Chromium for all tests of this folder in a process, and the app for those of the browser module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.clients import Client, Follower, Pages, as_program, in_page
from tests.browser.module.tabs import Tabs, new_site, tabs_of
from tests.browser.monitor.monitor_page import monitor_server
from tests.support.browser import chromium
from tests.support.client import new_name
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def pages(browser: Browser) -> Pages:
    """Pages that read with the client packages."""
    return Pages(browser)


Start = Callable[..., AbstractContextManager[Follower]]


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """``with start(client, url, site) as follower``: a client reads, in a page of that site if it is one."""

    def start(client: Client, url: str, site: Server, *options: str) -> AbstractContextManager[Follower]:
        if client.is_page:
            return in_page(client, url, site, request.getfixturevalue("pages"), options)
        return as_program(client, url, tmp_path / new_name(), options)

    return start


@pytest.fixture(scope="package")
def site() -> Iterator[Server]:
    """Serve the app for tests of the browser module."""
    with new_site() as site:
        yield site


@pytest.fixture(scope="package")
def monitor() -> Iterator[Server]:
    """Serve the app with a monitor."""
    with monitor_server(SSE_OVERFLOW="drop_oldest") as monitor:
        yield monitor


@pytest.fixture
def tabs(browser: Browser, site: Server) -> Iterator[Tabs]:
    with tabs_of(browser, site) as tabs:
        yield tabs


@pytest.fixture
def alice() -> str:
    return f"alice-{new_name()}"


@pytest.fixture
def bob() -> str:
    return f"bob-{new_name()}"
