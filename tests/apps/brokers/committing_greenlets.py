"""Publish with many transactions of greenlets at once: ``URL``; each prints the text that it commits."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import gevent
from flask import Flask
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from flask_sse_emitters import SSE

GREENLETS, TRANSACTIONS = 20, 5

app = Flask(__name__)
app.config["SSE_BROKER_URL"] = sys.argv[1]
sse = SSE(app)
engine = create_engine(make_url(sys.argv[1]).set(drivername="postgresql+psycopg"), pool_size=5, max_overflow=0)


def write(number: int) -> None:
    with Session(engine) as session:
        for count in range(TRANSACTIONS):
            session.execute(text("SELECT pg_sleep(0.01)"))
            sse.publish_on_commit(session, "a", f"{number} {count}")
            if count % 2:
                session.rollback()
            else:
                session.commit()
                print(number, count)  # noqa: T201


if __name__ == "__main__":
    gevent.joinall([gevent.spawn(write, number) for number in range(GREENLETS)], raise_error=True)
    sse.close()
