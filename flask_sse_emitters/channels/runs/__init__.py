"""Runs: what an iterable yields is published to a channel, whoever reads it; then the channel ends.

Each run has two threads (greenlets, where threads are that). One pulls the items, in copies of the contexts of the
request that began the run, and encodes them: see :mod:`.items`. The other publishes what has come, several in one step,
and keeps the run's lease in the broker: see :mod:`.publishing_thread`. It alone asks the broker for the run, so what it
asks is in order. The first waits where it is too far ahead of the second: see :mod:`.pending`.
"""
