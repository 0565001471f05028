"""The inputs that the fuzzer kept still pass; see ``fuzz/README.md``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.fuzz import corpus, decoder, endpoint, naive
from tests.support.awkward_events import PUBLISHED, WRITTEN

HARNESSES = {"decoder": decoder.check, "endpoint": endpoint.check}


def inputs(harness: str) -> list[Path]:
    found = corpus(harness)
    assert len(found) > 50
    return found


@pytest.mark.parametrize("harness", HARNESSES)
def test_fuzz_corpus_every_kept_input_passes_its_harness(harness: str) -> None:
    for path in inputs(harness):
        try:
            HARNESSES[harness](path.read_bytes())
        except BaseException as error:
            error.add_note(f"The input: {path}")
            raise


def test_fuzz_corpus_is_small() -> None:
    found = [path for harness in HARNESSES for path in inputs(harness)]
    assert len(found) < 200
    assert sum(path.stat().st_size for path in found) < 300_000


def test_fuzz_decoder_harness_passes_every_awkward_stream() -> None:
    """Some reach no line that others do not reach, so the fuzzer keeps none of them."""
    for block in WRITTEN:
        decoder.check(b"".join(block.pieces))


def test_fuzz_naive_reader_agrees_with_the_table_of_awkward_streams() -> None:
    before = b""
    in_force: str | None = None
    for block in WRITTEN:
        expected = []
        for name, own, data in block.dispatched:
            in_force = in_force if own is None else own
            expected.append((name, in_force, data))
        stream = before + b"".join(block.pieces)
        assert naive.read(stream) == expected, block.name
        before = b"\n" if in_force is None else f"id: {in_force}\n\n".encode()


def test_fuzz_naive_reader_agrees_with_the_table_of_awkward_events() -> None:
    for row in PUBLISHED:
        if row.is_json or len(row.expected or "") > 100_000:  # which takes this reader seconds
            continue
        own = None if row.event.id is None else str(row.event.id)
        expected = [] if row.expected is None else [(row.event.event or "message", own, row.expected)]
        assert naive.read(row.event.encode()) == expected, row.name
