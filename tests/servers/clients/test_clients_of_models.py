"""OpenAI's and Anthropic's own clients read answers that are sent with ``send_from``.

Neither sends an id, nor comes back by itself once an answer has begun: what broke is asked for anew. To import
them takes seconds: one process does, which has servers of its own for these tests.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import connected, get, new_app, new_name, post
from tests.support.servers import Server
from tests.support.waiting import until

KINDS = ("gevent", "gevent_off", "gthread", "gthread_off")

each_client = pytest.mark.parametrize("client", ["openai", "anthropic"])

on_gevent = pytest.mark.parametrize("server", ["gevent"], indirect=True)

pytestmark = pytest.mark.xdist_group("clients of models")


@pytest.fixture(scope="module")
def models() -> Any:
    """The clients: not imported by each process that collects these tests, but by the one that runs them."""
    return import_module("tests.servers.clients.model_clients")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, "tests.apps.handoff:app") as server:
        yield server


@each_client
def test_model_client_gets_every_chunk_of_a_fast_answer(client: str, server: Server, models: Any) -> None:
    """There are more of them than may be pending, and nothing waits in between."""
    with models.CLIENTS[client](f"{server.url}/answers/{new_name()}/whole", count=1500) as answer:
        assert list(answer.texts) == [f"{number} " for number in range(1500)]


@each_client
def test_model_client_does_not_mind_heartbeats_in_a_silence(client: str, server: Server, models: Any) -> None:
    name = new_name()
    with models.CLIENTS[client](f"{server.url}/answers/{name}/gated", count=3) as answer, ThreadPoolExecutor() as pool:
        assert next(answer.texts) == "0 "
        before, rest = answer.downloaded(), pool.submit(list, answer.texts)
        try:
            until(lambda: answer.downloaded() >= before + len(":\n\n:\n\n"), "two heartbeats")
        finally:
            post(server, f"/open/{name}")
        assert rest.result() == ["1 ", "2 "]


@on_gevent
def test_model_client_of_openai_takes_a_greeting_for_a_chunk(server: Server, models: Any) -> None:
    """Why a stream for it must be bare: it parses the data of each block, also where there is none."""
    with models.ask_openai(f"{server.url}/answers/{new_name()}/whole", greeting=1) as answer:
        with pytest.raises(json.JSONDecodeError):
            next(answer.texts)


@on_gevent
def test_model_client_of_anthropic_skips_greeting_and_final_event(server: Server, models: Any) -> None:
    """It skips what has no name that it knows, so a stream for it may be bare or not."""
    with models.ask_anthropic(f"{server.url}/answers/{new_name()}/whole", greeting=1, count=2) as answer:
        assert list(answer.texts) == ["0 ", "1 "]


@pytest.mark.parametrize("how", ["raising", "failing"])
@each_client
def test_model_client_shows_an_answer_that_raises_as_an_error(
    client: str, how: str, server: Server, models: Any
) -> None:
    """With its text where ``on_error`` gives an event in the client's own form, else as a broken connection."""
    got: list[str] = []
    with models.CLIENTS[client](f"{server.url}/answers/{new_name()}/{how}", count=7) as answer:
        with pytest.raises(models.TOLD if how == "raising" else models.BROKEN) as caught:
            got.extend(answer.texts)
    assert len(got) <= 7
    assert ("upstream" in str(caught.value)) is (how == "raising")


@each_client
def test_model_client_that_leaves_closes_the_iterable(client: str, server: Server, models: Any) -> None:
    name, count = new_name(), 10_000_000
    with models.CLIENTS[client](f"{server.url}/answers/{name}/whole", count=count) as answer:
        assert next(answer.texts) == "0 "
        answer.close()
        until(lambda: get(server, f"/pulled/{name}")["closed"] == 1, "the iterable to be closed")
    assert get(server, f"/pulled/{name}")["items"] < count


@each_client
def test_model_client_shows_too_many_streams_as_a_broken_connection(client: str, server: Server, models: Any) -> None:
    """Such an answer is a 200 that breaks at once."""
    url = f"{server.url}{new_app(server, SSE_MAX_CLIENTS=1)}/answers"
    with models.CLIENTS[client](f"{url}/{new_name()}/gated") as first:
        assert next(first.texts) == "0 "
        begun = len(server.log)
        with pytest.raises(models.BROKEN), models.CLIENTS[client](f"{url}/{new_name()}/whole") as second:
            list(second.texts)
    assert "Traceback" not in server.log[begun:]


@on_gevent
@each_client
def test_model_client_shows_a_503_as_an_error_and_a_204_as_nothing(client: str, server: Server, models: Any) -> None:
    """A 503 it would try again, twice, unless it is told ``max_retries=0``, as it is here."""
    with pytest.raises(models.REFUSED) as caught, models.CLIENTS[client](f"{server.url}/answers/{new_name()}/503"):
        pass
    assert getattr(caught.value, "status_code", None) == 503
    with models.CLIENTS[client](f"{server.url}/answers/{new_name()}/204") as answer:
        assert list(answer.texts) == []


@pytest.mark.parametrize("kind", KINDS)
def test_model_clients_get_whole_answers_from_a_stopping_worker(kind: str, tmp_path: Path, models: Any) -> None:
    arguments = ["--graceful-timeout", "60"]
    with Server(kind, "tests.apps.handoff:app", arguments=arguments) as server, ExitStack() as stack:
        gate = tmp_path / "gate"
        url, pool = f"{server.url}/answers/{new_name()}/gated", stack.enter_context(ThreadPoolExecutor())
        answers = [stack.enter_context(ask(url, count=100, file=gate)) for ask in models.CLIENTS.values()]
        with connected(server, f"/numbered/{new_name()}") as page:
            assert [next(answer.texts) for answer in answers] == ["0 ", "0 "]
            rests = [pool.submit(list, answer.texts) for answer in answers]
            server.signal(signal.SIGTERM)
            assert b"retry: " in page.rest()  # it is told to come again, to another worker
        assert not any(rest.done() for rest in rests)
        gate.touch()
        assert [len(rest.result()) for rest in rests] == [99, 99]
        until(lambda: server.has_exited, "the server to exit")
