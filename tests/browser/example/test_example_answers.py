"""The answers of the example in a real browser: word by word, in every tab, across reloads and stops of the server."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.example.example_page import example_server, visitor
from tests.support.client import answer
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_example"), pytest.mark.timeout(300)]

#: All of an answer: what ``example_app.py`` has.
WHOLE = re.compile(r"^No language model has read this\. .* and then the rest\. $")

#: Where the answer of ``tests/apps/held_answers.py`` pauses.
BEGUN = "No language model has read"

#: What stands below a whole one.
ALL = r"^Complete: 47 words\.$"

JSON = {"Content-Type": "application/json"}

#: Bodies that are no question.
WRONG: list[object] = [{"question": " "}, {"question": "x" * 201}, {"question": 5}, []]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers pause while this file exists."""
    return tmp_path_factory.mktemp("answers") / "held"


@pytest.fixture(scope="module")
def example(held: Path) -> Iterator[Server]:
    with example_server(held.parent, "tests.apps.held_answers:app", ANSWERS_HELD=str(held)) as server:
        yield server


@pytest.fixture
def tabs(browser: Browser, example: Server, held: Path) -> Iterator[list[Page]]:
    """Two tabs of one browser, which share its six connections. Afterwards no answer is being written."""
    with visitor(browser, example, tabs=2) as tabs:
        yield tabs
    held.unlink(missing_ok=True)
    answer(example, "DELETE", "/answer")


def ask(page: Page, question: str) -> None:
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")


def ask_and_hold(tabs: list[Page], question: str, held: Path) -> None:
    """Ask in the first tab for an answer that pauses, and wait until all tabs show its first five words."""
    held.touch()
    ask(tabs[0], question)
    for page in tabs:
        expect(page.locator("#asked")).to_have_text(question)
        expect(page.locator("#words")).to_have_text(BEGUN)
        expect_progress(page, "writing", "^Writing…$")


def process_of(example: Server) -> int:
    pid: int = json.loads(answer(example, "GET", "/state")[1])["pid"]
    return pid


def words(page: Page) -> str:
    return page.locator("#words").text_content() or ""


def expect_progress(page: Page, progress: str, text: str) -> None:
    expect(page.locator("#answer")).to_have_attribute("data-progress", progress)
    expect(page.locator("#progress")).to_have_text(re.compile(text))


def test_example_answer_comes_word_by_word_to_every_tab(tabs: list[Page], held: Path) -> None:
    ask_and_hold(tabs, "Does it <b>stream</b>?", held)
    for page in tabs:
        expect(page.locator("#stop")).to_be_visible()
        page.locator("#question").fill("one at a time")
        expect(page.locator("#ask button")).to_be_disabled()
    held.unlink()
    for page in tabs:
        expect_progress(page, "done", ALL)
        assert WHOLE.match(words(page))
        expect(page.locator("#stop")).to_be_hidden()
        expect(page.locator("#ask button")).to_be_enabled()


def test_example_answer_goes_on_after_a_reload_amid_it(tabs: list[Page], held: Path) -> None:
    ask_and_hold(tabs, "And if I reload?", held)
    tabs[0].reload()
    expect_progress(tabs[0], "writing", "^Writing…$")
    expect(tabs[0].locator("#words")).to_have_text(BEGUN)
    expect(tabs[0].locator("#asked")).to_have_text("And if I reload?")
    held.unlink()
    for page in tabs:
        expect_progress(page, "done", ALL)
        assert WHOLE.match(words(page))


def test_example_answer_is_whole_after_a_reload_after_its_end(tabs: list[Page]) -> None:
    ask(tabs[0], "What is left of it?")
    expect_progress(tabs[0], "done", ALL)
    with tabs[0].expect_response(lambda response: response.status == 204):  # nothing is left: no tab holds a connection
        tabs[0].reload()
    expect_progress(tabs[0], "done", ALL)
    expect(tabs[0].locator("#asked")).to_have_text("What is left of it?")
    assert WHOLE.match(words(tabs[0]))


def test_example_answer_is_stopped_from_another_tab(tabs: list[Page], held: Path) -> None:
    ask_and_hold(tabs, "May I stop it?", held)
    with tabs[0].expect_response(lambda response: response.status == 204):  # this tab listens to no answer any more
        tabs[1].locator("#stop").click()
    for page in tabs:
        expect_progress(page, "stopped", r"^Stopped after 5 words\.$")
        expect(page.locator("#stop")).to_be_hidden()
    held.unlink()
    tabs[1].reload()
    expect_progress(tabs[1], "stopped", r"^Stopped after 5 words\.$")
    assert [words(page).strip() for page in tabs] == [BEGUN, BEGUN]
    ask(tabs[1], "The next one?")
    for page in tabs:
        expect(page.locator("#asked")).to_have_text("The next one?")
        expect_progress(page, "done", ALL)


def test_example_answer_goes_on_while_the_server_reloads(tabs: list[Page], held: Path, example: Server) -> None:
    """The process that stops writes it to its end, in the tabs that show it."""
    ask_and_hold(tabs, "Who reloads here?", held)
    before = process_of(example)
    example.signal(signal.SIGHUP)
    until(lambda: process_of(example) != before, "a new process")
    for page in tabs:
        expect_progress(page, "writing", "^Writing…$")
    held.unlink()
    for page in tabs:
        expect_progress(page, "done", ALL)
        expect(page.locator("#words")).to_have_text(WHOLE)


def test_example_answer_of_a_server_that_is_killed_is_interrupted(
    tabs: list[Page], held: Path, example: Server
) -> None:
    """On ``memory://`` the new process knows nothing of it. Its words stay where they are shown."""
    ask_and_hold(tabs, "Who stops here?", held)
    example.kill()
    example.start()
    for page in tabs:
        expect_progress(page, "interrupted", r"^Interrupted after 5 words, as the server stopped\. Ask again\.$")
        expect(page.locator("#words")).to_have_text(BEGUN)
    held.unlink()
    ask(tabs[1], "Is it back?")
    for page in tabs:
        expect(page.locator("#asked")).to_have_text("Is it back?")
        expect_progress(page, "done", ALL)


def test_example_answer_is_used_by_keyboard_and_announced_as_a_whole(tabs: list[Page], held: Path) -> None:
    held.touch()
    page = tabs[0]
    page.locator("#question").focus()
    page.keyboard.type("Who reads this?")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#words")).to_have_text(BEGUN)
    expect(page.locator("#words")).to_have_attribute("aria-busy", "true")
    assert page.locator("#words").evaluate("words => words.closest('[aria-live], [role=status], [role=alert]')") is None
    expect(page.get_by_role("status").filter(has_text="Writing…")).to_have_count(1)
    expect(page.locator("#question")).to_have_value("")
    page.locator("#question").focus()
    page.keyboard.press("Tab")  # "Ask" is disabled
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Stopped after")).to_have_count(1)
    expect(page.locator("#words")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#answer")).to_be_focused()


def test_example_answer_fits_a_narrow_window(tabs: list[Page], held: Path) -> None:
    tabs[0].set_viewport_size({"width": 360, "height": 740})
    ask_and_hold(tabs, "x" * 200, held)
    assert tabs[0].evaluate("document.documentElement.scrollWidth") <= 360
    tabs[0].locator("#stop").click()
    expect_progress(tabs[0], "stopped", "^Stopped")


def test_example_question_that_is_refused_is_kept_with_the_reason(
    tabs: list[Page], held: Path, example: Server
) -> None:
    """Another visitor may have asked just before: this page does not know it yet."""
    held.touch()
    page = tabs[0]
    page.route(
        f"{example.url}/answer", lambda route: route.fulfill(status=409, json={"error": "An answer is being written."})
    )
    ask(page, "Mine as well?")
    expect(page.get_by_role("alert").filter(has_text="An answer is being written.")).to_have_count(1)
    expect(page.locator("#question")).to_have_value("Mine as well?")
    page.unroute_all()
    page.locator("#question").press("Enter")
    expect(page.locator("#asked")).to_have_text("Mine as well?")
    expect(page.locator("#ask-error")).to_be_empty()


def test_example_second_or_invalid_question_is_refused(tabs: list[Page], held: Path, example: Server) -> None:
    held.touch()
    asked: list[tuple[object, int, str]] = [
        ({"question": "Is it free?"}, 204, ""),
        ({"question": "And now?"}, 409, "An answer is being written already. Stop it first."),
        *((wrong, 400, "The question must have 1 to 200 characters.") for wrong in WRONG),
    ]
    for question, status, error in asked:
        found, body = answer(example, "POST", "/answer", json.dumps(question), JSON)
        assert (found, json.loads(body or b"{}").get("error", "")) == (status, error)
