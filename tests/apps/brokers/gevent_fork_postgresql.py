"""Fork a gevent process that listens to PostgreSQL and waits for answers; the child gets none of either. A program."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
import psycopg  # noqa: E402

from flask_sse_emitters.brokers import make_broker  # noqa: E402
from tests.support.brokers.broker_calls import RecordingListener, listening, publish  # noqa: E402
from tests.support.waiting import until  # noqa: E402

waitpid = monkey.get_original("os", "waitpid")  # gevent's returns with the next timer

if __name__ == "__main__":
    broker = make_broker(sys.argv[1], publish_seconds=30.0)
    listener: RecordingListener = listening(broker, "a")
    holding = psycopg.connect(sys.argv[1])
    holding.execute("LOCK TABLE sse.presence")
    waiting = [gevent.spawn(broker.clients_elsewhere, "a") for _ in range(8)]
    gevent.sleep(0.2)  # until all have asked: their answers come once the lock is gone
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        time.sleep(2)  # the parent's greenlets continue here, unless they are stopped
        own: RecordingListener = listening(broker, "a")
        publish(broker, "a", "of the child")
        until(lambda: own.frames, "its own event")
        os.read(reader, 1)
        os._exit(len(listener.frames))
    os.close(reader)
    gevent.sleep(1)
    holding.rollback()
    assert [each.get() for each in waiting] == [0] * 8
    publish(broker, "a", *range(20))
    until(lambda: len(listener.frames) == 21, "all events, and the child's")
    os.write(writer, b"x")
    print("received by the child:", os.waitstatus_to_exitcode(waitpid(child, 0)[1]))  # noqa: T201
