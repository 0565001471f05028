"""The fixture of pages in a real browser that read with the client packages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.clients import Pages
from tests.support.browser import FLAGS
from tests.support.programs import program


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    executable = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield Pages(browser)
        browser.close()
