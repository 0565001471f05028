"""What brokers have in common that listen to a server, on one thread for the whole process (:mod:`.thread`).

A process that listens keeps a copy of the log of each channel that has a client there (:mod:`.topics`), and looks up
what it lacks (:mod:`.lookup`). It reports its clients to the others (:mod:`.presence`).
"""
