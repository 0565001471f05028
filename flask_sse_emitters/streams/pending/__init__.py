"""What goes into a stream and waits for its client there, and those who wait for room."""
