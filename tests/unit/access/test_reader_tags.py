"""Tags of readers, as the browser module gets them."""

from __future__ import annotations

from flask_sse_emitters.access.grants import tag_reader


def test_reader_tag_is_stable_for_one_reader_and_differs_for_others() -> None:
    tags = [tag_reader("alice", "a secret"), tag_reader("bob", "a secret"), tag_reader("alice", b"another")]
    assert tag_reader("alice", b"a secret") == tags[0]
    assert len(set(tags)) == 3
    assert {len(tag) for tag in tags} == {16}
    assert tag_reader("alice", "new", ["a secret", b"another"]) == f"{tag_reader('alice', 'new')}.{tags[0]}.{tags[2]}"
    assert tag_reader("al\xefce \u20ac", "a secret").isascii()
    assert tag_reader(None, "a secret") == tag_reader(None, None) == "-"
    without = [tag_reader("alice", None), tag_reader("alice", ""), tag_reader("bob", None)]
    assert without[0] == without[1] != without[2]
