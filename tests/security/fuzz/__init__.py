"""Harnesses for a coverage-guided fuzzer; the tests run what it has found through them, see README.md."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def corpus(harness: str) -> list[Path]:
    return sorted((CORPUS / harness).iterdir())
