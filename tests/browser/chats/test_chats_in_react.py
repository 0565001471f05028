"""``useChat`` of npm "@ai-sdk/react", in pages that are reloaded, and whose answers are stopped or cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.chats.chats import SCRIPTS, Conversation
from tests.browser.readers import bundle_for
from tests.support.client import post
from tests.support.servers import Server

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]

QUESTION = "one two three four"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the app, and of the pages' script."""
    folder = tmp_path_factory.mktemp("chats")
    bundle_for("browser", [SCRIPTS / "use-chat.jsx"], folder)
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Server]:
    with Server("gevent", "tests.apps.browser.chats:app", env={"FOLDER": str(folder)}) as site:
        yield site


@pytest.fixture
def conversation(site: Server, folder: Path) -> Conversation:
    return Conversation(site, folder)


@pytest.fixture
def context(browser: Browser, folder: Path) -> Iterator[BrowserContext]:
    with browser.new_context() as context:
        context.route("**/use-chat.js", lambda route: route.fulfill(path=folder / "use-chat.js"))
        yield context


def opened(context: BrowserContext, conversation: Conversation) -> Page:
    page = context.new_page()
    page.goto(f"{conversation.site.url}/chats/{conversation.id}")
    return page


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox").fill(question)
    page.get_by_role("textbox").press("Enter")


def expect_chat(page: Page, status: str, *texts: str) -> None:
    expect(page.locator("p")).to_have_text([*texts])
    expect(page.locator("output")).to_have_text(status)


def test_use_chat_shows_the_whole_answer_though_its_page_is_reloaded(
    context: BrowserContext, conversation: Conversation
) -> None:
    """Amid the answer it goes on; after it, nothing comes twice."""
    conversation.allow(1)
    page = opened(context, conversation)
    ask(page, QUESTION)
    expect_chat(page, "streaming", QUESTION, "one")
    conversation.allow(2)
    expect_chat(page, "streaming", QUESTION, "one two")
    page.reload()
    expect_chat(page, "streaming", QUESTION, "one two")
    conversation.allow(4)
    expect_chat(page, "ready", QUESTION, QUESTION)
    with page.expect_response("**/stream") as resumed:
        page.reload()
    assert resumed.value.status == 200
    resumed.value.finished()
    expect_chat(page, "ready", QUESTION, QUESTION)


def test_use_chat_is_ready_at_once_where_there_is_nothing_to_resume(
    context: BrowserContext, conversation: Conversation
) -> None:
    page = context.new_page()
    with page.expect_response("**/stream") as asked:
        page.goto(f"{conversation.site.url}/chats/{conversation.id}")
    assert asked.value.status == 204
    expect_chat(page, "ready")
    conversation.allow(4)
    ask(page, QUESTION)
    expect_chat(page, "ready", QUESTION, QUESTION)


def test_use_chat_stops_the_making_of_an_answer_and_keeps_what_there_is(
    context: BrowserContext, conversation: Conversation
) -> None:
    conversation.allow(2)
    page, tab = opened(context, conversation), opened(context, conversation)
    ask(page, QUESTION)
    expect_chat(page, "streaming", QUESTION, "one two")
    tab.reload()
    expect_chat(tab, "streaming", QUESTION, "one two")
    page.get_by_role("button").click()
    expect_chat(page, "ready", QUESTION, "one two")
    expect_chat(tab, "ready", QUESTION, "one two")
    conversation.allow(4)
    assert conversation.await_closed() == 3
    page.reload()
    expect_chat(page, "ready", QUESTION, "one two")


def test_use_chat_whose_connection_breaks_resumes_once_shown_again(
    context: BrowserContext, conversation: Conversation
) -> None:
    conversation.allow(2)
    page = opened(context, conversation)
    ask(page, QUESTION)
    expect_chat(page, "streaming", QUESTION, "one two")
    post(conversation.site, f"/cut/{conversation.id}")
    expect_chat(page, "error", QUESTION, "one two")
    conversation.allow(4)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect_chat(page, "ready", QUESTION, QUESTION)
