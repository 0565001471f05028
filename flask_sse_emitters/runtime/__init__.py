"""Threads, greenlets, time and sockets. Knows nothing of events."""
