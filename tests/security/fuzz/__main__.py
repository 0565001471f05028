"""Runs a harness under the fuzzer: ``python -m tests.security.fuzz decoder [libFuzzer's options and folders]``."""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    try:
        atheris = import_module("atheris")
    except ImportError as error:
        raise SystemExit("the fuzzer is missing: pip install atheris") from error
    _, harness, *options = sys.argv
    with atheris.instrument_imports(include=["flask_sse_emitters"]):
        check = import_module(f"tests.security.fuzz.{harness}").check
    program = (
        f"{sys.executable} -m tests.security.fuzz {harness}"  # as the fuzzer starts it anew for each part of a merge
    )
    atheris.Setup([program, *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
