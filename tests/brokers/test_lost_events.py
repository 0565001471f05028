"""Redis loses its newest events: no id is ever given to two events, and no loss goes without a gap."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_sse_emitters.brokers import make_broker
from tests.support.board import board_reads, closing_board, gap_of, moved, read, texts
from tests.support.broker_calls import listening, publish
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


def roll_back(server: RedisServer, kept: dict[bytes, bytes]) -> None:
    """Restore these keys in one transaction."""
    with client_of(server).pipeline() as at_once:
        for key, dumped in kept.items():
            at_once.restore(key, 0, dumped, replace=True)
        at_once.execute()


def dumped(server: RedisServer, channel: str) -> dict[bytes, bytes]:
    client = client_of(server)
    return {key: client.dump(key) for key in client.keys(f"sse:{{{channel}}}:*")}


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
        broker = make_broker(server.url)
        [first] = publish(broker, "a", "x")
        broker.close()
        server.kill()
        server.start()
        broker = make_broker(server.url)
        [second, third] = publish(broker, "a", "y", "z")
        broker.close()
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


def test_process_that_knew_lost_events_starts_new_epoch() -> None:
    """Another process, which knew less, has published first."""
    with RedisServer() as server:
        quick, knows = make_broker(server.url), make_broker(server.url)
        publish(knows, "a", 1, 2)
        kept = dumped(server, "a")
        lost = publish(knows, "a", 3)
        roll_back(server, kept)
        given = publish(quick, "a", "new 3", "new 4", "new 5")
        assert given[0] == lost[0], "it cannot know, as the server is the same"
        [first] = publish(knows, "a", "first")
        assert epoch_of(first) != epoch_of(lost[0])
        for broker in (quick, knows):
            broker.close()


@pytest.mark.parametrize("publishes", [True, False])
def test_received_events_are_remembered_after_last_client_left(publishes: bool) -> None:
    with RedisServer() as server:
        other, broker = make_broker(server.url), make_broker(server.url)
        listener = listening(broker, "~7")
        publish(other, "~7", 1, 2)
        kept = dumped(server, "~7")
        lost = publish(other, "~7", 3)
        until(lambda: len(listener.frames) == 3, "all events")
        broker.unsubscribe("~7", listener)
        roll_back(server, kept)
        quick = make_broker(server.url)
        publish(quick, "~7", "new 3", "new 4")
        if publishes:
            assert epoch_of(publish(broker, "~7", "first")[0]) != epoch_of(lost[0])
        else:
            log = listening(broker, "~7").log
            assert log is not None
            assert log.epoch != epoch_of(lost[0])
        for each in (other, quick, broker):
            each.close()


def test_redis_user_without_info_and_config_publishes_and_reads() -> None:
    """A restart that may have lost events is then not noticed, as documented; everything else works."""
    rights = (
        "+eval +evalsha +script|load +subscribe +unsubscribe +ping +select +hset +hget +hgetall +hsetnx +hincrby +hdel "
        "+del +exists +get +set +pexpire +persist +xadd +xrange +xdel +publish +time +zadd +zrem +zrangebyscore "
        "+zremrangebyscore"
    )
    with RedisServer() as server:
        client_of(server).execute_command(f"ACL SETUSER app on >secret ~sse:* &sse:* -@all {rights}")
        broker = make_broker(server.url.replace("//", "//app:secret@"))
        listener = listening(broker, "a")
        publish(broker, "a", 1, 2)
        until(lambda: len(listener.frames) == 2, "both events")
        assert broker.status()["state"] == "ok"
        broker.close()
