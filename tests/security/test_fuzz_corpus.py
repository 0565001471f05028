"""The inputs that the fuzzer kept still pass; see ``fuzz/README.md``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.fuzz import decoder, endpoint

HARNESSES = {"decoder": decoder.check, "endpoint": endpoint.check}


@pytest.mark.parametrize("harness", HARNESSES)
def test_fuzz_corpus_every_kept_input_passes_its_harness(harness: str) -> None:
    inputs = sorted((Path(__file__).parent / "fuzz/corpus" / harness).iterdir())
    assert len(inputs) > 50
    for path in inputs:
        try:
            HARNESSES[harness](path.read_bytes())
        except BaseException as error:
            error.add_note(f"The input: {path}")
            raise
