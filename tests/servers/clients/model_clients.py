"""The clients of language models that Python programs use, each asked for an answer in its own way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import anthropic
import openai

from tests.support.waiting import PATIENCE


class Answer(NamedTuple):
    """An answer that is under way."""

    texts: Iterator[str]
    downloaded: Callable[[], int]  #: how many bytes have come, also of comments
    close: Callable[[], None]


Ask = Callable[..., AbstractContextManager[Answer]]

#: What the clients raise where the server itself tells of an error amid an answer.
TOLD = (openai.APIError, anthropic.APIError)

#: What they make their requests with: older versions with httpx.
_HTTP = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]

#: What they raise where the connection breaks. Some pass on the error of what they make their requests with.
BROKEN = (openai.APIConnectionError, anthropic.APIConnectionError, *(module.TransportError for module in _HTTP))

#: What they raise where an answer has another status than 2xx.
REFUSED = (openai.APIStatusError, anthropic.APIStatusError)


@contextmanager
def ask_openai(url: str, **query: object) -> Iterator[Answer]:
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE) as client,
        client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], stream=True, extra_query=query
        ) as stream,
    ):
        found = (chunk.choices[0].delta.content for chunk in stream)
        texts = (text for text in found if text)
        yield Answer(texts, lambda: stream.response.num_bytes_downloaded, stream.close)


@contextmanager
def ask_anthropic(url: str, **query: object) -> Iterator[Answer]:
    with (
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE) as client,
        client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}], stream=True, extra_query=query
        ) as stream,
    ):
        deltas = (event.delta for event in stream if event.type == "content_block_delta")
        texts = (delta.text for delta in deltas if delta.type == "text_delta")
        yield Answer(texts, lambda: stream.response.num_bytes_downloaded, stream.close)


CLIENTS: dict[str, Ask] = {"openai": ask_openai, "anthropic": ask_anthropic}
