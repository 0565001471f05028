"""Writes all that this package's own decoder makes of a stream, until it says the end."""

import json
import sys
from urllib.request import urlopen

from flask_sse_emitters.testing import EventDecoder

decoder, is_over = EventDecoder(), False
with urlopen(sys.argv[1], timeout=60) as response:
    while not is_over and (piece := response.read1()):
        for event in decoder.feed(piece):
            print(json.dumps([event.event or "message", event.id or "", event.data]))  # noqa: T201
            is_over |= (event.event, event.data) == ("mark", "end")
