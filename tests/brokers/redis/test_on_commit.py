"""Publishing over Redis once a transaction of another database has committed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from flask_sse_emitters import Publisher
from tests.support.board import Board, read, texts
from tests.support.brokers.redis_server import RedisServer


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_publisher_over_redis_publishes_once_a_session_has_committed(
    server: RedisServer, board: Board, session: Session
) -> None:
    with closing(Publisher(server.url)) as publisher, board.open("a") as stream:
        for given in (publisher, board.sse):
            given.publish_on_commit(session, "a", "dropped")
        session.rollback()
        publisher.publish_on_commit(session, "a", "1")
        board.sse.publish_on_commit(session, "a", "2")
        publisher.publish_on_commit(session, "b", "other")
        assert texts(stream.ready()) == []
        session.commit()
        assert texts(read(stream, 2)) == ["1", "2"]


def test_commit_succeeds_though_redis_is_away_and_says_what_was_lost(
    server: RedisServer, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Publisher(server.url, publish_seconds=0.5)) as publisher:
        server.kill()
        publisher.publish_on_commit(session, "a", "lost")
        session.commit()
        assert "a transaction has committed, and 1 of its 1 events failed: Redis did not confirm" in caplog.text
        server.renew()
        publisher.publish_on_commit(session, "a", "next")
        session.commit()
        assert publisher.publish("a", "last").endswith("-2")
    with pytest.raises(RuntimeError, match="closed"):
        publisher.publish_on_commit(session, "a", "x")
