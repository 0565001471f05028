"""Redis restarts from its file, or a replica takes over: no id is given twice, and no loss goes without a gap."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flask_sse_emitters.brokers import make_broker
from tests.support.board import board_reads, closing_board, gap_of, moved, read, texts
from tests.support.broker_calls import publish
from tests.support.redis_clients import client_of
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


def epoch_of(event_id: str | None) -> str:
    return str(event_id).split("-")[0]


@contextmanager
def restorable(folder: Path, *settings: str) -> Iterator[tuple[RedisServer, Callable[[], None], Callable[[], None]]]:
    """Start a Redis with an append-only file; yield it, and functions that save its files and restart it from them."""
    with RedisServer("--appendonly", "yes", *settings) as server:

        def save() -> None:
            shutil.copytree(server.folder, folder / "kept")

        def restore() -> None:
            server.kill()
            shutil.rmtree(server.folder)
            shutil.copytree(folder / "kept", server.folder)
            server.start()

        yield server, save, restore


@contextmanager
def promoted_replica() -> Iterator[tuple[RedisServer, Callable[[], None], RedisServer]]:
    """Yield a master, a function that cuts off its replica and promotes it, and the replica."""
    with RedisServer() as master, RedisServer("--replicaof", "127.0.0.1", str(master.port)) as replica:
        until(lambda: client_of(replica).info("replication")["master_link_status"] == "up", "a replica")

        def promote() -> None:
            client_of(master).wait(1, 0)
            client_of(replica).replicaof("NO", "ONE")

        yield master, promote, replica


def test_events_missing_from_restored_file_keep_their_ids(tmp_path: Path) -> None:
    """No running process knows of the lost events, and still none of their ids is reused."""
    with restorable(tmp_path) as (server, save, restore):
        with closing_board(server.url) as gone:
            had = gone.publish("a", *range(5))
            save()
            lost = gone.publish("a", "lost 5", "lost 6")
        restore()
        with closing_board(server.url) as board:
            new = board.publish("a", "new 5", "new 6", "new 7")
            assert not {*had, *lost} & {*new}
            events = board_reads(board, "a", last=lost[-1], count=9)
            assert gap_of(events) == {"requested": lost[-1], "oldest": had[0], "newest": new[-1]}
            assert [event.id for event in events[1:]] == [*had, *new]
            events = board_reads(board, "a", last=had[3], count=4)
            assert texts(events) == ["4", "new 5", "new 6", "new 7"]
            assert [event.id for event in events] == [had[4], *new]


def test_promoted_replica_reuses_no_id_of_its_master() -> None:
    with promoted_replica() as (master, promote, replica):
        with closing_board(master.url) as before:
            had = before.publish("a", *range(3))
            promote()
            lost = before.publish("a", "lost")
        with closing_board(replica.url) as after:
            new = after.publish("a", "new")
            assert new != lost
            assert gap_of(board_reads(after, "a", last=lost[0], count=5))["requested"] == lost[0]
            assert texts(board_reads(after, "a", last=had[1], count=2)) == ["2", "new"]


def test_restart_without_loss_continues_streams_without_gap(tmp_path: Path) -> None:
    with restorable(tmp_path) as (server, save, restore), closing_board(server.url) as board:
        with board.open("a") as stream:
            [before] = board.publish("a", "before")
            read(stream, 1)
            save()
            restore()
            with closing_board(server.url) as other:
                after = other.publish("a", "after", "last")
            events = read(stream, 2)
            assert texts(events) == ["after", "last"]
            assert [event.id for event in events] == after
        assert after == [f"{epoch_of(after[0])}-{number}" for number in (2, 3)]
        assert epoch_of(before) != epoch_of(after[0])
        events = board_reads(board, "a", last=before, count=2)
        assert texts(events) == ["after", "last"]


@pytest.mark.parametrize("durable", [True, False])
def test_restart_changes_epoch_only_if_it_may_lose_events(durable: bool) -> None:
    settings = ["--appendfsync", "always" if durable else "everysec"]
    with RedisServer("--appendonly", "yes", *settings) as server:
        with closing(make_broker(server.url)) as broker:
            [first] = publish(broker, "a", "x")
        server.kill()
        server.start()
        with closing(make_broker(server.url)) as broker:
            [second, third] = publish(broker, "a", "y", "z")
        assert second.split("-")[1] == "2"
        assert (epoch_of(first) == epoch_of(second)) is durable
        assert third == moved(second, 1)


def test_lagging_replica_restarted_as_master_reuses_no_lost_id() -> None:
    """It lagged, but has every write that it ever received, as it syncs each one."""
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with RedisServer(*durable) as master, RedisServer(*durable) as replica:
        client = client_of(replica)
        client.replicaof("127.0.0.1", master.port)
        until(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "its file")
        with closing_board(master.url) as before:
            before.publish("a", *range(3))
            client_of(master).wait(1, 0)
            client.replicaof("127.0.0.1", 1)
            lost = before.publish("a", "lost")
        replica.kill()
        replica.start()
        with closing_board(replica.url) as after:
            assert after.publish("a", "new") != lost
            assert gap_of(board_reads(after, "a", last=lost[0], count=5))["requested"] == lost[0]
