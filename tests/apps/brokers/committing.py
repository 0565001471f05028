"""Publish an event with a commit, and be killed at a moment of that: ``URL before_commit|after_commit``."""

from __future__ import annotations

import os
import signal
import sys

from flask import Flask
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.orm import Session

from flask_sse_emitters import SSE

if __name__ == "__main__":
    url, moment = sys.argv[1:]
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = url
    sse = SSE(app)
    with Session(create_engine(make_url(url).set(drivername="postgresql+psycopg"))) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        sse.publish_on_commit(session, "a", moment)
        event.listen(session, moment, lambda _: os.kill(os.getpid(), signal.SIGKILL))
        session.commit()
