"""How tests start Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.support.programs import program

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium: its headless shell if that is installed, which takes a third of the processor time of the whole.

    Blink, V8 and the network stack are the same; the shell has no back-forward cache.
    """
    executable = shutil.which("chromium-headless-shell") or program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def whole_chromium(shell: Browser) -> Iterator[Browser]:
    """Start Chromium as users have it, with its back-forward cache, beside the one that :func:`chromium` started."""
    kept = ["--disable-back-forward-cache"]
    browser = shell.browser_type.launch(
        executable_path=program("chromium", "chromium"), args=FLAGS, ignore_default_args=kept
    )
    yield browser
    browser.close()
