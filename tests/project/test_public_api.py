"""The public API: its names and signatures do not change by accident."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, is_typeddict

#: The modules that users import by name; ``""`` is the package itself.
MODULES = ("", "access", "brokers", "datastar", "gunicorn", "metrics", "signals", "testing", "types")

#: One line for each name, as :func:`described` makes it. After an intended change, run this file as a program.
LISTING = Path(__file__).parent / "public_api.txt"


def described() -> Iterator[str]:
    """Yield every public name, with its signature if it has one."""
    for name in MODULES:
        module = import_module(f"flask_sse_emitters.{name}".rstrip("."))
        for public in sorted(module.__all__):
            yield from _describe(f"{module.__name__}.{public}", getattr(module, public))


def _describe(name: str, value: Any) -> Iterator[str]:
    if is_typeddict(value):
        yield name
        yield from (f"{name}.{key}" for key in sorted(value.__required_keys__))
        yield from (f"{name}.{key}?" for key in sorted(value.__optional_keys__))
        return
    yield f"{name}{_signature(value)}"
    if inspect.isclass(value) and value.__module__.startswith("flask_sse_emitters"):
        for attribute in sorted(dir(value)):
            own = any(attribute in vars(base) for base in value.__mro__ if base.__module__.startswith("flask_sse_"))
            if own and not attribute.startswith("_"):
                yield f"{name}.{attribute}{_signature(getattr(value, attribute))}"


def _signature(value: Any) -> str:
    if not (inspect.isfunction(value) or inspect.isbuiltin(value) or inspect.isclass(value)):
        return ""
    if inspect.isclass(value) and issubclass(value, Enum | BaseException) and "__init__" not in vars(value):
        return ""  # made as Python makes them, which differs from version to version
    signature = inspect.signature(value)
    parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    return re.sub(r" at 0x\w+", "", text)


def test_public_api_is_as_listed() -> None:
    assert list(described()) == LISTING.read_text().splitlines()


if __name__ == "__main__":
    LISTING.write_text("".join(f"{line}\n" for line in described()))
