"""Chats of npm "ai", Vercel's AI SDK, whose answers go on without their readers: docs/streaming.rst has the views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.browser.chats.chats import ChatPage, ChatProgram, Conversation, chat_program
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import post
from tests.support.servers import Server
from tests.support.web.workers_server import WorkersServer

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]

QUESTION = "one two three four"

APP = "tests.apps.browser.chats:app"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the app."""
    return tmp_path_factory.mktemp("chats")


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatProgram]:
    with chat_program(tmp_path_factory.mktemp("program")) as chats:
        yield chats


@pytest.fixture(scope="module")
def serve(folder: Path) -> Iterator[Callable[[str], Server]]:
    """``serve("gthread")``: serve the app on this server, once for all tests that ask for it."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(Server(kind, APP, env={"FOLDER": str(folder)})))


@pytest.fixture
def conversation(request: pytest.FixtureRequest, serve: Callable[[str], Server], folder: Path) -> Conversation:
    """One on a gevent worker, or on the one that a test names."""
    return Conversation(serve(getattr(request, "param", "gevent")), folder)


on_each_worker = pytest.mark.parametrize("conversation", ["gevent", "gthread", "sync"], indirect=True)


@on_each_worker
def test_ai_chat_resumes_an_answer_amid_it_and_after_its_end(conversation: Conversation, chats: ChatProgram) -> None:
    """After a reload, in a second tab, and by the transport alone: all from its first word, then what comes, once."""
    first = ChatPage(chats, conversation)
    conversation.allow(2)
    first.send(QUESTION)
    first.await_state("streaming", QUESTION, "one two")
    first.leave()
    reloaded, tab = ChatPage(chats, conversation), ChatPage(chats, conversation)
    reloaded.resume()
    reloaded.await_state("streaming", QUESTION, "one two")
    read = tab.read()
    conversation.allow(4)
    reloaded.await_state("ready", QUESTION, QUESTION)
    assert tab.text_of_read(read) == QUESTION
    first.await_state("ready", QUESTION, "one two")

    late = ChatPage(chats, conversation)
    shown = late.await_state("ready", QUESTION, QUESTION)["messages"]
    late.resume()
    assert late.await_answer() == 200
    again = late.await_state("ready", QUESTION, QUESTION)["messages"]
    assert [message["id"] for message in again] == [message["id"] for message in shown]


def test_ai_chat_has_nothing_to_resume_where_no_answer_is_known(conversation: Conversation, chats: ChatProgram) -> None:
    """Before the first question, and where the answer is forgotten, as on ``memory://`` after a deploy."""
    for channel in (None, f"chat/{conversation.id}/forgotten"):
        if channel is not None:
            conversation.point_to(channel)
        page = ChatPage(chats, conversation)
        page.resume()
        assert page.await_answer() == 204
        page.await_state("ready")
        assert page.text_of_read(page.read()) is None


@on_each_worker
def test_ai_chat_that_is_stopped_cancels_the_making_of_its_answer(
    conversation: Conversation, chats: ChatProgram
) -> None:
    """In each tab the answer ends where it was; so it does for who comes later, and no more of it is made."""
    page, tab = ChatPage(chats, conversation), ChatPage(chats, conversation)
    conversation.allow(2)
    page.send(QUESTION)
    page.await_state("streaming", QUESTION, "one two")
    tab.resume()
    tab.await_state("streaming", "one two")
    assert post(conversation.site, f"/api/chat/{conversation.id}/stop") == {"was_running": True}
    page.await_state("ready", QUESTION, "one two")
    tab.await_state("ready", "one two")
    conversation.allow(4)
    assert conversation.await_closed() == 3
    assert tab.text_of_read(tab.read()) == "one two"
    assert post(conversation.site, f"/api/chat/{conversation.id}/stop") == {"was_running": False}


def test_ai_chat_whose_connection_breaks_goes_on_where_it_resumes(
    conversation: Conversation, chats: ChatProgram
) -> None:
    page = ChatPage(chats, conversation)
    conversation.allow(2)
    page.send(QUESTION)
    page.await_state("streaming", QUESTION, "one two")
    post(conversation.site, f"/cut/{conversation.id}")
    page.await_state("error", QUESTION, "one two")
    page.resume()
    page.await_state("streaming", QUESTION, "one two")
    conversation.allow(4)
    page.await_state("ready", QUESTION, QUESTION)


@pytest.mark.parametrize(
    ("question", "error"),
    [("one fail", "the model has failed: upstream"), ("one fail untold", "Type validation failed")],
)
def test_ai_chat_shows_that_its_model_has_failed_and_again_after_a_reload(
    question: str, error: str, conversation: Conversation, chats: ChatProgram
) -> None:
    """With what ``on_error`` says; else with what ``interrupted`` is to it, also that of a process that died."""
    page = ChatPage(chats, conversation)
    conversation.allow(2)
    page.send(question)
    assert page.await_state("error", question, "one")["error"].startswith(error)
    reloaded = ChatPage(chats, conversation)
    reloaded.resume()
    assert reloaded.await_state("error", question, "one")["error"].startswith(error)


def test_ai_chat_takes_the_last_event_for_an_error_if_not_bare(conversation: Conversation, chats: ChatProgram) -> None:
    """Which has no data; greeting and ids are nothing to it."""
    page = ChatPage(chats, conversation)
    conversation.allow(2)
    page.send("one plainly")
    assert page.await_state("error", "one plainly", "one plainly")["error"].startswith("JSON parsing failed")


def test_ai_chat_shows_a_503_as_an_error(conversation: Conversation, chats: ChatProgram) -> None:
    page = ChatPage(chats, conversation)
    page.send("busy")
    page.await_state("error", "busy")
    assert page.await_answer() == 503


def test_ai_chat_resumes_an_answer_of_more_parts_than_are_kept_by_default(
    conversation: Conversation, chats: ChatProgram
) -> None:
    """The app keeps more: else an answer of so many parts would begin amid."""
    question = " ".join(map(str, range(3000)))
    page = ChatPage(chats, conversation)
    conversation.allow(3000)
    page.send(question)
    assert conversation.await_closed() == 3000
    assert page.text_of_read(page.read()) == question


def test_ai_chat_resumes_in_any_worker_over_redis(chats: ChatProgram, folder: Path) -> None:
    """Each of two workers gives the whole; and the answer ends in all pages where any worker is asked to stop it."""
    with RedisServer() as redis:
        env = {"FOLDER": str(folder), "CONFIG": f'{{"SSE_BROKER_URL": "{redis.url}"}}'}
        with WorkersServer("gthread", APP, 2, env=env) as site:
            conversation = Conversation(site, folder)
            first = ChatPage(chats, conversation)
            conversation.allow(2)
            first.send(QUESTION)
            first.await_state("streaming", QUESTION, "one two")
            pages: list[ChatPage] = []
            workers: set[str] = set()
            while len(workers) < 2:
                pages.append(ChatPage(chats, conversation))
                pages[-1].resume()
                [[status, worker]] = pages[-1].await_state("streaming", QUESTION, "one two")["answers"]
                assert status == 200
                workers.add(worker)
            conversation.allow(4)
            for page in [first, *pages]:
                page.await_state("ready", QUESTION, QUESTION)

            conversation.allow(1)
            first.send("five six")
            first.await_state("streaming", QUESTION, QUESTION, "five six", "five")
            for page in pages:
                page.resume()
                page.await_state("streaming", QUESTION, QUESTION, "five")
            assert post(site, f"/api/chat/{conversation.id}/stop") == {"was_running": True}
            for page in pages:
                page.await_state("ready", QUESTION, QUESTION, "five")
            first.await_state("ready", QUESTION, QUESTION, "five six", "five")
