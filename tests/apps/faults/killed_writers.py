"""Publish with the commits of many threads, and be killed at a step: ``URL LEVEL SEED MOMENT STATEMENT COUNT``.

The process kills itself before or after (MOMENT) the database has run a statement of the broker, its COUNTth time:
``publish_all`` gives committed events their numbers, and ``announce`` wakes other processes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from functools import partial
from threading import Thread
from typing import Any

import psycopg
from flask import Flask
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from flask_sse_emitters import SSE

THREADS, CHANNELS = 10, ("a", "b", "c")


class Killer:
    """Runs statements, and ends the process at one of them."""

    def __init__(self, moment: str, statement: str, count: int) -> None:
        self._moment = moment
        self._statement = f"{statement}(".encode()
        self._left = count
        self._execute = psycopg.Connection.execute

    def __get__(self, connection: psycopg.Connection[Any], _: object) -> Any:
        return partial(self.execute, connection)

    def execute(self, connection: psycopg.Connection[Any], query: Any, *parameters: Any, **options: Any) -> Any:
        is_it = isinstance(query, bytes) and query.startswith(b"SELECT") and self._statement in query
        self._left -= is_it
        if is_it and self._left <= 0 and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = self._execute(connection, query, *parameters, **options)
        if is_it and self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def write(engine: Any, sse: SSE, chance: random.Random, writer: str) -> None:
    with Session(engine) as session:
        for count in range(10**9):
            for part in range(chance.randrange(1, 4)):
                with session.begin_nested() as savepoint:
                    row = {"channel": chance.choice(CHANNELS), "text": f"{writer} {count} {part}"}
                    session.execute(text("INSERT INTO rows VALUES (:channel, :text)"), row)
                    sse.publish_on_commit(session, row["channel"], row["text"])
                    time.sleep(chance.choice([0, 0.005]))
                    if chance.random() < 0.3:
                        savepoint.rollback()
            time.sleep(chance.choice([0, 0, 0.02]))
            chance.choice([session.commit, session.commit, session.commit, session.rollback])()


def main(url: str, level: str, seed: str, moment: str, statement: str, count: str) -> None:
    psycopg.Connection.execute = Killer(moment, statement, int(count))  # type: ignore[method-assign, assignment]
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = url
    sse = SSE(app)
    address = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_engine(address, isolation_level=level, pool_size=THREADS)
    writers = [f"{os.getpid()}/{number}" for number in range(THREADS)]
    chances = [random.Random(f"{seed}/{number}") for number in range(THREADS)]
    threads = [Thread(target=write, args=(engine, sse, *each)) for each in zip(chances, writers, strict=True)]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
