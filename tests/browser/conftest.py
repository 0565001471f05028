"""One Chromium for all tests of this folder in a process, and the app for those of the browser module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.clients import Pages
from tests.browser.monitor_page import monitor_server
from tests.browser.tabs import Tabs, new_site, tabs_of
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
