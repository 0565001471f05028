"""Publishing once a transaction of SQLAlchemy has committed, and not where it is rolled back."""

from __future__ import annotations

import gc
import logging
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from flask_sse_emitters import Event, InvalidChannel, InvalidEvent, NotInTransaction
from flask_sse_emitters.signals import event_published
from tests.support.board import Board, levels, texts


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))  # else a savepoint does it
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def published(board: Board, channel: str = "a") -> list[str]:
    """Return the data of all events of a channel."""
    return texts(board.replayed(channel, last="other-0")[1:])


def test_commit_publishes_in_the_order_of_calls_in_one_step(board: Board, session: Session) -> None:
    sse = board.sse
    with board.open("a") as a, board.open("b") as b:
        for number in (1, 2):
            sse.publish_on_commit(session, "a", {"x": number}, event="made")
            sse.publish_on_commit(session, "b", Event(f"{number}", event="built"))
        assert a.ready() == b.ready() == []
        session.commit()
        assert [(each.event, each.data) for each in a.ready()] == [("made", '{"x": 1}'), ("made", '{"x": 2}')]
        assert [(each.event, each.data) for each in b.ready()] == [("built", "1"), ("built", "2")]
        session.commit()
        assert a.ready() == b.ready() == []
    assert sse.stats()["publish"]["count"] == 1
    assert sse.stats()["published"] == 4


def nothing(_session: Session) -> None:
    pass


def release(session: Session) -> None:
    with session.begin_nested():
        pass


def fail_to_flush(session: Session) -> None:
    session.add_all([Order(id=7), Order(id=7)])
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()


def fail_to_commit(session: Session) -> None:
    def refuse(_connection: Connection) -> None:
        raise RuntimeError("no commit")

    connection = session.connection()
    event.listen(connection, "commit", refuse)
    with pytest.raises(RuntimeError, match="no commit"):
        session.commit()
    session.rollback()
    event.remove(connection, "commit", refuse)


@pytest.mark.parametrize(
    "end", [Session.rollback, Session.close, Session.invalidate, Session.reset, fail_to_flush, fail_to_commit]
)
@pytest.mark.parametrize("before", [nothing, release], ids=["", "after a savepoint"])
def test_transaction_that_does_not_commit_publishes_nothing(
    board: Board, session: Session, before: Callable[[Session], object], end: Callable[[Session], object]
) -> None:
    """And the next one publishes what is its own."""
    if before is release:
        with session.begin_nested():
            board.sse.publish_on_commit(session, "a", "released")
    board.sse.publish_on_commit(session, "a", "dropped")
    end(session)
    assert published(board) == []
    board.sse.publish_on_commit(session, "a", "kept")
    session.commit()
    assert published(board) == ["kept"]


def test_commit_publishes_what_was_given_in_savepoints_that_were_released(board: Board, session: Session) -> None:
    """However deep they are; none before the outermost transaction commits, though SQLAlchemy calls that a commit."""
    give = board.sse.publish_on_commit
    give(session, "a", "1")
    with session.begin_nested():
        give(session, "a", "2")
        with session.begin_nested():
            give(session, "a", "3")
            session.add(Order(id=1))
        inner = session.begin_nested()
        give(session, "a", "dropped")
        inner.rollback()
        give(session, "a", "4")
    outer = session.begin_nested()
    with session.begin_nested():
        give(session, "a", "released, and dropped with the one around it")
    outer.rollback()
    open_at_the_end = session.begin_nested()
    give(session, "a", "5")
    assert published(board) == []
    session.commit()
    assert not open_at_the_end.is_active
    assert published(board) == ["1", "2", "3", "4", "5"]


def test_savepoints_at_random_publish_what_the_database_has(board: Board, session: Session, seed: int) -> None:
    """Each event is given beside a row of the same name."""
    chance, count = random.Random(seed), 0

    def give(depth: int) -> None:
        nonlocal count
        for _ in range(chance.randrange(4)):
            if depth < 4 and chance.random() < 0.6:
                savepoint = session.begin_nested()
                give(depth + 1)
                if savepoint.is_active:  # else it was ended by one around it
                    savepoint.rollback() if chance.random() < 0.4 else savepoint.commit()
            else:
                count += 1
                session.add(Order(id=count))
                session.flush()
                board.sse.publish_on_commit(session, "a", str(count))

    for _ in range(40):
        give(0)
        chance.choice([session.commit, session.commit, session.rollback, session.close])()
    session.close()
    rows = [str(each) for each in session.scalars(text("SELECT id FROM orders ORDER BY id"))]
    assert count > 50
    assert published(board) == rows[-board.app.config["SSE_HISTORY"] :]


@pytest.mark.parametrize("kind", ["scoped", "begun", "joined", "several engines", "no autobegin"])
def test_sessions_of_each_kind_publish_with_their_commit(board: Board, engine: Engine, kind: str) -> None:
    session: Any = Session(engine)
    if kind == "scoped":
        session = scoped_session(sessionmaker(engine))
    elif kind == "begun":
        session.begin()
    elif kind == "joined":
        session = Session(engine.connect())
    elif kind == "several engines":
        session = Session(binds={Order: engine})
    elif kind == "no autobegin":
        session = Session(engine, autobegin=False)
        with pytest.raises(NotInTransaction, match="begin"):
            board.sse.publish_on_commit(session, "a", "x")
        session.begin()
    board.sse.publish_on_commit(session, "a", "1")
    session.add(Order(id=1))
    assert published(board) == []
    session.commit()
    assert published(board) == ["1"]
    session.close()
    if kind == "joined":
        session.bind.close()


def test_session_of_flask_sqlalchemy_publishes_with_its_commit(board: Board) -> None:
    board.app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(board.app)

    @board.app.post("/orders")
    def create() -> str:
        db.session.execute(text("SELECT 1"))
        board.sse.publish_on_commit(db.session, "a", "committed")
        db.session.commit()
        board.sse.publish_on_commit(db.session, "a", "dropped with the request")
        return ""

    board.client.post("/orders")
    assert published(board) == ["committed"]
    with board.app.app_context():
        db.engine.dispose()


def test_publish_to_on_commit_reaches_one_reader() -> None:
    board = Board(rule=lambda _: "ann")
    with Session(create_engine("sqlite://")) as session, board.open("~") as stream:
        board.sse.publish_to_on_commit(session, "ann", "hers", key="k")
        board.sse.publish_to_on_commit(session, "ann", "again", key="k")
        board.sse.publish_to_on_commit(session, "bob", "his")
        assert stream.ready() == []
        session.commit()
        assert texts(stream.ready()) == ["hers"]
        with pytest.raises(ValueError, match="identity"):
            board.sse.publish_to_on_commit(session, "", "x")


@pytest.mark.parametrize(
    ("channel", "data", "options", "error"),
    [
        ("a b", "x", {}, InvalidChannel),
        ("a", object(), {}, InvalidEvent),
        ("a", Event("x", id=1), {}, InvalidEvent),
        ("a", "x", {"event": "gap"}, InvalidEvent),
        ("a", "x" * 100, {}, InvalidEvent),
        ("a", "x", {"key": 7}, TypeError),
        ("a", "x", {"retry": -1}, InvalidEvent),
    ],
    ids=["name", "no JSON", "id", "kept name", "too large", "key", "retry"],
)
def test_bad_event_is_an_error_before_the_commit(
    session: Session, channel: str, data: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    board = Board(SSE_MAX_EVENT_BYTES=50)
    board.sse.publish_on_commit(session, "a", "good")
    with pytest.raises(error):
        board.sse.publish_on_commit(session, channel, data, **options)
    session.commit()
    assert published(board) == ["good"]


def test_data_that_changes_before_the_commit_is_published_as_it_was(board: Board, session: Session) -> None:
    data = {"state": "new"}
    board.sse.publish_on_commit(session, "a", data)
    data["state"] = "changed"
    session.commit()
    assert published(board) == ['{"state": "new"}']


@pytest.mark.parametrize("where", ["engine", "option", "transaction"])
def test_session_without_a_commit_to_wait_for_is_refused(board: Board, where: str) -> None:
    engine = create_engine("sqlite://", **{"isolation_level": "AUTOCOMMIT"} if where == "engine" else {})
    with Session(engine.execution_options(isolation_level="AUTOCOMMIT") if where == "option" else engine) as session:
        if where == "transaction":
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(NotInTransaction, match="AUTOCOMMIT"):
            board.sse.publish_on_commit(session, "a", "x")
        session.commit()
    assert published(board) == []


def test_what_is_no_session_is_refused(board: Board, engine: Engine) -> None:
    others: list[Any] = [None, engine, AsyncSession(), sessionmaker(engine)]
    for session in others:
        with pytest.raises(TypeError, match="Session of SQLAlchemy"):
            board.sse.publish_on_commit(session, "a", "x")


def test_session_that_is_to_be_rolled_back_first_says_so(board: Board, session: Session) -> None:
    session.add_all([Order(id=7), Order(id=7)])
    with pytest.raises(IntegrityError):
        session.flush()
    with pytest.raises(PendingRollbackError):
        board.sse.publish_on_commit(session, "a", "x")
    session.rollback()
    closed = Session(session.get_bind(), close_resets_only=False)
    closed.close()
    with pytest.raises(InvalidRequestError):
        board.sse.publish_on_commit(closed, "a", "x")


def test_error_after_the_commit_is_logged_and_not_raised(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """The transaction has committed, which an error would hide."""
    board = Board(SSE_BROKER_URL="redis://127.0.0.1:1", SSE_PUBLISH_SECONDS=1)
    with caplog.at_level(logging.ERROR, "flask_sse_emitters.commits"):
        session.add(Order(id=1))
        board.sse.publish_on_commit(session, "a", "x")
        board.sse.publish_on_commit(session, "b", "y")
        session.commit()
        assert "2 of its 2 events failed: Redis did not confirm" in caplog.text
        assert "('a', 'b')" in caplog.text
        board.sse.publish_on_commit(session, "a", "x")
        board.sse.close()
        session.commit()
    assert levels(caplog) == ["ERROR", "ERROR"]
    assert "this SSE is closed" in caplog.text
    assert session.get(Order, 1) is not None
    with pytest.raises(RuntimeError, match="closed"):
        board.sse.publish_on_commit(session, "a", "x")


def test_commit_that_raises_after_it_is_done_publishes_with_the_end(board: Board, engine: Engine) -> None:
    """As the database has it: another listener of the app raises, and then the session is closed."""

    def refuse(_session: Session) -> None:
        raise RuntimeError("too late")

    factory = sessionmaker(engine)
    event.listen(factory, "after_commit", refuse)
    with factory() as session:
        session.add(Order(id=1))
        board.sse.publish_on_commit(session, "a", "done")
        with pytest.raises(RuntimeError, match="too late"):
            session.commit()
    with Session(engine) as session:
        assert session.get(Order, 1) is not None
    assert published(board) == ["done"]


def test_two_apps_of_one_session_each_get_their_events(board: Board, session: Session) -> None:
    other = Board()
    for number in (1, 2):
        board.sse.publish_on_commit(session, "a", str(number))
        other.sse.publish_on_commit(session, "a", f"other {number}")
    session.commit()
    assert published(board) == ["1", "2"]
    assert published(other) == ["other 1", "other 2"]


def test_handlers_of_events_may_use_the_session_whose_commit_publishes(board: Board, session: Session) -> None:
    """Its connection is back in the pool by then, and another transaction begins."""

    def follow(_app: object, channel: str, **_about: object) -> None:
        if channel == "a":
            session.add(Order(id=1))
            board.sse.publish_on_commit(session, "b", "after that")
            session.commit()

    event_published.connect(follow, board.app)
    board.sse.publish_on_commit(session, "a", "first")
    session.commit()
    assert published(board, "b") == ["after that"]
    assert session.get(Order, 1) is not None


def test_session_that_is_dropped_is_freed_with_what_waits(board: Board, engine: Engine) -> None:
    session = Session(engine)
    board.sse.publish_on_commit(session, "a", "x")
    reference = weakref.ref(session)
    del session
    gc.collect()
    assert reference() is None
    assert published(board) == []
