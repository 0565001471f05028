"""An app with a database pool of two, which its rule, its callbacks and its other views use."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from flask import Response, abort, request, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, QueuePool, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_sse_emitters import SseEmitter
from tests.apps.base import make_app


class Base(DeclarativeBase):
    pass


app, sse = make_app(
    __name__,
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE"],
    SQLALCHEMY_ENGINE_OPTIONS={"poolclass": QueuePool, "pool_size": 2, "max_overflow": 0, "pool_timeout": 1},
)
db = SQLAlchemy(app, model_class=Base)

#: The origin of each database query.
asked: list[str] = []


def simulate_network(*_: object) -> None:
    """Sleep as a query over a network does, during which other threads run."""
    time.sleep(0.002)


event.listen(Engine, "before_cursor_execute", simulate_network)


class Reader(db.Model):  # type: ignore[name-defined,misc]
    name: Mapped[str] = mapped_column(primary_key=True)
    is_allowed: Mapped[bool] = mapped_column(default=True)


def is_allowed(name: str, origin: str) -> bool:
    reader = db.session.get(Reader, name)
    asked.append(origin)
    return reader is not None and reader.is_allowed


@sse.authorizer
def may_read(channel: str) -> str | bool:
    name = request.args["reader"]
    return name if is_allowed(name, "rule") else False


@app.get("/own")
def own() -> SseEmitter:
    """Return a stream that queries the database before it begins and after it has ended."""
    name = request.args["reader"]
    if not is_allowed(name, "view"):
        abort(403)
    emitter = sse.channel("news").subscribe(identity=name)
    emitter.on_completion(lambda: is_allowed(name, "callback"))
    return emitter


@app.get("/held")
def held() -> Response:
    """Return a stream that keeps its session while it is open, which one should not do."""

    def rows() -> Iterator[str]:
        while True:
            yield f": {is_allowed(request.args['reader'], 'view')}\n\n"
            time.sleep(0.05)

    return Response(stream_with_context(rows()), content_type="text/event-stream")


@app.get("/readers")
def readers() -> list[str]:
    return [reader.name for reader in db.session.scalars(db.select(Reader).order_by(Reader.name))]


@app.post("/readers/<name>")
def set_reader(name: str) -> list[str]:
    db.session.merge(Reader(name=name, is_allowed=request.get_json()))
    db.session.commit()
    return readers()


@app.post("/reset")
def reset() -> list[str]:
    """Allow all readers, and forget the queries so far."""
    db.session.execute(db.update(Reader).values(is_allowed=True))
    db.session.commit()
    asked.clear()
    return readers()


@app.get("/state")
def state() -> dict[str, Any]:
    pool = db.engine.pool
    assert isinstance(pool, QueuePool)
    return {
        "checked_out": pool.checkedout(),
        "asked": Counter(asked),
        "clients": sse.stats()["clients"],
        "handed_off": sse.stats()["outlets"]["handed_off"],
    }


with app.app_context():
    db.create_all()
