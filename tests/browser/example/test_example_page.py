"""The example in a real browser."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from itertools import product

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.browser.example.example_page import SPRING, example_server, visitor
from tests.support.client import answer, get, post
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_example"), pytest.mark.timeout(300)]

#: The script of the article on Spring's SseEmitter, unchanged but for what it does with the data.
SEED = """() => new Promise(resolve => {
    const sse = new EventSource("http://localhost:8080/connect");

    sse.addEventListener('connect', (e) => {
        const { data: receivedConnectData } = e;
        resolve(receivedConnectData);
    });
})"""

#: Makes a page record what it shows of its connection and of errors, and how often it fetches the notices.
WATCH = """() => {
    const now = performance.now();
    performance.now = () => now; // for the page, no time passes, however slow this machine is
    window.seen = { shown: [], fetched: 0 };
    for (const id of ["state", "error"]) {
        const element = document.getElementById(id);
        const note = () => seen.shown.push(element.textContent);
        new MutationObserver(note).observe(element, { attributes: true, childList: true });
    }
    const { fetch } = window;
    window.fetch = (...request) => {
        seen.fetched += 1;
        return fetch(...request);
    };
}"""


#: Returns where an element begins and ends, from top to bottom.
EDGES = "element => [element.getBoundingClientRect().top, element.getBoundingClientRect().bottom]"

#: Waits until the page is drawn for a new size.
DRAWN = "async () => { for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame); }"

#: Returns how many labels the chart has, and the texts of those not wholly within it.
LABELS_OUTSIDE = """() => {
    const chart = document.getElementById("chart").getBoundingClientRect();
    const boxes = [...document.querySelectorAll("#chart text")].map((text) => [text, text.getBoundingClientRect()]);
    const isOutside = ([, box]) => box.left < chart.left - 1 || box.right > chart.right + 1;
    return [boxes.length, boxes.filter(isOutside).map(([text]) => text.textContent)];
}"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with example_server(tmp_path_factory.mktemp("example")) as server:
        yield server


@pytest.fixture
def page(browser: Browser, example: Server) -> Iterator[Page]:
    with visitor(browser, example) as [page]:
        yield page


@pytest.fixture
def pages(page: Page, browser: Browser, example: Server) -> Iterator[list[Page]]:
    with visitor(browser, example) as [other]:
        yield [page, other]


def write(page: Page, text: str) -> None:
    page.locator("[name=author]").fill("Ada")
    page.locator("[name=text]").fill(text)
    page.locator("#form button").click()


def notices(page: Page, text: str) -> Locator:
    return page.locator("#notices li").filter(has_text=text)


def shown(page: Page) -> list[str]:
    """Return the ids of all notices, newest first."""
    ids: list[str] = page.evaluate("[...document.querySelectorAll('#notices li')].map(({ dataset }) => dataset.id)")
    return ids


def samples(page: Page) -> int:
    return int(page.locator("#chart").get_attribute("data-samples") or 0)


def test_example_notice_is_shown_on_all_pages(pages: list[Page]) -> None:
    write(pages[0], "<b>Lunch</b> at noon")
    for page in pages:
        expect(notices(page, "<b>Lunch</b> at noon")).to_have_count(1)
        expect(notices(page, "<b>Lunch</b> at noon")).to_contain_text("Ada")
    write(pages[1], "I come along")
    for page in pages:
        expect(notices(page, "I come along")).to_have_count(1)


def test_example_chart_moves_and_clients_are_counted(pages: list[Page]) -> None:
    for page in pages:
        expect(page.locator("#clients")).to_have_text("2")
    before = [samples(page) for page in pages]
    until(lambda: all(samples(page) >= then + 3 for page, then in zip(pages, before, strict=True)), "new samples")
    pages[1].close()
    expect(pages[0].locator("#clients")).to_have_text("1")


def test_example_lost_server_is_shown_and_its_restart_reconnects_pages(pages: list[Page], example: Server) -> None:
    write(pages[0], "before the restart")
    for page in pages:
        expect(notices(page, "before the restart")).to_have_count(1)
        page.evaluate(WATCH)  # no time passes: only a retry that fails can show that the server is lost
    example.kill()
    try:
        for page in pages:
            expect(page.locator("#state")).to_have_attribute("data-state", "lost")
            expect(page.locator("#state")).to_have_text("Reconnecting… 0 s")
        write(pages[0], "after the restart")
        expect(pages[0].locator("#error")).to_contain_text("cannot be reached")
    finally:
        example.start()
    for page in pages:
        expect(page.locator("#state")).to_have_attribute("data-state", "live")
    expect(pages[0].locator("#error")).to_be_empty()
    expect(pages[0].locator("[name=text]")).to_have_value("after the restart")
    pages[0].locator("#form button").click()
    for page in pages:
        expect(notices(page, "after the restart")).to_have_count(1)
        expect(notices(page, "before the restart")).to_have_count(1)


def test_example_new_page_misses_no_notice_and_shows_none_twice(browser: Browser, example: Server) -> None:
    answered: list[str] = []
    listened: list[bool] = []

    def fetch(route: Route) -> None:
        listened.append(f"{example.url}/live" in answered)
        post(example, "/notices", {"text": "both streamed and fetched"})
        fetched = route.fetch()
        post(example, "/notices", {"text": "too late to be fetched"})
        route.fulfill(response=fetched)

    post(example, "/notices", {"text": "there before the page"})
    page = browser.new_page()
    page.on("response", lambda response: answered.append(response.url))
    page.route(f"{example.url}/notices", fetch)
    page.goto(example.url)
    for text in ["there before the page", "both streamed and fetched", "too late to be fetched"]:
        expect(notices(page, text)).to_have_count(1)
    post(example, "/notices", {"text": "after all of these"})
    expect(notices(page, "after all of these")).to_have_count(1)
    assert notices(page, "both streamed and fetched").count() == 1
    assert listened == [True], "else what was posted between the two would be missed"
    page.close()


def has_more_samples(page: Page, count: int) -> bool:
    return samples(page) > count


def test_example_reload_keeps_connections_and_loses_no_notice(
    pages: list[Page], browser: Browser, example: Server
) -> None:
    """Pages that were open before show the same notices as a new one: the newest fifty."""
    errors: list[str] = []
    asked: list[str] = []
    for number in range(50):
        post(example, "/notices", {"text": f"notice {number}"})
    for page in pages:
        page.evaluate(WATCH)
        page.on("console", lambda message: errors.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
    exited = example.log.count("Worker exiting")
    post(example, "/notices", {"text": "ahead of the reload"})
    example.signal(signal.SIGHUP)
    post(example, "/notices", {"text": "as the reload begins"})
    until(lambda: example.log.count("Worker exiting") > exited, "the old worker to exit")
    post(example, "/notices", {"text": "after the reload"})
    counts = [samples(page) for page in pages]
    for page, count in zip(pages, counts, strict=True):
        for text in ["ahead of the reload", "as the reload begins", "after the reload"]:
            expect(notices(page, text)).to_have_count(1)
        until(partial(has_more_samples, page, count + 1), "the chart to go on")
        assert page.evaluate("seen") == {"shown": [], "fetched": 0}
    assert (errors, asked) == ([], []), "no page has noticed anything"
    assert "ahead of the reload" in [notice["text"] for notice in get(example, "/notices")]
    assert "graceful timeout" not in example.log
    new = browser.new_page()
    new.goto(example.url)
    expect(notices(new, "after the reload")).to_have_count(1)
    assert len(set(shown(new))) == 50
    assert [shown(page) for page in (*pages, new)] == [shown(new)] * 3
    new.close()


def test_example_silent_server_is_shown_as_lost_after_five_seconds(page: Page, example: Server) -> None:
    assert example._process is not None
    workers = psutil.Process(example._process.pid).children()
    for worker in workers:
        worker.suspend()
    try:
        page.evaluate("() => { const later = performance.now() + 5_100; performance.now = () => later; }")
        expect(page.locator("#state")).to_have_attribute("data-state", "lost")
    finally:
        for worker in workers:
            worker.resume()


def test_example_page_fits_its_window_and_shows_chart_labels_whole(page: Page) -> None:
    until(lambda: samples(page), "a sample")
    for size, width in product([12, 16, 24], [1280, 390]):
        page.set_viewport_size({"width": width, "height": 800})
        page.add_style_tag(content=f":root {{ font-size: {size}px }}")
        page.evaluate(DRAWN)
        assert page.evaluate(LABELS_OUTSIDE) == [8, []], (width, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, size)


def test_example_phone_shows_new_notices_above_the_form(browser: Browser, example: Server) -> None:
    for number in range(5):
        post(example, "/notices", {"text": f"read on a phone {number}"})
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(example.url)
    expect(notices(page, "read on a phone 4")).to_have_count(1)
    first, form = (page.locator(selector).first.evaluate(EDGES) for selector in ("#notices li", "#form"))
    assert first[1] <= form[0]
    assert form[1] <= 844
    page.close()


def test_example_runs_the_spring_articles_javascript_unchanged(page: Page, example: Server) -> None:
    page.route(SPRING, lambda route: route.continue_(url=f"{example.url}/connect"))
    assert page.evaluate(SEED) == "connected!"


@pytest.mark.parametrize(
    ("notice", "message"),
    [
        ([], "Send a JSON object"),
        ({"text": " "}, "1 to 500 characters"),
        ({"text": "x" * 501}, "1 to 500 characters"),
        ({"text": 5}, "1 to 500 characters"),
        ({"author": "x" * 41, "text": "x"}, "at most 40 characters"),
    ],
)
def test_example_invalid_notice_is_a_400_that_says_what_is_wrong(notice: object, message: str, example: Server) -> None:
    status, body = answer(example, "POST", "/notices", json.dumps(notice), {"Content-Type": "application/json"})
    assert status == 400
    assert message in json.loads(body)["error"]
