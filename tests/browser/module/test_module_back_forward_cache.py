"""Pages that the browser keeps for "back", or freezes, read no more, and miss nothing once they are back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.module.tabs import Tab, Tabs
from tests.support.browser import whole_chromium
from tests.support.client import new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

#: The names of the locks that pages hold.
HELD = "async () => (await navigator.locks.query()).held.map(({ name }) => name)"


@pytest.fixture(scope="module")
def browser(browser: Browser) -> Iterator[Browser]:
    """Start another Chromium: the headless shell has no back-forward cache."""
    with whole_chromium(browser) as whole:
        yield whole


def leave(tab: Tab, tabs: Tabs) -> None:
    """Go to another page."""
    tab.page.evaluate("addEventListener('pageshow', ({ persisted }) => (window.isKept = persisted))")
    tab.page.goto(f"{tabs.site.url}/state")


def go_back(tab: Tab) -> None:
    """Return to the first page, which the browser must have kept."""
    tab.page.evaluate("() => void setTimeout(() => history.back())")
    tab.page.wait_for_function("() => window.isKept")


def test_module_page_in_back_forward_cache_gives_up_the_lead_and_replays(tabs: Tabs) -> None:
    channel = new_name()
    leader, other = tabs.follow(2, channel)
    leave(leader, tabs)
    tabs.publish((channel, "1"))
    assert other.await_data("1") == ["1"]
    assert len(tabs.requests(channel)) == 2
    go_back(leader)
    tabs.publish((channel, "2"))
    for tab in tabs.all:
        assert tab.await_data("2") == ["1", "2"]
    assert (leader["gaps"], other["gaps"]) == ([], [])
    assert leader["states"] == ["open", "connecting", "open"]
    until(lambda: (other["state"], tabs.connections(channel)) == ("open", 1), "one connection")
    assert len(leader.page.evaluate(HELD)) == 3, "the leader's, and one for each tab"


def test_module_frozen_page_gives_up_the_lead(tabs: Tabs) -> None:
    channel = new_name()
    leader, other = tabs.follow(2, channel)
    leader.page.evaluate("document.dispatchEvent(new Event('freeze'))")
    tabs.publish((channel, "1"))
    assert other.await_data("1") == ["1"]
    assert leader.data() == []
    leader.page.evaluate("document.dispatchEvent(new Event('resume'))")
    assert leader.await_data("1") == ["1"]


def test_module_tab_that_closes_at_once_holds_no_lock(tabs: Tabs) -> None:
    """A lock would keep it out of the browser's back-forward cache."""
    page = tabs.open().page
    page.evaluate("sent => { follow(sent); readers.first.subscription.close(); }", {"name": "first", "channels": ["a"]})
    until(lambda: page.evaluate(HELD) == [], "no lock to be held")


def test_module_page_in_back_forward_cache_is_notified_of_another_reader(tabs: Tabs) -> None:
    alice, bob = new_name(), new_name()
    tab = tabs.read_as(alice)
    leave(tab, tabs)
    tabs.log_in(bob)
    tabs.publish_to(bob, "for bob alone")
    go_back(tab)
    tab.await_change()
    assert (tab.data(), tabs.streams(bob)) == ([], 0)
