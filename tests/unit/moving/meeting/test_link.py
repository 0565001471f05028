"""The link of two workers: messages and descriptors, who is let in, and what is left where something fails."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_sse_emitters.moving.meeting.folder import Folder
from flask_sse_emitters.moving.meeting.link import MAX_MESSAGE_BYTES, Link, LinkLost, Listener, close_all, connect
from flask_sse_emitters.moving.protocol.messages import MAX_STREAMS, Offer, OfferBuilder, Refusal, Welcome, encode
from flask_sse_emitters.moving.protocol.stream_record import StreamRecord

Links = tuple[Link, Link]
Record = Callable[..., StreamRecord]


def offer_of(*streams: StreamRecord) -> bytes:
    builder = OfferBuilder(1, MAX_MESSAGE_BYTES)
    assert all(map(builder.add, streams))
    return builder.encode()


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def room_for_files(number: int) -> Iterator[None]:
    free = os.open(os.devnull, os.O_RDONLY)  # the lowest one
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_link_brings_messages_in_both_directions_and_none_where_none_is(links: Links) -> None:
    stops, stays = links
    assert stays.receive() is None
    assert stops.send(encode(Welcome()))
    assert stops.send(encode(Refusal("limit")))
    assert [stays.receive(), stays.receive(), stays.receive()] == [(Welcome(), []), (Refusal("limit"), []), None]
    assert stays.send(encode(Welcome()))
    assert stops.receive() == (Welcome(), [])
    assert stops.peer == stays.peer == os.getpid()


def test_link_brings_connections_that_go_on_when_the_first_side_closes(
    links: Links, record: Record, pair: tuple[socket.socket, socket.socket]
) -> None:
    stops, stays = links
    server, client = pair
    assert stops.send(offer_of(record()), [server.fileno()])
    found = stays.receive()
    assert found is not None
    message, (descriptor,) = found
    assert message == Offer(1, (record(),))
    server.close()
    assert not os.get_inheritable(descriptor)
    with socket.socket(fileno=descriptor) as moved:
        moved.sendall(b"data: from the other\n\n")
        assert client.recv(100) == b"data: from the other\n\n"


def test_link_brings_as_many_connections_as_an_offer_may_have(links: Links, record: Record) -> None:
    stops, stays = links
    with open(os.devnull) as file:
        assert stops.send(offer_of(*[record()] * MAX_STREAMS), [file.fileno()] * MAX_STREAMS)
    found = stays.receive()
    assert found is not None
    assert len(set(found[1])) == MAX_STREAMS
    close_all(found[1])


def test_link_takes_the_largest_message_by_default(links: Links) -> None:
    stops, stays = links
    about = MAX_MESSAGE_BYTES - len(encode(Refusal("limit")))
    assert stops.send(encode(Refusal("limit", "x" * about)))
    assert stays.receive() == (Refusal("limit", "x" * about), [])


def test_link_without_room_says_so_and_goes_on_later(links: Links) -> None:
    stops, stays = links
    packet = encode(Refusal("limit", "x" * 50_000))
    sent = 0
    while stops.send(packet):
        sent += 1
    assert sent
    assert [stays.receive() for _ in range(sent)] == [(Refusal("limit", "x" * 50_000), [])] * sent
    assert stops.send(packet)


@pytest.mark.parametrize("closes", [0, 1], ids=["it stops", "it stays"])
def test_link_is_lost_where_the_other_side_closes(links: Links, closes: int) -> None:
    links[closes].close()
    links[closes].close()
    other = links[1 - closes]
    with pytest.raises(LinkLost):
        other.receive()
    with pytest.raises(LinkLost):
        other.send(encode(Welcome()))


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("no message", "no message"),
        ("too few", "1 descriptors, not 2"),
        ("too many", "2 descriptors, not 1"),
        ("none wanted", "1 descriptors, not 0"),
        ("too large", "more than"),
    ],
)
def test_link_is_lost_over_what_breaks_the_protocol_and_keeps_no_file(
    links: Links, record: Record, case: str, why: str
) -> None:
    stops, stays = links
    packet, count = {
        "no message": (b"{}", 2),
        "too few": (offer_of(record(), record()), 1),
        "too many": (offer_of(record()), 2),
        "none wanted": (encode(Welcome()), 1),
        "too large": (encode(Refusal("limit", "x" * MAX_MESSAGE_BYTES)), 1),
    }[case]
    before = open_files()
    with open(os.devnull) as file:
        assert stops.send(packet, [file.fileno()] * count)
    with pytest.raises(LinkLost, match=why):
        stays.receive()
    assert open_files() == before


def test_link_brings_an_offer_without_files_where_too_few_can_be_opened(links: Links, record: Record) -> None:
    stops, stays = links
    before = open_files()
    with open(os.devnull) as file:
        assert stops.send(offer_of(*[record()] * 20), [file.fileno()] * 20)
    with room_for_files(5):
        found = stays.receive()
    assert found is not None
    assert (len(found[0].streams) if isinstance(found[0], Offer) else 0, found[1]) == (20, [])
    assert open_files() == before
    assert stays.send(encode(Refusal("descriptors")))
    assert stops.receive() == (Refusal("descriptors"), [])


def test_link_with_a_foreign_user_is_made_by_neither_side(folder: Folder) -> None:
    before = open_files()
    other = os.geteuid() + 1
    listener = Listener(folder, user=other)
    with pytest.raises(LinkLost, match="belongs to the user"):
        connect(folder, str(os.getpid()), user=other)
    ours = connect(folder, str(os.getpid()))
    assert ours is not None
    for _ in range(2):
        with pytest.raises(LinkLost, match="belongs to the user"):
            listener.accept()
    with pytest.raises(LinkLost):
        ours.receive()
    ours.close()
    listener.close()
    assert open_files() == before


def test_listener_is_found_by_its_process_until_it_closes(folder: Folder) -> None:
    listener = Listener(folder)
    assert listener.accept() is None
    assert folder.names() == [str(os.getpid())]
    listener.close()
    assert folder.names() == []
    assert connect(folder, str(os.getpid())) is None


def test_listener_takes_connections_before_it_is_found(tmp_path: Path) -> None:
    """Else one that looks meanwhile would be refused, take it for dead, and remove its socket."""
    seen = []

    class WatchedFolder(Folder):
        def rename(self, name: str, other: str) -> None:
            if not name.startswith("."):
                return  # it leaves
            link = connect(self, name)
            seen.append((self.names(), link is not None))
            if link is not None:
                link.close()
            super().rename(name, other)

    folder = WatchedFolder(os.getpid(), str(tmp_path))
    Listener(folder).close()
    folder.close()
    assert seen == [([], True)]


def test_listener_of_a_killed_process_is_removed_by_who_finds_it(folder: Folder) -> None:
    child = os.fork()
    if child == 0:
        Listener(Folder(os.getppid(), str(folder.path.parent)))
        os._exit(0)
    os.waitpid(child, 0)
    assert folder.names() == [str(child)]
    assert connect(folder, str(child)) is None
    assert folder.names() == []


def test_link_of_a_parent_is_left_by_a_forked_child(links: Links, in_child: Callable[..., str]) -> None:
    stops, stays = links
    assert in_child(lambda: (stops.fileno(), stays.fileno())) == "(-1, -1)"
    assert stops.send(encode(Welcome()))
    assert stays.receive() == (Welcome(), [])
