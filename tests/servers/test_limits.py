"""The limit of open files on real servers: a worker at it still answers other requests."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.client import connected, get, post
from tests.support.servers import Server


def test_gthread_with_low_file_limit_has_one_warning() -> None:
    """The file limit allows fewer streams than there are threads, so no warning about threads is added."""
    few = ["bash", "-c", 'ulimit -n 70; exec "$@"', "-"]  # room for 6 streams
    with Server("gthread", "tests.apps.channels:app", before=few, arguments=["--threads", "8"]) as server:
        with connected(server, "/events/a"):
            warnings = get(server, "/stats")["warnings"]
    assert ["it takes 6 clients" in each for each in warnings] == [True]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_worker_at_stream_limit_answers_other_requests(kind: str) -> None:
    """Its limit of open files is low, as in an old shell."""
    few = ["bash", "-c", 'ulimit -n 256; exec "$@"', "-"]
    with Server(kind, "tests.apps.channels:app", before=few) as server, ExitStack() as stack:
        streams = [stack.enter_context(connected(server, "/events/a")) for _ in range(230)]
        assert post(server, "/publish/a", "x")
        stats = get(server, "/stats")
        assert (stats["clients"], stats["refused_by"]) == (192, {"RLIMIT_NOFILE": 38})
        assert all(b"retry: " in stream.rest() for stream in streams[192:])
        assert streams[0].texts(1) == ["x"]
