"""What a broker of a user's can do that was written before channels could end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker, Publication, Published, Start
from tests.support.brokers.broker_calls import KEPT, frame


class OldBroker(Broker):
    def publish(self, *_: Any, **__: Any) -> Published:
        return Published("abcde-1", is_new=True)

    def subscribe(self, *_: Any) -> Start | None:
        return None

    def unsubscribe(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass


CALLS: dict[str, Callable[[Broker], object]] = {
    "publish_many": lambda broker: broker.publish_many([Publication("a", frame("x"), KEPT)]),
    "state": lambda broker: broker.state("a"),
    "start_run": lambda broker: broker.start_run("a", "run", 10),
    "renew_run": lambda broker: broker.renew_run("a", "run", 10),
    "cancel_run": lambda broker: broker.cancel_run("a", None),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_broker_without_a_method_says_what_it_lacks(call: Callable[[Broker], object]) -> None:
    broker = OldBroker()
    assert broker.publish("a", frame("x"), KEPT).is_new
    with pytest.raises(NotImplementedError, match="OldBroker"):
        call(broker)
