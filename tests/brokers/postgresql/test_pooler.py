"""Behind pgbouncer in transaction mode nothing that is announced comes back: processes poll, and say so once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters.brokers import make_broker
from tests.support.board import Board, closing_board, read, texts
from tests.support.brokers.broker_calls import in_threads, listening, publish
from tests.support.brokers.pgbouncer import pgbouncer
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("postgresql")


@pytest.fixture
def pooled(postgresql: PostgresqlServer, database: str) -> Iterator[str]:
    """The URL of the database, through pgbouncer."""
    with pgbouncer(postgresql) as port:
        yield database.replace(f":{postgresql.port}/", f":{port}/")


def test_pooler_is_polled_and_said_so_once(pooled: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flask_sse_emitters")
    with closing_board(pooled) as board, closing_board(pooled) as other:
        with board.open("a") as stream, other.open("a") as second:
            for number in range(3):
                other.publish("a", number)
                assert texts(read(stream, 1)) == texts(read(second, 1)) == [str(number)]
            until(lambda: len(caplog.messages) == 2, "both processes to notice")
            board.publish("a", "later")
            assert texts(read(stream, 1)) == ["later"]
            until(lambda: board.sse.channel("a").subscribers() == 2, "both clients")
            assert [each.sse.stats()["broker"]["state"] for each in (board, other)] == ["ok", "ok"]
    assert all("pgbouncer" in text and "SSE_BROKER_LISTEN_URL" in text for text in caplog.messages)
    assert len(caplog.messages) == 2


def test_pooler_loses_and_mixes_up_nothing_of_many_publishers(pooled: str) -> None:
    with closing(make_broker(pooled)) as broker, closing(make_broker(pooled)) as other:
        listeners = [listening(each, "a") for each in (broker, other)]
        in_threads([partial(publish, broker, "a", *range(number, 400, 4)) for number in range(4)])
        until(lambda: all(len(each.frames) == 400 for each in listeners), "all events")
        assert listeners[0].texts == listeners[1].texts
        assert [frame.offset for frame in listeners[0].frames] == [*range(1, 401)]


def test_listen_url_leads_around_the_pooler(
    postgresql: PostgresqlServer, database: str, pooled: str, run: Callable[[str], list[Any]]
) -> None:
    direct = f"{database}?application_name=direct"
    with closing_board(pooled, SSE_BROKER_LISTEN_URL=direct) as board, board.open("a") as stream:
        find = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'direct'"
        until(lambda: len(run(find)) == 1, "the connection that listens")
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"]


@pytest.mark.parametrize("url", ["memory://", "redis://localhost"])
def test_listen_url_is_refused_for_other_brokers(url: str) -> None:
    with pytest.raises(ValueError, match=r"SSE_BROKER_LISTEN_URL is for postgresql:// alone"):
        Board(SSE_BROKER_URL=url, SSE_BROKER_LISTEN_URL="postgresql://localhost/x")
