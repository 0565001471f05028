"""A process of the soak, and the pipe to it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any


class Child:
    """A process that runs until :meth:`stop`.

    :param target: its main function, called with its end of the pipe and the arguments.
    """

    def __init__(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=target, args=(far, *arguments), name=name, daemon=True)
        self.process.start()
        far.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def messages(self) -> Iterator[Any]:
        """Yield the messages that it has sent."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except EOFError:
            self.process.join()
            raise AssertionError(f"{self.process.name} has ended with {self.process.exitcode}") from None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
