"""Users log in with Flask-Login and read allowed channels, until they log out or lose the right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.servers.kinds import each
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import Client, answer, connected, get, new_name, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.support.web.workers_server import WorkersServer, connect_to_each_worker

#: The channels that every user here reads.
BOTH = "/events?channel=news&channel=~"


class Users:
    """Logs users in, and sets what the server knows of them."""

    def __init__(self, site: Server, folder: Path, stack: ExitStack) -> None:
        self.site = site
        self.folder = folder
        self.stack = stack

    def browser(self, name: str = "") -> Visitor:
        """Return a browser with a logged-in user, a new one without a name."""
        visitor = Visitor(self, name or new_name())
        visitor.log_in()
        return visitor

    def mark(self, visitor: Visitor, what: str) -> None:
        (self.folder / f"{visitor.name}.{what}").touch()

    def publish(self, text: str, *visitors: Visitor) -> None:
        """Publish to all, or to each of these users alone."""
        for path in [f"/publish-to/{visitor.name}" for visitor in visitors] or ["/publish/news"]:
            post(self.site, path, text)

    def recheck(self, *visitors: Visitor, asks: int = 0) -> None:
        """Have streams of the visitors rechecked, and wait until the rule was asked about so many channels."""
        before = get(self.site, "/state")["asked"]
        for visitor in visitors:
            post(self.site, f"/recheck/{visitor.name}")
        until(lambda: asks == 0 or get(self.site, "/state")["asked"] >= before + asks, "the rechecks")


class Visitor:
    """A browser of a user, with a cookie and any number of tabs."""

    def __init__(self, users: Users, name: str) -> None:
        self.name = name
        self._users = users
        self._session = users.stack.enter_context(requests.Session())

    def log_in(self) -> None:
        self._post(f"/login/{self.name}")

    def log_out(self) -> None:
        self._post("/logout")

    def tab(self, path: str = BOTH) -> Client:
        return self._users.stack.enter_context(connected(self._users.site, path, headers=self._headers))

    def tabs(self, count: int, path: str = BOTH) -> list[Client]:
        return [self.tab(path) for _ in range(count)]

    def status(self, path: str = BOTH) -> int:
        """Return the status of a request that is refused."""
        status, _ = answer(self._users.site, "GET", path, None, self._headers)
        return status

    def _post(self, path: str) -> None:
        self._session.post(self._users.site.url + path, timeout=PATIENCE).raise_for_status()

    @property
    def _headers(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._session.cookies)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("users")


@pytest.fixture(scope="module", params=each("login", ["gevent", "gthread"]))
def site(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    with Server(request.param, "tests.apps.servers.login:app", env={"FOLDER": str(folder)}) as site:
        yield site


@pytest.fixture
def users(site: Server, folder: Path) -> Iterator[Users]:
    with ExitStack() as stack:
        yield Users(site, folder, stack)


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[WorkersServer]:
    with RedisServer() as redis:
        env = {"FOLDER": str(folder), "CONFIG": json.dumps({"SSE_BROKER_URL": redis.url})}
        with WorkersServer("gevent", "tests.apps.servers.login:app", 2, env=env) as workers:
            yield workers


@pytest.fixture
def users_of_workers(workers: WorkersServer, folder: Path) -> Iterator[Users]:
    with ExitStack() as stack:
        yield Users(workers, folder, stack)


def test_user_without_login_is_denied(users: Users) -> None:
    assert answer(users.site, "GET", BOTH)[0] == 403
    assert Visitor(users, "ada").status() == 403
    assert users.browser().tab().response.status == 200


def test_event_for_a_user_reaches_all_their_tabs_and_no_other_user(users: Users) -> None:
    ada, bob = users.browser(), users.browser()
    hers, his = [*ada.tabs(2), users.browser(ada.name).tab()], bob.tab()
    users.publish("for Ada", ada)
    users.publish("for Bob", bob)
    users.publish("for all")
    assert [tab.texts(2) for tab in hers] == [["for Ada", "for all"]] * 3
    assert his.texts(2) == ["for Bob", "for all"]


def test_logout_ends_all_tabs_of_the_user_and_denies_reconnect(users: Users) -> None:
    ada, bob = users.browser(), users.browser()
    other = users.browser(ada.name)
    hers, his = [*ada.tabs(3), ada.tab("/own"), other.tab()], bob.tab()
    users.publish("before")
    assert [tab.texts(1) for tab in [*hers, his]] == [["before"]] * 6
    ada.log_out()
    users.publish("too late", ada)
    users.publish("after")
    for tab in hers:
        assert b"data" not in tab.rest(), "a clean end"
    assert his.texts(1) == ["after"]
    assert (ada.status(), ada.status("/own")) == (403, 401)
    assert other.tab().response.status == 200, "it is still logged in and has reconnected"
    ada.log_in()
    [again] = ada.tabs(1)
    users.publish("welcome", ada)
    assert again.texts(1) == ["welcome"]


@pytest.mark.parametrize("what", ["gone", "inactive"])
def test_recheck_ends_only_streams_of_revoked_user(what: str, users: Users) -> None:
    ada, bob = users.browser(), users.browser()
    hers, his = ada.tabs(2), bob.tabs(2)
    users.mark(ada, what)
    users.recheck(ada, bob, asks=2 + 4)
    for tab in hers:
        assert b"data" not in tab.rest()
    users.publish("after")
    assert [tab.texts(1) for tab in his] == [["after"]] * 2
    assert ada.status() == 403


def test_recheck_ends_only_denied_streams_of_a_user(users: Users) -> None:
    ada = users.browser()
    users.mark(ada, "staff")
    kept, denied = ada.tabs(2), [ada.tab(path) for path in ("/events/staff", "/events?channel=news&channel=staff")]
    of_view = ada.tab("/own")
    users.recheck(ada, asks=7)
    assert b"data" not in of_view.rest(), "a stream of a view ends, and its view decides at the reconnect"
    (users.folder / f"{ada.name}.staff").unlink()
    users.recheck(ada, asks=7)
    for tab in denied:
        assert b"data" not in tab.rest()
    users.publish("after")
    assert [tab.texts(1) for tab in kept] == [["after"]] * 2
    assert ada.tab("/own").response.status == 200


def log_out(users: Users, ada: Visitor) -> None:
    ada.log_out()
    users.publish("too late", ada)


def revoke(users: Users, ada: Visitor) -> None:
    users.mark(ada, "gone")
    users.recheck(ada)


@pytest.mark.xdist_group("login-workers")
def test_event_for_a_user_reaches_their_tabs_in_every_worker(users_of_workers: Users) -> None:
    users = users_of_workers
    ada, bob = users.browser(), users.browser()
    hers, his = connect_to_each_worker(ada.tab), connect_to_each_worker(bob.tab)
    users.publish("for Ada", ada)
    users.publish("for both", ada, bob)
    assert [tab.texts(2) for tab in hers] == [["for Ada", "for both"]] * len(hers)
    assert [tab.texts(1) for tab in his] == [["for both"]] * len(his)


@pytest.mark.xdist_group("login-workers")
@pytest.mark.parametrize("lose", [log_out, revoke])
def test_revocation_in_one_worker_ends_streams_in_the_other(
    lose: Callable[[Users, Visitor], None], users_of_workers: Users
) -> None:
    users = users_of_workers
    ada, bob = users.browser(), users.browser()
    hers, his = connect_to_each_worker(ada.tab), connect_to_each_worker(bob.tab)
    users.recheck(bob)
    lose(users, ada)
    for tab in hers:
        assert b"data" not in tab.rest()
    assert ada.status() == 403
    users.publish("after", bob)
    assert [tab.texts(1) for tab in his] == [["after"]] * len(his)
