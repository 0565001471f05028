"""Redis users that have just the rights that ``docs/brokers.rst`` names."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

from flask_sse_emitters import Publisher
from flask_sse_emitters.brokers import Bounds, Log, make_broker
from tests.brokers.redis.commands import invoked
from tests.support.board import Board, by_header, read, texts
from tests.support.brokers.broker_calls import end, listening, publish
from tests.support.brokers.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import until

_TEXT = (ROOT / "docs" / "brokers.rst").read_text()

#: The commands that make the users, by their names.
USERS = {name: line for line, name in re.findall(r"^   (ACL SETUSER (\w+) .*)$", _TEXT, re.MULTILINE)}

#: What is not used above: another database, scripts after a flush, and what old events and channels take.
RARE = {"select", "script", "xdel", "unsubscribe"}


def allowed(user: str) -> set[str]:
    return {right.partition("|")[0] for right in re.findall(r" \+([\w|]+)", USERS[user])}


def used(client: Any) -> set[str]:
    """Return the commands that Redis has run since its figures were reset, also those within scripts."""
    return {name.removeprefix("cmdstat_").partition("|")[0] for name in client.info("commandstats")}


def newest_of(log: Log) -> str:
    return str(log.position(log.newest))


def be_another_server(client: Any) -> None:
    """Have what was published before count as that of another server."""
    client.hset("sse:{a}:at", "server", "0" * 40)


def test_redis_user_of_the_docs_can_do_everything(server: RedisServer, client: Any) -> None:
    """Nothing is refused, and it has no right that nothing uses."""
    client.execute_command(USERS["app"])
    client.config_resetstat()
    url = server.url.replace("//", "//app:secret@")
    board = Board(by_header, SSE_BROKER_URL=url)
    with closing(board.sse), closing(make_broker(url)) as broker:
        listener = listening(broker, "a")
        broker.count_again("a")
        with board.open("a", user="ann"), board.open("a", user="bob") as bob:
            until(lambda: board.sse.channel("a").subscribers() == 3, "all clients")
            until(lambda: "2 clients" in invoked(url, "status").stdout, "the report of the process")
            [first, _] = board.publish("a", 1, 2)
            board.sse.publish("a", 3, key="k")
            assert texts(read(bob, 3)) == ["1", "2", "3"]
            board.sse.disconnect("ann")
            until(lambda: board.emitters[0].close_reason, "the reader to be disconnected")
            assert broker.start_run("a", "run", 60)
            assert broker.renew_run("a", "run", 60)
            assert broker.cancel_run("a", None)
            until(lambda: board.emitters[1].close_reason, "the end of the channel")
        be_another_server(client)
        [anew] = publish(broker, "a", 0, bounds=Bounds(3, 0.0))
        # A listener that looks up the new epoch is given none of what was published, and dropped, before that.
        until(lambda: listener.log is not None and newest_of(listener.log) == anew, "the new epoch")
        publish(broker, "a", *range(30), bounds=Bounds(3, 0.0))
        publish(broker, "a", 1, bounds=Bounds(3, 60.0))
        publish(broker, "a", 1, bounds=Bounds(0, 60.0))
        with board.open("a", user="bob", last=first) as back:
            assert read(back, 1)
        end(broker, "a")
        broker.check_writable()
        assert broker.status()["state"] == "ok"
        until(lambda: len(listener.frames) > 30, "the events")
    assert client.acl_log() == []
    assert allowed("app") - used(client) - RARE == set()


def test_redis_user_of_a_publisher_can_publish(server: RedisServer, client: Any, board: Board) -> None:
    client.execute_command(USERS["publisher"])
    publisher = Publisher(server.url.replace("//", "//publisher:secret@"))
    with closing(publisher), board.open("a") as stream:
        publisher.publish("a", 1)
        publisher.publish("a", 2, key="k")
        be_another_server(client)
        publisher.publish_many([("a", 3), ("b", 1)])
        publisher.publish_to("ann", "hello")
        assert texts(read(stream, 3)) == ["1", "2", "3"]
    assert client.acl_log() == []
    assert allowed("publisher") < allowed("app")
    assert "subscribe" not in allowed("publisher")
