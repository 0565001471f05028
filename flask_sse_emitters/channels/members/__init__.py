"""Members: who reads a channel, over all processes, and the events that tell who comes and goes.

:mod:`.subscription` notes the streams of a channel that has members, :mod:`.here` knows whose they are in this process,
and until when one that is gone may come back unnoticed. :mod:`.roster` tells the broker what has changed, on a helper
thread, and that this process lives. The broker knows all processes, and publishes ``join`` and ``leave``.
"""
