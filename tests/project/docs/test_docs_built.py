"""The built documentation: without a warning, and as a newcomer sees it, from files and without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

#: One worker builds it once.
pytestmark = [pytest.mark.xdist_group("docs"), pytest.mark.timeout(300)]


class Built(NamedTuple):
    """The built pages, and what Sphinx has said."""

    folder: Path
    status: int
    said: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    return Built(folder, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page of a laptop that has no network."""
    scheme: Any = getattr(request, "param", "light")
    with browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme, offline=True) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        yield page


def test_docs_build_without_a_warning(built: Built) -> None:
    assert built.status == 0, built.said
    api = (built.folder / "api.html").read_text()
    listed = (ROOT / "tests" / "project" / "public_api.txt").read_text()
    names = re.findall(r"^flask_sse_emitters\.(?:[a-z]+\.)?\w+\b(?!\.)", listed, re.MULTILINE)
    assert [name for name in names if f'id="{name}"' not in api] == ["flask_sse_emitters.brokers.broker_of"]
    assert "http" not in "".join(re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=\"(http[^\"]*)", api))


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_docs_landing_page_answers_newcomers_in_the_first_screenful(built: Built, page: Page) -> None:
    page.goto(f"{built.folder.as_uri()}/index.html")
    for question in ("What it is.", "For whom.", "Why not a generator?", "Why not WebSockets?", "What it costs."):
        answer = page.locator("article p", has=page.locator("strong", has_text=question))
        box = answer.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 800, question
    shown = page.locator("article img:visible")
    expect(shown).to_have_count(1)
    name = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches ? 'board-dark' : 'board-light'")
    expect(shown).to_have_attribute("src", re.compile(name))
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1280


#: The pages of those who begin, and of those who run it.
FIRST_PAGES = [
    *("index", "quickstart", "tutorial", "choosing", "troubleshooting", "members"),
    *("deploying", "servers", "commands", "monitoring", "signals", "operating"),
]

#: The text of each block of code, and of each table, that is wider than its place.
CUT_OFF = """() => [...document.querySelectorAll("article pre, article .table-wrapper")]
    .filter(each => each.scrollWidth > each.clientWidth).map(each => each.innerText)"""


@pytest.mark.parametrize("name", FIRST_PAGES)
def test_docs_first_pages_cut_nothing_off_on_a_laptop(name: str, built: Built, page: Page) -> None:
    page.goto(f"{built.folder.as_uri()}/{name}.html")
    assert page.evaluate(CUT_OFF) == []


@pytest.mark.parametrize(
    ("words", "found"),
    [("heartbeat", "configuration.html"), ("publish_on_commit", "transactions.html"), ("OVERFLOW", "ends.html")],
)
def test_docs_search_works_from_files_and_without_a_network(words: str, found: str, built: Built, page: Page) -> None:
    page.goto(f"{built.folder.as_uri()}/index.html")
    page.locator(".sidebar-search").fill(words)
    page.locator(".sidebar-search").press("Enter")
    expect(page.locator("#search-results a").first).to_be_visible()
    expect(page.locator(f"#search-results a[href*='{found}']").first).to_be_visible()
