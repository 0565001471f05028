"""The stress test on greenlets, and on streams of greenlets to which native threads send. A program."""

from gevent import monkey

monkey.patch_all()

from collections.abc import Callable  # noqa: E402

from gevent import sleep, spawn  # noqa: E402
from gevent.hub import get_hub  # noqa: E402

from flask_sse_emitters.runtime.gevent_loop import is_green  # noqa: E402
from tests.concurrency.stress import churn_and_send, publish_to_streams  # noqa: E402


class Greenlet:
    def __init__(self, call: Callable[[], object]) -> None:
        self._greenlet = spawn(call)

    def join(self) -> None:
        self._greenlet.get()


class ForeignThread:
    """A call on an operating system thread, which is no greenlet."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._result = get_hub().threadpool.spawn(call)

    def join(self) -> None:
        self._result.get()


if __name__ == "__main__":
    assert is_green()
    churn_and_send(lambda: sleep(0))
    publish_to_streams(Greenlet, consumers=50, senders=8, each=200)
    publish_to_streams(ForeignThread, consumers=50, senders=8, each=200)
    print("held")  # noqa: T201
