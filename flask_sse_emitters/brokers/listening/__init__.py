"""What brokers have in common that listen to a server, on one thread for the whole process.

A process that listens keeps a copy of the log of each channel that has a client there (:mod:`.topics`), and looks up
what it lacks (:mod:`.lookup`). The server has its own clock (:mod:`.clock`), and may be away (:mod:`.health`).
"""
