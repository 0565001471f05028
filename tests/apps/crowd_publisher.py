"""Publish numbers in a process of its own, one after the other, each until it is confirmed; it may be killed.

    python -m tests.apps.crowd_publisher URL CHANNEL FIRST LAST SECONDS

A number's key is the number itself, so that another process can continue where one was killed.
"""

from __future__ import annotations

import sys
import time

from flask_sse_emitters import BrokerUnavailable, Publisher


def main(url: str, channel: str, first: int, last: int, pause: float) -> None:
    """Print which numbers are begun and confirmed, and the number of failed attempts."""
    failed = 0
    with Publisher(url, publish_seconds=0.5) as publisher:
        for number in range(first, last + 1):
            print("begun", number, flush=True)  # noqa: T201
            while True:
                try:
                    publisher.publish(channel, number, key=str(number))
                    break
                except BrokerUnavailable:
                    failed += 1
                    print("failed", failed, flush=True)  # noqa: T201
                    time.sleep(0.05)
            print("confirmed", number, flush=True)  # noqa: T201
            time.sleep(pause)


if __name__ == "__main__":
    url, channel, first, last, pause = sys.argv[1:]
    main(url, channel, int(first), int(last), float(pause))
