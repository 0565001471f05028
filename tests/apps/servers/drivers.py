"""Views that wait for Redis, PostgreSQL and another view, by drivers as they are: nothing is patched."""

from __future__ import annotations

import os
from typing import Any

import psycopg
import redis
import requests
from flask import request
from sqlalchemy import create_engine, make_url, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.apps.base import make_app
from tests.support.waiting import PATIENCE

app, sse = make_app(__name__, SSE_BROKER_URL=os.environ["REDIS"])
sse.channel("news", public=True)

store = redis.Redis.from_url(os.environ["REDIS"])
#: Its pool has fewer connections than the worker has threads.
engine = create_engine(
    make_url(os.environ["DATABASE"]).set(drivername="postgresql+psycopg"),
    pool_size=2,
    max_overflow=0,
    pool_timeout=PATIENCE,
)


class Base(DeclarativeBase):
    pass


class Counter(Base):
    """How often the view of a driver was called."""

    __tablename__ = "counters"

    driver: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


def published(driver: str, number: int) -> dict[str, Any]:
    """Publish and return what a view has found."""
    sse.publish("news", f"{driver} {number}")
    return {"number": number}


@app.post("/redis")
def by_redis() -> dict[str, Any]:
    """Wait for a number in a list."""
    found: Any = store.blpop(["numbers"], timeout=PATIENCE)
    return published("redis", int(found[1]))


@app.post("/psycopg")
def by_psycopg() -> dict[str, Any]:
    """Count the call, on a connection of its own; wait for others that count."""
    with psycopg.connect(os.environ["DATABASE"]) as connection:
        row = connection.execute(
            "UPDATE counters SET count = count + 1 WHERE driver = 'psycopg' RETURNING count"
        ).fetchone()
    assert row is not None
    return published("psycopg", row[0])


@app.post("/sqlalchemy")
def by_sqlalchemy() -> dict[str, Any]:
    """Count the call, on a connection of the pool; wait for others that count, or that have the connections."""
    counted = update(Counter).where(Counter.driver == "sqlalchemy").values(count=Counter.count + 1)
    with Session(engine) as session, session.begin():
        number = session.execute(counted.returning(Counter.count)).scalar_one()
    return published("sqlalchemy", number)


@app.post("/requests")
def by_requests() -> dict[str, Any]:
    """Wait for another view, which another thread of this worker runs."""
    answer = requests.post(f"{request.host_url}sqlalchemy", timeout=PATIENCE)
    answer.raise_for_status()
    return published("requests", answer.json()["number"])


Base.metadata.create_all(engine)
with Session(engine) as first, first.begin():
    for name in ("psycopg", "sqlalchemy"):
        first.merge(Counter(driver=name))  # another worker may have made it
