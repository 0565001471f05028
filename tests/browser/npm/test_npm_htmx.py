"""htmx 2 with ``createEventSource`` of the npm package, in Chromium; its ends are in ``test_clients_at_ends``."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route

from tests.browser.module.tabs import Tabs
from tests.browser.readers import HERE, ReaderPage, bundle_for
from tests.support.client import new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("htmx")
    bundle_for("browser", [HERE / "htmx2-resuming.mjs"], folder)
    return (folder / "htmx2-resuming.js").read_text()


@pytest.mark.parametrize("status", [403, 503])
def test_npm_htmx_keeps_its_place_though_the_server_answers_with_errors(status: int, script: str, tabs: Tabs) -> None:
    """Even if it has had no event yet, and so only the place at which its stream began."""
    channel = new_name()
    page = tabs.open().page
    page.add_script_tag(content=script, type="module")
    page.wait_for_function("() => !!window.streams")
    reader = ReaderPage(page)
    number = reader.follow(f"/events?channel={channel}")
    until(lambda: tabs.connections(channel) == 1, "the stream")
    refused: list[str | None] = []

    def refuse(route: Route) -> None:
        refused.append(route.request.headers.get("last-event-id"))
        if len(refused) < 3:
            route.fulfill(status=status, body="not now")
        else:
            route.continue_()

    page.route(f"**/events?channel={channel}", refuse)
    [first] = tabs.post(f"/cut/{channel}", [{"channel": channel, "data": "missed"}])
    until(lambda: reader.told(number), "the event")
    tabs.publish((channel, "next"))
    until(lambda: len(reader.told(number)) == 2, "the next event")
    assert [each[2] for each in reader.told(number)] == ["missed", "next"]
    assert reader.told(number)[0][1] == first
    assert refused[0] is not None
    assert refused == refused[:1] * 3
