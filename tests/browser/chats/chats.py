"""Chats of npm "ai" in a program of Node's, ``clients/chats/chats.mjs``, and the app that answers them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.browser.readers import bundle_for
from tests.support.client import get, new_name
from tests.support.programs import program
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

SCRIPTS = Path(__file__).parents[1] / "clients" / "chats"


class ChatProgram:
    """A process that has chats, as pages have them."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process = process
        self._output = output.open()
        self._begun = ""  # of a line
        self._numbers = count()
        self._results: dict[int, Any] = {}

    def call(self, name: str, *values: Any) -> Any:
        """Call a command, and return its result."""
        return self.result_of(self.begin(name, *values))

    def begin(self, name: str, *values: Any) -> int:
        """Call a command that may take long, and return the number of the call."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        print(json.dumps([number, name, *values]), file=self._process.stdin, flush=True)
        return number

    def result_of(self, call: int) -> Any:
        until(lambda: self._has_result_of(call), f"the result of call {call}")
        return self._results.pop(call)

    def _has_result_of(self, call: int) -> bool:
        *lines, self._begun = (self._begun + self._output.read()).split("\n")
        self._results.update(map(json.loads, lines))
        return call in self._results

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)
        self._output.close()


@contextmanager
def chat_program(folder: Path) -> Iterator[ChatProgram]:
    """Start one; this folder is its own."""
    bundle_for("node", [SCRIPTS / "chats.mjs"], folder)
    output = folder / "output"
    with output.open("wb") as stdout:
        command = [program("node", "nodejs"), str(folder / "chats.js")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, text=True)
    with closing(ChatProgram(process, output)) as started:
        yield started


class Conversation:
    """One chat of the app ``tests/apps/browser/chats.py``, and what the test lets its answers say.

    :param folder: that of the app.
    """

    def __init__(self, site: Server, folder: Path) -> None:
        self.site = site
        self.id = new_name()
        self._folder = folder

    def allow(self, words: int) -> None:
        """Let answers have so many words."""
        new = self._folder / f"{self.id}.allowing"
        new.write_text(str(words))
        new.rename(self._folder / f"{self.id}.allowed")

    def saved(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(self.site, f"/api/chat/{self.id}")
        return found

    def point_to(self, channel: str) -> None:
        """Say that this channel has the newest answer."""
        (self._folder / f"{self.id}.answer").write_text(channel)

    def await_closed(self) -> int:
        """Wait until the newest answer is made no more, and return how many words it had begun."""
        file = self._folder / f"{self.id}.closed"
        return int(until(lambda: file.exists() and file.read_text(), "the answer's iterable to be closed"))


class ChatPage:
    """A page of Node's that shows a conversation, with what was saved of it when it was loaded."""

    def __init__(self, program: ChatProgram, conversation: Conversation) -> None:
        self._program = program
        messages = conversation.saved()
        self._number = program.call("open", conversation.site.url, conversation.id, messages)

    def send(self, text: str) -> None:
        self._program.call("send", self._number, text)

    def resume(self) -> None:
        """Do what ``useChat({ resume: true })`` does as it begins."""
        self._program.call("resume", self._number)

    def leave(self) -> None:
        self._program.call("leave", self._number)

    def read(self) -> int:
        """Begin to read what there is to resume, by the transport alone; ``text_of_read`` has the result."""
        return self._program.begin("read", self._number)

    def text_of_read(self, call: int) -> str | None:
        """Return the text of the last message that was read; None where there was nothing to resume."""
        message = self._program.result_of(call)
        return message and text_of(message)

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self._program.call("look", self._number)
        return found

    def await_answer(self) -> int:
        """Wait until the app has answered its first request, and return the status."""
        [[status, _], *_] = until(lambda: self.look()["answers"], "the answer to its request")
        return int(status)

    def await_state(self, status: str, *texts: str) -> dict[str, Any]:
        """Wait until the chat has this status, and shows these messages."""

        def reached() -> dict[str, Any] | None:
            found = self.look()
            shown = [text_of(message) for message in found["messages"]]
            return found if (found["status"], shown) == (status, list(texts)) else None

        return until(reached, f"{status} with {texts}") or {}


def text_of(message: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["parts"]).strip()
