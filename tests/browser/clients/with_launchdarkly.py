"""Follows the stream of the URL given with launchdarkly-eventsource; with an option as it comes: it stays away then."""

import sys

from ld_eventsource import SSEClient
from ld_eventsource.config import ConnectStrategy, ErrorStrategy, RetryDelayStrategy

url, *options = sys.argv[1:]
strategy = None if options else ErrorStrategy.always_continue()

client = SSEClient(
    ConnectStrategy.http(url, urllib3_request_options={"timeout": 60}),  # longer than SSE_HEARTBEAT
    error_strategy=strategy,
    initial_retry_delay=0.1,  # it does not take the server's
    retry_delay_strategy=RetryDelayStrategy.default(max_delay=30, jitter_multiplier=0.5),
)
for event in client.events:
    print(event.event, event.last_event_id or "", event.data, sep="\t", flush=True)  # noqa: T201
