"""Publishing what a run has pulled, and keeping its channel for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from ...brokers import CHANNEL_END, INTERRUPTED, Bounds, Broker, Publication, Published, RunLost
from ...errors import BrokerUnavailable
from ...wire.frame import Frame
from .pending import Pending

log = logging.getLogger("flask_sse_emitters.runs")

#: A run of which nothing is heard for so long is dead.
LEASE_SECONDS = 10.0

#: So often a run says that it lives, and finds out whether it was cancelled; and asks a broker that was away.
RENEW_SECONDS = 0.5


class Publishing(Protocol):
    """What a run has to know of the channels of its app: see :class:`.Channels`."""

    broker: Broker

    def send(self, publications: Sequence[Publication]) -> list[Published | Exception]:
        """Publish all in one step."""


class Stop(Enum):
    """Why no more of a run is published than what is pending, or nothing at all."""

    CANCELLED = "cancelled"  #: nothing more is published: the channel ends now
    INTERRUPTED = "interrupted"  #: its process stops: clients are told that something is missing
    SETTLED = "settled"  #: its channel has ended, or was lost


class PublishingThread:
    """The thread that publishes a run, and all that it asks the broker for it.

    :param run: a name that no other run has.
    :param every: what comes within so many seconds is published in one step.
    """

    def __init__(self, channels: Publishing, channel: str, run: str, bounds: Bounds, every: float) -> None:
        self._channels = channels
        self._channel = channel
        self._run = run
        self._bounds = bounds
        #: Is called at the end.
        self.on_settled: Callable[[], object] = lambda: None
        self.stopped: Stop | None = None
        self.pending = Pending(every, self.is_stopped)
        self._renew_at = time.monotonic() + RENEW_SECONDS
        self._steps = 0

    def is_stopped(self) -> bool:
        """Whether nothing more is to be pulled."""
        return self.stopped is not None

    @property
    def is_settled(self) -> bool:
        """Whether the channel has ended, or is lost."""
        return self.stopped is Stop.SETTLED

    def stop(self, why: Stop) -> None:
        """Publish no more than this says. From any thread; the first one counts."""
        if self.stopped is None:
            self.stopped = why
        self.pending.wake()

    def lose_channel(self) -> None:
        """Publish nothing more, as the broker has taken the channel from the run. From any thread."""
        self.stopped = Stop.SETTLED
        self.pending.wake()

    def publish_all(self) -> None:
        """Publish until the end."""
        try:
            more = True
            while more:
                self.pending.await_some(self._renew_at)
                more = self._cancel() if self.stopped is Stop.CANCELLED else self._publish_pending()
        except BaseException:
            log.exception("the run of the channel %r cannot be published", self._channel)
        finally:
            self.stopped = Stop.SETTLED
            self.pending.wake()
            self.on_settled()

    def _publish_pending(self) -> bool:
        """Publish what is pending. Return whether there may be more."""
        frames, is_last = self.pending.take()
        if self.stopped is Stop.INTERRUPTED and not is_last:
            frames, is_last = [*frames, INTERRUPTED], True
        if is_last:
            frames = [*frames, CHANNEL_END]
        has_channel = self._publish(frames) if frames else self._renew()
        self._renew_at = time.monotonic() + RENEW_SECONDS
        return has_channel and not is_last

    def _renew(self) -> bool:
        """Keep the channel, as each step does. Return whether it has it still, as far as can be known now."""
        try:
            return self._channels.broker.renew_run(self._channel, self._run, LEASE_SECONDS)
        except BrokerUnavailable:
            return True

    def _cancel(self) -> bool:
        """End the channel, if the run has it still: another may have it by now. Return whether the broker is away."""
        [result] = self._channels.send([Publication(self._channel, CHANNEL_END, self._bounds, None, self._run)])
        if isinstance(result, BrokerUnavailable):
            self.pending.sleep(RENEW_SECONDS)
            return True
        return False

    def _publish(self, frames: Sequence[Frame]) -> bool:
        """Publish in one step, again until the broker has answered. Return whether the run still has the channel.

        The first has a key. Where the step may have been done before, that one alone is published again: only if it is
        new, so are the others.
        """
        publications = [Publication(self._channel, frame, self._bounds, None, self._run) for frame in frames]
        is_again = False
        while publications:
            if not is_again:
                self._steps += 1
                publications[0] = publications[0]._replace(key=f"~run {self._run} {self._steps}")
            results = self._channels.send(publications[:1] if is_again else publications)
            first = results[0]
            if any(isinstance(result, RunLost) for result in results):
                return False
            if any(isinstance(result, Exception) for result in results):
                is_again = True
                if self.stopped is Stop.CANCELLED:
                    return True
                self.pending.sleep(RENEW_SECONDS)
            elif is_again and isinstance(first, Published) and first.is_new:
                publications, is_again = publications[1:], False
            else:
                return True
        return True
