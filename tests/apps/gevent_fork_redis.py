"""Fork a gevent process that is subscribed to Redis; the child receives none of its messages. A program."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

from flask_sse_emitters.brokers import make_broker  # noqa: E402
from tests.support.broker_calls import RecordingListener, listening, publish  # noqa: E402
from tests.support.waiting import until  # noqa: E402

waitpid = monkey.get_original("os", "waitpid")  # gevent's returns with the next timer

if __name__ == "__main__":
    broker, other = make_broker(sys.argv[1]), make_broker(sys.argv[1])
    listener: RecordingListener = listening(broker, "a")
    until(lambda: other.clients_elsewhere("a") == 1, "no command to be under way: the child would get its answer")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        time.sleep(0.5)  # the parent's greenlets continue here, unless they are stopped
        own: RecordingListener = listening(broker, "a")
        publish(broker, "a", "of the child")
        until(lambda: own.frames, "its own event")
        os.read(reader, 1)
        os._exit(len(listener.frames))
    os.close(reader)
    publish(broker, "a", *range(20))
    until(lambda: len(listener.frames) == 21, "all events, and the child's")
    os.write(writer, b"x")
    print("received by the child:", os.waitstatus_to_exitcode(waitpid(child, 0)[1]))  # noqa: T201
