"""The subscriber, which listens to PostgreSQL for the whole process.

One thread (:mod:`.thread`) has one connection at a time (:mod:`.session`), on which it is told how far channels are,
and on which it reads what channels lack that have a client here (:mod:`.lookups`). Once a second it looks for itself:
for what nobody told, as its publisher died, or nobody heard, as behind a pooler (:mod:`.hearing`).
"""

from .thread import Subscriber as Subscriber
