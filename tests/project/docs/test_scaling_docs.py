"""``docs/scaling.rst`` shows what its script computes from the stored results."""

from __future__ import annotations

import re

import pytest

from benchmarks.scaling import PAGE, RESULTS, USES, Assumed, Measured, Use, need, page, printed_in, read

COSTS = Measured(
    worker_bytes=40e6,
    client_bytes=4_000,
    kernel_bytes=5_000,
    kept_bytes=400,
    delivery=5,
    taken_in=100,
    connect=1_000,
    idle=2,
    publisher=200,
    redis_publish=40,
    redis_announce=10,
    redis_connect=20,
    redis_channel_bytes=500,
    redis_kept_bytes=1_000,
)


def test_scaling_page_equals_output_of_its_script() -> None:
    assert printed_in(PAGE.read_text()) == page(read(RESULTS), Assumed()), "run: python -m benchmarks.scaling --write"


def test_scaling_channel_read_by_all_is_announced_to_every_process() -> None:
    found = need(150_000, Use("all", 0, 2.0), COSTS, Assumed())
    assert found.workers == found.workers_to_hold == 10
    assert found.listening == pytest.approx(10)
    assert found.announcements == pytest.approx(20)
    assert found.deliveries == 300_000
    assert found.publishes == 2
    assert found.looks == pytest.approx(0, abs=1e-6)


def test_scaling_channel_of_one_client_is_announced_once_and_looked_up() -> None:
    found = need(150_000, Use("own", 1, 0.1), COSTS, Assumed(stream_seconds=1_500))
    assert found.channels == 150_000
    assert found.listening == pytest.approx(1)
    assert found.announcements == pytest.approx(found.publishes) == pytest.approx(15_000)
    assert found.looks == pytest.approx(100)
    assert found.history_memory == pytest.approx(150_000 * 30 * 400)


def test_scaling_high_load_needs_more_workers_than_connections_do() -> None:
    found = need(150_000, Use("all", 0, 20.0), COSTS, Assumed(share=0.5))
    assert found.workers > found.workers_to_hold
    assert found.cores <= found.workers * 0.5


def test_scaling_need_never_decreases_with_more_clients() -> None:
    for use in USES:
        needs = [need(clients, use, COSTS, Assumed()) for clients in (1, 1_000, 100_000, 1_000_000)]
        for name in ("workers", "memory", "redis_memory", "announcements", "output"):
            values = [getattr(each, name) for each in needs]
            assert values == sorted(values), name


def test_scaling_deploy_table_counts_clients_of_each_worker() -> None:
    """If the load needs more workers than the connections do, each of them has fewer clients."""
    given, use = Assumed(per_worker=15_000, share=0.6, retry=3.0), Use("busy", 1, 11.0)
    found = need(60_000, use, COSTS, given)
    assert found.workers > found.workers_to_hold == 4
    each = 60_000 / found.workers
    printed = page(COSTS, given, [use], [60_000]).partition("60,000 clients, after a deploy")[2]
    rows = dict(re.findall(r"^(\S.*?)  +(\S+)$", printed, re.MULTILINE))
    assert rows["clients that come back to a worker"] == f"{each:,.0f}"
    assert rows["seconds of CPU until all are back"] == f"{each * COSTS.connect / 1e6:,.1f}"


def test_scaling_client_counts_are_limited_for_each_process() -> None:
    use = Use("own", 1, 0.0)
    busy, quiet = (need(15_000, use, COSTS, Assumed(stream_seconds=seconds)) for seconds in (10, 1e9))
    assert busy.counts == pytest.approx(4 * busy.workers)
    assert quiet.counts == pytest.approx(0.25 * quiet.workers, rel=1e-3)
