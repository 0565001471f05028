"""Connect to a stream several times, and collect the findings."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .answer import STEP_SECONDS, Answer, speaks_http2
from .capabilities import judge_http2, judge_origin, judge_preflight, judge_replay, judge_writer
from .connection import Unreachable, seconds_until
from .findings import Finding, read_server_report
from .headers import judge_caching, judge_encoding, judge_proxy, judge_status
from .target import Target
from .timing import SLACK_SECONDS, judge_body, judge_silence

#: Seconds to observe a stream whose server reports nothing.
OBSERVE_SECONDS = 4.0

#: Seconds in which the answer to a Last-Event-ID must arrive.
REPLAY_SECONDS = 5.0

_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)

_GAP = re.compile(rb"(?m)^event: ?gap\r?$")

# Headers that a page may send to another origin without a preflight, or that its browser sends by itself.
_NO_PREFLIGHT = ("accept", "accept-language", "cookie", "host", "origin", "referer", "user-agent")

_HINTS = {
    "unreachable": "Is the address right, does the server run, and does a firewall let you through to it?",
    "tls": "The certificate must be valid for this name, and come with its chain. --insecure checks the rest anyway.",
    "no-byte": "A proxy buffers the response (nginx: proxy_buffering off;), or all threads of the server are busy.",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check.

    :ivar origin: of a page of another site that must be able to read the stream.
    :ivar seconds: how long to wait for the heartbeat of a silent stream, at most.
    :ivar replay: whether reconnecting clients must get what they missed.
    """

    target: Target
    origin: str | None = None
    seconds: float = 75.0
    replay: bool = True


def check(plan: Plan, report_progress: Callable[[str], object]) -> list[Finding]:
    """Connect as clients do, and find out what is wrong. Publishes nothing.

    Blocks for a little longer than the stream's heartbeat: about 20 s.

    :param report_progress: is called with a sentence about each step: what is awaited, and for how long at most.
    """
    return _Check(plan, report_progress).run()


class _Check:
    def __init__(self, plan: Plan, report_progress: Callable[[str], object]) -> None:
        self._plan = plan
        self._report_progress = report_progress
        self._target = plan.target
        self._answers: list[tuple[str, Answer]] = []  # of streams, each with its nonce

    def run(self) -> list[Finding]:
        findings: list[Finding] = []
        try:
            first = self._follow_redirects(findings)
            findings += judge_status(first)
            if findings[-1].level == "ok":
                findings += self._observe(first)
        except Unreachable as error:
            findings.append(Finding(error.name, "fault", str(error), _HINTS[error.name]))
        finally:
            for _, answer in self._answers:
                answer.cancel()
        return findings

    def _follow_redirects(self, findings: list[Finding]) -> Answer:
        """Return the answer to the first request, after redirects, which share its time."""
        deadline = None
        while True:
            target = self._target
            left = math.ceil(STEP_SECONDS if deadline is None else seconds_until(deadline))
            self._report_progress(
                f"connecting to {target.host}:{target.port}, and waiting for the answer, {left} s at most"
            )
            first = self._request(_has_padding, _comment_seconds, comments=True, deadline=deadline)
            deadline = first.deadline
            first.await_head()
            location = first.value("Location")
            if first.status not in _REDIRECTS or not location or len(findings) == _MAX_REDIRECTS:
                break
            first.cancel()
            try:
                self._target = target.redirected(location)
            except ValueError as error:
                raise Unreachable("unreachable", f"It is redirected to {location!r}: {error}.") from error
            seen = f"{first.status}, to {self._target.url}"
            findings.append(Finding("redirect", "note", seen, "Give clients this address."))
        if first.status != 200:
            self._report_progress(f"reading why it is {first.status}, {first.at_most} s at most")
            first.await_end()
        return first

    def _observe(self, first: Answer) -> Iterator[Finding]:
        plan = self._plan
        quiet = self._request(_has_heartbeat, self._seconds_of_silence)
        back = self._request(_has_gap, lambda _: REPLAY_SECONDS, last_event_id=True) if plan.replay else None
        self._report_progress(f"reading what arrives one by one, {_comment_seconds(first):g} s at most")
        first.await_end()
        others = [quiet] if back is None else [quiet, back]
        judged = [*judge_body(first, [])]
        is_broken = any(finding.level == "fault" and finding.name != "no-byte" for finding in judged)
        is_last = is_broken or first.is_over
        if is_last:
            why = "nothing more can be seen through this" if is_broken else "it is over for good"
            self._report_progress(f"{why}: the other streams are skipped")
        else:
            if back is not None:
                self._report_progress(f"reconnecting with an unknown Last-Event-ID, {back.at_most} s at most")
                back.await_end()
            self._await_heartbeat(quiet)
        yield from judged if is_last else judge_body(first, others)
        yield from judge_encoding(first)
        yield from judge_caching(self._answers)
        yield from judge_proxy(first)
        yield from judge_writer(first)
        if not is_last:
            yield from judge_silence(quiet)
            if back is not None:
                yield from judge_replay(first, back)
        yield from self._check_origin()
        yield from judge_http2(self._target, self._http2())

    def _await_heartbeat(self, quiet: Answer) -> None:
        report = read_server_report(quiet)
        every = f", every {report.heartbeat:g} s" if report is not None and report.heartbeat else ""
        self._report_progress(f"waiting on a silent stream for a heartbeat{every}, {quiet.at_most} s at most")
        quiet.await_end()

    def _seconds_of_silence(self, quiet: Answer) -> float:
        report = read_server_report(quiet)
        if report is None or not report.heartbeat:
            return self._plan.seconds
        return min(report.heartbeat + SLACK_SECONDS, self._plan.seconds)

    def _check_origin(self) -> Iterator[Finding]:
        origin, target = self._plan.origin, self._target
        if origin is None:
            return
        self._report_progress(f"requesting it as a page of {origin}, {STEP_SECONDS:g} s at most")
        answer = Answer(target, {"Origin": origin}, lambda _: True, lambda _: 0.0)
        answer.await_end()
        yield from judge_origin(origin, answer, with_cookies=target.has("Cookie"))
        asked = [name for name, _ in target.headers if name.lower() not in _NO_PREFLIGHT]
        if asked:
            question = {
                "Origin": origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": ",".join(sorted(name.lower() for name in asked)),
            }
            bare = replace(target, headers=tuple(each for each in target.headers if each[0].lower() == "host"))
            self._report_progress(f"asking whether it may send {', '.join(asked)}, {STEP_SECONDS:g} s at most")
            preflight = Answer(bare, question, lambda _: True, lambda _: 0.0, method="OPTIONS")
            preflight.await_end()
            yield from judge_preflight(origin, preflight, asked)

    def _http2(self) -> bool | None:
        if not self._target.is_tls:
            return None
        self._report_progress(f"asking for HTTP/2, {STEP_SECONDS:g} s at most")
        try:
            return speaks_http2(self._target)
        except Unreachable:
            return None

    def _request(
        self,
        is_enough: Callable[[Answer], bool],
        seconds: Callable[[Answer], float],
        *,
        comments: bool = False,
        last_event_id: bool = False,
        deadline: float | None = None,
    ) -> Answer:
        nonce = secrets.token_hex(8)
        headers = {"Sse-Check": f"{nonce}; comments" if comments else nonce}
        if last_event_id:
            headers["Last-Event-ID"] = f"check-{nonce}"
        answer = Answer(self._target, headers, is_enough, seconds, deadline=deadline)
        self._answers.append((nonce, answer))
        return answer


def _comment_seconds(answer: Answer) -> float:
    report = read_server_report(answer)
    return OBSERVE_SECONDS if report is None else report.comments * report.every + OBSERVE_SECONDS


def _has_padding(answer: Answer) -> bool:
    """Return whether all comments have arrived, and part of the large one, whose rest a proxy may hold back."""
    report = read_server_report(answer)
    if report is None or not report.comments:
        return False
    _, found, rest = answer.body.partition(b": check %d\n" % report.comments)
    return bool(found) and (len(rest) > 1000 or rest.startswith(b"\n"))


def _has_heartbeat(answer: Answer) -> bool:
    """Return whether something arrived after a silence of nearly the time between heartbeats."""
    report = read_server_report(answer)
    last = len(answer.pieces) - 1
    if last < 1:
        return False
    if report is None:
        return answer.quiet_before(last) >= 2 and answer.pieces[last].data.startswith(b":")
    return bool(report.heartbeat) and answer.quiet_before(last) >= 0.75 * report.heartbeat


def _has_gap(answer: Answer) -> bool:
    return _GAP.search(answer.body) is not None
