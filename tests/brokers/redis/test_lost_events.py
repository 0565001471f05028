"""Redis loses its newest events: no id is ever given to two events, and no loss goes without a gap."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker, make_broker
from tests.brokers.states import await_end
from tests.support.board import Board, board_reads, closing_board, gap_of, moved, read, texts
from tests.support.brokers.broker_calls import listening, publish
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until


def epoch_of(event_id: str) -> str:
    return event_id.split("-")[0]


def dumped(client: Any, channel: str) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.keys(f"sse:{{{channel}}}:*")}


def roll_back(client: Any, kept: dict[bytes, bytes]) -> None:
    """Restore these keys in one transaction."""
    with client.pipeline() as at_once:
        for key, value in kept.items():
            at_once.restore(key, 0, value, replace=True)
        at_once.execute()


@pytest.mark.parametrize("between", [0, 3])
def test_process_that_knew_lost_events_starts_new_epoch(
    client: Any, new_broker: Callable[[], Broker], between: int
) -> None:
    """Perhaps another process, which knew less, has published in between."""
    quick, knows = new_broker(), new_broker()
    publish(knows, "a", 1, 2)
    kept = dumped(client, "a")
    lost = publish(knows, "a", 3)
    roll_back(client, kept)
    given = publish(quick, "a", *range(between))
    assert given[:1] == lost[: len(given)], "it cannot know, as the server is the same"
    [first] = publish(knows, "a", "first")
    assert epoch_of(first) != epoch_of(lost[0])
    assert first.endswith("-1")
    assert publish(quick, "a", "second") == [moved(first, 1)]


@pytest.mark.parametrize("publishes", [True, False])
def test_lost_events_are_remembered_after_last_client_left(
    client: Any, new_broker: Callable[[], Broker], publishes: bool
) -> None:
    other, broker = new_broker(), new_broker()
    listener = listening(broker, "~7")
    publish(other, "~7", 1, 2)
    kept = dumped(client, "~7")
    lost = publish(other, "~7", 3)
    until(lambda: len(listener.frames) == 3, "all events")
    broker.unsubscribe("~7", listener)
    roll_back(client, kept)
    publish(new_broker(), "~7", "new 3", "new 4")
    if publishes:
        epoch = epoch_of(publish(broker, "~7", "first")[0])
    else:
        log = listening(broker, "~7").log
        assert log is not None
        epoch = log.epoch
    assert epoch != epoch_of(lost[0])


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("by", ["flush", "restart"])
def test_redis_flush_or_restart_is_one_gap_then_new_events(server: RedisServer, board: Board, by: str) -> None:
    with board.open("a") as stream:
        ids = board.publish("a", 1, 2, 3)
        read(stream, 3)
        if by == "restart":
            restart(server)
            await_end(board, stream)
    if by == "flush":
        server.run("FLUSHALL")
        with board.open("a", last=ids[0]) as stream:  # revocations are lost as well, so this client must reconnect
            await_end(board, stream)
    assert gap_of(board_reads(board, "a", last=ids[0], count=1))["requested"] == ids[0], "nothing is published yet"
    new = board.publish("a", 4, 5)
    assert epoch_of(new[0]) != epoch_of(ids[0])
    events = board_reads(board, "a", last=ids[1], count=3)
    assert gap_of(events) == {"requested": ids[1], "oldest": new[0], "newest": new[1]}
    assert [(event.data, event.id) for event in events[1:]] == [("4", new[0]), ("5", new[1])]


@pytest.mark.parametrize("more", [0, 1, 2, 5], ids="{} more".format)
def test_lost_events_leave_their_ids_to_no_others(
    client: Any, new_broker: Callable[[], Broker], board: Board, more: int
) -> None:
    """As after a failover to a replica that lacked the last events, with any number of new ones since."""
    with board.open("a") as stream:
        [*_, last] = board.publish("a", 1, 2)
        kept = dumped(client, "a")
        seen = board.publish("a", 3, 4)
        read(stream, 4)
        roll_back(client, kept)
        publish(new_broker(), "a", *[f"new {number}" for number in range(more)])
        client.client_kill_filter(_type="pubsub")
        await_end(board, stream)
    [latest] = board.publish("a", "latest")
    events = board_reads(board, "a", last=seen[-1], count=2)
    assert gap_of(events)["requested"] == seen[-1]
    assert all(epoch_of(str(event.id)) != epoch_of(last) for event in events)
    assert events[-1].id == latest


@pytest.mark.parametrize("by", [1, 1000, 10**15])
def test_lost_events_are_a_gap_for_client_with_a_future_id(board: Board, by: int) -> None:
    [event_id] = board.publish("a", 1)
    with board.open("a", last=moved(event_id, by)) as stream:
        events = read(stream, 2)
    assert gap_of(events)["requested"] == moved(event_id, by)
    assert [(event.data, event.id) for event in events[1:]] == [("1", event_id)]


@contextmanager
def restorable(folder: Path) -> Iterator[tuple[RedisServer, Callable[[], None], Callable[[], None]]]:
    """Start a Redis with an append-only file; yield it, and functions that save its files and restart it from them."""
    with RedisServer("--appendonly", "yes") as server:

        def restore() -> None:
            server.kill()
            shutil.rmtree(server.folder)
            shutil.copytree(folder / "kept", server.folder)
            server.start()

        def save() -> None:
            # While the system is still at the last flush of the file, Redis writes nothing to it, for up to 2 s.
            with server.client() as client:
                until(lambda: client.info("persistence")["aof_buffer_length"] == 0, "Redis to have written its file")
            shutil.copytree(server.folder, folder / "kept")

        yield server, save, restore


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
            assert [(event.data, event.id) for event in events] == [
                ("4", had[4]),
                *((f"new {number}", new[number - 5]) for number in (5, 6, 7)),
            ]


def test_restart_without_loss_continues_streams_without_gap(tmp_path: Path) -> None:
    with restorable(tmp_path) as (server, save, restore), closing_board(server.url) as board:
        with board.open("a") as stream:
            [before] = board.publish("a", "before")
            read(stream, 1)
            save()
            restore()
            with closing_board(server.url) as other:
                after = other.publish("a", "after", "last")
            assert [(event.data, event.id) for event in read(stream, 2)] == [("after", after[0]), ("last", after[1])]
        assert after == [f"{epoch_of(after[0])}-{number}" for number in (2, 3)]
        assert epoch_of(before) != epoch_of(after[0])
        assert texts(board_reads(board, "a", last=before, count=2)) == ["after", "last"]


@pytest.mark.parametrize("durable", [True, False])
def test_restart_changes_epoch_only_if_it_may_lose_events(durable: bool) -> None:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always" if durable else "everysec") as server:
        with closing(make_broker(server.url)) as broker:
            [first] = publish(broker, "a", "x")
        # While the disk is busy Redis puts off writing its file, for up to two seconds.
        until(lambda: server.client().info("persistence")["aof_buffer_length"] == 0, "Redis to have written its file")
        restart(server)
        with closing(make_broker(server.url)) as broker:
            [second, third] = publish(broker, "a", "y", "z")
    assert second.split("-")[1] == "2"
    assert (epoch_of(first) == epoch_of(second)) is durable
    assert third == moved(second, 1)


def promote(replica: RedisServer) -> None:
    replica.client().replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("take_over", "settings"),
    [(promote, []), (restart, ["--appendonly", "yes", "--appendfsync", "always"])],
    ids=["promoted", "restarted as master, with every write that it ever received"],
)
def test_promoted_replica_reuses_no_id_of_its_master(
    take_over: Callable[[RedisServer], None], settings: list[str]
) -> None:
    """It lacks the last event."""
    with RedisServer(*settings) as master, RedisServer(*settings) as replica:
        client = replica.client()
        client.replicaof("127.0.0.1", master.port)
        until(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "its file")
        with closing_board(master.url) as before:
            had = before.publish("a", *range(3))
            until(lambda: client.xlen("sse:{a}:log") == len(had), "the replica to have all")
            client.replicaof("127.0.0.1", 1)
            lost = before.publish("a", "lost")
        take_over(replica)
        with closing_board(replica.url) as after:
            assert after.publish("a", "new") != lost
            assert gap_of(board_reads(after, "a", last=lost[0], count=5))["requested"] == lost[0]
            assert texts(board_reads(after, "a", last=had[1], count=2)) == ["2", "new"]
