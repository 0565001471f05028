"""Replay: giving a client that comes back what it has missed, and telling it of gaps.

:mod:`.machine` says what happens when, and why no event is lost between logs and lists: read its head first.
:mod:`.locating` finds the client's position in the logs of its channels, :mod:`.reading` reads on from there, and
:mod:`.pages` shares what was read with other clients. :mod:`.cursor` makes the ids by which clients say how far they
got, :mod:`.gap` the event that tells them of a gap.
"""
