"""The subscriber, which listens to Redis for the whole process.

One thread (:mod:`.thread`) has one connection at a time (:mod:`.session`), on which Redis announces the events of the
channels that have a client here (:mod:`..listening.topics`), and of no others. It keeps a copy of their logs. An
announcement carries its offset: where that is not the next one, or nothing is known yet (:mod:`.catch_up`), the thread
looks the channel up in Redis, and goes on from there (:mod:`.lookups`). So it may lose its connection, or be too slow
for Redis, and loses no event by it, as long as Redis has them.

Where events are gone that clients here lack, or Redis has lost some, a new log takes the place of the old one, and the
listeners are notified: see :meth:`.Listener.started`.
"""

from .thread import Subscriber as Subscriber
