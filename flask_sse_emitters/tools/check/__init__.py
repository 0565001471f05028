"""Whether a deployed stream does what it should, seen from where its clients are: ``flask sse check``."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .clients import judge_http2, judge_origin, judge_preflight, judge_replay
from .connection import Unreachable, seconds_until
from .findings import Finding, said
from .headers import judge_caching, judge_encoding, judge_status, judge_way
from .target import Target
from .times import SLACK, judge_body, judge_silence
from .wire import STEP_SECONDS, Answer, speaks_http2

__all__ = ["Finding", "Plan", "Target", "check"]

#: Seconds to look at what a server that is not ours sends.
LOOK = 4.0

#: Seconds in which the answer to a Last-Event-ID is to be there.
REPLAY = 5.0

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)

_GAP = re.compile(rb"(?m)^event: ?gap\r?$")

# What a page may send to another origin without asking first, or what its browser sends for it.
_UNASKED = ("accept", "accept-language", "cookie", "host", "origin", "referer", "user-agent")

_HINTS = {
    "unreachable": "Is the address right, does the server run, and does a firewall let you through to it?",
    "tls": "The certificate must be good for this name, and come with its chain. --insecure looks at the rest anyway.",
    "no-byte": "A proxy holds back what it gets (nginx: proxy_buffering off;), or all threads of the server are busy.",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be checked.

    :ivar origin: of a page that is to read the stream; None where that is its own.
    :ivar seconds: how long a silent stream is looked at, at most, for its heartbeat.
    :ivar replay: whether clients that come back are to get what they missed.
    """

    target: Target
    origin: str | None = None
    seconds: float = 75.0
    replay: bool = True


def check(plan: Plan, say: Callable[[str], object]) -> list[Finding]:
    """Connect as a client does, and find out what is wrong.

    It takes a little longer than the stream's heartbeat: some 20 s. Nothing is published.

    :param say: is told, a sentence each time, what is waited for, and how long at most.
    """
    return _Check(plan, say).run()


class _Check:
    def __init__(self, plan: Plan, say: Callable[[str], object]) -> None:
        self._plan = plan
        self._say = say
        self._target = plan.target
        self._asked: list[tuple[str, Answer]] = []  # of a stream, each with its nonce

    def run(self) -> list[Finding]:
        findings: list[Finding] = []
        try:
            first = self._begin(findings)
            findings += judge_status(first)
            if findings[-1].level == "ok":
                findings += self._look(first)
        except Unreachable as error:
            findings.append(Finding(error.name, "fault", str(error), _HINTS[error.name]))
        finally:
            for _, answer in self._asked:
                answer.cancel()
        return findings

    def _begin(self, findings: list[Finding]) -> Answer:
        """The answer to the first request, after redirects, which share its time."""
        ends = None
        while True:
            target = self._target
            left = math.ceil(STEP_SECONDS if ends is None else seconds_until(ends))
            self._say(f"connecting to {target.host}:{target.port}, and waiting for the answer, {left} s at most")
            first = self._ask(_has_padding, _comment_seconds, comments=True, ends=ends)
            ends = first.ends
            first.await_head()
            location = first.value("Location")
            if first.status not in _REDIRECTS or not location or len(findings) == _MOST_REDIRECTS:
                break
            first.cancel()
            try:
                self._target = target.redirected(location)
            except ValueError as error:
                raise Unreachable("unreachable", f"It is redirected to {location!r}: {error}.") from error
            seen = f"{first.status}, to {self._target.url}"
            findings.append(Finding("redirect", "note", seen, "Give clients this address at once."))
        if first.status != 200:
            self._say(f"reading why it is {first.status}, {first.at_most} s at most")
            first.await_end()
        return first

    def _look(self, first: Answer) -> Iterator[Finding]:
        plan = self._plan
        quiet = self._ask(_is_beaten, self._silence)
        back = self._ask(_has_gap, lambda _: REPLAY, last_event_id=True) if plan.replay else None
        self._say(f"reading what comes one by one, {_comment_seconds(first):g} s at most")
        first.await_end()
        others = [quiet] if back is None else [quiet, back]
        judged = [*judge_body(first, [])]
        is_held_up = any(finding.level == "fault" and finding.name != "no-byte" for finding in judged)
        if is_held_up:
            self._say("nothing more is to be seen through this: the other streams are not waited for")
        else:
            if back is not None:
                self._say(f"coming back with a Last-Event-ID that was never given, {back.at_most} s at most")
                back.await_end()
            self._await_beat(quiet)
        yield from judged if is_held_up else judge_body(first, others)
        yield from judge_encoding(first)
        yield from judge_caching(self._asked)
        yield from judge_way(first)
        if not is_held_up:
            yield from judge_silence(quiet)
            if back is not None:
                yield from judge_replay(first, back)
        yield from self._look_at_origin()
        yield from judge_http2(self._target, self._http2())

    def _await_beat(self, quiet: Answer) -> None:
        told = said(quiet)
        every = f", every {told.heartbeat:g} s" if told is not None and told.heartbeat else ""
        self._say(f"waiting on a silent stream for a heartbeat{every}, {quiet.at_most} s at most")
        quiet.await_end()

    def _silence(self, quiet: Answer) -> float:
        told = said(quiet)
        if told is None or not told.heartbeat:
            return self._plan.seconds
        return min(told.heartbeat + SLACK, self._plan.seconds)

    def _look_at_origin(self) -> Iterator[Finding]:
        origin, target = self._plan.origin, self._target
        if origin is None:
            return
        self._say(f"asking as a page of {origin}, {STEP_SECONDS:g} s at most")
        answer = Answer(target, {"Origin": origin}, lambda _: True, lambda _: 0.0)
        answer.await_end()
        yield from judge_origin(origin, answer, with_cookies=target.has("Cookie"))
        asked = [name for name, _ in target.headers if name.lower() not in _UNASKED]
        if asked:
            question = {
                "Origin": origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": ",".join(sorted(name.lower() for name in asked)),
            }
            bare = replace(target, headers=tuple(each for each in target.headers if each[0].lower() == "host"))
            self._say(f"asking whether it may send {', '.join(asked)}, {STEP_SECONDS:g} s at most")
            preflight = Answer(bare, question, lambda _: True, lambda _: 0.0, method="OPTIONS")
            preflight.await_end()
            yield from judge_preflight(origin, preflight, asked)

    def _http2(self) -> bool | None:
        if not self._target.is_tls:
            return None
        self._say(f"asking for HTTP/2, {STEP_SECONDS:g} s at most")
        try:
            return speaks_http2(self._target)
        except Unreachable:
            return None

    def _ask(
        self,
        enough: Callable[[Answer], bool],
        seconds: Callable[[Answer], float],
        *,
        comments: bool = False,
        last_event_id: bool = False,
        ends: float | None = None,
    ) -> Answer:
        nonce = secrets.token_hex(8)
        headers = {"Sse-Check": f"{nonce}; comments" if comments else nonce}
        if last_event_id:
            headers["Last-Event-ID"] = f"check-{nonce}"
        answer = Answer(self._target, headers, enough, seconds, ends=ends)
        self._asked.append((nonce, answer))
        return answer


def _comment_seconds(answer: Answer) -> float:
    told = said(answer)
    return LOOK if told is None else told.comments * told.every + LOOK


def _has_padding(answer: Answer) -> bool:
    """Whether all comments have come, and some of the large one after them, of which a proxy may keep the rest."""
    told = said(answer)
    if told is None or not told.comments:
        return False
    _, found, rest = answer.body.partition(b": check %d\n" % told.comments)
    return bool(found) and (len(rest) > 1000 or rest.startswith(b"\n"))


def _is_beaten(answer: Answer) -> bool:
    """Whether something has come after nearly so long a silence as there is between heartbeats."""
    told = said(answer)
    last = len(answer.pieces) - 1
    if last < 1:
        return False
    if told is None:
        return answer.quiet_before(last) >= 2 and answer.pieces[last].data.startswith(b":")
    return bool(told.heartbeat) and answer.quiet_before(last) >= 0.75 * told.heartbeat


def _has_gap(answer: Answer) -> bool:
    return _GAP.search(answer.body) is not None
